/*
 * port_host.h - which port of which capsule a request is for: <port>-<id>.<proxy.domain>, or the
 * headers E2b-Sandbox-Id and E2b-Sandbox-Port (spec 02 §2.8, 06 §3).
 */
#pragma once
#include "id.h"
#include <stdbool.h>

enum { GUEST_PORT = 49983 };

struct port_place {
	struct uuid capsule;
	unsigned port;    /* 0: it is no port, or no id: nothing is there */
	bool bare;        /* as E2B's clients write it: 25 characters; false: cl-… */
	bool by_host;     /* by its host name, so that it has cookies of its own */
	char id[ID_SIZE]; /* cl-…, as it was written */
};

/* Is it such a host name? A port behind either name means nothing: web servers listen where they
 * like. */
bool port_host_read(const char *host, const char *domain, struct port_place *);
/* The same of the headers; port NULL: the guest protocol's. */
void port_headers_read(const char *id, const char *port, struct port_place *);
