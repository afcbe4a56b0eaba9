/* port.h - requests that are not for Hutch but for a port of a capsule (spec 02 §2.8, 06 §3). */
#pragma once
#include "request.h"

/* Takes the request when its host name, its headers or its signature say so: before any path. */
bool port_request(struct request *);
