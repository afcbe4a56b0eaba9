/*
 * capsules.c - what must happen to capsules when the operations pool could not finish it, and their
 * watchers.
 *
 * The work itself is in lib/capsule_*.c, which the operations pool shares. Level-triggered: a run
 * that finds nothing to do has done its job.
 */
#include "workers/job.h"
#include "capsule_op.h"
#include "db.h"

#include <string.h>

static job_fn capsule_start, capsule_do, capsule_update, reconcile, policy, monitor, gc;

static const struct field op_args_fields[] = {
	FIELD(op_args, capsule, "capsule", .flags = NEEDED, .prefix = "cl-"),
	FIELD(op_args, epoch, "epoch", .min = 0, .max = INT64_MAX),
	FIELD(op_args, snapshot, "snapshot", .prefix = "snp-"),
	FIELD(op_args, safety, "safety", .prefix = "snp-"),
	FIELD(op_args, memory, "memory"),
	FIELD(op_args, destroy, "destroy"),
	{ 0 },
};

const struct job_kind capsule_jobs[] = {
	{ "capsule.start", capsule_start, IN(op_args) },
	{ "capsule.destroy", capsule_do, IN(op_args) },
	{ "capsule.pause", capsule_do, IN(op_args) },
	{ "capsule.resume", capsule_do, IN(op_args) },
	{ "capsule.hibernate", capsule_do, IN(op_args) },
	{ "capsule.snapshot", capsule_do, IN(op_args) },
	{ "capsule.rollback", capsule_do, IN(op_args) },
	{ "capsule.fork", capsule_do, IN(op_args) },
	{ "capsule.update", capsule_update, IN(op_args) },
	{ "capsule.reconcile", reconcile },
	{ "capsule.policy", policy },
	{ "artifact.gc", gc },
	{ "host.monitor", monitor },
	{ 0 },
};

/* A cold boot without KVM may take this long (spec 02 §1.3); an image of 8 GiB takes longer. */
enum { WAIT_MS = 65000, IMAGE_WAIT_MS = 600000, PLACE_MS = 5000, MOVES_MS = 1000 };

static struct op_env
env(const struct job *j)
{
	return (struct op_env){ .conf = j->conf, .keys = j->keys, .queue = j->queue };
}

/* One that waits for a host is looked at every 5 s, uncounted. What may not be repeated has failed
   in its row already. */
static int
capsule_start(struct job *j)
{
	struct op_env e = env(j);

	if (capsule_op_start(&j->work, &e, &j->ref, j->in, WAIT_MS) == 0)
		return 0;
	if (j->work.err.code != E_NO_HOSTS)
		return -1;
	j->work.err = (struct err){ 0 };
	return job_again(j, PLACE_MS);
}

static int
capsule_do(struct job *j)
{
	struct op_env e = env(j);
	const struct op_args *in = j->in;
	bool image = strcmp(j->kind->name, "capsule.hibernate") == 0 || in->snapshot;

	return capsule_op_of(j->kind->name)(
	    &j->work, &e, &j->ref, in, image ? IMAGE_WAIT_MS : WAIT_MS);
}

/* One that moves is told afterwards, uncounted. */
static int
capsule_update(struct job *j)
{
	if (capsule_do(j) == 0)
		return 0;
	if (j->work.err.code != E_OVERLOADED)
		return -1;
	j->work.err = (struct err){ 0 };
	return job_again(j, MOVES_MS);
}

static int
reconcile(struct job *j)
{
	struct op_env e = env(j);

	return capsule_reconcile(&j->work, &e);
}

static int
policy(struct job *j)
{
	struct op_env e = env(j);

	return capsule_policy(&j->work, &e);
}

static int
gc(struct job *j)
{
	return artifact_gc(&j->work);
}

static int
monitor(struct job *j)
{
	struct op_env e = env(j);

	return host_monitor(&j->work, &e);
}
