/*
 * metrics.c - the timer that notes every ten seconds what each team holds.
 *
 * Queries: sql/queries/metrics.sql. Two runs in one slot write the same rows.
 */
#include "workers/job.h"
#include "db.h"
#include "metrics.q.h"

static job_fn usage_sample;

const struct job_kind metrics_jobs[] = {
	{ "usage.sample", usage_sample },
	{ 0 },
};

static int
usage_sample(struct job *j)
{
	if (job_begin(j) < 0 || db_exec(j->work.db, &Q_team_metrics_sample, NULL) < 0)
		return -1;
	return job_commit(j);
}
