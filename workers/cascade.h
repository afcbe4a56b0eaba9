/*
 * cascade.h - a job in steps, each with a checkpoint; its failures are items of the job, and none
 * of them stops another step (spec 04 §2.8). Shared by the jobs that follow deletions to their end.
 */
#pragma once
#include "workers/job.h"

/* A step may run twice and finds less to do the second time. */
struct cascade_step {
	const char *name;
	job_fn *fn;
};

/* Runs the steps from the checkpoint on; the table ends with a NULL name. Crash points are
 * kind.step before a step and kind.step.done behind it, kind.item behind each capsule. */
int cascade_run(struct job *, const struct cascade_step *);

/* In a transaction of the job: its item is now so. why: of a failed one, or NULL. */
int cascade_item(struct job *, const char *target, const char *state, const struct err *why);

/* Asks for the end of every capsule of the team (all, or those that shall stop), an item each.
 * cause: for the audit rows. */
int cascade_stop_capsules(struct job *, const struct uuid *team, bool all, const char *cause);
/* Ends the items of capsules that are gone. Returns how many are still open; -1. teams: uuids as
 * text, ended by NULL. */
int cascade_settle(struct job *, const char *const *teams);

/*
 * storage.c: deletes the objects of a connection from its store, best effort, an item each; and
 * then the connection's row with its credentials.
 */
struct q_connection_secret;
int storage_delete_objects(struct job *, const struct q_connection_secret *);
/* One transaction: the credentials of these connections go, with the row that says so. team: whose
 * log. */
int storage_purge(struct job *, const struct q_connection_secret *, int n, const struct uuid *team);
