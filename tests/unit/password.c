/* password.c - lib/password.c: hashes and what may not be a password. */
#include "password.h"
#include "cleanup.h"
#include "unit.h"

#include <string.h>

START_TEST(hash_and_verify)
{
	const char *h = password_hash(mem, "correct horse", 1, &err),
		   *again = password_hash(mem, "correct horse", 1, &err);

	ck_assert_msg(h && again, "%s", err.text);
	ck_assert_int_eq(strncmp(h, "h1:$y$", 6), 0);
	ck_assert_str_ne(h, again);
	ck_assert(password_verify("correct horse", h, 1));
	ck_assert(password_verify("correct horse", again, 1));
	ck_assert(!password_verify("correct horsf", h, 1));
	ck_assert(!password_verify("correct hors", h, 1));
	ck_assert(!password_verify("", h, 1));
	ck_assert(!password_verify("correct horse", NULL, 1));
	ck_assert(!password_verify("correct horse", "", 1));
	ck_assert(!password_verify("correct horse", "h1:", 1));
	ck_assert(!password_verify("correct horse", "h1:*0", 1));
	ck_assert(!password_verify("correct horse", h + 3, 1));
	ck_assert(!password_verify("correct horse", "$1$abc$def", 1));
}
END_TEST

/* bcrypt would cut at 72 bytes, crypt(3) at 511: here the last byte counts. */
START_TEST(long_ones)
{
	static const int length[] = { 73, 200, 511, 512, 513, 1000, 1024 };
	char *p = talloc_zero_size(mem, length[_i] + 1);
	const char *h;

	memset(p, 'a', length[_i]);
	h = password_hash(mem, p, 1, &err);
	ck_assert_msg(h, "%s", err.text);
	ck_assert(password_verify(p, h, 1));
	p[length[_i] - 1] = 'b';
	ck_assert(!password_verify(p, h, 1));
	p[length[_i] - 1] = '\0';
	ck_assert(!password_verify(p, h, 1));
}
END_TEST

/* clang-format off */
static const struct {
	const char *password, *says; /* says NULL: good */
} cases[] = {
	{ "correct horse battery", NULL }, { "x7#kQ!2z", NULL }, { "\xc3\xa4\xc3\xb6\xc3\xbc\xc3\x9f\xc3\xa4\xc3\xb6\xc3\xbc\xc3\x9f", NULL },
	{ "", "shorter" }, { "short", "shorter" }, { "seven77", "shorter" }, { "\xc3\xa4\xc3\xb6\xc3\xbc\xc3\x9f", "shorter" },
	{ "password", "common" }, { "Password", "common" }, { "PASSWORD1", "common" }, { "12345678", "common" }, { "qwertyuiop", "common" },
	{ "hutch1234", "close" }, { "1234hutch", "close" }, { "HUTCH2026", "close" },
	{ "alice.w@example.org", "close" }, { "alice.w1", "close" }, { "2026ALICE.W", "close" }, { "Alice Wonder", "close" }, { "alice wonder99", "close" },
	{ "alice.w and more", NULL }, { "hutch12345", NULL },
};
/* clang-format on */

START_TEST(judged)
{
	int rc = password_check(cases[_i].password, 8, "alice.w@example.org", "Alice Wonder", &err);

	if (!cases[_i].says) {
		ck_assert_msg(rc == 0, "%s: %s", cases[_i].password, err.text);
		return;
	}
	ck_assert_msg(rc == -1, "%s was taken", cases[_i].password);
	ck_assert_int_eq(err.code, E_BAD_INPUT);
	ck_assert_msg(strstr(err.text, cases[_i].says), "%s: %s", cases[_i].password, err.text);
}
END_TEST

START_TEST(too_long)
{
	char *p = talloc_zero_size(mem, 1026);

	memset(p, 'x', 1025);
	ck_assert_int_eq(password_check(p, 8, NULL, NULL, &err), -1);
	err = (struct err){ 0 };
	p[1024] = '\0';
	ck_assert_int_eq(password_check(p, 8, NULL, NULL, &err), 0);
	ck_assert_int_eq(password_check("correct horse", 8, "", "", &err), 0);
}
END_TEST

/* Found by halving: the list must be sorted, first and last must be found. */
START_TEST(common_list)
{
	static const char *const list[] = {
#include "passwords.def"
	};
	size_t i;

	for (i = 0; i < nitems(list); i++) {
		err = (struct err){ 0 };
		ck_assert_msg(
		    password_check(list[i], 1, NULL, NULL, &err) == -1, "%s was taken", list[i]);
	}
}
END_TEST

Suite *
password_suite(void)
{
	TCase *c;
	Suite *s = suite_new("password", &c);

	tcase_add_test(c, hash_and_verify);
	tcase_add_loop_test(c, long_ones, 0, 7);
	tcase_add_loop_test(c, judged, 0, nitems(cases));
	tcase_add_test(c, too_long);
	tcase_add_test(c, common_list);
	return s;
}
