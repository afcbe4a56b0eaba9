/*
 * admin_teams.c - administrators of the platform: teams, and what the deletion of an account would
 * take along (spec 01 §2.8).
 *
 * Queries: sql/queries/admin.sql, deletion.sql.  Tests: tests/jobs/admin.py.
 */
#include "admin.h"
#include "audit.h"
#include "cleanup.h"
#include "deletion.q.h"
#include "deletion_ledger.h"
#include "storage.q.h"

#include <string.h>

static handler team_list, team_get, team_patch, team_owner, team_byoc, team_remove, preview;

static const struct field admin_team_fields[] = {
	FIELD(q_admin_team, id, "id", .flags = NEEDED, .prefix = "team-"),
	FIELD(q_admin_team, name, "name", .flags = NEEDED),
	FIELD(q_admin_team, slug, "slug", .flags = NEEDED),
	FIELD(q_admin_team, is_byoc, "is_byoc", .flags = NEEDED),
	FIELD(q_admin_team, created_at, "created_at", .flags = NEEDED, .format = "date-time"),
	FIELD(q_admin_team, deleted_at, "deleted_at", .format = "date-time"),
	FIELD(q_admin_team, member_count, "member_count", .flags = NEEDED),
	FIELD(q_admin_team, owner_name, "owner_name"),
	FIELD(q_admin_team, owner_email, "owner_email"),
	FIELD(q_admin_team, active_sandbox_count, "active_sandbox_count", .flags = NEEDED,
	    .doc = "All but paused, hibernated, stopped and failed ones."),
	FIELD(q_admin_team, kind, "kind", .flags = NEEDED),
	FIELD(q_admin_team, frozen, "frozen", .flags = NEEDED),
	FIELD(q_admin_team, purged_at, "purged_at", .format = "date-time"),
	{ 0 },
};

struct team_filter {
	const char *page, *cursor, *q, *byoc, *deleted;
};
static const struct field team_filter_fields[] = {
	FIELD(team_filter, page, "page", .flags = IN_QUERY, .doc = "1 to 100."),
	FIELD(team_filter, cursor, "cursor", .flags = IN_QUERY,
	    .doc = "X-Next-Cursor of the page before."),
	FIELD(team_filter, q, "q", .flags = IN_QUERY, .max = 128, .doc = "Prefix of name or slug."),
	FIELD(team_filter, byoc, "byoc", .flags = IN_QUERY, .one_of = "true|false"),
	FIELD(team_filter, deleted, "deleted", .flags = IN_QUERY, .one_of = "true|false"),
	{ 0 },
};
struct team_page {
	struct list teams;
	int64_t total, page, per_page, total_pages;
};
static const struct field team_page_fields[] = {
	SUB(team_page, teams, "teams", admin_team_fields, q_admin_team, .flags = NEEDED | LIST),
	FIELD(team_page, total, "total", .flags = NEEDED),
	FIELD(team_page, page, "page", .flags = NEEDED),
	FIELD(team_page, per_page, "per_page", .flags = NEEDED),
	FIELD(team_page, total_pages, "total_pages", .flags = NEEDED),
	{ 0 },
};

struct by_team {
	const struct uuid *id;
};
static const struct field by_team_fields[] = { PATH_ID(by_team, "team-"), { 0 } };

struct team_patch {
	const struct uuid *id;
	const char *name, *kind;
};
static const struct field team_patch_fields[] = {
	PATH_ID(team_patch, "team-"),
	FIELD(team_patch, name, "name", .min = 1, .max = 128, .format = "team-name"),
	FIELD(team_patch, kind, "kind", .one_of = "team|department|project|organization"),
	{ 0 },
};
struct team_owner {
	const struct uuid *id, *user;
};
static const struct field team_owner_fields[] = {
	PATH_ID(team_owner, "team-"),
	FIELD(team_owner, user, "user_id", .flags = NEEDED, .prefix = "usr-"),
	{ 0 },
};
struct team_byoc {
	const struct uuid *id;
	bool enabled;
};
static const struct field team_byoc_fields[] = {
	PATH_ID(team_byoc, "team-"),
	FIELD(team_byoc, enabled, "enabled", .flags = NEEDED),
	{ 0 },
};

/* What goes with an account. */
struct by_user {
	const struct uuid *id;
};
static const struct field by_user_fields[] = { PATH_ID(by_user, "usr-"), { 0 } };
struct doomed_user {
	const struct uuid *id;
	const char *email, *name, *status;
};
static const struct field doomed_user_fields[] = {
	FIELD(doomed_user, id, "id", .flags = NEEDED, .prefix = "usr-"),
	FIELD(doomed_user, email, "email", .flags = NEEDED),
	FIELD(doomed_user, name, "name", .flags = NEEDED),
	FIELD(doomed_user, status, "status", .flags = NEEDED),
	{ 0 },
};
struct team_ref {
	const struct uuid *id;
	const char *name;
};
static const struct field team_ref_fields[] = {
	FIELD(team_ref, id, "id", .flags = NEEDED, .prefix = "team-"),
	FIELD(team_ref, name, "name", .flags = NEEDED),
	{ 0 },
};
struct connection_ref {
	const struct uuid *id;
	const char *provider;
	int64_t objects;
};
static const struct field connection_ref_fields[] = {
	FIELD(connection_ref, id, "id", .flags = NEEDED, .prefix = "cn-"),
	FIELD(connection_ref, provider, "provider", .flags = NEEDED),
	FIELD(connection_ref, objects, "objects", .flags = NEEDED),
	{ 0 },
};
struct block {
	const char *code;
	struct list teams;
};
static const struct field block_fields[] = {
	FIELD(block, code, "code", .flags = NEEDED),
	SUB(block, teams, "teams", team_ref_fields, team_ref, .flags = NEEDED | LIST),
	{ 0 },
};
struct preview {
	struct doomed_user *user;
	struct list teams_deleted, teams_left, storage_connections, blocked_by;
	int64_t capsules, keys, objects;
};
static const struct field preview_fields[] = {
	SUB(preview, user, "user", doomed_user_fields, doomed_user, .flags = NEEDED),
	SUB(preview, teams_deleted, "teams_deleted", team_ref_fields, team_ref,
	    .flags = NEEDED | LIST),
	SUB(preview, teams_left, "teams_left", team_ref_fields, team_ref, .flags = NEEDED | LIST),
	FIELD(preview, capsules, "capsules", .flags = NEEDED),
	FIELD(preview, keys, "keys", .flags = NEEDED),
	SUB(preview, storage_connections, "storage_connections", connection_ref_fields,
	    connection_ref, .flags = NEEDED | LIST),
	FIELD(preview, objects, "objects", .flags = NEEDED),
	SUB(preview, blocked_by, "blocked_by", block_fields, block, .flags = NEEDED | LIST,
	    .doc = "last_admin; owns_team_with_members, which delete_teams lifts."),
	{ 0 },
};

/* clang-format off */
const struct route admin_team_routes[] = {
	{ "GET", "/v1/admin/users/{id}/delete-preview", POOL_API, PLATFORM_READ, preview, "What the deletion of an account would take along", 0, 200, IN(by_user), OUT(preview) },
	{ "GET", "/v1/admin/teams", POOL_API, PLATFORM_READ, team_list, "Teams", 0, 200, IN(team_filter), OUT(team_page) },
	{ "GET", "/v1/admin/teams/{id}", POOL_API, PLATFORM_READ, team_get, "A team", 0, 200, IN(by_team), OUT(admin_team) },
	{ "PATCH", "/v1/admin/teams/{id}", POOL_API, PLATFORM_ADMIN, team_patch, "Change a team", 0, 200, IN(team_patch), OUT(admin_team) },
	{ "PUT", "/v1/admin/teams/{id}/owner", POOL_API, PLATFORM_ADMIN, team_owner, "Name an owner of a team", PROOF, 204, IN(team_owner) },
	{ "PUT", "/v1/admin/teams/{id}/byoc", POOL_API, PLATFORM_ADMIN, team_byoc, "May a team bring hosts of its own?", 0, 204, IN(team_byoc) },
	{ "DELETE", "/v1/admin/teams/{id}", POOL_API, PLATFORM_ADMIN, team_remove, "Delete a team", PROOF_OF_FACTOR, 204, IN(by_team) },
	{ 0 },
};
/* clang-format on */

/* --- read ------------------------------------------------------------------------------------ */

static int
reply_team(struct request *r, const struct uuid *id)
{
	struct q_admin_team *t;
	int n = q_admin_team_list(r->work.db, &t, .id = id, .before = NULL_INT, .limit = 1);

	return reply_row(r, n, t);
}

static int
team_get(struct request *r)
{
	return reply_team(r, ((const struct by_team *)r->in)->id);
}

static int
team_list(struct request *r)
{
	const struct team_filter *in = r->in;
	struct q_admin_total *total;
	struct q_admin_team *rows;
	struct team_page out;
	struct admin_page p;
	int n;

	if (admin_page_read(r, in->page, in->cursor, &p) < 0)
		return -1;
	n = q_admin_team_list(r->work.db, &rows, .byoc = in->byoc, .deleted = in->deleted,
	    .q = in->q, .before = p.key.before, .before_id = p.key.before_id, .skip = p.skip,
	    .limit = p.key.limit + 1);
	if (n < 0 ||
	    q_admin_team_count(
		r->work.db, &total, .byoc = in->byoc, .deleted = in->deleted, .q = in->q) < 0)
		return -1;
	out = (struct team_page){ { rows, admin_rows(&p, n) }, total->n, p.number, ADMIN_PAGE,
		admin_pages(total->n) };
	page_link(r, n, rows, sizeof *rows, &p.key, offsetof(struct q_admin_team, created_at),
	    offsetof(struct q_admin_team, id));
	return reply_with(r, r->route->out, &out);
}

/* --- change ---------------------------------------------------------------------------------- */

static int
lock_team(struct request *r, const struct uuid *id, struct q_live_team **t)
{
	int n = q_admin_team_lock(r->work.db, t, .id = id);

	if (n <= 0)
		return n < 0 ? -1 : fail(r, E_NOT_FOUND, "no such object, or not yours");
	return (*t)->is_platform ? fail(r, E_PLATFORM_TEAM, "the Platform team stays as it is") : 0;
}

/* A row in the Platform team's log, and one in the team's own. */
static int
audit_both(struct request *r, enum audit_kind kind, const struct uuid *team,
    const struct uuid *subject, const char *metadata)
{
	struct ledger l = { .w = &r->work };
	const char *id = id_text(r, "team-", team);

	ledger_add(&l, kind, &uuid_zero, id, subject, metadata);
	ledger_add(&l, kind, team, id, subject, metadata);
	return ledger_write(&l);
}

static const char *
names_json(struct request *r, const char *old, const char *new)
{
	struct buf b = BUF(r);

	buf_str(&b, "{\"old_name\":");
	buf_json(&b, old);
	buf_str(&b, ",\"new_name\":");
	buf_json(&b, new);
	buf_chr(&b, '}');
	return b.data;
}

static int
team_patch(struct request *r)
{
	const struct team_patch *in = r->in;
	struct q_live_team *t;
	bool name, kind;

	if (lock_team(r, in->id, &t) < 0)
		return -1;
	name = in->name && strcmp(in->name, t->name) != 0;
	kind = in->kind && strcmp(in->kind, t->kind) != 0;
	if ((name || kind) &&
	    q_admin_team_update(r->work.db, .id = in->id, .name = in->name, .kind = in->kind) < 0)
		return -1;
	if (name &&
	    audit_both(r, AUDIT_TEAM_RENAME, in->id, NULL, names_json(r, t->name, in->name)) < 0)
		return -1;
	if (kind && audit_both(r, AUDIT_TEAM_UPDATE, in->id, NULL, "{\"changed\":[\"kind\"]}") < 0)
		return -1;
	return reply_team(r, in->id);
}

static int
team_owner(struct request *r)
{
	const struct team_owner *in = r->in;
	struct q_live_team *t;
	struct q_dying *u;
	int n;

	n = q_dying_lock(r->work.db, &u, .id = in->user);
	if (n < 0 || lock_team(r, in->id, &t) < 0)
		return -1;
	if (!n || strcmp(u->status, "active") != 0)
		return fail(r, E_NOT_FOUND, "no such active account");
	if (q_admin_member_add(r->work.db, .team = in->id, .user = in->user, .role = "owner",
		.by = r->who.user) < 0)
		return -1;
	if (audit_both(r, AUDIT_TEAM_SET_OWNER, in->id, in->user,
		talloc_asprintf(r, "{\"user\":\"%s\"}", id_text(r, "usr-", in->user))) < 0)
		return -1;
	return reply_done(r, 1);
}

static int
team_byoc(struct request *r)
{
	const struct team_byoc *in = r->in;
	struct q_live_team *t;

	if (lock_team(r, in->id, &t) < 0)
		return -1;
	if (t->is_byoc == in->enabled)
		return reply_done(r, 1);
	if (!in->enabled && t->byoc_hosts)
		return fail(
		    r, E_HAS_BYOC_HOSTS, "the team has %d hosts of its own", (int)t->byoc_hosts);
	if (q_admin_team_byoc(r->work.db, .id = in->id, .enabled = in->enabled) < 0 ||
	    audit_add(&r->work, AUDIT_TEAM_SET_BYOC,
		&(struct audit){ .resource_id = id_text(r, "team-", in->id),
		    .metadata = in->enabled ? "{\"enabled\":true}" : "{\"enabled\":false}" }) < 0)
		return -1;
	return reply_done(r, 1);
}

static int
team_remove(struct request *r)
{
	struct deletion d = admin_acts(r);
	struct uuid job;
	int n = team_delete(&r->work, &d, ((const struct by_team *)r->in)->id, &job);

	admin_job(r, n, &job);
	return n < 0 ? -1 : reply_done(r, 1);
}

/* --- what would go --------------------------------------------------------------------------- */

static void
add_team(struct request *r, struct list *l, const struct q_his_team *t)
{
	struct team_ref *all = talloc_realloc(r, l->item, struct team_ref, l->n + 1);

	all[l->n++] = (struct team_ref){ t->id, t->name };
	l->item = all;
}

static void
add_block(struct request *r, struct list *l, const char *code, struct list teams)
{
	struct block *all = talloc_realloc(r, l->item, struct block, l->n + 1);

	all[l->n++] = (struct block){ code, teams };
	l->item = all;
}

static int
preview_teams(struct request *r, const struct uuid *user, struct preview *p)
{
	struct list orphans = { 0 };
	struct q_his_team *t;
	struct q_held *held;
	int n = q_his_teams(r->work.db, &t, .user = user), i;

	for (i = 0; i < n; i++) {
		if (team_would_be_orphan(&t[i]))
			add_team(r, &orphans, &t[i]);
		if (!team_goes_along(&t[i], false)) {
			add_team(r, &p->teams_left, &t[i]);
			continue;
		}
		add_team(r, &p->teams_deleted, &t[i]);
		if (q_team_holds(r->work.db, &held, .team = t[i].id, .user = user) < 0)
			return -1;
		p->capsules += held->capsules;
		p->keys += held->keys;
	}
	if (orphans.n)
		add_block(r, &p->blocked_by, "owns_team_with_members", orphans);
	return n < 0 ? -1 : 0;
}

static int
preview_storage(struct request *r, const struct uuid *user, struct preview *p)
{
	struct q_connection_secret *c;
	struct connection_ref *all;
	int n = q_connections_of_user(r->work.db, &c, .user = user), i;

	if (n < 0)
		return -1;
	all = talloc_array(r, struct connection_ref, n + 1);
	for (i = 0; i < n; i++) {
		all[i] = (struct connection_ref){ c[i].id, "s3", c[i].objects };
		p->objects += c[i].objects;
	}
	p->storage_connections = (struct list){ all, n };
	return 0;
}

/* The queries are those of the deletion; the transaction is given up, and with it their locks. */
static int
preview(struct request *r)
{
	const struct by_user *in = r->in;
	struct preview p = { 0 };
	struct doomed_user user;
	struct q_admin_total *keys;
	struct q_tally *admins;
	struct q_dying *u;
	int n;

	db_begin(r->work.db);
	n = q_dying_lock(r->work.db, &u, .id = in->id);
	if (n <= 0 || strcmp(u->status, "deleted") == 0)
		return n < 0 ? -1 : reply_done(r, 0);
	user = (struct doomed_user){ u->id, u->email, u->name, u->status };
	p.user = &user;
	if (q_admins_left(r->work.db, &admins, .id = in->id) < 0 ||
	    q_keys_of_user_count(r->work.db, &keys, .user = in->id) < 0)
		return -1;
	p.keys = keys->n;
	if (!admins->n && strcmp(u->platform_role, "admin") == 0 &&
	    strcmp(u->status, "active") == 0)
		add_block(r, &p.blocked_by, "last_admin", (struct list){ 0 });
	if (preview_teams(r, in->id, &p) < 0 || preview_storage(r, in->id, &p) < 0)
		return -1;
	return reply_with(r, r->route->out, &p);
}
