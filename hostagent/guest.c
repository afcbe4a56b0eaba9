/* guest.c - see guest.h. */
#include "guest.h"
#include "h2_uv.h"

#include <nghttp2/nghttp2.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

/* A guest takes 512 streams: some stay for the agent's own calls. */
enum { ANSWER_MAX = 65536, LEAVE_MS = 500, HAIL_MS = 1000, HAILS = 5, BRIDGED_MAX = 480 };

struct guest {
	uv_loop_t *loop;
	struct h2_uv *h2;
	void (*gone)(void *, const struct err *);
	void *user;
	struct timer *leave, *meet;
	int hails;
};

struct call {
	struct guest_peer peer;   /* first: what hangs on the stream */
	struct h2_stream *stream; /* NULL: closed, or never opened */
	struct timer *deadline, *late;
	guest_answer *answer;
	void *arg;
	int status;
	char nonce[40]; /* "": none */
	struct buf body;
	struct err err;
};

static struct guest_peer *
peer(struct h2_stream *s)
{
	return h2_stream_user(s);
}

/* The session's events: passed on to whom the stream belongs. */
static void
on_head(struct h2_stream *s, const struct h2_head *head)
{
	if (peer(s) && peer(s)->events->on_head)
		peer(s)->events->on_head(s, head);
}

static void
on_data(struct h2_stream *s, const uint8_t *p, size_t n)
{
	if (peer(s) && peer(s)->events->on_data)
		peer(s)->events->on_data(s, p, n);
	else
		h2_consume(s, n);
}

static void
on_end(struct h2_stream *s)
{
	if (peer(s) && peer(s)->events->on_end)
		peer(s)->events->on_end(s);
}

static void
on_sent(struct h2_stream *s, size_t n)
{
	if (peer(s) && peer(s)->events->on_sent)
		peer(s)->events->on_sent(s, n);
}

static struct guest *
guest_of(struct h2_stream *s)
{
	return h2_user(h2_stream_session(s));
}

static void
on_close(struct h2_stream *s, uint32_t error)
{
	if (!h2_met(h2_stream_session(s)))
		error = NGHTTP2_REFUSED_STREAM; /* it never left */
	if (peer(s) && peer(s)->events->on_close)
		peer(s)->events->on_close(s, error);
}

static void
leave_now(void *arg)
{
	struct guest *g = arg;

	h2_uv_close(g->h2);
}

/* From the loop: a session is not ended in its own event. */
static void
on_pong(struct h2 *h)
{
	struct guest *g = h2_user(h);

	if (!g->leave)
		return;
	TALLOC_FREE(g->leave);
	g->leave = timer_new(g, g->loop, 0, 0, leave_now, g);
}

static const struct h2_events session_events = {
	.on_head = on_head,
	.on_data = on_data,
	.on_end = on_end,
	.on_sent = on_sent,
	.on_close = on_close,
	.on_pong = on_pong,
};

/* Calls of the agent itself. */

/* What a guest says of its refusal ends in logs, journals and answers: plain characters only. */
static void
make_plain(struct buf *b)
{
	size_t i;

	for (i = 0; i < b->len; i++)
		if (b->data[i] < 0x20 || b->data[i] > 0x7e)
			b->data[i] = '?';
}

/* The last word of a call, from the loop. */
static void
call_end(void *arg)
{
	struct call *c = arg;

	if (c->status / 100 != 2)
		make_plain(&c->body);
	talloc_steal(NULL, c); /* the answer may free the owner */
	c->answer(c->arg, c->err.code == E_OK ? c->status : 0, c->body.data ? c->body.data : "",
	    c->body.len, c->err.code == E_OK ? NULL : &c->err);
	talloc_free(c);
}

static void
call_end_later(struct call *c, struct guest *g)
{
	TALLOC_FREE(c->deadline);
	if (!c->late)
		c->late = timer_new(c, g->loop, 0, 0, call_end, c);
}

static void
call_head(struct h2_stream *s, const struct h2_head *head)
{
	struct call *c = h2_stream_user(s);
	const struct h2_header *i;
	bool ours = !*c->nonce;

	c->status = head->status;
	for (i = head->header; i->name && !ours; i++)
		ours = strcmp(i->name, "x-hutch-nonce") == 0 && strcmp(i->value, c->nonce) == 0;
	if (!ours)
		(void)err_set(&c->err, E_AGENT, "the answer belongs to somebody else");
}

static void
call_data(struct h2_stream *s, const uint8_t *p, size_t n)
{
	struct call *c = h2_stream_user(s);

	h2_consume(s, n);
	if (c->body.len + n <= ANSWER_MAX)
		buf_add(&c->body, p, n);
}

static void
call_close(struct h2_stream *s, uint32_t error)
{
	struct call *c = h2_stream_user(s);

	c->stream = NULL;
	/* Refused is not processed, whatever it was (RFC 9113 §8.7). */
	if (error != NGHTTP2_NO_ERROR || !c->status)
		(void)err_set(&c->err, error == NGHTTP2_REFUSED_STREAM ? E_CLOSED : E_AGENT,
		    "the guest agent broke off (%s)", nghttp2_http2_strerror(error));
	call_end_later(c, guest_of(s));
}

static const struct h2_events call_events = {
	.on_head = call_head,
	.on_data = call_data,
	.on_close = call_close,
};

static void
call_late(void *arg)
{
	struct call *c = arg;

	(void)err_set(&c->err, E_TIMEOUT, "the guest agent does not answer");
	if (c->stream)
		h2_reset(c->stream, NGHTTP2_CANCEL);
}

static int
call_free(struct call *c)
{
	if (c->stream) {
		h2_stream_set_user(c->stream, NULL);
		h2_reset(c->stream, NGHTTP2_CANCEL);
	}
	return 0;
}

static void
mark_new(struct h2_mark *m)
{
	if (getrandom(m, sizeof *m, 0) != sizeof *m)
		abort();
}

/* A guest that is slow, or one that stands inside of a frame of the session before. */
static void
meet_late(void *arg)
{
	struct guest *g = arg;
	struct h2_mark mark;

	if (h2_met(h2_uv_session(g->h2)))
		return;
	if (g->hails == HAILS) {
		h2_uv_close(g->h2);
		return;
	}
	mark_new(&mark);
	h2_hail(h2_uv_session(g->h2), &mark);
	TALLOC_FREE(g->meet);
	g->meet = timer_new(g, g->loop, HAIL_MS << ++g->hails, 0, meet_late, g);
}

/* Every request goes through here. */
static struct h2_stream *
request(struct guest *g, const struct h2_header *head, bool end, void *user, struct err *e)
{
	if (g->leave) {
		(void)err_set(e, E_CLOSED, "the session ends");
		return NULL;
	}
	if (!g->meet && !h2_met(h2_uv_session(g->h2)))
		g->meet = timer_new(g, g->loop, HAIL_MS, 0, meet_late, g);
	return h2_request(h2_uv_session(g->h2), head, end, user, e);
}

void
guest_call(
    struct guest *g, void *owner, const struct guest_call *what, guest_answer *answer, void *arg)
{
	struct call *c = talloc_zero(owner, struct call);
	struct h2_header head[8] = {
		{ ":method", what->method },
		{ ":path", what->path },
		{ ":scheme", "http" },
		{ ":authority", "guest" },
	};
	int n = 4;

	c->peer.events = &call_events;
	c->answer = answer;
	c->arg = arg;
	c->body = BUF(c);
	if (what->type)
		head[n++] = (struct h2_header){ "content-type", what->type };
	if (what->token)
		head[n++] = (struct h2_header){ "x-access-token", what->token };
	talloc_set_destructor(c, call_free);
	if (what->nonce) {
		snprintf(c->nonce, sizeof c->nonce, "%s", what->nonce);
		head[n++] = (struct h2_header){ "x-hutch-nonce", c->nonce };
	}
	c->stream = request(g, head, !what->len, c, &c->err);
	if (!c->stream) {
		call_end_later(c, g);
		return;
	}
	if (what->len) {
		h2_write(c->stream, what->body, what->len);
		h2_finish(c->stream);
	}
	c->deadline = timer_new(c, g->loop, what->timeout_ms, 0, call_late, c);
}

struct h2_stream *
guest_stream(
    struct guest *g, const struct h2_header *head, bool end, struct guest_peer *p, struct err *e)
{
	if (h2_streams(h2_uv_session(g->h2)) >= BRIDGED_MAX) {
		(void)err_set(e, E_UNAVAILABLE, "%d streams to the capsule are open", BRIDGED_MAX);
		return NULL;
	}
	return request(g, head, end, p, e);
}

bool
guest_takes(const struct guest *g)
{
	return !g->leave && h2_takes(h2_uv_session(g->h2));
}

static void
on_gone(struct h2_uv *h, const struct err *why)
{
	struct guest *g = h2_uv_user(h);

	g->gone(g->user, why);
}

struct guest *
guest_open(void *mem, uv_loop_t *loop, int fd, void (*gone)(void *, const struct err *), void *user,
    struct err *e)
{
	struct guest *g = talloc_zero(mem, struct guest);
	struct h2_mark mark;
	struct h2_limits limits = { .mark = &mark };

	mark_new(&mark);
	g->loop = loop;
	g->gone = gone;
	g->user = user;
	g->h2 = h2_uv_open(g, loop, fd, H2_CLIENT, &session_events, &limits, g, on_gone, e);
	if (!g->h2)
		TALLOC_FREE(g);
	return g;
}

/* Streams end, then a ping: its answer says that the guest has read every frame to its end. What is
   taken of its memory then holds no half of one. */
void
guest_leave(struct guest *g)
{
	struct h2 *h = h2_uv_session(g->h2);

	if (g->leave)
		return;
	h2_reset_all(h, NGHTTP2_CANCEL);
	h2_ping(h);
	g->leave = timer_new(g, g->loop, h2_met(h) ? LEAVE_MS : 0, 0, leave_now, g);
}
