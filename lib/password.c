/* password.c - see password.h. */
#include "password.h"
#include "buf.h"
#include "cleanup.h"
#include "crypto.h"

#include <crypt.h>
#include <ctype.h>
#include <openssl/sha.h>
#include <string.h>
#include <strings.h>

static const char prefix[] = "h1:";

/* The commonest passwords of public lists that an eight-character rule lets through; sorted. */
static const char *const common[] = {
#include "passwords.def"
};

static const char *
folded(void *mem, const char *password)
{
	static const char label[] = "hutch-password-1"; /* with its NUL */
	struct buf in = BUF(mem), out = BUF(mem);
	uint8_t h[SHA384_DIGEST_LENGTH];

	buf_add(&in, label, sizeof label);
	buf_str(&in, password);
	SHA384((uint8_t *)in.data, in.len, h);
	buf_base64(&out, h, sizeof h);
	explicit_bzero(in.data, in.len);
	return out.data;
}

static const char *
crypt_with(void *mem, const char *text, const char *setting)
{
	struct crypt_data *data = talloc_zero(mem, struct crypt_data);
	const char *h = crypt_r(text, setting, data);

	return h && *h != '*' ? h : NULL;
}

const char *
password_hash(void *mem, const char *password, int cost, struct err *e)
{
	auto_talloc char *tmp = talloc_new(mem);
	char salt[32], setting[CRYPT_GENSALT_OUTPUT_SIZE];
	const char *h;

	crypto_random(salt, sizeof salt);
	if (!crypt_gensalt_rn("$y$", cost, salt, sizeof salt, setting, sizeof setting)) {
		err_sys(e, "crypt_gensalt");
		return NULL;
	}
	h = crypt_with(tmp, folded(tmp, password), setting);
	if (!h) {
		err_sys(e, "crypt");
		return NULL;
	}
	return talloc_asprintf(mem, "%s%s", prefix, h);
}

bool
password_verify(const char *password, const char *stored, int cost)
{
	auto_talloc char *tmp = talloc_new(NULL);
	bool ours = stored && strncmp(stored, prefix, sizeof prefix - 1) == 0;
	char setting[CRYPT_GENSALT_OUTPUT_SIZE];
	const char *h, *want;

	if (!stored) {
		if (crypt_gensalt_rn("$y$", cost, "0123456789abcdef0123456789abcdef", 32, setting,
			sizeof setting))
			(void)crypt_with(tmp, folded(tmp, password), setting);
		return false;
	}
	want = ours ? stored + sizeof prefix - 1 : stored;
	h = crypt_with(tmp, ours ? folded(tmp, password) : password, want);
	return h && strlen(h) == strlen(want) && crypto_equal(h, want, strlen(h));
}

static bool
is_common(const char *s)
{
	size_t lo = 0, hi = nitems(common), mid;
	int c;

	while (lo < hi) {
		mid = (lo + hi) / 2;
		c = strcasecmp(s, common[mid]);
		if (!c)
			return true;
		if (c < 0)
			hi = mid;
		else
			lo = mid + 1;
	}
	return false;
}

/* The word itself, or the word and up to four digits around it. */
static bool
is_word(const char *password, const char *word, size_t n)
{
	const char *p = password, *end;
	int digits = 0;

	if (!n)
		return false;
	while (isdigit((unsigned char)*p) && strncasecmp(p, word, n) != 0) {
		p++;
		digits++;
	}
	if (strncasecmp(p, word, n) != 0)
		return false;
	for (end = p + n; isdigit((unsigned char)*end); end++)
		digits++;
	return !*end && digits <= 4;
}

int
password_check(
    const char *password, int64_t least, const char *email, const char *name, struct err *e)
{
	const char *at = email ? strchr(email, '@') : NULL;
	int64_t n = 0;
	const char *p;

	for (p = password; *p; p++)
		n += (*p & 0xc0) != 0x80;
	if (n < least)
		return err_set(
		    e, E_BAD_INPUT, "\"password\" is shorter than %d characters", (int)least);
	if (p - password > 1024)
		return err_set(e, E_BAD_INPUT, "\"password\" is longer than 1024 bytes");
	if (is_common(password))
		return err_set(e, E_BAD_INPUT, "\"password\" is one of the most common passwords");
	if (is_word(password, "hutch", 5) || (email && is_word(password, email, strlen(email))) ||
	    (at && is_word(password, email, at - email)) ||
	    (name && is_word(password, name, strlen(name))))
		return err_set(e, E_BAD_INPUT, "\"password\" is too close to your name or address");
	return 0;
}
