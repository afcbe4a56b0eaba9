/*
 * link.h - the byte channel to the host and the HTTP/2 session on it.
 *
 * The virtio-serial port stays open for ever; a host that goes away is an end of file, and with it
 * the session and every half-read frame are forgotten. A new preface is a new session. For tests a
 * unix socket takes the port's place, each connection a link.
 */
#pragma once
#include "err.h"

/* The port with this name, as it appears under /sys/class/virtio-ports. */
int link_open_port(const char *name, struct err *);
int link_listen_unix(const char *path, struct err *);
/* Writes what sessions have to send; after every round of events. */
void link_flush_all(void);
