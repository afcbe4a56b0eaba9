/*
 * job.h - what a kind of job is, and what its function may do.
 *
 * A function may run twice, and may be killed anywhere: every transaction with an effect begins
 * with job_begin() and is safe to repeat. It returns 0, or -1 with work.err set; the class of the
 * error decides what becomes of the job (lib/errors.def, spec 04 §2.3).
 */
#pragma once
#include "lib/conf.h"
#include "lib/crypto.h"
#include "lib/field.h"
#include "lib/job.h"
#include "lib/work.h"
#include <talloc.h>

struct held;

struct job {
	struct work work; /* first: a job is a unit of work */
	const struct job_kind *kind;
	struct job_ref ref;      /* which run of which job this is */
	const struct uuid *team; /* zero: the Platform team */
	const void *in;          /* kind->in, filled and checked */
	int try;                 /* 1, 2, … */
	const char *checkpoint;  /* text of JSON that an earlier run saved, or NULL */
	const struct conf *conf;
	const struct keys *keys; /* NULL in queues that get no secrets */
	struct queue *queue;
	struct held *held;

	/* what the function may set */
	enum job_end how;    /* JOB_SUCCEEDED when it returns 0 */
	const char *result;  /* text of JSON */
	int64_t delay_us;    /* JOB_YIELD: until the next run */
	int64_t retry_after; /* seconds the other side told; -1 */
};

typedef int job_fn(struct job *);

struct job_kind {
	const char *name; /* a row of proto/jobs.def */
	job_fn *fn;
	const struct field *in; /* of args */
	size_t insize;
};
#define IN(st) .in = st##_fields, .insize = sizeof(struct st)

const struct job_kind *job_kind(const char *name); /* NULL: nothing here does it */

/* BEGIN and fence. -1 with E_FENCED: somebody else has the job; return -1 at once. */
int job_begin(struct job *);
/* COMMIT, then ring for what the transaction added. */
int job_commit(struct job *);
/* Inside such a transaction: how far the job is, for the next run. */
int job_save(struct job *, const char *checkpoint, const char *phase);

/* Between two steps: must the job save itself and `return job_yield(j)`? Its worker ends. */
bool job_must_stop(const struct job *);
int job_yield(struct job *);
/* Nothing can be done yet: again after that time, uncounted. */
int job_again(struct job *, int64_t delay_ms);
/* Between two steps: does somebody want it cancelled? Then return err_set(&j->work.err,
 * E_CANCELLED, …). */
bool job_cancelled(const struct job *);
