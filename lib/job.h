/*
 * job.h - jobs: durable background work (spec 04 §2). This is the side of those who ask for it.
 *
 * A job is a row of `jobs`, inserted in the transaction of the change that causes it; queue, tries
 * and deadline of a kind stand in proto/jobs.def. Workers (workers/) do the work; Redis only rings.
 */
#pragma once
#include "id.h"
#include "queue.h"
#include "work.h"
#include <stdbool.h>
#include <stdint.h>

struct job_new {
	const char *kind;        /* of proto/jobs.def: "mail.send" */
	const struct uuid *team; /* NULL: the Platform team */
	const char
	    *args; /* text of a JSON object: ids only, no secrets, at most 64 KiB; NULL: {} */
	const char
	    *unique_key; /* one job of this kind and key is queued or running; NULL: any number */
	const char *lock_key; /* one job with this key runs at a time; NULL: no lock */
	int priority;         /* 0: the kind's; 1 urgent … 100 last */
	int64_t run_at;       /* microseconds since 1970; 0: now */
	int64_t deadline_at;  /* 0: the kind's */
	bool claimed;         /* the caller does it himself, at once (operations pool) */
	const char *worker;   /* with claimed: who that is, for the logs */
	int lease_sec;        /* with claimed: how long he may be silent; 0: 30 */
};

/*
 * Inserts a job in the caller's transaction; actor and request id are the unit's. 1: inserted. 0:
 * the same kind and unique_key is queued or running already, *ret is that job. -1: error (E_BUG: no
 * such kind). A claimed job whose lock_key is taken is inserted as queued: look at *claimed (may be
 * NULL unless .claimed).
 */
int job_add(struct work *, const struct job_new *, struct uuid *ret, bool *claimed);

/* After the commit: rings for the jobs and events that the unit added. Best effort; the sweeper
 * repeats it. */
void job_announce(struct work *, struct queue *);

/* Which run of which job is acting. A job that was inserted claimed has epoch 1. */
struct job_ref {
	struct uuid id;
	int64_t epoch;
};

/*
 * First statement of every transaction with an effect: locks the job's row for share. -1 with
 * E_FENCED: somebody else has the job, nothing may be done any more.
 */
int job_fence(struct work *, const struct job_ref *);

/* Lengthens the lease of a claimed job; 0 rows: E_FENCED. Its own transaction. */
int job_renew(struct work *, const struct job_ref *, int lease_sec);

/*
 * The inserting process ends the job that it claimed: with w->err unset it succeeded (result: text
 * of JSON, or NULL), else by the class of w->err as workers do: repeated later, or failed.
 * Transactions of its own.
 */
int job_end_claimed(struct work *, struct queue *, const struct job_ref *, const char *result);
/* … or hands it back to the workers: queued, due now, no attempt counted. */
int job_hand_back(struct work *, struct queue *, const struct job_ref *);

/* The table of kinds and queues, proto/jobs.def. */
struct job_queue {
	const char *name;
	int per_team;  /* running jobs of one team; 0: any number */
	int drain_sec; /* what a running job is given when its worker must end */
	bool keys;     /* its workers get the master secret */
	const char *doc;
};
struct job_kind_row {
	const char *name, *queue;
	int priority, tries; /* tries 0: for ever */
	int deadline_sec;    /* from creation; 0: none */
	bool visible;        /* shown to members, with job.* events */
	int keep_days;       /* how long a finished row stays; 0: an hour */
	const char *doc;
};
struct job_timer {
	const char *kind;
	int period_sec;
};
extern const struct job_queue job_queues[]; /* end with a NULL name */
extern const struct job_kind_row job_kind_rows[];
extern const struct job_timer job_timers[];
const struct job_queue *job_queue(const char *name);
const struct job_kind_row *job_kind_row(const char *name);

/* How a run of a job ends: shared by workers and job_end_claimed(). */
enum job_end {
	JOB_SUCCEEDED,
	JOB_PARTIAL,
	JOB_CANCELLED,
	JOB_FAILED,
	JOB_AGAIN,
	JOB_BUSY,
	JOB_YIELD
};
struct job_ending {
	enum job_end how;
	const char *result; /* text of JSON, or NULL */
	const char *error_code, *error_text;
	int64_t delay_us; /* JOB_AGAIN, JOB_BUSY, JOB_YIELD: until the next run */
};
/* What becomes of a run that failed with e: class, back-off with jitter, tries (spec 04 §2.3).
   waits: how often it was busy before; retry_after: seconds as told by the other side, or -1. */
void job_judge(const struct job_kind_row *, int attempts, int waits, int64_t retry_after,
    const struct err *e, struct job_ending *ret);
/* Writes the end in a transaction of its own and rings for whoever waited behind. E_FENCED: not
 * ours any more. */
int job_finish(struct work *, struct queue *, const struct job_ref *, const struct job_ending *);
