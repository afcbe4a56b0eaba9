/*
 * upgrade.h - a connection that left HTTP: after the 101 the socket is the loop's, nothing of
 * libmicrohttpd's stays.
 *
 * The request goes on living: what works for the connection hangs below it, as always. It is freed
 * with everything when the connection has ended, one turn of the loop after on_close or
 * sock_close(). Its headers are gone after the 101: take what you need before.
 */
#pragma once
#include "err.h"
#include "request.h"

#include <stddef.h>
#include <stdint.h>

enum { SOCK_HIGH = 256 * 1024, SOCK_LOW = 64 * 1024 };

struct sock;

struct sock_events {
	void (*on_open)(struct sock *);                          /* the 101 went out; may be NULL */
	void (*on_data)(struct sock *, const uint8_t *, size_t); /* all of it is taken */
	void (*on_eof)(struct sock *);  /* the peer writes no more; NULL: closed then */
	void (*on_room)(struct sock *); /* sock_queued() fell to SOCK_LOW or below; may be NULL */
	void (*on_taken)(struct sock *, size_t); /* n bytes went out; may be NULL */
	void (*on_leave)(
	    struct sock *); /* this process ends: say goodbye and close; NULL: closed */
	void (*on_close)(struct sock *); /* gone, not by sock_close(): nothing can be written */
};

/*
 * Answers 101 with `Upgrade: protocol`, the request's other headers of the answer
 * (reply_header()), and hands the socket to the loop. What is written before on_open waits. NULL:
 * r->work.err (no answer may be given to this request any more, or it has a body).
 */
struct sock *
upgrade_raw(struct request *, const char *protocol, const struct sock_events *, void *arg);
void *sock_arg(const struct sock *);
void sock_write(struct sock *, const void *, size_t);
size_t sock_queued(const struct sock *);
/* Stops and starts reading from the peer. */
void sock_pause(struct sock *);
void sock_resume(struct sock *);
void sock_finish(struct sock *); /* half close, when what is queued has gone */
/* Sends what is queued (for 30 s at most), then ends. No event comes any more. */
void sock_close(struct sock *);

/* All that are open in this process: how many, and on_leave for each. */
size_t upgrade_open(const struct gateway *);
void upgrade_leave(struct gateway *);
