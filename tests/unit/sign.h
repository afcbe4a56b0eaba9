/* sign.h - a provider's side of a signed token, for oidc.c: apart from it because of jansson's
 * names. */
#pragma once

/* A fresh key: "RSA", "EC" or "oct"; its public (all of oct) JWK as text. Freed with mem. */
struct signer;
struct signer *signer_new(void *mem, const char *kind, const char *kid, const char **jwk);
/* The compact token. kid may be NULL; crit adds a critical extension. */
const char *
sign(void *mem, struct signer *, const char *alg, const char *kid, int crit, const char *claims);
