/*
 * signed.c - see signed.h.
 *
 * The tokens of running capsules are read at most once in LIST_MS; what was found is remembered. An
 * address may ask so often only: each question costs a hash per capsule.
 */
#include "signed.h"

#include "access.h"
#include "cidr.h"
#include "cleanup.h"
#include "crypto.h"
#include "gateway.h"
#include "gateway.q.h"
#include "guest_pass.h"
#include "port_page.h"
#include "queue.h"
#include "route.h"

#include <string.h>

enum {
	CAPSULES_MAX = 8192,
	PER_SECOND = 20,
	LIST_MS = 2000,
	PAIR_MS = 60000,
	PAIRS = 1024,
};

/* Where the search has got to: one in a process. */
static struct {
	struct uuid *id;
	char (*token)[65];
	int n;
	uint64_t until; /* of the list */
	struct {
		uint8_t key[HASH_SIZE];
		uint64_t until;
		struct uuid capsule;
	} pair[PAIRS];
} known;

/* One list being read, off the loop; a talloc root. */
struct reading {
	struct work work;
	uv_work_t req;
	struct gateway *gw;
	struct request *r; /* NULL: the client has left */
	const char *ip;
	const struct conf *conf;
	bool over; /* too many questions of this address */
	bool many; /* too many capsules for this form */
	struct uuid *id;
	char (*token)[65];
	int n;
	bool list; /* the list is old */
};

struct hold {
	struct reading *reading;
};

static int
hold_destroy(struct hold *h)
{
	if (h->reading)
		h->reading->r = NULL;
	return 0;
}

bool
is_signed_url(struct request *r)
{
	return strcmp(r->path, "/files") == 0 &&
	    (strcmp(r->method, "GET") == 0 || strcmp(r->method, "POST") == 0) &&
	    query_get(r, "signature");
}

/* ---- in a thread */

static void
read_list(struct reading *d, struct desk *k)
{
	struct q_gateway_running *rows;
	int n, i;

	d->work.db = desk_db(k);
	n = db_unit(d->work.db, d, &d->work.err) == 0
	    ? q_gateway_running_list(d->work.db, &rows, .limit = CAPSULES_MAX + 1)
	    : -1;
	d->many = n > CAPSULES_MAX;
	d->n = n < 0 || d->many ? 0 : n;
	d->id = talloc_array(d, struct uuid, d->n + 1);
	d->token = talloc_array_size(d, sizeof *d->token, d->n + 1);
	for (i = 0; i < d->n; i++) {
		auto_talloc char *mem = talloc_new(NULL);

		d->id[i] = *rows[i].id;
		snprintf(d->token[i], sizeof d->token[i], "%s",
		    crypto_guest_token(mem, d->gw->keys, rows[i].id, GUEST_TOKEN_EPOCH));
	}
	db_unit_end(d->work.db);
}

static void
in_thread(uv_work_t *req)
{
	struct reading *d = req->data;
	struct desk *k = desk_take(d->gw->doorman);
	struct rate rate;

	if (!k) {
		(void)err_set(&d->work.err, E_DB, "no database connection is free");
		return;
	}
	if (d->ip &&
	    !rate_bucket(desk_queue(k), talloc_asprintf(d, "hutch:rate:signed:%s", d->ip),
		&(struct bucket_rule){ .burst = PER_SECOND, .tokens = PER_SECOND, .window_sec = 1 },
		&rate))
		d->over = true;
	else if (d->list)
		read_list(d, k);
	desk_return(d->gw->doorman, k);
}

/* ---- on the loop */

/* The signature as its maker computes it; the query's values are taken as they are after
   decoding. */
static void
sign(const struct request *r, const char *path, const char *user, const char *expires,
    const char *token, char out[64])
{
	bool read = strcmp(r->method, "GET") == 0;
	struct buf b = BUF(NULL), text = BUF(NULL);
	uint8_t hash[HASH_SIZE];

	buf_fmt(&b, "%s:%s:%s:%s", path, read ? "read" : "write", user, token);
	if (expires)
		buf_fmt(&b, ":%s", expires);
	crypto_sha256(b.data, b.len, hash);
	buf_base64(&text, hash, sizeof hash);
	snprintf(out, 64, "v1_%.*s", (int)strcspn(text.data, "="), text.data);
	talloc_free(b.data);
	talloc_free(text.data);
}

static bool
search(struct request *r, struct uuid *ret)
{
	const char *given = query_get(r, "signature"), *path = query_get(r, "path");
	const char *user = query_get(r, "username");
	const char *expires = query_get(r, "signature_expiration");
	char good[64];
	bool found = false;

	for (int i = 0; i < known.n; i++) {
		sign(r, path ? path : "", user ? user : "", expires, known.token[i], good);
		if (strlen(given) != strlen(good) || !crypto_equal(given, good, strlen(good)))
			continue;
		*ret = known.id[i];
		found = true;
	}
	return found;
}

/* All that the signature covers, and it. */
static size_t
question(struct request *r, uint8_t key[HASH_SIZE])
{
	struct buf b = BUF(r);

	buf_fmt(&b, "%s %s", r->method, r->query);
	crypto_sha256(b.data, b.len, key);
	return (size_t)(key[0] << 8 | key[1]) % PAIRS;
}

static void
pass(struct request *r, const struct uuid *capsule)
{
	struct port_place at = { .bare = true, .port = GUEST_PORT, .capsule = *capsule };

	id_write(at.id, "cl-", capsule);
	guest_pass_signed(r, &at);
}

static void
keep(struct reading *d)
{
	if (!d->list || d->many || d->work.err.code != E_OK)
		return;
	talloc_free(known.id);
	talloc_free(known.token);
	known.id = talloc_steal(NULL, d->id);
	known.token = talloc_steal(NULL, d->token);
	known.n = d->n;
	known.until = uv_now(d->gw->loop) + LIST_MS;
}

static void
finish(struct request *r, const struct reading *d)
{
	uint8_t key[HASH_SIZE];
	size_t i = question(r, key);
	struct uuid capsule;

	reply_header(r, "Access-Control-Allow-Origin", "*");
	if (d->over)
		page_guest(r, 400,
		    "too many signed requests from this address: use the host-name "
		    "form, <port>-<id>.<domain>");
	else if (d->many)
		page_guest(r, 400,
		    "too many sandboxes for a signature that names none: use the "
		    "host-name form, <port>-<id>.<domain>");
	else if (d->work.err.code != E_OK)
		page_guest(r, 503, err_public(&d->work.err));
	else if (!search(r, &capsule))
		page_guest(r, 401, "invalid signature");
	else {
		memcpy(known.pair[i].key, key, sizeof key);
		known.pair[i].until = uv_now(r->gw->loop) + PAIR_MS;
		known.pair[i].capsule = capsule;
		r->reply.heads = 0;
		pass(r, &capsule);
	}
}

static void
after_thread(uv_work_t *req, int status)
{
	struct reading *d = req->data;
	struct request *r = d->r;

	if (status < 0)
		(void)err_set(&d->work.err, E_UNAVAILABLE, "the process is ending");
	keep(d);
	if (r) {
		((struct hold *)r->look)->reading = NULL;
		TALLOC_FREE(r->look);
		finish(r, d);
	}
	talloc_free(d);
}

void
signed_request(struct request *r)
{
	uint64_t now = uv_now(r->gw->loop);
	uint8_t key[HASH_SIZE];
	size_t i = question(r, key);
	struct reading *d;
	struct hold *h;

	if (known.pair[i].until > now && memcmp(known.pair[i].key, key, sizeof key) == 0) {
		pass(r, &known.pair[i].capsule);
		return;
	}
	d = talloc_zero(NULL, struct reading);
	h = talloc_zero(r, struct hold);
	if (!d || !h)
		abort();
	*d = (struct reading){ .gw = r->gw, .r = r, .req.data = d, .list = known.until <= now };
	d->ip = request_address(d, r);
	h->reading = d;
	r->look = h;
	talloc_set_destructor(h, hold_destroy);
	uv_queue_work(r->gw->loop, &d->req, in_thread, after_thread);
}
