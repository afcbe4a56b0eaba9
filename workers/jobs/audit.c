/*
 * audit.c - timers of the audit log: signed checkpoints of the chains that grew, partitions of the
 * coming months.
 *
 * Queries: sql/queries/audit.sql.  Tests: tests/http/audit.py.
 */
#include "audit.q.h"
#include "audit_mark.h"
#include "db.h"
#include "workers/job.h"

static job_fn audit_checkpoint, month_partitions;

const struct job_kind audit_jobs[] = {
	{ "audit.checkpoint", audit_checkpoint },
	{ "month.partitions", month_partitions },
	{ 0 },
};

enum { USAGE_KEEP_DAYS = 90 };

static int
audit_checkpoint(struct job *j)
{
	if (job_begin(j) < 0 || marks_make(&j->work, j->conf->audit_checkpoint_file, j->keys) < 0)
		return -1;
	return job_commit(j);
}

static int
month_partitions(struct job *j)
{
	struct q_partitions_made *row;

	if (job_begin(j) < 0 ||
	    q_month_partitions(j->work.db, &row, .keep_days = USAGE_KEEP_DAYS) < 0)
		return -1;
	return job_commit(j);
}
