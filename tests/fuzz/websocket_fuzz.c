/*
 * websocket_fuzz.c - what clients say on WebSockets: handshakes and frames of those that the
 * gateway answers itself (gateway/ws.c), frames that pass through a port (port_ws.c), names of
 * ports.
 */
#include "fuzz.h"

#include "cleanup.h"
#include "gateway/port_host.h"
#include "gateway/port_ws.h"
#include "gateway/utf8.h"
#include "gateway/ws.c" /* its struct, too: the socket below is ours */

static uint64_t sum;

/* ---- the request and its socket */

struct sock {
	const struct sock_events *on;
	void *arg;
	bool paused, closed;
};

static const char *const good_headers[] = { "websocket", "keep-alive, Upgrade", "13",
	"dGhlIHNhbXBsZSBub25jZQ==" };
static const char *headers[nitems(good_headers)]; /* in the order of names[] */
static struct timer *timer;

const char *
request_header(const struct request *r, const char *name)
{
	static const char *const names[] = { "Upgrade", "Connection", "Sec-WebSocket-Version",
		"Sec-WebSocket-Key" };

	(void)r;
	for (size_t i = 0; i < nitems(names); i++)
		if (strcmp(name, names[i]) == 0)
			return headers[i];
	return NULL;
}

void
reply_header(struct request *r, const char *name, const char *value)
{
	(void)r;
	fuzz_sum(&sum, name, strlen(name));
	fuzz_sum(&sum, value, strlen(value));
}

struct sock *
upgrade_raw(struct request *r, const char *protocol, const struct sock_events *on, void *arg)
{
	struct sock *s = talloc_zero(r, struct sock);

	(void)protocol;
	*s = (struct sock){ .on = on, .arg = arg };
	return s;
}

void *
sock_arg(const struct sock *s)
{
	return s->arg;
}

void
sock_write(struct sock *s, const void *p, size_t n)
{
	if (s->closed)
		abort();
	fuzz_mark(&sum, 'w');
	fuzz_sum(&sum, p, n);
}

size_t
sock_queued(const struct sock *s)
{
	(void)s;
	return 0;
}

void
sock_pause(struct sock *s)
{
	s->paused = true;
}

void
sock_resume(struct sock *s)
{
	s->paused = false;
}

void
sock_close(struct sock *s)
{
	if (s->closed)
		abort();
	s->closed = true;
}

struct timer {
	void (*fn)(void *);
	void *arg;
};

struct timer *
timer_start(void *mem, uv_loop_t *loop, uint64_t ms, uint64_t again, void (*fn)(void *), void *arg)
{
	(void)loop;
	(void)ms;
	(void)again;
	timer = talloc(mem, struct timer);
	*timer = (struct timer){ fn, arg };
	return timer;
}

/* ---- a client of ours */

struct reader {
	uint8_t habits;
	unsigned texts, closes;
};

static void
text(struct ws *ws, const char *data, size_t n)
{
	struct reader *r = ws_arg(ws);

	fuzz_mark(&sum, 't');
	fuzz_sum(&sum, data, n);
	if (ws->paused || ws->closed || r->closes || n > WS_MESSAGE_MAX || !utf8_ok(data, n))
		abort();
	r->texts++;
	if (r->habits & 1 && r->texts % 2)
		ws_pause(ws);
	if (r->habits & 2)
		ws_send(ws, data, n < 200 ? n : 200);
	if (r->habits & 4 && r->texts == 3)
		ws_fail(ws, WS_BAD, "x", data);
}

static void
gone(struct ws *ws, int code)
{
	struct reader *r = ws_arg(ws);

	fuzz_mark(&sum, 'c');
	fuzz_sum(&sum, &code, sizeof code);
	if (r->closes++)
		abort();
}

static const struct ws_events events = { .on_text = text, .on_close = gone };

/* First byte: what the reader does; pieces and what is between them do not change what it hears. */
static void
client(void *mem, struct fuzz f, bool whole)
{
	static struct gateway gw;
	struct request *r = talloc_zero(mem, struct request);
	struct reader reader = { .habits = fuzz_byte(&f) };
	const uint8_t *p = NULL;
	struct ws *ws;

	memcpy(headers, good_headers, sizeof headers);
	r->gw = &gw;
	ws = ws_accept(NULL, r, &events, &reader);
	if (!ws)
		abort();
	if (reader.habits & 8) /* what came with the head comes while it is paused */
		ws_pause(ws);
	while (f.n && !ws->closed) {
		size_t n = fuzz_next(&f, whole, 4, &p);

		ws->sock->on->on_data(ws->sock, p, n);
		for (int i = 0; i < 5000 && ws->paused && !ws->closed; i++)
			ws_resume(ws);
		if (ws->msg.len > WS_MESSAGE_MAX || ws->control_n > CONTROL_MAX)
			abort();
	}
	if (!ws->closed && reader.habits & 16)
		ws->sock->on->on_leave(ws->sock);
	else if (!ws->closed && reader.habits & 32)
		for (int i = 0; i < 3; i++)
			timer->fn(timer->arg);
	if (!ws->closed)
		ws->sock->on->on_close(ws->sock);
}

static void
handshake(void *mem, struct fuzz f, bool whole)
{
	struct request *r = talloc_zero(mem, struct request);
	uint8_t which = fuzz_byte(&f);

	(void)whole;
	memcpy(headers, good_headers, sizeof headers);
	headers[which & 3] = fuzz_text(mem, &f);
	if (which & 4)
		headers[which >> 3 & 3] = NULL;
	if (ws_asked(r) != (r->work.err.code == E_OK))
		abort();
	if (r->work.err.code == E_OK)
		fuzz_sum(&sum, accept_value(r), 28);
}

/* ---- a WebSocket that passes through */

static void
passing(void *mem, struct fuzz f, bool whole)
{
	struct port_ws *w = port_ws_new(mem);
	struct buf on = BUF(mem), in = BUF(mem);
	uint8_t ping[16], pong[14] = { 0x8a, 0x88, 1, 2, 3, 4 };
	size_t n = port_ws_ping(w, ping), ours = fuzz_byte(&f), some;
	struct fuzz all = f;
	const uint8_t *p = NULL;

	if (n != 10)
		abort();
	for (size_t i = 0; i < 8; i++)
		pong[6 + i] = ping[2 + i] ^ pong[2 + (i & 3)];
	/* as long as frames begin where they should, our answer goes no further */
	if (ours & 1)
		buf_add(&in, pong, sizeof pong);
	buf_add(&in, f.p, f.n);
	f = (struct fuzz){ (const uint8_t *)in.data, in.len };
	while (f.n) {
		some = fuzz_next(&f, whole, 5, &p);
		port_ws_up(w, p, some, &on);
	}
	fuzz_sum(&sum, on.data, on.len);
	if (on.len > all.n || all.n - on.len > 14 + 8 || (on.len && memcmp(on.data, all.p, on.len)))
		abort();
	while (all.n) {
		some = fuzz_next(&all, whole, 5, &p);
		port_ws_down(w, p, some);
	}
	fuzz_mark(&sum, (char)port_ws_ping(w, ping));
}

/* ---- names of ports */

static void
place(void *mem, struct fuzz f, bool whole)
{
	char *s = fuzz_text(mem, &f), *port = strchr(s, ' ');
	struct port_place at;
	char again[ID_SIZE];

	(void)whole;
	if (port_host_read(s, "box.example:8443", &at) && at.port &&
	    strcmp(id_write(again, "cl-", &at.capsule), at.id) != 0)
		abort();
	fuzz_sum(&sum, &at.port, sizeof at.port);
	if (port)
		*port++ = '\0';
	port_headers_read(s, port, &at);
	if (at.port > 65535 || strlen(at.id) >= sizeof at.id)
		abort();
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static fuzz_reader *const readers[] = { client, handshake, passing, place };

	return fuzz_read(readers, nitems(readers), &sum, data, size);
}
