/*
 * load.h - what the machine and the agent itself use, in tiers like a capsule's metrics: of the
 * machine processor, memory and disk, of the agent its own process, and how many capsules there
 * are.
 *
 * It is kept in memory only: an agent that was started again begins anew.
 */
#pragma once
#include "agent.h"

/* Starts the sampling. */
void load_start(struct agent *);
/* Appends {"machine":{…},"agent":{…},"pools":[…],"points":[…]} of a tier ("10m", "2h", "24h"). -1:
   no such tier. */
int load_json(const struct agent *, const char *tier, struct buf *);
