/* crypto.c - see crypto.h. */
#include "crypto.h"
#include "cleanup.h"

#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <openssl/core_names.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <openssl/kdf.h>
#include <openssl/params.h>
#include <openssl/rand.h>
#include <openssl/sha.h>
#include <string.h>
#include <sys/stat.h>

static const char *const key_label[KEY__MAX] = {
	[KEY_ACCESS] = "access",
	[KEY_REFRESH] = "refresh",
	[KEY_CSRF] = "csrf",
	[KEY_ADDRESS] = "address",
	[KEY_RESPONSE] = "response",
	[KEY_ENVS] = "envs",
	[KEY_HOST] = "host",
	[KEY_MAIL] = "mail",
	[KEY_GUEST] = "guest",
	[KEY_CURSOR] = "cursor",
	[KEY_AUDIT] = "audit",
	[KEY_IDP] = "idp",
	[KEY_STATE] = "state",
	[KEY_FACTOR] = "factor",
	[KEY_DEVICE] = "device",
	[KEY_CA] = "ca",
	[KEY_STORAGE] = "storage",
	[KEY_TRAFFIC] = "traffic",
	[KEY_PORT] = "port",
	[KEY_CLI] = "cli",
};

static void
hkdf(const uint8_t *secret, const char *label, uint8_t out[KEY_SIZE])
{
	EVP_KDF *kdf = EVP_KDF_fetch(NULL, "HKDF", NULL);
	EVP_KDF_CTX *ctx = EVP_KDF_CTX_new(kdf);
	OSSL_PARAM p[] = {
		OSSL_PARAM_construct_utf8_string(OSSL_KDF_PARAM_DIGEST, "SHA256", 0),
		OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_KEY, (void *)secret, KEY_SIZE),
		OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_SALT, "hutch-1", 7),
		OSSL_PARAM_construct_octet_string(
		    OSSL_KDF_PARAM_INFO, (void *)label, strlen(label)),
		OSSL_PARAM_construct_end(),
	};

	if (EVP_KDF_derive(ctx, out, KEY_SIZE, p) <= 0)
		abort();
	EVP_KDF_CTX_free(ctx);
	EVP_KDF_free(kdf);
}

static int
wipe(struct keys *k)
{
	OPENSSL_cleanse(k, sizeof *k);
	return 0;
}

static int
read_master(const char *path, uint8_t secret[KEY_SIZE], struct err *e)
{
	auto_fd fd = open(path, O_RDONLY | O_CLOEXEC);
	char text[2 * KEY_SIZE + 1] = "";
	struct stat st;

	if (fd < 0)
		return err_sys(e, "master secret %s", path);
	if (fstat(fd, &st) == 0 && (st.st_mode & 07))
		return err_set(e, E_CONFIG,
		    "master secret %s: others may read it; chmod 0600 (or 0640)", path);
	if (read(fd, text, 2 * KEY_SIZE) != 2 * KEY_SIZE || !hex_read(text, secret, KEY_SIZE))
		return err_set(
		    e, E_CONFIG, "master secret %s is not %d hex digits", path, 2 * KEY_SIZE);
	OPENSSL_cleanse(text, sizeof text);
	return 0;
}

static void
derive(const uint8_t secret[KEY_SIZE], uint8_t key[KEY__MAX][KEY_SIZE], char kid[9])
{
	uint8_t h[HASH_SIZE];
	int i;

	for (i = 0; i < KEY__MAX; i++)
		hkdf(secret, key_label[i], key[i]);
	crypto_sha256(key[KEY_ACCESS], KEY_SIZE, h);
	hex_write(kid, h, 4);
}

const struct keys *
keys_load(void *mem, const struct conf *c, struct err *e)
{
	struct keys *k = talloc_zero(mem, struct keys);
	uint8_t secret[KEY_SIZE];

	talloc_set_destructor(k, wipe);
	if (read_master(c->secrets_master_file, secret, e) < 0)
		return NULL;
	derive(secret, k->key, k->kid);
	if (*c->secrets_previous_file) {
		if (read_master(c->secrets_previous_file, secret, e) < 0)
			return NULL;
		derive(secret, k->previous, k->previous_kid);
		k->has_previous = true;
	}
	OPENSSL_cleanse(secret, sizeof secret);
	return k;
}

void
crypto_random(void *p, size_t n)
{
	if (RAND_bytes(p, n) != 1)
		abort();
}

void
crypto_sha256(const void *p, size_t n, uint8_t out[HASH_SIZE])
{
	SHA256(p, n, out);
}

void
crypto_hmac(const uint8_t key[KEY_SIZE], const void *p, size_t n, uint8_t out[HASH_SIZE])
{
	unsigned len = HASH_SIZE;

	if (!HMAC(EVP_sha256(), key, KEY_SIZE, p, n, out, &len))
		abort();
}

void
crypto_public(const uint8_t seed[KEY_SIZE], uint8_t out[KEY_SIZE])
{
	EVP_PKEY *k = EVP_PKEY_new_raw_private_key(EVP_PKEY_ED25519, NULL, seed, KEY_SIZE);
	size_t n = KEY_SIZE;

	if (!k || EVP_PKEY_get_raw_public_key(k, out, &n) != 1 || n != KEY_SIZE)
		abort();
	EVP_PKEY_free(k);
}

void
crypto_sign(const uint8_t seed[KEY_SIZE], const void *p, size_t n, uint8_t out[SIGNATURE_SIZE])
{
	EVP_PKEY *k = EVP_PKEY_new_raw_private_key(EVP_PKEY_ED25519, NULL, seed, KEY_SIZE);
	EVP_MD_CTX *c = EVP_MD_CTX_new();
	size_t len = SIGNATURE_SIZE;

	if (!k || EVP_DigestSignInit(c, NULL, NULL, NULL, k) != 1 ||
	    EVP_DigestSign(c, out, &len, p, n) != 1 || len != SIGNATURE_SIZE)
		abort();
	EVP_MD_CTX_free(c);
	EVP_PKEY_free(k);
}

bool
crypto_signed(
    const uint8_t key[KEY_SIZE], const void *p, size_t n, const uint8_t sig[SIGNATURE_SIZE])
{
	EVP_PKEY *k = EVP_PKEY_new_raw_public_key(EVP_PKEY_ED25519, NULL, key, KEY_SIZE);
	EVP_MD_CTX *c = EVP_MD_CTX_new();
	bool good = k && EVP_DigestVerifyInit(c, NULL, NULL, NULL, k) == 1 &&
	    EVP_DigestVerify(c, sig, SIGNATURE_SIZE, p, n) == 1;

	EVP_MD_CTX_free(c);
	EVP_PKEY_free(k);
	return good;
}

bool
crypto_equal(const void *a, const void *b, size_t n)
{
	return CRYPTO_memcmp(a, b, n) == 0;
}

uint32_t
crypto_crc32(const void *p, size_t n)
{
	const uint8_t *s = p;
	uint32_t c = ~0u;
	int bit;

	while (n--)
		for (c ^= *s++, bit = 0; bit < 8; bit++)
			c = c >> 1 ^ (c & 1 ? 0xedb88320u : 0);
	return ~c;
}

char *
hex_write(char *out, const void *p, size_t n)
{
	const uint8_t *s = p;
	size_t i;

	for (i = 0; i < n; i++) {
		out[2 * i] = "0123456789abcdef"[s[i] >> 4];
		out[2 * i + 1] = "0123456789abcdef"[s[i] & 15];
	}
	out[2 * n] = '\0';
	return out;
}

static int
hex_digit(char c)
{
	return c >= '0' && c <= '9'              ? c - '0'
	    : (c | 32) >= 'a' && (c | 32) <= 'f' ? (c | 32) - 'a' + 10
						 : -1;
}

bool
hex_read(const char *text, void *out, size_t n)
{
	uint8_t *o = out;
	size_t i;
	int hi, lo;

	for (i = 0; i < n; i++) {
		hi = hex_digit(text[2 * i]);
		lo = hi < 0 ? -1 : hex_digit(text[2 * i + 1]);
		if (lo < 0)
			return false;
		o[i] = hi << 4 | lo;
	}
	return !text[2 * n];
}

const char *
base64url_write(void *mem, const void *p, size_t n)
{
	struct buf b = BUF(mem);
	char *s;

	buf_base64(&b, p, n);
	buf_need(&b, 0);
	for (s = b.data; s < b.data + b.len; s++)
		if (*s == '+')
			*s = '-';
		else if (*s == '/')
			*s = '_';
	while (b.len && b.data[b.len - 1] == '=')
		b.data[--b.len] = '\0';
	return b.len ? b.data : "";
}

/* Digits in either alphabet's places 62 and 63; strict: no stray bits, no blanks. */
static struct bytes
base64_any(void *mem, const char *text, size_t len, const char *two)
{
	size_t i, n = 0;
	uint8_t *out;
	uint32_t acc = 0;
	int bits = 0, d;
	char c;

	out = talloc_array(mem, uint8_t, len * 3 / 4 + 1);
	for (i = 0; i < len; i++) {
		c = text[i];
		d = c >= 'A' && c <= 'Z'   ? c - 'A'
		    : c >= 'a' && c <= 'z' ? c - 'a' + 26
		    : c >= '0' && c <= '9' ? c - '0' + 52
		    : c == two[0]          ? 62
		    : c == two[1]          ? 63
					   : -1;
		if (d < 0)
			return (struct bytes){ 0 };
		acc = acc << 6 | d;
		bits += 6;
		if (bits >= 8) {
			bits -= 8;
			out[n++] = acc >> bits;
		}
	}
	if (len % 4 == 1 || (acc & ((1u << bits) - 1)))
		return (struct bytes){ 0 };
	out[n] = 0;
	return (struct bytes){ out, n };
}

struct bytes
base64url_read(void *mem, const char *text)
{
	return base64_any(mem, text, strlen(text), "-_");
}

struct bytes
base64_read(void *mem, const char *text)
{
	size_t len = strlen(text), pad = 0;

	while (pad < 2 && pad < len && text[len - 1 - pad] == '=')
		pad++;
	if (pad && len % 4)
		return (struct bytes){ 0 };
	return base64_any(mem, text, len - pad, "+/");
}

enum { ENV_VERSION = 1, NONCE = 12, TAG = 16 };

struct bytes
envelope_seal(void *mem, const uint8_t key[KEY_SIZE], const char *aad, const void *p, size_t n)
{
	EVP_CIPHER_CTX *ctx = EVP_CIPHER_CTX_new();
	uint8_t *out = talloc_array(mem, uint8_t, 1 + NONCE + n + TAG);
	int len, ok;

	out[0] = ENV_VERSION;
	crypto_random(out + 1, NONCE);
	ok = EVP_EncryptInit_ex(ctx, EVP_aes_256_gcm(), NULL, key, out + 1) &&
	    EVP_EncryptUpdate(ctx, NULL, &len, (const uint8_t *)aad, strlen(aad)) &&
	    EVP_EncryptUpdate(ctx, out + 1 + NONCE, &len, p, n) &&
	    EVP_EncryptFinal_ex(ctx, out + 1 + NONCE + len, &len) &&
	    EVP_CIPHER_CTX_ctrl(ctx, EVP_CTRL_GCM_GET_TAG, TAG, out + 1 + NONCE + n);
	EVP_CIPHER_CTX_free(ctx);
	if (!ok)
		abort();
	return (struct bytes){ out, 1 + NONCE + n + TAG };
}

struct bytes
envelope_open(
    void *mem, const uint8_t key[KEY_SIZE], const char *aad, struct bytes b, struct err *e)
{
	EVP_CIPHER_CTX *ctx;
	uint8_t *out;
	size_t n;
	int len, ok;

	if (b.n < 1 + NONCE + TAG || b.p[0] != ENV_VERSION) {
		err_set(e, E_TAMPERED, "%s: not an envelope", aad);
		return (struct bytes){ 0 };
	}
	n = b.n - 1 - NONCE - TAG;
	out = talloc_zero_array(mem, uint8_t, n + 1);
	ctx = EVP_CIPHER_CTX_new();
	ok = EVP_DecryptInit_ex(ctx, EVP_aes_256_gcm(), NULL, key, b.p + 1) &&
	    EVP_DecryptUpdate(ctx, NULL, &len, (const uint8_t *)aad, strlen(aad)) &&
	    EVP_DecryptUpdate(ctx, out, &len, b.p + 1 + NONCE, n) &&
	    EVP_CIPHER_CTX_ctrl(ctx, EVP_CTRL_GCM_SET_TAG, TAG, (void *)(b.p + b.n - TAG)) &&
	    EVP_DecryptFinal_ex(ctx, out + len, &len) > 0;
	EVP_CIPHER_CTX_free(ctx);
	if (!ok) {
		talloc_free(out);
		err_set(e, E_TAMPERED, "%s: does not open", aad);
		return (struct bytes){ 0 };
	}
	return (struct bytes){ out, n };
}

const char *
crypto_mail_token(void *mem, const struct keys *k, const struct uuid *row, const char *purpose)
{
	auto_talloc char *tmp = talloc_new(NULL);
	struct buf b = BUF(tmp);
	uint8_t h[HASH_SIZE];

	buf_add(&b, row->b, sizeof row->b);
	buf_str(&b, purpose);
	crypto_hmac(k->key[KEY_MAIL], b.data, b.len, h);
	return base64url_write(mem, h, sizeof h);
}

static const char *
capsule_token(void *mem, const uint8_t key[KEY_SIZE], const struct uuid *capsule, int64_t epoch)
{
	uint8_t in[sizeof capsule->b + sizeof epoch], h[HASH_SIZE];
	uint64_t be = htobe64(epoch);

	memcpy(in, capsule->b, sizeof capsule->b);
	memcpy(in + sizeof capsule->b, &be, sizeof be);
	crypto_hmac(key, in, sizeof in, h);
	return hex_write(talloc_array(mem, char, 2 * HASH_SIZE + 1), h, HASH_SIZE);
}

const char *
crypto_guest_token(void *mem, const struct keys *k, const struct uuid *capsule, int64_t epoch)
{
	return capsule_token(mem, k->key[KEY_GUEST], capsule, epoch);
}

const char *
crypto_traffic_token(void *mem, const struct keys *k, const struct uuid *capsule, int64_t epoch)
{
	return capsule_token(mem, k->key[KEY_TRAFFIC], capsule, epoch);
}
