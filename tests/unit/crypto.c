/* crypto.c - lib/crypto.c: derived keys, envelopes, encodings. */
#include "crypto.h"
#include "cleanup.h"
#include "unit.h"

#include <string.h>

static const char master[] = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f\n";
static const char elder[] = "ff0102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f\n";

static const struct keys *
keys_of(const char *text, unsigned mode, const char *previous)
{
	struct conf c = { .secrets_master_file = file_with(text, mode),
		.secrets_previous_file = "" };

	if (previous)
		c.secrets_previous_file = file_with(previous, 0600);
	return keys_load(mem, &c, &err);
}

/* HKDF-SHA256 with salt "hutch-1" (RFC 5869): computed by openssl kdf, must never change. */
START_TEST(derived)
{
	static const struct {
		enum key_use use;
		const char *hex;
	} want[] = {
		{ KEY_ACCESS, "100e72288cf4e1b2ad872d4c90c773327391dc5fba708a9324fcad5ce369721b" },
		{ KEY_MAIL, "facd62b71506344ad5fc7ae273956921502acff603a7a84874744c84d3c07361" },
		{ KEY_ENVS, "ea8cbbf8fe5248b35cd70fa1fe246fd51a446e42e9818b82fef23a13f983b6fd" },
	};
	const struct keys *k = keys_of(master, 0600, NULL), *again = keys_of(master, 0600, NULL);
	char hex[2 * KEY_SIZE + 1];
	size_t i, j;

	ck_assert_msg(k, "%s", err.text);
	for (i = 0; i < nitems(want); i++)
		ck_assert_str_eq(hex_write(hex, k->key[want[i].use], KEY_SIZE), want[i].hex);
	for (i = 0; i < KEY__MAX; i++) {
		ck_assert_mem_eq(k->key[i], again->key[i], KEY_SIZE);
		for (j = i + 1; j < KEY__MAX; j++)
			ck_assert_mem_ne(k->key[i], k->key[j], KEY_SIZE);
	}
	ck_assert(!k->has_previous);
	ck_assert_int_eq(strlen(k->kid), 8);
}
END_TEST

START_TEST(previous)
{
	const struct keys *k = keys_of(master, 0600, elder), *old = keys_of(elder, 0600, NULL);

	ck_assert_msg(k && old, "%s", err.text);
	ck_assert(k->has_previous);
	ck_assert_str_eq(k->previous_kid, old->kid);
	ck_assert_str_ne(k->kid, old->kid);
	ck_assert_mem_eq(k->previous, old->key, sizeof old->key);
}
END_TEST

START_TEST(bad_master)
{
	ck_assert_ptr_null(keys_of("0001", 0600, NULL));
	ck_assert_int_eq(err.code, E_CONFIG);
	err = (struct err){ 0 };
	ck_assert_ptr_null(keys_of(
	    "zz0102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f", 0600, NULL));
	err = (struct err){ 0 };
	ck_assert_ptr_null(keys_of(master, 0604, NULL));
	ck_assert_ptr_nonnull(strstr(err.text, "chmod"));
	err = (struct err){ 0 };
	ck_assert_ptr_null(keys_load(mem,
	    &(struct conf){ .secrets_master_file = "/nonexistent", .secrets_previous_file = "" },
	    &err));
	ck_assert_ptr_nonnull(strstr(err.text, "/nonexistent"));
}
END_TEST

START_TEST(envelope)
{
	static const uint8_t key[KEY_SIZE] = { 1, 2, 3 }, other[KEY_SIZE] = { 1, 2, 4 };
	static const char text[] = "a secret";
	struct bytes b = envelope_seal(mem, key, "t|c|1", text, sizeof text - 1), open, c;
	struct bytes empty = envelope_seal(mem, key, "t|c|1", "", 0);
	size_t i;

	ck_assert_int_eq(b.n, 1 + 12 + 8 + 16);
	open = envelope_open(mem, key, "t|c|1", b, &err);
	ck_assert_str_eq((const char *)open.p, text);
	ck_assert_int_eq(open.n, 8);
	open = envelope_open(mem, key, "t|c|1", empty, &err);
	ck_assert_msg(open.p && open.n == 0 && !*open.p, "%s", err.text);
	c = envelope_seal(mem, key, "t|c|1", text, sizeof text - 1);
	ck_assert_mem_ne(b.p, c.p, b.n);
	for (i = 0; i < b.n; i++) { /* any byte changed, any end cut off */
		((uint8_t *)b.p)[i] ^= 1;
		ck_assert_ptr_null(envelope_open(mem, key, "t|c|1", b, &err).p);
		ck_assert_int_eq(err.code, E_TAMPERED);
		((uint8_t *)b.p)[i] ^= 1;
		ck_assert_ptr_null(
		    envelope_open(mem, key, "t|c|1", (struct bytes){ b.p, i }, &err).p);
	}
	ck_assert_ptr_null(envelope_open(mem, key, "t|c|2", b, &err).p);
	ck_assert_ptr_null(envelope_open(mem, key, "", b, &err).p);
	ck_assert_ptr_null(envelope_open(mem, other, "t|c|1", b, &err).p);
	ck_assert_ptr_null(envelope_open(mem, key, "t|c|1", (struct bytes){ NULL, 0 }, &err).p);
}
END_TEST

START_TEST(sums)
{
	uint8_t h[HASH_SIZE];
	char hex[2 * HASH_SIZE + 1];
	/* RFC 4231 §4.3 has a short key; HMAC pads it with zeros, so do we */
	static const uint8_t key[KEY_SIZE] = "Jefe";

	crypto_sha256("abc", 3, h);
	ck_assert_str_eq(hex_write(hex, h, sizeof h),
	    "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
	crypto_hmac(key, "what do ya want for nothing?", 28, h);
	ck_assert_str_eq(hex_write(hex, h, sizeof h),
	    "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843");
	ck_assert_uint_eq(crypto_crc32("123456789", 9), 0xcbf43926);
	ck_assert_uint_eq(crypto_crc32("", 0), 0);
	ck_assert(crypto_equal("abc", "abc", 3));
	ck_assert(!crypto_equal("abc", "abd", 3));
}
END_TEST

START_TEST(hex)
{
	static const char *const bad[] = { "", "0", "00f", "00ff0", "0g", "00fff", "00 ff", "+0ff",
		"00ff " };
	uint8_t two[2];
	size_t i;

	ck_assert(hex_read("00fF", two, 2));
	ck_assert_int_eq(two[1], 0xff);
	for (i = 0; i < nitems(bad); i++)
		ck_assert_msg(!hex_read(bad[i], two, 2), "%s was taken", bad[i]);
}
END_TEST

START_TEST(base64)
{
	/* clang-format off */
	static const char *const bad_url[] = { "A", "AAAAA", "AA==", "AAA=", "AA+A", "AA/A", "A A", "AAAA\n", "AB", "AAB", "A=AA", "====", "\xc3\xa4""aa", "AAAA=" };
	static const char *const bad[] = { "A", "AA=", "AAA==", "AAAA=", "AA===", "=", "====", "AA-A", "AA_A", "AA A", "AB==", "AAB=", "AA==AA==", "AAAA\n" };
	/* clang-format on */
	uint8_t all[256];
	struct bytes b;
	size_t i;

	for (i = 0; i < 256; i++)
		all[i] = i;
	for (i = 0; i <= 256; i++) {
		b = base64url_read(mem, base64url_write(mem, all, i));
		ck_assert_int_eq(b.n, i);
		ck_assert_ptr_nonnull(b.p);
		ck_assert_mem_eq(b.p, all, i);
	}
	for (i = 0; i < nitems(bad_url); i++)
		ck_assert_msg(!base64url_read(mem, bad_url[i]).p, "%s was taken", bad_url[i]);
	for (i = 0; i < nitems(bad); i++)
		ck_assert_msg(!base64_read(mem, bad[i]).p, "%s was taken", bad[i]);
	b = base64_read(mem, "Zm9vYg==");
	ck_assert_str_eq((const char *)b.p, "foob");
	b = base64_read(mem, "Zm9vYg");
	ck_assert_str_eq((const char *)b.p, "foob");
	b = base64_read(mem, "+/8=");
	ck_assert_int_eq(b.n, 2);
}
END_TEST

START_TEST(made_again)
{
	const struct keys *k = keys_of(master, 0600, NULL);
	struct uuid a = uuid_new(), b = uuid_new();

	ck_assert_str_eq(crypto_mail_token(mem, k, &a, "activation"),
	    crypto_mail_token(mem, k, &a, "activation"));
	ck_assert_str_ne(crypto_mail_token(mem, k, &a, "activation"),
	    crypto_mail_token(mem, k, &b, "activation"));
	ck_assert_str_ne(crypto_mail_token(mem, k, &a, "activation"),
	    crypto_mail_token(mem, k, &a, "password_reset"));
	ck_assert_int_eq(strlen(crypto_mail_token(mem, k, &a, "activation")), 43);
	ck_assert_str_eq(crypto_guest_token(mem, k, &a, 1), crypto_guest_token(mem, k, &a, 1));
	ck_assert_str_ne(crypto_guest_token(mem, k, &a, 1), crypto_guest_token(mem, k, &a, 2));
	ck_assert_str_ne(crypto_guest_token(mem, k, &a, 1), crypto_guest_token(mem, k, &b, 1));
	ck_assert_int_eq(strlen(crypto_guest_token(mem, k, &a, 1)), 64);
}
END_TEST

Suite *
crypto_suite(void)
{
	TCase *c;
	Suite *s = suite_new("crypto", &c);

	tcase_add_test(c, derived);
	tcase_add_test(c, previous);
	tcase_add_test(c, bad_master);
	tcase_add_test(c, envelope);
	tcase_add_test(c, sums);
	tcase_add_test(c, hex);
	tcase_add_test(c, base64);
	tcase_add_test(c, made_again);
	return s;
}
