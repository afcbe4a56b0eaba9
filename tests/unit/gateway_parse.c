/* gateway_parse.c - gateway/multipart.c, connect.c, utf8.c: whole, in single bytes, broken, random.
 */
#include "connect.h"
#include "multipart.h"
#include "process_call.h"
#include "utf8.h"

#include <check.h>
#include <stdlib.h>
#include <string.h>
#include <talloc.h>

static void *mem;
static struct buf seen;

static void
setup(void)
{
	mem = talloc_new(NULL);
	seen = BUF(mem);
}

static void
teardown(void)
{
	talloc_free(mem);
}

/* ---- multipart */

static int
on_part(void *arg, const char *name, struct err *e)
{
	(void)arg;
	(void)e;
	buf_fmt(&seen, "<%s>", name);
	return 0;
}

static int
on_data(void *arg, const char *p, size_t n, struct err *e)
{
	(void)arg;
	(void)e;
	buf_add(&seen, p, n);
	return 0;
}

static int
on_part_end(void *arg, struct err *e)
{
	(void)arg;
	(void)e;
	buf_chr(&seen, ';');
	return 0;
}

static const struct multipart_events events = { on_part, on_data, on_part_end };

#define TYPE "multipart/form-data; boundary=XX"
#define PART(name, value) \
	"--XX\r\nContent-Disposition: form-data; name=\"" name "\"\r\n\r\n" value "\r\n"

/* The parsing of text in pieces of n bytes; the parts, or NULL. */
static const char *
form(const char *type, const char *text, size_t len, size_t n, struct err *e)
{
	struct multipart m;

	buf_clear(&seen);
	buf_str(&seen, "");
	if (multipart_open(&m, mem, type, &events, NULL, e) < 0)
		return NULL;
	for (size_t i = 0; i < len; i += n)
		if (multipart_feed(&m, text + i, len - i < n ? len - i : n, e) < 0)
			return NULL;
	return multipart_end(&m, e) < 0 ? NULL : seen.data;
}

START_TEST(form_whole_and_in_pieces)
{
	static const char text[] = "preamble\r\n" PART(
	    "path", "/a") "--XX  \r\n"
			  "content-type: text/plain\r\n"
			  "CONTENT-DISPOSITION: form-data; filename=\"x;name=y\"; name=file\r\n"
			  "\r\n"
			  "a\r\n--X\r\n\r\n-b\r\n" PART("empty", "") "--XX--\r\nepilogue";

	for (size_t n = 1; n < sizeof text; n++) {
		struct err e = { 0 };
		const char *got = form(TYPE, text, sizeof text - 1, n, &e);

		ck_assert_msg(got, "%s", e.text);
		ck_assert_str_eq(got, "<path>/a;<file>a\r\n--X\r\n\r\n-b;<empty>;");
	}
}
END_TEST

START_TEST(form_types)
{
	struct err e = { 0 };

	ck_assert_ptr_null(form("application/json", "", 0, 1, &e));
	ck_assert_int_eq(e.code, E_MEDIA_TYPE);
	e = (struct err){ 0 };
	ck_assert_ptr_null(form("multipart/form-data", "", 0, 1, &e));
	ck_assert_int_eq(e.code, E_BAD_INPUT);
	e = (struct err){ 0 };
	ck_assert_ptr_null(form("multipart/form-data; boundary=\"\"", "", 0, 1, &e));
	ck_assert_int_eq(e.code, E_BAD_INPUT);
	e = (struct err){ 0 };
	ck_assert_ptr_null(form("multipart/form-data; boundary=\"x", "", 0, 1, &e));
	e = (struct err){ 0 };
	ck_assert_ptr_null(
	    form("multipart/form-data; boundary="
		 "01234567890123456789012345678901234567890123456789012345678901234567890",
		"", 0, 1, &e));
	e = (struct err){ 0 };
	ck_assert_str_eq(
	    form("Multipart/Form-Data; charset=x; boundary=\"a b\"", "--a b--", 7, 3, &e), "");
}
END_TEST

START_TEST(form_refused)
{
	static const char *const bad[] = {
		"",
		"--XX",
		PART("a", "b"),
		"--XX\r\n\r\nno head\r\n--XX--",
		"--XX\r\nContent-Disposition: form-data\r\n\r\nx\r\n--XX--",
		"--XX\r\nContent-Disposition: attachment; name=a\r\n\r\nx\r\n--XX--",
		"--XX\r\nContent-Disposition: form-data; name=\"a\r\n\r\nx\r\n--XX--",
		"--XXgarbage\r\n\r\n\r\n--XX--",
		"--XX\rx",
	};

	for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
		for (size_t n = 1; n < 50; n += 7) {
			struct err e = { 0 };

			ck_assert_msg(!form(TYPE, bad[i], strlen(bad[i]), n, &e), "%s", bad[i]);
			ck_assert_int_eq(e.code, E_BAD_INPUT);
		}
}
END_TEST

START_TEST(form_bounded)
{
	struct buf b = BUF(mem);
	struct err e = { 0 };

	buf_str(&b, "--XX\r\n");
	for (int i = 0; i < 2000; i++)
		buf_str(&b, "x-filler: 0123456789\r\n");
	ck_assert_ptr_null(form(TYPE, b.data, b.len, 1000, &e));
	ck_assert_int_eq(e.code, E_BAD_INPUT);
	e = (struct err){ 0 };
	buf_clear(&b);
	for (int i = 0; i < MULTIPART_PARTS + 1; i++)
		buf_str(&b, PART("a", "b"));
	buf_str(&b, "--XX--");
	ck_assert_ptr_null(form(TYPE, b.data, b.len, 1000, &e));
	e = (struct err){ 0 };
	buf_clear(&b);
	for (int i = 0; i < 10000; i++)
		buf_str(&b, "no boundary at all ");
	ck_assert_ptr_null(form(TYPE, b.data, b.len, 1000, &e));
}
END_TEST

START_TEST(form_random)
{
	static const char letters[] = "\r\n-X:; \"=anameform-datContent-Disposition";

	for (unsigned seed = 0; seed < 3000; seed++) {
		char text[300];
		struct err e = { 0 };

		srand(seed);
		memcpy(text, PART("a", "b"), 54);
		for (size_t i = seed % 54; i < sizeof text; i++)
			text[i] = rand() % 8 ? letters[(size_t)rand() % (sizeof letters - 1)]
					     : (char)rand();
		(void)form(TYPE, text, sizeof text, 1 + seed % 40, &e);
	}
}
END_TEST

/* ---- Connect frames */

static int
on_frame(void *arg, unsigned flags, const char *json, size_t n)
{
	(void)arg;
	buf_fmt(&seen, "%u:%.*s|", flags, (int)n, json);
	return n == 4 && memcmp(json, "stop", 4) == 0 ? 7 : 0;
}

START_TEST(frames)
{
	struct buf b = BUF(mem);

	connect_frame(&b, 0, "{\"a\":1}", 7);
	connect_frame(&b, 0, "", 0);
	connect_frame(&b, CONNECT_LAST, "{}", 2);
	for (size_t n = 1; n <= b.len; n++) {
		struct connect c = { .part = BUF(mem), .max = 100 };
		struct err e = { 0 };

		buf_clear(&seen);
		for (size_t i = 0; i < b.len; i += n)
			ck_assert_int_eq(connect_feed(&c, (uint8_t *)b.data + i,
					     b.len - i < n ? b.len - i : n, on_frame, NULL, &e),
			    0);
		ck_assert_str_eq(seen.data, "0:{\"a\":1}|0:|2:{}|");
	}
}
END_TEST

START_TEST(frames_refused)
{
	struct connect c = { .part = BUF(mem), .max = 100 };
	struct err e = { 0 };

	ck_assert_int_eq(connect_feed(&c, (uint8_t *)"\1\0\0\0\2{}", 7, on_frame, NULL, &e), -1);
	ck_assert_int_eq(e.code, E_PROTOCOL);
	c = (struct connect){ .part = BUF(mem), .max = 100 };
	e = (struct err){ 0 };
	ck_assert_int_eq(connect_feed(&c, (uint8_t *)"\0\0\0\0\145", 5, on_frame, NULL, &e), -1);
	ck_assert_int_eq(e.code, E_PROTOCOL);
	c = (struct connect){ .part = BUF(mem), .max = 100 };
	e = (struct err){ 0 };
	ck_assert_int_eq(
	    connect_feed(&c, (uint8_t *)"\0\0\0\0\4stop\0\0", 11, on_frame, NULL, &e), 7);
}
END_TEST

/* ---- UTF-8 */

START_TEST(utf8)
{
	static const char *const good[] = { "", "abc", "\xc3\xa9", "\xe2\x82\xac",
		"\xf0\x9f\x98\x80", "\xf4\x8f\xbf\xbf", "\xed\x9f\xbf" };
	static const char *const bad[] = { "\x80", "\xc0\xaf", "\xc3", "\xe0\x80\xaf",
		"\xed\xa0\x80", "\xf4\x90\x80\x80", "\xf8\x88\x80\x80\x80", "a\xff", "\xe2\x82" };

	for (size_t i = 0; i < sizeof good / sizeof *good; i++)
		ck_assert(utf8_ok(good[i], strlen(good[i])));
	for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
		ck_assert(!utf8_ok(bad[i], strlen(bad[i])));
	ck_assert_uint_eq(utf8_whole("ab\xe2\x82", 4), 2);
	ck_assert_uint_eq(utf8_whole("ab\xe2\x82\xac", 5), 5);
	ck_assert_uint_eq(utf8_whole("ab\xf0\x9f\x98", 5), 2);
	ck_assert_uint_eq(utf8_whole("abc", 3), 3);
	ck_assert_uint_eq(utf8_whole("", 0), 0);
}
END_TEST

static void
mended(const char *text, const char *want)
{
	struct buf b = BUF(mem);

	utf8_mend(&b, text, strlen(text));
	ck_assert_str_eq(b.data ? b.data : "", want);
}

START_TEST(utf8_mended)
{
	mended("", "");
	mended("gr\xc3\xbc\xc3\x9f", "gr\xc3\xbc\xc3\x9f");
	mended("a\xff"
	       "b",
	    "a\xef\xbf\xbd"
	    "b");
	mended("\xc3", "\xef\xbf\xbd");
	mended("\xe2\x82x", "\xef\xbf\xbd\xef\xbf\xbdx");
}
END_TEST

/* ---- names of processes, starts */

START_TEST(selectors)
{
	static const char *const bad[] = { "", "0", "pid:", "pid:x", "tag:", "pid:0" };
	struct process_selector s;
	struct err e = { 0 };

	ck_assert_int_eq(process_selector_read("12", &s, &e), 0);
	ck_assert_int_eq(s.pid, 12);
	ck_assert_int_eq(process_selector_read("tag:12", &s, &e), 0);
	ck_assert_str_eq(s.tag, "12");
	ck_assert_int_eq(process_selector_read("web", &s, &e), 0);
	ck_assert_str_eq(s.tag, "web");
	for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
		ck_assert_int_eq(process_selector_read(bad[i], &s, &e), -1);
	ck_assert_int_eq(process_tag_check("a.b_c-9", &e), 0);
	ck_assert_int_eq(process_tag_check("a b", &e), -1);
	ck_assert_str_eq(process_signal_name(mem, "TERM"), "SIGNAL_SIGTERM");
	ck_assert_str_eq(process_signal_name(mem, "SIGKILL"), "SIGNAL_SIGKILL");
	ck_assert_ptr_null(process_signal_name(mem, "SEGV"));
}
END_TEST

START_TEST(starts)
{
	const char *args[] = { "a", "\"", NULL };
	struct buf b = BUF(mem);

	process_start_put(&b, &(struct process_start){ .cmd = "x", .tag = "t", .args = args });
	ck_assert_str_eq(b.data,
	    "{\"process\":{\"cmd\":\"x\",\"args\":[\"a\",\"\\\"\"]},\"tag\":\"t\",\"since\":0,"
	    "\"stdin\":false}");
	b = BUF(mem);
	process_start_put(&b,
	    &(struct process_start){
		.cmd = "x", .tag = "t", .cols = 80, .rows = 24, .input = true });
	ck_assert_str_eq(b.data,
	    "{\"process\":{\"cmd\":\"x\"},\"tag\":\"t\",\"pty\":{\"size\":{\"cols\":80,\"rows\":24}"
	    "},\"since\":0,\"stdin\":true}");
}
END_TEST

int
main(void)
{
	TCase *c = tcase_create("parse");
	Suite *suite = suite_create("gateway_parse");
	SRunner *runner = srunner_create(suite);
	int failed = 0;

	tcase_add_checked_fixture(c, setup, teardown);
	tcase_add_test(c, form_whole_and_in_pieces);
	tcase_add_test(c, form_types);
	tcase_add_test(c, form_refused);
	tcase_add_test(c, form_bounded);
	tcase_add_test(c, form_random);
	tcase_add_test(c, frames);
	tcase_add_test(c, frames_refused);
	tcase_add_test(c, utf8);
	tcase_add_test(c, utf8_mended);
	tcase_add_test(c, selectors);
	tcase_add_test(c, starts);
	suite_add_tcase(suite, c);
	srunner_run_all(runner, CK_NORMAL);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
