/*
 * dispatch.c - the way of every request: route, input, caller, permission, limits, transaction,
 * answer.
 *
 * Handlers are small because all of this is here once. The order matters: the input is parsed
 * before the database is asked (it costs no round trip), but a bad credential is told before bad
 * input.
 */
#include "request.h"
#include "cleanup.h"
#include "idempotency.h"
#include "job.h"
#include "key_use.h"
#include "json.h"
#include "log.h"
#include "teams.q.h"
#include "sessions.q.h"

#include <ctype.h>
#include <inttypes.h>
#include <string.h>
#include <time.h>

static struct credentials
credentials_of(struct request *r)
{
	const char *auth = request_env(r, "HTTP_AUTHORIZATION");

	return (struct credentials){
		.ip = r->ip,
		.api_key = request_env(r, "HTTP_X_API_KEY"),
		.bearer = auth && strncasecmp(auth, "Bearer ", 7) == 0 ? auth + 7 : NULL,
		.host_token = request_env(r, "HTTP_X_HOST_TOKEN"),
		.seen = r->app->tokens,
	};
}

static bool
changes(const struct request *r)
{
	return strcmp(r->route->method, "GET") != 0;
}

const char *
query_decode(void *mem, const char *s, size_t n)
{
	char *out = talloc_array(mem, char, n + 1), *o = out;
	uint8_t byte;
	char two[3];
	size_t i;

	for (i = 0; i < n; i++) {
		if (s[i] != '%') {
			*o++ = s[i] == '+' ? ' ' : s[i];
			continue;
		}
		if (n - i < 3)
			return NULL;
		two[0] = s[i + 1];
		two[1] = s[i + 2];
		two[2] = '\0';
		if (!hex_read(two, &byte, 1) || byte < 0x20 || byte == 0x7f)
			return NULL;
		*o++ = byte;
		i += 2;
	}
	*o = '\0';
	return out;
}

static int
read_query(struct request *r, void *in)
{
	const char *p, *end, *eq, *text;
	const struct field *f;
	size_t n;

	for (p = r->query; p && *p; p = *end ? end + 1 : end) {
		end = strchrnul(p, '&');
		eq = memchr(p, '=', end - p);
		n = eq ? (size_t)(eq - p) : (size_t)(end - p);
		for (f = r->route->in; f && f->name; f++) {
			if (!(f->flags & IN_QUERY) || strlen(f->name) != n ||
			    memcmp(f->name, p, n) != 0)
				continue;
			text = eq ? query_decode(r, eq + 1, end - eq - 1) : "";
			if (!text)
				return fail(r, E_BAD_INPUT, "\"%s\" is badly escaped", f->name);
			if (field_read_text(f, text, in, r, &r->work.err) < 0)
				return -1;
		}
	}
	return 0;
}

const struct pair *
query_pairs(struct request *r, const char *prefix)
{
	struct pair *list = talloc_zero_array(r, struct pair, 1);
	size_t n = 0, len = strlen(prefix);
	const char *p, *end, *eq;

	for (p = r->query; p && *p; p = *end ? end + 1 : end) {
		end = strchrnul(p, '&');
		eq = memchr(p, '=', end - p);
		if (strncmp(p, prefix, len) != 0 || !eq || eq == p + len)
			continue;
		list = talloc_realloc(r, list, struct pair, n + 2);
		list[n].name = query_decode(r, p + len, eq - p - len);
		list[n].value = query_decode(r, eq + 1, end - eq - 1);
		if (!list[n].name || !list[n].value || n == 64) {
			fail(r, E_BAD_INPUT, "\"%s\" is badly escaped, or there are too many",
			    prefix);
			return NULL;
		}
		list[++n] = (struct pair){ 0 };
	}
	return list;
}

static int
read_path(struct request *r, void *in, const char *const *values)
{
	const struct field *f;

	for (f = r->route->in; f && f->name; f++)
		if (f->flags & IN_PATH)
			if (field_read_text(f, *values++, in, r, &r->work.err) < 0)
				return -1;
	return 0;
}

static bool
takes_body(const struct route *rt)
{
	return strcmp(rt->method, "GET") != 0 && strcmp(rt->method, "DELETE") != 0 &&
	    !(rt->flags & NO_BODY);
}

static int
read_body(struct request *r, void *in)
{
	struct json_object *doc = NULL;

	if (r->body_len) {
		doc = json_parse(r, r->body_text, r->body_len, NULL, &r->work.err);
		if (!doc && r->work.err.code != E_OK)
			return -1;
		if (!json_object_is_type(doc, json_type_object))
			return fail(r, E_BAD_INPUT, "the body is not a JSON object");
	} else if (takes_body(r->route) && !(r->route->flags & MAY_BE_EMPTY))
		return fail(r, E_BAD_INPUT, "the body is empty; a JSON object is expected");
	r->body = doc;
	return fields_read(r->route->in, doc, in, r, &r->work.err);
}

/* The route's input struct out of path, query and body. */
static int
read_input(struct request *r, const char *const *values)
{
	void *in;

	if (!r->route->in)
		return 0;
	in = talloc_zero_size(r, r->route->insize);
	r->in = in;
	if (read_body(r, in) < 0 || read_path(r, in, values) < 0)
		return -1;
	return read_query(r, in);
}

static void
name_actor(struct request *r)
{
	struct actor *a = &r->work.actor;
	const struct principal *p = &r->who;

	a->ip = r->ip;
	a->user_agent = request_env(r, "HTTP_USER_AGENT");
	if (a->user_agent && strlen(a->user_agent) > 512)
		a->user_agent = talloc_strndup(r, a->user_agent, 512);
	a->user = p->user;
	a->name = p->name;
	/* a refused credential has a type, and may name nobody */
	if (p->type == CALLER_USER && p->user) {
		a->type = "user";
		a->id = id_text(r, "usr-", p->user);
	} else if (p->type == CALLER_KEY && p->key) {
		a->type = "api_key";
		a->id = id_text(r, "key-", p->key);
	} else if (p->type == CALLER_HOST && p->host) {
		a->type = "host";
		a->id = id_text(r, "host-", p->host);
	}
}

int
rate_limited(struct request *r, const char *what, const char *who, int64_t n, int64_t seconds)
{
	auto_talloc char *key = talloc_asprintf(NULL, "hutch:rate:%s:%s", what, who);
	struct rate rate;
	int ok = rate_bucket(r->app->queue, key,
	    &(struct bucket_rule){ .burst = n, .tokens = n, .window_sec = seconds }, &rate);

	buf_clear(&r->headers);
	reply_header(r, "X-RateLimit-Limit", "%" PRId64, rate.limit);
	reply_header(r, "X-RateLimit-Remaining", "%" PRId64, rate.remaining);
	reply_header(r, "X-RateLimit-Reset", "%" PRId64, rate.reset_sec);
	if (ok)
		return 0;
	reply_header(r, "Retry-After", "%" PRId64, rate.retry_after > 0 ? rate.retry_after : 1);
	return fail(r, E_RATE, "too many requests: %" PRId64 " %s are allowed", n,
	    seconds == 60         ? "a minute"
		: seconds == 3600 ? "an hour"
				  : "for a while");
}

static int
limited(struct request *r, const char *what, const char *who, int64_t per_minute)
{
	return rate_limited(r, what, who, per_minute, 60);
}

static int
within_limits(struct request *r)
{
	const struct conf *c = r->app->conf;

	if (r->who.key_rate && rate_limited(r, "key", r->who.rate_key, r->who.key_rate, 3600) < 0) {
		r->who.denied = "rate";
		return -1;
	}
	if (!c->auth_rate_limits || !r->ip)
		return 0;
	if (r->route->flags & TIGHT)
		return limited(r, "tight", r->ip, c->auth_rate_per_minute / 10 + 1);
	if (r->who.rate_key)
		return limited(r, "who", r->who.rate_key, c->auth_rate_per_minute);
	return limited(r, "ip", r->ip, c->auth_rate_address_per_minute);
}

static unsigned
gates_open(const struct route *rt)
{
	return (rt->flags & BEFORE_CHANGE ? GATE_PASSWORD : 0) |
	    (rt->flags & BEFORE_MFA ? GATE_MFA : 0);
}

int
proven_lately(struct request *r)
{
	struct q_proof *p;
	int n;

	n = q_session_proof(
	    r->work.db, &p, .id = r->who.session, .seconds = r->app->conf->auth_reauth);
	if (n < 0)
		return -1;
	return n && p->fresh ? 0
			     : fail(r, E_REAUTH, "prove again who you are: POST /v1/auth/reauth");
}

/* What is worth stealing a session for wants a fresh proof of who is there. */
static int
proven(struct request *r)
{
	bool always = r->route->flags & PROOF;

	if (!(always || (r->route->flags & PROOF_OF_FACTOR && r->who.has_factor)) ||
	    r->who.type != CALLER_USER)
		return 0;
	return proven_lately(r);
}

/* What the caller has to do first comes before what he may (spec 01 §2.6). */
static int
gate(struct request *r)
{
	return principal_gate(&r->who, r->route->may, gates_open(r->route),
	    r->app->conf->auth_require_mfa, &r->work.err);
}

/* The team of the path is the one of the caller's token. One that he is not in does not exist for
 * him. */
static int
of_team(struct request *r, const char *text)
{
	struct q_membership *m;
	struct uuid team;
	int n;

	if (!(r->route->flags & IN_TEAM) || r->who.type != CALLER_USER)
		return 0;
	if (!id_read(text, "team-", &team))
		return fail(
		    r, E_BAD_INPUT, "\"id\" is not an id: team- and 25 characters of 0-9a-z");
	if (r->who.team && uuid_equal(r->who.team, &team))
		return 0;
	n = q_team_role(r->work.db, &m, .team = &team, .user = r->who.user);
	if (n < 0)
		return -1;
	return n ? fail(r, E_FORBIDDEN, "your token is for another team: POST /v1/auth/switch-team")
		 : fail(r, E_NOT_FOUND, "no such object, or not yours");
}

static int
permitted(struct request *r)
{
	enum allowed a = principal_allowed(&r->who, r->route->may, &r->work.err);

	if (a == ALLOW_NO) {
		r->who.denied = r->who.type == CALLER_KEY ? "scope" : NULL;
		return -1;
	}
	if (proven(r) < 0)
		return -1;
	r->own_only = a == ALLOW_OWN;
	return 0;
}

/* Runs the handler; what it changes is in one transaction with audit, events, jobs and the
   idempotency record. */
static int
run(struct request *r)
{
	struct db *db = r->work.db;
	bool replayed = false;

	if (!changes(r))
		return r->route->fn(r);
	db_begin(db);
	if (idempotency_begin(r, &replayed) < 0)
		return -1;
	if (replayed) {
		db_rollback(db);
		return 0;
	}
	if (r->route->fn(r) < 0 || idempotency_record(r) < 0)
		return -1;
	if (db_commit(db) < 0)
		return -1;
	job_announce(&r->work, r->app->queue);
	if (r->after && r->after(r) < 0)
		return -1;
	return r->after ? idempotency_update(r) : 0;
}

/* Finds out who is calling; the route's own query travels with the question when the input is good.
 */
static int
identify(struct request *r, bool input_good)
{
	struct credentials cred = { 0 };
	struct credential_look look = { .for_platform = r->route->flags & OF_PLATFORM };

	if (r->route->may != ANYONE)
		cred = credentials_of(r);
	if (credential_send(&r->work, r->app->keys, r->app->conf->http_public_url, &cred, &look) <
	    0)
		return -1;
	if (look.type != CALLER_NONE && r->route->ahead && input_good && r->route->ahead(r) < 0)
		return -1;
	return credential_take(&r->work, &look, &r->who);
}

/* Whoever guesses credentials is slowed down by address. */
static int
unknown_caller(struct request *r)
{
	struct err cause = r->work.err;
	const struct conf *c = r->app->conf;

	if (cause.code != E_UNAUTHORIZED || !c->auth_rate_limits || !r->ip)
		return -1;
	r->work.err = (struct err){ 0 };
	if (limited(r, "unknown", r->ip, c->auth_rate_per_minute / 10 + 1) == 0)
		r->work.err = cause;
	return -1;
}

/* Reaches rows of several teams; who acts for the Platform, rows of that team only. */
static bool
across(const struct route *rt)
{
	return !(rt->flags & OF_PLATFORM) &&
	    (rt->may == HOST_TOKEN || rt->may == PLATFORM_READ || rt->may == PLATFORM_ADMIN ||
		rt->may == HOSTS_OPERATE || rt->may == HOSTS_ADMIN || rt->flags & ACROSS);
}

static int
serve(struct request *r)
{
	struct err input_error = { 0 };
	const char *values[8], *allow = NULL;

	r->route = route_find(r, values, &allow);
	if (!r->route) {
		if (r->work.err.code != E_OK)
			return -1;
		if (!allow)
			return fail(r, E_NOT_FOUND, "no such path");
		reply_header(r, "Allow", "%s", allow);
		return fail(r, E_NO_METHOD, "%s has no method %s", r->path, r->method);
	}
	if (read_input(r, values) < 0) {
		input_error = r->work.err;
		r->work.err = (struct err){ 0 };
	}
	r->work.db = across(r->route) ? r->app->db_work : r->app->db;
	if (db_unit(r->work.db, r, &r->work.err) < 0)
		return -1;
	if (identify(r, input_error.code == E_OK) < 0) {
		if (r->who.denied)
			name_actor(r);
		return unknown_caller(r);
	}
	name_actor(r);
	if (within_limits(r) < 0 || gate(r) < 0 || of_team(r, values[0]) < 0 || permitted(r) < 0)
		return -1;
	if (input_error.code != E_OK && !(r->route->flags & ANY_INPUT)) {
		r->work.err = input_error;
		return -1;
	}
	return run(r);
}

static void
error_body(struct request *r)
{
	const struct err_kind *k = &err_kinds[r->work.err.code];

	r->status = k->http;
	buf_clear(&r->out);
	buf_str(&r->out, "{\"error\":{\"code\":");
	buf_json(&r->out, k->slug);
	buf_str(&r->out, ",\"message\":");
	buf_json(&r->out, err_public(&r->work.err));
	buf_str(&r->out, ",\"request_id\":");
	buf_json(&r->out, r->work.id);
	if (r->work.err_more)
		buf_fmt(&r->out, ",%s", r->work.err_more);
	buf_str(&r->out, "}}");
}

static void
refuse(struct request *r)
{
	if (r->route ? r->route->flags & E2B : route_is_e2b(r->path))
		e2b_error(r);
	else
		error_body(r);
	if (r->status == 503 && (!r->headers.data || !strstr(r->headers.data, "Retry-After")))
		reply_header(r, "Retry-After", "2");
	if (r->status >= 500)
		log_error(r->work.id, "%s %s: %d %s: %s", r->method, r->path, r->status,
		    err_kinds[r->work.err.code].name, r->work.err.text);
}

void
dispatch(struct request *r)
{
	int rc;

	r->out = BUF(r);
	r->headers = BUF(r);
	rc = r->work.err.code == E_OK ? serve(r) : -1;
	if (rc < 0 && r->who.denied && r->who.key)
		(void)key_denied(&r->work, &r->who, r->app->queue);
	if (rc < 0)
		refuse(r);
	if (r->who.type == CALLER_KEY && r->who.key && r->status != 401)
		key_use_count(
		    r->app->key_use, &r->who, r->ip, r->route->method, r->route->path, r->status);
	if (r->work.db)
		db_unit_end(r->work.db);
}
