/*
 * reports.h - changes of capsules that the control plane has not confirmed yet: in memory, and in
 * state_dir/reports, so that a restart of the agent loses none.
 *
 * Bounded: when there are too many the oldest go; the inventory still tells the truth.
 */
#pragma once
#include "agent.h"

struct reports;

/* What a former life of the agent left unsent is in it. */
struct reports *reports_open(void *mem, int state_fd);
void reports_add(struct reports *, const char *json); /* one JSON object, on one line */
size_t reports_waiting(const struct reports *);
/* Appends the oldest ones, at most n, with commas; the number of the last. */
int64_t reports_batch(const struct reports *, size_t n, struct buf *);
/* Confirmed up to this number. */
void reports_sent(struct reports *, int64_t number);
