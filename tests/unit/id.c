/* id.c - lib/id.c: wire ids and UUIDv7. */
#include "id.h"
#include "cleanup.h"
#include "unit.h"

#include <string.h>
#include <sys/wait.h>
#include <time.h>

START_TEST(round_trip)
{
	struct uuid u, back;
	char text[ID_SIZE];
	int i;

	for (i = 0; i < 2000; i++) {
		u = uuid_new();
		if (i & 1)
			memset(u.b, i, 8); /* small and large values too */
		id_write(text, "team-", &u);
		ck_assert_int_eq(strlen(text), 30);
		ck_assert(id_read(text, "team-", &back));
		ck_assert(uuid_equal(&u, &back));
	}
}
END_TEST

START_TEST(known_values)
{
	struct uuid u, all;
	char text[ID_SIZE];

	memset(all.b, 0xff, sizeof all.b);
	ck_assert_str_eq(id_write(text, "cl-", &uuid_zero), "cl-0000000000000000000000000");
	ck_assert_str_eq(id_write(text, "cl-", &all), "cl-f5lxx1zz5pnorynqglhzmsp33");
	ck_assert(id_read("cl-f5lxx1zz5pnorynqglhzmsp33", "cl-", &u));
	ck_assert(uuid_equal(&u, &all));
	ck_assert(uuid_read("00000000-0000-0000-0000-000000000024", &u));
	ck_assert_str_eq(id_text(mem, "usr-", &u), "usr-0000000000000000000000010");
}
END_TEST

START_TEST(refused)
{
	/* clang-format off */
	static const char *const no[] = {
		"", "cl", "cl-", "cl-000000000000000000000000", "cl-00000000000000000000000000",
		"cl-f5lxx1zz5pnorynqglhzmsp34", /* 2^128 */ "cl-zzzzzzzzzzzzzzzzzzzzzzzzz", "cl-g000000000000000000000000",
		"cl-000000000000000000000000A", "CL-0000000000000000000000000", "cl_0000000000000000000000000",
		"usr-0000000000000000000000000", " cl-0000000000000000000000000", "cl-0000000000000000000000000 ",
		"cl-00000000000000000000000 0", "cl--000000000000000000000000", "cl-000000000000\xc3\xa4" "00000000000",
		"0000000000000000000000000", "cl-0000000000000000000000000\n", "00000000-0000-0000-0000-000000000000",
	};
	/* clang-format on */
	struct uuid u = { { 7 } };
	size_t i;

	for (i = 0; i < nitems(no); i++) {
		ck_assert_msg(!id_read(no[i], "cl-", &u), "%s was taken", no[i]);
		ck_assert_int_eq(u.b[0], 7);
	}
}
END_TEST

START_TEST(version_7)
{
	struct uuid u = uuid_new();
	uint64_t ms = 0;
	int i;

	for (i = 0; i < 6; i++)
		ms = ms << 8 | u.b[i];
	ck_assert_int_eq(u.b[6] >> 4, 7);
	ck_assert_int_eq(u.b[8] >> 6, 2);
	ck_assert_int_le(llabs((long long)(ms / 1000) - (long long)time(NULL)), 2);
}
END_TEST

START_TEST(rising)
{
	struct uuid last = uuid_new(), u;
	int i;

	for (i = 0; i < 100000; i++, last = u) {
		u = uuid_new();
		ck_assert_int_gt(memcmp(u.b, last.b, sizeof u.b), 0);
	}
}
END_TEST

/* Children that share the parent's pool of random bytes must not make its ids. */
START_TEST(forked)
{
	enum { CHILDREN = 4, EACH = 50 };
	struct uuid all[CHILDREN + 1][EACH];
	int p[2], i, j, k;

	(void)uuid_new();
	for (i = 0; i < CHILDREN; i++) {
		ck_assert_int_eq(pipe(p), 0);
		if (fork() == 0) {
			for (j = 0; j < EACH; j++)
				all[i][j] = uuid_new();
			(void)!write(p[1], all[i], sizeof all[i]);
			_exit(0);
		}
		ck_assert_int_eq(read(p[0], all[i], sizeof all[i]), sizeof all[i]);
		close(p[0]);
		close(p[1]);
	}
	for (j = 0; j < EACH; j++)
		all[CHILDREN][j] = uuid_new();
	while (wait(NULL) > 0)
		;
	for (i = 0; i < CHILDREN; i++)
		for (k = i + 1; k <= CHILDREN; k++)
			for (j = 0; j < EACH; j++) /* the random half, whatever the clock says */
				ck_assert_int_ne(memcmp(all[i][j].b + 8, all[k][j].b + 8, 8), 0);
}
END_TEST

START_TEST(plain_text)
{
	struct uuid u = uuid_new(), back;
	char text[37];

	ck_assert(uuid_read(uuid_write(text, &u), &back));
	ck_assert(uuid_equal(&u, &back));
	ck_assert(!uuid_read("not-a-uuid", &back));
	ck_assert(!uuid_read("", &back));
	ck_assert(!uuid_read("00000000000000000000000000000000", &back));
}
END_TEST

Suite *
id_suite(void)
{
	TCase *c;
	Suite *s = suite_new("id", &c);

	tcase_add_test(c, round_trip);
	tcase_add_test(c, known_values);
	tcase_add_test(c, refused);
	tcase_add_test(c, version_7);
	tcase_add_test(c, rising);
	tcase_add_test(c, forked);
	tcase_add_test(c, plain_text);
	return s;
}
