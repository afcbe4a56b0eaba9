/*
 * worker.h - the processes of hutch-worker: one parent, one child per slot, a sweeper, a relay.
 */
#pragma once
#include "job.h"
#include "lib/queue.h"
#include <signal.h>
#include <stdatomic.h>

/* What a child does now, in memory shared with its parent. The child writes it, but for the two
 * wishes. */
struct held {
	atomic_int busy; /* 1: id and epoch are a job that this child claimed */
	struct uuid id;
	int64_t epoch;
	atomic_int cancel, must_stop; /* wishes of the parent */
	atomic_int done;              /* jobs done since the start */
};

/* What a process works with: made after its fork, so that nothing is shared. */
struct process {
	const struct conf *conf;
	const struct keys *keys;
	struct db *db;
	struct queue *queue;
	struct held *held;
	const char *name; /* of the slot: machine, parent's pid, queue, number */
	pid_t parent;
};

/* Set by SIGTERM: end after what is in hand. */
extern volatile sig_atomic_t worker_stop;

/* Main functions of the children; each returns an exit code. */
int child_main(struct process *, const struct job_queue *);
int sweeper_main(struct process *);
int relay_main(struct process *);

/* Runs until SIGTERM. */
int parent_main(const char *conf_path, const struct conf *);

/* One step of the sweeper or the parent: jobs that lost their workers, with the events of those
 * that failed. */
int worker_crashed(struct work *, const struct job_ref *);

/* Sleeps, but not past SIGTERM. */
void worker_sleep(int64_t ms);
int64_t worker_now_ms(void);

/* A new unit of work on its own memory, with the process' connection. NULL: no database (logged).
 */
struct work *worker_unit(struct process *);
void worker_unit_end(struct work *);
