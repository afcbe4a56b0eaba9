/* password.c - lib/password.c: hashes and what may not be a password. */
#include "password.h"
#include "cleanup.h"
#include "unit.h"

#include <crypt.h>
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
	{ "hutch1234", "close" }, { "house.example", "close" }, { "12House.Example3", "close" }, { "1234hutch", "close" }, { "HUTCH2026", "close" },
	{ "alice.w@example.org", "close" }, { "alice.w1", "close" }, { "2026ALICE.W", "close" }, { "Alice Wonder", "close" }, { "alice wonder99", "close" },
	{ "alice.w and more", NULL }, { "hutch12345", NULL },
};
/* clang-format on */

START_TEST(judged)
{
	int rc = password_check(cases[_i].password,
	    &(struct password_rules){ .least = 8,
		.email = "alice.w@example.org",
		.name = "Alice Wonder",
		.url = "https://house.example:8443/x" },
	    &err);

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
	ck_assert_int_eq(password_check(p, &(struct password_rules){ .least = 8 }, &err), -1);
	err = (struct err){ 0 };
	p[1024] = '\0';
	ck_assert_int_eq(password_check(p, &(struct password_rules){ .least = 8 }, &err), 0);
	ck_assert_int_eq(password_check("correct horse",
			     &(struct password_rules){ .least = 8, .email = "", .name = "" }, &err),
	    0);
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
		    password_check(list[i], &(struct password_rules){ .least = 1 }, &err) == -1,
		    "%s was taken", list[i]);
	}
}
END_TEST

/* One password, however its letters are put together; and eight of them are eight. */
START_TEST(composed)
{
	const char *one = "p\xc3\xa4sswort", *two = "pa\xcc\x88sswort";
	const char *h = password_hash(mem, one, 1, &err);

	ck_assert(password_verify(two, h, 1));
	ck_assert(password_verify(one, password_hash(mem, two, 1, &err), 1));
	/* 7 characters, written with 10 code points */
	ck_assert_int_eq(password_check("a\xcc\x88"
					"a\xcc\x88"
					"a\xcc\x88xkqz",
			     &(struct password_rules){ .least = 8 }, &err),
	    -1);
	err = (struct err){ 0 };
	ck_assert_int_eq(
	    password_check("\xff\xfe\xfd 1234567", &(struct password_rules){ .least = 8 }, &err),
	    -1);
}
END_TEST

/* Accounts that came from elsewhere sign in with the hash they brought, and get ours then. */
START_TEST(imported)
{
	static const char *const settings[] = { "$2b$04$abcdefghijklmnopqrstuu",
		"$6$rounds=1000$saltsalt$", "$y$j75$saltsalt" };
	struct crypt_data data = { 0 };
	const char *h = talloc_strdup(mem, crypt_r("correct horse", settings[_i], &data));

	ck_assert_msg(*h != '*', "%s", settings[_i]);
	ck_assert(password_verify("correct horse", h, 1));
	ck_assert(!password_verify("correct horsf", h, 1));
	ck_assert(password_stale(h, 1));
}
END_TEST

START_TEST(stale)
{
	const char *h = password_hash(mem, "correct horse", 1, &err);

	ck_assert(!password_stale(h, 1));
	ck_assert(password_stale(h, 2));
	ck_assert(password_stale(h, 7));
	ck_assert(!password_stale(password_hash(mem, "x", 5, &err), 5));
	ck_assert(password_stale("", 1));
}
END_TEST

START_TEST(operators_list)
{
	static const char *const in[] = { "aaaaaaaa", "bigfoot9", "k\xc3\xb6nigin9", "zzzzzzzzz9" };
	static const char *const out[] = { "aaaaaaa9", "aaaaaaaaa9", "bigfoot", "bigfoot98",
		"zzzzzzzzz", "kinder99" };
	struct password_rules r = { .least = 1,
		.blocklist = file_with("aaaaaaaa\nbigfoot9\nk\xc3\xb6nigin9\nzzzzzzzzz9\n", 0644) };
	size_t i;

	for (i = 0; i < nitems(in); i++) {
		err = (struct err){ 0 };
		ck_assert_msg(password_check(in[i], &r, &err) == -1, "%s was taken", in[i]);
		ck_assert(strstr(err.text, "common"));
	}
	err = (struct err){ 0 };
	ck_assert_int_eq(password_check("K\xc3\x96NIGIN9", &r, &err), -1);
	for (i = 0; i < nitems(out); i++) {
		err = (struct err){ 0 };
		ck_assert_msg(password_check(out[i], &r, &err) == 0, "%s: %s", out[i], err.text);
	}
	r.blocklist = "/nonexistent/list";
	ck_assert_int_eq(password_check("bigfoot98", &r, &err), -1);
	ck_assert_int_eq(err.code, E_CONFIG);
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
	tcase_add_test(c, composed);
	tcase_add_loop_test(c, imported, 0, 3);
	tcase_add_test(c, stale);
	tcase_add_test(c, operators_list);
	tcase_add_test(c, common_list);
	return s;
}
