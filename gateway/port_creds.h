/*
 * port_creds.h - what of a request to a port is ours: credentials that open it, and that no service
 * in a capsule ever sees (spec 02 §2.8: allow, cookie, strip).
 */
#pragma once
#include "port_access.h"

struct port_creds {
	const char *api_key, *bearer;
	const struct credential_look *known; /* of a good cookie, or NULL */
	bool traffic;                        /* the traffic token is good */
};

/* Ours are known by their form: a service may have keys, tokens and cookies of its own. */
void port_creds_read(struct request *, const struct port_place *, struct port_creds *);
/* What of a header goes on to the service; NULL: nothing. On the request. */
const char *port_header(struct request *, const char *name, const char *value);
/* Is it TLS that the client speaks, as the web server says? */
bool port_secure(const struct request *);

/* GET /.hutch/auth?ticket=&to=: the cookie for a ticket, and back to `to`. */
void port_login(struct request *, const struct port_place *);
