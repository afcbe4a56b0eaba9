/*
 * h2_uv.h - an h2 session on a libuv stream (unix socket, TCP, socketpair).
 *
 * Reads feed the session. What is to send is written once per loop iteration, before the loop
 * sleeps, whoever caused it: nobody has to flush. Frames are not made while H2_HIGH bytes wait in
 * libuv.
 */
#pragma once
#include "h2.h"
#include <stdbool.h>
#include <uv.h>

struct h2_uv;
struct tls;
struct tls_ctx;

/* Takes over a connected descriptor (closed on failure too); -1: it comes later (h2_uv_wire()),
   what is written waits. on_gone is called once, from the loop, when the connection has ended for
   whatever reason, after the streams' on_close; then all is freed (the owner may free mem inside
   on_gone). Freeing mem earlier closes at once: on_close, but no on_gone. */
struct h2_uv *h2_uv_open(void *mem, uv_loop_t *, int fd, enum h2_role, const struct h2_events *,
    const struct h2_limits *, void *user, void (*on_gone)(struct h2_uv *, const struct err *),
    struct err *);
int h2_uv_wire(struct h2_uv *, int fd, struct err *); /* -1: close it */
/* Speaks TLS from the first byte on: called right after h2_uv_open(). Nothing of HTTP/2 goes in or
   out before both sides know who the other is. -1: the context is not good. */
int h2_uv_tls(struct h2_uv *, struct tls_ctx *, bool server);
const struct tls *h2_uv_peer(const struct h2_uv *); /* NULL: without TLS */
struct h2 *h2_uv_session(const struct h2_uv *);
void *h2_uv_user(const struct h2_uv *);
void h2_uv_close(struct h2_uv *); /* at once, without goodbye; on_gone follows from the loop */
