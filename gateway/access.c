/* access.c - see access.h. */
#include "access.h"

#include "capsule_op.h"
#include "cidr.h"
#include "cleanup.h"
#include "crypto.h"
#include "gateway.h"
#include "gateway.q.h"
#include "key_use.h"
#include "log.h"
#include "principal.h"
#include "queue.h"
#include "route.h"
#include "ticket.h"
#include "timer.h"

#include <inttypes.h>
#include <pthread.h>
#include <string.h>
#include <strings.h>

enum { WAKE_MS = 30000, WAKE_LOOK_MS = 50 };
enum { CONNECTIONS = 4, SLOTS = 4096 }; /* as many connections as libuv has threads */

struct slot {
	uint8_t key[HASH_SIZE];
	uint64_t until; /* uv_now() */
	struct access *access;
};

/* What a thread needs; each is a talloc root of its own: threads must not share a tree. */
struct desk {
	struct db *db;
	struct queue *queue; /* Redis: rate limits */
	struct desk *next;
};

struct doorman {
	struct gateway *gw;
	const struct keys *keys;
	struct slot slots[SLOTS];
	pthread_mutex_t lock;
	struct desk *idle;
};

/* One question to the database. In the thread nobody else touches it. */
struct look {
	struct work work;
	uv_work_t req;
	struct doorman *d;
	struct request *r; /* NULL: the client has left; never read in the thread */
	void (*ok)(struct request *), (*no)(struct request *);
	uint8_t key[HASH_SIZE];
	struct credentials with;
	struct ticket_ask ticket;    /* text NULL: none */
	struct credential_look cred; /* who asks, once he is known … */
	bool named;                  /* … by a ticket, or before */
	struct uuid capsule;
	enum perm perm;
	bool asleep; /* the capsule may be in any state */
	bool no_wake;
	const char *state; /* why not: that of the capsule; NULL: another reason */
	bool alone;        /* no capsule is asked for */
	bool for_platform; /* as one of the Platform's team */
	bool malformed;    /* the capsule's id: told only to those who may ask */
	bool waiting;      /* the capsule is on its way back to running */
	bool charged;      /* a token of the rate limit was taken */
	uint64_t give_up;  /* uv_now() */
	struct timer *timer;
	const char *who;    /* the credential in rate limits, once it is known to be good */
	const char *ip;     /* of the client, as the web server says; or NULL */
	const char *agent;  /* User-Agent, or NULL */
	struct uuid key_id; /* if by_key: the API key, once it is known to be good */
	bool by_key;
	struct uuid key_team;
	const char *key_name;
	int32_t key_rate;      /* requests an hour that the key may make; 0: no limit of its own */
	const char *denied;    /* why, when it is the key's own limit */
	struct access *access; /* the answer; already there when it was remembered */
	bool known;
	struct rate rate;
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

struct desk *
desk_take(struct doorman *d)
{
	struct desk *k = NULL;

	pthread_mutex_lock(&d->lock);
	k = d->idle;
	if (k)
		d->idle = k->next;
	pthread_mutex_unlock(&d->lock);
	return k;
}

struct db *
desk_db(struct desk *k)
{
	return k->db;
}

struct queue *
desk_queue(struct desk *k)
{
	return k->queue;
}

void
desk_return(struct doorman *d, struct desk *k)
{
	pthread_mutex_lock(&d->lock);
	k->next = d->idle;
	d->idle = k;
	pthread_mutex_unlock(&d->lock);
}

/* ---- in a thread */

bool
access_visible(const char *visibility, const struct uuid *owner, const struct principal *p)
{
	if (strcmp(visibility, "private") != 0)
		return true;
	if (p->role && (strcmp(p->role, "owner") == 0 || strcmp(p->role, "admin") == 0))
		return true;
	return p->user && owner && uuid_equal(p->user, owner);
}

/* Who sleeps because of a policy is woken by a call; what a person put to sleep, he wakes (spec 02
   §1.5). */
static bool
by_policy(const struct q_gateway_place *c)
{
	return c->paused_by && strcmp(c->auto_resume, "all") == 0 &&
	    (strcmp(c->paused_by, "idle") == 0 || strcmp(c->paused_by, "drain") == 0 ||
		strcmp(c->paused_by, "host") == 0 || strcmp(c->paused_by, "client") == 0);
}

/* All who call share one wake: the row moves once, the others wait for it. */
static int
wake(struct look *l, struct desk *k)
{
	struct op_env env = { l->d->gw->conf, l->d->keys, k->queue };
	struct wake_ask ask = {
		.id = &l->capsule, .cause = "auto_resume", .timeout_sec = NULL_INT4
	};
	struct wake woken;

	db_begin(l->work.db);
	if (capsule_wake(&l->work, &env, &ask, &woken) < 0 || db_commit(l->work.db) < 0)
		return -1;
	job_announce(&l->work, k->queue);
	l->waiting = true;
	return 0;
}

static int
not_running(struct look *l, const struct q_gateway_place *c, struct desk *k)
{
	l->waiting = false;
	if (!l->no_wake && strcmp(c->state, "resuming") == 0)
		l->waiting = true;
	else if (!l->no_wake && by_policy(c)) {
		if (strcmp(c->state, "paused") == 0 || strcmp(c->state, "hibernated") == 0)
			return wake(l, k);
		l->waiting =
		    strcmp(c->state, "pausing") == 0 || strcmp(c->state, "hibernating") == 0;
	}
	if (l->waiting)
		return 0;
	l->state = talloc_strdup(l, c->state);
	return err_set(&l->work.err, E_BAD_STATE, "the capsule is %s, not running", c->state);
}

static int
found(struct look *l, const struct q_gateway_place *c, const char *who, struct desk *k)
{
	if (!l->asleep && strcmp(c->state, "running") != 0)
		return not_running(l, c, k);
	l->waiting = false;
	l->access = talloc_zero(l, struct access);
	if (!l->access)
		abort();
	*l->access = (struct access){
		.team = *c->team_id,
		.capsule = l->capsule,
		.epoch = c->epoch,
		.host = talloc_strdup(l->access, c->address),
		.who = talloc_strdup(l->access, who),
		.key = l->key_id,
		.by_key = l->by_key,
		.key_name = talloc_strdup(l->access, l->key_name),
		.key_rate = l->key_rate,
		.state = talloc_strdup(l->access, c->state),
		.look = l->cred,
	};
	l->access->look.claims.role = l->access->look.claims.email = l->access->look.claims.name =
	    NULL;
	id_write(l->access->id, "cl-", &l->capsule);
	snprintf(l->access->token, sizeof l->access->token, "%s",
	    crypto_guest_token(l, l->d->keys, &l->capsule, GUEST_TOKEN_EPOCH));
	return 0;
}

/* That a known key was refused is in its team's audit log. */
static int
refused(struct look *l, const struct principal *p, struct desk *k)
{
	if (!p->denied || !p->key)
		return -1;
	l->work.actor = (struct actor){ .type = "api_key",
		.id = id_text(l, "key-", p->key),
		.name = p->name,
		.user = p->user,
		.ip = l->with.ip,
		.user_agent = l->agent };
	(void)key_denied(&l->work, p, k->queue);
	return -1;
}

/* Who asks, and nothing else. */
static int
found_alone(struct look *l, const struct principal *p)
{
	l->access = talloc_zero(l, struct access);
	if (!l->access)
		abort();
	*l->access = (struct access){ .host = "",
		.state = "",
		.who = talloc_strdup(l->access, p->rate_key),
		.key = l->key_id,
		.by_key = l->by_key,
		.key_name = talloc_strdup(l->access, l->key_name),
		.key_rate = l->key_rate,
		.look = l->cred };
	if (p->team)
		l->access->team = *p->team;
	l->access->look.claims.role = l->access->look.claims.email = l->access->look.claims.name =
	    NULL;
	return 0;
}

/* Puts the question who asks on the pipeline. A ticket is used up by it. */
static int
show(struct look *l)
{
	const char *issuer = l->d->gw->conf->http_public_url;
	struct ticket t;

	if (l->ticket.text && !l->named) {
		if (ticket_use(&l->work, &l->ticket, &t) < 0)
			return -1;
		l->cred = t.look;
		l->named = true;
	}
	l->cred.for_platform = l->for_platform;
	if (l->named)
		return credential_resend(&l->work, &l->cred, l->with.ip);
	return credential_send(&l->work, l->d->keys, issuer, &l->with, &l->cred);
}

/* Who asks and what for: one round trip. */
static int
ask(struct look *l, struct desk *k)
{
	struct q_gateway_place *c = NULL;
	struct principal p;
	struct err capsule_err = { 0 };
	enum allowed may = ALLOW_NO;
	int n = 0;

	if (show(l) < 0)
		return -1;
	if (!l->alone &&
	    db_send(l->work.db, &Q_gateway_capsule,
		&(struct q_gateway_capsule){ .capsule = &l->capsule }) < 0)
		return -1;
	if (credential_take(&l->work, &l->cred, &p) < 0) {
		db_drop(l->work.db);
		return refused(l, &p, k);
	}
	l->who = p.rate_key;
	l->key_rate = p.key_rate;
	l->by_key = p.type == CALLER_KEY && p.key && p.team;
	if (p.user)
		l->cred.claims.sub = *p.user;
	if (p.team)
		l->cred.claims.team = *p.team;
	l->cred.claims.has_team = p.team != NULL;
	if (l->by_key) {
		l->key_id = *p.key;
		l->key_team = *p.team;
		l->key_name = p.name;
	}
	n = l->alone ? 0 : db_take(l->work.db, &Q_gateway_capsule, (void **)&c);
	if (n < 0)
		return -1;
	if (principal_gate(&p, l->perm, 0, l->d->gw->conf->auth_require_mfa, &l->work.err) < 0)
		return -1;
	may = principal_allowed(&p, l->perm, &capsule_err);
	if (may == ALLOW_NO) {
		(void)err_set(&l->work.err, capsule_err.code, "%s", capsule_err.text);
		p.denied = p.type == CALLER_KEY ? "scope" : NULL;
		return refused(l, &p, k);
	}
	if (l->alone)
		return found_alone(l, &p);
	if (l->malformed)
		return err_set(&l->work.err, E_BAD_INPUT,
		    "the capsule's id is not cl- and 25 characters of 0-9a-z");
	if (n == 0 || !access_visible(c->visibility, c->owner_id, &p) ||
	    (may == ALLOW_OWN && !(p.user && c->owner_id && uuid_equal(p.user, c->owner_id))))
		return err_set(&l->work.err, E_NOT_FOUND, "no such capsule");
	return found(l, c, p.rate_key, k);
}

/* A token of the credential's bucket, which the API takes from too; of the address's for those
   whose credential is not good. */
static int
limit(struct look *l, struct queue *q)
{
	const struct conf *c = l->d->gw->conf;
	bool stranger = !l->who;
	const char *who = stranger ? l->ip : l->who;
	int64_t each = stranger ? c->auth_rate_address_per_minute : c->auth_rate_per_minute;

	if (l->key_rate &&
	    !rate_bucket(q, talloc_asprintf(l, "hutch:rate:key:%s", who),
		&(struct bucket_rule){
		    .burst = l->key_rate, .tokens = l->key_rate, .window_sec = 3600 },
		&l->rate)) {
		l->work.err = (struct err){ 0 };
		l->denied = "rate";
		return err_set(&l->work.err, E_RATE, "too many requests: %d an hour are allowed",
		    (int)l->key_rate);
	}
	if (!c->auth_rate_limits || !who)
		return 0;
	who = talloc_asprintf(l, "hutch:rate:%s:%s", stranger ? "ip" : "who", who);
	if (rate_take(q, who, each, each, &l->rate))
		return 0;
	l->work.err = (struct err){ 0 };
	if (l->rate.retry_after <= 0)
		l->rate.retry_after = 1;
	return err_set(
	    &l->work.err, E_RATE, "too many requests: %" PRId64 " a minute are allowed", each);
}

/* … and that it came too often. The unit of the question is over: this one is its own. */
static void
over_limit(struct look *l, struct desk *k)
{
	struct principal p = { .type = CALLER_KEY,
		.key = &l->key_id,
		.team = &l->key_team,
		.name = l->key_name,
		.denied = l->denied };
	struct err cause = l->work.err;

	l->work.db = k->db;
	if (db_unit(k->db, l, &l->work.err) == 0)
		(void)refused(l, &p, k);
	db_unit_end(k->db);
	l->work.err = cause;
}

static void
in_thread(uv_work_t *req)
{
	struct look *l = req->data;
	struct desk *k = desk_take(l->d);

	if (!k) {
		(void)err_set(&l->work.err, E_DB, "no database connection is free");
		return;
	}
	/* Twice: a connection may have died with a PostgreSQL that is back since. */
	for (int tries = 0; !l->known && tries < 2; tries++) {
		l->work.err = (struct err){ 0 };
		l->work.db = k->db;
		if (db_unit(k->db, l, &l->work.err) == 0)
			(void)ask(l, k);
		db_unit_end(k->db);
		if (l->work.err.code != E_DB)
			break;
	}
	if (!l->charged)
		(void)limit(l, k->queue);
	if (l->denied)
		over_limit(l, k);
	l->charged = true;
	desk_return(l->d, k);
}

/* ---- on the loop */

static struct access *
copy(void *mem, const struct access *a)
{
	struct access *own = talloc_memdup(mem, a, sizeof *a);

	if (!own)
		abort();
	own->host = talloc_strdup(own, a->host);
	own->who = talloc_strdup(own, a->who);
	own->state = talloc_strdup(own, a->state);
	own->key_name = talloc_strdup(own, a->key_name);
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
put_rate(struct request *r, const struct rate *rate)
{
	if (!rate->limit || r->again || r->reply.state != REPLY_NONE)
		return;
	reply_header(r, "X-RateLimit-Limit", talloc_asprintf(r, "%" PRId64, rate->limit));
	reply_header(r, "X-RateLimit-Remaining", talloc_asprintf(r, "%" PRId64, rate->remaining));
	reply_header(r, "X-RateLimit-Reset", talloc_asprintf(r, "%" PRId64, rate->reset_sec));
	if (rate->retry_after > 0)
		reply_header(r, "Retry-After", talloc_asprintf(r, "%" PRId64, rate->retry_after));
}

static void
asked_by(struct request *r, const struct look *l)
{
	r->by_key = l->by_key;
	r->key = l->key_id;
	r->ip = l->ip ? talloc_strdup(r, l->ip) : NULL;
}

static void after_thread(uv_work_t *, int);

static void
look_again(void *arg)
{
	struct look *l = arg;

	TALLOC_FREE(l->timer);
	if (!l->r)
		talloc_free(l); /* the client has left */
	else
		uv_queue_work(l->d->gw->loop, &l->req, in_thread, after_thread);
}

/* The capsule wakes: looked at again soon, for half a minute. */
static bool
goes_on(struct look *l)
{
	uint64_t now = uv_now(l->d->gw->loop);

	if (!l->waiting || l->work.err.code != E_OK || !l->r)
		return false;
	if (!l->give_up)
		l->give_up = now + WAKE_MS;
	if (now >= l->give_up) {
		(void)err_set(&l->work.err, E_UNAVAILABLE, "the capsule did not wake within %d s",
		    WAKE_MS / 1000);
		return false;
	}
	l->timer = timer_start(l, l->d->gw->loop, WAKE_LOOK_MS, 0, look_again, l);
	return true;
}

/* A later question is asked as its maker: the ticket itself is gone. */
static void
use_ticket_up(struct request *r, const struct look *l)
{
	struct creds *c = NULL;

	if (!l->ticket.text)
		return;
	c = talloc_zero(r, struct creds);
	if (!c)
		abort();
	c->known = &r->access->look;
	r->creds = c;
}

/* It ran when it was looked at before, and does not now: who tells of it tells the new state. */
static void
put_state(struct request *r, const struct look *l)
{
	struct access *now = NULL;

	if (!r->access || !l->state)
		return;
	now = copy(r, r->access);
	now->state = talloc_strdup(now, l->state);
	r->access = now;
}

static void
after_thread(uv_work_t *req, int status)
{
	struct look *l = req->data;
	struct request *r = l->r;
	void (*ok)(struct request *) = l->ok, (*no)(struct request *) = l->no;
	bool good = false;

	if (status < 0)
		(void)err_set(&l->work.err, E_UNAVAILABLE, "the process is ending");
	if (goes_on(l))
		return;
	if (l->access && !l->known && !l->named && !l->alone && l->d->gw->conf->gateway_cache_sec)
		remember(l->d, l);
	good = l->access && l->work.err.code == E_OK;
	if (r) {
		((struct tie *)r->look)->look = NULL;
		TALLOC_FREE(r->look);
		put_rate(r, &l->rate);
		asked_by(r, l);
		if (good) {
			r->access = copy(r, l->access);
			use_ticket_up(r, l);
		} else {
			put_state(r, l);
			(void)err_set(&r->work.err, l->work.err.code, "%s", l->work.err.text);
		}
	}
	talloc_free(l);
	if (r && good)
		ok(r);
	else if (r)
		no(r);
}

/* The web server appends the client's address to what the client may have made up. */
const char *
request_address(void *mem, const struct request *r)
{
	const char *list = request_header(r, "X-Forwarded-For");
	const char *last = list ? strrchr(list, ',') : NULL;

	last = last ? last + 1 + strspn(last + 1, " ") : list;
	return last && cidr_address(last, &(struct in6_addr){ 0 }) ? talloc_strdup(mem, last)
								   : NULL;
}

static const char *
bearer(const struct request *r)
{
	const char *h = request_header(r, "Authorization");

	return h && strncasecmp(h, "Bearer ", 7) == 0 ? h + 7 : NULL;
}

/* What an answer that was remembered says of the one who asks. */
static void
remembered(struct look *l)
{
	l->who = l->access->who;
	l->by_key = l->access->by_key;
	l->key_id = l->access->key;
	l->key_team = l->access->team;
	l->key_name = l->access->key_name;
	l->key_rate = l->access->key_rate;
}

/* The whole question in one hash: credential, what it is for, which capsule. */
static void
question(const struct look *l, uint8_t key[HASH_SIZE])
{
	struct buf b = BUF(NULL);

	buf_fmt(&b, "%d %d %d ", l->with.api_key != NULL, (int)l->perm, l->asleep);
	buf_add(&b, l->capsule.b, sizeof l->capsule.b);
	buf_fmt(
	    &b, "%s ", l->with.api_key && l->ip ? l->ip : ""); /* keys may be bound to networks */
	buf_str(&b, l->with.api_key ? l->with.api_key : l->with.bearer);
	crypto_sha256(b.data, b.len, key);
	talloc_free(b.data);
}

struct creds *
creds_read(struct request *r)
{
	struct creds *c = talloc_zero(r, struct creds);
	const char *key = request_header(r, "X-API-Key"), *origin = request_header(r, "Origin");

	if (!c)
		abort();
	*c = (struct creds){ .purpose = r->route->ticket, .strict = r->route->flags & SOCKET };
	c->origin = origin ? talloc_strndup(c, origin, 512) : NULL;
	c->api_key = key ? talloc_strdup(c, key) : NULL;
	c->bearer = !key && bearer(r) ? talloc_strdup(c, bearer(r)) : NULL;
	if (!key && !c->bearer && c->purpose)
		c->ticket = query_get(r, "ticket");
	return c;
}

bool
creds_any(const struct creds *c)
{
	return c->known || c->api_key || c->bearer || c->ticket;
}

static struct look *
look_new(struct request *r, const struct access_ask *ask)
{
	const struct creds *c = r->creds;
	struct look *l = talloc_zero(NULL, struct look);

	if (!l)
		abort();
	*l = (struct look){ .d = r->gw->doorman,
		.r = r,
		.ok = ask->ok,
		.no = ask->no,
		.perm = r->route->may,
		.asleep = ask->any_state,
		.no_wake = ask->no_wake,
		.alone = ask->alone,
		.for_platform = r->route->flags & OF_PLATFORM,
		.req.data = l };
	l->ip = r->ip ? talloc_strdup(l, r->ip) : request_address(l, r);
	l->with.ip = l->ip;
	l->agent = request_header(r, "User-Agent");
	l->agent = l->agent ? talloc_strndup(l, l->agent, 512) : NULL;
	l->work.id = talloc_strdup(l, r->work.id);
	l->malformed = !l->alone && !id_read(r->param[0], "cl-", &l->capsule);
	l->named = c->known != NULL;
	if (c->known)
		l->cred = *c->known;
	else if (c->ticket)
		l->ticket = (struct ticket_ask){ .text = talloc_strdup(l, c->ticket),
			.purpose = c->purpose,
			.capsule = l->alone ? NULL : &l->capsule,
			.origin = c->origin ? talloc_strdup(l, c->origin) : NULL,
			.strict = c->strict };
	else {
		l->with.api_key = c->api_key ? talloc_strdup(l, c->api_key) : NULL;
		l->with.bearer = c->bearer ? talloc_strdup(l, c->bearer) : NULL;
	}
	return l;
}

/* True: an earlier answer holds, and nothing is to be counted either. */
static bool
recalled(struct look *l)
{
	struct doorman *d = l->d;
	struct slot *s = NULL;

	if (l->malformed || l->named || l->ticket.text || l->alone)
		return false;
	question(l, l->key);
	s = &d->slots[(l->key[0] << 8 | l->key[1]) % SLOTS];
	if (!s->access || s->until <= uv_now(d->gw->loop) || memcmp(s->key, l->key, HASH_SIZE) != 0)
		return false;
	l->known = true;
	l->access = copy(l, s->access);
	remembered(l);
	return !d->gw->conf->auth_rate_limits && !l->access->key_rate;
}

void
access_look(struct request *r, const struct access_ask *ask)
{
	struct look *l = look_new(r, ask);
	struct tie *t = NULL;

	if (recalled(l)) {
		r->access = copy(r, l->access);
		asked_by(r, l);
		talloc_free(l);
		ask->ok(r);
		return;
	}
	t = talloc_zero(r, struct tie);
	if (!t)
		abort();
	t->look = l;
	r->look = t;
	talloc_set_destructor(t, tie_destroy);
	uv_queue_work(l->d->gw->loop, &l->req, in_thread, after_thread);
}

void
access_check(struct request *r, void (*ok)(struct request *))
{
	if (!r->creds)
		r->creds = creds_read(r);
	if (!creds_any(r->creds)) {
		fail(r, E_UNAUTHORIZED,
		    "a credential is needed: X-API-Key, or Authorization: Bearer");
		return;
	}
	access_look(r,
	    &(struct access_ask){ .ok = ok,
		.no = reply_error,
		.any_state = r->route->flags & ASLEEP,
		.no_wake = r->route->flags & NO_WAKE,
		.alone = !strchr(r->route->path, '{') });
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
	gw->keys = d->keys = keys_load(d, gw->conf, e);
	if (!d->keys)
		return NULL;
	pthread_mutex_init(&d->lock, NULL);
	for (int i = 0; i < CONNECTIONS; i++) {
		struct desk *k = talloc_zero(NULL, struct desk);

		if (!k)
			abort();
		k->db = db_open(
		    k, gw->conf->db_url, "hutch-gateway", gw->conf->db_statement_timeout_ms);
		k->queue = queue_open(k, gw->conf);
		desk_return(d, k);
	}
	return d;
}
