/* storage_seal.c - see storage_seal.h. */
#include "storage_seal.h"

#include <string.h>
#include <talloc.h>

static const char *
aad(void *mem, const struct uuid *id)
{
	return talloc_asprintf(mem, "storage_connections|secret_enc|%s", id_text(mem, "cn-", id));
}

struct bytes
storage_seal(void *mem, const struct keys *k, const struct uuid *id, const char *secret)
{
	return envelope_seal(mem, k->key[KEY_STORAGE], aad(mem, id), secret, strlen(secret));
}

int
storage_open(void *mem, const struct conf *conf, const struct keys *k,
    const struct q_connection_secret *c, struct s3 *ret, struct err *e)
{
	struct bytes secret =
	    envelope_open(mem, k->key[KEY_STORAGE], aad(mem, c->id), c->secret_enc, e);
	struct err again = { 0 };

	if (!secret.p && k->has_previous) {
		secret = envelope_open(
		    mem, k->previous[KEY_STORAGE], aad(mem, c->id), c->secret_enc, &again);
		if (secret.p)
			*e = (struct err){ 0 };
	}
	if (!secret.p)
		return -1;
	*ret = (struct s3){ .conf = conf,
		.endpoint = c->endpoint,
		.region = c->region,
		.bucket = c->bucket,
		.prefix = c->prefix,
		.path_style = c->path_style,
		.access_key_id = c->access_key_id,
		.secret = (const char *)secret.p };
	return 0;
}
