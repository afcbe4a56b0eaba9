/*
 * e2b_snapshots.c - snapshots and templates through the E2B protocol (spec 06 §6): to its clients
 * both are what a sandbox is made from.
 *
 * A name points at the newest ready snapshot that was taken with it; taking one more moves it.
 */
#include "audit.h"
#include "cleanup.h"
#include "e2b.h"

static handler snapshot_take_named, snapshot_list, template_delete, template_list, template_get,
    template_show, alias_get;

struct take {
	const char *id, *name;
};
static const struct field take_fields[] = {
	SANDBOX_ID(take),
	FIELD(take, name, "name", .min = 1, .max = 200,
	    .doc = "In the team's name space; a repeated name moves."),
	{ 0 },
};
struct taken {
	const char *id;
	const char *const *names;
	const struct uuid *key; /* of the page */
	int64_t at;
};
static const struct field taken_fields[] = {
	FIELD(taken, id, "snapshotID", .flags = NEEDED),
	FIELD(taken, names, "names", .flags = NEEDED),
	{ 0 },
};

struct snapshots_filter {
	const char *sandbox, *name, *cursor;
	int32_t limit;
};
#define PAGE                                                                             \
	FIELD(snapshots_filter, limit, "limit", .flags = IN_QUERY, .min = 1, .max = 100, \
	    .dflt = 100),                                                                \
	    FIELD(snapshots_filter, cursor, "nextToken", .flags = IN_QUERY,              \
		.doc = "X-Next-Token of the page before.")
static const struct field snapshots_filter_fields[] = {
	FIELD(snapshots_filter, sandbox, "sandboxID", .flags = IN_QUERY, .max = 200),
	FIELD(snapshots_filter, name, "name", .flags = IN_QUERY, .max = 200),
	PAGE,
	{ 0 },
};
static const struct field templates_filter_fields[] = {
	FIELD(snapshots_filter, name, "teamID", .flags = IN_QUERY, .max = 200,
	    .doc = "The credential's team is what counts."),
	PAGE,
	{ 0 },
};
static const struct field by_name_fields[] = { SANDBOX_ID(by_sandbox), { 0 } };
struct show_in {
	const char *id;
	bool public;
};
static const struct field show_in_fields[] = {
	SANDBOX_ID(show_in),
	FIELD(show_in, public, "public", .flags = NEEDED,
	    .doc = "true: every team may start it, as <slug>/<name>."),
	{ 0 },
};
struct shown {
	const char *const *names;
};
static const struct field shown_fields[] = {
	FIELD(shown, names, "names", .flags = NEEDED),
	{ 0 },
};
struct by_alias {
	const char *alias;
};
static const struct field by_alias_fields[] = {
	FIELD(by_alias, alias, "alias", .flags = NEEDED | IN_PATH, .max = 200),
	{ 0 },
};

struct build {
	const char *id, *status;
	int64_t created_at, updated_at, finished_at;
	int32_t vcpus, memory_mb, disk_mb;
	const char *envd;
};
static const struct field build_fields[] = {
	FIELD(build, id, "buildID", .flags = NEEDED, .format = "uuid"),
	FIELD(build, status, "status", .flags = NEEDED),
	FIELD(build, created_at, "createdAt", .flags = NEEDED, .format = "date-time"),
	FIELD(build, updated_at, "updatedAt", .flags = NEEDED, .format = "date-time"),
	FIELD(build, finished_at, "finishedAt", .flags = NEEDED, .format = "date-time"),
	FIELD(build, vcpus, "cpuCount", .flags = NEEDED),
	FIELD(build, memory_mb, "memoryMB", .flags = NEEDED),
	FIELD(build, disk_mb, "diskSizeMB", .flags = NEEDED),
	FIELD(build, envd, "envdVersion", .flags = NEEDED),
	{ 0 },
};
struct template
{
	const struct uuid *id;
	const char *build, *status, *envd, *created_by;
	const char *const *aliases, *const *names;
	int32_t vcpus, memory_mb, disk_mb;
	bool public;
	int64_t created_at, updated_at, spawned_at, spawned, builds_made;
	struct list builds;
};
#define TEMPLATE                                                                              \
	FIELD(template, id, "templateID", .flags = NEEDED, .prefix = ""),                     \
	    FIELD(template, build, "buildID", .flags = NEEDED, .format = "uuid"),             \
	    FIELD(template, status, "buildStatus", .flags = NEEDED),                          \
	    FIELD(template, vcpus, "cpuCount", .flags = NEEDED),                              \
	    FIELD(template, memory_mb, "memoryMB", .flags = NEEDED),                          \
	    FIELD(template, disk_mb, "diskSizeMB", .flags = NEEDED),                          \
	    FIELD(template, public, "public", .flags = NEEDED),                               \
	    FIELD(template, aliases, "aliases", .flags = NEEDED),                             \
	    FIELD(template, names, "names", .flags = NEEDED),                                 \
	    FIELD(template, created_at, "createdAt", .flags = NEEDED, .format = "date-time"), \
	    FIELD(template, updated_at, "updatedAt", .flags = NEEDED, .format = "date-time"), \
	    FIELD(template, created_by, "createdBy"),                                         \
	    FIELD(template, spawned_at, "lastSpawnedAt", .format = "date-time"),              \
	    FIELD(template, spawned, "spawnCount", .flags = NEEDED),                          \
	    FIELD(template, builds_made, "buildCount", .flags = NEEDED),                      \
	    FIELD(template, envd, "envdVersion", .flags = NEEDED)
static const struct field template_fields[] = { TEMPLATE, { 0 } };
static const struct field template_detail_fields[] = {
	TEMPLATE,
	SUB(template, builds, "builds", build_fields, build, .flags = NEEDED | LIST),
	{ 0 },
};
struct alias_of {
	const struct uuid *id;
	bool public;
};
static const struct field alias_of_fields[] = {
	FIELD(alias_of, id, "templateID", .flags = NEEDED, .prefix = ""),
	FIELD(alias_of, public, "public", .flags = NEEDED),
	{ 0 },
};

/* clang-format off */
#define FILTER(table) .in = table##_fields, .insize = sizeof(struct snapshots_filter)
#define BY_NAME .in = by_name_fields, .insize = sizeof(struct by_sandbox)
const struct route e2b_snapshot_routes[] = {
	{ "POST", "/sandboxes/{id}/snapshots", POOL_OPS, PERM_snapshots_manage, snapshot_take_named, "E2B: take a snapshot of a sandbox", E2B | CREATES | MAY_BE_EMPTY, 201, IN(take), OUT(taken) },
	{ "GET", "/snapshots", POOL_API, PERM_capsules_view, snapshot_list, "E2B: snapshots, newest first", E2B | LISTS, 200, FILTER(snapshots_filter), OUT(taken) },
	{ "DELETE", "/templates/{id}", POOL_OPS, PERM_snapshots_manage, template_delete, "E2B: delete a template of the team, a snapshot, or all that have its name", E2B, 204, BY_NAME },
	{ "PATCH", "/templates/{id}", POOL_API, PERM_templates_manage, template_show, "E2B: show a template of the team to every team, or no longer", E2B, 200, IN(show_in), OUT(shown) },
	{ "PATCH", "/v2/templates/{id}", POOL_API, PERM_templates_manage, template_show, "E2B: show a template of the team to every team, or no longer", E2B, 200, IN(show_in), OUT(shown) },
	{ "GET", "/templates", POOL_API, PERM_capsules_view, template_list, "E2B: templates, newest first", E2B | LISTS, 200, FILTER(templates_filter), OUT(template) },
	{ "GET", "/v2/templates", POOL_API, PERM_capsules_view, template_list, "E2B: templates, newest first", E2B | LISTS, 200, FILTER(templates_filter), OUT(template) },
	{ "GET", "/templates/aliases/{alias}", POOL_API, PERM_capsules_view, alias_get, "E2B: what a name of a template means", E2B, 200, IN(by_alias), OUT(alias_of) },
	{ "GET", "/templates/{id}", POOL_API, PERM_capsules_view, template_get, "E2B: one template", E2B, 200, BY_NAME, .out = template_detail_fields },
	{ 0 },
};
/* clang-format on */

/* --- snapshots ------------------------------------------------------------------------------ */

static const char *const *
names_of(struct request *r, const char *slug, const char *alias)
{
	const char **list = talloc_zero_array(r, const char *, 2);

	if (alias)
		list[0] = talloc_asprintf(list, "%s/%s", slug, alias);
	return list;
}

static int
shape(struct request *r, const struct uuid *id, const char *alias, int64_t at, struct taken *t)
{
	const char *slug = alias ? e2b_slug(r) : "";

	if (!slug)
		return -1;
	*t = (struct taken){ .id = alias ? talloc_asprintf(r, "%s/%s:default", slug, alias)
					 : talloc_asprintf(r, "%s:default", id_text(r, "", id)),
		.names = names_of(r, slug, alias),
		.key = id,
		.at = at };
	return 0;
}

/* Behind the commit: is it sealed? */
static int
sealed(struct request *r)
{
	struct doing *d = r->after_arg;
	struct err cause = r->work.err;
	struct q_snapshot *s;
	int n = q_snapshot_get(r->work.db, &s, .id = d->args.snapshot);

	if (n <= 0)
		return n < 0 ? -1 : fail(r, E_NOT_FOUND, "the snapshot is gone");
	if (strcmp(s->state, "failed") == 0) {
		if (cause.code == E_OK)
			return fail(r, E_AGENT, "the snapshot could not be taken");
		return -1;
	}
	r->work.err = (struct err){ 0 };
	/* the answer stands already */
	return strcmp(s->state, "creating") == 0
	    ? fail(r, E_TIMEOUT, "the snapshot is still being taken")
	    : 0;
}

static int
snapshot_take_named(struct request *r)
{
	const struct take *in = r->in;
	struct snapshot_create c = { .description = "",
		.memory = true,
		.expires_in_sec = NULL_INT,
		.wait = WAIT_LONG,
		.answer = sealed };
	const char *alias = NULL;
	struct q_sandbox *s;
	struct q_snapshot *row;
	struct taken t;

	if (sandbox_find(r, in->id, &s) < 0 || (in->name && e2b_alias(r, in->name, &alias) < 0))
		return -1;
	c.id = s->id;
	if (snapshot_take(r, &c, &row) < 0 ||
	    (alias && q_e2b_snapshot_name(r->work.db, .id = row->id, .alias = alias) < 0) ||
	    shape(r, row->id, alias, row->created_at, &t) < 0)
		return -1;
	return reply_with(r, taken_fields, &t);
}

static int
snapshot_list(struct request *r)
{
	const struct snapshots_filter *in = r->in;
	struct uuid *capsule = talloc(r, struct uuid);
	struct q_e2b_snapshot *rows;
	const char *alias = NULL;
	struct taken *all;
	struct page p;
	int n, i;

	if (page_read(r, in->limit, in->cursor, &p) < 0)
		return -1;
	if (in->sandbox && !id_read(in->sandbox, "", capsule))
		return reply_rows(r, 0, NULL, 0); /* no sandbox, no snapshots of it */
	if (in->name) {
		alias = strrchr(in->name, '/') ? strrchr(in->name, '/') + 1 : in->name;
		alias = talloc_strndup(r, alias, strcspn(alias, ":"));
	}
	n = q_e2b_snapshots(r->work.db, &rows, .capsule = in->sandbox ? capsule : NULL,
	    .alias = alias, .before = p.before, .before_id = p.before_id, .limit = p.limit + 1);
	if (n < 0)
		return -1;
	all = talloc_array(r, struct taken, n + 1);
	for (i = 0; i < n; i++)
		if (shape(r, rows[i].id, rows[i].alias, rows[i].created_at, &all[i]) < 0)
			return -1;
	return e2b_page_reply(
	    r, n, all, sizeof *all, &p, offsetof(struct taken, at), offsetof(struct taken, key));
}

/* Who made a template is not known: what members may do with their own they may with none. */
static int
may_manage(struct request *r, const struct q_e2b_template *t)
{
	enum allowed a = principal_allowed(&r->who, PERM_templates_manage, &r->work.err);

	if (a == ALLOW_NO)
		return -1;
	if (uuid_equal(t->team_id, &uuid_zero))
		return fail(r, E_FORBIDDEN, "it is the platform's: every team has it");
	if (!uuid_equal(t->team_id, r->who.team))
		return fail(r, E_FORBIDDEN, "it belongs to another team");
	if (a == ALLOW_OWN)
		return fail(r, E_FORBIDDEN, "that takes an owner or administrator of the team");
	return 0;
}

static int
template_audit(struct request *r, enum audit_kind kind, const struct q_e2b_template *t, bool public)
{
	const char *said = public ? "public" : "team";

	return audit_add(&r->work, kind,
	    &(struct audit){ .team = r->who.team,
		.resource_id = t->name,
		.metadata = talloc_asprintf(r, "{\"visibility\":\"%s\"}", said),
		.data = talloc_asprintf(r,
		    "{\"template_id\":\"%s\",\"version\":%d,\"visibility\":\"%s\"}",
		    id_text(r, "tpl-", t->id), t->version, said) });
}

/* It starts nothing any more, and its name is free; what was made of it goes on. */
static int
template_drop(struct request *r, const struct q_e2b_template *t)
{
	int n;

	if (may_manage(r, t) < 0)
		return -1;
	n = q_e2b_template_delete(r->work.db, .id = t->id);
	if (n > 0 && template_audit(r, AUDIT_TEMPLATE_DELETE, t, t->public) < 0)
		return -1;
	return reply_done(r, n);
}

/* By a name all its versions go, by an id that one. */
static int
template_delete(struct request *r)
{
	const struct by_sandbox *in = r->in;
	struct q_e2b_snapshot *rows;
	struct e2b_named what;
	int n, i;

	if (e2b_resolve(r, in->id, &what) < 0)
		return -1;
	if (what.template)
		return template_drop(r, what.template);
	if (!what.alias)
		return snapshot_drop(r, what.snapshot->id) < 0 ? -1 : reply_done(r, 1);
	n = q_e2b_snapshots_of(r->work.db, &rows, .alias = what.alias);
	for (i = 0; i < n; i++)
		if (snapshot_drop(r, rows[i].id) < 0)
			return -1;
	return reply_done(r, n);
}

/* --- templates ------------------------------------------------------------------------------ */

static const char *
uuid_text(void *mem, const struct uuid *u)
{
	char text[37];

	return talloc_strdup(mem, uuid_write(text, u));
}

static void
template_shape(struct request *r, const struct q_e2b_template *t, struct template *ret)
{
	const char **names = talloc_zero_array(r, const char *, 2);
	const char **aliases = talloc_zero_array(r, const char *, 2);

	aliases[0] = t->name;
	names[0] = talloc_asprintf(names, "%s/%s", t->slug, t->name);
	*ret = (struct template){ .id = t->id,
		.build = uuid_text(r, t->build_id),
		.status = "ready",
		.envd = E2B_ENVD,
		.aliases = aliases,
		.names = names,
		.vcpus = E2B_VCPUS,
		.memory_mb = E2B_MEMORY_MB,
		.disk_mb = t->disk_size_mb > E2B_DISK_MB ? t->disk_size_mb : E2B_DISK_MB,
		.public = t->public,
		.created_at = t->created_at,
		.updated_at = t->updated_at,
		.spawned_at = t->spawned_at,
		.spawned = t->spawned,
		.builds_made = t->builds };
}

static int
template_list(struct request *r)
{
	const struct snapshots_filter *in = r->in;
	struct q_e2b_template *rows;
	struct template *all;
	struct page p;
	int n, i;

	if (page_read(r, in->limit, in->cursor, &p) < 0)
		return -1;
	n = q_e2b_templates(
	    r->work.db, &rows, .before = p.before, .before_id = p.before_id, .limit = p.limit + 1);
	if (n < 0)
		return -1;
	all = talloc_array(r, struct template, n + 1);
	for (i = 0; i < n; i++)
		template_shape(r, &rows[i], &all[i]);
	return e2b_page_reply(r, n, all, sizeof *all, &p, offsetof(struct template, created_at),
	    offsetof(struct template, id));
}

static int
template_get(struct request *r)
{
	const struct by_sandbox *in = r->in;
	struct q_e2b_build *rows;
	struct e2b_named what;
	struct build *all;
	struct template t;
	int n, i;

	if (e2b_resolve(r, in->id, &what) < 0)
		return -1;
	if (!what.template)
		return fail(r, E_NOT_FOUND, "template not found");
	n = q_e2b_builds(r->work.db, &rows, .id = what.template->id);
	if (n < 0)
		return -1;
	template_shape(r, what.template, &t);
	all = talloc_array(r, struct build, n + 1);
	for (i = 0; i < n; i++)
		all[i] = (struct build){ .id = uuid_text(all, rows[i].build_id),
			.status = "ready",
			.created_at = rows[i].created_at,
			.updated_at = rows[i].created_at,
			.finished_at = rows[i].created_at,
			.vcpus = E2B_VCPUS,
			.memory_mb = E2B_MEMORY_MB,
			.disk_mb = rows[i].disk_size_mb,
			.envd = E2B_ENVD };
	t.builds = (struct list){ all, n };
	return reply_with(r, template_detail_fields, &t);
}

static int
template_show(struct request *r)
{
	const struct show_in *in = r->in;
	struct e2b_named what;
	int n;

	if (e2b_resolve(r, in->id, &what) < 0)
		return -1;
	if (!what.template)
		return fail(r, E_NOT_FOUND, "template not found");
	if (may_manage(r, what.template) < 0)
		return -1;
	n = q_e2b_template_show(r->work.db, .id = what.template->id, .public = in->public);
	if (n < 0 ||
	    (n > 0 &&
		template_audit(r, in->public ? AUDIT_TEMPLATE_PUBLISH : AUDIT_TEMPLATE_UNPUBLISH,
		    what.template, in->public) < 0))
		return -1;
	return reply_with(r, shown_fields,
	    &(struct shown){ names_of(r, what.template->slug, what.template->name) });
}

static int
alias_get(struct request *r)
{
	const struct by_alias *in = r->in;
	struct e2b_named what;
	struct alias_of a;

	if (e2b_resolve(r, in->alias, &what) < 0)
		return -1;
	a = (struct alias_of){ what.template ? what.template->id : what.snapshot->id,
		what.template && what.template->public };
	return reply_with(r, alias_of_fields, &a);
}
