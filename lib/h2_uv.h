/*
 * h2_uv.h - an h2 session on a libuv stream (unix socket, TCP, socketpair).
 *
 * Reads feed the session; after every event of the loop iteration what is to send is written.
 */
#pragma once
#include "h2.h"
#include <uv.h>

struct h2_uv;

/* Takes over an open, connected stream handle's descriptor. on_gone is called once, when the connection
   has ended for whatever reason; the session is freed after it returns. */
struct h2_uv *h2_uv_open(void *mem, uv_loop_t *, int fd, enum h2_role, const struct h2_events *,
    const struct h2_limits *, void *user, void (*on_gone)(struct h2_uv *, const struct err *));
struct h2 *h2_uv_session(struct h2_uv *);
void *h2_uv_user(struct h2_uv *);
/* Call after touching streams from outside a callback of this session: writes what is due. */
void h2_uv_flush(struct h2_uv *);
void h2_uv_close(struct h2_uv *); /* at once; on_gone follows from the loop */
