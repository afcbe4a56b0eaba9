/*
 * hosts.c - jobs of hosts: drains, the last order to a deleted one, copies (spec 02 §5.1, §5.4,
 * §5.6).
 *
 * Level-triggered: a run reads what is left and does it. Queries: sql/queries/hosts.sql,
 * copies.sql.
 */
#include "workers/job.h"
#include "agent.h"
#include "audit.h"
#include "capsule_op.h"
#include "cleanup.h"
#include "copies.q.h"
#include "event.h"
#include "host_copy.h"
#include "host_scale.h"
#include "hosts.q.h"
#include "life.q.h"
#include "log.h"

#include <inttypes.h>
#include <string.h>
#include <time.h>

static job_fn host_drain, host_decommission, host_scaling, artifact_copy;

struct drain_args {
	const struct uuid *host;
	const char *mode;
	int64_t seconds;
};
static const struct field drain_args_fields[] = {
	FIELD(drain_args, host, "host", .flags = NEEDED, .prefix = "host-"),
	FIELD(drain_args, mode, "mode", .flags = NEEDED, .one_of = "move|hibernate|pause"),
	FIELD(drain_args, seconds, "seconds", .flags = NEEDED),
	{ 0 },
};

struct host_args {
	const struct uuid *host;
};
static const struct field host_args_fields[] = {
	FIELD(host_args, host, "host", .flags = NEEDED, .prefix = "host-"),
	{ 0 },
};

const struct job_kind host_jobs[] = {
	{ "host.drain", host_drain, IN(drain_args) },
	{ "host.decommission", host_decommission, IN(host_args) },
	{ "host.scale", host_scaling },
	{ "artifact.copy", artifact_copy },
	{ 0 },
};

enum { ORDER_MS = 10000 };

static struct op_env
env(const struct job *j)
{
	return (struct op_env){ .conf = j->conf, .keys = j->keys, .queue = j->queue };
}

/* ---- drain */

static bool
is(const struct q_drain_due *c, const char *state)
{
	return strcmp(c->observed_state, state) == 0;
}

/* Running ones sleep by the drain; paused ones keep the reason they have. */
static int
put_to_sleep(struct job *j, const struct q_drain_due *c, bool pause)
{
	const char *by = is(c, "running") ? "drain" : c->paused_by ? c->paused_by : "user";
	struct job_ref ref;
	int n;

	if (!is(c, "running") && (pause || !is(c, "paused")))
		return 0; /* there already, or on its way */
	if (job_begin(j) < 0)
		return -1;
	if (pause)
		n = q_life_pause(j->work.db, .id = c->id, .epoch = c->epoch, .by = by);
	else
		n = q_life_hibernate(
		    j->work.db, .id = c->id, .epoch = c->epoch, .was = c->observed_state, .by = by);
	if (n > 0)
		n = capsule_job(&j->work, pause ? "capsule.pause" : "capsule.hibernate", c->team_id,
		    &(struct op_args){ .capsule = c->id, .epoch = c->epoch, .memory = true }, NULL,
		    &ref, NULL);
	return n < 0 ? -1 : job_commit(j);
}

static int
wake(struct job *j, const struct q_drain_due *c)
{
	struct op_env e = env(j);
	struct wake_ask ask = { .id = c->id, .cause = "drain", .timeout_sec = NULL_INT4 };
	struct wake woken;

	if (job_begin(j) < 0)
		return -1;
	if (capsule_wake(&j->work, &e, &ask, &woken) >= 0)
		return job_commit(j);
	/* no room elsewhere yet: it sleeps, and is tried again until the deadline */
	log_info(j->work.id, "drain: %s: %s", id_text(j, "cl-", c->id), j->work.err.text);
	db_rollback(j->work.db);
	j->work.err = (struct err){ 0 };
	return 0;
}

/* How many capsules still have to be seen to; their ids go to left. */
static int
drain_step(struct job *j, struct buf *left)
{
	const struct drain_args *in = j->in;
	bool pause = strcmp(in->mode, "pause") == 0;
	struct q_drain_due *c;
	int n = q_drain_left(j->work.db, &c, .host = in->host), i, open = 0;

	for (i = 0; i < n; i++) {
		if (pause && is(&c[i], "paused"))
			continue;
		buf_fmt(left, "%s%s", open++ ? " " : "", id_text(j, "cl-", c[i].id));
		if (put_to_sleep(j, &c[i], pause) < 0)
			return -1;
	}
	if (n < 0 || strcmp(in->mode, "move") != 0)
		return n < 0 ? -1 : open;
	n = q_drain_moving(j->work.db, &c, .host = in->host);
	for (i = 0; i < n; i++) {
		buf_fmt(left, "%s%s", open++ ? " " : "", id_text(j, "cl-", c[i].id));
		if (wake(j, &c[i]) < 0)
			return -1;
	}
	return n < 0 ? -1 : open;
}

static int
drained(struct job *j)
{
	const struct drain_args *in = j->in;
	struct event ev = { .type = "host.drained",
		.team = j->team,
		.resource_type = "host",
		.resource_id = id_text(j, "host-", in->host),
		.data = talloc_asprintf(j, "{\"reason\":\"%s\"}", in->mode) };

	if (job_begin(j) < 0 || event_add(&j->work, &ev) < 0)
		return -1;
	return job_commit(j);
}

/* From its creation, which the job's id tells (UUIDv7). */
static int64_t
age_ms(const struct uuid *id)
{
	struct timespec now;
	int64_t made = 0;
	int i;

	clock_gettime(CLOCK_REALTIME, &now);
	for (i = 0; i < 6; i++)
		made = made << 8 | id->b[i];
	return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000 - made;
}

static int
host_drain(struct job *j)
{
	const struct drain_args *in = j->in;
	struct buf left;
	int n;

	for (;;) {
		left = BUF(j);
		n = drain_step(j, &left);
		if (n < 0)
			return -1;
		if (n == 0)
			return drained(j);
		if (age_ms(&j->ref.id) > in->seconds * 1000)
			return err_set(
			    &j->work.err, E_DEADLINE, "%d capsules are left: %.120s", n, left.data);
		if (job_must_stop(j))
			return job_yield(j);
		if (job_cancelled(j))
			return err_set(&j->work.err, E_CANCELLED, "the drain was cancelled");
		nanosleep(&(struct timespec){ 1, 0 }, NULL);
	}
}

/* ---- the end of a host */

static int
host_decommission(struct job *j)
{
	const struct host_args *in = j->in;
	const char *id = id_text(j, "host-", in->host);
	struct agent_call call = { .method = "POST",
		.path = "/decommission",
		.total_ms = ORDER_MS,
		.body = talloc_asprintf(j, "{\"host\":\"%s\"}", id) };
	struct json_object *answer;
	struct q_host_gone *h;
	int n = q_host_gone_get(j->work.db, &h, .id = in->host);

	if (n <= 0 || h->done)
		return n < 0 ? -1 : 0;
	call.address = h->dial;
	if (agent_send(&j->work, &call, &answer) < 0 && j->work.err.code != E_CONFLICT)
		return -1; /* it gets the order when it is there again */
	j->work.err = (struct err){ 0 };
	if (job_begin(j) < 0 || q_host_decommissioned(j->work.db, .id = in->host) < 0 ||
	    audit_add(&j->work, AUDIT_HOST_DECOMMISSION,
		&(struct audit){ .team = j->team, .resource_id = id }) < 0)
		return -1;
	return job_commit(j);
}

static int
host_scaling(struct job *j)
{
	struct op_env e = env(j);

	return host_scale_all(&j->work, &e);
}

static int
artifact_copy(struct job *j)
{
	struct op_env e = env(j);

	return host_copies(&j->work, &e);
}
