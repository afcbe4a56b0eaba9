/*
 * oidc.h - signing in at somebody else's: OpenID Connect Core 1.0 with discovery, and GitHub's
 * OAuth 2.0 (RFC 6749), both with PKCE (RFC 7636, S256).
 *
 * Blocks: only for the operations pool. Discovery documents and keys are remembered in the process
 * for an hour; unknown keys are looked up again at most once a minute.
 */
#pragma once
#include "conf.h"
#include "err.h"
#include "json.h"
#include <stdbool.h>
#include <stdint.h>

/* A row of identity_providers, with its secret opened. */
struct oidc_client {
	const struct conf *conf;
	const char *type;   /* github, oidc */
	const char *issuer; /* oidc: as in its discovery document */
	const char *id, *secret;
	const char *alg;   /* oidc: the one algorithm of its ID tokens: RS256, ES256, PS256 … */
	const char *scope; /* of the authorisation request */
	const char *web, *api; /* github: https://github.com, https://api.github.com */
	const char *redirect;  /* our callback */
};

/* Who signed in there. */
struct oidc_person {
	const char *subject, *name;
	const char *email; /* normalised: lower case; NULL: none */
	bool verified;     /* the provider vouches for the address */
	bool mfa;          /* it asked for a second factor (amr, RFC 8176) */
};

/* The row's config (JSON object) as a client; E_BAD_INPUT names what is missing or wrong. */
int oidc_client_read(
    void *mem, const char *type, struct json_object *config, struct oidc_client *ret, struct err *);

/* Where the browser goes. */
const char *oidc_authorize_url(void *mem, const struct oidc_client *, const char *state,
    const char *nonce, const char *verifier, struct err *);

/*
 * What the browser came back with, exchanged for who it is. iss: parameter of the answer (RFC
 * 9207), may be NULL. now: seconds since 1970. -1: E_HTTP, E_REFUSED, E_TIMEOUT, or E_UNAUTHORIZED
 * with what does not fit.
 */
int oidc_person_of(void *mem, const struct oidc_client *, const char *code, const char *iss,
    const char *nonce, const char *verifier, int64_t now, struct oidc_person *ret, struct err *);

/* Checks discovery and keys. Steps of POST /v1/admin/idps/{idp}/test. */
int oidc_discovery_test(void *mem, const struct oidc_client *, const char **detail, struct err *);
int oidc_keys_test(void *mem, const struct oidc_client *, const char **detail, struct err *);

/*
 * The claims of an ID token (OpenID Connect Core §3.1.3.7) against a key set; exposed for tests.
 * access_token: for at_hash, may be NULL. NULL: E_UNAUTHORIZED, or E_NOT_FOUND when no key of the
 * set is the token's.
 */
struct json_object *oidc_id_token(void *mem, const struct oidc_client *, struct json_object *jwks,
    const char *token, const char *nonce, const char *access_token, int64_t now, struct err *);
