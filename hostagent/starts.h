/* starts.h - how many VMs may start at once: as many as cores, or a clone waits for its neighbours.
 *
 * Those somebody waits for (soon) go first. The others, which only refill pools, leave one core
 * free, and begin when no create came for a moment: a create that takes a hot clone needs a core,
 * too.
 */
#pragma once
#include "agent.h"
#include "flow.h"

struct start;

/* A place in the queue, held until it is freed. flow_next(flow) when it is this one's turn. */
struct start *start_wait(struct agent *, void *mem, bool soon, struct flow *);
/* A create goes on without a place here. */
void starts_noticed(struct agent *);
