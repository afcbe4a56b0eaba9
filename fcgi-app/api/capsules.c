/*
 * capsules.c - capsules: their shape, list, get, destroy (spec 02 §2.1-2.3).
 *
 * New ones: capsules_create.c; pause to recover: capsules_life.c; fork: capsules_fork.c; of any
 * team: capsules_admin.c. Queries: sql/queries/capsules.sql, life.sql.  Tests:
 * tests/http/capsules.t, life.t, operators.py.
 */
#include "audit.h"
#include "capsules_list.h"
#include "cleanup.h"
#include "rfc3339.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

static handler capsule_list, capsule_get, capsule_destroy, list_ahead, get_ahead;

static const struct field owner_fields[] = {
	FIELD(owner, id, "id", .flags = NEEDED, .prefix = "usr-"),
	FIELD(owner, name, "name", .flags = NEEDED),
	{ 0 },
};

struct capsule_port {
	int32_t port;
	const char *visibility, *url;
};
static const struct field capsule_port_fields[] = {
	FIELD(capsule_port, port, "port", .flags = NEEDED),
	FIELD(capsule_port, visibility, "visibility", .flags = NEEDED, .one_of = "private|public"),
	FIELD(capsule_port, url, "url", .flags = NEEDED),
	{ 0 },
};

const struct field capsule_fields[] = {
	FIELD(q_capsule, id, "id", .flags = NEEDED, .prefix = "cl-"),
	FIELD(q_capsule, status, "status", .flags = NEEDED,
	    .one_of = "pending|starting|running|paused|hibernated|stopped|missing|error"),
	FIELD(q_capsule, template, "template", .flags = NEEDED),
	FIELD(q_capsule, vcpus, "vcpus", .flags = NEEDED),
	FIELD(q_capsule, memory_mb, "memory_mb", .flags = NEEDED),
	FIELD(q_capsule, timeout_sec, "timeout_sec", .flags = NEEDED, .doc = "0: no idle timeout."),
	FIELD(q_capsule, created_at, "created_at", .flags = NEEDED, .format = "date-time"),
	FIELD(q_capsule, started_at, "started_at", .flags = OMIT, .format = "date-time"),
	FIELD(q_capsule, last_active_at, "last_active_at", .flags = OMIT, .format = "date-time"),
	FIELD(q_capsule, last_updated, "last_updated", .flags = NEEDED, .format = "date-time"),
	FIELD(q_capsule, metadata, "metadata", .flags = NEEDED, .format = "json"),
	FIELD(q_capsule, state, "state", .flags = NEEDED),
	FIELD(q_capsule, state_reason, "state_reason", .flags = OMIT, .one_of = "pulling",
	    .doc = "pulling: starting or resuming on a host that fetches what it starts from."),
	FIELD(q_capsule, desired_state, "desired_state", .flags = NEEDED),
	FIELD(q_capsule, generation, "generation", .flags = NEEDED),
	FIELD(q_capsule, name, "name"),
	FIELD(q_capsule, team_id, "team_id", .flags = NEEDED, .prefix = "team-"),
	SUB(capsule, owner, "owner", owner_fields, owner),
	FIELD(q_capsule, template_id, "template_id", .flags = NEEDED, .prefix = "tpl-"),
	FIELD(q_capsule, template_version, "template_version", .flags = NEEDED),
	FIELD(q_capsule, disk_size_mb, "disk_size_mb", .flags = NEEDED),
	FIELD(q_capsule, tags, "tags", .flags = NEEDED),
	FIELD(q_capsule, env_names, "env_names", .flags = NEEDED),
	FIELD(q_capsule, error, "error", .format = "json"),
	FIELD(q_capsule, start_mode, "start_mode", .flags = OMIT),
	FIELD(q_capsule, accel, "accel", .flags = OMIT, .one_of = "kvm|tcg"),
	FIELD(q_capsule, residency, "residency", .flags = OMIT, .one_of = "ram|disk"),
	FIELD(q_capsule, visibility, "visibility", .flags = NEEDED, .one_of = "team|private"),
	FIELD(q_capsule, network, "network", .flags = NEEDED, .format = "json"),
	FIELD(q_capsule, timeout_mode, "timeout_mode", .flags = NEEDED, .one_of = "idle|fixed"),
	FIELD(q_capsule, idle_action, "idle_action", .flags = NEEDED),
	FIELD(q_capsule, idle_signals, "idle_signals", .flags = NEEDED),
	FIELD(q_capsule, auto_resume, "auto_resume", .flags = NEEDED),
	FIELD(q_capsule, expires_at, "expires_at", .flags = OMIT, .format = "date-time"),
	FIELD(q_capsule, max_lifetime_sec, "max_lifetime_sec", .flags = NEEDED),
	FIELD(q_capsule, on_max_lifetime, "on_max_lifetime", .flags = NEEDED),
	FIELD(q_capsule, restart_policy, "restart_policy", .flags = NEEDED),
	FIELD(q_capsule, paused_by, "paused_by", .flags = OMIT),
	FIELD(q_capsule, op, "op", .flags = OMIT),
	FIELD(q_capsule, parent_id, "parent_id", .flags = OMIT, .prefix = "cl-"),
	FIELD(q_capsule, snapshot_id, "snapshot_id", .flags = OMIT, .prefix = "snp-"),
	FIELD(q_capsule, warnings, "warnings", .flags = NEEDED),
	FIELD(capsule, domain, "domain", .flags = NEEDED),
	FIELD(q_capsule, host_id, "host_id", .flags = OMIT, .prefix = "host-",
	    .doc = "For operators of the platform, and where the host is the team's own."),
	SUB(capsule, ports, "ports", capsule_port_fields, capsule_port, .flags = NEEDED | LIST,
	    .doc = "Those that were declared."),
	{ 0 },
};

const struct field by_capsule_fields[] = { PATH_ID(by_capsule, "cl-"), { 0 } };

struct capsule_destroy {
	const struct uuid *id;
	const char *snapshot;
	int32_t wait;
};
static const struct field capsule_destroy_fields[] = {
	PATH_ID(capsule_destroy, "cl-"),
	FIELD(capsule_destroy, snapshot, "snapshot", .flags = IN_QUERY, .format = "name",
	    .doc = "A last snapshot of this name is taken, with memory; without it nothing ends."),
	WAIT_FIELD(capsule_destroy),
	{ 0 },
};

static const struct field capsule_filter_fields[] = { CAPSULE_FILTER_FIELDS, { 0 } };

/* clang-format off */
const struct route capsule_routes[] = {
	{ "GET", "/v1/capsules", POOL_API, PERM_capsules_view, capsule_list, "The team's capsules, newest first", LISTS, 200, IN(capsule_filter), OUT(capsule), .ahead = list_ahead },
	{ "GET", "/v1/capsules/{id}", POOL_API, PERM_capsules_view, capsule_get, "One capsule", 0, 200, IN(by_capsule), OUT(capsule), .ahead = get_ahead },
	{ "DELETE", "/v1/capsules/{id}", POOL_OPS, PERM_capsules_delete, capsule_destroy, "Destroy a capsule", 0, 204, 202, IN(capsule_destroy) },
	{ 0 },
};
/* clang-format on */

/* --- read ---------------------------------------------------------------------------------- */

/* The row has "8080 public" of each. */
static struct list
open_ports(struct request *r, const struct q_capsule *row)
{
	struct capsule_port *all;
	size_t n = 0, i;

	while (row->open_ports[n])
		n++;
	all = talloc_array(r, struct capsule_port, n + 1);
	for (i = 0; i < n; i++) {
		char *visibility;
		int32_t port = (int32_t)strtol(row->open_ports[i], &visibility, 10);

		all[i] = (struct capsule_port){ port, visibility + 1, port_url(r, row->id, port) };
	}
	return (struct list){ all, n };
}

/* Which host is no business of those for whom hosts are the platform's. */
static bool
sees_host(const struct request *r, const struct q_capsule *row)
{
	return row->own_host ||
	    (r->who.type == CALLER_USER && r->who.platform_role &&
		strcmp(r->who.platform_role, "user") != 0);
}

void
capsule_complete(struct request *r, const struct q_capsule *row, struct capsule *c)
{
	*c = (struct capsule){
		.row = *row, .domain = r->app->conf->proxy_domain, .ports = open_ports(r, row)
	};
	if (!sees_host(r, row))
		c->row.host_id = NULL;
	if (!row->owner_id)
		return;
	c->owner = talloc(r, struct owner);
	*c->owner = (struct owner){ row->owner_id, row->owner_name ? row->owner_name : "" };
}

static int
get_ahead(struct request *r)
{
	const struct by_capsule *in = r->in;

	return db_send(r->work.db, &Q_capsule_get, &(struct q_capsule_get){ .id = in->id });
}

static int
capsule_get(struct request *r)
{
	struct q_capsule *row;
	struct capsule c;
	int n = db_take(r->work.db, &Q_capsule_get, (void **)&row);

	if (n > 0)
		capsule_complete(r, row, &c);
	return reply_row(r, n, &c);
}

int
capsule_list_query(
    struct request *r, const struct capsule_filter *in, struct page *p, struct q_capsule_list *q)
{
	struct uuid *owner = talloc(r, struct uuid);
	const struct pair *metadata = query_pairs(r, "metadata.");

	if (!metadata)
		return -1;
	if (page_read(r, in->limit, in->cursor, p) < 0)
		return -1;
	*q = (struct q_capsule_list){ .state = in->state,
		.template = in->template,
		.tags = in->tag,
		.tag_any = in->tag_any,
		.name = in->name,
		.before = p->before,
		.before_id = p->before_id,
		.limit = p->limit + 1,
		.created_after = NULL_INT,
		.created_before = NULL_INT,
		.metadata = metadata->name ? pairs_json(r, metadata) : NULL };
	if (in->created_after)
		(void)time_read(in->created_after, &q->created_after);
	if (in->created_before)
		(void)time_read(in->created_before, &q->created_before);
	if (in->owner && strcmp(in->owner, "me") == 0)
		q->owner = r->who.user;
	else if (in->owner) {
		if (!id_read(in->owner, "usr-", owner))
			return fail(r, E_BAD_INPUT, "\"owner\" is neither me nor a user's id");
		q->owner = owner;
	}
	return 0;
}

int
capsule_list_reply(struct request *r, const struct page *p, const struct q_capsule *rows, int n)
{
	struct capsule *all;
	int i;

	if (n < 0)
		return -1;
	all = talloc_array(r, struct capsule, n + 1);
	for (i = 0; i < n; i++)
		capsule_complete(r, &rows[i], &all[i]);
	return page_reply(r, n, all, sizeof *all, p, offsetof(struct q_capsule, created_at),
	    offsetof(struct q_capsule, id));
}

/* "owner=me" is not known before the caller is: such a list goes the ordinary way. */
static int
list_ahead(struct request *r)
{
	const struct capsule_filter *in = r->in;
	struct q_capsule_list q;
	struct page p;

	if (in->owner)
		return 0;
	if (capsule_list_query(r, in, &p, &q) < 0) {
		r->work.err = (struct err){ 0 }; /* told after the caller is known */
		return 0;
	}
	r->after_arg = r; /* the query is on its way */
	return db_send(r->work.db, &Q_capsule_list, &q);
}

static int
capsule_list(struct request *r)
{
	struct q_capsule *rows;
	struct q_capsule_list q;
	struct page p;

	if (capsule_list_query(r, r->in, &p, &q) < 0)
		return -1;
	if (!r->after_arg && db_send(r->work.db, &Q_capsule_list, &q) < 0)
		return -1;
	return capsule_list_reply(
	    r, &p, rows, db_take(r->work.db, &Q_capsule_list, (void **)&rows));
}

/* --- what changes need ---------------------------------------------------------------------- */

int
capsule_own(struct request *r, const struct uuid *id, const char *others, struct q_capsule **ret)
{
	int n = q_capsule_get(r->work.db, ret, .id = id);

	if (n <= 0)
		return n < 0 ? -1 : fail(r, E_NOT_FOUND, "no such object, or not yours");
	if (r->own_only &&
	    !((*ret)->owner_id && r->who.user && uuid_equal((*ret)->owner_id, r->who.user)))
		return fail(r, E_FORBIDDEN, "%s", others);
	return 1;
}

int
capsule_refuse(struct request *r, const struct uuid *id, const char *wanted)
{
	struct q_capsule *row;
	int n = q_capsule_get(r->work.db, &row, .id = id);

	if (n <= 0)
		return n < 0 ? -1 : fail(r, E_NOT_FOUND, "no such object, or not yours");
	if (row->op)
		return fail(r, E_CONFLICT, "%s is under way", row->op);
	return fail(r, E_BAD_STATE, "the capsule is %s, not %s", row->state, wanted);
}

/* --- destroy ------------------------------------------------------------------------------- */

static const char not_yours[] = "only admins destroy capsules that somebody else made";

int
capsule_ended(struct request *r)
{
	r->work.err = (struct err){ 0 };
	return reply_done(r, 1);
}

int
capsule_end_of(
    struct request *r, const struct q_capsule *row, int32_t wait, int (*answer)(struct request *))
{
	struct doing *d = talloc_zero(r, struct doing);
	int n = q_capsule_stop_wanted(r->work.db, .id = row->id, .reason = "user");

	if (n <= 0)
		return n;
	*d = (struct doing){ .id = *row->id,
		.team = row->team_id,
		.kind = "capsule.destroy",
		.args = { .epoch = row->epoch },
		.wait_sec = wait,
		.until = "stopping stopped",
		.answer = answer };
	d->args.capsule = &d->id;
	if (capsule_begin(r, d) < 0)
		return -1;
	if (audit_add(&r->work, AUDIT_SANDBOX_DESTROY,
		&(struct audit){ .team = row->team_id,
		    .capsule = row->id,
		    .resource_id = id_text(r, "cl-", row->id),
		    .metadata = "{\"cause\":\"user\"}",
		    .data = "{\"reason\":\"user\"}" }) < 0)
		return -1;
	return 1;
}

int
capsule_end(struct request *r, const struct uuid *id, int32_t wait, int (*answer)(struct request *))
{
	struct q_capsule *row;

	return capsule_own(r, id, not_yours, &row) < 0 ? -1 : capsule_end_of(r, row, wait, answer);
}

/* The last snapshot was taken, and the capsule goes; 202: it is still being taken. */
static int
last_taken(struct request *r)
{
	struct doing *d = r->after_arg;
	struct q_snapshot *s;
	int n = q_snapshot_get(r->work.db, &s, .id = d->args.snapshot);

	if (n < 0)
		return -1;
	if (n > 0 && strcmp(s->state, "failed") == 0)
		return r->work.err.code != E_OK
		    ? -1
		    : fail(r, E_AGENT, "the snapshot could not be taken; the capsule is as it was");
	r->work.err = (struct err){ 0 };
	(void)reply_done(r, 1);
	if (n > 0 && strcmp(s->state, "creating") == 0)
		r->status = 202;
	return 0;
}

/* A running one is destroyed by the job of its snapshot; a sleeping one's image is the snapshot. */
static int
destroy_behind_snapshot(struct request *r, const struct capsule_destroy *in)
{
	struct snapshot_create last = { .id = in->id,
		.name = in->snapshot,
		.description = "",
		.expires_in_sec = NULL_INT,
		.wait = in->wait,
		.memory = true,
		.last = true,
		.answer = last_taken };
	struct q_capsule *row;
	struct q_snapshot *s;

	if (capsule_own(r, in->id, not_yours, &row) < 0 ||
	    principal_allowed(&r->who, PERM_snapshots_manage, &r->work.err) == ALLOW_NO)
		return -1;
	if (strcmp(row->state, "stopping") == 0 || strcmp(row->state, "stopped") == 0)
		return reply_done(r, 1);
	if (snapshot_take(r, &last, &s) < 0)
		return -1;
	if (strcmp(s->state, "ready") == 0 &&
	    capsule_end(r, in->id, wait_or(in->wait, WAIT_SHORT), capsule_ended) < 0)
		return -1;
	return reply_done(r, 1);
}

/* A second call: nothing more to say. */
static int
capsule_destroy(struct request *r)
{
	const struct capsule_destroy *in = r->in;

	if (in->snapshot)
		return destroy_behind_snapshot(r, in);
	if (capsule_end(r, in->id, wait_or(in->wait, WAIT_SHORT), capsule_ended) < 0)
		return -1;
	return reply_done(r, 1);
}
