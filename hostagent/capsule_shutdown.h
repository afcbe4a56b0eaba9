/* capsule_shutdown.h - the machine goes down, and was started again. See capsule_shutdown.c. */
#pragma once
#include "agent.h"

/* All capsules go to sleep on disk; done(agent) when they do, or when their time is over. */
void shutdown_begin(struct agent *, void (*done)(struct agent *));
/* Those that the machine's end has put to sleep run on. */
void shutdown_over(struct agent *);
/* Tells the agent of this state directory, and waits until it has ended. */
int shutdown_ask(const struct conf *, struct err *);
