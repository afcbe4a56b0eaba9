/* access.c - see access.h. */
#include "access.h"

#include "cleanup.h"
#include "crypto.h"
#include "gateway.h"
#include "gateway.q.h"
#include "log.h"
#include "principal.h"
#include "route.h"

#include <pthread.h>
#include <string.h>
#include <strings.h>

enum { CONNECTIONS = 4, SLOTS = 4096 }; /* as many connections as libuv has threads */

struct slot {
	uint8_t key[HASH_SIZE];
	uint64_t until; /* uv_now() */
	struct access *access;
};

struct doorman {
	struct gateway *gw;
	const struct keys *keys;
	struct slot slots[SLOTS];
	pthread_mutex_t lock;
	struct db *idle[CONNECTIONS]; /* NULL: in use */
};

/* One question to the database. In the thread nobody else touches it. */
struct look {
	struct work work;
	uv_work_t req;
	struct doorman *d;
	struct request *r; /* NULL: the client has left; never read in the thread */
	void (*ok)(struct request *);
	uint8_t key[HASH_SIZE];
	struct credentials with;
	struct uuid capsule;
	enum perm perm;
	struct access *access; /* the answer */
};

/* The request's hold on its look; gone when the request is. */
struct tie {
	struct look *look;
};

static int
tie_destroy(struct tie *t)
{
	if (t->look)
		t->look->r = NULL;
	return 0;
}

static struct db *
db_borrow(struct doorman *d)
{
	struct db *db = NULL;

	pthread_mutex_lock(&d->lock);
	for (int i = 0; i < CONNECTIONS && !db; i++) {
		db = d->idle[i];
		d->idle[i] = NULL;
	}
	pthread_mutex_unlock(&d->lock);
	return db;
}

static void
db_return(struct doorman *d, struct db *db)
{
	pthread_mutex_lock(&d->lock);
	for (int i = 0; i < CONNECTIONS && db; i++)
		if (!d->idle[i]) {
			d->idle[i] = db;
			db = NULL;
		}
	pthread_mutex_unlock(&d->lock);
}

/* ---- in a thread */

/* A private capsule is there for its owner and for those who run the team. */
static bool
visible(const struct q_gateway_place *c, const struct principal *p)
{
	if (strcmp(c->visibility, "private") != 0)
		return true;
	if (p->role && (strcmp(p->role, "owner") == 0 || strcmp(p->role, "admin") == 0))
		return true;
	return p->user && c->owner_id && uuid_equal(p->user, c->owner_id);
}

static int
found(struct look *l, const struct q_gateway_place *c)
{
	if (strcmp(c->state, "running") != 0)
		return err_set(
		    &l->work.err, E_BAD_STATE, "the capsule is %s, not running", c->state);
	l->access = talloc_zero(l, struct access);
	if (!l->access)
		abort();
	*l->access = (struct access){
		.team = *c->team_id,
		.capsule = l->capsule,
		.epoch = c->epoch,
		.host = talloc_strdup(l->access, c->address),
	};
	id_write(l->access->id, "cl-", &l->capsule);
	snprintf(l->access->token, sizeof l->access->token, "%s",
	    crypto_guest_token(l, l->d->keys, &l->capsule, c->epoch));
	return 0;
}

/* Who asks and what for: one round trip. */
static int
ask(struct look *l)
{
	const char *issuer = l->d->gw->conf->http_public_url;
	struct credential_look cred = { 0 };
	struct q_gateway_place *c = NULL;
	struct principal p;
	struct err capsule_err = { 0 };
	enum allowed may = ALLOW_NO;
	int n = 0;

	if (credential_send(&l->work, l->d->keys, issuer, &l->with, &cred) < 0)
		return -1;
	if (db_send(l->work.db, &Q_gateway_capsule,
		&(struct q_gateway_capsule){ .capsule = &l->capsule }) < 0)
		return -1;
	if (credential_take(&l->work, &cred, &p) < 0) {
		db_drop(l->work.db);
		return -1;
	}
	n = db_take(l->work.db, &Q_gateway_capsule, (void **)&c);
	if (n < 0)
		return -1;
	may = principal_allowed(&p, l->perm, &capsule_err);
	if (may == ALLOW_NO)
		return err_set(&l->work.err, capsule_err.code, "%s", capsule_err.text);
	if (p.must_change_password)
		return err_set(&l->work.err, E_MUST_CHANGE,
		    "change your password first: POST /v1/me/password");
	if (n == 0 || !visible(c, &p) ||
	    (may == ALLOW_OWN && !(p.user && c->owner_id && uuid_equal(p.user, c->owner_id))))
		return err_set(&l->work.err, E_NOT_FOUND, "no such capsule");
	return found(l, c);
}

static void
in_thread(uv_work_t *req)
{
	struct look *l = req->data;
	struct db *db = db_borrow(l->d);

	if (!db) {
		(void)err_set(&l->work.err, E_DB, "no database connection is free");
		return;
	}
	l->work.db = db;
	if (db_unit(db, l, &l->work.err) == 0)
		(void)ask(l);
	db_unit_end(db);
	db_return(l->d, db);
}

/* ---- on the loop */

static struct access *
copy(void *mem, const struct access *a)
{
	struct access *own = talloc_memdup(mem, a, sizeof *a);

	if (!own)
		abort();
	own->host = talloc_strdup(own, a->host);
	return own;
}

static void
remember(struct doorman *d, const struct look *l)
{
	struct slot *s = &d->slots[(l->key[0] << 8 | l->key[1]) % SLOTS];

	TALLOC_FREE(s->access);
	memcpy(s->key, l->key, sizeof s->key);
	s->access = copy(d, l->access);
	s->until = uv_now(d->gw->loop) + (uint64_t)d->gw->conf->gateway_cache_sec * 1000;
}

static void
after_thread(uv_work_t *req, int status)
{
	struct look *l = req->data;
	struct request *r = l->r;
	void (*ok)(struct request *) = l->ok;

	if (status < 0)
		(void)err_set(&l->work.err, E_UNAVAILABLE, "the process is ending");
	if (l->access && l->d->gw->conf->gateway_cache_sec)
		remember(l->d, l);
	if (r) {
		((struct tie *)r->look)->look = NULL;
		TALLOC_FREE(r->look);
		if (l->access)
			r->access = copy(r, l->access);
		else
			(void)err_set(&r->work.err, l->work.err.code, "%s", l->work.err.text);
	}
	talloc_free(l);
	if (r && r->access)
		ok(r);
	else if (r)
		reply_error(r);
}

static const char *
bearer(const struct request *r)
{
	const char *h = request_header(r, "Authorization");

	return h && strncasecmp(h, "Bearer ", 7) == 0 ? h + 7 : NULL;
}

/* The whole question in one hash: credential, what it is for, which capsule. */
static void
question(const struct look *l, uint8_t key[HASH_SIZE])
{
	struct buf b = BUF(NULL);

	buf_fmt(&b, "%d %d ", l->with.api_key != NULL, (int)l->perm);
	buf_add(&b, l->capsule.b, sizeof l->capsule.b);
	buf_str(&b, l->with.api_key ? l->with.api_key : l->with.bearer);
	crypto_sha256(b.data, b.len, key);
	talloc_free(b.data);
}

void
access_check(struct request *r, void (*ok)(struct request *))
{
	struct doorman *d = r->gw->doorman;
	const char *key = request_header(r, "X-API-Key");
	struct look *l = NULL;
	struct slot *s = NULL;
	struct tie *t = NULL;

	if (!key && !bearer(r)) {
		fail(r, E_UNAUTHORIZED,
		    "a credential is needed: X-API-Key, or Authorization: Bearer");
		return;
	}
	l = talloc_zero(NULL, struct look);
	if (!l)
		abort();
	*l = (struct look){ .d = d, .r = r, .ok = ok, .perm = r->route->may, .req.data = l };
	l->with.api_key = key ? talloc_strdup(l, key) : NULL;
	l->with.bearer = key ? NULL : talloc_strdup(l, bearer(r));
	(void)id_read(r->param[0], "cl-", &l->capsule);
	question(l, l->key);
	s = &d->slots[(l->key[0] << 8 | l->key[1]) % SLOTS];
	if (s->access && s->until > uv_now(d->gw->loop) && memcmp(s->key, l->key, HASH_SIZE) == 0) {
		r->access = copy(r, s->access);
		talloc_free(l);
		ok(r);
		return;
	}
	t = talloc_zero(r, struct tie);
	if (!t)
		abort();
	t->look = l;
	r->look = t;
	talloc_set_destructor(t, tie_destroy);
	uv_queue_work(d->gw->loop, &l->req, in_thread, after_thread);
}

void
access_forget(struct gateway *gw, const struct access *a)
{
	struct doorman *d = gw->doorman;

	for (size_t i = 0; i < SLOTS; i++)
		if (d->slots[i].access && uuid_equal(&d->slots[i].access->capsule, &a->capsule))
			TALLOC_FREE(d->slots[i].access);
}

struct doorman *
doorman_open(void *mem, struct gateway *gw, struct err *e)
{
	struct doorman *d = talloc_zero(mem, struct doorman);

	if (!d)
		abort();
	d->gw = gw;
	d->keys = keys_load(d, gw->conf, e);
	if (!d->keys)
		return NULL;
	pthread_mutex_init(&d->lock, NULL);
	/* Each connection is a talloc root of its own: threads must not share a tree. */
	for (int i = 0; i < CONNECTIONS; i++)
		d->idle[i] = db_open(
		    NULL, gw->conf->db_url, "hutch-gateway", gw->conf->db_statement_timeout_ms);
	return d;
}
