/*
 * capsules_life.c - change, pause, resume, hibernate, recover (spec 02 §2.3).
 *
 * Each moves the row by compare-and-set with its audit row and its job, then does the job.
 */
#include "audit.h"
#include "capsules.h"
#include "cleanup.h"
#include "placement.h"
#include "quota.h"

#include <inttypes.h>
#include <string.h>

static handler capsule_patch, capsule_pause, capsule_resume, capsule_hibernate, capsule_recover;

static const char others[] = "only admins change capsules that somebody else made";

static const struct field capsule_patch_fields[] = {
	PATH_ID(capsule_patch, "cl-"),
	FIELD(capsule_patch, name, "name", .format = "name"),
	FIELD(capsule_patch, tags, "tags", .max = 32, .format = "tag"),
	FIELD(capsule_patch, tags_add, "tags_add", .max = 32, .format = "tag"),
	FIELD(capsule_patch, tags_remove, "tags_remove", .max = 32, .format = "tag"),
	FIELD(capsule_patch, metadata, "metadata", .max = 64, .format = "meta-key",
	    .doc = "Replaces all of it."),
	TIMES_FIELDS(capsule_patch),
	PORTS_FIELD(capsule_patch, ports),
	FIELD(capsule_patch, vcpus, "vcpus", .min = 1, .max = 16, .dflt = NULL_INT4,
	    .doc = "From the next cold boot."),
	FIELD(capsule_patch, memory_mb, "memory_mb", .min = 128, .max = 65536, .dflt = NULL_INT4,
	    .doc = "From the next cold boot."),
	FIELD(capsule_patch, disk_size_mb, "disk_size_mb", .min = 1024, .max = 262144,
	    .dflt = NULL_INT4, .doc = "It only grows: at once, or when a sleeping one wakes."),
	FIELD(capsule_patch, generation, "generation", .dflt = NULL_INT,
	    .doc = "409 when the capsule has another one."),
	{ 0 },
};

#define MOVE_FIELDS PATH_ID(capsule_move, "cl-"), WAIT_FIELD(capsule_move)
static const struct field capsule_move_fields[] = { MOVE_FIELDS, { 0 } };
static const struct field capsule_resume_fields[] = {
	MOVE_FIELDS,
	FIELD(capsule_move, boot, "boot", .one_of = "warm|cold",
	    .doc = "cold: boots the disk, without the memory."),
	FIELD(capsule_move, timeout_sec, "timeout_sec", .min = INT32_MIN, .max = 2592000,
	    .dflt = NULL_INT4),
	{ 0 },
};
static const struct field capsule_hibernate_fields[] = {
	MOVE_FIELDS,
	FIELD(capsule_move, memory, "memory", .dflt = 1, .doc = "false: only the disk is kept."),
	{ 0 },
};
static const struct field capsule_recover_fields[] = {
	MOVE_FIELDS,
	FIELD(capsule_move, from, "from", .text = "image", .one_of = "image|snapshot|disk"),
	FIELD(
	    capsule_move, snapshot, "snapshot", .max = 64, .doc = "snp-…; by default the newest."),
	{ 0 },
};

/* clang-format off */
#define MOVE(table) .in = table##_fields, .insize = sizeof(struct capsule_move), OUT(capsule)
const struct route capsule_life_routes[] = {
	{ "PATCH", "/v1/capsules/{id}", POOL_API, PERM_capsules_update, capsule_patch, "Change a capsule", 0, 200, IN(capsule_patch), OUT(capsule) },
	{ "POST", "/v1/capsules/{id}/pause", POOL_OPS, PERM_capsules_update, capsule_pause, "Pause", MAY_BE_EMPTY, 200, MOVE(capsule_move) },
	{ "POST", "/v1/capsules/{id}/resume", POOL_OPS, PERM_capsules_update, capsule_resume, "Resume", MAY_BE_EMPTY, 200, MOVE(capsule_resume) },
	{ "POST", "/v1/capsules/{id}/hibernate", POOL_OPS, PERM_capsules_update, capsule_hibernate, "Hibernate", MAY_BE_EMPTY, 200, 202, MOVE(capsule_hibernate) },
	{ "POST", "/v1/capsules/{id}/recover", POOL_OPS, PERM_capsules_update, capsule_recover, "Start a lost capsule from what is left of it", MAY_BE_EMPTY, 202, 200, MOVE(capsule_recover) },
	{ 0 },
};
/* clang-format on */

static int
audit(struct request *r, enum audit_kind kind, const struct uuid *id, const char *metadata,
    const char *data)
{
	return audit_add(&r->work, kind,
	    &(struct audit){ .team = r->who.team,
		.capsule = id,
		.resource_id = id_text(r, "cl-", id),
		.metadata = metadata,
		.data = data });
}

/* --- change --------------------------------------------------------------------------------- */

static bool
has(const char *const *list, const char *tag)
{
	for (; list && *list; list++)
		if (strcmp(*list, tag) == 0)
			return true;
	return false;
}

static int
new_tags(struct request *r, const struct capsule_patch *in, const struct q_capsule *row,
    const char *const **ret)
{
	const char *const *from = in->tags ? in->tags : row->tags, *const * p;
	const char **list;
	size_t n = 0;

	*ret = in->tags;
	if (!in->tags_add && !in->tags_remove)
		return 0;
	if (in->tags)
		return fail(r, E_BAD_INPUT, "\"tags\" replaces all: without \"tags_add\"");
	list = talloc_zero_array(r, const char *, 32 + 32 + 1);
	for (p = from; p && *p; p++)
		if (!has(in->tags_remove, *p))
			list[n++] = *p;
	for (p = in->tags_add; p && *p; p++)
		if (!has(list, *p))
			list[n++] = *p;
	if (n > 32)
		return fail(r, E_BAD_INPUT, "\"tags\" would have more than 32 entries");
	*ret = list;
	return 0;
}

/* The names of the fields that the body has, for audit and event: never their values. */
static const char *
changed(struct request *r)
{
	const struct field *f;
	struct buf b = BUF(r);

	buf_str(&b, "{\"changed\":[");
	for (f = capsule_patch_fields; f->name; f++) {
		if (f->flags & (IN_PATH | IN_QUERY) ||
		    !json_object_object_get_ex(r->body, f->name, NULL) ||
		    strcmp(f->name, "generation") == 0)
			continue;
		if (b.data[b.len - 1] != '[')
			buf_chr(&b, ',');
		buf_json(&b, f->name);
	}
	buf_str(&b, "]}");
	return b.data;
}

/* What the host holds or does, and must be told. */
static int
tell_host(struct request *r, const struct capsule_patch *in, const struct q_capsule *row)
{
	const struct times *t = &in->t;
	struct job_ref job;

	if (t->timeout_sec == NULL_INT4 && !t->timeout_mode && !t->idle_action &&
	    !t->idle_signals && !t->network && in->disk_size_mb == NULL_INT4)
		return 0;
	if (in->told) {
		in->told->id = *row->id;
		in->told->kind = "capsule.update";
		in->told->args =
		    (struct op_args){ .capsule = &in->told->id, .epoch = row->generation + 1 };
		return capsule_begin(r, in->told);
	}
	/* one job for each generation: the newest wish is never behind a run that read an older */
	return capsule_job(&r->work, "capsule.update", r->who.team,
		   &(struct op_args){ .capsule = row->id, .epoch = row->generation + 1 }, NULL,
		   &job, NULL) < 0
	    ? -1
	    : 0;
}

/* It only grows, within the team's quota, where its host has room. */
static int
disk_check(struct request *r, const struct capsule_patch *in, const struct q_capsule *row)
{
	int32_t more;

	if (in->disk_size_mb == NULL_INT4)
		return 0;
	more = in->disk_size_mb - row->disk_size_mb;
	if (in->disk_size_mb < row->disk_size_mb)
		return fail(r, E_BAD_INPUT, "\"disk_size_mb\" is less than the present %d",
		    row->disk_size_mb);
	if (quota_take(&r->work, &(struct quota_ask){ .team = r->who.team, .disk_mb = more }) < 0)
		return -1;
	return more ? host_disk(&r->work, r->app->conf, in->id, more) : 0;
}

int
capsule_change(struct request *r, const struct capsule_patch *p, struct q_capsule **ret)
{
	struct capsule_patch in = *p;
	const char *const *tags;
	struct q_capsule *row;
	int n;

	if (capsule_own(r, in.id, others, &row) < 0)
		return -1;
	if (strcmp(row->state, "stopping") == 0 || strcmp(row->state, "stopped") == 0)
		return fail(r, E_BAD_STATE, "the capsule is %s", row->state);
	if (times_check(r, &in.t) < 0 || check_metadata(r, in.metadata) < 0 ||
	    ports_check(r, &in.ports) < 0 || new_tags(r, &in, row, &tags) < 0 ||
	    disk_check(r, &in, row) < 0)
		return -1;
	n = q_life_update(r->work.db, .id = in.id,
	    .generation = in.generation == NULL_INT ? row->generation : in.generation,
	    .rename = in.name != NULL, .name = in.name, .tags = tags,
	    .metadata = in.metadata ? pairs_json(r, in.metadata) : NULL,
	    .timeout_sec = in.t.timeout_sec, .timeout_mode = in.t.timeout_mode,
	    .idle_action = in.t.idle_action, .idle_signals = in.t.idle_signals,
	    .auto_resume = in.t.auto_resume, .max_lifetime_sec = in.t.max_lifetime_sec,
	    .on_max_lifetime = in.t.on_max_lifetime, .restart_policy = in.t.restart_policy,
	    .network = network_json(r, in.t.network), .disk_size_mb = in.disk_size_mb,
	    .vcpus = in.vcpus, .memory_mb = in.memory_mb);
	if (n == 0)
		return fail(r, E_CONFLICT, "the capsule has another generation than %" PRId64,
		    in.generation == NULL_INT ? row->generation : in.generation);
	if (n < 0) {
		if (r->work.err.code == E_CONFLICT)
			snprintf(r->work.err.text, sizeof r->work.err.text,
			    "a live capsule of the team has the name %s", in.name);
		return -1;
	}
	if (in.ports.item && ports_replace(r, in.id, &in.ports) < 0)
		return -1;
	if (tell_host(r, &in, row) < 0 || q_capsule_get(r->work.db, ret, .id = in.id) <= 0)
		return -1;
	return audit(r, AUDIT_SANDBOX_UPDATE, in.id, in.changed, in.changed);
}

static int
capsule_patch(struct request *r)
{
	struct capsule_patch in = *(const struct capsule_patch *)r->in;
	struct q_capsule *row;
	struct capsule c;

	in.changed = changed(r);
	if (capsule_change(r, &in, &row) < 0)
		return -1;
	capsule_complete(r, row, &c);
	return reply_row(r, 1, &c);
}

/* --- pause, resume, hibernate --------------------------------------------------------------- */

static struct doing *
doing(struct request *r, const struct capsule_move *in, const char *kind, int64_t epoch,
    const char *until)
{
	struct doing *d = talloc_zero(r, struct doing);

	*d = (struct doing){ .id = *in->id,
		.kind = kind,
		.args = { .epoch = epoch, .memory = in->memory },
		.wait_sec = wait_or(in->wait, WAIT_LONG),
		.until = until,
		.answer = in->answer,
		.arg = in->arg };
	d->args.capsule = &d->id;
	return d;
}

static int
capsule_pause(struct request *r)
{
	const struct capsule_move *in = r->in;
	struct q_capsule *row;
	int n;

	if (capsule_own(r, in->id, others, &row) < 0)
		return -1;
	n = q_life_pause(r->work.db, .id = in->id, .epoch = row->epoch, .by = "user");
	if (n <= 0)
		return n < 0 ? -1 : capsule_refuse(r, in->id, "running");
	if (capsule_begin(r,
		doing(r, in, "capsule.pause", row->epoch,
		    "paused running error hibernated stopping stopped missing")) < 0)
		return -1;
	return audit(r, AUDIT_SANDBOX_PAUSE, in->id, NULL, NULL);
}

int
capsule_resumes(struct request *r, const struct capsule_move *in)
{
	struct op_env env = { r->app->conf, r->app->keys, r->app->queue };
	struct wake_ask ask = { .id = in->id,
		.cause = "user",
		.cold = in->boot && strcmp(in->boot, "cold") == 0,
		.timeout_sec =
		    in->timeout_sec < 0 && in->timeout_sec != NULL_INT4 ? 0 : in->timeout_sec,
		.worker = capsule_worker(r) };
	struct q_capsule *row;
	struct doing *d;
	struct wake wake;
	int n;

	if (capsule_own(r, in->id, others, &row) < 0)
		return -1;
	n = capsule_wake(&r->work, &env, &ask, &wake);
	if (n == 0)
		return capsule_refuse(r, in->id, "paused");
	if (n < 0) {
		if (r->work.err.code == E_NO_HOSTS)
			reply_header(r, "Retry-After", "5");
		return -1;
	}
	d = doing(r, in, "capsule.resume", wake.epoch,
	    "running error paused hibernated stopping stopped missing");
	if (in->wait < 0)
		d->wait_sec = WAIT_SHORT;
	d->args.memory = !ask.cold;
	return capsule_continue(r, d, &wake.job, wake.claimed);
}

static int
capsule_resume(struct request *r)
{
	return capsule_resumes(r, r->in);
}

int
capsule_hibernates(struct request *r, const struct capsule_move *in)
{
	struct q_capsule *row;
	struct doing *d;
	int n = 0;

	if (capsule_own(r, in->id, others, &row) < 0)
		return -1;
	if (strcmp(row->state, "running") == 0 || strcmp(row->state, "paused") == 0)
		n = q_life_hibernate(r->work.db, .id = in->id, .epoch = row->epoch,
		    .was = row->state, .by = in->by ? in->by : "user");
	if (n <= 0)
		return n < 0 ? -1 : capsule_refuse(r, in->id, "running or paused");
	d = doing(r, in, "capsule.hibernate", row->epoch,
	    "hibernated paused running error stopping stopped missing");
	d->later = 202;
	if (capsule_begin(r, d) < 0)
		return -1;
	return audit(r, AUDIT_SANDBOX_HIBERNATE, in->id,
	    in->memory ? "{\"memory\":true}" : "{\"memory\":false}", NULL);
}

static int
capsule_hibernate(struct request *r)
{
	return capsule_hibernates(r, r->in);
}

/* --- recover -------------------------------------------------------------------------------- */

/* Where the lost capsule starts from: its image, or a snapshot as its image. 1: found. */
static int
left_over(struct request *r, const struct capsule_move *in, const struct q_capsule_op *c,
    struct q_snapshot **s)
{
	struct uuid id;
	int n = 0;

	*s = NULL;
	if (strcmp(in->from, "image") == 0)
		return c->image_disk.p
		    ? 1
		    : fail(r, E_BAD_STATE, "the capsule has no image: it never hibernated");
	if (strcmp(in->from, "disk") == 0 && c->image_disk.p)
		return 1;
	if (in->snapshot) {
		if (!id_read(in->snapshot, "snp-", &id))
			return fail(r, E_BAD_INPUT, "\"snapshot\" is no snapshot's id");
		n = q_snapshot_get(r->work.db, s, .id = &id);
	} else
		n = q_snapshot_latest(r->work.db, s, .capsule = in->id);
	if (n < 0)
		return -1;
	if (n == 0 || !(*s)->capsule_id || !uuid_equal((*s)->capsule_id, in->id))
		return fail(r, n || in->snapshot ? E_NOT_FOUND : E_BAD_STATE,
		    "the capsule has no such snapshot");
	if (strcmp((*s)->state, "ready") != 0)
		return fail(r, E_BAD_STATE, "the snapshot is %s, not ready", (*s)->state);
	return 1;
}

static const char memory_lost[] = "what was only in its memory is lost";

/* The disk lies at its host, which answers: it boots there, or is sealed and boots where there is
 * room. */
static int
recover_disk(struct request *r, const struct capsule_move *in, const struct q_capsule_op *c)
{
	struct op_env env = { r->app->conf, r->app->keys, r->app->queue };
	struct wake_ask ask = { .id = in->id,
		.cause = "recover",
		.cold = true,
		.timeout_sec = NULL_INT4,
		.worker = capsule_worker(r),
		.note = memory_lost };
	struct doing *d;
	struct wake wake;
	int n = capsule_wake(&r->work, &env, &ask, &wake);

	if (n < 0 && r->work.err.code == E_NO_HOSTS) {
		r->work.err = (struct err){ 0 };
		n = q_life_recover_seal(
		    r->work.db, .id = in->id, .epoch = c->epoch, .note = memory_lost);
		d = doing(r, in, "capsule.hibernate", c->epoch, "hibernated running error stopped");
	} else
		d = doing(r, in, "capsule.resume", wake.epoch, "running error stopping stopped");
	if (n <= 0)
		return n < 0 ? -1 : capsule_refuse(r, in->id, "missing or in error");
	if (in->wait < 0)
		d->wait_sec = WAIT_SHORT;
	d->args.memory = false;
	if ((wake.epoch ? capsule_continue(r, d, &wake.job, wake.claimed) : capsule_begin(r, d)) <
	    0)
		return -1;
	return audit(r, AUDIT_SANDBOX_RECOVER, in->id, "{\"from\":\"disk\"}", NULL);
}

static int
recover_place(struct request *r, const struct q_capsule_op *c, bool cold, struct bytes memory,
    struct bytes disk, const char *cpu_class, struct place *at)
{
	struct place_ask ask = { .conf = r->app->conf,
		.team = r->who.team,
		.vcpus = cold ? c->cold_vcpus : c->vcpus,
		.memory_mb = cold ? c->cold_memory_mb : c->memory_mb,
		.disk_mb = cold ? c->cold_disk_size_mb : c->disk_size_mb,
		.tags = c->host_tags,
		.memory = memory,
		.disk = disk,
		.cpu_class = memory.p && cpu_class && *cpu_class ? cpu_class : NULL,
		.avoid = strcmp(c->observed_state, "missing") == 0 ? c->host_id : NULL };

	return host_place(&r->work, &ask, at);
}

static int
capsule_recover(struct request *r)
{
	const struct capsule_move *in = r->in;
	struct q_capsule_op *c;
	struct q_capsule *row;
	struct q_snapshot *s;
	struct doing *d;
	struct place at;
	bool cold = strcmp(in->from, "disk") == 0;
	int n;

	if (capsule_own(r, in->id, others, &row) < 0)
		return -1;
	if (strcmp(row->state, "missing") != 0 && strcmp(row->state, "error") != 0)
		return capsule_refuse(r, in->id, "missing or in error");
	if (q_capsule_for_op(r->work.db, &c, .id = in->id) <= 0)
		return -1;
	if (cold && strcmp(row->state, "error") == 0 && c->host_id && c->starts > 0 &&
	    c->host_status && strcmp(c->host_status, "unreachable") != 0)
		return recover_disk(r, in, c);
	if (left_over(r, in, c, &s) < 0)
		return -1;
	cold = cold || (s && !s->memory_artifact.p) || (!s && !c->image_memory.p);
	/* a missing one is still counted */
	if (strcmp(row->state, "error") == 0 &&
	    quota_take(&r->work,
		&(struct quota_ask){ .team = r->who.team,
		    .vcpus = cold ? c->cold_vcpus : c->vcpus,
		    .memory_mb = cold ? c->cold_memory_mb : c->memory_mb }) < 0)
		return -1;
	if (recover_place(r, c, cold,
		cold    ? (struct bytes){ 0 }
		    : s ? s->memory_artifact
			: c->image_memory,
		s ? s->disk_artifact : c->image_disk, s ? s->cpu_class : c->image_class, &at) < 0)
		return -1;
	n = q_life_recover(r->work.db, .id = in->id, .epoch = row->epoch, .was = row->state,
	    .host = at.host, .cold = cold,
	    .note = cold ? "memory and everything after the last saved disk are lost"
			 : "everything after the last saved image is lost");
	if (n <= 0)
		return n < 0 ? -1 : capsule_refuse(r, in->id, "missing or in error");
	if (s &&
	    q_life_image_add(r->work.db, .id = in->id, .epoch = row->epoch + 1, .team = r->who.team,
		.memory = s->memory_artifact, .disk = s->disk_artifact,
		.cpu_class = s->cpu_class ? s->cpu_class : "", .bytes = s->bytes_unique) < 0)
		return -1;
	d = doing(r, in, "capsule.start", row->epoch + 1, "running error stopping stopped");
	if (in->wait < 0)
		d->wait_sec = WAIT_SHORT;
	if (capsule_begin(r, d) < 0)
		return -1;
	return audit(r, AUDIT_SANDBOX_RECOVER, in->id,
	    talloc_asprintf(r, "{\"from\":\"%s\"}", in->from), NULL);
}
