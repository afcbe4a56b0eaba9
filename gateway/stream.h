/*
 * stream.h - a stream of a capsule on a WebSocket (spec 02 §3.1): who may, the first message,
 * errors and close codes, limits, the right asked again while it lasts.
 *
 * A route with SOCKET calls stream_accept() with its kind. Everything of the stream hangs below the
 * request and is freed with it when the WebSocket has closed.
 */
#pragma once
#include "access.h"
#include "ws.h"

#include <json-c/json.h>

struct stream;

struct stream_kind {
	/* The message that begins it, by its type; NULL: nothing needs to be said. Others before it
	   are ignored. */
	bool (*begins)(const char *type);
	/* The capsule runs, the caller may. first: the message, or NULL. -1: r->work.err. May be
	   called again, when the capsule had fallen asleep under it. */
	int (*open)(struct stream *, struct json_object *first);
	/* -1: r->work.err; fatal. Unknown types are ignored. */
	int (*message)(struct stream *, const char *type, struct json_object *);
	void (*room)(struct stream *); /* ws_queued() fell to SOCK_LOW; may be NULL */
	void (*gone)(struct stream *); /* ended, however: the last call; may be NULL */
};

struct stream {
	struct request *r;
	struct ws *ws;
	void *state; /* the kind's */
	/* stream.c's */
	const struct stream_kind *kind;
	struct right *right;
	struct json_object *first;
	struct timer *timer; /* until the first message says who asks; after a loss */
	enum { STREAM_AUTH, STREAM_FIRST, STREAM_LOOKING, STREAM_OPEN, STREAM_OVER } phase;
	bool absent; /* there is no such capsule */
	unsigned tries, losses;
	struct err lost;
};

int stream_accept(struct request *, const struct stream_kind *);

/* Of every WebSocket. The handshake: 1: it shows a credential, which is looked at (ask); 0: who
   asks is to say so in the first message, within AUTH_MS (of routes OF_PLATFORM always); -1:
   r->work.err. */
enum { AUTH_MS = 5000 };
int ws_door(struct request *, const struct access_ask *);
/* That message, {"type":"auth","token":…}: it is looked at. False: it is another one. */
bool
ws_door_said(struct request *, const char *type, struct json_object *, const struct access_ask *);
void stream_send(struct stream *, const struct buf *);
/* {"type":"error",…,"fatal":false} */
void stream_warn(struct stream *, const struct err *);
/* The end, with a code of ws.h. */
void stream_end(struct stream *, int code, const char *reason);
/* The end, with an error message of r->work.err before it. */
void stream_fail(struct stream *);
/* The guest refused what the stream is for: begins anew when the capsule only slept, else fails. */
void stream_refused(struct stream *, int status, struct json_object *);
/* The guest's side broke off: why is found out, then told. */
void stream_lost(struct stream *, const struct err *);
