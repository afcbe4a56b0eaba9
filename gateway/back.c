/* back.c - see back.h. */
#include "back.h"

#include "ca.h"
#include "cleanup.h"
#include "gateway.h"
#include "h2_uv.h"
#include "json.h"
#include "log.h"
#include "timer.h"
#include "tls.h"

#include <errno.h>
#include <netdb.h>
#include <netinet/tcp.h>
#include <nghttp2/nghttp2.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <talloc.h>

enum { DIAL_MS = 5000, CALL_HEADERS = 64, LEAVE_MS = 5000 };
enum { ANSWER_MAX = 32 << 20, ANSWER_KEYS = 2000000, REFUSAL_MAX = 64 * 1024 };

struct host {
	struct back *back;
	struct host *next;
	const char *address;
	struct h2_uv *link; /* NULL: not connected */
	struct timer *late; /* until the host has shown its certificate */
};

struct back {
	struct gateway *gw;
	struct host *hosts;
};

struct guest {
	struct h2_stream *stream; /* NULL: closed */
	const struct guest_events *on;
	void *arg;
	bool ended;      /* the answer is complete */
	bool finished;   /* the request is */
	bool raw;        /* a refusal of the guest is an answer like others */
	bool left;       /* nobody waits for more */
	bool tunnel;     /* it fails also when only one direction had its end */
	int refused;     /* a status that is no success; its body is collected */
	struct buf body; /* of a refusal */
};

/* ---- events of the streams */

/* The host agent marks its own refusals, and lets no guest do so. */
static bool
of_host(const struct h2_head *head)
{
	for (const struct h2_header *h = head->header; h->name; h++)
		if (strcmp(h->name, "hutch-error") == 0)
			return true;
	return false;
}

static void
on_head(struct h2_stream *s, const struct h2_head *head)
{
	struct guest *g = h2_stream_user(s);

	if (!g)
		return;
	if (head->status >= 300 && (!g->raw || of_host(head)))
		g->refused = head->status;
	else if (g->on->on_head)
		g->on->on_head(g, head);
}

static void
on_data(struct h2_stream *s, const uint8_t *p, size_t n)
{
	struct guest *g = h2_stream_user(s);

	if (g && g->left) {
		h2_consume(s, n);
		return;
	}
	if (g && !g->refused && g->on->on_data) {
		g->on->on_data(g, p, n);
		return;
	}
	if (g && g->refused && g->body.len + n <= REFUSAL_MAX)
		buf_add(&g->body, p, n);
	h2_consume(s, n);
}

static void
on_end(struct h2_stream *s)
{
	struct guest *g = h2_stream_user(s);
	struct err e = { 0 };

	if (!g)
		return;
	g->ended = true;
	if (g->left)
		return;
	if (g->refused)
		g->on->on_refused(g, g->refused,
		    g->body.len ? json_parse(g, g->body.data, g->body.len, NULL, &e) : NULL);
	else if (g->on->on_end)
		g->on->on_end(g);
}

static void
on_drain(struct h2_stream *s)
{
	struct guest *g = h2_stream_user(s);

	if (g && !g->left && g->on->on_drain)
		g->on->on_drain(g);
}

static void
on_close(struct h2_stream *s, uint32_t error)
{
	struct guest *g = h2_stream_user(s);
	struct err e = { 0 };

	if (!g)
		return;
	g->stream = NULL;
	if (g->left) {
		talloc_free(g);
		return;
	}
	if (g->ended && (g->finished || !g->tunnel || g->refused))
		return;
	(void)err_set(
	    &e, E_AGENT, "the stream to the guest ended: %s", nghttp2_http2_strerror(error));
	g->on->on_fail(g, &e);
}

static const struct h2_events events = {
	.on_head = on_head,
	.on_data = on_data,
	.on_end = on_end,
	.on_drain = on_drain,
	.on_close = on_close,
};

/* ---- sessions */

static void
on_gone(struct h2_uv *link, const struct err *e)
{
	struct host *h = h2_uv_user(link);

	log_info(NULL, "host %.*s: %s", (int)strcspn(h->address, "#"), h->address, e->text);
	if (h->link == link)
		h->link = NULL;
}

static const struct h2_limits one_stream = { .streams = 1 };

/* A unix socket connects at once or not at all. */
static int
dial_local(const char *address, struct err *e)
{
	struct sockaddr_un a = { .sun_family = AF_UNIX };
	int fd = -1;

	if (strncmp(address, "unix:", 5) != 0 || strlen(address + 5) >= sizeof a.sun_path)
		return err_set(e, E_HOST_UNAVAILABLE, "host address %s", address);
	snprintf(a.sun_path, sizeof a.sun_path, "%s", address + 5);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return err_sys(e, "socket");
	if (connect(fd, (struct sockaddr *)&a, sizeof a) < 0) {
		(void)err_set(e, E_HOST_UNAVAILABLE, "host %s: %s", address, strerror(errno));
		close(fd);
		return -1;
	}
	return fd;
}

/* The connection is under way when this returns; what is written waits for it. */
static int
dial_to(const struct addrinfo *a, const char *name, struct err *e)
{
	int on = 1, silent_ms = 20000;
	int fd = socket(a->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	if (fd >= 0) {
		(void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
		(void)setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on);
		(void)setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &silent_ms, sizeof silent_ms);
	}
	if (fd < 0 || (connect(fd, a->ai_addr, a->ai_addrlen) < 0 && errno != EINPROGRESS)) {
		(void)err_set(e, E_HOST_UNAVAILABLE, "host %s: %s", name, strerror(errno));
		if (fd >= 0)
			close(fd);
		fd = -1;
	}
	return fd;
}

/* A name is looked up in a thread, while the session exists already and collects what it will say.
 */
struct name {
	uv_getaddrinfo_t req;
	struct h2_uv *link; /* NULL: gone */
	struct name **tie;  /* on the link */
	char text[256];
};

static int
tie_destroy(struct name **tie)
{
	if (*tie)
		(*tie)->link = NULL;
	return 0;
}

static void
name_found(uv_getaddrinfo_t *req, int rc, struct addrinfo *list)
{
	struct name *n = req->data;
	struct err e = { 0 };
	int fd = -1;

	if (n->link) {
		*n->tie = NULL;
		if (rc < 0)
			(void)err_set(
			    &e, E_HOST_UNAVAILABLE, "host %s: %s", n->text, uv_strerror(rc));
		else
			fd = dial_to(list, n->text, &e);
		if (fd < 0 || h2_uv_wire(n->link, fd, &e) < 0) {
			log_warn(NULL, "%s", e.text);
			h2_uv_close(n->link);
		}
	}
	uv_freeaddrinfo(list);
	talloc_free(n);
}

/* Addresses need no thread. */
static int
dial_far(struct h2_uv *link, uv_loop_t *loop, const struct dial *d, struct err *e)
{
	struct addrinfo hint = { .ai_socktype = SOCK_STREAM,
		.ai_flags = AI_NUMERICSERV | AI_NUMERICHOST };
	struct addrinfo *list = NULL;
	struct name *n;
	int fd, rc;

	if (getaddrinfo(d->host, d->port, &hint, &list) == 0) {
		fd = dial_to(list, d->host, e);
		freeaddrinfo(list);
		return fd < 0 ? -1 : h2_uv_wire(link, fd, e);
	}
	n = talloc_zero(NULL, struct name);
	if (!n)
		abort();
	n->req.data = n;
	n->link = link;
	n->tie = talloc(link, struct name *);
	*n->tie = n;
	snprintf(n->text, sizeof n->text, "%s", d->host);
	talloc_set_destructor(n->tie, tie_destroy);
	hint.ai_flags = AI_NUMERICSERV;
	rc = uv_getaddrinfo(loop, &n->req, name_found, d->host, d->port, &hint);
	if (rc == 0)
		return 0;
	*n->tie = NULL;
	talloc_free(n);
	return err_set(e, E_HOST_UNAVAILABLE, "host %s: %s", d->host, uv_strerror(rc));
}

/* Nobody answered in time. */
static void
dial_late(void *arg)
{
	struct host *h = arg;

	TALLOC_FREE(h->late);
	if (h->link && !tls_ready(h2_uv_peer(h->link)))
		h2_uv_close(h->link);
}

static struct h2_uv *
link_local(struct host *h, struct err *e)
{
	int fd = dial_local(h->address, e);

	return fd < 0
	    ? NULL
	    : h2_uv_open(h, h->back->gw->loop, fd, H2_CLIENT, &events, &one_stream, h, on_gone, e);
}

static struct h2_uv *
dial(struct host *h, struct err *e)
{
	uv_loop_t *loop = h->back->gw->loop;
	auto_talloc char *mem = talloc_new(NULL);
	struct tls_ctx *tls;
	struct h2_uv *link;
	struct dial d;

	if (dial_read(mem, h->address, &d) < 0)
		return link_local(h, e);
	tls = tls_client(mem, ca_self(h->back->gw->keys, TLS_GATEWAY), d.host, d.fingerprints, e);
	link = tls ? h2_uv_open(h, loop, -1, H2_CLIENT, &events, &one_stream, h, on_gone, e) : NULL;
	if (!link)
		return NULL;
	talloc_steal(link, tls);
	if (h2_uv_tls(link, tls, false) < 0) {
		talloc_free(link);
		(void)err_set(e, E_HOST_UNAVAILABLE, "host %s: TLS", d.host);
		return NULL;
	}
	if (dial_far(link, loop, &d, e) < 0) {
		talloc_free(link);
		return NULL;
	}
	TALLOC_FREE(h->late);
	h->late = timer_start(h, loop, DIAL_MS, 0, dial_late, h);
	return link;
}

/* The same place with other certificates: what was connected before is not believed any more. */
static void
forget_older(struct back *b, const char *address)
{
	size_t n = strcspn(address, "#");

	for (struct host *h = b->hosts; address[n] && h; h = h->next)
		if (h->link && strncmp(h->address, address, n + 1) == 0)
			h2_uv_close(h->link);
}

static struct h2 *
session(struct back *b, const char *address, struct err *e)
{
	struct host *h = b->hosts;

	while (h && strcmp(h->address, address) != 0)
		h = h->next;
	if (!h) {
		h = talloc_zero(b, struct host);
		if (!h)
			abort();
		*h = (struct host){
			.back = b, .next = b->hosts, .address = talloc_strdup(h, address)
		};
		forget_older(b, address);
		b->hosts = h;
	}
	if (h->link && !h2_alive(h2_uv_session(h->link)))
		h->link = NULL; /* on its way out */
	if (!h->link)
		h->link = dial(h, e);
	return h->link ? h2_uv_session(h->link) : NULL;
}

static void
forget_session(struct back *b, const struct h2 *h2)
{
	for (struct host *h = b->hosts; h; h = h->next)
		if (h->link && h2_uv_session(h->link) == h2)
			h->link = NULL;
}

struct back *
back_open(void *mem, struct gateway *gw)
{
	struct back *b = talloc_zero(mem, struct back);

	if (!b)
		abort();
	b->gw = gw;
	return b;
}

/* ---- calls */

static int
guest_destroy(struct guest *g)
{
	if (!g->stream)
		return 0;
	h2_stream_set_user(g->stream, NULL);
	/* A call that is complete closes by itself; servers count resets as abuse. */
	if (!g->ended || !g->finished)
		h2_reset(g->stream, NGHTTP2_CANCEL);
	return 0;
}

static const char *
basic(void *mem, const char *user)
{
	struct buf b = BUF(mem);
	const char *plain = talloc_asprintf(mem, "%s:", user);

	buf_str(&b, "Basic ");
	buf_base64(&b, plain, strlen(plain));
	return b.data;
}

/* A session that is going away still carries what it has; new calls get a new one. */
static struct h2_stream *
request(struct request *r, const struct h2_header *head, bool end, struct guest *g)
{
	struct back *b = r->gw->back;
	struct h2_stream *s = NULL;

	for (int tries = 0; !s && tries < 2; tries++) {
		struct err e = { 0 };
		struct h2 *h2 = session(b, r->access->host, &r->work.err);

		if (!h2)
			return NULL;
		s = h2_request(h2, head, end, g, tries ? &r->work.err : &e);
		if (!s)
			forget_session(b, h2);
	}
	return s;
}

struct guest *
guest_open(void *mem, struct request *r, const struct guest_call *call,
    const struct guest_events *on, void *arg)
{
	struct guest *g = talloc_zero(mem, struct guest);
	struct h2_header head[10 + CALL_HEADERS] = { 0 };
	size_t n = 0;

	if (!g)
		abort();
	*g = (struct guest){
		.on = on, .arg = arg, .body = BUF(g), .finished = call->end, .raw = call->raw
	};
	head[n++] = (struct h2_header){ ":method", call->method };
	head[n++] = (struct h2_header){ ":path",
		talloc_asprintf(g, "/agent/v1/capsules/%s%s%s", r->access->id,
		    call->agent ? "" : "/guest", call->path) };
	if (!call->no_token)
		head[n++] = (struct h2_header){ "x-access-token", r->access->token };
	head[n++] = (struct h2_header){ "x-request-id", r->work.id };
	if (r->work.trace)
		head[n++] = (struct h2_header){ "traceparent", r->work.trace };
	if (call->user)
		head[n++] = (struct h2_header){ "authorization", basic(g, call->user) };
	if (call->type)
		head[n++] = (struct h2_header){ "content-type", call->type };
	if (call->activity)
		head[n++] = (struct h2_header){ "hutch-activity", call->activity };
	if (call->name && call->value)
		head[n++] = (struct h2_header){ call->name, call->value };
	for (size_t i = 0; call->more && call->more[i].name && i < CALL_HEADERS; i++)
		head[n++] = call->more[i];
	g->stream = request(r, head, call->end, g);
	if (!g->stream) {
		talloc_free(g);
		return NULL;
	}
	talloc_set_destructor(g, guest_destroy);
	return g;
}

struct guest *
tunnel_open(void *mem, struct request *r, unsigned port, const char *activity,
    const struct guest_events *on, void *arg)
{
	struct guest *g = talloc_zero(mem, struct guest);
	struct h2_header head[7] = { { ":method", "CONNECT" } };
	size_t n = 1;

	if (!g)
		abort();
	*g = (struct guest){ .on = on, .arg = arg, .body = BUF(g), .tunnel = true };
	head[n++] =
	    (struct h2_header){ ":authority", talloc_asprintf(g, "%u.%s", port, r->access->id) };
	head[n++] = (struct h2_header){ "x-access-token", r->access->token };
	head[n++] = (struct h2_header){ "x-request-id", r->work.id };
	if (r->work.trace)
		head[n++] = (struct h2_header){ "traceparent", r->work.trace };
	if (activity)
		head[n++] = (struct h2_header){ "hutch-activity", activity };
	g->stream = request(r, head, false, g);
	if (!g->stream) {
		talloc_free(g);
		return NULL;
	}
	talloc_set_destructor(g, guest_destroy);
	return g;
}

void *
guest_arg(const struct guest *g)
{
	return g->arg;
}

void
guest_write(struct guest *g, const void *p, size_t n)
{
	if (g->stream)
		h2_write(g->stream, p, n);
}

void
guest_finish(struct guest *g)
{
	g->finished = true;
	if (g->stream)
		h2_finish(g->stream);
}

void
guest_consume(struct guest *g, size_t n)
{
	if (g->stream)
		h2_consume(g->stream, n);
}

static void
leave_late(void *arg)
{
	talloc_free(arg);
}

void
guest_leave(struct gateway *gw, struct guest *g)
{
	if (!g->stream) {
		talloc_free(g);
		return;
	}
	g->left = true;
	(void)talloc_steal(gw->back, g);
	if (!g->finished)
		guest_finish(g);
	(void)timer_start(g, gw->loop, LEAVE_MS, 0, leave_late, g);
}

size_t
guest_queued(const struct guest *g)
{
	return g->stream ? h2_queued(g->stream) : 0;
}

/* ---- calls whose answer is read whole */

struct ask {
	struct request *r;
	struct guest *g;
	struct buf answer;
	guest_done *done;
	void *arg;
};

static void
ask_refused(struct guest *g, int status, struct json_object *json)
{
	struct ask *a = guest_arg(g);

	a->done(a->r, a->arg, status, json);
	talloc_free(a);
}

static void
ask_fail(struct guest *g, const struct err *e)
{
	struct ask *a = guest_arg(g);
	struct request *r = a->r;

	talloc_free(a);
	fail(r, e->code, "%s", e->text);
}

static void
ask_data(struct guest *g, const uint8_t *p, size_t n)
{
	struct ask *a = guest_arg(g);
	struct err e = { 0 };

	guest_consume(g, n);
	if (a->answer.len + n <= ANSWER_MAX) {
		buf_add(&a->answer, p, n);
		return;
	}
	(void)err_set(&e, E_AGENT, "the guest's answer is larger than %d MiB", ANSWER_MAX >> 20);
	ask_fail(g, &e);
}

static void
ask_end(struct guest *g)
{
	struct ask *a = guest_arg(g);
	struct request *r = a->r;
	struct json_object *json = NULL;
	struct err e = { 0 };

	if (a->answer.len)
		json = json_parse(
		    a, a->answer.data, a->answer.len, &(struct json_limits){ 32, ANSWER_KEYS }, &e);
	if (a->answer.len && !json) {
		(void)err_set(&r->work.err, E_AGENT, "the guest's answer: %s", e.text);
		talloc_free(a);
		reply_error(r);
		return;
	}
	/* done may start the next call; what it needs of json it takes before it returns. */
	a->done(r, a->arg, 200, json);
	talloc_free(a);
}

static void
ask_late(void *arg)
{
	struct ask *a = arg;
	struct request *r = a->r;

	talloc_free(a);
	fail(r, E_TIMEOUT, "the guest did not answer in time");
}

void
guest_ask(void *mem, struct request *r, const char *path, const char *user, const struct buf *json,
    uint64_t ms, guest_done *done, void *arg)
{
	static const struct guest_events ask_events = {
		.on_refused = ask_refused,
		.on_data = ask_data,
		.on_end = ask_end,
		.on_fail = ask_fail,
	};
	struct guest_call call = {
		.method = "POST",
		.path = path,
		.user = user,
		.type = "application/json",
	};
	struct ask *a = talloc_zero(mem, struct ask);

	if (!a)
		abort();
	*a = (struct ask){ .r = r, .done = done, .arg = arg, .answer = BUF(a) };
	a->g = guest_open(a, r, &call, &ask_events, a);
	if (!a->g) {
		talloc_free(a);
		reply_error(r);
		return;
	}
	guest_write(a->g, json->data, json->len);
	guest_finish(a->g);
	if (ms)
		(void)timer_start(a, r->gw->loop, ms, 0, ask_late, a);
}

/* ---- refusals */

/* clang-format off */
static const struct {
	const char *code; /* of Connect, of the guest's plain errors, or of the host agent */
	enum err_code ours;
} refusals[] = {
	{ "not_found",           E_NOT_FOUND },
	{ "already_exists",      E_CONFLICT },
	{ "invalid_argument",    E_BAD_INPUT },
	{ "invalid_request",     E_BAD_INPUT },
	{ "out_of_range",        E_BAD_INPUT },
	{ "failed_precondition", E_BAD_INPUT },
	{ "unauthenticated",     E_BAD_INPUT }, /* "invalid username": the caller named it */
	{ "permission_denied",   E_FORBIDDEN },
	{ "forbidden",           E_FORBIDDEN },
	{ "resource_exhausted",  E_NO_SPACE },
	{ "deadline_exceeded",   E_TIMEOUT },
	{ "unavailable",         E_UNAVAILABLE },
};

static const struct {
	int status;
	enum err_code ours;
} statuses[] = {
	{ 400, E_BAD_INPUT }, { 401, E_BAD_INPUT }, { 403, E_FORBIDDEN }, { 404, E_NOT_FOUND },
	{ 409, E_CONFLICT }, { 413, E_TOO_LARGE }, { 416, E_RANGE }, { 507, E_NO_SPACE },
	{ 504, E_TIMEOUT }, { 503, E_UNAVAILABLE },
};
/* clang-format on */

void
guest_refused(struct request *r, int status, struct json_object *json)
{
	struct json_object *agent = json ? json_get(json, "error") : NULL;
	const char *code = json ? json_str(json, "code", "") : "";
	const char *text = json ? json_str(json, "message", NULL) : NULL;
	enum err_code ours = E_AGENT;

	/* {"error":…} is the host agent's: the capsule itself is not where the row said. */
	if (agent && json_object_is_type(agent, json_type_object)) {
		access_forget(r->gw, r->access);
		/* moved since it was looked at: what was remembered is forgotten, once more */
		r->slept = status == 409 || (status == 404 && !r->missed);
		r->missed = r->missed || status == 404;
		if (status == 404 || status == 409)
			(void)err_set(&r->work.err, E_BAD_STATE, "not running: %s",
			    json_str(agent, "message", "the host does not have it"));
		else
			(void)err_set(&r->work.err, status == 503 ? E_HOST_UNAVAILABLE : E_AGENT,
			    "host: %s", json_str(agent, "message", "error"));
		return;
	}
	for (size_t i = 0; i < sizeof statuses / sizeof *statuses; i++)
		if (statuses[i].status == status)
			ours = statuses[i].ours;
	for (size_t i = 0; i < sizeof refusals / sizeof *refusals; i++)
		if (strcmp(refusals[i].code, code) == 0)
			ours = refusals[i].ours;
	/* A user that the caller named is his mistake; a token that the guest does not take is
	 * ours. */
	if (status == 401 && (!text || strncmp(text, "invalid username", 16) != 0)) {
		access_forget(r->gw, r->access); /* the capsule was started again since */
		ours = E_AGENT;
	}
	(void)err_set(&r->work.err, ours, "%s", text ? text : err_kinds[ours].text);
}
