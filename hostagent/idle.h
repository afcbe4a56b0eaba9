/*
 * idle.h - the idle timer of a capsule (spec 02 §1.5): what counts as use, and what follows when
 * nothing does.
 *
 * The clock is the monotonic one and stands still while the capsule does not run. When it is due
 * the capsule is paused or hibernated here, without asking anybody; the report follows. It never
 * destroys: with `destroy` the capsule is paused, and the control plane decides on the report.
 */
#pragma once
#include "agent.h"
#include "json.h"

/* Signals, as in idle_signals. */
enum {
	IDLE_API = 1,
	IDLE_EXEC = 2,
	IDLE_INPUT = 4,
	IDLE_PORT = 8,
	IDLE_PROCESS = 16,
	IDLE_CPU = 32,
};

enum { TOLD_SIZE = 33 };

enum idle_action { IDLE_PAUSE, IDLE_HIBERNATE, IDLE_DESTROY };

struct idle_settings {
	int64_t timeout_sec; /* 0: never */
	bool fixed;          /* timeout_mode: from the last explicit call on, whatever is used */
	enum idle_action action;
	bool disk_only; /* hibernates without its memory */
	unsigned signals;
	char
	    told[TOLD_SIZE]; /* the control plane's name for all that it told with these: network
	                        and disk, too. It compares the inventory's with its own; "": none */
};

struct idle;
struct idle_hold;

/* The bit of a signal's name; 0: there is none. */
unsigned idle_signal(const char *name);

/* The members of a PUT or PATCH that are there change *set; absent ones stay. -1: E_BAD_INPUT. */
int idle_read(struct json_object *, struct idle_settings *set, struct err *);
/* Whether any of them is there. */
bool idle_named(struct json_object *);
/* What a capsule has when nothing was said: no timeout. */
void idle_defaults(struct idle_settings *);
/* New settings by an explicit call: the time begins anew. */
void idle_set(struct capsule *, const struct idle_settings *);
const struct idle_settings *idle_get(const struct capsule *);
/* The capsule's state changed: the clock runs or stands. */
void idle_changed(struct capsule *);

/* Somebody used it: one signal. */
void idle_touch(struct capsule *, unsigned signal);
/* It is in use until the hold is freed. */
struct idle_hold *idle_hold(void *mem, struct capsule *, unsigned signal);
/* What metrics.c saw in the last minute: percent of one vCPU; living processes, -1: not known. */
void idle_sample(struct capsule *, double cpu, int processes);

/* Members for the journal's record, and from it. */
void idle_record(const struct capsule *, struct buf *);
void idle_restore(struct capsule *, struct json_object *);
/* Members for GET and for reports: "timeout_sec":…,"idle_ms":… */
void idle_json(const struct capsule *, struct buf *);
/* How long each has been quiet, for the next agent; and from the one before. */
void idle_save(struct agent *);
void idle_load(struct agent *);
