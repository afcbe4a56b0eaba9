/* starts.h - how many VMs may start at once: as many as cores, or a clone waits for its neighbours.
 */
#pragma once
#include "agent.h"
#include "flow.h"

struct start;

/* A place in the queue, held until it is freed. flow_next(flow) when it is this one's turn. */
struct start *start_wait(struct agent *, void *mem, bool soon, struct flow *);
