/* idempotency.c - see idempotency.h. */
#include "idempotency.h"
#include "cleanup.h"
#include "idempotency.q.h"

#include <string.h>

static const char *
route_name(struct request *r)
{
	return talloc_asprintf(r, "%s %s", r->route->method, r->route->path);
}

static const char *
aad(struct request *r)
{
	return talloc_asprintf(r, "idempotency_keys|response_enc|%s", r->replay_key);
}

static struct bytes
sealed(struct request *r)
{
	return envelope_seal(
	    r, r->app->keys->key[KEY_RESPONSE], aad(r), r->out.data ? r->out.data : "", r->out.len);
}

static int
replay(struct request *r, const struct q_idempotency_begun *row)
{
	struct bytes text;

	text =
	    envelope_open(r, r->app->keys->key[KEY_RESPONSE], aad(r), row->response, &r->work.err);
	if (!text.p)
		return -1;
	r->status = row->status;
	buf_clear(&r->out);
	buf_add(&r->out, text.p, text.n);
	reply_header(r, "Idempotent-Replayed", "true");
	return 0;
}

int
idempotency_begin(struct request *r, bool *replayed)
{
	const char *key = request_env(r, "HTTP_IDEMPOTENCY_KEY");
	struct q_idempotency_begun *row;
	uint8_t hash[HASH_SIZE];

	if (!key || !(r->route->flags & CREATES))
		return 0;
	if (!*key || strlen(key) > 255)
		return fail(r, E_BAD_INPUT, "Idempotency-Key has not between 1 and 255 characters");
	r->replay_key = key;
	r->replay_scope = r->who.team ? *r->who.team : r->who.user ? *r->who.user : uuid_zero;
	crypto_sha256(r->body_text ? r->body_text : "", r->body_len, hash);
	if (q_idempotency_begin(r->work.db, &row, .scope = &r->replay_scope, .route = route_name(r),
		.key = key) < 0)
		return -1;
	if (!row->locked)
		return fail(
		    r, E_CONFLICT, "the first request with this Idempotency-Key is still running");
	if (!row->body_hash.p)
		return 0;
	if (row->body_hash.n != sizeof hash || !crypto_equal(row->body_hash.p, hash, sizeof hash))
		return fail(r, E_IDEMPOTENCY, "this Idempotency-Key was used with another body");
	*replayed = true;
	return replay(r, row);
}

int
idempotency_record(struct request *r)
{
	uint8_t hash[HASH_SIZE];

	if (!r->replay_key)
		return 0;
	crypto_sha256(r->body_text ? r->body_text : "", r->body_len, hash);
	return q_idempotency_record(r->work.db, .scope = &r->replay_scope, .route = route_name(r),
		   .key = r->replay_key, .body_hash = { hash, sizeof hash }, .status = r->status,
		   .response = sealed(r)) < 0
	    ? -1
	    : 0;
}

int
idempotency_update(struct request *r)
{
	if (!r->replay_key)
		return 0;
	return q_idempotency_update(r->work.db, .scope = &r->replay_scope, .route = route_name(r),
		   .key = r->replay_key, .status = r->status, .response = sealed(r)) < 0
	    ? -1
	    : 0;
}
