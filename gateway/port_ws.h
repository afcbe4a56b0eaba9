/*
 * port_ws.h - a WebSocket that passes through a port, kept awake (spec 02 §2.8): pings to its
 * client go out between two frames of the service, and the client's answers to them go no further.
 *
 * Nothing else is changed, and nothing is understood but where frames end. It does no I/O.
 */
#pragma once
#include "buf.h"

#include <stdbool.h>
#include <stdint.h>

struct port_ws;

struct port_ws *port_ws_new(void *mem);
/* The service said this: it goes to the client as it is. */
void port_ws_down(struct port_ws *, const void *, size_t);
/* The client said this: what of it goes to the service is appended to `on`. */
void port_ws_up(struct port_ws *, const void *, size_t, struct buf *on);
/* A ping for the client, now; 0: it would stand within a frame. */
size_t port_ws_ping(const struct port_ws *, uint8_t ping[16]);
