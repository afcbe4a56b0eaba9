/*
 * api_call.h - one call of the control API while it lasts: for the files that hold its handlers.
 *
 * A handler answers once, now or later; later it first looks whether the client is still there
 * (call->stream). The call is freed when the stream closes: what hangs below it is cancelled.
 */
#pragma once
#include "api.h"
#include "buf.h"
#include "capsule.h"

struct call;
struct api_route;

typedef void api_handler(struct call *);

struct call {
	struct api_peer peer;     /* first: what hangs on the stream */
	struct h2_stream *stream; /* NULL: the client went away */
	struct agent *agent;
	const struct api_route *route;
	char id[CAPSULE_ID];
	const char *path;  /* all of it */
	const char *query; /* behind the '?', or "" */
	int64_t epoch;     /* of the header; -1: absent */
	const char *op;
	struct buf body;
	struct err err; /* set while the body comes: answered at its end */
	bool started;
};

struct api_route {
	const char *method, *path; /* "{id}": a capsule; "*" at the end: anything (call->path) */
	api_handler *run;
	bool changes; /* needs hutch-epoch */
	unsigned who; /* roles beside the control plane (tls.h); the unix socket is everybody's */
};

api_handler capsule_patch; /* api_patch.c */
/* api_patch.c: what it may reach is this from now on. */
int capsule_network(struct capsule *, struct json_object *, struct err *);

/* Answers, each ends the stream: JSON (no body when b is empty), an error with a code. */
void api_reply(struct h2_stream *, int status, const struct buf *b);
void api_fail(struct call *, enum err_code, const char *text);
/* The capsule of the path, live; NULL: 404 was answered. */
struct capsule *api_capsule(struct call *);
/* The body as an object on mem; NULL: call->err. */
struct json_object *api_body(struct call *, void *mem);
/* A parameter of the query; NULL when absent. On the call. */
const char *api_query(struct call *, const char *name);
