/*
 * capsule_state.c - what may happen to a capsule on this host, and when.
 *
 * The table is the whole truth: a pair that is not in it is E_BAD_STATE. -T states prints it as a
 * graph.
 */
#include "capsule.h"
#include "control.h"
#include "metrics.h"

#include <stdio.h>

/* clang-format off */
static const char *const state_name[] = {
	[CAP_NEW] = "pending", [CAP_STARTING] = "starting", [CAP_RUNNING] = "running",
	[CAP_PAUSING] = "pausing", [CAP_PAUSED] = "paused", [CAP_RESUMING] = "resuming",
	[CAP_HIBERNATING] = "hibernating", [CAP_HIBERNATED] = "hibernated",
	[CAP_ERROR] = "error", [CAP_STOPPING] = "stopping", [CAP_GONE] = "stopped",
};
static const char *const event_name[] = {
	[EV_START] = "start", [EV_UP] = "up", [EV_FAIL] = "fail", [EV_EXITED] = "exited",
	[EV_PAUSE] = "pause", [EV_PAUSED] = "paused", [EV_RESUME] = "resume",
	[EV_ROLLBACK] = "rollback",
	[EV_HIBERNATE] = "hibernate", [EV_SEALED] = "sealed", [EV_BACK] = "back",
	[EV_STOP] = "stop", [EV_REMOVED] = "removed",
};

static const struct transition {
	enum capsule_state from;
	enum capsule_event ev;
	enum capsule_state to;
} transitions[] = {
	{ CAP_NEW,	EV_START,	CAP_STARTING },
	{ CAP_ERROR,	EV_START,	CAP_STARTING }, /* the same epoch only if it never ran */
	{ CAP_STARTING,	EV_UP,		CAP_RUNNING },
	{ CAP_STARTING,	EV_FAIL,	CAP_ERROR },
	{ CAP_RUNNING,	EV_EXITED,	CAP_ERROR },
	{ CAP_RUNNING,	EV_PAUSE,	CAP_PAUSING },
	{ CAP_PAUSING,	EV_PAUSED,	CAP_PAUSED },
	{ CAP_PAUSING,	EV_BACK,	CAP_RUNNING },
	{ CAP_PAUSING,	EV_EXITED,	CAP_ERROR },
	{ CAP_PAUSED,	EV_RESUME,	CAP_RESUMING },
	{ CAP_PAUSED,	EV_EXITED,	CAP_ERROR }, /* in RAM, without an image */
	{ CAP_RUNNING,	EV_ROLLBACK,	CAP_RESUMING },
	{ CAP_RESUMING,	EV_UP,		CAP_RUNNING },
	{ CAP_RESUMING,	EV_BACK,	CAP_PAUSED },
	{ CAP_RESUMING,	EV_EXITED,	CAP_ERROR },
	{ CAP_RUNNING,	EV_HIBERNATE,	CAP_HIBERNATING },
	{ CAP_PAUSED,	EV_HIBERNATE,	CAP_HIBERNATING },
	{ CAP_HIBERNATING, EV_SEALED,	CAP_HIBERNATED },
	{ CAP_HIBERNATING, EV_BACK,	CAP_PAUSED }, /* the memory is still there */
	{ CAP_HIBERNATING, EV_EXITED,	CAP_ERROR },
	{ CAP_HIBERNATED, EV_START,	CAP_STARTING },
	{ CAP_ERROR,	EV_RESUME,	CAP_RESUMING }, /* a cold boot of the disk that is here */
	{ CAP_ERROR,	EV_HIBERNATE,	CAP_HIBERNATING }, /* that disk alone */
	{ CAP_NEW,	EV_STOP,	CAP_STOPPING },
	{ CAP_PAUSING,	EV_STOP,	CAP_STOPPING },
	{ CAP_PAUSED,	EV_STOP,	CAP_STOPPING },
	{ CAP_RESUMING,	EV_STOP,	CAP_STOPPING },
	{ CAP_HIBERNATING, EV_STOP,	CAP_STOPPING },
	{ CAP_HIBERNATED, EV_STOP,	CAP_STOPPING },
	{ CAP_STARTING,	EV_STOP,	CAP_STOPPING },
	{ CAP_RUNNING,	EV_STOP,	CAP_STOPPING },
	{ CAP_ERROR,	EV_STOP,	CAP_STOPPING },
	{ CAP_STOPPING,	EV_REMOVED,	CAP_GONE },
};
/* clang-format on */

int
capsule_step(struct capsule *c, enum capsule_event ev, struct err *e)
{
	const struct transition *t;

	for (t = transitions; t < transitions + nitems(transitions); t++) {
		if (t->from != c->state || t->ev != ev)
			continue;
		log_info(NULL, "capsule %s epoch %lld: %s -> %s (%s)", c->id, (long long)c->epoch,
		    state_name[c->state], state_name[t->to], event_name[ev]);
		c->state = t->to;
		c->since = now_real();
		if (t->from == CAP_ERROR) {
			/* whatever comes of it, this end is history */
			c->hung = c->never_ran = c->boot_loop = false;
			c->exited_at = 0;
			c->exit_status = -1;
		}
		idle_changed(c);
		metrics_changed(c);
		logs_note(
		    c, "%s -> %s (%s)", state_name[t->from], state_name[t->to], event_name[ev]);
		if (c->state == CAP_GONE)
			logs_remove(c);
		control_changed(c);
		return 0;
	}
	return err_set(
	    e, E_BAD_STATE, "capsule %s is %s: no %s", c->id, state_name[c->state], event_name[ev]);
}

const char *
capsule_state_name(enum capsule_state s)
{
	return state_name[s];
}

void
capsule_states_dot(void)
{
	const struct transition *t;

	puts("digraph capsule {");
	for (t = transitions; t < transitions + nitems(transitions); t++)
		printf("\t%s -> %s [label=\"%s\"];\n", state_name[t->from], state_name[t->to],
		    event_name[t->ev]);
	puts("}");
}
