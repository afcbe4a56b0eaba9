/*
 * capsules.c - what must happen to capsules when the operations pool could not finish it, and their
 * watchers.
 *
 * The work itself is lib/capsule_op.c, which the operations pool shares. Level-triggered: a run
 * that finds nothing to do has done its job.
 */
#include "workers/job.h"
#include "capsule_op.h"
#include "db.h"

static job_fn capsule_start, capsule_destroy, reconcile, monitor;

struct capsule_args {
	const struct uuid *capsule;
	int64_t epoch;
};
static const struct field capsule_args_fields[] = {
	FIELD(capsule_args, capsule, "capsule", .flags = NEEDED, .prefix = "cl-"),
	FIELD(capsule_args, epoch, "epoch", .min = 0, .max = INT64_MAX),
	{ 0 },
};

const struct job_kind capsule_jobs[] = {
	{ "capsule.start", capsule_start, IN(capsule_args) },
	{ "capsule.destroy", capsule_destroy, IN(capsule_args) },
	{ "capsule.reconcile", reconcile },
	{ "host.monitor", monitor },
	{ 0 },
};

/* A cold boot without KVM may take this long (spec 02 §1.3); for a stop a host has as much. */
enum { WAIT_MS = 65000 };

static struct op_env
env(const struct job *j)
{
	return (struct op_env){ .conf = j->conf, .keys = j->keys, .queue = j->queue };
}

/* The last try leaves the capsule in state error. What can't be repeated is the last try: it is
   done once more as such, for which the host has its answer ready. */
static int
capsule_start(struct job *j)
{
	const struct capsule_args *in = j->in;
	bool last = j->try >= job_kind_row(j->kind->name)->tries;
	struct op_env e = env(j);
	enum err_code code;

	if (capsule_op_start(&j->work, &e, &j->ref, in->capsule, in->epoch, WAIT_MS, last) == 0)
		return 0;
	code = j->work.err.code;
	if (last || code == E_FENCED || err_kinds[code].class != PERMANENT)
		return -1;
	db_rollback(j->work.db);
	j->work.err = (struct err){ 0 };
	return capsule_op_start(&j->work, &e, &j->ref, in->capsule, in->epoch, WAIT_MS, true);
}

static int
capsule_destroy(struct job *j)
{
	const struct capsule_args *in = j->in;
	struct op_env e = env(j);

	return capsule_op_destroy(&j->work, &e, &j->ref, in->capsule, WAIT_MS);
}

static int
reconcile(struct job *j)
{
	struct op_env e = env(j);

	return capsule_reconcile(&j->work, &e);
}

static int
monitor(struct job *j)
{
	struct op_env e = env(j);

	return host_monitor(&j->work, &e);
}
