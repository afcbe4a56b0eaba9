/*
 * capsule_watch.c - operations that nobody works on any more are asked for again; see capsule_op.h.
 *
 * What hosts have is compared in host_watch.c.
 */
#include "capsule_steps.h"
#include "cleanup.h"

#include <string.h>

enum { STUCK_SECONDS = 10, PROOF_SECONDS = 30 };

/* Which job brings a capsule on from this state. */
static const struct {
	const char *state, *kind;
} ways[] = {
	{ "pending", "capsule.start" },
	{ "starting", "capsule.start" },
	{ "pausing", "capsule.pause" },
	{ "resuming", "capsule.resume" },
	{ "hibernating", "capsule.hibernate" },
	{ "stopping", "capsule.destroy" },
};

static int
ask_again(struct work *w, const struct q_life_due *due)
{
	struct job_ref job;
	size_t i;

	for (i = 0; strcmp(ways[i].state, due->observed_state) != 0; i++)
		;
	db_begin(w->db);
	if (capsule_job(w, ways[i].kind, due->team_id,
		&(struct op_args){ .capsule = due->id, .epoch = due->epoch, .memory = true }, NULL,
		&job, NULL) < 0)
		return -1;
	return db_commit(w->db);
}

int
capsule_reconcile(struct work *w, const struct op_env *env)
{
	struct q_life_due *due;
	int n, i;

	if (q_capsules_op_lost(w->db, .age = PROOF_SECONDS) < 0)
		return -1;
	n = q_capsules_stuck(w->db, &due, .age = STUCK_SECONDS);
	for (i = 0; i < n; i++)
		if (ask_again(w, &due[i]) < 0)
			return -1;
	if (n > 0 && env->queue)
		job_announce(w, env->queue);
	return n < 0 ? -1 : 0;
}
