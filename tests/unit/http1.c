/* http1.c - gateway/http1.c and port_host.c: whole, in single bytes, broken, random. */
#include "http1.h"
#include "port_host.h"

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

static void
on_head(void *arg, const struct http1_head *head)
{
	(void)arg;
	buf_fmt(&seen, "%d,%d", head->status, (int)head->length);
	for (const struct http1_header *h = head->header; h->name; h++)
		buf_fmt(&seen, "[%s=%s]", h->name, h->value);
	buf_chr(&seen, '|');
}

static void
on_body(void *arg, const char *p, size_t n)
{
	(void)arg;
	buf_add(&seen, p, n);
}

static void
on_end(void *arg)
{
	(void)arg;
	buf_chr(&seen, '.');
}

static const struct http1_events events = { on_head, on_body, on_end };

/* What the parser says of an answer that comes in pieces of `step`, and ends. "!": refused. */
static const char *
said(const char *text, size_t n, size_t step, bool no_body)
{
	struct http1 h;
	struct err e = { 0 };

	seen = BUF(mem);
	buf_str(&seen, "");
	http1_open(&h, mem, no_body, &events, NULL);
	for (size_t at = 0; at < n;) {
		size_t give = n - at < step ? n - at : step;
		ssize_t used = http1_feed(&h, text + at, give, &e);

		ck_assert_int_le(used, (ssize_t)give);
		if (used < 0) {
			ck_assert_int_eq(e.code, E_PROTOCOL);
			buf_chr(&seen, '!');
			return seen.data;
		}
		at += (size_t)used;
		if ((size_t)used < give) {
			buf_fmt(&seen, "+%zu", n - at);
			return seen.data;
		}
	}
	if (http1_eof(&h, &e) < 0)
		buf_chr(&seen, '!');
	return seen.data;
}

static void
both(const char *text, const char *want)
{
	ck_assert_str_eq(said(text, strlen(text), 1 << 16, false), want);
	if (!strchr(want, '+'))
		ck_assert_str_eq(said(text, strlen(text), 1, false), want);
}

START_TEST(answers)
{
	both("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc", "200,3[Content-Length=3]|abc.");
	both("HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n", "200,0[Content-Length=0]|.");
	both("HTTP/1.0 404 Not Found\r\nA:\tb \r\n\r\nabc", "404,-1[A=b]|abc.");
	both("HTTP/1.1 204 \r\n\r\n", "204,-1|.");
	both("HTTP/1.1 304 x\r\nContent-Length: 9\r\n\r\n", "304,9[Content-Length=9]|.");
	both("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 x\r\nL: m\r\n\r\nHTTP/1.1 200 "
	     "OK\r\nContent-Length: "
	     "1\r\n\r\nx",
	    "200,1[Content-Length=1]|x.");
	both("HTTP/1.1 200 OK\r\nTransfer-Encoding: "
	     "Chunked\r\n\r\n3\r\nabc\r\n0a;x=\"y\"\r\n0123456789\r\n0\r\nT: "
	     "r\r\n\r\n",
	    "200,-1[Transfer-Encoding=Chunked]|abc0123456789.");
	both("HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\nx",
	    "200,1[Content-Length=1][Content-Length=1]|x.");
	both("HTTP/1.1 101 Up\r\nUpgrade: x\r\n\r\n", "101,-1[Upgrade=x]|");
	both("HTTP/1.1 101 Up\r\n\r\nraw", "101,-1|+3");
	both("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nxHTTP/1.1 200",
	    "200,1[Content-Length=1]|x.+12");
	ck_assert_str_eq(said("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", 38, 99, true),
	    "200,5[Content-Length=5]|.");
}
END_TEST

START_TEST(refused)
{
	static const char *const bad[] = { "SSH-2.0-x\r\n\r\n", "HTTP/2 200 OK\r\n\r\n",
		"HTTP/1.1 2000 OK\r\n\r\n", "HTTP/1.1 099 x\r\n\r\n", "HTTP/1.1  200\r\n\r\n",
		"HTTP/1.1 200 OK\nA: b\r\n\r\n", "HTTP/1.1 200 OK\r\nA b\r\n\r\n",
		"HTTP/1.1 200 OK\r\nA : b\r\n\r\n", "HTTP/1.1 200 OK\r\nA: b\r\n c\r\n\r\n",
		"HTTP/1.1 200 OK\r\nA: b\001\r\n\r\n", "HTTP/1.1 200 OK\r\n: b\r\n\r\n",
		"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
		"HTTP/1.1 200 OK\r\nContent-Length: 1,1\r\n\r\n",
		"HTTP/1.1 200 OK\r\nContent-Length: 9999999999999999999\r\n\r\n",
		"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
		"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
		"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", "", "HTTP/1.1 200 OK\r\n",
		"\r\n\r\n" };
	static const char *const bad_chunks[] = { "g\r\n", "\r\n", "1\nx\r\n", "1\r\nxy\r\n",
		"1\r\nx\n", "1000000000000000\r\n", "-1\r\n", "1\r\nx\r\n", "0\r\nT: r\n\r\n",
		"0\r\n" };

	for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
		both(bad[i], "!");
	for (size_t i = 0; i < sizeof bad_chunks / sizeof *bad_chunks; i++) {
		char *text = talloc_asprintf(
		    mem, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%s", bad_chunks[i]);
		const char *out = said(text, strlen(text), 1 << 16, false);

		ck_assert_msg(out[strlen(out) - 1] == '!', "%s: %s", bad_chunks[i], out);
	}
	ck_assert_str_eq(said("HTTP/1.1 200 OK\r\nA: \0b\r\n\r\n", 25, 99, false), "!");
	ck_assert_str_eq(said("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nab", 40, 99, false),
	    "200,3[Content-Length=3]|ab!");
}
END_TEST

START_TEST(bounded)
{
	struct http1 h;
	struct err e = { 0 };
	char line[64];
	ssize_t used = 0;

	http1_open(&h, mem, false, &events, NULL);
	ck_assert_int_gt(http1_feed(&h, "HTTP/1.1 200 OK\r\n", 17, &e), 0);
	for (int i = 0; i < HTTP1_HEADERS; i++)
		ck_assert_int_gt(
		    http1_feed(&h, line, (size_t)snprintf(line, sizeof line, "A%d: b\r\n", i), &e),
		    0);
	used = http1_feed(&h, "Z: z\r\n\r\n", 8, &e);
	ck_assert_int_eq(used, -1);
	e = (struct err){ 0 };
	http1_open(&h, mem, false, &events, NULL);
	ck_assert_int_gt(http1_feed(&h, "HTTP/1.1 200 OK\r\nA: ", 20, &e), 0);
	for (int i = 0; i <= HTTP1_HEAD_MAX && used >= -1; i++)
		if ((used = http1_feed(&h, "x", 1, &e)) < 0)
			break;
	ck_assert_int_eq(used, -1);
}
END_TEST

/* Random damage: never a crash, never more than was there. */
START_TEST(damaged)
{
	static const char whole[] =
	    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nA: b\r\n\r\n3\r\nabc\r\n0\r\n\r\n";

	srandom(7);
	for (int i = 0; i < 20000; i++) {
		char text[sizeof whole];

		memcpy(text, whole, sizeof whole);
		for (long n = random() % 4; n >= 0; n--)
			text[random() % (long)(sizeof whole - 1)] = (char)random();
		(void)said(text, sizeof whole - 1, (size_t)(1 + random() % 40), random() & 1);
		talloc_free_children(mem);
	}
}
END_TEST

#define ID "03ha1jvcgrvn9hwop620nolxl"

START_TEST(hosts)
{
	static const struct {
		const char *host, *domain;
		bool is;
		unsigned port;
		bool bare;
	} t[] = {
		{ "8080-" ID ".localhost:8080", "localhost:8080", true, 8080, true },
		{ "8080-cl-" ID ".localhost:99", "localhost:8080", true, 8080, false },
		{ "1-cl-" ID ".Cap.Example.NET", "cap.example.net", true, 1, false },
		{ "65536-" ID ".localhost", "localhost", true, 0, true },
		{ "0-" ID ".localhost", "localhost", true, 0, true },
		{ "1-zzzzzzzzzzzzzzzzzzzzzzzzz.localhost", "localhost", true, 0, true },
		{ "123456-" ID ".localhost", "localhost", false, 0, false },
		{ "8080-" ID ".localhost.evil", "localhost", false, 0, false },
		{ "8080-" ID "x.localhost", "localhost", false, 0, false },
		{ "8080-" ID, "localhost", false, 0, false },
		{ "8080-" ID ".", "localhost", false, 0, false },
		{ "-" ID ".localhost", "localhost", false, 0, false },
		{ "8080-CL-" ID ".localhost", "localhost", false, 0, false },
		{ "8080-cl-cl-" ID ".localhost", "localhost", false, 0, false },
		{ "x8080-" ID ".localhost", "localhost", false, 0, false },
		{ "api.localhost", "localhost", false, 0, false },
		{ "", "localhost", false, 0, false },
		{ NULL, "localhost", false, 0, false },
	};

	for (size_t i = 0; i < sizeof t / sizeof *t; i++) {
		struct port_place p;

		ck_assert_msg(
		    port_host_read(t[i].host, t[i].domain, &p) == t[i].is, "%s", t[i].host);
		if (!t[i].is)
			continue;
		ck_assert_uint_eq(p.port, t[i].port);
		ck_assert_int_eq(p.bare, t[i].bare);
		ck_assert(p.by_host);
	}
}
END_TEST

START_TEST(headers)
{
	struct port_place p;

	port_headers_read(ID, NULL, &p);
	ck_assert(p.bare && !p.by_host && p.port == GUEST_PORT);
	ck_assert_str_eq(p.id, "cl-" ID);
	port_headers_read(ID, "8080", &p);
	ck_assert_uint_eq(p.port, 8080);
	port_headers_read(ID, "80a", &p);
	ck_assert_uint_eq(p.port, 0);
	port_headers_read(ID, "", &p);
	ck_assert_uint_eq(p.port, 0);
	port_headers_read("cl-" ID, "80", &p);
	ck_assert_uint_eq(p.port, 0);
	port_headers_read("", "80", &p);
	ck_assert_uint_eq(p.port, 0);
}
END_TEST

int
main(void)
{
	TCase *c = tcase_create("http1");
	Suite *suite = suite_create("http1");
	SRunner *runner = srunner_create(suite);
	int failed = 0;

	tcase_add_checked_fixture(c, setup, teardown);
	tcase_add_test(c, answers);
	tcase_add_test(c, refused);
	tcase_add_test(c, bounded);
	tcase_add_test(c, damaged);
	tcase_add_test(c, hosts);
	tcase_add_test(c, headers);
	tcase_set_timeout(c, 60);
	suite_add_tcase(suite, c);
	srunner_run_all(runner, CK_NORMAL);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
