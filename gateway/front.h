/*
 * front.h - HTTP/1.1 towards the web server: libmicrohttpd on the libuv loop.
 *
 * Why libmicrohttpd: docs/design/gateway-front.md. It hands heads and bodies to request.h;
 * back-pressure is its suspend and resume.
 */
#pragma once
#include "request.h"
#include <uv.h>

struct front;
struct sock;

/* Serves the listening socket fd (shared by the processes). on_request is called when a head has
   arrived; on_gone before a request is freed. */
struct front *front_open(void *mem, uv_loop_t *, int fd, struct gateway *,
    void (*on_request)(struct request *), struct err *);
/* No new connections; on_idle is called when the last request has ended (at once if there is none).
 */
void front_drain(struct front *, void (*on_idle)(struct gateway *));
size_t front_requests(const struct front *);
/* When nothing is left but upgraded connections they are told to leave (upgrade.h). */
void front_leave(struct front *);

/* For upgrade.c: the answer is 101, then the socket is handed over (a descriptor of our own, and
   what came with the request's head); the connection counts until front_ended(). */
bool reply_upgrade(struct request *, struct sock *);
void upgrade_opened(struct sock *, int fd, const void *more, size_t n);
void front_ended(struct front *);
