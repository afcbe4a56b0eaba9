/* resume.h - the programs in /etc/hutch/resume.d, which services put there to be told of a
 * restoration. */
#pragma once
#include "call.h"

/* Runs them one after the other, two seconds in all, then calls done(c); c is NULL when the caller
   went away meanwhile, or was NULL. Without programs done is called at once. */
void resume_run(struct call *c, void (*done)(struct call *));
/* A child has died; true if it was ours. */
bool resume_died(int pid);
