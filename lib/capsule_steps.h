/*
 * capsule_steps.h - what the files of capsule operations share: capsule_op.c, capsule_sleep.c,
 * capsule_shot.c, capsule_fork.c, capsule_report.c.
 *
 * Every operation has one shape: read the row, stop when it is not in the operation's state and
 * epoch any more, call the agent (same op, same answer), move the row by compare-and-set with its
 * event, commit. A call whose outcome is not known leaves the row alone: it is made again.
 */
#pragma once
#include "agent.h"
#include "capsule_op.h"
#include "capsules.q.h"
#include "life.q.h"

/* What came of a call to an agent, when it failed: not known, or known to have failed. */
bool op_unknown(const struct err *);
/* BEGIN, and the fence when there is a job. */
int op_begin(struct work *, const struct job_ref *);
/* COMMIT, and the bells. */
int op_commit(struct work *, const struct op_env *);
/* An event of the capsule, by its dictionary. */
int op_event(struct work *, const struct q_capsule_op *, const char *type, const char *data);
/* capsule.error, pause_failed: operation, code, message. */
int op_event_error(struct work *, const struct q_capsule_op *, const char *type,
    const char *operation, const char *code, const char *message);

/* One call about the capsule to its host. verb: "" or "/pause". op: NULL, or its name; the epoch is
 * added. */
int op_call(struct work *, const struct q_capsule_op *, const char *method, const char *verb,
    const char *op, int64_t epoch, const char *body, int64_t wait_ms, struct json_object **ret);

/* Who the capsule is: the members of a start's body, without braces. NULL: the variables could not
 * be opened. */
const char *op_identity(struct work *, const struct op_env *, const struct q_capsule_op *);
/* Its times: timeout_sec, timeout_mode, idle_action, idle_signals; network; and the name of all
   that its host is told (told), which the host says in its inventory: host_watch.c. */
void op_times(struct buf *, const struct q_capsule_op *);
/* The whole body of a start at this epoch. */
const char *
op_start_body(struct work *, const struct op_env *, const struct q_capsule_op *, int64_t epoch);
/* Copies of what it starts from, brought to its host before the start. */
int op_pull(struct work *, const struct q_capsule_op *, int64_t wait_ms);

/* Data of an event that it sleeps: by whom; bytes on disk, 0: not known. */
const char *op_slept(struct work *, const char *by, int64_t bytes);

/* What it waits for on its way (state_reason), "": nothing any more. */
int op_waits(struct work *, const struct q_capsule_op *, const char *what);

/* starting, resuming -> running, with its event; from what the agent answered. */
int op_running(struct work *, const struct op_env *, const struct job_ref *,
    const struct q_capsule_op *, const char *from, struct json_object *answer);
/* A state -> error, with its event; keeps the unit's error, returns -1. */
int op_failed(struct work *, const struct job_ref *, const struct q_capsule_op *, int64_t epoch,
    const char *operation, const char *code);

/* Writes down what a host has sealed: artifacts and where they are. Hex ids; memory may be NULL. In
 * the caller's transaction. */
struct sealed {
	struct bytes memory, disk;
	const char *cpu_class;
	int64_t bytes;
};
int
op_sealed(struct work *, const struct uuid *host, struct json_object *answer, struct sealed *ret);
/* … as the image that the capsule wakes from. */
int op_image(struct work *, const struct q_capsule_op *, const struct sealed *);
