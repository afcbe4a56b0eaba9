/* remove.h - removes trees in a child process: a large one would stop the agent for seconds. */
#pragma once
#include "call.h"
#include "user.h"

/* Removes path and what is below as this user, links not followed, then calls done(c): c->err says
   if it failed. Nothing is called when the caller has gone. -1: it could not be begun. */
int remove_tree(struct call *c, const struct user *, const char *path, call_fn *done);
