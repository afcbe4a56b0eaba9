/*
 * request.h - one HTTP request of a client while it lasts: what came in, and the answer going out.
 *
 * Made by front.c when the head has arrived, freed by it when the answer was sent or the client
 * left (talloc: everything that works for the request hangs below it and is cancelled by its
 * destructor). All of a process runs on one loop; nothing here may block.
 */
#pragma once
#include "buf.h"
#include "err.h"
#include "id.h"
#include "work.h"

#include <json-c/json.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct access;
struct creds;
struct gateway;
struct route;
struct MHD_Connection;

enum { PARAMS_MAX = 2, REPLY_HEADERS = 12, REPLY_HEADERS_MAX = 128, OUT_HIGH = 256 * 1024 };

enum reply_state {
	REPLY_NONE,  /* nobody knows the answer yet */
	REPLY_READY, /* status and headers are known; the web server has not got them */
	REPLY_SENT,  /* given to the connection; a stream may still grow */
};

struct request {
	struct work work; /* first: a request is a unit of work */
	struct gateway *gw;
	struct MHD_Connection *mhd;
	const char *method;
	const char *uri;   /* as sent, with the query */
	const char *path;  /* without */
	const char *query; /* behind the '?', or "" */
	const struct route *route;
	const char *param[PARAMS_MAX]; /* {id} and what follows it, decoded */
	const struct access *access;   /* who asks, and where the capsule is */
	const struct creds *creds;     /* what it shows of who asks; access.c reads it when NULL */
	struct uuid key;               /* the good API key that asks, if by_key */
	bool by_key;
	const char *ip;  /* of the client, once it was asked for; or NULL */
	const void *in;  /* the body of a JSON route, read by its field table */
	struct buf body; /* the same, while it arrives */
	void *state;     /* the handler's */
	void *look;      /* access.c's, while the database is asked */

	/* The body as it comes: returns how much it took; less than n: request_wake() when it can
	 * go on. */
	size_t (*on_body)(struct request *, const char *, size_t n);
	void (*on_body_end)(struct request *);
	void (*on_room)(struct request *); /* a stream's queue is empty: write more, or end */
	void (*on_taken)(struct request *, size_t); /* n bytes of the stream went out */

	bool slept;     /* the host said that the capsule does not run */
	bool missed;    /* a host said that it does not have the capsule */
	unsigned again; /* how often the request was begun anew for it */

	/* front.c's */
	bool begun, suspended, may_read, body_ended;
	bool upgraded;    /* upgrade.c's: there is no HTTP connection any more */
	size_t discarded; /* body bytes nobody wanted */
	struct {
		enum reply_state state;
		int status;
		struct sock *upgrade; /* 101, then the socket is this one's */
		struct reply_head {
			const char *name, *value;
		} few[REPLY_HEADERS], *head; /* head: few, or more of them on the request */
		size_t heads, room;
		bool plain; /* an answer of a capsule: none of our own headers is added */
		bool stream;
		int64_t length; /* of a stream; -1: unknown, it goes out chunked */
		int64_t written;
		struct buf out;
		size_t taken; /* of out */
		bool ended, cut;
	} reply;
};

/* A header of the request, or NULL; none after a 101. */
const char *request_header(const struct request *, const char *name);
/* All of them, in order. */
void request_headers(
    const struct request *, void (*each)(void *arg, const char *name, const char *value), void *);
/* Goes on with a request whose body or answer waited. Harmless at any time. */
void request_wake(struct request *);
/* The body may be read from now on (the route is known and the caller may use it). */
void request_admit(struct request *);

/* A header of the answer; both strings live as long as the request. Before reply_*(). */
void reply_header(struct request *, const char *name, const char *value);
/* The whole answer. The first answer wins: false when there was one already. */
bool reply(struct request *, int status, const char *type, const void *, size_t);
bool reply_json(struct request *, int status, const struct buf *);
bool reply_empty(struct request *, int status);
/* {"error":{code,message,request_id}} of r->work.err, and a log line for a 5xx. A stream that was
 * begun is cut. */
void reply_error(struct request *);
void
fail(struct request *, enum err_code, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

/* An answer in pieces. */
bool reply_begin(struct request *, int status, const char *type, int64_t length);
void reply_write(struct request *, const void *, size_t);
size_t reply_queued(const struct request *);
void reply_end(struct request *);
void reply_cut(struct request *); /* the client must see that it is not complete */
