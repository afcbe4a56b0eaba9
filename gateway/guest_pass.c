/*
 * guest_pass.c - see guest_pass.h.
 *
 * Nothing opens towards the guest before the token was compared. The guest compares it again; a
 * signature is its business alone.
 */
#include "guest_pass.h"

#include "back.h"
#include "cleanup.h"
#include "crypto.h"
#include "gateway.h"
#include "http1.h"
#include "port_page.h"
#include "route.h"
#include "tally.h"
#include "timer.h"

#include <ctype.h>
#include <string.h>
#include <strings.h>

enum {
	HEADERS = 64,
	PER_CAPSULE = 400, /* at once, in one process; a guest takes 512 streams */
	AGAIN_MAX = 100,
	AGAIN_MS = 100,
};

struct pass {
	struct request *r;
	struct port_place at;
	bool free; /* no token is needed: the guest looks at the signature itself */
	struct guest *g;
	struct h2_header more[HEADERS + 1];
	size_t n;
	bool got_body; /* some of it is gone: it cannot begin anew */
	bool body_ended;
	unsigned again;
};

/* ---- headers */

/* Of this hop, or between the client and us. */
static const char *const not_in[] = { "connection", "keep-alive", "proxy-connection",
	"transfer-encoding", "upgrade", "te", "trailer", "host", "expect", "x-access-token",
	"x-api-key", "cookie", "e2b-sandbox-id", "e2b-sandbox-port", "e2b-traffic-access-token",
	"x-request-id", "traceparent", "forwarded", "hutch-op", "hutch-epoch", "hutch-activity",
	NULL };

static const char *
lower(void *mem, const char *s)
{
	char *out = talloc_strdup(mem, s), *c;

	for (c = out; *c; c++)
		*c = (char)tolower((unsigned char)*c);
	return out;
}

static void
take_header(void *arg, const char *name, const char *value)
{
	struct pass *p = arg;

	if (p->n == HEADERS || http1_among(name, not_in) ||
	    strncasecmp(name, "x-forwarded-", 12) == 0)
		return;
	if (strcasecmp(name, "authorization") == 0 && strncasecmp(value, "Basic ", 6) != 0)
		return;
	p->more[p->n++] = (struct h2_header){ lower(p, name), talloc_strdup(p, value) };
}

/* Every origin, method and header, no credentials. */
static void
cors(struct request *r)
{
	reply_header(r, "Access-Control-Allow-Origin", "*");
	reply_header(r, "Access-Control-Expose-Headers", "*");
}

static void
preflight(struct request *r)
{
	const char *asked = request_header(r, "Access-Control-Request-Headers");

	reply_header(r, "Access-Control-Allow-Origin", "*");
	reply_header(
	    r, "Access-Control-Allow-Methods", "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS");
	reply_header(r, "Access-Control-Allow-Headers", asked ? talloc_strdup(r, asked) : "*");
	reply_header(r, "Access-Control-Max-Age", "7200");
	reply_empty(r, 204);
}

/* ---- the guest's answer */

static bool
no_body(const struct request *r, int status)
{
	return status == 204 || status == 304 || strcmp(r->method, "HEAD") == 0;
}

static void
on_head(struct guest *g, const struct h2_head *head)
{
	struct pass *p = guest_arg(g);
	struct request *r = p->r;
	int64_t length = -1;

	if (r->reply.state != REPLY_NONE)
		return;
	r->reply.plain = true;
	for (const struct h2_header *h = head->header; h->name; h++) {
		if (strcmp(h->name, "content-length") == 0)
			length = strtoll(h->value, NULL, 10);
		if (h->name[0] != ':' && !http1_among(h->name, http1_hop) &&
		    strncmp(h->name, "access-control-", 15) != 0)
			reply_header(r, talloc_strdup(r, h->name), talloc_strdup(r, h->value));
	}
	cors(r);
	if (no_body(r, head->status))
		reply_empty(r, head->status);
	else
		reply_begin(r, head->status, NULL, length);
}

static void
on_data(struct guest *g, const uint8_t *data, size_t n)
{
	struct pass *p = guest_arg(g);

	if (p->r->reply.stream)
		reply_write(p->r, data, n); /* consumed when the client took it */
	else
		guest_consume(g, n);
}

static void
on_end(struct guest *g)
{
	struct pass *p = guest_arg(g);

	if (p->r->reply.stream)
		reply_end(p->r);
}

static void
on_drain(struct guest *g)
{
	request_wake(((struct pass *)guest_arg(g))->r);
}

static void
on_fail(struct guest *g, const struct err *e)
{
	struct pass *p = guest_arg(g);

	(void)e;
	if (p->r->reply.state == REPLY_NONE)
		page_reply(p->r, &p->at, PAGE_NO_HOST);
	else if (p->r->reply.stream)
		reply_cut(p->r);
}

static void begin(void *);

/* The host's own refusal: it does not have the capsule, or not awake. What is known of it is old;
   the host may be ahead of its report. */
static void
on_refused(struct guest *g, int status, struct json_object *json)
{
	struct pass *p = guest_arg(g);

	(void)json;
	TALLOC_FREE(p->g);
	door_forget(p->r->gw, &p->at.capsule);
	if (status == 503 || p->got_body || p->again == AGAIN_MAX) {
		page_reply(p->r, &p->at, status == 409 ? PAGE_PAUSED : PAGE_NO_HOST);
		return;
	}
	p->again++;
	(void)timer_start(p, p->r->gw->loop, AGAIN_MS, 0, begin, p);
}

static const struct guest_events events = {
	.on_head = on_head,
	.on_refused = on_refused,
	.on_data = on_data,
	.on_end = on_end,
	.on_drain = on_drain,
	.on_fail = on_fail,
};

/* ---- the client's request */

static size_t
body(struct request *r, const char *data, size_t n)
{
	struct pass *p = r->state;

	if (!p->g || guest_queued(p->g) >= H2_HIGH)
		return 0; /* on_drain(), or the next beginning, wakes us */
	p->got_body = true;
	guest_write(p->g, data, n);
	return n;
}

static void
body_end(struct request *r)
{
	struct pass *p = r->state;

	p->body_ended = true;
	if (p->g)
		guest_finish(p->g);
}

static void
taken(struct request *r, size_t n)
{
	struct pass *p = r->state;

	if (p->g)
		guest_consume(p->g, n);
}

static void
on_door(void *arg, const struct door *d)
{
	struct pass *p = arg;
	struct request *r = p->r;
	struct guest_call call = { .method = r->method,
		.path = r->uri,
		.more = p->more,
		.raw = true,
		.no_token = p->free };

	if (d->why != DOOR_OPEN) {
		cors(r);
		page_door(r, &p->at, d);
		return;
	}
	door_enter(r, d);
	p->g = guest_open(p, r, &call, &events, p);
	if (!p->g) {
		r->work.err = (struct err){ 0 };
		page_reply(r, &p->at, PAGE_NO_HOST);
		return;
	}
	if (p->body_ended)
		guest_finish(p->g);
	request_admit(r);
}

static void
begin(void *arg)
{
	struct pass *p = arg;
	struct door_ask ask = { .at = p->at, .guest = true };

	door_look(p, p->r->gw, &ask, on_door, p);
}

/* Only the host agent calls these (spec 06 §3). The guest decodes nothing: doubled slashes and one
   at the end are the only disguise. */
static bool
is_private(const char *path)
{
	static const char *const own[] = { "/init", "/freeze", "/unfreeze", "/collapse",
		"/fsfreeze", "/fsthaw", "/grow", "/upgrade", "/stats", NULL };
	size_t n = strlen(path), i;

	while (n > 1 && path[0] == '/' && path[1] == '/') {
		path++;
		n--;
	}
	while (n > 1 && path[n - 1] == '/')
		n--;
	for (i = 0; own[i]; i++)
		if (n == strlen(own[i]) && strncmp(path, own[i], n) == 0)
			return true;
	return false;
}

/* 1: it may pass, 0: it carries none, -1: it carries another one. */
static int
token(const struct request *r, const struct port_place *at)
{
	const char *given = request_header(r, "X-Access-Token");
	auto_talloc char *mem = talloc_new(NULL);
	const char *good = crypto_guest_token(mem, r->gw->keys, &at->capsule, GUEST_TOKEN_EPOCH);

	if (!given || !*given)
		return 0;
	return strlen(given) == strlen(good) && crypto_equal(given, good, strlen(good)) ? 1 : -1;
}

static void
start(struct request *r, const struct port_place *at, bool is_free)
{
	struct pass *p = talloc_zero(r, struct pass);

	if (!p)
		abort();
	*p = (struct pass){ .r = r, .at = *at, .free = is_free };
	request_headers(r, take_header, p);
	r->state = p;
	r->on_body = body;
	r->on_body_end = body_end;
	r->on_taken = taken;
	if (!tally_take(&r->gw->busy, r, talloc_asprintf(p, "guest %s", at->id), PER_CAPSULE)) {
		reply_header(r, "Retry-After", "1");
		page_guest(r, 429, "too many requests to this sandbox at once");
		return;
	}
	begin(p);
}

void
guest_pass_signed(struct request *r, const struct port_place *at)
{
	start(r, at, true);
}

void
guest_pass(struct request *r, const struct port_place *at)
{
	bool read = strcmp(r->method, "GET") == 0, files = strcmp(r->path, "/files") == 0;
	int good = at->port ? token(r, at) : -1;
	bool is_signed =
	    files && (read || strcmp(r->method, "POST") == 0) && query_get(r, "signature");

	if (strcmp(r->method, "OPTIONS") == 0) {
		preflight(r);
		return;
	}
	if (is_private(r->path) || strcmp(r->method, "CONNECT") == 0) {
		cors(r);
		page_guest(r, 404, "no such path");
	} else if (good < 0) {
		/* the token of another capsule: this one is not there for its holder */
		cors(r);
		page_reply(r, at, PAGE_NOT_FOUND);
	} else if (good == 0 && !is_signed && !(read && strcmp(r->path, "/health") == 0)) {
		cors(r);
		page_guest(r, 401, "X-Access-Token is missing");
	} else {
		start(r, at, good == 0);
	}
}
