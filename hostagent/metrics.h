/*
 * metrics.h - what each capsule uses, seen from the host (spec 02 §6.10).
 *
 * Once a second from its cgroup or its process, its files and QEMU; what only the guest knows (the
 * memory it uses itself, its network when QEMU does that in user mode) once in ten seconds from the
 * guest agent, and called so. Three tiers in bounded memory; what the control plane has not taken
 * yet waits as rows of tier and time.
 */
#pragma once
#include "agent.h"

struct metrics;

/* Starts the sampling. */
void metrics_start(struct agent *);
/* The capsule's state changed: all tiers go out when it stops to run. */
void metrics_changed(struct capsule *);
/* The guest agent has not answered for half a minute: a condition, no more. */
bool metrics_guest_silent(const struct capsule *);
/* Appends {"points":[…],…} of a tier ("10m", "2h", "24h") that begin at `since` (unix seconds) or
   later. -1: no such tier. */
int metrics_json(const struct capsule *, const char *tier, int64_t since, struct buf *);
/* Rows that wait for the control plane: appends at most `most` as JSON texts with commas; they stay
   until metrics_sent() hears the sequence that this returned. */
bool metrics_waiting(void);
int64_t metrics_rows(size_t most, struct buf *);
void metrics_sent(int64_t sequence);
