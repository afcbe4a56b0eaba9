/* sign.c - see sign.h; by libcjose. */
#include "sign.h"

#include <cjose/cjose.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <talloc.h>

struct signer {
	cjose_jwk_t *key;
};

static int
signer_free(struct signer *s)
{
	cjose_jwk_release(s->key);
	return 0;
}

struct signer *
signer_new(void *mem, const char *kind, const char *kid, const char **jwk)
{
	struct signer *s = talloc_zero(mem, struct signer);
	cjose_err e;
	char *text;

	if (strcmp(kind, "RSA") == 0)
		s->key = cjose_jwk_create_RSA_random(2048, (const uint8_t *)"\1\0\1", 3, &e);
	else if (strcmp(kind, "EC") == 0)
		s->key = cjose_jwk_create_EC_random(CJOSE_JWK_EC_P_256, &e);
	else
		s->key = cjose_jwk_create_oct_random(256, &e);
	if (!s->key)
		abort();
	talloc_set_destructor(s, signer_free);
	cjose_jwk_set_kid(s->key, kid, strlen(kid), &e);
	text = cjose_jwk_to_json(s->key, strcmp(kind, "oct") == 0, &e);
	*jwk = talloc_strdup(mem, text);
	free(text);
	return s;
}

const char *
sign(void *mem, struct signer *s, const char *alg, const char *kid, int crit, const char *claims)
{
	json_t *header = json_object(), *list;
	const char *compact = NULL, *ret;
	cjose_jws_t *jws;
	cjose_err e;

	json_object_set_new(header, "alg", json_string(alg));
	if (kid)
		json_object_set_new(header, "kid", json_string(kid));
	if (crit) {
		list = json_array();
		json_array_append_new(list, json_string("exp"));
		json_object_set_new(header, "crit", list);
	}
	jws = cjose_jws_sign(s->key, header, (const uint8_t *)claims, strlen(claims), &e);
	if (!jws || !cjose_jws_export(jws, &compact, &e))
		abort();
	ret = talloc_strdup(mem, compact);
	cjose_jws_release(jws);
	json_decref(header);
	return ret;
}
