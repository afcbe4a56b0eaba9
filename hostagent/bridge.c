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
#include "vm.h"

#include <nghttp2/nghttp2.h>
#include <string.h>

enum { HEADERS_MAX = 96 };

struct bridge {
	struct api_peer near;          /* first: what hangs on the API's stream */
	struct guest_peer far;         /* what hangs on the guest's stream */
	struct h2_stream *api, *guest; /* NULL: closed */
	bool answered, ended;          /* the guest's head came; its end came */
	bool api_ended;                /* the request is whole */
	struct activity *use;          /* what it means to the idle timer; NULL: nothing */
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

/* The guest's side. */

static void
guest_head(struct h2_stream *s, const struct h2_head *h)
{
	struct bridge *b = of_guest(s);
	struct h2_header to[HEADERS_MAX + 1];

	if (!b->api || b->answered)
		return;
	b->answered = true;
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
	struct err e = { 0 };

	b->guest = NULL;
	h2_stream_set_user(s, NULL);
	if (b->api && !b->answered) {
		(void)err_set(&e, E_AGENT, "the guest agent broke off");
		b->answered = true;
		api_error(b->api, &e);
	} else if (b->api && !b->ended)
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
	if (b->guest)
		h2_write(b->guest, p, n);
	else
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
	static const char *const own[] = { "/init", "/freeze", "/unfreeze", "/stats" };
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

/* to: the request to the guest, its n pseudo headers are there, the rest comes from h. */
static void
join(struct capsule *c, struct h2_stream *s, const struct h2_head *h, struct h2_header *to,
    size_t n, const char *path)
{
	struct bridge *b = talloc_zero(c->agent, struct bridge);
	struct err e = { 0 };

	b->near.events = &api_events;
	b->far.events = &guest_events;
	(void)headers(to, n, h);
	/* whether there is a body is not known yet: the end follows, alone if need be */
	b->guest = guest_stream(c->vm->guest, to, false, &b->far, &e);
	if (!b->guest) {
		if (e.code != E_UNAVAILABLE) {
			e = (struct err){ 0 };
			(void)err_set(
			    &e, E_AGENT, "capsule %s: the guest agent is going away", c->id);
		}
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
