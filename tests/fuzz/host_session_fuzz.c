/*
 * host_session_fuzz.c - what a hostile guest can say to the host agent: the client's side of the
 * session (lib/h2.c), the agent's own calls and the streams of bridges (hostagent/guest.c).
 */
#include "fuzz.h"

#include "buf.h"
#include "hostagent/guest.c" /* its structs, too: the transport below is ours */

#include <talloc.h>

struct h2_uv {
	struct h2 *h2;
	void *user;
};

struct h2_uv *
h2_uv_open(void *mem, uv_loop_t *loop, int fd, enum h2_role role, const struct h2_events *on,
    const struct h2_limits *limits, void *user, void (*gone)(struct h2_uv *, const struct err *),
    struct err *e)
{
	struct h2_uv *u = talloc_zero(mem, struct h2_uv);

	(void)loop;
	(void)fd;
	(void)gone;
	(void)e;
	u->user = user;
	u->h2 = h2_new(u, role, on, limits, user);
	return u;
}

struct h2 *
h2_uv_session(const struct h2_uv *u)
{
	return u->h2;
}

void *
h2_uv_user(const struct h2_uv *u)
{
	return u->user;
}

void
h2_uv_close(struct h2_uv *u)
{
	h2_close(u->h2);
}

struct timer *
timer_new(void *mem, uv_loop_t *loop, uint64_t ms, uint64_t again, void (*fn)(void *), void *arg)
{
	(void)loop;
	(void)ms;
	(void)again;
	(void)fn;
	(void)arg;
	return talloc_zero_size(mem, 8);
}

/* ---- what asks */

static void
answered(void *arg, int status, const char *body, size_t len, const struct err *e)
{
	(void)arg;
	(void)status;
	(void)e;
	if (strlen(body) > len)
		abort();
}

/* A bridge: what comes is counted, consumed later. */
struct far {
	struct guest_peer peer;
	struct h2_stream *stream;
	size_t unconsumed;
};

static void
far_head(struct h2_stream *s, const struct h2_head *h)
{
	(void)s;
	for (const struct h2_header *i = h->header; i->name; i++)
		if (strlen(i->name) + strlen(i->value) > 64 * 1024)
			abort();
}

static void
far_data(struct h2_stream *s, const uint8_t *p, size_t n)
{
	struct far *f = h2_stream_user(s);

	(void)p;
	f->unconsumed += n;
	if (f->unconsumed > 128 * 1024) /* more than the window */
		abort();
}

static void
far_close(struct h2_stream *s, uint32_t error)
{
	struct far *f = h2_stream_user(s);

	(void)error;
	f->stream = NULL;
}

static const struct h2_events far_events = {
	.on_head = far_head, .on_data = far_data, .on_close = far_close
};

/* The guest says the mark, as the whole of its first SETTINGS: what follows is heard. */
static void
meet(struct h2 *h2)
{
	uint8_t said[9 + H2_MARK_SIZE] = { 0, 0, H2_MARK_SIZE, 4 };
	const uint8_t *p = NULL;
	ssize_t n = h2_pull(h2, &p);
	struct err e = { 0 };

	memcpy(said + 9, p + 24 + 9, H2_MARK_SIZE);
	if (n < 24 + 9 + H2_MARK_SIZE || h2_feed(h2, said, sizeof said, &e) < 0 || !h2_met(h2))
		abort();
}

static void
nobody(void *arg, const struct err *e)
{
	(void)arg;
	(void)e;
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	void *mem = talloc_new(NULL);
	struct fuzz f = { data, size };
	struct err e = { 0 };
	struct guest *g = guest_open(mem, NULL, -1, nobody, NULL, &e);
	struct h2 *h2 = h2_uv_session(g->h2);
	struct guest_call call = { .method = "GET", .path = "/health", .nonce = "0123" };
	struct far far[3] = { 0 };
	static uint8_t block[40000];
	const uint8_t *p = NULL;
	int alive = 0;

	if (!size || data[0] != 0xff)
		meet(h2);
	guest_call(g, mem, &call, answered, NULL);
	call = (struct guest_call){ .method = "POST", .path = "/init", .body = "{}", .len = 2 };
	guest_call(g, mem, &call, answered, NULL);
	for (int i = 0; i < 3; i++) {
		static const struct h2_header head[] = { { ":method", "POST" }, { ":path", "/x" },
			{ 0 } };
		static const struct h2_header tunnel[] = { { ":method", "CONNECT" },
			{ ":authority", "localhost:80" }, { 0 } };

		far[i].peer.events = &far_events;
		far[i].stream = guest_stream(g, i == 2 ? tunnel : head, false, &far[i].peer, &e);
		h2_write(far[i].stream, block, sizeof block);
	}
	while (alive == 0 && f.n) {
		uint8_t what = fuzz_byte(&f);
		size_t n = fuzz_piece(&f, 16384, &p);

		while (h2_pull(h2, &p) > 0)
			;
		p = f.p - n;
		alive = h2_feed(h2, p, n, &e);
		for (int i = 0; i < 3 && alive == 0; i++)
			if (far[i].stream && what & 1 << i) {
				h2_consume(far[i].stream, far[i].unconsumed);
				far[i].unconsumed = 0;
			}
		if (alive == 0 && what & 8 && far[0].stream)
			h2_reset(far[0].stream, NGHTTP2_CANCEL);
	}
	talloc_free(mem);
	return 0;
}
