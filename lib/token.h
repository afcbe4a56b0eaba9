/*
 * token.h - signed tokens (JWT, RFC 7519, HS256 only) and API keys.
 *
 * token.c is the only file that calls libjwt, and pins what libjwt would take from the token
 * itself: the header must be exactly {"alg":"HS256","kid":…,"typ":"JWT"} before any signature is
 * computed (libjwt 1.x believes the header's algorithm, and does not check exp).
 */
#pragma once
#include "crypto.h"
#include "err.h"
#include "id.h"
#include <stdbool.h>
#include <stdint.h>

enum token_type { TOKEN_ACCESS, TOKEN_HOST };

struct token_claims {
	struct uuid sub;  /* user, or host */
	struct uuid sid;  /* access: login session */
	struct uuid team; /* access; has_team says whether there is one */
	bool has_team;
	const char *role, *email, *name; /* hints for clients; NULL when absent */
	bool is_admin;
	int64_t iat, exp; /* seconds since 1970 */
};

/* The signed token, on mem. issuer is http.public_url. */
const char *token_sign(void *mem, const struct keys *, enum token_type, const char *issuer,
    const struct token_claims *, struct err *);
/* 0 and *ret filled, or -1 with E_UNAUTHORIZED. Strings hang on mem. */
int token_verify(void *mem, const struct keys *, enum token_type, const char *issuer,
    const char *text, struct token_claims *ret, struct err *);

/*
 * API keys (spec 00 §4): a decorating word, '_', 40 hex digits; the last 8 are the CRC-32 of the
 * first 32. Only the digits count; SHA-256 of the lower-case digits is stored.
 */
const char *apikey_new(void *mem, const char *word);
/* The same of 16 bytes that the caller has. */
const char *apikey_of(void *mem, const char *word, const uint8_t secret[16]);
/* False when the shape or the CRC is wrong: then there is no look-up. */
bool apikey_hash(const char *key, uint8_t out[HASH_SIZE]);
