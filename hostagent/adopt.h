/* adopt.h - what an earlier agent left: read the journal, take over what runs, remove the rest. */
#pragma once
#include "agent.h"

/* Opens the journal and adopts. ready(agent) once all that runs is ours again. */
int adopt_start(struct agent *, void (*ready)(struct agent *), struct err *);

/* Removes folders that belong to nobody; every minute. */
void adopt_sweep(struct agent *);
