/*
 * call.h - one call: an HTTP/2 stream, its request, and how handlers answer.
 *
 * A call is a talloc context; everything made on its behalf hangs below it and goes with the
 * stream.
 */
#pragma once
#include "buf.h"
#include "err.h"
#include "h2.h"
#include "loop.h"
#include <json-c/json.h>
#include <stdbool.h>

struct call;
struct user;

typedef void call_fn(struct call *);
/* out: the answer's JSON. 0: send it. -1: c->err says why not. 1: the handler answers later. */
typedef int rpc_fn(struct call *, struct json_object *in, struct buf *out);

enum call_kind {
	CALL_WHOLE,  /* plain HTTP; the body is collected, then fn */
	CALL_BODY,   /* plain HTTP; fn first, it takes the body by on_data */
	CALL_UNARY,  /* Connect, one message in, one out */
	CALL_STREAM, /* Connect, one message in, a stream out */
	CALL_INPUT,  /* Connect, a stream in, one message out; fn first */
};

enum call_access {
	ANYONE,
	TOKEN,
	SIGNED, /* or, without a token in the header, a signature in the query */
};

struct route {
	const char *method, *path;
	enum call_kind kind;
	enum call_access access;
	size_t body_max;
	call_fn *fn;
	rpc_fn *rpc;
};

struct call {
	struct h2_stream *stream; /* NULL when it is gone */
	const struct route *route;
	struct h2_header *header; /* ends with a NULL name */
	const char *query;        /* as sent, without the question mark; "" if none */
	struct buf body;
	size_t counted; /* of the body, in the sum of all calls */
	struct err err;
	bool answered; /* a response was sent */
	bool ended;    /* and its end */
	bool discard;  /* what still comes of the body is thrown away */
	uint64_t keepalive_ms;
	struct timer keepalive;
	const char *silence; /* the message that breaks it; NULL: a process's */
	/* Set by handlers that go on after their first function returned. */
	void (*on_data)(struct call *, const uint8_t *, size_t); /* then call_took() */
	call_fn *on_end, *on_drain, *on_gone;
	void *state;
};

const char *call_header(const struct call *, const char *name);
/* A decoded query parameter, or NULL. */
const char *call_query(struct call *, const char *name);
/* n bytes of the request's body were used up. */
void call_took(struct call *, size_t n);

/* Enough waits for the caller: no more until on_drain. All streams together have their bound, too.
 */
bool call_full(const struct call *);

/* Plain HTTP. call_fail() sends c->err as {"code":status,"message":…} and drops the rest of the
 * body. */
void call_reply(struct call *, int status, const struct h2_header *extra, const void *body, size_t);
void call_reply_json(struct call *, const struct buf *);
void call_fail(struct call *);
/* The same with a given status, for what has no code in errors.def's terms. */
void call_fail_as(struct call *, int status, const char *code, const char *text);
