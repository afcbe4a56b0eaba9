/* password.c - see password.h. Unicode by libunistring. */
#include "password.h"
#include "buf.h"
#include "cleanup.h"
#include "crypto.h"

#include <crypt.h>
#include <ctype.h>
#include <fcntl.h>
#include <openssl/sha.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unicase.h>
#include <uninorm.h>
#include <unistr.h>

static const char prefix[] = "h1:";

/* The commonest passwords of public lists that an eight-character rule lets through; sorted. */
static const char *const common[] = {
#include "passwords.def"
};

/* The text as libunistring made it, on mem; the text itself when it is not UTF-8. */
static const char *
taken(void *mem, uint8_t *made, size_t n, const char *text)
{
	const char *copy = made ? talloc_strndup(mem, (char *)made, n) : talloc_strdup(mem, text);

	free(made);
	return copy;
}

/* One way of writing each character: an e with its accent in one piece or in two is the same
 * password. */
static const char *
nfc(void *mem, const char *text)
{
	size_t n = 0;
	uint8_t *made = u8_normalize(UNINORM_NFC, (const uint8_t *)text, strlen(text), NULL, &n);

	return taken(mem, made, n, text);
}

/* For comparing: without the difference of capitals, in all scripts. */
static const char *
caseless(void *mem, const char *text)
{
	size_t n = 0;
	uint8_t *made =
	    u8_casefold((const uint8_t *)text, strlen(text), NULL, UNINORM_NFC, NULL, &n);

	return taken(mem, made, n, text);
}

static const char *
digest(void *mem, const char *password)
{
	static const char label[] = "hutch-password-1"; /* with its NUL */
	struct buf in = BUF(mem), out = BUF(mem);
	uint8_t h[SHA384_DIGEST_LENGTH];

	buf_add(&in, label, sizeof label);
	buf_str(&in, nfc(mem, password));
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
	h = crypt_with(tmp, digest(tmp, password), setting);
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
			(void)crypt_with(tmp, digest(tmp, password), setting);
		return false;
	}
	want = ours ? stored + sizeof prefix - 1 : stored;
	h = crypt_with(tmp, ours ? digest(tmp, password) : password, want);
	return h && strlen(h) == strlen(want) && crypto_equal(h, want, strlen(h));
}

bool
password_stale(const char *stored, int cost)
{
	char setting[CRYPT_GENSALT_OUTPUT_SIZE], *salt;

	if (strncmp(stored, prefix, sizeof prefix - 1) != 0)
		return true;
	if (!crypt_gensalt_rn(
		"$y$", cost, "0123456789abcdef0123456789abcdef", 32, setting, sizeof setting))
		return false;
	salt = strrchr(setting, '$'); /* behind the parameters of the cost */
	return !salt || strncmp(stored + sizeof prefix - 1, setting, salt + 1 - setting) != 0;
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

/* Is it a line of the sorted text? Found by halving: the file may be large. */
static bool
is_line(const char *s, const char *text, size_t size)
{
	size_t lo = 0, hi = size, mid, end, n = strlen(s);
	int c;

	while (lo < hi) {
		mid = lo + (hi - lo) / 2;
		while (mid > lo && text[mid - 1] != '\n')
			mid--;
		for (end = mid; end < hi && text[end] != '\n'; end++)
			;
		c = memcmp(s, text + mid, n < end - mid ? n : end - mid);
		c = c ? c : n < end - mid ? -1 : n > end - mid;
		if (!c)
			return true;
		if (c < 0)
			hi = mid;
		else
			lo = end + 1;
	}
	return false;
}

/* 1: in the operator's file, 0: not, -1: the file cannot be read. */
static int
is_listed(const char *s, const char *path, struct err *e)
{
	auto_fd fd = -1;
	struct stat st;
	void *text;
	bool found;

	if (!path || !*path)
		return 0;
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0 || fstat(fd, &st) < 0)
		return err_set(e, E_CONFIG, "auth.blocklist %s cannot be read", path);
	if (!st.st_size)
		return 0;
	text = mmap(NULL, st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
	if (text == MAP_FAILED)
		return err_set(e, E_CONFIG, "auth.blocklist %s cannot be read", path);
	found = is_line(s, text, st.st_size);
	munmap(text, st.st_size);
	return found;
}

/* The word itself, or the word and up to four digits around it. */
static bool
is_word(const char *password, const char *word, size_t n)
{
	const char *p = password, *end;
	int digits = 0;

	if (!n)
		return false;
	while (isdigit((unsigned char)*p) && strncmp(p, word, n) != 0) {
		p++;
		digits++;
	}
	if (strncmp(p, word, n) != 0)
		return false;
	for (end = p + n; isdigit((unsigned char)*end); end++)
		digits++;
	return !*end && digits <= 4;
}

/* Is it near to what everybody knows of the person and of the place? */
static bool
is_close(void *mem, const char *folded, const struct password_rules *r)
{
	const char *email = r->email ? caseless(mem, r->email) : "";
	const char *name = r->name ? caseless(mem, r->name) : "", *host = r->url ? r->url : "";

	host = strstr(host, "://") ? strstr(host, "://") + 3 : host;
	host = caseless(mem, talloc_strndup(mem, host, strcspn(host, ":/")));
	return is_word(folded, "hutch", 5) || is_word(folded, email, strlen(email)) ||
	    is_word(folded, email, strcspn(email, "@")) || is_word(folded, name, strlen(name)) ||
	    is_word(folded, host, strlen(host));
}

int
password_check(const char *password, const struct password_rules *r, struct err *e)
{
	auto_talloc char *tmp = talloc_new(NULL);
	const char *field = r->field ? r->field : "password", *folded;
	int listed;

	if (u8_check((const uint8_t *)password, strlen(password)))
		return err_set(e, E_BAD_INPUT, "\"%s\" is not UTF-8", field);
	if (strlen(password) > 1024)
		return err_set(e, E_BAD_INPUT, "\"%s\" is longer than 1024 bytes", field);
	folded = nfc(tmp, password);
	if ((int64_t)u8_mbsnlen((const uint8_t *)folded, strlen(folded)) < r->least)
		return err_set(
		    e, E_BAD_INPUT, "\"%s\" is shorter than %d characters", field, (int)r->least);
	folded = caseless(tmp, password);
	listed = is_listed(folded, r->blocklist, e);
	if (listed < 0)
		return -1;
	if (listed || is_common(folded))
		return err_set(e, E_BAD_INPUT, "\"%s\" is one of the most common passwords", field);
	if (is_close(tmp, folded, r))
		return err_set(
		    e, E_BAD_INPUT, "\"%s\" is too close to your name or address", field);
	return 0;
}
