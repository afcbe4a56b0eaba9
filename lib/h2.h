/*
 * h2.h - one HTTP/2 connection (RFC 9113) on nghttp2: server or client, no I/O of its own.
 *
 * The owner feeds bytes that arrived and pulls bytes to send; h2_uv.h does that for libuv, the
 * guest agent does it for its virtio-serial port. Flow control is the caller's: received body bytes
 * open the peer's window only when h2_consume() says so, so a bridge that consumes what the other
 * side took never buffers more than one window. Used by host agent, gateway and guest agent.
 *
 * Rules
 *  - Events come from inside h2_feed() and h2_pull(); neither is called from an event. Everything
 *    else may be called from events, talloc_free() of the session or of its parent too: the streams
 *    get their on_close, no event follows, the memory goes when h2_feed()/h2_pull() returns (-1,
 * E_CLOSED).
 *  - A stream lives until on_close returns; after that its pointer is dead. After h2_reset() only
 *    on_close follows. A server's stream without on_head has no on_close.
 *  - Trailers and 1xx answers are dropped. A request with too many headers is answered 431 here; an
 *    answer with too many is reset; sixteen times too many end the connection.
 */
#pragma once
#include "err.h"
#include "h2_mark.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

enum h2_role { H2_SERVER, H2_CLIENT };

struct h2;
struct h2_stream;

struct h2_header {
	const char *name, *value; /* names in lower case; pseudo headers (":path") are among them */
};

/* Valid during on_head only. Values hold no NUL. */
struct h2_head {
	const char *method, *path, *authority, *protocol; /* of a request; NULL when absent */
	int status;                                       /* of a response */
	const struct h2_header *header;                   /* all, in order; ends with a NULL name */
};

/* Every function gets the stream; h2_stream_user() is what the caller hung on it. Each may be NULL.
 */
struct h2_events {
	void (*on_head)(struct h2_stream *, const struct h2_head *);
	void (*on_data)(struct h2_stream *, const uint8_t *, size_t); /* then h2_consume() */
	void (*on_end)(struct h2_stream *);          /* the peer sent its END_STREAM */
	void (*on_sent)(struct h2_stream *, size_t); /* n bytes left the queue for h2_pull() */
	void (*on_drain)(struct h2_stream *);        /* h2_queued() fell below H2_LOW */
	void (*on_close)(
	    struct h2_stream *, uint32_t error); /* last call; NGHTTP2_NO_ERROR or why */
	void (*on_pong)(struct h2 *);            /* what was sent before h2_ping() was read */
};

struct h2_limits {
	uint32_t window;      /* bytes a stream may send before we consume; default 128 KiB */
	uint32_t connection;  /* the same for all streams together; default: all may stand still at
	                         once (a client: 4,096 of them), and still no other is stopped */
	uint32_t streams;     /* concurrent streams the peer may open; default 256 */
	uint32_t header_list; /* bytes of headers in one message; default 32 KiB */
	/* NULL: none. A client's: nothing but its hello is sent, nothing heard, before the peer
	   says it. A server's: what it says back. */
	const struct h2_mark *mark;
};

enum { H2_LOW = 64 * 1024, H2_HIGH = 256 * 1024 };

/* A talloc child of mem; freeing it closes every stream (on_close with NGHTTP2_CANCEL). limits may
   be NULL, as may its members be 0: the defaults. user is h2_user()'s and that of streams the peer
   opens. */
struct h2 *
h2_new(void *mem, enum h2_role, const struct h2_events *, const struct h2_limits *, void *user);
void *h2_user(const struct h2 *);
/* due(arg) is called, from wherever, when the session begins to have bytes for h2_pull(). */
void h2_set_due(struct h2 *, void (*due)(void *), void *arg);
/* Bytes from the peer. -1: the peer broke the protocol; close the transport after pulling until 0.
 */
int h2_feed(struct h2 *, const uint8_t *, size_t, struct err *);
/* Bytes for the peer, valid until the next call; 0: nothing to send now; -1: broken. */
ssize_t h2_pull(struct h2 *, const uint8_t **);
/* Tells the peer to open no more streams; the connection is over when the last one closes. */
void h2_goaway(struct h2 *);
/* Of a client that was not met: the peer may stand inside of a frame of a session before, and take
   the hello for its rest. Says enough to end that frame, which ends that session, and another hello
   with this mark. */
void h2_hail(struct h2 *, const struct h2_mark *);
void h2_ping(struct h2 *); /* on_pong follows, from a peer that reads */
/* Every stream gets its on_close now, nothing happens on the session any more. */
void h2_close(struct h2 *);
size_t h2_streams(const struct h2 *); /* open now */
bool h2_alive(const struct h2 *);     /* false: nothing to read or write any more */
bool h2_takes(const struct h2 *);     /* of a client: requests may begin */
bool h2_met(const struct h2 *); /* of a client: the peer said its mark; no request left before */

/* A client's request: pseudo headers in any place of head; ":scheme" and ":authority" are added
   when missing. end: it has no body. NULL and err when the connection is going away. */
struct h2_stream *
h2_request(struct h2 *, const struct h2_header *head, bool end, void *user, struct err *);
/* A server's answer, once per stream. Extra headers end with a NULL name, or NULL. */
void h2_respond(struct h2_stream *, int status, const struct h2_header *extra, bool end);
void
h2_write(struct h2_stream *, const void *, size_t); /* copied; watch h2_queued() against H2_HIGH */
void h2_finish(struct h2_stream *);                 /* END_STREAM after what is queued */
void h2_reset(struct h2_stream *, uint32_t error);  /* RST_STREAM, drops what is queued */
void h2_reset_all(struct h2 *, uint32_t error);     /* every stream that is open */
void h2_consume(struct h2_stream *, size_t);        /* n body bytes were used up */
size_t h2_queued(const struct h2_stream *);         /* bytes not yet given to h2_pull() */
size_t h2_queued_all(const struct h2 *);            /* the same of all streams */
void *h2_stream_user(const struct h2_stream *);
void h2_stream_set_user(struct h2_stream *, void *);
struct h2 *h2_stream_session(const struct h2_stream *);
int32_t h2_stream_id(const struct h2_stream *);
