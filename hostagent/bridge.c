/*
 * bridge.c - one stream of the API joined to one stream of a guest.
 *
 * Bytes that came from one side are consumed there when they left for the other side, so a stream
 * holds one window at most, and a side that does not read stops only its own stream.
 */
#include "activity.h"
#include "api.h"
#include "capsule.h"
#include "guest.h"
#include "identity.h"
#include "loop.h"
#include "vm.h"
#include "vm_guest.h"

#include <nghttp2/nghttp2.h>
#include <string.h>

enum { HEADERS_MAX = 96, HELD_MAX = 128 * 1024, AGAIN_MS = 20, FRESH_MS = 10000 };

struct bridge {
	struct api_peer near;          /* first: what hangs on the API's stream */
	struct guest_peer far;         /* what hangs on the guest's stream */
	struct h2_stream *api, *guest; /* NULL: closed */
	bool answered, ended;          /* the guest's head came; its end came */
	bool api_ended;                /* the request is whole */
	struct activity *use;          /* what it means to the idle timer; NULL: nothing */
	/* Until the guest answers: what to ask it again with, once, when it refuses the stream. */
	struct agent *agent;
	char id[CAPSULE_ID_MAX];
	struct h2_header *head;
	struct buf held;     /* of the request's body */
	struct timer *again; /* it was refused; the next session is looked for */
	bool asked, whole;   /* it was refused before; held is all of the body so far */
};

/* Between the hops, not for the other end (RFC 9113 §8.2.2). */
static const char *const hop_by_hop[] = { "connection", "keep-alive", "proxy-connection",
	"transfer-encoding", "upgrade", "te", "host", "hutch-op", "hutch-epoch", "hutch-activity",
	"hutch-error" };

static bool
passes(const char *name)
{
	size_t i;

	if (name[0] == ':')
		return false;
	for (i = 0; i < nitems(hop_by_hop); i++)
		if (strcmp(name, hop_by_hop[i]) == 0)
			return false;
	return true;
}

static size_t
headers(struct h2_header *to, size_t n, const struct h2_head *h)
{
	const struct h2_header *i;

	for (i = h->header; i->name && n < HEADERS_MAX; i++)
		if (passes(i->name))
			to[n++] = *i;
	to[n] = (struct h2_header){ 0 };
	return n;
}

static void
bridge_end(struct bridge *b)
{
	if (!b->api && !b->guest)
		talloc_free(b);
}

static struct bridge *
of_guest(struct h2_stream *s)
{
	struct guest_peer *p = h2_stream_user(s);

	return (struct bridge *)((char *)p - offsetof(struct bridge, far));
}

static void
buf_free_held(struct bridge *b)
{
	TALLOC_FREE(b->held.data);
	b->held = BUF(b);
	b->whole = false;
}

static void
refuse(struct bridge *b, enum err_code code, const char *why)
{
	struct err e = { 0 };

	(void)err_set(&e, code, "%s", why);
	b->answered = true;
	api_error(b->api, &e);
}

/* A session that answers with our word is there: the request goes out once more. */
static void
on_fresh(void *arg, int status, const char *body, size_t len, const struct err *e)
{
	struct bridge *b = arg;
	struct capsule *c = capsule_find(b->agent, b->id);
	struct err why = { 0 };

	(void)body;
	(void)len;
	TALLOC_FREE(b->again);
	if (!e && status / 100 == 2 && c && c->state == CAP_RUNNING && c->vm && c->vm->guest)
		b->guest = guest_stream(c->vm->guest, b->head, false, &b->far, &why);
	if (!b->guest) {
		refuse(b, E_UNAVAILABLE, "the guest agent refuses the stream");
		return;
	}
	h2_write(b->guest, b->held.data, b->held.len);
	if (b->api_ended)
		h2_finish(b->guest);
}

/* From the loop: the session may not be ended inside of its own event. */
static void
ask_again(void *arg)
{
	struct bridge *b = arg;
	struct capsule *c = capsule_find(b->agent, b->id);
	char nonce[33];
	struct guest_call call = {
		.method = "GET", .path = "/health", .nonce = nonce, .timeout_ms = FRESH_MS
	};

	random_hex(nonce, 16);
	if (c && c->state == CAP_RUNNING && c->vm)
		vm_ask(c->vm, b, &call, on_fresh, b);
	else
		on_fresh(b, 0, "", 0, NULL);
}

/* True: the guest did nothing with it, and will be asked again. */
static bool
again(struct bridge *b, uint32_t error)
{
	if (error != NGHTTP2_REFUSED_STREAM || b->asked || !b->whole)
		return false;
	b->asked = true;
	b->again = timer_new(b, b->agent->loop, AGAIN_MS, 0, ask_again, b);
	return true;
}

/* The guest's side. */

static void
guest_head(struct h2_stream *s, const struct h2_head *h)
{
	struct bridge *b = of_guest(s);
	struct h2_header to[HEADERS_MAX + 1];

	if (!b->api || b->answered)
		return;
	b->answered = true;
	buf_free_held(b);
	(void)headers(to, 0, h);
	h2_respond(b->api, h->status, to, false);
}

static void
guest_data(struct h2_stream *s, const uint8_t *p, size_t n)
{
	struct bridge *b = of_guest(s);

	activity_out(b->use);
	if (b->api)
		h2_write(b->api, p, n);
	else
		h2_consume(s, n);
}

static void
guest_end(struct h2_stream *s)
{
	struct bridge *b = of_guest(s);

	b->ended = true;
	if (b->api && b->answered)
		h2_finish(b->api);
}

static void
guest_sent(struct h2_stream *s, size_t n)
{
	struct bridge *b = of_guest(s);

	if (b->api)
		h2_consume(b->api, n);
}

static void
guest_close(struct h2_stream *s, uint32_t error)
{
	struct bridge *b = of_guest(s);

	b->guest = NULL;
	h2_stream_set_user(s, NULL);
	if (b->api && !b->answered && again(b, error))
		return;
	if (b->api && !b->answered && error == NGHTTP2_REFUSED_STREAM)
		refuse(b, E_UNAVAILABLE, "the guest agent refuses the stream");
	else if (b->api && !b->answered)
		refuse(b, E_AGENT, "the guest agent broke off");
	else if (b->api && !b->ended)
		h2_reset(b->api, error == NGHTTP2_NO_ERROR ? NGHTTP2_CANCEL : error);
	bridge_end(b);
}

static const struct h2_events guest_events = {
	.on_head = guest_head,
	.on_data = guest_data,
	.on_end = guest_end,
	.on_sent = guest_sent,
	.on_close = guest_close,
};

/* The API's side. */

static void
api_data(struct h2_stream *s, const uint8_t *p, size_t n)
{
	struct bridge *b = h2_stream_user(s);

	activity_in(b->use);
	/* while it waits for a session its window bounds it */
	if (b->whole && (b->again || b->held.len + n <= HELD_MAX))
		buf_add(&b->held, p, n);
	else if (b->whole)
		buf_free_held(b);
	if (b->guest)
		h2_write(b->guest, p, n);
	else if (!b->asked || b->answered)
		h2_consume(s, n);
}

static void
api_end(struct h2_stream *s)
{
	struct bridge *b = h2_stream_user(s);

	b->api_ended = true;
	if (b->guest)
		h2_finish(b->guest);
}

static void
api_sent(struct h2_stream *s, size_t n)
{
	struct bridge *b = h2_stream_user(s);

	if (b->guest)
		h2_consume(b->guest, n);
}

static void
api_close(struct h2_stream *s, uint32_t error)
{
	struct bridge *b = h2_stream_user(s);

	b->api = NULL;
	h2_stream_set_user(s, NULL);
	if (b->guest)
		h2_reset(b->guest, error == NGHTTP2_NO_ERROR ? NGHTTP2_CANCEL : error);
	bridge_end(b);
}

static const struct h2_events api_events = {
	.on_data = api_data,
	.on_end = api_end,
	.on_sent = api_sent,
	.on_close = api_close,
};

/* Only the agent itself calls these (spec 06 §11.2). */
static bool
is_private(const char *path)
{
	static const char *const own[] = { "/init", "/freeze", "/unfreeze", "/grow", "/stats" };
	size_t i, n = strcspn(path, "?#");

	/* the guest compares whole paths and decodes nothing: doubled slashes are the only disguise
	 */
	while (n > 1 && path[0] == '/' && path[1] == '/') {
		path++;
		n--;
	}
	while (n > 1 && path[n - 1] == '/')
		n--;
	for (i = 0; i < nitems(own); i++)
		if (n == strlen(own[i]) && strncmp(path, own[i], n) == 0)
			return true;
	return false;
}

static const char *
header(const struct h2_head *h, const char *name)
{
	const struct h2_header *i;

	for (i = h->header; i->name; i++)
		if (strcmp(i->name, name) == 0)
			return i->value;
	return NULL;
}

static struct capsule *
capsule_of(struct agent *a, const char *id, const char *path, struct err *e)
{
	struct capsule *c = capsule_find(a, id);

	if (!c || c->state == CAP_GONE)
		(void)err_set(e, E_NOT_FOUND, "no capsule %s", id);
	else if (is_private(path))
		(void)err_set(e, E_NOT_FOUND, "no such path");
	else if (c->state != CAP_RUNNING)
		(void)err_set(e, E_BAD_STATE, "capsule %s is %s", id, capsule_state_name(c->state));
	else if (!c->vm || vm_guest_open(c->vm, e) < 0)
		(void)err_set(e, E_AGENT, "capsule %s: no channel to the guest agent", id);
	return e->code == E_OK ? c : NULL;
}

static struct h2_header *
copy_head(void *mem, const struct h2_header *h, size_t n)
{
	struct h2_header *to = talloc_zero_array(mem, struct h2_header, n + 1);

	for (size_t i = 0; i < n; i++)
		to[i] = (struct h2_header){ talloc_strdup(to, h[i].name),
			talloc_strdup(to, h[i].value) };
	return to;
}

/* to: the request to the guest, its n pseudo headers are there, the rest comes from h. */
static void
join(struct capsule *c, struct h2_stream *s, const struct h2_head *h, struct h2_header *to,
    size_t n, const char *path)
{
	struct bridge *b = talloc_zero(c->agent, struct bridge);
	struct err e = { 0 };

	b->near.events = &api_events;
	b->far.events = &guest_events;
	b->agent = c->agent;
	snprintf(b->id, sizeof b->id, "%s", c->id);
	b->held = BUF(b);
	b->whole = true;
	n = headers(to, n, h);
	b->head = copy_head(b, to, n);
	/* whether there is a body is not known yet: the end follows, alone if need be */
	b->guest = guest_stream(c->vm->guest, to, false, &b->far, &e);
	if (!b->guest && !guest_takes(c->vm->guest))
		(void)again(b, NGHTTP2_REFUSED_STREAM);
	else if (!b->guest) {
		api_error(s, &e);
		talloc_free(b);
		return;
	}
	b->use = activity_begin(b, c, h->method, path, header(h, "hutch-activity"));
	b->api = s;
	h2_stream_set_user(s, b);
}

void
bridge_start(
    struct agent *a, struct h2_stream *s, const struct h2_head *h, const char *id, const char *path)
{
	struct h2_header to[HEADERS_MAX + 1] = { { ":method", h->method }, { ":path", path },
		{ ":scheme", "http" }, { ":authority", "guest" } };
	struct err e = { 0 };
	struct capsule *c = capsule_of(a, id, path, &e);
	size_t n = 4;

	if (!c) {
		api_error(s, &e);
		return;
	}
	if (h->protocol)
		to[n++] = (struct h2_header){ ":protocol", h->protocol };
	join(c, s, h, to, n, path);
}

void
bridge_tunnel(
    struct agent *a, struct h2_stream *s, const struct h2_head *h, const char *id, unsigned port)
{
	char where[32];
	struct h2_header to[HEADERS_MAX + 1] = { { ":method", "CONNECT" },
		{ ":authority", where } };
	struct err e = { 0 };
	struct capsule *c = capsule_of(a, id, "/", &e);

	if (!c) {
		api_error(s, &e);
		return;
	}
	snprintf(where, sizeof where, "localhost:%u", port);
	join(c, s, h, to, 2, "/");
}
