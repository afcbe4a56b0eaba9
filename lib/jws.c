/* jws.c - see jws.h. */
#include "jws.h"

#include <cjose/cjose.h>
#include <string.h>
#include <talloc.h>

struct bytes
jws_verify(void *mem, const char *compact, const char *jwk, struct err *e)
{
	cjose_err why = { 0 };
	cjose_jwk_t *key = cjose_jwk_import(jwk, strlen(jwk), &why);
	cjose_jws_t *jws = key ? cjose_jws_import(compact, strlen(compact), &why) : NULL;
	struct bytes ret = { 0 };
	uint8_t *text;
	size_t len;

	if (jws && cjose_jws_verify(jws, key, &why) &&
	    cjose_jws_get_plaintext(jws, &text, &len, &why)) {
		char *copy = talloc_zero_size(mem, len + 1);

		memcpy(copy, text, len);
		ret = (struct bytes){ (const uint8_t *)copy, len };
	} else
		(void)err_set(e, E_UNAUTHORIZED, "the signature does not verify: %s",
		    why.message ? why.message : "not a signed token");
	if (jws)
		cjose_jws_release(jws);
	if (key)
		cjose_jwk_release(key);
	return ret;
}
