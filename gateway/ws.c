/* ws.c - see ws.h. Frames are libwslay's; its contexts are there only while a message is. */
#include "ws.h"

#include "gateway.h"
#include "timer.h"
#include "utf8.h"

#include <openssl/sha.h>
#include <string.h>
#include <strings.h>
#include <talloc.h>
#include <wslay/wslay.h>

#define GUID "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"

enum { PING_MS = 20000, UNANSWERED = 2, KEY_CHARS = 24, CONTROL_MAX = 125 };

struct ws {
	struct sock *sock;
	const struct ws_events *on;
	void *arg;
	wslay_frame_context_ptr frames; /* NULL: between messages */
	const uint8_t *in;              /* what is being read … */
	size_t left;
	struct buf rest; /* … and what waits while paused */
	struct buf msg;  /* of a message that is not complete */
	uint64_t frame_left;
	uint64_t fed, used; /* bytes that libwslay has got, and has given */
	char control[CONTROL_MAX];
	size_t control_n;
	unsigned opcode; /* of the frame at hand */
	unsigned pings;  /* unanswered */
	bool in_frame, in_message, fin, paused, closed, reading;
};

/* ---- frames out */

static ssize_t
collect(const uint8_t *p, size_t n, int flags, void *arg)
{
	(void)flags;
	buf_add(arg, p, n);
	return (ssize_t)n;
}

static void
put(struct ws *ws, unsigned opcode, const void *p, size_t n)
{
	static const struct wslay_frame_callbacks callbacks = { .send_callback = collect };
	static wslay_frame_context_ptr writer;
	static struct buf frame;
	struct wslay_frame_iocb io = { .fin = 1,
		.opcode = (uint8_t)opcode,
		.payload_length = n,
		.data = p,
		.data_length = n };

	/* One for all: whole frames go into memory at once. */
	if (!writer && wslay_frame_context_init(&writer, &callbacks, &frame) != 0)
		abort();
	if (wslay_frame_send(writer, &io) != (ssize_t)n)
		abort();
	sock_write(ws->sock, frame.data, frame.len);
	if (frame.room > SOCK_LOW) {
		TALLOC_FREE(frame.data);
		frame = BUF(NULL);
	} else {
		buf_clear(&frame);
	}
}

void
ws_send(struct ws *ws, const char *text, size_t n)
{
	if (!ws->closed)
		put(ws, WSLAY_TEXT_FRAME, text, n);
}

size_t
ws_queued(const struct ws *ws)
{
	return sock_queued(ws->sock);
}

void
ws_close(struct ws *ws, int code, const char *reason)
{
	char text[CONTROL_MAX] = { (char)(code >> 8), (char)code };
	size_t n = strlen(reason);

	if (ws->closed)
		return;
	n = n < sizeof text - 2 ? n : sizeof text - 2;
	memcpy(text + 2, reason, utf8_whole(reason, n));
	put(ws, WSLAY_CONNECTION_CLOSE, text, 2 + utf8_whole(reason, n));
	ws->closed = true;
	sock_close(ws->sock);
}

void
ws_fail(struct ws *ws, int code, const char *slug, const char *text)
{
	struct buf b = BUF(ws);

	buf_str(&b, "{\"type\":\"error\",\"data\":");
	buf_json(&b, text);
	buf_str(&b, ",\"code\":");
	buf_json(&b, slug);
	buf_str(&b, ",\"fatal\":true}");
	ws_send(ws, b.data, b.len);
	talloc_free(b.data);
	ws_close(ws, code, text);
}

/* ---- frames in */

static ssize_t
feed(uint8_t *to, size_t room, int flags, void *arg)
{
	struct ws *ws = arg;
	size_t n = ws->left < room ? ws->left : room;

	(void)flags;
	if (!n)
		return -1;
	memcpy(to, ws->in, n);
	ws->in += n;
	ws->left -= n;
	ws->fed += n;
	return (ssize_t)n;
}

/* The other side is done: code of its close frame, 1006 without one. */
static void
ended(struct ws *ws, int code)
{
	if (ws->closed)
		return;
	ws->closed = true;
	ws->on->on_close(ws, code);
}

/* Its code goes back as it came (RFC 6455 §5.5.1). */
static void
closed_by_peer(struct ws *ws)
{
	const uint8_t *p = (const uint8_t *)ws->control;
	int code = ws->control_n >= 2 ? p[0] << 8 | p[1] : 1005;

	put(ws, WSLAY_CONNECTION_CLOSE, ws->control, ws->control_n >= 2 ? 2 : 0);
	ended(ws, code);
	sock_close(ws->sock);
}

static void
control_frame(struct ws *ws)
{
	if (ws->opcode == WSLAY_PING)
		put(ws, WSLAY_PONG, ws->control, ws->control_n);
	else if (ws->opcode == WSLAY_PONG)
		ws->pings = 0;
	else
		closed_by_peer(ws);
}

static void
message(struct ws *ws)
{
	struct buf msg = ws->msg;

	ws->msg = BUF(ws);
	ws->in_message = false;
	buf_need(&msg, 0);
	if (!utf8_ok(msg.data, msg.len))
		ws_fail(ws, WS_BAD, "invalid_request", "the message is not UTF-8");
	else
		ws->on->on_text(ws, msg.data, msg.len);
	talloc_free(msg.data);
}

static bool
frame_begins(struct ws *ws, const struct wslay_frame_iocb *io)
{
	bool control = wslay_is_ctrl_frame(io->opcode);
	bool follows = io->opcode == WSLAY_CONTINUATION_FRAME;
	bool known = io->opcode <= WSLAY_BINARY_FRAME ||
	    (io->opcode >= WSLAY_CONNECTION_CLOSE && io->opcode <= WSLAY_PONG);
	size_t head =
	    2 + 4 + (io->payload_length > 125 ? 2 : 0) + (io->payload_length > 65535 ? 6 : 0);

	ws->used += head;
	ws->in_frame = true;
	ws->opcode = io->opcode;
	ws->fin = io->fin;
	ws->frame_left = io->payload_length;
	ws->control_n = 0;
	if (!io->mask || io->rsv || !known || (!control && follows != ws->in_message)) {
		ws_close(ws, WSLAY_CODE_PROTOCOL_ERROR, "protocol error");
		return false;
	}
	if (io->opcode == WSLAY_BINARY_FRAME) {
		ws_fail(ws, WS_BAD, "invalid_request", "messages are text");
		return false;
	}
	if (!control &&
	    (io->payload_length > WS_MESSAGE_MAX ||
		ws->msg.len + io->payload_length > WS_MESSAGE_MAX)) {
		ws_fail(ws, WS_TOO_LARGE, "too_large", "a message is larger than 1 MiB");
		return false;
	}
	if (!control)
		ws->in_message = true;
	return true;
}

/* One piece of a frame. False: nothing more now. */
static bool
step(struct ws *ws)
{
	struct wslay_frame_iocb io = { 0 };
	ssize_t n = wslay_frame_recv(ws->frames, &io);

	if (n == WSLAY_ERR_WANT_READ)
		return false;
	if (n < 0) {
		ws_close(ws, WSLAY_CODE_PROTOCOL_ERROR, "protocol error");
		return false;
	}
	if (!ws->in_frame && !frame_begins(ws, &io))
		return false;
	if (wslay_is_ctrl_frame(ws->opcode)) { /* at most 125 bytes, libwslay sees to it */
		memcpy(ws->control + ws->control_n, io.data, (size_t)n);
		ws->control_n += (size_t)n;
	} else
		buf_add(&ws->msg, io.data, (size_t)n);
	ws->frame_left -= (uint64_t)n;
	ws->used += (uint64_t)n;
	if (ws->frame_left)
		return true;
	ws->in_frame = false;
	if (wslay_is_ctrl_frame(ws->opcode))
		control_frame(ws);
	else if (ws->fin)
		message(ws);
	return true;
}

static void
pump(struct ws *ws)
{
	static const struct wslay_frame_callbacks callbacks = { .recv_callback = feed };

	ws->reading = true;
	if (!ws->frames && wslay_frame_context_init(&ws->frames, &callbacks, ws) != 0)
		abort();
	while (!ws->closed && !ws->paused && step(ws))
		;
	ws->reading = false;
	if (ws->closed || ws->paused || ws->in_frame || ws->left || ws->fed != ws->used)
		return;
	/* Between messages a WebSocket costs nothing but its own struct. */
	wslay_frame_context_free(ws->frames);
	ws->frames = NULL;
	ws->fed = ws->used = 0;
}

static void
read_from(struct ws *ws, const void *p, size_t n)
{
	ws->in = p;
	ws->left = n;
	pump(ws);
	if (!ws->closed && ws->left)
		buf_add(&ws->rest, ws->in, ws->left);
	ws->in = NULL;
	ws->left = 0;
}

void
ws_pause(struct ws *ws)
{
	ws->paused = true;
	sock_pause(ws->sock);
}

void
ws_resume(struct ws *ws)
{
	struct buf rest = ws->rest;

	if (!ws->paused || ws->closed)
		return;
	ws->paused = false;
	ws->pings = 0;
	if (ws->reading)
		goto out;
	ws->rest = BUF(ws);
	if (ws->frames || rest.len)
		read_from(ws, rest.data, rest.len);
	talloc_free(rest.data);
out:
	if (!ws->closed && !ws->paused)
		sock_resume(ws->sock);
}

/* ---- the socket */

static void
on_open(struct sock *s)
{
	struct ws *ws = sock_arg(s);

	if (!ws->closed && ws->on->on_open)
		ws->on->on_open(ws);
}

static void
on_data(struct sock *s, const uint8_t *p, size_t n)
{
	struct ws *ws = sock_arg(s);

	if (ws->paused)
		buf_add(&ws->rest, p, n);
	else
		read_from(ws, p, n);
}

static void
on_room(struct sock *s)
{
	struct ws *ws = sock_arg(s);

	if (!ws->closed && ws->on->on_room)
		ws->on->on_room(ws);
}

static void
on_leave(struct sock *s)
{
	ws_close(sock_arg(s), WS_LEAVING, "come back with since");
}

static void
on_lost(struct sock *s)
{
	ended(sock_arg(s), WSLAY_CODE_ABNORMAL_CLOSURE);
}

static const struct sock_events sock_events = {
	.on_open = on_open,
	.on_data = on_data,
	.on_room = on_room,
	.on_leave = on_leave,
	.on_close = on_lost,
};

static void
on_ping(void *arg)
{
	struct ws *ws = arg;

	if (ws->closed)
		return;
	if (ws->pings >= UNANSWERED && !ws->paused) {
		put(ws, WSLAY_CONNECTION_CLOSE, "\x03\xe9", 2);
		ended(ws, WS_LEAVING);
		sock_close(ws->sock);
		return;
	}
	ws->pings++;
	put(ws, WSLAY_PING, "", 0);
}

/* ---- the handshake */

static bool
good_key(const char *key)
{
	size_t n = strspn(key, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/");

	return n == KEY_CHARS - 2 && strcmp(key + n, "==") == 0;
}

bool
ws_asked(struct request *r)
{
	const char *upgrade = request_header(r, "Upgrade"), *how = request_header(r, "Connection");
	const char *version = request_header(r, "Sec-WebSocket-Version");
	const char *key = request_header(r, "Sec-WebSocket-Key");

	if (!upgrade || strcasecmp(upgrade, "websocket") != 0 || !how ||
	    !strcasestr(how, "upgrade"))
		return err_set(
			   &r->work.err, E_BAD_INPUT, "this is a WebSocket: connect with one") == 0;
	if (!version || strcmp(version, "13") != 0) {
		reply_header(r, "Sec-WebSocket-Version", "13");
		return err_set(&r->work.err, E_BAD_INPUT, "Sec-WebSocket-Version is not 13") == 0;
	}
	if (!key || !good_key(key))
		return err_set(&r->work.err, E_BAD_INPUT, "Sec-WebSocket-Key is not right") == 0;
	return true;
}

static const char *
accept_value(struct request *r)
{
	const char *text = talloc_asprintf(r, "%s%s", request_header(r, "Sec-WebSocket-Key"), GUID);
	uint8_t hash[SHA_DIGEST_LENGTH];
	struct buf b = BUF(r);

	SHA1((const uint8_t *)text, strlen(text), hash);
	buf_base64(&b, hash, sizeof hash);
	return b.data;
}

static int
ws_destroy(struct ws *ws)
{
	if (ws->frames)
		wslay_frame_context_free(ws->frames);
	return 0;
}

struct ws *
ws_accept(void *mem, struct request *r, const struct ws_events *on, void *arg)
{
	struct ws *ws = NULL;

	if (!ws_asked(r))
		return NULL;
	ws = talloc_zero(mem ? mem : r, struct ws);
	if (!ws)
		abort();
	*ws = (struct ws){ .on = on, .arg = arg };
	ws->rest = ws->msg = BUF(ws);
	reply_header(r, "Sec-WebSocket-Accept", accept_value(r));
	ws->sock = upgrade_raw(r, "websocket", &sock_events, ws);
	if (!ws->sock) {
		talloc_free(ws);
		return NULL;
	}
	talloc_set_destructor(ws, ws_destroy);
	(void)timer_start(ws, r->gw->loop, PING_MS, PING_MS, on_ping, ws);
	return ws;
}

void *
ws_arg(const struct ws *ws)
{
	return ws->arg;
}
