/* totp.c - see totp.h. */
#include "totp.h"
#include "buf.h"
#include "cleanup.h"
#include "crypto.h"

#include <endian.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <stdlib.h>
#include <string.h>

enum { DIGITS = 6, MODULUS = 1000000, STEPS_AROUND = 1 };

uint32_t
totp_code(const uint8_t secret[TOTP_SECRET], int64_t step)
{
	uint64_t be = htobe64((uint64_t)step);
	uint8_t mac[EVP_MAX_MD_SIZE];
	const uint8_t *p;
	unsigned n = 0;

	if (!HMAC(EVP_sha1(), secret, TOTP_SECRET, (const uint8_t *)&be, sizeof be, mac, &n) ||
	    n != 20)
		abort();
	p = mac + (mac[n - 1] & 0xf);
	return ((uint32_t)(p[0] & 0x7f) << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3]) %
	    MODULUS;
}

int64_t
totp_find(const uint8_t secret[TOTP_SECRET], const char *code, int64_t now, int64_t last_step)
{
	int64_t step = now / TOTP_PERIOD, s, found = 0;
	char want[DIGITS + 2];

	if (strlen(code) != DIGITS || strspn(code, "0123456789") != DIGITS)
		return 0;
	for (s = step - STEPS_AROUND; s <= step + STEPS_AROUND; s++) {
		snprintf(want, sizeof want, "%06u", (unsigned)(totp_code(secret, s) % MODULUS));
		if (crypto_equal(want, code, DIGITS) && s > last_step && !found)
			found = s;
	}
	return found;
}

const char *
totp_base32(void *mem, const uint8_t *p, size_t n)
{
	static const char letters[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
	struct buf b = BUF(mem);
	uint32_t bits = 0;
	int have = 0;
	size_t i;

	for (i = 0; i < n; i++) {
		bits = bits << 8 | p[i];
		for (have += 8; have >= 5; have -= 5)
			buf_chr(&b, letters[bits >> (have - 5) & 31]);
	}
	if (have)
		buf_chr(&b, letters[bits << (5 - have) & 31]);
	return b.data ? b.data : "";
}

static void
add_escaped(struct buf *b, const char *s)
{
	for (; *s; s++)
		if (((*s | 32) >= 'a' && (*s | 32) <= 'z') || (*s >= '0' && *s <= '9') ||
		    strchr("-._~@", *s))
			buf_chr(b, *s);
		else
			buf_fmt(b, "%%%02X", (unsigned char)*s);
}

const char *
totp_url(void *mem, const char *issuer, const char *account, const char *secret32)
{
	struct buf b = BUF(mem);

	buf_str(&b, "otpauth://totp/");
	add_escaped(&b, issuer);
	buf_chr(&b, ':');
	add_escaped(&b, account);
	buf_fmt(&b, "?secret=%s&issuer=", secret32);
	add_escaped(&b, issuer);
	buf_fmt(&b, "&algorithm=SHA1&digits=%d&period=%d", DIGITS, TOTP_PERIOD);
	return b.data;
}

/* Without letters that are mistaken for others (Crockford's base 32). */
static const char letters[] = "0123456789abcdefghjkmnpqrstvwxyz";
enum { CODE_LETTERS = 10 };

const char *
backup_code_new(void *mem, int index)
{
	uint8_t random[CODE_LETTERS];
	char text[CODE_LETTERS + 1];
	int i;

	crypto_random(random, sizeof random);
	for (i = 0; i < CODE_LETTERS; i++)
		text[i] = letters[random[i] & 31];
	text[CODE_LETTERS] = '\0';
	return talloc_asprintf(mem, "%d-%.5s-%s", index, text, text + 5);
}

int
backup_code_read(void *mem, const char *text, const char **normal)
{
	struct buf b = BUF(mem);
	char c;

	for (; *text; text++) {
		c = *text >= 'A' && *text <= 'Z' ? *text + 32 : *text;
		if (c == ' ' || c == '-')
			continue;
		if (!strchr(letters, c) || b.len > CODE_LETTERS)
			return -1;
		buf_chr(&b, c);
	}
	if (b.len != CODE_LETTERS + 1 || b.data[0] < '0' || b.data[0] > '9')
		return -1;
	*normal = talloc_asprintf(mem, "%c-%.5s-%s", b.data[0], b.data + 1, b.data + 6);
	return b.data[0] - '0';
}
