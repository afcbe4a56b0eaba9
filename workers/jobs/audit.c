/*
 * audit.c - timers of the audit log: signed checkpoints of the chains that grew, partitions of the
 * coming months.
 *
 * The file is written and synced before the commit: it may hold a checkpoint that the table lacks,
 * never the other way round.  Queries: sql/queries/audit.sql.  Tests: tests/http/audit.py.
 */
#include "audit.q.h"
#include "audit_mark.h"
#include "cleanup.h"
#include "db.h"
#include "workers/job.h"

#include <fcntl.h>
#include <string.h>
#include <time.h>

static job_fn audit_checkpoint, month_partitions;

const struct job_kind audit_jobs[] = {
	{ "audit.checkpoint", audit_checkpoint },
	{ "month.partitions", month_partitions },
	{ 0 },
};

enum { USAGE_KEEP_DAYS = 90 };

static int
append(struct job *j, const struct buf *lines)
{
	const char *path = j->conf->audit_checkpoint_file;
	auto_fd fd = open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0640);

	if (fd < 0 || write(fd, lines->data, lines->len) != (ssize_t)lines->len || fsync(fd) < 0)
		return err_sys(&j->work.err, "checkpoint file %s", path);
	return 0;
}

static int
audit_checkpoint(struct job *j)
{
	struct buf lines = BUF(j);
	struct q_audit_end *end;
	struct timespec now;
	int n, i;

	if (job_begin(j) < 0)
		return -1;
	n = q_audit_news(j->work.db, &end);
	clock_gettime(CLOCK_REALTIME, &now);
	for (i = 0; i < n; i++) {
		struct audit_mark m = { .team = *end[i].team_id,
			.seq = end[i].seq,
			.at = now.tv_sec * INT64_C(1000000) + now.tv_nsec / 1000 };

		if (end[i].hash.n != HASH_SIZE)
			return err_set(
			    &j->work.err, E_TAMPERED, "the head of an audit chain has no hash");
		memcpy(m.hash, end[i].hash.p, HASH_SIZE);
		mark_sign(j->keys, &m);
		mark_write(&lines, &m);
		if (q_audit_mark_insert(j->work.db, .team = &m.team, .seq = m.seq, .at = m.at,
			.hash = { m.hash, sizeof m.hash }, .key_id = m.key_id,
			.signature = { m.signature, sizeof m.signature }) < 0)
			return -1;
	}
	if (n < 0 || (n > 0 && append(j, &lines) < 0))
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
