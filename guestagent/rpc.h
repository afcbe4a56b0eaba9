/* rpc.h - Connect with JSON: one message or length-prefixed frames, errors by name (spec 06 §14).
 */
#pragma once
#include "call.h"

/* ---- requests: server.c calls these when a Connect call's body is complete ---- */

/* The body is one message. */
void rpc_unary(struct call *);
/* The body is one frame with one message. */
void rpc_stream(struct call *);
/* 0, or -1 after an answer of 415: the content type is not the kind's. */
int rpc_check_type(struct call *);
/* The next whole frame of c->body: 1 and *in (a child of mem), 0 not yet, -1 c->err. It is cut off
 * the body. */
int rpc_frame(struct call *, void *mem, struct json_object **in);

/* ---- answers ---- */

void rpc_reply(struct call *, const struct buf *out);
void rpc_fail(struct call *); /* unary: c->err */
/* Streams: the response's head goes out with the first of these. */
void rpc_send(struct call *, const struct buf *message);
void rpc_end(struct call *); /* with c->err if it is set */

/* Milliseconds from Connect-Timeout-Ms; 0: none. -1: c->err. */
int64_t rpc_timeout(struct call *);

/* ---- reading messages: absent or null members leave *ret; another type is invalid_argument ----
 */

int rpc_str(struct json_object *, const char *name, const char **ret, struct err *);
int rpc_bool(struct json_object *, const char *name, bool *ret, struct err *);
int rpc_int(
    struct json_object *, const char *name, int64_t min, int64_t max, int64_t *ret, struct err *);
int rpc_object(struct json_object *, const char *name, struct json_object **ret, struct err *);
int rpc_list(struct json_object *, const char *name, struct json_object **ret, struct err *);
