/*
 * capsules_fork.c - fork: up to 100 children of a running, paused or hibernated capsule (spec 02
 * §2.3, 06 §7).
 *
 * Each child is counted and placed alone; what is refused is told in its place. The children that
 * were committed are made by the parent's host in one call; those of a hibernated one, which is on
 * no host, start from its image, each by a job of its own.
 */
#include "audit.h"
#include "capsules.h"
#include "cleanup.h"
#include "placement.h"
#include "quota.h"

#include <inttypes.h>
#include <string.h>

static handler capsule_fork;

enum { CHILDREN = 100 };

static const struct field fork_in_fields[] = {
	FIELD(fork_in, c.id, "id", .flags = NEEDED | IN_PATH, .prefix = "cl-"),
	FIELD(fork_in, count, "count", .min = 1, .max = CHILDREN, .dflt = 1),
	FIELD(fork_in, name_prefix, "name_prefix", .format = "name", .max = 60,
	    .doc = "The children are called prefix-1, prefix-2, …"),
	FIELD(fork_in, memory, "memory", .dflt = 1,
	    .doc = "false: of the disk alone; the children boot."),
	NEW_FIELDS_OF(fork_in, c.),
	{ 0 },
};

static const struct field refusal_fields[] = {
	FIELD(refusal, code, "code"),
	FIELD(refusal, message, "message"),
	{ 0 },
};
struct forked {
	struct capsule *capsule;
	struct refusal *error;
};
static const struct field forked_fields[] = {
	SUB(forked, capsule, "capsule", capsule_fields, capsule, .flags = OMIT),
	SUB(forked, error, "error", refusal_fields, refusal, .flags = OMIT),
	{ 0 },
};

/* clang-format off */
const struct route capsule_fork_routes[] = {
	{ "POST", "/v1/capsules/{id}/fork", POOL_OPS, PERM_capsules_create, capsule_fork, "Copies of a capsule, as it is now", CREATES | LISTS | MAY_BE_EMPTY, 201, IN(fork_in), OUT(forked) },
	{ 0 },
};
/* clang-format on */

static int
answer(struct request *r, struct brood *b)
{
	struct forked *all = talloc_zero_array(r, struct forked, b->count);
	struct q_capsule *row;
	int i;

	for (i = 0; i < b->count; i++) {
		if (b->error[i].code) {
			all[i].error = &b->error[i];
			continue;
		}
		if (q_capsule_get(r->work.db, &row, .id = &b->id[i]) <= 0)
			return -1;
		all[i].capsule = talloc(all, struct capsule);
		capsule_complete(r, row, all[i].capsule);
	}
	return reply_rows(r, b->count, all, sizeof *all);
}

static int
failed_children(struct request *r)
{
	struct doing *d = r->after_arg;
	struct brood *b = d->arg;
	struct q_capsule *row;
	int i;

	/* what failed for good in the meantime is an error in its place; the row says so, too */
	for (i = 0; i < b->count; i++) {
		if (b->error[i].code || q_capsule_get(r->work.db, &row, .id = &b->id[i]) <= 0 ||
		    strcmp(row->state, "error") != 0)
			continue;
		b->error[i] = (struct refusal){ "agent_error",
			talloc_asprintf(r, "%s could not be started; its row says why",
			    id_text(r, "cl-", &b->id[i])),
			E_AGENT };
		b->made--;
		b->first = E_AGENT;
	}
	if (b->made <= 0)
		return fail(r, E_AGENT, "none of the children could be started");
	r->work.err = (struct err){ 0 };
	return b->answer(r, b);
}

/* Behind the commit: the children of an image have jobs of their own, which workers do. */
static int
from_image(struct request *r)
{
	struct doing *d = r->after_arg;
	struct brood *b = d->arg;
	int64_t until = capsule_clock() + (int64_t)d->wait_sec * 1000;
	int i;

	job_announce(&r->work, r->app->queue);
	for (i = 0; i < b->count; i++)
		if (!b->error[i].code &&
		    capsule_look_on(r,
			&(struct doing){ .id = b->id[i],
			    .until = "running error paused hibernated stopping stopped" },
			until) < 0)
			return -1;
	return failed_children(r);
}

/* What the children have of their parent, unless they were told otherwise. */
static int
inherit(struct request *r, const struct q_capsule *row, struct capsule_create *in,
    struct origin *from, struct q_capsule_op **ret)
{
	struct q_capsule_op *c;
	struct bytes envs;

	if (q_capsule_for_op(r->work.db, &c, .id = row->id) <= 0)
		return -1;
	envs = capsule_envs_open(r, r->app->keys, row->id, c->envs_enc, &r->work.err);
	if (!envs.p)
		return -1;
	*ret = c;
	in->vcpus = row->vcpus;
	in->memory_mb = row->memory_mb;
	if (in->disk_size_mb <= 0)
		in->disk_size_mb = row->disk_size_mb;
	if (in->disk_size_mb < row->disk_size_mb)
		return fail(r, E_BAD_INPUT, "\"disk_size_mb\" is less than the parent's %d",
		    row->disk_size_mb);
	if (!in->user)
		in->user = c->guest_user;
	if (!in->workdir)
		in->workdir = c->workdir;
	in->boot = "warm";
	if (!in->host_tags)
		in->host_tags = c->host_tags;
	if (in->t.timeout_sec == NULL_INT4)
		in->t.timeout_sec = row->timeout_sec;
	if (!in->t.timeout_mode)
		in->t.timeout_mode = row->timeout_mode;
	if (!in->t.idle_action)
		in->t.idle_action = row->idle_action;
	if (!in->t.auto_resume)
		in->t.auto_resume = row->auto_resume;
	if (in->t.max_lifetime_sec == NULL_INT4)
		in->t.max_lifetime_sec = row->max_lifetime_sec;
	if (!in->t.on_max_lifetime)
		in->t.on_max_lifetime = row->on_max_lifetime;
	if (!in->t.restart_policy)
		in->t.restart_policy = row->restart_policy;
	*from = (struct origin){ .template = row->template_id,
		.template_name = row->template,
		.version = row->template_version,
		.parent = row->id,
		.wake_from = c->host_id ? "parent" : "image",
		.epoch = row->epoch + 1,
		.network = row->network,
		.tags = row->tags,
		.idle_signals = row->idle_signals,
		.env_names = row->env_names,
		.envs = talloc_strndup(r, (const char *)envs.p, envs.n) };
	return 0;
}

/* Beside its parent; where there is no room it waits for a place anywhere (host NULL). */
static int
place_child(struct request *r, const struct place_ask *here, struct place *at)
{
	struct place_ask any = *here;
	struct place there;

	if (host_place(&r->work, here, at) == 0)
		return 0;
	*at = (struct place){ 0 };
	if (r->work.err.code != E_NO_HOSTS && r->work.err.code != E_NO_SPACE)
		return -1;
	r->work.err = (struct err){ 0 };
	any.only = NULL;
	if (host_place(&r->work, &any, &there) == 0)
		return 0;
	if (r->work.err.code != E_NO_HOSTS)
		return -1;
	r->work.err = (struct err){ 0 };
	return 0;
}

/* On any host: its image is brought there. */
static int
place_image(struct request *r, const struct place_ask *here, const struct q_capsule_op *parent,
    bool memory, struct place *at)
{
	struct place_ask ask = *here;

	ask.template = parent->template_name;
	ask.disk = parent->image_disk;
	if (memory && parent->image_memory.p) {
		ask.memory = parent->image_memory;
		ask.cpu_class =
		    parent->image_class && *parent->image_class ? parent->image_class : NULL;
	}
	return host_place(&r->work, &ask, at);
}

/* The image of its parent is the child's, too; it starts from it. */
static int
start_of_image(struct request *r, const struct q_capsule_op *parent, bool memory,
    const struct uuid *id, int64_t epoch)
{
	struct job_ref job;

	if (q_life_image_add(r->work.db, .id = id, .epoch = epoch, .team = r->who.team,
		.memory = memory ? parent->image_memory : (struct bytes){ 0 },
		.disk = parent->image_disk,
		.cpu_class = parent->image_class ? parent->image_class : "", .bytes = 0) < 0)
		return -1;
	return capsule_job(&r->work, "capsule.start", r->who.team,
	    &(struct op_args){ .capsule = id, .epoch = epoch }, NULL, &job, NULL);
}

/* One child; what it may not have is its own error. -1: something worse. */
static int
child(struct request *r, struct capsule_create *in, const struct fork_in *f,
    const struct origin *from, const struct q_capsule_op *parent, struct brood *b, int i)
{
	struct place_ask ask = { .conf = r->app->conf,
		.team = r->who.team,
		.vcpus = in->vcpus,
		.memory_mb = in->memory_mb,
		.disk_mb = in->disk_size_mb,
		.tags = in->host_tags,
		.only = parent->host_id };
	struct place at;

	in->name = f->name_prefix ? talloc_asprintf(r, "%s-%d", f->name_prefix, i + 1) : NULL;
	if (quota_take(&r->work,
		&(struct quota_ask){ .team = r->who.team,
		    .capsules = 1,
		    .vcpus = in->vcpus,
		    .memory_mb = in->memory_mb,
		    .disk_mb = in->disk_size_mb }) == 0 &&
	    (parent->host_id ? place_child(r, &ask, &at)
			     : place_image(r, &ask, parent, f->memory, &at)) == 0 &&
	    capsule_add(r, in, from, at.host, &b->id[i]) == 0) {
		b->made++;
		return 0;
	}
	if (r->work.err.code != E_QUOTA && r->work.err.code != E_NO_HOSTS &&
	    r->work.err.code != E_NO_SPACE)
		return -1;
	if (b->first == E_OK)
		b->first = r->work.err.code;
	b->error[i] = (struct refusal){ err_kinds[r->work.err.code].slug,
		talloc_strdup(r, err_public(&r->work.err)), r->work.err.code };
	r->work.err = (struct err){ 0 };
	return 0;
}

static int
begin_image(
    struct request *r, const struct fork_in *f, const struct q_capsule_op *parent, struct brood *b)
{
	struct doing *d = talloc_zero(r, struct doing);
	int i;

	*d = (struct doing){
		.id = *parent->id, .wait_sec = wait_or(f->c.wait, WAIT_LONG), .arg = b
	};
	for (i = 0; i < b->count; i++)
		if (!b->error[i].code &&
		    start_of_image(r, parent, f->memory, &b->id[i], parent->epoch + 1) < 0)
			return -1;
	r->after = from_image;
	r->after_arg = d;
	return 0;
}

static int
begin(struct request *r, const struct fork_in *f, const struct q_capsule *row, struct brood *b)
{
	struct doing *d = talloc_zero(r, struct doing);
	struct job_ref job;
	bool claimed;
	int n, i;

	*d = (struct doing){ .id = *row->id,
		.kind = "capsule.fork",
		.args = { .capsule = row->id, .epoch = row->epoch, .memory = f->memory },
		.wait_sec = wait_or(f->c.wait, WAIT_LONG),
		.until = "-",
		.answer = failed_children,
		.arg = b };
	if (capsule_job(
		&r->work, d->kind, r->who.team, &d->args, capsule_worker(r), &job, &claimed) < 0)
		return -1;
	if (!claimed)
		d->wait_sec = 0; /* the rows say how far it is */
	for (i = 0; i < b->count; i++)
		if (!b->error[i].code &&
		    q_life_child_of(r->work.db, .id = &b->id[i], .job = &job.id) < 0)
			return -1;
	n = q_life_op(r->work.db, .id = row->id, .epoch = row->epoch, .was = row->state,
	    .op = "fork", .job = &job.id);
	if (n <= 0)
		return n < 0 ? -1 : capsule_refuse(r, row->id, "running or paused");
	return capsule_continue(r, d, &job, claimed);
}

int
capsule_forks(
    struct request *r, const struct fork_in *f, int (*answers)(struct request *, struct brood *))
{
	struct capsule_create in = f->c;
	struct q_capsule_op *parent;
	struct q_capsule *row;
	struct origin from;
	struct brood *b = talloc_zero(r, struct brood);
	int i, n = q_capsule_get(r->work.db, &row, .id = in.id);

	if (n <= 0)
		return reply_row(r, n, NULL);
	if ((strcmp(row->state, "running") != 0 && strcmp(row->state, "paused") != 0 &&
		strcmp(row->state, "hibernated") != 0) ||
	    row->op)
		return capsule_refuse(r, in.id, "running, paused or hibernated");
	if (check_envs(r, in.envs) < 0 || check_metadata(r, in.metadata) < 0 ||
	    ports_check(r, &in.ports) < 0 || times_check(r, &in.t) < 0 ||
	    inherit(r, row, &in, &from, &parent) < 0)
		return -1;
	if (!parent->host_id && (!f->memory || !parent->image_memory.p))
		in.boot = "cold";
	b->answer = answers;
	b->count = f->count;
	b->id = talloc_zero_array(b, struct uuid, f->count);
	b->error = talloc_zero_array(b, struct refusal, f->count);
	for (i = 0; i < f->count; i++)
		if (child(r, &in, f, &from, parent, b, i) < 0)
			return -1;
	if (b->made == 0)
		return fail(r, b->first, "none of the children: %s", b->error[0].message);
	if ((parent->host_id ? begin(r, f, row, b) : begin_image(r, f, parent, b)) < 0)
		return -1;
	if (audit_add(&r->work, AUDIT_SANDBOX_FORK,
		&(struct audit){ .team = r->who.team,
		    .capsule = in.id,
		    .resource_id = id_text(r, "cl-", in.id),
		    .metadata = talloc_asprintf(r, "{\"children\":%d}", b->made),
		    .data = talloc_asprintf(r, "{\"children\":%d}", b->made) }) < 0)
		return -1;
	return answers(r, b);
}

static int
capsule_fork(struct request *r)
{
	return capsule_forks(r, r->in, answer);
}
