/*
 * capsule_op.h - what is done to capsules after the request was committed: by the operations pool
 * at once, by a worker later; both may run it twice (spec 02 §1).
 *
 * Each is level-triggered: it reads the row, does what is still missing, and moves the row by
 * compare-and-set. Transactions of its own; none may be open when it is called. 0: done, or
 * somebody else moved the row. -1 with E_TIMEOUT, E_HOST_UNAVAILABLE or E_OVERLOADED: the outcome
 * is not known, call again. -1 with anything else: it failed and the row says so.
 */
#pragma once
#include "conf.h"
#include "crypto.h"
#include "job.h"
#include "json.h"
#include "work.h"

struct op_env {
	const struct conf *conf;
	const struct keys *keys;
	struct queue *queue; /* for bells; may be NULL */
};

/* What a job of a capsule is told. */
struct op_args {
	const struct uuid *capsule;
	int64_t epoch;
	const struct uuid *snapshot, *safety;
	bool memory, last;
	bool destroy; /* behind the snapshot, which is its last */
};
typedef int capsule_op(struct work *, const struct op_env *, const struct job_ref *,
    const struct op_args *, int64_t wait_ms);

/* pending -> starting (E_NO_HOSTS: not yet) -> running. With args->last a failure is for good. */
capsule_op capsule_op_start;
/* stopping -> stopped. -1: the host did not confirm; to be repeated for ever. */
capsule_op capsule_op_destroy;
capsule_op capsule_op_pause;     /* pausing -> paused, or running again */
capsule_op capsule_op_resume;    /* resuming -> running, or asleep again, or error */
capsule_op capsule_op_hibernate; /* hibernating -> hibernated, or what the host says */
capsule_op capsule_op_snapshot;  /* args->snapshot: creating -> ready, failed */
capsule_op capsule_op_rollback;  /* to args->snapshot; args->safety is taken first */
capsule_op capsule_op_update;    /* the host is told times, network and disk as they are now;
                                    E_OVERLOADED    while it moves */
capsule_op capsule_op_fork;      /* the children of this capsule that are `starting` by this job */

/* The operation of a kind of job ("capsule.pause"); NULL: none. */
capsule_op *capsule_op_of(const char *kind);

/* Asks again for operations that nobody works on any more (timer capsule.reconcile). Needs role
 * hutch_work. */
int capsule_reconcile(struct work *, const struct op_env *);
/* Lifetimes, warnings, idle destroys, snapshots whose time is over (timer capsule.policy). Role
 * hutch_work. */
int capsule_policy(struct work *, const struct op_env *);
/* Artifacts that nothing names go (timer artifact.gc). Role hutch_work. */
int artifact_gc(struct work *);

/* Silent hosts become unreachable; inventories are compared with the rows (timer host.monitor).
 * Role hutch_work. */
int host_monitor(struct work *, const struct op_env *);

/* What a host says of a capsule: in a report, or in its inventory. */
struct capsule_report {
	const struct uuid *id;
	int64_t epoch;
	const char *state; /* running, paused, hibernated, error, exited */
	const char *code, *message;
	const char *residency, *by;              /* paused, hibernated */
	const char *memory, *disk, *cpu_class;   /* hibernated: hex ids of artifacts */
	const char *memory_parent, *disk_parent; /* … and what they lie on */
	int64_t bytes;
	int64_t reboots; /* of its guest, as the host counts */
	int64_t idle_s;  /* running: since the last use, 0 while it lasts; -1: not told */
};
/* The report's fields of a JSON object. */
struct capsule_report capsule_report_read(const struct uuid *id, struct json_object *);
/* Applies it by compare-and-set only, in the caller's transaction. change_no: the row must not have
 * changed since; NULL_INT: any. */
int capsule_reported(struct work *, const struct capsule_report *, int64_t change_no);

/* A destroy that policy, a report or a cascade asks for: state, job, audit, event, in the caller's
 * transaction. 1: accepted; 0: it was already. */
int capsule_destroy_for(
    struct work *, const struct uuid *team, const struct uuid *id, int64_t epoch, const char *why);

/*
 * Wakes a paused, hibernated or failed capsule: quota, host, compare-and-set, audit, job; in the
 * caller's transaction. cause: "user", "auto_resume". 1: on its way, *job is its job; 0: it is not
 * asleep any more. -1: E_QUOTA, E_NO_HOSTS, E_HOST_UNAVAILABLE, E_CONFLICT, E_BAD_STATE, …
 */
struct wake_ask {
	const struct uuid *id;
	const char *cause;
	bool cold;           /* without its memory */
	int32_t timeout_sec; /* NULL_INT4: as it was */
	const char *worker;  /* who does the job at once; NULL: a worker shall */
	const char *note;    /* what is lost by it; NULL: nothing */
};
struct wake {
	struct job_ref job;
	bool claimed;
	int64_t epoch;
};
int capsule_wake(struct work *, const struct op_env *, const struct wake_ask *, struct wake *ret);

/* A job of a capsule: one of a kind at a time, behind the capsule's lock. epoch in *ret is 1. */
int capsule_job(struct work *, const char *kind, const struct uuid *team, const struct op_args *,
    const char *worker, struct job_ref *ret, bool *claimed);

/* Seals and opens the variables of a capsule or snapshot (JSON object text). */
struct bytes
capsule_envs_seal(void *mem, const struct keys *, const struct uuid *id, const char *json);
struct bytes capsule_envs_open(
    void *mem, const struct keys *, const struct uuid *id, struct bytes sealed, struct err *);
