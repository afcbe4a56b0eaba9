/*
 * snapshots.c - snapshots of capsules: take, list, change, delete, restore, roll back (spec 02
 * §2.4). Queries: sql/queries/snapshots.sql.  Tests: tests/http/life.t, tests/vm/life_test.py.
 */
#include "audit.h"
#include "capsules.h"
#include "cleanup.h"
#include "event.h"
#include "rfc3339.h"
#include "snapshot.h"

#include <inttypes.h>
#include <string.h>

static handler snapshot_create, capsule_snapshots, snapshot_list, snapshot_get, snapshot_patch,
    snapshot_delete, snapshot_restore, snapshot_stats, capsule_rollback;

static const char others[] = "only admins do this with capsules that somebody else made";

enum { SAFETY_SECONDS = 86400 };

static const struct field snapshot_fields[] = {
	FIELD(q_snapshot, id, "id", .flags = NEEDED, .prefix = "snp-"),
	FIELD(q_snapshot, capsule_id, "capsule_id", .prefix = "cl-"),
	FIELD(q_snapshot, name, "name", .flags = NEEDED),
	FIELD(q_snapshot, description, "description", .flags = NEEDED),
	FIELD(q_snapshot, kind, "kind", .flags = NEEDED, .one_of = "manual|scheduled|pre_op|last"),
	FIELD(q_snapshot, memory, "memory", .flags = NEEDED),
	FIELD(q_snapshot, state, "state", .flags = NEEDED, .one_of = "creating|ready|failed"),
	FIELD(q_snapshot, error, "error", .format = "json", .flags = OMIT),
	FIELD(q_snapshot, bytes_logical, "bytes_logical", .flags = NEEDED),
	FIELD(q_snapshot, bytes_unique, "bytes_unique", .flags = NEEDED),
	FIELD(q_snapshot, parent_id, "parent_id", .prefix = "snp-"),
	FIELD(q_snapshot, expires_at, "expires_at", .format = "date-time"),
	FIELD(q_snapshot, pinned, "pinned", .flags = NEEDED),
	FIELD(q_snapshot, metadata, "metadata", .flags = NEEDED, .format = "json"),
	FIELD(q_snapshot, created_at, "created_at", .flags = NEEDED, .format = "date-time"),
	{ 0 },
};

static const struct field snapshot_create_fields[] = {
	PATH_ID(snapshot_create, "cl-"),
	FIELD(snapshot_create, name, "name", .format = "name",
	    .doc = "Unique among the capsule's snapshots."),
	FIELD(snapshot_create, description, "description", .text = "", .max = 1000),
	FIELD(snapshot_create, metadata, "metadata", .max = 64, .format = "meta-key"),
	FIELD(snapshot_create, memory, "memory", .dflt = 1,
	    .doc = "false: of the disk alone; the snapshot of a sleeping capsule has the memory it "
		   "sleeps with."),
	FIELD(snapshot_create, expires_in_sec, "expires_in_sec", .min = 1, .max = 315360000,
	    .dflt = NULL_INT),
	WAIT_FIELD(snapshot_create),
	{ 0 },
};

struct snapshot_filter {
	const struct uuid *id;
	const char *kind, *state, *cursor;
	int32_t limit;
};
#define FILTER                                                        \
	FIELD(snapshot_filter, kind, "kind", .flags = IN_QUERY,       \
	    .one_of = "manual|scheduled|pre_op|last"),                \
	    FIELD(snapshot_filter, state, "state", .flags = IN_QUERY, \
		.one_of = "creating|ready|failed"),                   \
	    PAGE_FIELDS(snapshot_filter)
static const struct field snapshot_filter_fields[] = { FILTER, { 0 } };
static const struct field capsule_snapshots_fields[] = { PATH_ID(snapshot_filter, "cl-"), FILTER,
	{ 0 } };

struct by_snapshot {
	const struct uuid *id;
};
static const struct field by_snapshot_fields[] = { PATH_ID(by_snapshot, "snp-"), { 0 } };

struct snapshot_patch {
	const struct uuid *id;
	const char *name, *description, *expires_at;
	bool pinned;
};
static const struct field snapshot_patch_fields[] = {
	PATH_ID(snapshot_patch, "snp-"),
	FIELD(snapshot_patch, name, "name", .format = "name"),
	FIELD(snapshot_patch, description, "description", .max = 1000),
	FIELD(
	    snapshot_patch, expires_at, "expires_at", .format = "date-time", .doc = "null: never."),
	FIELD(snapshot_patch, pinned, "pinned", .doc = "A pinned one does not expire."),
	{ 0 },
};

struct snapshot_restore {
	struct capsule_create c;
	const char *into;
};
static const struct field snapshot_restore_fields[] = {
	FIELD(snapshot_restore, c.id, "id", .flags = NEEDED | IN_PATH, .prefix = "snp-"),
	FIELD(snapshot_restore, into, "into", .text = "new", .max = 64,
	    .doc = "new, or the capsule it was taken of: then a rollback."),
	FIELD(snapshot_restore, c.name, "name", .format = "name"),
	FIELD(snapshot_restore, c.vcpus, "vcpus", .max = 16, .min = INT32_MIN),
	FIELD(snapshot_restore, c.memory_mb, "memory_mb", .max = 65536, .min = INT32_MIN),
	FIELD(snapshot_restore, c.boot, "boot", .one_of = "warm|cold"),
	NEW_FIELDS_OF(snapshot_restore, c.),
	{ 0 },
};

struct rollback {
	const struct uuid *id;
	const struct uuid *snapshot;
	bool safety;
	int32_t wait;
};
static const struct field rollback_fields[] = {
	PATH_ID(rollback, "cl-"),
	FIELD(rollback, snapshot, "snapshot", .flags = NEEDED, .prefix = "snp-",
	    .doc = "Of this capsule."),
	FIELD(rollback, safety, "safety_snapshot", .dflt = 1,
	    .doc = "Take one of the present first; it lives 24 h."),
	WAIT_FIELD(rollback),
	{ 0 },
};

static const struct field snapshot_totals_fields[] = {
	FIELD(q_snapshot_totals, count, "count", .flags = NEEDED),
	FIELD(q_snapshot_totals, with_memory, "with_memory", .flags = NEEDED),
	FIELD(q_snapshot_totals, pinned, "pinned", .flags = NEEDED),
	FIELD(q_snapshot_totals, bytes_logical, "bytes_logical", .flags = NEEDED),
	FIELD(q_snapshot_totals, bytes_unique, "bytes_unique", .flags = NEEDED),
	{ 0 },
};

/* clang-format off */
const struct route snapshot_routes[] = {
	{ "POST", "/v1/capsules/{id}/snapshots", POOL_OPS, PERM_snapshots_manage, snapshot_create, "Take a snapshot of a capsule", CREATES | MAY_BE_EMPTY, 201, 202, IN(snapshot_create), OUT(snapshot) },
	{ "GET", "/v1/capsules/{id}/snapshots", POOL_API, PERM_capsules_view, capsule_snapshots, "Snapshots of one capsule, newest first", LISTS, 200, .in = capsule_snapshots_fields, .insize = sizeof(struct snapshot_filter), OUT(snapshot) },
	{ "POST", "/v1/capsules/{id}/rollback", POOL_OPS, PERM_capsules_update, capsule_rollback, "Set a capsule back to one of its snapshots", 0, 200, 202, IN(rollback), OUT(capsule) },
	{ "GET", "/v1/snapshots", POOL_API, PERM_capsules_view, snapshot_list, "The team's snapshots, newest first", LISTS, 200, IN(snapshot_filter), OUT(snapshot) },
	{ "GET", "/v1/snapshots/stats", POOL_API, PERM_capsules_view, snapshot_stats, "How many snapshots, how large", 0, 200, OUT(snapshot_totals) },
	{ "GET", "/v1/snapshots/{id}", POOL_API, PERM_capsules_view, snapshot_get, "One snapshot", 0, 200, IN(by_snapshot), OUT(snapshot) },
	{ "PATCH", "/v1/snapshots/{id}", POOL_API, PERM_snapshots_manage, snapshot_patch, "Change a snapshot", 0, 200, IN(snapshot_patch), OUT(snapshot) },
	{ "DELETE", "/v1/snapshots/{id}", POOL_API, PERM_snapshots_manage, snapshot_delete, "Delete a snapshot", 0, 204, IN(by_snapshot) },
	{ "POST", "/v1/snapshots/{id}/restore", POOL_OPS, PERM_capsules_create, snapshot_restore, "A new capsule of a snapshot, or a rollback to it", CREATES | MAY_BE_EMPTY, 201, 200, IN(snapshot_restore), OUT(capsule) },
	{ 0 },
};
/* clang-format on */

static int
audit(struct request *r, enum audit_kind kind, const struct q_snapshot *s, const char *metadata)
{
	struct buf data = BUF(r);

	buf_fmt(
	    &data, "{\"snapshot_id\":\"%s\",\"kind\":\"%s\"", id_text(r, "snp-", s->id), s->kind);
	if (s->capsule_id)
		buf_fmt(&data, ",\"capsule_id\":\"%s\"", id_text(r, "cl-", s->capsule_id));
	buf_chr(&data, '}');
	return audit_add(&r->work, kind,
	    &(struct audit){ .team = r->who.team,
		.capsule = s->capsule_id,
		.resource_id = id_text(r, "snp-", s->id),
		.metadata = metadata,
		.data = kind == AUDIT_SNAPSHOT_DELETE || kind == AUDIT_SNAPSHOT_RESTORE ? data.data
											: NULL });
}

/* --- read ----------------------------------------------------------------------------------- */

static int
list(struct request *r, const struct uuid *capsule)
{
	const struct snapshot_filter *in = r->in;
	struct q_snapshot *rows;
	struct page p;
	int n;

	if (page_read(r, in->limit, in->cursor, &p) < 0)
		return -1;
	n = q_snapshot_list(r->work.db, &rows, .capsule = capsule, .kind = in->kind,
	    .state = in->state, .before = p.before, .before_id = p.before_id, .limit = p.limit + 1);
	return page_reply(r, n, rows, sizeof *rows, &p, offsetof(struct q_snapshot, created_at),
	    offsetof(struct q_snapshot, id));
}

static int
snapshot_list(struct request *r)
{
	return list(r, NULL);
}

static int
capsule_snapshots(struct request *r)
{
	const struct snapshot_filter *in = r->in;
	struct q_capsule *row;
	int n = q_capsule_get(r->work.db, &row, .id = in->id);

	return n <= 0 ? reply_row(r, n, NULL) : list(r, in->id);
}

static int
snapshot_get(struct request *r)
{
	const struct by_snapshot *in = r->in;
	struct q_snapshot *row;
	int n = q_snapshot_get(r->work.db, &row, .id = in->id);

	return reply_row(r, n, row);
}

static int
snapshot_stats(struct request *r)
{
	struct q_snapshot_totals *row;
	int n = q_snapshot_stats(r->work.db, &row);

	return reply_row(r, n, row);
}

/* --- take ----------------------------------------------------------------------------------- */

static int
insert(struct request *r, const struct q_capsule_op *c, const struct snapshot_create *in,
    const char *kind, struct uuid *ret)
{
	return snapshot_add(&r->work, r->app->keys, c,
	    &(struct snapshot_ask){ .kind = kind,
		.name = in->name,
		.description = in->description,
		.metadata = pairs_json(r, in->metadata),
		.expires_in_sec = in->expires_in_sec,
		.user = r->who.user,
		.memory = in->memory },
	    ret);
}

static int
the_snapshot(struct request *r)
{
	struct doing *d = r->after_arg;
	struct q_snapshot *row;
	int n = q_snapshot_get(r->work.db, &row, .id = d->args.snapshot);

	if (n <= 0)
		return reply_row(r, n, NULL);
	if (strcmp(row->state, "failed") == 0)
		return r->work.err.code != E_OK
		    ? -1
		    : fail(r, E_AGENT, "the snapshot could not be taken");
	r->work.err = (struct err){ 0 };
	if (reply_row(r, 1, row) < 0)
		return -1;
	if (strcmp(row->state, "creating") == 0)
		r->status = 202;
	return 0;
}

/* Sets the row's operation and its job. */
static int
begin(struct request *r, const struct q_capsule *row, struct doing *d, const char *op)
{
	struct job_ref job;
	bool claimed;
	int n;

	if (capsule_job(
		&r->work, d->kind, r->who.team, &d->args, capsule_worker(r), &job, &claimed) < 0)
		return -1;
	n = q_life_op(r->work.db, .id = row->id, .epoch = row->epoch, .was = row->state, .op = op,
	    .job = &job.id);
	if (n <= 0)
		return n < 0 ? -1 : capsule_refuse(r, row->id, "running, paused or hibernated");
	return capsule_continue(r, d, &job, claimed);
}

static int
asleep(const struct q_capsule *row)
{
	return strcmp(row->state, "hibernated") == 0;
}

static int
awake(const struct q_capsule *row)
{
	return strcmp(row->state, "running") == 0 || strcmp(row->state, "paused") == 0;
}

int
snapshot_take(struct request *r, const struct snapshot_create *in, struct q_snapshot **ret)
{
	struct uuid *id = talloc(r, struct uuid);
	struct q_capsule_op *c;
	struct q_capsule *row;
	struct doing *d;

	if (capsule_own(r, in->id, others, &row) < 0 || check_metadata(r, in->metadata) < 0)
		return -1;
	if (row->op || (!awake(row) && !asleep(row)))
		return capsule_refuse(r, in->id, "running, paused or hibernated");
	if (q_capsule_for_op(r->work.db, &c, .id = in->id) <= 0 ||
	    insert(r, c, in, in->last ? "last" : "manual", id) < 0)
		return -1;
	if (asleep(row)) {
		if (snapshot_of_image(&r->work, c, id, in->memory) < 0)
			return -1;
	} else {
		d = talloc_zero(r, struct doing);
		*d = (struct doing){ .id = *in->id,
			.kind = "capsule.snapshot",
			.args = { .capsule = in->id,
			    .epoch = row->epoch,
			    .snapshot = id,
			    .memory = in->memory,
			    .destroy = in->last },
			.wait_sec = wait_or(in->wait, WAIT_LONG),
			.until = "-",
			.answer = in->answer ? in->answer : the_snapshot };
		d->args.capsule = &d->id;
		if (begin(r, row, d, "snapshot") < 0)
			return -1;
	}
	if (q_snapshot_get(r->work.db, ret, .id = id) <= 0)
		return -1;
	return audit(r, AUDIT_SNAPSHOT_CREATE, *ret, NULL);
}

static int
snapshot_create(struct request *r)
{
	struct q_snapshot *s;

	return snapshot_take(r, r->in, &s) < 0 ? -1 : reply_row(r, 1, s);
}

/* --- change --------------------------------------------------------------------------------- */

/* Whose snapshots somebody may change: his capsules', or all as an admin. */
static int
own(struct request *r, const struct uuid *id, struct q_snapshot **ret)
{
	int n = q_snapshot_get(r->work.db, ret, .id = id);

	if (n <= 0)
		return n < 0 ? -1 : fail(r, E_NOT_FOUND, "no such object, or not yours");
	if (r->own_only &&
	    !((*ret)->created_by && r->who.user && uuid_equal((*ret)->created_by, r->who.user)))
		return fail(r, E_FORBIDDEN, "only admins change snapshots that somebody else made");
	return 1;
}

static int
snapshot_patch(struct request *r)
{
	const struct snapshot_patch *in = r->in;
	bool set_expiry = json_object_object_get_ex(r->body, "expires_at", NULL);
	struct q_snapshot *row;
	int64_t at = NULL_INT;
	int n;

	if (own(r, in->id, &row) < 0)
		return -1;
	if (in->expires_at)
		(void)time_read(in->expires_at, &at);
	n = q_snapshot_update(r->work.db, .id = in->id, .name = in->name,
	    .description = in->description,
	    .set_pin = json_object_object_get_ex(r->body, "pinned", NULL), .pinned = in->pinned,
	    .set_expiry = set_expiry, .expires_at = at);
	if (n < 0 && r->work.err.code == E_CONFLICT)
		snprintf(r->work.err.text, sizeof r->work.err.text, "the capsule has a snapshot %s",
		    in->name);
	if (n < 0 || q_snapshot_get(r->work.db, &row, .id = in->id) <= 0 ||
	    audit(r, AUDIT_SNAPSHOT_UPDATE, row, NULL) < 0)
		return -1;
	return reply_row(r, 1, row);
}

int
snapshot_drop(struct request *r, const struct uuid *id)
{
	struct q_snapshot *row;
	int n;

	if (own(r, id, &row) < 0)
		return -1;
	n = q_snapshot_delete(r->work.db, .id = id);
	if (n == 0)
		return fail(r, E_BAD_STATE, "the snapshot is being taken");
	return n < 0 ? -1 : audit(r, AUDIT_SNAPSHOT_DELETE, row, NULL);
}

static int
snapshot_delete(struct request *r)
{
	const struct by_snapshot *in = r->in;

	return snapshot_drop(r, in->id) < 0 ? -1 : reply_done(r, 1);
}

/* --- roll back ------------------------------------------------------------------------------ */

static int
event_rolled(struct request *r, const struct uuid *capsule, const struct uuid *snapshot)
{
	return event_add(&r->work,
	    &(struct event){ .type = "capsule.rolled_back",
		.team = r->who.team,
		.capsule = capsule,
		.resource_type = "sandbox",
		.resource_id = id_text(r, "cl-", capsule),
		.data =
		    talloc_asprintf(r, "{\"snapshot_id\":\"%s\"}", id_text(r, "snp-", snapshot)) });
}

/* A sleeping capsule goes back by another image. */
static int
roll_asleep(struct request *r, const struct q_capsule *row, const struct q_capsule_op *c,
    const struct q_snapshot *s, const struct uuid *safety)
{
	struct q_capsule *now;
	struct capsule full;

	if (safety && snapshot_of_image(&r->work, c, safety, true) < 0)
		return -1;
	if (q_life_image_add(r->work.db, .id = row->id, .epoch = row->epoch, .team = r->who.team,
		.memory = s->memory_artifact, .disk = s->disk_artifact,
		.cpu_class = s->cpu_class ? s->cpu_class : "", .bytes = s->bytes_unique) < 0 ||
	    event_rolled(r, row->id, s->id) < 0 ||
	    q_capsule_get(r->work.db, &now, .id = row->id) <= 0)
		return -1;
	capsule_complete(r, now, &full);
	return reply_with(r, capsule_fields, &full);
}

static int
roll(struct request *r, const struct uuid *id, const struct q_snapshot *s, bool take_safety,
    int32_t wait)
{
	static const struct snapshot_create before = { .memory = true,
		.expires_in_sec = SAFETY_SECONDS,
		.description = "Taken before a rollback" };
	struct uuid *safety = take_safety ? talloc(r, struct uuid) : NULL;
	struct doing *d = talloc_zero(r, struct doing);
	struct q_capsule_op *c;
	struct q_capsule *row;
	int n;

	if (capsule_own(r, id, others, &row) < 0)
		return -1;
	if (!s->capsule_id || !uuid_equal(s->capsule_id, id))
		return fail(r, E_NOT_FOUND, "the capsule has no such snapshot");
	if (strcmp(s->state, "ready") != 0)
		return fail(r, E_BAD_STATE, "the snapshot is %s, not ready", s->state);
	if (row->op || (!awake(row) && !asleep(row)))
		return capsule_refuse(r, id, "running, paused or hibernated");
	if (q_capsule_for_op(r->work.db, &c, .id = id) <= 0 ||
	    (safety && insert(r, c, &before, "pre_op", safety) < 0))
		return -1;
	if (asleep(row))
		n = roll_asleep(r, row, c, s, safety);
	else {
		*d = (struct doing){ .id = *id,
			.kind = "capsule.rollback",
			.args = { .capsule = id,
			    .epoch = row->epoch,
			    .snapshot = s->id,
			    .safety = safety,
			    .memory = s->memory },
			.wait_sec = wait_or(wait, WAIT_LONG),
			.until = "running error stopping stopped missing",
			.later = 202 };
		n = begin(r, row, d, "rollback");
	}
	if (n < 0)
		return -1;
	return audit_add(&r->work, AUDIT_SANDBOX_ROLLBACK,
	    &(struct audit){ .team = r->who.team,
		.capsule = id,
		.resource_id = id_text(r, "cl-", id),
		.metadata =
		    talloc_asprintf(r, "{\"snapshot\":\"%s\"}", id_text(r, "snp-", s->id)) });
}

static int
capsule_rollback(struct request *r)
{
	const struct rollback *in = r->in;
	struct q_capsule *row;
	struct q_snapshot *s;
	int n;

	if (capsule_own(r, in->id, others, &row) < 0)
		return -1;
	n = q_snapshot_get(r->work.db, &s, .id = in->snapshot);
	if (n <= 0)
		return n < 0 ? -1 : fail(r, E_NOT_FOUND, "the capsule has no such snapshot");
	return roll(r, in->id, s, in->safety, in->wait);
}

/* To set a capsule back takes the permission to change it, not only the route's to make one. */
static int
may_change(struct request *r)
{
	enum allowed a = principal_allowed(&r->who, PERM_capsules_update, &r->work.err);

	r->own_only = a == ALLOW_OWN;
	return a == ALLOW_NO ? -1 : 0;
}

static int
snapshot_restore(struct request *r)
{
	const struct snapshot_restore *in = r->in;
	struct capsule_create c = in->c;
	struct q_snapshot *s;
	struct uuid *into = talloc(r, struct uuid);
	int n = q_snapshot_get(r->work.db, &s, .id = in->c.id);

	if (n <= 0)
		return reply_row(r, n, NULL);
	if (strcmp(in->into, "new") != 0) {
		if (!id_read(in->into, "cl-", into))
			return fail(r, E_BAD_INPUT, "\"into\" is neither new nor a capsule's id");
		if (may_change(r) < 0)
			return -1;
		return roll(r, into, s, true, c.wait);
	}
	if (capsule_from_snapshot(r, &c, s, into) < 0)
		return -1;
	return audit(r, AUDIT_SNAPSHOT_RESTORE, s, "{\"target\":\"new\"}");
}
