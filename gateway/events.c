/* events.c - GET /v1/events and /v1/events/ws: the routes, and live events as text/event-stream
 * (spec 04 §6). */
#include "events.h"

#include "access.h"
#include "cleanup.h"
#include "events_ws.h"
#include "route.h"
#include "ws.h"

#include <string.h>
#include <talloc.h>

static handler events_sse;

struct events_in {
	const char *topics, *events, *since;
};
/* clang-format off */
static const struct field events_in_fields[] = {
	FIELD(events_in, topics, "topics", .flags = IN_QUERY, .text = "team", .max = 1024, .doc = "At most 20, with commas: me, team, capsule:cl-…, job:job-…, metrics"),
	FIELD(events_in, events, "events", .flags = IN_QUERY, .max = 2048, .doc = "Names, prefix.* or *, with commas; without it all."),
	FIELD(events_in, since, "since", .flags = IN_QUERY, .max = 32, .doc = "The last event that was seen, of the last 24 h; Last-Event-ID is the same."),
	{ 0 },
};

const struct route events_routes[] = {
	{ "GET", "/v1/events", POOL_GATEWAY, SIGNED_IN_OR_KEY, events_sse,
	    "What happens, as text/event-stream", STREAMS, 200, .ticket = "events", .in = events_in_fields, .insize = sizeof(struct events_in) },
	{ "GET", "/v1/events/ws", POOL_GATEWAY, SIGNED_IN_OR_KEY, events_ws,
	    "What happens, on a WebSocket", SOCKET | STREAMS, 101, .ticket = "events" },
	{ 0 },
};
/* clang-format on */

enum { SAY_MS = 15000 };

struct sse {
	struct topic topic[TOPICS_MAX];
	size_t n;
	const char *filters[FILTERS_MAX + 1];
	uint64_t said; /* uv_now() */
};

/* ---- to the client */

static void
put(struct listener *l, const struct buf *b)
{
	struct sse *s = l->state;

	reply_write(l->r, b->data, b->len);
	s->said = uv_now(l->r->gw->loop);
	request_wake(l->r);
}

static void
sse_event(struct listener *l, struct sub *sub, const struct topic *t, const struct happening *h)
{
	struct buf b = BUF(l);
	char id[ID_SIZE];

	(void)sub;
	(void)t;
	buf_fmt(&b, "id: %s\nevent: %s\ndata: ", id_write(id, "evt-", &h->id), h->type);
	buf_add(&b, h->json, h->n);
	buf_str(&b, "\n\n");
	put(l, &b);
	talloc_free(b.data);
}

static void
sse_live(struct listener *l, const struct topic *t, const char *what, const char *json, size_t n)
{
	struct buf b = BUF(l);

	buf_fmt(
	    &b, "event: live\ndata: {\"topic\":\"%s\",\"live\":\"%s\",\"data\":", t->name, what);
	buf_add(&b, json, n);
	buf_str(&b, "}\n\n");
	put(l, &b);
	talloc_free(b.data);
}

static size_t
sse_queued(struct listener *l)
{
	return reply_queued(l->r);
}

static void
room(struct request *r)
{
	struct listener *l = r->state;

	if (!l->over)
		subs_room(l);
}

static void
sse_begun(struct sub *sub)
{
	struct listener *l = sub->l;
	struct buf b = BUF(l);

	l->r->on_room = room;
	reply_header(l->r, "Cache-Control", "no-store");
	reply_header(l->r, "X-Accel-Buffering", "no");
	reply_begin(l->r, 200, "text/event-stream", -1);
	buf_str(&b, "retry: 3000\n\n");
	put(l, &b);
	talloc_free(b.data);
	sub_go(sub);
}

static void
said(struct listener *l, const char *event, const char *name, const char *value)
{
	struct buf b = BUF(l);

	buf_fmt(&b, "event: %s\ndata: {\"%s\":", event, name);
	buf_json(&b, value);
	buf_str(&b, "}\n\n");
	put(l, &b);
	talloc_free(b.data);
}

static void
sse_gap(struct sub *sub, const char *reason)
{
	said(sub->l, "gap", "reason", reason);
}

static void
sse_end(struct listener *l, int code, const char *reason, enum err_code e)
{
	struct request *r = l->r;

	(void)code;
	if (r->reply.state == REPLY_NONE) {
		fail(r, e, "%s", reason);
		return;
	}
	if (e == E_RATE) { /* there is no room to say so */
		reply_cut(r);
		return;
	}
	said(l, "closing", "code", err_kinds[e].slug);
	reply_end(r);
	request_wake(r);
}

static void
refuse(struct listener *l, enum err_code e)
{
	listener_end(
	    l, WS_FORBIDDEN, e == E_NOT_FOUND ? "no such topic" : "you may not see this topic", e);
}

static void
sse_refused(struct sub *sub, enum err_code e)
{
	refuse(sub->l, e);
}

static void
sse_tick(struct listener *l, uint64_t now)
{
	struct sse *s = l->state;

	if (l->r->reply.state == REPLY_NONE || now - s->said < SAY_MS)
		return;
	reply_write(l->r, ": here\n\n", 8);
	s->said = now;
	request_wake(l->r);
}

static const struct listener_kind sse_kind = { .event = sse_event,
	.live = sse_live,
	.queued = sse_queued,
	.begun = sse_begun,
	.refused = sse_refused,
	.gap = sse_gap,
	.end = sse_end,
	.tick = sse_tick };

/* ---- the request */

/* The pieces between commas, on mem; how many, or -1. */
static int
pieces(void *mem, const char *text, const char **out, int max)
{
	int n = 0;

	while (text && *text) {
		size_t len = strcspn(text, ",");

		if (n == max)
			return -1;
		if (len)
			out[n++] = talloc_strndup(mem, text, len);
		text += len + (text[len] == ',');
	}
	return n;
}

static void
ready(struct listener *l)
{
	struct sse *s = l->state;
	const struct events_in *in = l->r->in;
	const char *since = request_header(l->r, "Last-Event-ID");
	struct sub *sub = NULL;

	for (size_t i = 0; i < s->n; i++) {
		enum err_code e = topic_denied(&s->topic[i], &l->who);

		if (e != E_OK) {
			refuse(l, e);
			return;
		}
	}
	sub = sub_new(l, s->topic, s->n);
	sub->filters = s->filters;
	since = since && *since ? since : in->since;
	if (since && *since) {
		sub->has_since = true;
		if (!id_read(since, "evt-", &sub->since))
			sub->since = uuid_zero; /* unknown: a gap */
	}
	sub_start(sub);
}

static int
events_sse(struct request *r)
{
	struct sse *s = talloc_zero(r, struct sse);
	const struct events_in *in = r->in;
	const char *names[TOPICS_MAX];
	const char *origin = request_header(r, "Origin");
	struct listener *l = NULL;
	int n = 0;

	if (!s)
		abort();
	if (!origin_allowed(r->gw->conf, origin))
		return err_set(&r->work.err, E_FORBIDDEN, "the origin is not one that may connect");
	n = pieces(s, in->topics, names, TOPICS_MAX);
	if (n <= 0)
		return err_set(&r->work.err, E_BAD_INPUT, "topics: 1 to %d of them", TOPICS_MAX);
	if (pieces(s, in->events, s->filters, FILTERS_MAX) < 0)
		return err_set(
		    &r->work.err, E_BAD_INPUT, "events: at most %d of them", FILTERS_MAX);
	for (const char **f = s->filters; *f; f++)
		if (!filter_ok(*f))
			return err_set(&r->work.err, E_BAD_INPUT,
			    "events: \"%.64s\" is no name, prefix.* or *", *f);
	l = listener_new(r, r, &sse_kind, ready);
	l->state = s;
	r->state = l;
	for (; s->n < (size_t)n; s->n++)
		if (!topic_read(&s->topic[s->n], names[s->n], &l->who)) {
			talloc_free(l);
			return err_set(&r->work.err, E_NOT_FOUND, "no such topic");
		}
	return 0;
}
