/* buf.c - lib/buf.c: growing, cutting, and JSON out. */
#include "buf.h"
#include "cleanup.h"
#include "json.h"
#include "unit.h"

#include <string.h>

START_TEST(grows)
{
	struct buf b = BUF(mem);
	int i;

	for (i = 0; i < 5000; i++)
		buf_fmt(&b, "%d,", i % 10);
	ck_assert_int_eq(b.len, 10000);
	ck_assert_int_eq(b.data[b.len], '\0');
	ck_assert_int_eq(memcmp(b.data + 9990, "5,6,7,8,9,", 10), 0);
}
END_TEST

START_TEST(numbers)
{
	struct buf b = BUF(mem);

	buf_int(&b, 0);
	buf_chr(&b, ' ');
	buf_int(&b, INT64_MIN);
	buf_chr(&b, ' ');
	buf_int(&b, INT64_MAX);
	ck_assert_str_eq(b.data, "0 -9223372036854775808 9223372036854775807");
}
END_TEST

START_TEST(cuts)
{
	struct buf b = BUF(mem);

	buf_clear(&b);
	buf_cut(&b, 3);
	buf_str(&b, "abcdef");
	buf_cut(&b, 2);
	ck_assert_str_eq(b.data, "cdef");
	buf_cut(&b, 0);
	ck_assert_str_eq(b.data, "cdef");
	buf_cut(&b, 99);
	ck_assert_int_eq(b.len, 0);
	ck_assert_str_eq(b.data, "");
	buf_add(&b, "x", 0);
	ck_assert_str_eq(b.data, "");
}
END_TEST

/* Whatever goes in comes out of the strict parser as it was. */
START_TEST(json_round_trip)
{
	char all[128], *p = all;
	struct buf b = BUF(mem);
	struct json_object *o;
	int c;

	for (c = 1; c < 128; c++)
		*p++ = c;
	*p = '\0';
	buf_str(&b, "{\"x\":");
	buf_json(&b, all);
	buf_str(&b, ",\"y\":");
	buf_json(&b, "\xc3\xa4 \xf0\x9f\x98\x80");
	buf_str(&b, ",\"z\":");
	buf_json(&b, NULL);
	buf_chr(&b, '}');
	o = json_parse(mem, b.data, b.len, NULL, &err);
	ck_assert_msg(o, "%s", err.text);
	ck_assert_str_eq(json_str(o, "x", ""), all);
	ck_assert_str_eq(json_str(o, "y", ""), "\xc3\xa4 \xf0\x9f\x98\x80");
	ck_assert_ptr_nonnull(strstr(b.data, "\"z\":null"));
}
END_TEST

START_TEST(nul_is_escaped)
{
	struct buf b = BUF(mem);

	buf_jsonn(&b, "a\0b", 3);
	ck_assert_str_eq(b.data, "\"a\\u0000b\"");
}
END_TEST

START_TEST(base64)
{
	/* RFC 4648 §10 */
	static const char *const vector[][2] = { { "", "" }, { "f", "Zg==" }, { "fo", "Zm8=" },
		{ "foo", "Zm9v" }, { "foob", "Zm9vYg==" }, { "fooba", "Zm9vYmE=" },
		{ "foobar", "Zm9vYmFy" } };
	size_t i;

	for (i = 0; i < nitems(vector); i++) {
		struct buf b = BUF(mem);

		buf_base64(&b, vector[i][0], strlen(vector[i][0]));
		ck_assert_str_eq(b.data, vector[i][1]);
	}
}
END_TEST

Suite *
buf_suite(void)
{
	TCase *c;
	Suite *s = suite_new("buf", &c);

	tcase_add_test(c, grows);
	tcase_add_test(c, numbers);
	tcase_add_test(c, cuts);
	tcase_add_test(c, json_round_trip);
	tcase_add_test(c, nul_is_escaped);
	tcase_add_test(c, base64);
	return s;
}
