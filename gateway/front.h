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

/* Serves the listening socket fd (shared by the processes). on_request is called when a head has
   arrived; on_gone before a request is freed. */
struct front *front_open(void *mem, uv_loop_t *, int fd, struct gateway *,
    void (*on_request)(struct request *), struct err *);
/* No new connections; on_idle is called when the last request has ended (at once if there is none).
 */
void front_drain(struct front *, void (*on_idle)(struct gateway *));
size_t front_requests(const struct front *);
