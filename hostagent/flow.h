/*
 * flow.h - a long operation as a table of steps.
 *
 * A step starts something and later calls flow_next() or flow_fail(), or does so at once. done() is
 * called exactly once, with NULL or the first error, unless the flow is freed before. It may free
 * the flow and everything around it.
 */
#pragma once
#include "err.h"
#include <stdint.h>
#include <uv.h>

struct flow;

struct step {
	const char *name; /* in the sentence of a deadline */
	void (*run)(void *user);
};

/* Starts from the loop, not from inside the call. steps end with a NULL run. */
struct flow *flow_new(void *mem, uv_loop_t *, const struct step *steps, void *user,
    void (*done)(void *user, const struct err *));
/* NULL or a flow that ended: an answer came when nobody waited any more; nothing happens. */
void flow_next(struct flow *);
void flow_fail(struct flow *, const struct err *);
/* The step that runs now (and all behind it, until set again) ends with E_TIMEOUT after ms; 0:
 * none. */
void flow_deadline(struct flow *, uint64_t ms);
