/* clock_event.c - guestagent/clock_event.c: what kernels say of their timers. */
#include "clock_event.h"

#include <check.h>
#include <stdlib.h>
#include <string.h>

#define BROADCAST                                                                  \
	"Tick Device: mode:     1\nBroadcast device\nClock Event Device: <NULL>\n" \
	"tick_broadcast_mask: 0\ntick_broadcast_oneshot_mask: 0\n\n"
#define CPU(n, device) \
	"Tick Device: mode:     1\nPer CPU device: " #n "\nClock Event Device: " device
#define LAPIC(ns)                                                                              \
	"lapic\n max_delta_ns:   " #ns "\n min_delta_ns:   1000\n mult:           267739567\n" \
	" shift:          32\n mode:           3\n"

/* clang-format off */
static const struct { const char *list; int rc; const char *why; } sample[] = {
	{ "", 0, "" },
	{ BROADCAST CPU(0, LAPIC(34446405559)), 0, "" },                              /* as a quiet host gave it */
	{ BROADCAST CPU(0, "<NULL>\n\n"), -1, "no timer" },                           /* as a busy one did */
	{ BROADCAST CPU(0, LAPIC(34359738352)) CPU(1, "<NULL>\n"), -1, "no timer" },
	{ CPU(0, LAPIC(32800000000)), 0, "" },
	{ CPU(0, LAPIC(32000000000)), -1, "1.07" },
	{ CPU(0, LAPIC(68000000000)), 0, "" },
	{ CPU(0, LAPIC(70000000000)), -1, "0.49" },
	{ CPU(0, LAPIC(0)), -1, "inf" },
	{ CPU(0, "lapic\n") CPU(1, LAPIC(32000000000)), -1, "1.07" },
	{ CPU(0, "lapic-deadline\n max_delta_ns:   1000\n"), 0, "" },
};
/* clang-format on */

START_TEST(samples)
{
	struct err e = { 0 };

	ck_assert_int_eq(clock_event_check(sample[_i].list, &e), sample[_i].rc);
	ck_assert_msg(strstr(e.text, sample[_i].why) != NULL, "%s", e.text);
}
END_TEST

int
main(void)
{
	TCase *c = tcase_create("clock_event");
	Suite *suite = suite_create("clock_event");
	SRunner *runner = srunner_create(suite);
	int failed = 0;

	tcase_add_loop_test(c, samples, 0, sizeof sample / sizeof sample[0]);
	suite_add_tcase(suite, c);
	srunner_run_all(runner, CK_NORMAL);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
