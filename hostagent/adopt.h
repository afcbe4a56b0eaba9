/* adopt.h - what an earlier agent left: read the journal, take over what runs, remove the rest. */
#pragma once
#include "agent.h"

/* Opens the journal and adopts. ready(agent) once all that runs is ours again. */
int adopt_start(struct agent *, void (*ready)(struct agent *), struct err *);

/* The journal's word for the capsule's present state; NULL: it has none. */
const char *adopt_word(const struct capsule *);

/* Removes folders that belong to nobody; every minute. */
void adopt_sweep(struct agent *);
