/*
 * own_log.h - the agent's own log (log.h), once more in state_dir/log/agent.0 and agent.1: 1 MiB
 * each, the newer and the older half, for whoever reads it through the API.
 */
#pragma once
#include "agent.h"

/* From here on all lines are kept. Without a file: they only go where they went before. */
void own_log_open(struct agent *);
/* Appends the last `lines` lines (at most), oldest first, with commas: each is a JSON object. */
void own_log_tail(const struct agent *, int lines, struct buf *);
