/* metric_range.c - lib/metric_range.c: the list, the table and the tiers agree. */
#include "metric_range.h"
#include "cleanup.h"
#include "unit.h"

#include <string.h>

START_TEST(listed)
{
	static const struct {
		const char *name, *tier;
		int64_t seconds;
	} said[] = { { "5m", "10m", 300 }, { "10m", "10m", 600 }, { "1h", "2h", 3600 },
		{ "2h", "2h", 7200 }, { "6h", "24h", 21600 }, { "12h", "24h", 43200 },
		{ "24h", "24h", 86400 } };
	char *rest = talloc_strdup(mem, METRIC_RANGES), *name;
	size_t i;

	for (i = 0; (name = strsep(&rest, "|")) != NULL; i++) {
		const struct metric_range *r = metric_range(name);

		ck_assert_uint_lt(i, nitems(said));
		ck_assert_msg(r != NULL, "%s is listed and unknown", name);
		ck_assert_str_eq(r->name, said[i].name);
		ck_assert_str_eq(r->tier, said[i].tier);
		ck_assert_int_eq(r->seconds, said[i].seconds);
	}
	ck_assert_uint_eq(i, nitems(said));
	ck_assert_ptr_nonnull(metric_range(METRIC_RANGE_USUAL));
	ck_assert_ptr_null(metric_range(""));
	ck_assert_ptr_null(metric_range("1m"));
	ck_assert_ptr_null(metric_range("10"));
	ck_assert_ptr_null(metric_range("5m|10m"));
}
END_TEST

START_TEST(tiers)
{
	static const struct {
		int64_t seconds;
		const char *tier;
	} cases[] = { { INT64_MIN, "10m" }, { 0, "10m" }, { 600, "10m" }, { 601, "2h" },
		{ 7200, "2h" }, { 7201, "24h" }, { 86400, "24h" }, { 86401, "24h" },
		{ INT64_MAX, "24h" } };
	size_t i;

	for (i = 0; i < nitems(cases); i++)
		ck_assert_msg(strcmp(metric_tier(cases[i].seconds), cases[i].tier) == 0,
		    "%lld s: %s", (long long)cases[i].seconds, metric_tier(cases[i].seconds));
}
END_TEST

Suite *
metric_range_suite(void)
{
	TCase *c;
	Suite *s = suite_new("metric_range", &c);

	tcase_add_test(c, listed);
	tcase_add_test(c, tiers);
	return s;
}
