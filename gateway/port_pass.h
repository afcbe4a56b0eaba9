/* port_pass.h - HTTP/1.1 to a service in a capsule, over a tunnel: every method, body, stream and
 * upgrade passes, nothing is kept (spec 02 §2.8). */
#pragma once
#include "port_access.h"

void port_pass(struct request *, const struct port_place *);
