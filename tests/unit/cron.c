/* cron.c - lib/cron.c: the next time of a line. */
#include "cron.h"
#include "cleanup.h"
#include "err.h"
#include "unit.h"

#include <string.h>

/* 2026-11-21 is a Saturday. */
enum { SATURDAY = 1795219200 };

START_TEST(next)
{
	static const struct {
		const char *text;
		int64_t after, next; /* seconds since that midnight */
	} cases[] = {
		{ "* * * * *", 0, 60 }, { "* * * * *", 59, 60 }, { "* * * * *", 60, 120 },
		{ "0 * * * *", 1, 3600 }, { "30 2 * * *", 0, 9000 },
		{ "30 2 * * *", 9000, 86400 + 9000 }, { "*/15 * * * *", 901, 1800 },
		{ "5-59/20 0 * * *", 0, 300 }, { "5-59/20 0 * * *", 300, 1500 },
		{ "0 0,12 * * *", 1, 43200 }, { "59 23 * * *", 0, 86340 },
		{ "0 0 * * 1", 0, 2 * 86400 }, { "0 0 * * 7", 0, 86400 }, { "0 0 * * 0", 0, 86400 },
		{ "0 0 1 * *", 0, 10 * 86400 }, { "0 0 1 * 1", 0, 2 * 86400 },      /* either */
		{ "0 0 1 1 *", 0, 41 * 86400 }, { "0 0 29 2 *", 0, 465 * 86400LL }, /* 2028 */
	};
	int64_t at;
	size_t i;

	for (i = 0; i < sizeof cases / sizeof *cases; i++) {
		ck_assert_msg(cron_next(cases[i].text, SATURDAY + cases[i].after, &at, &err) == 0,
		    "%s: %s", cases[i].text, err.text);
		ck_assert_msg(at == SATURDAY + cases[i].next, "%s after %lld: %lld, not %lld",
		    cases[i].text, (long long)cases[i].after, (long long)at - SATURDAY,
		    (long long)cases[i].next);
	}
}
END_TEST

START_TEST(refused)
{
	static const char *const bad[] = { "", " ", "*", "* * * *", "* * * * * *", "60 * * * *",
		"* 24 * * *", "* * 0 * *", "* * 32 * *", "* * * 13 *", "* * * * 8", "*/0 * * * *",
		"5-1 * * * *", "1, * * * *", ",1 * * * *", "1- * * * *", "a * * * *", "1.5 * * * *",
		"-1 * * * *", "5,70 * * * *", "* 1,24 * * *", "100 * * * *", "@daily", "* * 31 2 *",
		"* * 30 2 *" };
	int64_t at;
	size_t i;

	for (i = 0; i < nitems(bad); i++) {
		err = (struct err){ 0 };
		ck_assert_msg(cron_next(bad[i], SATURDAY, &at, &err) == -1, "%s", bad[i]);
		ck_assert_int_eq(err.code, E_BAD_INPUT);
		ck_assert(strstr(err.text, "\"cron\"") != NULL);
		/* said of the part that is wrong; what no calendar has comes last */
		ck_assert_msg(!strstr(err.text, "never") == (i < nitems(bad) - 2), "%s: %s", bad[i],
		    err.text);
	}
}
END_TEST

Suite *
cron_suite(void)
{
	TCase *c;
	Suite *s = suite_new("cron", &c);

	tcase_add_test(c, next);
	tcase_add_test(c, refused);
	return s;
}
