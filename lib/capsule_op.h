/*
 * capsule_op.h - what is done to capsules after the request was committed: by the operations pool
 * at once, by a worker later; both may run it twice (spec 02 §1).
 *
 * Each is level-triggered: it reads the row, does what is still missing, and moves the row by
 * compare-and-set. Transactions of its own; none may be open when it is called.
 */
#pragma once
#include "conf.h"
#include "crypto.h"
#include "job.h"
#include "work.h"

struct op_env {
	const struct conf *conf;
	const struct keys *keys;
	struct queue *queue; /* for bells; may be NULL */
};

/*
 * starting -> running. 0: it runs, or somebody else moved it. -1: E_TIMEOUT (the host still works
 * on it: call again), or why not; with `last` the row is then in state error. job: whose effects
 * are fenced.
 */
int capsule_op_start(struct work *, const struct op_env *, const struct job_ref *job,
    const struct uuid *id, int64_t epoch, int64_t wait_ms, bool last);

/* stopping -> stopped. 0: gone. -1: the host did not confirm; to be repeated for ever. */
int capsule_op_destroy(struct work *, const struct op_env *, const struct job_ref *job,
    const struct uuid *id, int64_t wait_ms);

/* Asks again for operations that nobody works on any more (timer capsule.reconcile). Needs role
 * hutch_work. */
int capsule_reconcile(struct work *, const struct op_env *);

/* Silent hosts become unreachable; inventories are compared with the rows (timer host.monitor).
 * Role hutch_work. */
int host_monitor(struct work *, const struct op_env *);

/* One change that a host reported: {id, epoch, state, code}. By compare-and-set only. In the
 * caller's transaction. */
int capsule_reported(struct work *, const struct uuid *id, int64_t epoch, const char *state,
    const char *code, const char *message);

/* The job args of capsule.start and capsule.destroy. */
const char *capsule_args(void *mem, const struct uuid *id, int64_t epoch);
/* Seals and opens the variables of a capsule (JSON object text). */
struct bytes
capsule_envs_seal(void *mem, const struct keys *, const struct uuid *id, const char *json);
