/* cascade.c - see cascade.h. Queries: sql/queries/cascade.sql. Tests: tests/jobs/deletion.py. */
#include "cascade.h"
#include "audit.h"
#include "capsule_op.h"
#include "cascade.q.h"
#include "crash.h"
#include "db.h"
#include "log.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

static void
crash_at(const struct job *j, const char *place, const char *end)
{
	char name[96];

	snprintf(name, sizeof name, "%s.%s%s", j->kind->name, place, end);
	crash_point(name);
}

int
cascade_run(struct job *j, const struct cascade_step *steps)
{
	int64_t at = 0;
	const struct cascade_step *s;

	if (j->checkpoint && sscanf(j->checkpoint, "{\"step\": %" SCNd64, &at) != 1)
		return err_set(&j->work.err, E_BUG, "the checkpoint is no step");
	/* the rows that a job writes are the system's: nobody waits for them, and they name nobody
	 */
	j->work.actor = (struct actor){ 0 };
	for (s = steps; s->name; s++) {
		if (s - steps < at)
			continue;
		if (job_must_stop(j))
			return job_yield(j);
		crash_at(j, s->name, "");
		if (s->fn(j) < 0)
			return -1;
		if (j->how == JOB_YIELD)
			return 0;
		crash_at(j, s->name, ".done");
		if (job_begin(j) < 0 ||
		    job_save(j, talloc_asprintf(j, "{\"step\":%d}", (int)(s - steps) + 1),
			s->name) < 0 ||
		    job_commit(j) < 0)
			return -1;
	}
	return 0;
}

int
cascade_item(struct job *j, const char *target, const char *state, const struct err *why)
{
	return q_item_put(j->work.db, .job = &j->ref.id, .target = target, .state = state,
		   .code = why ? err_kinds[why->code].slug : NULL,
		   .text = why ? why->text : NULL) < 0
	    ? -1
	    : 0;
}

static int
stop_one(
    struct job *j, const struct uuid *team, const struct q_doomed_capsule *c, const char *cause)
{
	const char *id = id_text(j, "cl-", c->id);

	if (job_begin(j) < 0)
		return -1;
	if (!c->stopping && capsule_destroy_for(&j->work, team, c->id, c->epoch, cause) < 0)
		return -1;
	if (cascade_item(j, id, "running", NULL) < 0 || job_commit(j) < 0)
		return -1;
	crash_at(j, "item", "");
	return 0;
}

int
cascade_stop_capsules(struct job *j, const struct uuid *team, bool all, const char *cause)
{
	struct q_doomed_capsule *c;
	int n, i;

	for (;;) {
		n = q_capsules_doomed(j->work.db, &c, .team = team, .all = all, .job = &j->ref.id);
		if (n <= 0)
			return n;
		for (i = 0; i < n; i++)
			if (stop_one(j, team, &c[i], cause) < 0)
				return -1;
	}
}

int
cascade_settle(struct job *j, const char *const *teams)
{
	struct q_item_counts *counts;
	struct q_item_target *t;
	int n, i;

	do {
		if (job_begin(j) < 0)
			return -1;
		n = q_capsules_settled(j->work.db, &t, .job = &j->ref.id, .teams = teams);
		for (i = 0; i < n; i++)
			if (cascade_item(j, t[i].target, "succeeded", NULL) < 0)
				return -1;
		if (n < 0 || job_commit(j) < 0)
			return -1;
	} while (n > 0);
	if (q_items_count(j->work.db, &counts, .job = &j->ref.id, .prefix = "cl-") < 0)
		return -1;
	return (int)counts->open;
}
