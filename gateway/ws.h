/*
 * ws.h - a WebSocket of a client (RFC 6455), text messages both ways.
 *
 * Pings go out every 20 s, two unanswered end it. The request lives as long as the WebSocket:
 * everything below it is freed after it closed (upgrade.h).
 */
#pragma once
#include "upgrade.h"

#include <stdbool.h>

enum {
	WS_MESSAGE_MAX = 1 << 20,
	/* close codes: RFC 6455, and ours (spec 02 §3.1) */
	WS_NORMAL = 1000,
	WS_LEAVING = 1001, /* the process ends: come back with since */
	WS_INTERNAL = 1011,
	WS_BAD = 4400,
	WS_UNAUTHORIZED = 4401,
	WS_FORBIDDEN = 4403,
	WS_NOT_FOUND = 4404,
	WS_BAD_STATE = 4409,
	WS_GONE = 4410,
	WS_TOO_LARGE = 4413,
	WS_SLOW = 4429,
	WS_LOST = 4503,
};

struct ws;

struct ws_events {
	void (*on_open)(struct ws *); /* may be NULL */
	/* A whole message; data is gone when this returns. Not called while paused. */
	void (*on_text)(struct ws *, const char *data, size_t n);
	void (*on_room)(struct ws *);            /* ws_queued() fell to SOCK_LOW; may be NULL */
	void (*on_close)(struct ws *, int code); /* closed by the client, or lost (1006) */
};

/* Is it a WebSocket's handshake? E_BAD_INPUT in r->work.err when it is none we take. */
bool ws_asked(struct request *);
/* Answers 101. mem: NULL, or a child of the request. NULL: r->work.err. */
struct ws *ws_accept(void *mem, struct request *, const struct ws_events *, void *arg);
void *ws_arg(const struct ws *);
void ws_send(struct ws *, const char *text, size_t n);
size_t ws_queued(const struct ws *);
void ws_pause(struct ws *); /* no on_text until ws_resume(); pings and closing go on */
void ws_resume(struct ws *);
/* Says it and ends; nothing is heard any more. The request is freed a turn later. */
void ws_close(struct ws *, int code, const char *reason);
/* The same with {"type":"error","data":…,"code":…,"fatal":true} before it. */
void ws_fail(struct ws *, int code, const char *slug, const char *text);
