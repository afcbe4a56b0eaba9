/* totp.c - codes of authenticator apps and on paper. */
#include "totp.h"
#include "unit.h"

#include <string.h>

static const uint8_t *const secret = (const uint8_t *)"12345678901234567890";

/* RFC 6238 appendix B, the last six of its eight digits. */
START_TEST(vectors)
{
	static const struct {
		int64_t time;
		uint32_t code;
	} cases[] = { { 59, 287082 }, { 1111111109, 81804 }, { 1111111111, 50471 },
		{ 1234567890, 5924 }, { 2000000000, 279037 }, { 20000000000, 353130 } };
	size_t i;

	for (i = 0; i < sizeof cases / sizeof *cases; i++)
		ck_assert_uint_eq(totp_code(secret, cases[i].time / TOTP_PERIOD), cases[i].code);
}
END_TEST

START_TEST(window)
{
	int64_t step = 1111111109 / TOTP_PERIOD;

	ck_assert_int_eq(totp_find(secret, "081804", 1111111109, 0), step);
	ck_assert_int_eq(totp_find(secret, "081804", 1111111109 + TOTP_PERIOD, 0), step);
	ck_assert_int_eq(totp_find(secret, "081804", 1111111109 - TOTP_PERIOD, 0), step);
	ck_assert_int_eq(totp_find(secret, "081804", 1111111109 + 2 * TOTP_PERIOD, 0), 0);
	ck_assert_int_eq(totp_find(secret, "081804", 1111111109 - 2 * TOTP_PERIOD, 0), 0);
	/* once */
	ck_assert_int_eq(totp_find(secret, "081804", 1111111109, step), 0);
	ck_assert_int_eq(totp_find(secret, "081804", 1111111109, step - 1), step);
	ck_assert_int_eq(totp_find(secret, "81804", 1111111109, 0), 0);
	ck_assert_int_eq(totp_find(secret, "0818040", 1111111109, 0), 0);
	ck_assert_int_eq(totp_find(secret, " 81804", 1111111109, 0), 0);
	ck_assert_int_eq(totp_find(secret, "", 1111111109, 0), 0);
}
END_TEST

START_TEST(base32)
{
	ck_assert_str_eq(totp_base32(mem, (const uint8_t *)"foobar", 6), "MZXW6YTBOI");
	ck_assert_str_eq(totp_base32(mem, (const uint8_t *)"f", 1), "MY");
	ck_assert_str_eq(totp_base32(mem, secret, 20), "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ");
	ck_assert_str_eq(totp_url(mem, "My House", "a+b@x.example", "MY"),
	    "otpauth://totp/My%20House:a%2Bb@x.example?secret=MY&issuer=My%20House"
	    "&algorithm=SHA1&digits=6&period=30");
}
END_TEST

START_TEST(backup)
{
	const char *code = backup_code_new(mem, 7), *normal = NULL;
	char *loud = talloc_strdup(mem, code), *p;

	ck_assert_uint_eq(strlen(code), 13);
	ck_assert_int_eq(backup_code_read(mem, code, &normal), 7);
	ck_assert_str_eq(normal, code);
	for (p = loud; *p; p++)
		*p = *p >= 'a' && *p <= 'z' ? *p - 32 : *p == '-' ? ' ' : *p;
	ck_assert_int_eq(backup_code_read(mem, loud, &normal), 7);
	ck_assert_str_eq(normal, code);
	ck_assert_int_eq(backup_code_read(mem, "7-abcde-abcd", &normal), -1);
	ck_assert_int_eq(backup_code_read(mem, "a-abcde-abcde", &normal), -1);
	ck_assert_int_eq(backup_code_read(mem, "7-abcde-abcdeabcdeabcde", &normal), -1);
	ck_assert_int_eq(backup_code_read(mem, "7-abcde-abcd!", &normal), -1);
	ck_assert_int_eq(backup_code_read(mem, "", &normal), -1);
}
END_TEST

Suite *
totp_suite(void)
{
	TCase *c;
	Suite *s = suite_new("totp", &c);

	tcase_add_test(c, vectors);
	tcase_add_test(c, window);
	tcase_add_test(c, base32);
	tcase_add_test(c, backup);
	return s;
}
