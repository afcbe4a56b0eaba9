/* h2.c - lib/h2.c: a server and a client in memory, then two over a socketpair with lib/h2_uv.c. */
#include "h2.h"
#include "h2_uv.h"

#include <check.h>
#include <nghttp2/nghttp2.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <talloc.h>

/* What one side saw. */
struct side {
	struct h2 *h;
	struct h2_stream *s;
	char path[64], protocol[16], extra[64];
	int status, heads, ends, closes, drains;
	uint32_t error;
	size_t got, sent;
	bool consume;      /* at once */
	bool free_in_data; /* the rule of h2.h */
	bool free_in_sent;
	bool echo;
};

static void
saw_head(struct h2_stream *s, const struct h2_head *head)
{
	struct side *me = h2_user(h2_stream_session(s));

	me->s = s;
	me->heads++;
	me->status = head->status;
	if (head->path)
		snprintf(me->path, sizeof me->path, "%s", head->path);
	if (head->protocol)
		snprintf(me->protocol, sizeof me->protocol, "%s", head->protocol);
	for (const struct h2_header *h = head->header; h->name; h++)
		if (strcmp(h->name, "x-extra") == 0)
			snprintf(me->extra, sizeof me->extra, "%s", h->value);
	if (me->echo)
		h2_respond(s, 200, (struct h2_header[]){ { "x-extra", "yes" }, { 0 } }, false);
}

static void
saw_data(struct h2_stream *s, const uint8_t *p, size_t n)
{
	struct side *me = h2_user(h2_stream_session(s));

	me->got += n;
	if (me->consume)
		h2_consume(s, n);
	if (me->echo)
		h2_write(s, p, n);
	if (me->free_in_data)
		talloc_free(me->h);
}

static void
saw_end(struct h2_stream *s)
{
	struct side *me = h2_user(h2_stream_session(s));

	me->ends++;
	if (me->echo)
		h2_finish(s);
}

static void
saw_sent(struct h2_stream *s, size_t n)
{
	struct side *me = h2_user(h2_stream_session(s));

	me->sent += n;
	if (me->free_in_sent)
		talloc_free(me->h);
}

static void
saw_drain(struct h2_stream *s)
{
	struct side *me = h2_user(h2_stream_session(s));

	ck_assert_uint_lt(h2_queued(s), H2_LOW);
	me->drains++;
}

static void
saw_close(struct h2_stream *s, uint32_t error)
{
	struct side *me = h2_user(h2_stream_session(s));

	me->closes++;
	me->error = error;
	if (me->s == s)
		me->s = NULL;
}

static const struct h2_events events = {
	.on_head = saw_head,
	.on_data = saw_data,
	.on_end = saw_end,
	.on_sent = saw_sent,
	.on_drain = saw_drain,
	.on_close = saw_close,
};

static struct side server, client;
static void *mem;

static void
pair(void)
{
	mem = talloc_new(NULL);
	server = (struct side){ .consume = true };
	client = (struct side){ .consume = true };
	server.h = h2_new(mem, H2_SERVER, &events, NULL, &server);
	client.h = h2_new(mem, H2_CLIENT, &events, NULL, &client);
}

static void
unpair(void)
{
	ck_assert_uint_le(talloc_total_blocks(mem), 16);
	talloc_free(mem);
}

/* Carries bytes both ways until nobody has any. 0, or -1 when a side refused what it got. */
static int
carry(void)
{
	struct err e = { 0 };
	bool more = true;
	int rc = 0;

	while (more) {
		const uint8_t *p = NULL;
		ssize_t n = 0;

		more = false;
		while ((n = h2_pull(client.h, &p)) > 0) {
			rc |= h2_feed(server.h, p, (size_t)n, &e);
			more = true;
		}
		while (!rc && (n = h2_pull(server.h, &p)) > 0) {
			rc |= h2_feed(client.h, p, (size_t)n, &e);
			more = true;
		}
		if (rc)
			break;
	}
	return rc;
}

static struct h2_stream *
ask(bool end)
{
	struct err e = { 0 };

	return h2_request(client.h,
	    (struct h2_header[]){ { "x-extra", "no" }, { ":method", end ? "GET" : "POST" },
		{ ":path", "/a?b=c" }, { 0 } },
	    end, NULL, &e);
}

START_TEST(request_and_response)
{
	struct h2_stream *s = ask(true);

	ck_assert_ptr_nonnull(s);
	ck_assert_int_eq(carry(), 0);
	ck_assert_str_eq(server.path, "/a?b=c");
	ck_assert_str_eq(server.extra, "no");
	ck_assert_int_eq(server.ends, 1);
	h2_respond(server.s, 404, (struct h2_header[]){ { "x-extra", "yes" }, { 0 } }, true);
	ck_assert_int_eq(carry(), 0);
	ck_assert_int_eq(client.status, 404);
	ck_assert_str_eq(client.extra, "yes");
	ck_assert_int_eq(client.ends, 1);
	ck_assert_int_eq(client.closes, 1);
	ck_assert_int_eq(server.closes, 1);
	ck_assert_uint_eq(client.error, NGHTTP2_NO_ERROR);
	ck_assert_uint_eq(h2_streams(client.h) + h2_streams(server.h), 0);
}
END_TEST

START_TEST(bodies_echo)
{
	static char block[100000];
	struct h2_stream *s = NULL;

	server.echo = true;
	s = ask(false);
	for (int i = 0; i < 50; i++) {
		h2_write(s, block, sizeof block);
		ck_assert_int_eq(carry(), 0);
	}
	h2_finish(s);
	ck_assert_int_eq(carry(), 0);
	ck_assert_uint_eq(server.got, 50 * sizeof block);
	ck_assert_uint_eq(client.got, 50 * sizeof block);
	ck_assert_uint_eq(client.sent, 50 * sizeof block);
	ck_assert_int_gt(client.drains, 0);
	ck_assert_int_eq(client.closes, 1);
}
END_TEST

/* A reader that consumes nothing gets one window, and no other stream is stopped by it. */
START_TEST(flow_control)
{
	static char block[1000000];
	struct h2_stream *slow = NULL, *stuck = NULL, *still[254];

	server.consume = false;
	slow = ask(false);
	h2_write(slow, block, sizeof block);
	ck_assert_int_eq(carry(), 0);
	stuck = server.s;
	ck_assert_uint_eq(server.got, 128 * 1024);
	ck_assert_uint_eq(h2_queued(slow), sizeof block - 128 * 1024);
	h2_consume(stuck, 100000);
	ck_assert_int_eq(carry(), 0);
	ck_assert_uint_eq(server.got, 128 * 1024 + 100000);
	/* As many as there may be stand still; then one more goes through. */
	for (int i = 0; i < 254; i++) {
		still[i] = ask(false);
		h2_write(still[i], block, sizeof block);
	}
	ck_assert_int_eq(carry(), 0);
	ck_assert_uint_eq(h2_streams(server.h), 255);
	/* 300 more streams that die unconsumed must not eat the connection's window. */
	for (int i = 0; i < 300; i++) {
		struct h2_stream *s = ask(false);

		h2_write(s, block, sizeof block);
		ck_assert_int_eq(carry(), 0);
		h2_reset(s, NGHTTP2_CANCEL);
		ck_assert_int_eq(carry(), 0);
	}
	server.got = 0;
	server.consume = true;
	h2_write(ask(false), block, sizeof block);
	ck_assert_int_eq(carry(), 0);
	ck_assert_uint_eq(server.got, sizeof block);
	for (int i = 0; i < 254; i++)
		h2_reset(still[i], NGHTTP2_CANCEL);
	ck_assert_int_eq(carry(), 0);
}
END_TEST

START_TEST(reset)
{
	struct h2_stream *s = ask(false);

	ck_assert_int_eq(carry(), 0);
	h2_write(s, "x", 1);
	h2_reset(s, NGHTTP2_CANCEL);
	h2_write(s, "x", 1);
	h2_finish(s);
	ck_assert_int_eq(carry(), 0);
	ck_assert_int_eq(server.closes, 1);
	ck_assert_uint_eq(server.error, NGHTTP2_CANCEL);
	ck_assert_int_eq(client.closes, 1);
	s = ask(false);
	h2_reset(s, NGHTTP2_CANCEL); /* before a byte of it was sent */
	ck_assert_int_eq(carry(), 0);
	ck_assert_int_eq(client.closes, 2);
	ck_assert_uint_eq(h2_streams(client.h) + h2_streams(server.h), 0);
}
END_TEST

/* One session carries a whole host, and each client that leaves is a reset: that is no abuse. */
START_TEST(many_resets)
{
	struct h2_stream *s;
	int i;

	for (i = 0; i < 3000; i++) {
		s = ask(false);
		ck_assert_int_eq(carry(), 0);
		h2_reset(s, NGHTTP2_CANCEL);
		ck_assert_int_eq(carry(), 0);
	}
	ck_assert(h2_alive(client.h) && h2_alive(server.h));
	ck_assert_int_eq(server.closes, 3000);
	ck_assert_uint_eq(h2_streams(client.h) + h2_streams(server.h), 0);
}
END_TEST

START_TEST(goaway)
{
	struct err e = { 0 };

	ask(true);
	ck_assert_int_eq(carry(), 0);
	h2_goaway(server.h);
	ck_assert_int_eq(carry(), 0);
	ck_assert_ptr_null(h2_request(client.h,
	    (struct h2_header[]){ { ":method", "GET" }, { ":path", "/" }, { 0 } }, true, NULL, &e));
	ck_assert_int_eq(e.code, E_CLOSED);
	ck_assert(h2_alive(client.h));
	h2_respond(server.s, 200, NULL, true); /* what was begun is finished */
	ck_assert_int_eq(carry(), 0);
	ck_assert_int_eq(client.status, 200);
	ck_assert(!h2_alive(server.h));
	ck_assert(!h2_alive(client.h));
}
END_TEST

START_TEST(connect_methods)
{
	struct err e = { 0 };

	h2_request(client.h,
	    (struct h2_header[]){
		{ ":method", "CONNECT" }, { ":authority", "127.0.0.1:80" }, { 0 } },
	    false, NULL, &e);
	ck_assert_int_eq(carry(), 0);
	ck_assert_int_eq(server.heads, 1);
	h2_respond(server.s, 200, NULL, false);
	h2_write(server.s, "hello", 5);
	ck_assert_int_eq(carry(), 0);
	ck_assert_uint_eq(client.got, 5);
	h2_request(client.h,
	    (struct h2_header[]){
		{ ":method", "CONNECT" }, { ":path", "/p" }, { ":protocol", "websocket" }, { 0 } },
	    false, NULL, &e);
	ck_assert_int_eq(carry(), 0);
	ck_assert_str_eq(server.protocol, "websocket");
	ck_assert_int_eq(server.heads, 2);
}
END_TEST

/* A tunnel (RFC 9113 §8.5): each direction ends by itself; a refusal is an answer like others. */
START_TEST(connect_ends)
{
	static const struct h2_header head[] = { { ":method", "CONNECT" },
		{ ":authority", "80.cl-1" }, { 0 } };
	struct err e = { 0 };
	struct h2_stream *s = h2_request(client.h, head, false, NULL, &e);

	ck_assert_int_eq(carry(), 0);
	ck_assert_str_eq(server.path, "");
	h2_respond(server.s, 200, NULL, false);
	h2_write(s, "ping", 4);
	h2_finish(s);
	ck_assert_int_eq(carry(), 0);
	ck_assert_uint_eq(server.got, 4);
	ck_assert_int_eq(server.ends, 1);
	ck_assert_int_eq(client.ends + client.closes + server.closes, 0);
	h2_write(server.s, "pong!", 5);
	ck_assert_int_eq(carry(), 0);
	ck_assert_uint_eq(client.got, 5);
	h2_finish(server.s);
	ck_assert_int_eq(carry(), 0);
	ck_assert_int_eq(client.ends, 1);
	ck_assert_int_eq(client.closes, 1);
	ck_assert_int_eq(server.closes, 1);
	ck_assert_uint_eq(client.error, NGHTTP2_NO_ERROR);
	s = h2_request(client.h, head, false, NULL, &e);
	ck_assert_int_eq(carry(), 0);
	h2_respond(server.s, 502, NULL, true);
	ck_assert_int_eq(carry(), 0);
	ck_assert_int_eq(client.status, 502);
	h2_reset(s, NGHTTP2_CANCEL);
	ck_assert_int_eq(carry(), 0);
	ck_assert_int_eq(server.closes, 2);
	ck_assert_uint_eq(h2_streams(client.h) + h2_streams(server.h), 0);
}
END_TEST

START_TEST(garbage)
{
	static const char junk[] = "GET / HTTP/1.1\r\nHost: x\r\n\r\n";
	struct err e = { 0 };
	const uint8_t *p = NULL;

	ck_assert_int_eq(h2_feed(server.h, (const uint8_t *)junk, sizeof junk - 1, &e), -1);
	ck_assert_int_eq(e.code, E_PROTOCOL);
	/* A peer that speaks well and then sends nonsense is told so. */
	unpair();
	pair();
	ask(true);
	ck_assert_int_eq(carry(), 0);
	e = (struct err){ 0 };
	(void)h2_feed(server.h, (const uint8_t *)"\0\0\1\0\0\0\0\0\0x", 10, &e); /* DATA on 0 */
	ck_assert_int_gt(h2_pull(server.h, &p), 0);
	ck_assert_int_eq(p[3], NGHTTP2_GOAWAY);
	while (h2_pull(server.h, &p) > 0)
		;
	ck_assert(!h2_alive(server.h));
}
END_TEST

/* Random bytes after a good start: no crash, no sanitizer report, a clean refusal at some time. */
START_TEST(noise)
{
	for (unsigned seed = 1; seed <= 300; seed++) {
		struct err e = { 0 };
		uint8_t block[200];
		const uint8_t *p = NULL;

		srand(seed);
		ask(true);
		ck_assert_int_eq(carry(), 0);
		for (int i = 0; i < 20; i++) {
			for (size_t j = 0; j < sizeof block; j++)
				block[j] = (uint8_t)(rand() >> 7);
			block[0] = block[1] = 0;
			block[3] %= 10;
			if (h2_feed(seed & 1 ? server.h : client.h, block, sizeof block, &e) < 0)
				break;
		}
		while (h2_pull(server.h, &p) > 0 || h2_pull(client.h, &p) > 0)
			;
		talloc_free(mem);
		pair();
	}
}
END_TEST

static void
flood(size_t n, size_t len)
{
	struct h2_header list[128] = { { ":method", "GET" }, { ":path", "/" } };
	struct err e = { 0 };
	char *value = malloc(len + 1);

	memset(value, 'v', len);
	value[len] = '\0';
	for (size_t i = 0; i < n; i++)
		list[2 + i] = (struct h2_header){ "x-flood", value };
	ck_assert_ptr_nonnull(h2_request(client.h, list, true, NULL, &e));
	free(value);
}

START_TEST(header_flood)
{
	flood(40, 1000);
	ck_assert_int_eq(carry(), 0);
	ck_assert_int_eq(client.status, 431);
	ck_assert_int_eq(server.heads, 0);
	ck_assert_int_eq(server.closes, 0);
	ask(true); /* the connection lives */
	ck_assert_int_eq(carry(), 0);
	ck_assert_int_eq(server.heads, 1);
}
END_TEST

START_TEST(freed_in_events)
{
	struct h2_stream *s = ask(false);
	struct err e = { 0 };
	const uint8_t *p = NULL;
	ssize_t n = 0;

	h2_write(s, "x", 1);
	server.free_in_data = true;
	while ((n = h2_pull(client.h, &p)) > 0)
		if (h2_feed(server.h, p, (size_t)n, &e) < 0)
			break;
	ck_assert_int_eq(e.code, E_CLOSED);
	ck_assert_int_eq(server.closes, 1);
	client.free_in_sent = true;
	h2_write(s, "x", 1);
	ck_assert_int_eq(h2_pull(client.h, &p), -1);
	ck_assert_int_eq(client.closes, 1);
}
END_TEST

/* ---- over sockets */

struct uv_side {
	struct side side; /* first: the events take the user for a side */
	struct h2_uv *u;
	int gone;
};

static struct uv_side us, uc;

static void
saw_gone(struct h2_uv *u, const struct err *e)
{
	struct uv_side *me = h2_uv_user(u);

	ck_assert_int_ne(e->code, E_OK);
	me->gone++;
	me->u = NULL;
}

START_TEST(sockets)
{
	static char block[3000000];
	struct err e = { 0 };
	struct h2_stream *s = NULL;
	uv_loop_t loop;
	int fd[2];

	ck_assert_int_eq(uv_loop_init(&loop), 0);
	ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fd), 0);
	us = (struct uv_side){ .side = { .consume = true, .echo = true } };
	uc = (struct uv_side){ .side = { .consume = true } };
	us.u = h2_uv_open(mem, &loop, fd[0], H2_SERVER, &events, NULL, &us, saw_gone, &e);
	uc.u = h2_uv_open(mem, &loop, fd[1], H2_CLIENT, &events, NULL, &uc, saw_gone, &e);
	us.side.h = h2_uv_session(us.u);
	s = h2_request(h2_uv_session(uc.u),
	    (struct h2_header[]){ { ":method", "POST" }, { ":path", "/" }, { 0 } }, false, NULL,
	    &e);
	h2_write(s, block, sizeof block);
	h2_finish(s);
	for (int i = 0; i < 10000 && !uc.side.closes; i++)
		uv_run(&loop, UV_RUN_ONCE);
	ck_assert_uint_eq(uc.side.got, sizeof block);
	ck_assert_int_eq(uc.side.closes, 1);
	h2_goaway(h2_uv_session(uc.u));
	uv_run(&loop, UV_RUN_DEFAULT);
	ck_assert_int_eq(us.gone, 1);
	ck_assert_int_eq(uc.gone, 1);
	ck_assert_int_eq(uv_loop_close(&loop), 0);
}
END_TEST

/* What is asked before there is a descriptor goes out when it comes. */
START_TEST(sockets_wired)
{
	struct err e = { 0 };
	uv_loop_t loop;
	int fd[2];

	ck_assert_int_eq(uv_loop_init(&loop), 0);
	ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fd), 0);
	us = (struct uv_side){ .side = { .consume = true, .echo = true } };
	uc = (struct uv_side){ .side = { .consume = true } };
	us.u = h2_uv_open(mem, &loop, fd[0], H2_SERVER, &events, NULL, &us, saw_gone, &e);
	uc.u = h2_uv_open(mem, &loop, -1, H2_CLIENT, &events, NULL, &uc, saw_gone, &e);
	us.side.h = h2_uv_session(us.u);
	(void)h2_request(h2_uv_session(uc.u),
	    (struct h2_header[]){ { ":method", "GET" }, { ":path", "/" }, { 0 } }, true, NULL, &e);
	for (int i = 0; i < 20; i++)
		uv_run(&loop, UV_RUN_NOWAIT);
	ck_assert_int_eq(us.side.heads, 0);
	ck_assert_int_eq(h2_uv_wire(uc.u, fd[1], &e), 0);
	for (int i = 0; i < 1000 && !uc.side.closes; i++)
		uv_run(&loop, UV_RUN_ONCE);
	ck_assert_int_eq(us.side.heads, 1);
	ck_assert_int_eq(uc.side.status, 200);
	h2_goaway(h2_uv_session(uc.u));
	uv_run(&loop, UV_RUN_DEFAULT);
	/* one that never gets any */
	uc.u = h2_uv_open(mem, &loop, -1, H2_CLIENT, &events, NULL, &uc, saw_gone, &e);
	talloc_free(uc.u);
	uv_run(&loop, UV_RUN_DEFAULT);
	ck_assert_int_eq(uv_loop_close(&loop), 0);
}
END_TEST

/* A request made in a prepare callback that runs after the session's own goes out all the same. */
static uv_prepare_t late;
static bool late_go;
static int late_heads;

static void
ask_late(uv_prepare_t *p)
{
	struct err e = { 0 };

	if (!late_go)
		return;
	late_go = false;
	h2_request(p->data,
	    (struct h2_header[]){ { ":method", "GET" }, { ":path", "/late" }, { 0 } }, true, NULL,
	    &e);
}

static void
stop_late(uv_timer_t *t)
{
	late_heads = us.side.heads;
	uv_close((uv_handle_t *)&late, NULL);
	uv_close((uv_handle_t *)t, NULL);
	uv_stop(t->loop);
}

static void
start_late(uv_timer_t *t)
{
	late_go = true;
	uv_timer_start(t, stop_late, 300, 0);
}

START_TEST(sockets_late)
{
	struct err e = { 0 };
	uv_timer_t timer;
	uv_loop_t loop;
	int fd[2];

	ck_assert_int_eq(uv_loop_init(&loop), 0);
	ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fd), 0);
	us = (struct uv_side){ .side = { .consume = true } };
	uc = (struct uv_side){ .side = { .consume = true } };
	uv_prepare_init(&loop, &late);
	uv_prepare_start(&late, ask_late); /* libuv runs the newest first */
	us.u = h2_uv_open(mem, &loop, fd[0], H2_SERVER, &events, NULL, &us, saw_gone, &e);
	uc.u = h2_uv_open(mem, &loop, fd[1], H2_CLIENT, &events, NULL, &uc, saw_gone, &e);
	late.data = h2_uv_session(uc.u);
	uv_timer_init(&loop, &timer);
	uv_timer_start(&timer, start_late, 50, 0);
	uv_run(&loop, UV_RUN_DEFAULT);
	ck_assert_int_eq(late_heads, 1);
	talloc_free(us.u);
	talloc_free(uc.u);
	uv_run(&loop, UV_RUN_DEFAULT);
	ck_assert_int_eq(uv_loop_close(&loop), 0);
}
END_TEST

START_TEST(sockets_freed)
{
	struct err e = { 0 };
	uv_loop_t loop;
	int fd[2];

	ck_assert_int_eq(uv_loop_init(&loop), 0);
	ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fd), 0);
	us = (struct uv_side){ .side = { .consume = true } };
	uc = (struct uv_side){ .side = { .consume = true } };
	us.u = h2_uv_open(mem, &loop, fd[0], H2_SERVER, &events, NULL, &us, saw_gone, &e);
	uc.u = h2_uv_open(mem, &loop, fd[1], H2_CLIENT, &events, NULL, &uc, saw_gone, &e);
	h2_request(h2_uv_session(uc.u),
	    (struct h2_header[]){ { ":method", "GET" }, { ":path", "/" }, { 0 } }, true, NULL, &e);
	for (int i = 0; i < 100 && !us.side.heads; i++)
		uv_run(&loop, UV_RUN_ONCE);
	talloc_free(us.u);
	ck_assert_int_eq(us.side.closes, 1);
	uv_run(&loop, UV_RUN_DEFAULT);
	ck_assert_int_eq(us.gone, 0);
	ck_assert_int_eq(uc.gone, 1);
	ck_assert_int_eq(uc.side.closes, 1);
	ck_assert_int_eq(uv_loop_close(&loop), 0);
}
END_TEST

int
main(void)
{
	TCase *c = tcase_create("h2");
	Suite *suite = suite_create("h2");
	SRunner *runner = srunner_create(suite);
	int failed = 0;

	signal(SIGPIPE, SIG_IGN);
	tcase_add_checked_fixture(c, pair, unpair);
	tcase_add_test(c, request_and_response);
	tcase_add_test(c, bodies_echo);
	tcase_add_test(c, flow_control);
	tcase_add_test(c, reset);
	tcase_add_test(c, many_resets);
	tcase_add_test(c, goaway);
	tcase_add_test(c, connect_methods);
	tcase_add_test(c, connect_ends);
	tcase_add_test(c, garbage);
	tcase_add_test(c, noise);
	tcase_add_test(c, header_flood);
	tcase_add_test(c, freed_in_events);
	tcase_add_test(c, sockets);
	tcase_add_test(c, sockets_wired);
	tcase_add_test(c, sockets_late);
	tcase_add_test(c, sockets_freed);
	tcase_set_timeout(c, 30);
	suite_add_tcase(suite, c);
	srunner_run_all(runner, CK_NORMAL);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
