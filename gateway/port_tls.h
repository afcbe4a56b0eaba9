/*
 * port_tls.h - TLS to a service in a capsule, between the tunnel's bytes and HTTP/1.1.
 *
 * Nobody is verified: the tunnel ends in the capsule, and the service is a stranger's with any
 * certificate (spec 02 §2.8).
 */
#pragma once
#include "err.h"

#include <stddef.h>
#include <stdint.h>

struct gateway;
struct port_tls;

struct port_tls_events {
	void (*on_wire)(void *, const void *, size_t); /* bytes for the tunnel */
	void (*on_ready)(void *);                      /* port_tls_write() may be called */
	void (*on_data)(void *, const char *, size_t);
	void (*on_end)(void *); /* the service says no more */
	void (*on_fail)(void *, const struct err *);
};

/* Begins at once. name: what the service is called, or NULL. Not freed inside of an event: an event
   calls port_tls_stop(). */
struct port_tls *port_tls_open(
    void *mem, struct gateway *, const char *name, const struct port_tls_events *, void *arg);
void port_tls_feed(struct port_tls *, const uint8_t *, size_t); /* from the tunnel */
void port_tls_write(struct port_tls *, const void *, size_t);
void port_tls_finish(struct port_tls *); /* we say no more */
void port_tls_stop(struct port_tls *);   /* no event comes any more */
