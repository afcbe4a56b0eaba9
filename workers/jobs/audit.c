/*
 * audit.c - timers of the audit log: signed checkpoints of the chains that grew, partitions of the
 * coming months; each day every chain is verified.
 *
 * Queries: sql/queries/audit.sql.  Tests: tests/http/audit.py, tests/jobs/audit.py.
 */
#include "audit.h"
#include "audit.q.h"
#include "audit_check.h"
#include "cleanup.h"
#include "db.h"
#include "log.h"
#include "workers/job.h"

#include <inttypes.h>

static job_fn audit_checkpoint, audit_verify, month_partitions;

const struct job_kind audit_jobs[] = {
	{ "audit.checkpoint", audit_checkpoint },
	{ "audit.verify", audit_verify },
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

/* A row and an event of what was found, once. */
static int
tell(struct audit_check *v, const struct uuid *team, int64_t seq, const char *why)
{
	struct job *j = v->arg;
	const char *id = id_text(j, "team-", team);
	const char *data = talloc_asprintf(j, "{\"team_id\":\"%s\",\"seq\":%" PRId64 "}", id, seq);
	const char *metadata = talloc_asprintf(
	    j, "{\"team\":\"%s\",\"seq\":%" PRId64 ",\"reason\":\"%s\"}", id, seq, why);
	struct q_audit_seq *row;
	int n;

	log_error(
	    j->work.id, "the audit log of %s does not verify: row %" PRId64 ": %s", id, seq, why);
	if (job_begin(j) < 0)
		return -1;
	n = q_audit_finding(j->work.db, &row, .finding = metadata);
	if (n < 0)
		return -1;
	if (n == 0 &&
	    audit_add(&j->work, AUDIT_AUDIT_VERIFY_FAILED,
		&(struct audit){ .resource_id = id, .metadata = metadata, .data = data }) < 0)
		return -1;
	return job_commit(j);
}

static bool
must_stop(struct audit_check *v)
{
	return job_must_stop(v->arg);
}

/* Stopped on the way it begins anew elsewhere: what was found is told once all the same. */
static int
audit_verify(struct job *j)
{
	struct audit_check v = { .found = tell, .stop = must_stop, .arg = j };

	mark_keys_of(j->keys, &v.keys);
	if (audit_check_all(&j->work, &v) < 0)
		return -1;
	if (job_must_stop(j))
		return job_yield(j);
	j->result = talloc_asprintf(j,
	    "{\"rows\":%" PRId64 ",\"teams\":%" PRId64 ",\"checkpoints\":%" PRId64 ",\"bad\":%d}",
	    v.rows, v.teams, v.marks, v.bad);
	return 0;
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
