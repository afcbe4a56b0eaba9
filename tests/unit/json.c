/* json.c - lib/json.c: what is JSON and what only looks like it (RFC 8259; libraries.md fact 4). */
#include "json.h"
#include "buf.h"
#include "cleanup.h"
#include "unit.h"

#include <string.h>

#define T(s)                     \
	{                        \
		s, sizeof(s) - 1 \
	}

struct text {
	const char *text;
	size_t n;
};

/* clang-format off */
static const struct text good[] = {
	T("{}"), T("[]"), T("0"), T("-0"), T("\"\""), T("true"), T("false"), T(" \t\r\n[ 1 , 2 ] \n"),
	T("{\"a\":null}"), T("{\"a\":{\"a\":{\"a\":1}}}"), T("[{\"a\":1},{\"a\":2}]"), T("{\"a\":[],\"b\":{},\"\":0}"),
	T("9223372036854775807"), T("-9223372036854775808"), T("1.5"), T("-1.5e-10"), T("1E5"), T("1e+5"), T("0.1"),
	T("1.7976931348623157e308"), T("1e-400"), T("\"\\u00e4\\n\\t\\/\\\\\\\"\\b\\f\\r\""),
	T("\"\xc3\xa4\xe2\x82\xac\xf0\x9f\x98\x80\""), T("\"\\ud83d\\ude00\""), T("\"\xef\xbf\xbf\""), T("\"\xf4\x8f\xbf\xbf\""),
	T("\"\xc2\x80\""), T("\"\xe0\xa0\x80\""), T("\"\xed\x9f\xbf\""), T("\"\xee\x80\x80\""), T("\"\xf0\x90\x80\x80\""),
	T("\"\x7f\""), T("{\"A\":1,\"a\":2}"), T("[[],[[]],[[[]]]]"), T("\"it's /* no */ // remark\""), T("[1,\"x\",null,true,{}]"),
};

static const struct text bad[] = {
	/* structure */
	T(""), T(" "), T("null"), T("{"), T("["), T("}"), T("{]"), T("[1,]"), T("[,1]"), T("[1 2]"), T("{\"a\"}"), T("{\"a\":}"),
	T("{\"a\":1,}"), T("{,}"), T("{a:1}"), T("{1:1}"), T("{\"a\" 1}"), T("{\"a\":1 \"b\":2}"), T(":"), T(","),
	/* behind the value */
	T("{} {}"), T("{}x"), T("1 2"), T("[]]"), T("{}\0"), T("\"a\"\0\"b\""), T("{}//"), T("{}/**/"), T("\xef\xbb\xbf{}"),
	/* words and numbers */
	T("NaN"), T("nan"), T("Infinity"), T("-Infinity"), T("{\"a\":NaN}"), T("True"), T("TRUE"), T("nul"), T("truee"), T("undefined"),
	T("1e999"), T("-1e999"), T("9223372036854775808"), T("-9223372036854775809"), T("12345678901234567890123"),
	T("{\"a\":18446744073709551615}"), T("01"), T("-01"), T("+1"), T(".5"), T("1."), T("-"), T("1e"), T("1e+"), T("0x10"), T("1_000"),
	T("--1"), T("1.e5"), T("00"),
	/* strings */
	T("'a'"), T("{'a':1}"), T("\""), T("\"a"), T("\"\\"), T("\"\\x41\""), T("\"\\'\""), T("\"\\0\""), T("\"\\u12\""), T("\"\\u12g4\""),
	T("\"\\u0000\""), T("{\"a\\u0000b\":1}"), T("\"a\0b\""), T("\"\n\""), T("\"\t\""), T("\"\x01\""), T("\"\x1f\""), T("{\"\x02\":1}"),
	/* UTF-8: overlong, surrogates, out of range, cut, stray */
	T("\"\xc0\xaf\""), T("\"\xc1\xbf\""), T("\"\xe0\x80\xaf\""), T("\"\xe0\x9f\xbf\""), T("\"\xf0\x80\x80\xaf\""), T("\"\xf0\x8f\xbf\xbf\""),
	T("\"\xed\xa0\x80\""), T("\"\xed\xbf\xbf\""), T("\"\xf4\x90\x80\x80\""), T("\"\xf5\x80\x80\x80\""), T("\"\xff\""), T("\"\xfe\""),
	T("\"\x80\""), T("\"\xbf\""), T("\"\xc3\""), T("\"\xe2\x82\""), T("\"\xf0\x9f\x98\""), T("\"\xc3(\""), T("\"\xe2\x28\xa1\""), T("\xc3\xa4"),
	T("{\"\xc0\xaf\":1}"), T("\"\xc3"), T("\"\xf8\x88\x80\x80\x80\""),
	/* surrogates, escaped */
	T("\"\\ud800\""), T("\"\\udc00\""), T("\"\\udc00\\ud800\""), T("\"\\ud800\\ud800\""), T("\"\\ud83d\\u0041\""), T("\"\\ud83dx\""),
	T("\"\\ud83d\\\""), T("\"\\ud83d\\ud\""), T("\"\\udbff\\n\""),
	/* keys twice, in any spelling */
	T("{\"a\":1,\"a\":1}"), T("{\"a\":1,\"\\u0061\":2}"), T("{\"b\":{\"x\":1,\"x\":2}}"), T("{\"\":1,\"\":2}"),
	T("{\"\xc3\xa4\":1,\"\\u00e4\":2}"), T("{\"\\ud83d\\ude00\":1,\"\xf0\x9f\x98\x80\":2}"), T("{\"a/b\":1,\"a\\/b\":2}"), T("[{\"a\":1,\"b\":2,\"a\":3}]"),
};
/* clang-format on */

START_TEST(accepts)
{
	const struct text *t = &good[_i];

	ck_assert_msg(json_parse(mem, t->text, t->n, NULL, &err), "%s: %s", t->text, err.text);
	ck_assert_int_eq(err.code, E_OK);
}
END_TEST

START_TEST(refuses)
{
	const struct text *t = &bad[_i];

	ck_assert_msg(!json_parse(mem, t->text, t->n, NULL, &err), "%s was taken", t->text);
	ck_assert_int_eq(err.code, E_BAD_INPUT);
	ck_assert_int_gt(strlen(err.text), 10);
}
END_TEST

/* The text is not NUL-terminated: nothing behind its end may be read. */
START_TEST(reads_no_further)
{
	const struct text *t = &bad[_i];
	char *exact = malloc(t->n ? t->n : 1);

	memcpy(exact, t->text, t->n);
	ck_assert_ptr_null(json_parse(mem, exact, t->n, NULL, &err));
	free(exact);
}
END_TEST

static struct json_object *
nested(int depth, const char *open, const char *in, char close)
{
	struct buf b = BUF(mem);
	int i;

	for (i = 0; i < depth; i++)
		buf_str(&b, open);
	buf_str(&b, in);
	for (i = 0; i < depth; i++)
		buf_chr(&b, close);
	return json_parse(mem, b.data, b.len, NULL, &err);
}

START_TEST(depth)
{
	struct buf bomb = BUF(mem);
	int i;

	ck_assert_ptr_nonnull(nested(32, "[", "1", ']'));
	ck_assert_ptr_nonnull(nested(32, "{\"a\":", "1", '}'));
	ck_assert_ptr_null(nested(33, "[", "", ']'));
	ck_assert_ptr_nonnull(strstr(err.text, "deep"));
	for (i = 0; i < 200000; i++)
		buf_chr(&bomb, '[');
	err = (struct err){ 0 };
	ck_assert_ptr_null(json_parse(mem, bomb.data, bomb.len, NULL, &err));
	ck_assert_ptr_nonnull(strstr(err.text, "deep"));
	err = (struct err){ 0 };
	ck_assert_ptr_nonnull(
	    json_parse(mem, "[[[]]]", 6, &(struct json_limits){ .depth = 3 }, &err));
	ck_assert_ptr_null(json_parse(mem, "[[[]]]", 6, &(struct json_limits){ .depth = 2 }, &err));
}
END_TEST

/* Keys are counted over the whole document. */
START_TEST(keys)
{
	struct buf b = BUF(mem);
	int n;

	for (n = 1000; n <= 1001; n++) {
		int i;

		buf_clear(&b);
		buf_str(&b, "[{");
		for (i = 0; i < n; i++)
			buf_fmt(&b, "%s\"k%d\":0", i == 500 ? "},{" : i ? "," : "", i);
		buf_str(&b, "}]");
		if (n == 1000)
			ck_assert_msg(json_parse(mem, b.data, b.len, NULL, &err), "%s", err.text);
		else
			ck_assert_ptr_null(json_parse(mem, b.data, b.len, NULL, &err));
	}
	ck_assert_ptr_nonnull(strstr(err.text, "too many keys"));
}
END_TEST

START_TEST(values)
{
	static const char text[] = "{\"s\":\"\\ud83d\\ude00\\u00e4\",\"i\":-9223372036854775808,"
				   "\"t\":true,\"z\":null,\"d\":1.5}";
	struct json_object *o = json_parse(mem, text, sizeof text - 1, NULL, &err);

	ck_assert_ptr_nonnull(o);
	ck_assert_str_eq(json_str(o, "s", ""), "\xf0\x9f\x98\x80\xc3\xa4");
	ck_assert_int_eq(json_int(o, "i", 0), INT64_MIN);
	ck_assert_int_eq(json_int(o, "d", 7), 7);
	ck_assert_int_eq(json_int(o, "s", 7), 7);
	ck_assert(json_flag(o, "t", false));
	ck_assert(json_flag(o, "absent", true));
	ck_assert_str_eq(json_str(o, "z", "fallback"), "fallback");
	ck_assert_ptr_null(json_get(NULL, "x"));
}
END_TEST

Suite *
json_suite(void)
{
	TCase *c;
	Suite *s = suite_new("json", &c);

	tcase_add_loop_test(c, accepts, 0, nitems(good));
	tcase_add_loop_test(c, refuses, 0, nitems(bad));
	tcase_add_loop_test(c, reads_no_further, 0, nitems(bad));
	tcase_add_test(c, depth);
	tcase_add_test(c, keys);
	tcase_add_test(c, values);
	return s;
}
