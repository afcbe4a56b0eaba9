/*
 * retention.c - timers that delete what is kept no longer, and make room for what comes.
 *
 * Each statement deletes by age, at most 10,000 rows; a repeat finds less. Queries:
 * sql/queries/sweeper.sql.
 */
#include "workers/job.h"
#include "accounts.q.h"
#include "cleanup.h"
#include "db.h"
#include "log.h"
#include "metrics.q.h"
#include "streams.q.h"
#include "sweeper.q.h"

static job_fn retention_sweep, partition_create;

const struct job_kind retention_jobs[] = {
	{ "retention.sweep", retention_sweep },
	{ "partition.create", partition_create },
	{ 0 },
};

enum { EVENTS_KEEP_DAYS = 90, METRICS_KEEP_DAYS = 30, KINDS_MAX = 200 };

static int
old_jobs(struct job *j)
{
	const char *kinds[KINDS_MAX + 1] = { 0 }, *days[KINDS_MAX + 1] = { 0 };
	const struct job_kind_row *k;
	int n = 0;

	for (k = job_kind_rows; k->name && n < KINDS_MAX; k++, n++) {
		kinds[n] = k->name;
		days[n] = talloc_asprintf(j, "%d", k->keep_days);
	}
	return q_retain_jobs(j->work.db, .kinds = kinds, .days = days);
}

/* The statements without parameters, one transaction each. */
static const struct query *const sweeps[] = { &Q_retain_slots, &Q_retain_tokens,
	&Q_retain_idempotency, &Q_retain_sessions, &Q_retain_addresses, &Q_retain_unsent,
	&Q_retain_signups, &Q_throttle_sweep, &Q_factors_sweep, &Q_retain_metrics,
	&Q_retain_team_metrics, &Q_tickets_sweep };

static int
retention_sweep(struct job *j)
{
	int total = 0, n;
	size_t i;

	for (i = 0; i <= nitems(sweeps); i++) {
		if (job_begin(j) < 0)
			return -1;
		n = i < nitems(sweeps) ? db_exec(j->work.db, sweeps[i], NULL) : old_jobs(j);
		if (n < 0 || job_commit(j) < 0)
			return -1;
		total += n;
	}
	log_info(j->work.id, "retention: %d rows", total);
	return 0;
}

static int
partition_create(struct job *j)
{
	struct q_partitions *row;
	struct q_metric_partitions *metrics;

	if (job_begin(j) < 0)
		return -1;
	if (q_partitions_make(j->work.db, &row, .keep_days = EVENTS_KEEP_DAYS) < 0 ||
	    q_metrics_partitions_make(j->work.db, &metrics, .keep_days = METRICS_KEEP_DAYS) < 0)
		return -1;
	return job_commit(j);
}
