/* server.h - the agent as an HTTP/2 server: what calls there are, who may make them. */
#pragma once
#include "h2.h"

/* For h2_new(); every session of the agent uses them. */
extern const struct h2_events server_events;
extern const struct h2_limits server_limits;
