/* port_access.c - see port_access.h. */
#include "port_access.h"

#include "capsule_op.h"
#include "cleanup.h"
#include "crypto.h"
#include "gateway.h"
#include "gateway.q.h"
#include "json.h"
#include "principal.h"
#include "queue.h"
#include "timer.h"

#include <string.h>

enum {
	WAKE_MS = 30000,
	WAKE_LOOK_MS = 50,
	SLOTS = 4096,
	KNOWN_MS = 2000, /* with the looks of open streams: a change is felt within 5 s */
	NONE_MS = 1000,
	STAY_SEC = 300, /* what traffic woke stays so long at least */
};

struct slot {
	uint8_t key[HASH_SIZE];
	uint64_t until;
	struct uuid capsule;
	struct door *door;
};

struct doors {
	struct gateway *gw;
	struct slot slots[SLOTS];
};

/* One question. A talloc root: the thread must not share a tree. */
struct look {
	struct work work; /* first */
	uv_work_t req;
	struct doors *d;
	struct tie *tie; /* NULL: nobody waits any more; never read in the thread */
	struct door_ask ask;
	uint8_t key[HASH_SIZE];
	struct door door;
	bool waiting;
	uint64_t give_up;
	struct timer *timer;
};

struct tie {
	struct look *look;
	door_done *done;
	void *arg;
};

static int
tie_destroy(struct tie *t)
{
	if (t->look)
		t->look->tie = NULL;
	return 0;
}

/* ---- in a thread */

static void
answer(struct look *l, enum door_why why)
{
	l->door.why = why;
}

static void
answer_err(struct look *l, enum door_why why, enum err_code code, const char *text)
{
	l->door.err = (struct err){ 0 };
	(void)err_set(&l->door.err, code, "%s", text);
	answer(l, why);
}

/* Every pause that E2B's clients ask for counts as policy (spec 02 §1.5). */
static bool
may_wake(const struct q_gateway_door *c)
{
	static const char *const policy[] = { "idle", "drain", "host", "client" };

	if (!c->paused_by || strcmp(c->auto_resume, "off") == 0)
		return false;
	for (size_t i = 0; i < sizeof policy / sizeof *policy; i++)
		if (strcmp(c->paused_by, policy[i]) == 0)
			return true;
	return false;
}

/* All who call share one wake: the row moves once, the others wait for it. */
static int
wake(struct look *l, const struct q_gateway_door *c, struct desk *k)
{
	struct op_env env = { l->d->gw->conf, l->d->gw->keys, desk_queue(k) };
	struct wake_ask ask = {
		.id = &l->ask.at.capsule, .cause = "auto_resume", .timeout_sec = NULL_INT4
	};
	struct q_gateway_tenant *tenant;
	struct q_gateway_clock *clock;
	char team[37];
	struct wake woken;

	if (q_gateway_act_for(l->work.db, &tenant, .team = uuid_write(team, c->team_id)) < 0)
		return -1;
	db_begin(l->work.db);
	if (q_gateway_clock_of(l->work.db, &clock, .capsule = ask.id) < 0)
		return -1;
	if (clock && strcmp(clock->timeout_mode, "fixed") == 0 && clock->timeout_sec > 0 &&
	    clock->timeout_sec < STAY_SEC)
		ask.timeout_sec = STAY_SEC;
	if (capsule_wake(&l->work, &env, &ask, &woken) < 0 || db_commit(l->work.db) < 0)
		return -1;
	job_announce(&l->work, desk_queue(k));
	l->waiting = true;
	return 0;
}

static int
not_running(struct look *l, const struct q_gateway_door *c, struct desk *k)
{
	const char *s = c->state;

	if (strcmp(s, "pending") == 0 || strcmp(s, "starting") == 0)
		answer(l, DOOR_STARTING);
	else if (strcmp(s, "missing") == 0 || strcmp(s, "error") == 0)
		answer(l, DOOR_NO_HOST);
	else if (strcmp(s, "resuming") == 0) {
		answer(l, DOOR_STARTING);
		l->waiting = !l->ask.quiet;
	} else {
		answer(l, DOOR_PAUSED);
		if (l->ask.quiet || !may_wake(c))
			return 0;
		if (strcmp(s, "paused") == 0 || strcmp(s, "hibernated") == 0)
			return wake(l, c, k);
		l->waiting = true; /* it still falls asleep */
	}
	return 0;
}

/* What the rows of ports and of the capsule say of this one. */
static bool
is_public(struct look *l, const struct q_gateway_door *c)
{
	struct err e = { 0 };
	struct json_object *ports = json_parse(l, c->ports, strlen(c->ports), NULL, &e);
	struct json_object *ingress = json_parse(l, c->ingress, strlen(c->ingress), NULL, &e);
	struct json_object *tls = ingress ? json_get(ingress, "https_ports") : NULL;
	struct json_object *p = NULL;
	char port[8];

	snprintf(port, sizeof port, "%u", l->ask.at.port);
	p = ports ? json_get(ports, port) : NULL;
	l->door.host_header = talloc_strdup(l, p ? json_str(p, "host_header", "keep") : "keep");
	if (ingress && json_str(ingress, "mask_host", NULL) && !p)
		l->door.host_header = talloc_strdup(l, json_str(ingress, "mask_host", "keep"));
	l->door.tls = p && strcmp(json_str(p, "protocol", "http"), "https") == 0;
	if (tls && json_object_is_type(tls, json_type_array))
		for (size_t i = 0; i < json_object_array_length(tls); i++)
			l->door.tls |= json_object_get_int64(json_object_array_get_idx(tls, i)) ==
			    (int64_t)l->ask.at.port;
	return p ? strcmp(json_str(p, "visibility", "private"), "public") == 0 : c->public_traffic;
}

/* A private capsule is there for its owner and for those who run the team. */
static bool
theirs(const struct q_gateway_door *c, const struct principal *p, enum allowed may)
{
	bool own = p->user && c->owner_id && uuid_equal(p->user, c->owner_id);

	if (!p->team || !uuid_equal(p->team, c->team_id))
		return false;
	if (own)
		return true;
	if (may == ALLOW_OWN)
		return false;
	return strcmp(c->visibility, "private") != 0 ||
	    (p->role && (strcmp(p->role, "owner") == 0 || strcmp(p->role, "admin") == 0));
}

/* The credential's answer was asked for before the row's: it is the first one to take. */
static bool
allowed(struct look *l, const struct q_gateway_door *c, const struct principal *p)
{
	struct err e = { 0 };
	enum allowed may;

	if (l->ask.guest || is_public(l, c) || l->ask.traffic)
		return true;
	if (p->type == CALLER_NONE && l->work.err.code == E_OK) {
		answer(l, DOOR_LOGIN);
		return false;
	}
	if (l->work.err.code == E_OK &&
	    principal_gate(p, PERM_capsules_connect, 0, l->d->gw->conf->auth_require_mfa, &e) < 0) {
		answer_err(l, DOOR_REFUSED, e.code, e.text);
		return false;
	}
	if (l->work.err.code != E_OK) {
		answer_err(l, DOOR_REFUSED, E_UNAUTHORIZED, l->work.err.text);
		return false;
	}
	may = principal_allowed(p, PERM_capsules_connect, &e);
	if (p->team && !uuid_equal(p->team, c->team_id)) {
		answer(l, DOOR_NONE);
		return false;
	}
	if (may == ALLOW_NO) {
		answer_err(l, DOOR_REFUSED, e.code, e.text);
		return false;
	}
	if (!theirs(c, p, may)) {
		answer(l, DOOR_NONE);
		return false;
	}
	return true;
}

static void
opened(struct look *l, const struct q_gateway_door *c)
{
	struct access *a = &l->door.access;

	*a = (struct access){
		.team = *c->team_id,
		.capsule = l->ask.at.capsule,
		.epoch = c->epoch,
		.host = talloc_strdup(l, c->address),
		.who = "",
		.key_name = "",
		.state = talloc_strdup(l, c->state),
	};
	id_write(a->id, "cl-", &l->ask.at.capsule);
	snprintf(a->token, sizeof a->token, "%s",
	    crypto_guest_token(l, l->d->gw->keys, &l->ask.at.capsule, GUEST_TOKEN_EPOCH));
	answer(l, *a->host ? DOOR_OPEN : DOOR_NO_HOST);
}

/* Who it is, when that matters: the errors of a credential are its own, not the database's. */
static int
who(struct look *l, struct principal *p)
{
	const char *issuer = l->d->gw->conf->http_public_url;
	struct credential_look cred = { 0 };
	struct credentials with = {
		.api_key = l->ask.api_key, .bearer = l->ask.bearer, .ip = l->ask.ip
	};

	*p = (struct principal){ .type = CALLER_NONE };
	if (l->ask.guest || l->ask.traffic)
		return 0;
	if (with.api_key || with.bearer) {
		if (credential_send(&l->work, l->d->gw->keys, issuer, &with, &cred) < 0)
			return -1;
	} else if (l->ask.known) {
		cred = *l->ask.known;
		if (credential_resend(&l->work, &cred, l->ask.ip) < 0)
			return -1;
	} else
		return 0;
	return credential_take(&l->work, &cred, p);
}

static int
ask(struct look *l, struct desk *k)
{
	struct err refused = { 0 };
	struct q_gateway_door *c = NULL;
	struct principal p;
	int n;

	if (who(l, &p) < 0) {
		if (l->work.err.code == E_DB)
			return -1;
		refused = l->work.err;
		l->work.err = (struct err){ 0 };
	}
	n = q_gateway_door_of(l->work.db, &c, .capsule = &l->ask.at.capsule);
	if (n < 0)
		return -1;
	answer(l, DOOR_NONE);
	if (n == 0 || strcmp(c->state, "stopped") == 0 || strcmp(c->state, "stopping") == 0)
		return 0;
	l->door.state = talloc_strdup(l, c->state);
	l->work.err = refused;
	if (!allowed(l, c, &p)) {
		l->work.err = (struct err){ 0 };
		return 0;
	}
	l->work.err = (struct err){ 0 };
	if (strcmp(c->state, "running") == 0)
		opened(l, c);
	else
		return not_running(l, c, k);
	return 0;
}

static void
in_thread(uv_work_t *req)
{
	struct look *l = req->data;
	struct desk *k = desk_take(l->d->gw->doorman);

	l->waiting = false;
	if (!k) {
		(void)err_set(&l->work.err, E_DB, "no database connection is free");
		return;
	}
	/* Twice: a connection may have died with a PostgreSQL that is back since. */
	for (int tries = 0; tries < 2; tries++) {
		l->work.err = (struct err){ 0 };
		l->work.db = desk_db(k);
		if (db_unit(l->work.db, l, &l->work.err) == 0)
			(void)ask(l, k);
		db_unit_end(l->work.db);
		if (l->work.err.code != E_DB)
			break;
	}
	desk_return(l->d->gw->doorman, k);
}

/* ---- on the loop */

static struct slot *
slot_of(struct doors *d, const uint8_t key[HASH_SIZE])
{
	return &d->slots[(key[0] << 8 | key[1]) % SLOTS];
}

static struct door *
door_copy(void *mem, const struct door *d)
{
	struct door *copy = talloc_memdup(mem, d, sizeof *d);

	if (!copy)
		abort();
	copy->access.host = talloc_strdup(copy, d->access.host);
	copy->access.state = talloc_strdup(copy, d->access.state);
	copy->host_header = talloc_strdup(copy, d->host_header);
	copy->state = talloc_strdup(copy, d->state);
	return copy;
}

static void
remember(struct look *l)
{
	struct doors *d = l->d;
	struct slot *s = slot_of(d, l->key);
	int64_t most = d->gw->conf->gateway_cache_sec * 1000;
	int64_t ms = l->door.why == DOOR_OPEN ? KNOWN_MS : NONE_MS;

	if (l->door.why != DOOR_OPEN && l->door.why != DOOR_NONE)
		return;
	TALLOC_FREE(s->door);
	s->door = door_copy(d, &l->door);
	memcpy(s->key, l->key, sizeof s->key);
	s->capsule = l->ask.at.capsule;
	s->until = uv_now(d->gw->loop) + (uint64_t)(ms < most ? ms : most);
}

static void after_thread(uv_work_t *, int);

static void
look_again(void *arg)
{
	struct look *l = arg;

	TALLOC_FREE(l->timer);
	if (!l->tie)
		talloc_free(l);
	else
		uv_queue_work(l->d->gw->loop, &l->req, in_thread, after_thread);
}

/* The capsule wakes: looked at again soon, for half a minute. */
static bool
goes_on(struct look *l)
{
	uint64_t now = uv_now(l->d->gw->loop);

	if (!l->waiting || l->work.err.code != E_OK || !l->tie)
		return false;
	if (!l->give_up)
		l->give_up = now + WAKE_MS;
	if (now >= l->give_up) {
		answer(l, DOOR_STARTING);
		return false;
	}
	l->timer = timer_start(l, l->d->gw->loop, WAKE_LOOK_MS, 0, look_again, l);
	return true;
}

static void
after_thread(uv_work_t *req, int status)
{
	struct look *l = req->data;
	struct tie *t = l->tie;

	if (status < 0)
		(void)err_set(&l->work.err, E_UNAVAILABLE, "the process is ending");
	if (goes_on(l))
		return;
	if (l->work.err.code != E_OK) {
		l->door.why = DOOR_FAILED;
		l->door.err = l->work.err;
	}
	remember(l);
	if (t) {
		t->look = NULL;
		t->done(t->arg, &l->door);
	}
	talloc_free(l);
}

/* The whole question in one hash. */
static void
question(const struct door_ask *a, uint8_t key[HASH_SIZE])
{
	struct buf b = BUF(NULL);

	buf_add(&b, a->at.capsule.b, sizeof a->at.capsule.b);
	buf_fmt(&b, "%u %d %d %d ", a->at.port, a->guest, a->traffic, a->at.bare);
	if (a->known) {
		buf_add(&b, a->known->claims.sub.b, sizeof a->known->claims.sub.b);
		buf_add(&b, a->known->claims.sid.b, sizeof a->known->claims.sid.b);
		buf_add(&b, a->known->claims.team.b, sizeof a->known->claims.team.b);
		buf_add(&b, a->known->hash, sizeof a->known->hash);
	}
	buf_fmt(&b, "%s\n%s\n%s", a->api_key ? a->api_key : "", a->api_key && a->ip ? a->ip : "",
	    a->bearer ? a->bearer : "");
	crypto_sha256(b.data, b.len, key);
	talloc_free(b.data);
}

struct later {
	struct doors *d;
	struct tie *tie;
	struct door *door;
};

static void
on_later(void *arg)
{
	struct later *w = arg;
	struct tie *t = w->tie;
	auto_talloc struct door *door = talloc_steal(NULL, w->door);

	t->done(t->arg, door);
}

/* What is remembered is told a turn later: the caller's frames are gone by then. */
static void
tell_later(struct doors *d, struct tie *t, const struct slot *s)
{
	struct later *w = talloc_zero(t, struct later);

	if (!w)
		abort();
	*w = (struct later){ d, t, door_copy(w, s->door) };
	(void)timer_start(w, d->gw->loop, 0, 0, on_later, w);
}

void
door_look(void *mem, struct gateway *gw, const struct door_ask *a, door_done *done, void *arg)
{
	struct doors *d = gw->doors;
	struct tie *t = talloc_zero(mem, struct tie);
	struct look *l;
	struct slot *s;
	uint8_t key[HASH_SIZE];

	if (!t)
		abort();
	*t = (struct tie){ .done = done, .arg = arg };
	question(a, key);
	s = slot_of(d, key);
	if (s->door && s->until > uv_now(gw->loop) && memcmp(s->key, key, HASH_SIZE) == 0) {
		tell_later(d, t, s);
		return;
	}
	l = talloc_zero(NULL, struct look);
	if (!l)
		abort();
	*l = (struct look){ .d = d, .ask = *a, .tie = t, .req.data = l };
	l->ask.api_key = a->api_key ? talloc_strdup(l, a->api_key) : NULL;
	l->ask.bearer = a->bearer ? talloc_strdup(l, a->bearer) : NULL;
	l->ask.known = a->known ? talloc_memdup(l, a->known, sizeof *a->known) : NULL;
	l->ask.ip = a->ip ? talloc_strdup(l, a->ip) : NULL;
	l->work.id = "port";
	l->door.access.host = l->door.access.state = l->door.host_header = l->door.state = "";
	memcpy(l->key, key, sizeof key);
	t->look = l;
	talloc_set_destructor(t, tie_destroy);
	uv_queue_work(gw->loop, &l->req, in_thread, after_thread);
}

void
door_enter(struct request *r, const struct door *d)
{
	r->access = &door_copy(r, d)->access;
}

void
door_forget(struct gateway *gw, const struct uuid *capsule)
{
	struct doors *d = gw->doors;

	for (size_t i = 0; i < SLOTS; i++)
		if (d->slots[i].door && uuid_equal(&d->slots[i].capsule, capsule))
			TALLOC_FREE(d->slots[i].door);
}

struct doors *
doors_open(void *mem, struct gateway *gw)
{
	struct doors *d = talloc_zero(mem, struct doors);

	if (!d)
		abort();
	d->gw = gw;
	return d;
}
