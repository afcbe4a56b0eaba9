/*
 * crypto.h - hashes, keys, envelopes; all by OpenSSL.
 *
 * One master secret (secrets.master_file); every key in use is derived from it by HKDF-SHA256
 * (RFC 5869) with a label of its own, so that no two purposes share one.
 */
#pragma once
#include "buf.h"
#include "conf.h"
#include "db.h"
#include "err.h"
#include "id.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { KEY_SIZE = 32, HASH_SIZE = 32 };

/* Uses of keys. A new use is a new row; an old one is never given another meaning. */
enum key_use {
	KEY_ACCESS,
	KEY_REFRESH,
	KEY_CSRF,
	KEY_ADDRESS,
	KEY_RESPONSE,
	KEY_ENVS,
	KEY_HOST,
	KEY_MAIL,
	KEY_GUEST,
	KEY_CURSOR,
	KEY_AUDIT,  /* seed of the Ed25519 key that signs audit checkpoints */
	KEY_IDP,    /* secrets of identity providers */
	KEY_STATE,  /* what travels through a provider and back */
	KEY_FACTOR, /* secrets of second factors */
	KEY_DEVICE, /* devices, as the throttle knows them */
	KEY_CA,     /* the platform's certificate authority */
	KEY_STORAGE,
	KEY_TRAFFIC, /* tokens that open a capsule's ports */
	KEY_PORT,    /* cookies that do */
	KEY_CLI,     /* API keys of logins of the CLI */
	KEY__MAX
};

struct keys {
	uint8_t key[KEY__MAX][KEY_SIZE];      /* of the current master secret */
	uint8_t previous[KEY__MAX][KEY_SIZE]; /* of the one before */
	bool has_previous;
	char kid[9], previous_kid[9]; /* 8 hex digits of SHA-256 of the access key */
};

/* Reads the master secret; the file must be private. The keys are wiped when mem is freed. */
const struct keys *keys_load(void *mem, const struct conf *, struct err *);

void crypto_random(void *, size_t);
void crypto_sha256(const void *, size_t, uint8_t out[HASH_SIZE]);
void crypto_hmac(const uint8_t key[KEY_SIZE], const void *, size_t, uint8_t out[HASH_SIZE]);
bool crypto_equal(const void *, const void *, size_t); /* in constant time */
/* Ed25519 (RFC 8032); the secret is a seed of KEY_SIZE bytes, as is the public key. */
enum { SIGNATURE_SIZE = 64 };
void crypto_public(const uint8_t seed[KEY_SIZE], uint8_t out[KEY_SIZE]);
void crypto_sign(const uint8_t seed[KEY_SIZE], const void *, size_t, uint8_t out[SIGNATURE_SIZE]);
bool
crypto_signed(const uint8_t key[KEY_SIZE], const void *, size_t, const uint8_t sig[SIGNATURE_SIZE]);
uint32_t crypto_crc32(const void *, size_t); /* ISO-HDLC, as in zlib */

/* Lower-case hex; out has 2 n + 1 bytes. */
char *hex_write(char *out, const void *, size_t n);
bool hex_read(const char *, void *out, size_t n); /* exactly 2 n digits */
/* base64url without padding (RFC 4648 §5); on mem. NULL: not base64url. */
const char *base64url_write(void *mem, const void *, size_t);
struct bytes base64url_read(void *mem, const char *);
struct bytes base64_read(void *mem, const char *); /* standard, padded or not */

/* AES-256-GCM: 1 byte version, 12 nonce, ciphertext, 16 tag. aad binds it to its place:
 * "table|column|id". */
struct bytes
envelope_seal(void *mem, const uint8_t key[KEY_SIZE], const char *aad, const void *, size_t);
/* p NULL and E_TAMPERED when it does not open. The text is NUL-terminated. */
struct bytes
envelope_open(void *mem, const uint8_t key[KEY_SIZE], const char *aad, struct bytes, struct err *);

/*
 * The token that a mail carries (spec 04 §3): base64url(HMAC-SHA256(mail key, row id ‖ purpose)).
 * It can be made again from the row, so no table and no job ever holds it.
 */
const char *
crypto_mail_token(void *mem, const struct keys *, const struct uuid *row, const char *purpose);

/* The token that opens a capsule's guest agent (spec 06 §2): 64 hex digits from capsule and token
 * epoch. */
enum { GUEST_TOKEN_EPOCH = 1 }; /* raised when tokens are to die: not with a capsule's starts */
const char *
crypto_guest_token(void *mem, const struct keys *, const struct uuid *capsule, int64_t epoch);
/* The token that opens a capsule's private ports (spec 06 §2), made in the same way. */
const char *
crypto_traffic_token(void *mem, const struct keys *, const struct uuid *capsule, int64_t epoch);
