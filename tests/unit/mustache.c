/* mustache.c - lib/mustache.c: the part of Mustache that mails need. */
#include "mustache.h"
#include "cleanup.h"
#include "unit.h"

#include <string.h>

static const struct pair vars[] = { { "name", "Ann <b> & \"c\" 'd'" },
	{ "link", "https://x/?a=1&b=2" }, { "empty", "" }, { "lines", "one\r\nBcc: two\x7f" },
	{ "null", NULL }, { "tag", "{{name}}" }, { NULL, NULL } };

/* clang-format off */
static const struct {
	const char *text, *html, *plain; /* plain NULL: as html */
} cases[] = {
	{ "", "", NULL }, { "no tags } {", "no tags } {", NULL },
	{ "Hi {{name}}!", "Hi Ann &lt;b&gt; &amp; &quot;c&quot; &#39;d&#39;!", "Hi Ann <b> & \"c\" 'd'!" },
	{ "{{{link}}} {{&link}} {{ link }}", "https://x/?a=1&b=2 https://x/?a=1&b=2 https://x/?a=1&amp;b=2", "https://x/?a=1&b=2 https://x/?a=1&b=2 https://x/?a=1&b=2" },
	{ "[{{nothing}}{{empty}}{{null}}]", "[]", NULL },
	{ "{{tag}}", "{{name}}", NULL },
	{ "{{lines}}|{{{lines}}}", "one  Bcc: two |one  Bcc: two ", NULL },
	{ "{{#link}}yes{{/link}}{{^link}}no{{/link}}", "yes", NULL }, { "{{#empty}}yes{{/empty}}{{^empty}}no{{/empty}}", "no", NULL },
	{ "{{#link}}a{{#empty}}b{{/empty}}c{{/link}}", "ac", NULL }, { "{{#empty}}a{{#link}}b{{/link}}c{{/empty}}d", "d", NULL },
	{ "{{#empty}}{{^empty}}x{{/empty}}{{/empty}}", "", NULL },
	{ "a\n{{#link}}\nb\n{{/link}}\nc\n", "a\nb\nc\n", NULL }, { "a\n  {{! remark }}  \nb", "a\nb", NULL },
	{ "a {{! remark }} b", "a  b", NULL }, { "a\r\n{{#link}}\r\nb\r\n{{/link}}\r\n", "a\r\nb\r\n", NULL },
};

static const char *const bad[] = {
	"{{name", "{{name}", "{{{link}}", "{{}}", "{{ }}", "{{na me}}", "{{a.b}}", "{{#link}}", "{{/link}}", "{{#link}}{{/name}}", "{{#a}}{{#b}}{{/a}}{{/b}}",
	"{{>partial}}", "{{=<% %>=}}", "{{#a}}{{#a}}{{#a}}{{#a}}{{#a}}{{#a}}{{#a}}{{#a}}{{#a}}",
	"{{aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa}}",
};
/* clang-format on */

START_TEST(renders)
{
	struct buf html = BUF(mem), plain = BUF(mem);

	ck_assert_msg(
	    mustache_render(&html, cases[_i].text, vars, MUSTACHE_HTML, &err) == 0, "%s", err.text);
	ck_assert_str_eq(html.data, cases[_i].html);
	ck_assert_int_eq(mustache_render(&plain, cases[_i].text, vars, MUSTACHE_PLAIN, &err), 0);
	ck_assert_str_eq(plain.data, cases[_i].plain ? cases[_i].plain : cases[_i].html);
}
END_TEST

START_TEST(refuses)
{
	struct buf b = BUF(mem);

	ck_assert_msg(mustache_render(&b, bad[_i], vars, MUSTACHE_PLAIN, &err) == -1,
	    "%s was taken", bad[_i]);
	ck_assert_int_eq(err.code, E_CONFIG);
}
END_TEST

START_TEST(no_vars)
{
	struct buf b = BUF(mem);

	ck_assert_int_eq(mustache_render(&b, "{{a}}{{^a}}x{{/a}}", NULL, MUSTACHE_HTML, &err), 0);
	ck_assert_str_eq(b.data, "x");
}
END_TEST

Suite *
mustache_suite(void)
{
	TCase *c;
	Suite *s = suite_new("mustache", &c);

	tcase_add_loop_test(c, renders, 0, nitems(cases));
	tcase_add_loop_test(c, refuses, 0, nitems(bad));
	tcase_add_test(c, no_vars);
	return s;
}
