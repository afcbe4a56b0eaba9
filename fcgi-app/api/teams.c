/*
 * teams.c - teams: what users share capsules, keys and a quota with (spec 01 §2.5, §2.6).
 *
 * Queries: sql/queries/teams.sql.  Tests: tests/http/teams.t, teams.py.
 */
#include "teams.h"
#include "audit.h"
#include "cleanup.h"
#include "deletion.h"
#include "mail.h"
#include "member_shape.h"

#include <string.h>

static handler team_list, team_create, team_get, team_patch, team_remove, role_list,
    team_permissions, permission_check;

enum { TEAMS_OWNED = 20, DEPTH = 5 };

#define KINDS "team|department|project|organization"

const struct field by_team_fields[] = { PATH_ID(by_team, "team-"), { 0 } };

struct team_create {
	const char *name, *kind;
	const struct uuid *parent;
};
static const struct field team_create_fields[] = {
	FIELD(team_create, name, "name", .flags = NEEDED, .format = "team-name"),
	FIELD(team_create, kind, "kind", .text = "team", .one_of = KINDS),
	FIELD(team_create, parent, "parent_id", .prefix = "team-",
	    .doc = "Grouping only: it gives no right. At most 5 deep."),
	{ 0 },
};

struct team_patch {
	const struct uuid *id, *parent;
	const char *name, *kind;
	bool require_mfa;
};
static const struct field team_patch_fields[] = {
	PATH_ID(team_patch, "team-"),
	FIELD(team_patch, name, "name", .format = "team-name"),
	FIELD(team_patch, kind, "kind", .one_of = KINDS),
	FIELD(team_patch, parent, "parent_id", .prefix = "team-"),
	FIELD(team_patch, require_mfa, "require_mfa",
	    .doc = "Members without a second factor are refused; owners only."),
	{ 0 },
};

struct team_view {
	struct q_team *team;
	struct list members;
};
static const struct field team_view_fields[] = {
	SUB(team_view, team, "team", team_fields, q_team, .flags = NEEDED),
	SUB(team_view, members, "members", member_fields, q_member, .flags = NEEDED | LIST),
	{ 0 },
};

struct role {
	const char *name;
	const char *const *permissions;
};
static const struct field role_fields[] = {
	FIELD(role, name, "name", .flags = NEEDED),
	FIELD(role, permissions, "permissions", .flags = NEEDED),
	{ 0 },
};
struct permission {
	const char *name, *description;
};
static const struct field permission_fields[] = {
	FIELD(permission, name, "name", .flags = NEEDED),
	FIELD(permission, description, "description", .flags = NEEDED),
	{ 0 },
};
struct roles {
	struct list roles, permissions;
};
static const struct field roles_fields[] = {
	SUB(roles, roles, "roles", role_fields, role, .flags = NEEDED | LIST),
	SUB(roles, permissions, "permissions", permission_fields, permission,
	    .flags = NEEDED | LIST),
	{ 0 },
};

struct held {
	const char *role;
	const char *const *permissions;
};
static const struct field held_fields[] = {
	FIELD(held, role, "role", .flags = NEEDED),
	FIELD(held, permissions, "permissions", .flags = NEEDED),
	{ 0 },
};

struct check {
	const struct uuid *team, *capsule;
	const char *const *permissions;
};
static const struct field check_fields[] = {
	FIELD(check, team, "team", .prefix = "team-"),
	FIELD(check, capsule, "capsule", .prefix = "cl-"),
	FIELD(check, permissions, "permissions", .flags = NEEDED, .min = 1, .max = 64),
	{ 0 },
};
struct checked {
	const char *decisions;
};
static const struct field checked_fields[] = {
	FIELD(checked, decisions, "decisions", .flags = NEEDED, .format = "json",
	    .doc = "Each asked name with true or false; what is unknown or not yours is false."),
	{ 0 },
};

/* clang-format off */
const struct route team_routes[] = {
	{ "GET", "/v1/teams", POOL_API, SIGNED_IN, team_list, "The teams that you belong to", LISTS, 200, OUT(team) },
	{ "POST", "/v1/teams", POOL_API, SIGNED_IN, team_create, "Make a team", CREATES, 201, IN(team_create), OUT(team) },
	{ "GET", "/v1/teams/{id}", POOL_API, PERM_view, team_get, "A team and its members", IN_TEAM, 200, IN(by_team), OUT(team_view) },
	{ "PATCH", "/v1/teams/{id}", POOL_API, PERM_update, team_patch, "Rename or change a team", IN_TEAM, 204, IN(team_patch) },
	{ "DELETE", "/v1/teams/{id}", POOL_API, PERM_manage, team_remove, "Delete a team and everything in it", IN_TEAM, 204, IN(by_team) },
	{ "GET", "/v1/teams/{id}/permissions", POOL_API, PERM_view, team_permissions, "What you may do in the team", IN_TEAM, 200, IN(by_team), OUT(held) },
	{ "GET", "/v1/roles", POOL_API, SIGNED_IN, role_list, "Roles and permissions that exist", 0, 200, OUT(roles) },
	{ "POST", "/v1/permissions/check", POOL_API, SIGNED_IN_OR_KEY, permission_check, "Ask what you may do", 0, 200, IN(check), OUT(checked) },
	{ 0 },
};
/* clang-format on */

const char *
words(void *mem, const char *name, ...)
{
	struct buf b = BUF(mem);
	const char *value;
	va_list ap;

	va_start(ap, name);
	buf_chr(&b, '{');
	for (; name; name = va_arg(ap, const char *)) {
		value = va_arg(ap, const char *);
		if (!value)
			continue;
		if (b.len > 1)
			buf_chr(&b, ',');
		buf_json(&b, name);
		buf_chr(&b, ':');
		buf_json(&b, value);
	}
	buf_chr(&b, '}');
	va_end(ap);
	return b.data;
}

int
one_at_a_time(struct request *r, const char *what, const struct uuid *of)
{
	struct q_waited *w;

	return q_one_at_a_time(r->work.db, &w, .word = id_text(r, what, of)) < 0 ? -1 : 0;
}

int
team_locked(struct request *r, const struct uuid *team, enum perm may, struct q_team_locked **ret)
{
	int n = q_team_lock(r->work.db, ret, .team = team, .user = r->who.user);
	bool own;

	if (n < 0)
		return -1;
	if (n == 0 || !(*ret)->role)
		return fail(r, E_NOT_FOUND, "no such object, or not yours");
	if (may > HOST_TOKEN && !role_holds((*ret)->role, may, &own))
		return fail(r, E_FORBIDDEN, "the role %s does not include %s", (*ret)->role,
		    perm_kinds[may].name);
	return 0;
}

int
team_reply(struct request *r, const struct uuid *team)
{
	struct q_team *t;
	int n = q_team_get(r->work.db, &t, .user = r->who.user, .team = team);

	return reply_row(r, n, t);
}

int
team_mail(struct request *r, const struct uuid *to, const char *email, const char *name,
    const struct team_mail *m)
{
	struct pair vars[] = { { "team", m->team }, { "by", r->who.name }, { "role", NULL }, { 0 },
		{ 0 }, { 0 }, { 0 } };
	struct pair *v = &vars[2];

	if (m->role)
		*v++ = (struct pair){ "role", m->role };
	if (m->old_role)
		*v++ = (struct pair){ "old_role", m->old_role };
	if (m->inviter)
		*v++ = (struct pair){ "inviter", m->inviter };
	if (m->expires)
		*v++ = (struct pair){ "expires", m->expires };
	*v = (struct pair){ 0 };
	return mail_add(&r->work, r->app->keys,
		   &(struct mail_new){ .template = m->template,
		       .user = to,
		       .to = email,
		       .name = name,
		       .vars = vars,
		       .token = m->token,
		       .purpose = m->token ? "invitation" : NULL }) < 0
	    ? -1
	    : 0;
}

static int
team_list(struct request *r)
{
	struct q_team *teams;
	int n = q_team_list(r->work.db, &teams, .user = r->who.user);

	return reply_rows(r, n, teams, sizeof *teams);
}

/* May the team (NULL: a new one) stand below the parent? */
static int
check_parent(struct request *r, const struct uuid *parent, const struct uuid *team)
{
	struct q_team_place *line;
	struct q_membership *m;
	bool own;
	int n = q_team_role(r->work.db, &m, .team = parent, .user = r->who.user);

	if (n < 0)
		return -1;
	if (n == 0)
		return fail(r, E_NOT_FOUND, "\"parent_id\" is no team of yours");
	if (!role_holds(m->role, PERM_update, &own))
		return fail(r, E_FORBIDDEN, "your role in the parent team does not include update");
	if (one_at_a_time(r, "parents", &uuid_zero) < 0 ||
	    q_team_line(r->work.db, &line, .parent = parent, .team = team) <= 0)
		return -1;
	if (line->cycle)
		return fail(r, E_BAD_INPUT, "\"parent_id\" would put the team below itself");
	if (line->depth > DEPTH)
		return fail(r, E_BAD_INPUT,
		    "\"parent_id\" would make teams %d deep, at most %d are allowed",
		    (int)line->depth, DEPTH);
	return 0;
}

static int
team_create(struct request *r)
{
	const struct team_create *in = r->in;
	struct uuid id = uuid_new();
	struct q_team_count *owned;
	uint8_t random[6];
	char hex[13];

	if (one_at_a_time(r, "teams of", r->who.user) < 0 ||
	    q_team_owned_count(r->work.db, &owned, .user = r->who.user) < 0)
		return -1;
	if (owned->n >= TEAMS_OWNED)
		return fail(r, E_QUOTA, "you own %d teams, at most %d are allowed", (int)owned->n,
		    TEAMS_OWNED);
	if (in->parent && check_parent(r, in->parent, NULL) < 0)
		return -1;
	crypto_random(random, sizeof random);
	hex_write(hex, random, sizeof random);
	if (q_team_insert(r->work.db, .id = &id, .name = in->name, .kind = in->kind,
		.parent = in->parent, .slug = talloc_asprintf(r, "%.6s-%s", hex, hex + 6),
		.user = r->who.user) < 0 ||
	    q_member_add(r->work.db, .team = &id, .user = r->who.user, .role = "owner",
		.source = "created") < 0)
		return -1;
	if (team_mail(r, r->who.user, r->who.email, r->who.name,
		&(struct team_mail){ .template = "team_created", .team = in->name }) < 0 ||
	    audit_add(&r->work, AUDIT_TEAM_CREATE,
		&(struct audit){ .team = &id,
		    .resource_id = id_text(r, "team-", &id),
		    .metadata = words(r, "name", in->name, NULL) }) < 0)
		return -1;
	return team_reply(r, &id);
}

static int
team_get(struct request *r)
{
	const struct by_team *in = r->in;
	struct team_view v = { 0 };
	struct q_member *members;
	int n = q_team_get(r->work.db, &v.team, .user = r->who.user, .team = in->id);

	if (n <= 0)
		return reply_row(r, n, NULL);
	n = q_member_list(r->work.db, &members, .team = in->id);
	if (n < 0)
		return -1;
	v.members = (struct list){ members, n };
	return reply_row(r, 1, &v);
}

/* Only what differs is changed, and told. */
static int
change(struct request *r, const struct team_patch *in, const struct q_team_locked *t,
    const bool *require_mfa)
{
	bool rename = in->name && strcmp(in->name, t->name) != 0;
	bool kind = in->kind && strcmp(in->kind, t->kind) != 0;
	bool parent = in->parent && !(t->parent_id && uuid_equal(in->parent, t->parent_id));
	bool mfa = require_mfa && *require_mfa != t->require_mfa;
	struct audit a = { .team = t->id, .resource_id = id_text(r, "team-", t->id) };

	if (!rename && !kind && !parent && !mfa)
		return reply_done(r, 1);
	if (parent && check_parent(r, in->parent, t->id) < 0)
		return -1;
	if (q_team_update(r->work.db, .team = t->id, .name = in->name, .kind = in->kind,
		.parent = parent ? in->parent : NULL,
		.require_mfa = !mfa ? NULL
		    : *require_mfa  ? "true"
				    : "false") < 0)
		return -1;
	a.metadata = words(r, "old_name", t->name, "new_name", in->name, NULL);
	a.data = "{\"changed\":[\"name\"]}";
	if (rename && audit_add(&r->work, AUDIT_TEAM_RENAME, &a) < 0)
		return -1;
	a.metadata = talloc_asprintf(r, "{\"changed\":[%s]}",
	    talloc_asprintf(r, "%s%s%s", kind ? ",\"kind\"" : "", parent ? ",\"parent_id\"" : "",
		mfa ? ",\"require_mfa\"" : "") +
		1);
	a.data = a.metadata;
	if ((kind || parent || mfa) && audit_add(&r->work, AUDIT_TEAM_UPDATE, &a) < 0)
		return -1;
	return reply_done(r, 1);
}

static int
team_patch(struct request *r)
{
	const struct team_patch *in = r->in;
	struct q_team_locked *t;
	bool has_mfa = json_object_object_get_ex(r->body, "require_mfa", NULL);
	bool own;

	if (team_locked(r, in->id, PERM_update, &t) < 0)
		return -1;
	if (has_mfa && !role_holds(t->role, PERM_manage, &own))
		return fail(r, E_FORBIDDEN, "\"require_mfa\" is for owners: the permission manage");
	return change(r, in, t, has_mfa ? &in->require_mfa : NULL);
}

static int
team_remove(struct request *r)
{
	const struct by_team *in = r->in;
	const struct deletion d = { .conf = r->app->conf, .keys = r->app->keys };
	struct q_team_locked *t;
	struct uuid job;
	int n;

	if (team_locked(r, in->id, PERM_manage, &t) < 0)
		return -1;
	n = team_delete(&r->work, &d, in->id, &job); /* writes the audit row */
	if (n > 0)
		reply_header(r, "X-Job-Id", "%s", id_text(r, "job-", &job));
	return reply_done(r, n);
}

/* --- roles and permissions ------------------------------------------------------------------- */

static int
role_list(struct request *r)
{
	static const char *const name[] = { "owner", "admin", "member", "viewer", "auditor" };
	struct permission *perm = talloc_zero_array(r, struct permission, PERM__MAX);
	struct role *role = talloc_zero_array(r, struct role, nitems(name));
	struct principal p = { .type = CALLER_USER, .team = &uuid_zero };
	struct roles out = { { role, nitems(name) }, { perm, 0 } };
	enum perm e;
	size_t i;

	for (i = 0; i < nitems(name); i++) {
		p.role = name[i];
		role[i] = (struct role){ name[i], principal_permissions(r, &p) };
	}
	p.role = "owner"; /* holds all */
	for (e = HOST_TOKEN + 1; e < PERM__MAX; e++)
		perm[out.permissions.n++] =
		    (struct permission){ permission_wire(r, e), perm_kinds[e].doc };
	return reply_row(r, 1, &out);
}

static int
team_permissions(struct request *r)
{
	struct held h = { r->who.role, principal_permissions(r, &r->who) };

	return reply_row(r, 1, &h);
}

/* Whose capsule it is, within the caller's team: 1 found, 0 not. */
static int
capsule_mine(struct request *r, const struct uuid *capsule, bool *mine)
{
	struct q_capsule_owner *c;
	int n = q_capsule_owner_of(r->work.db, &c, .id = capsule);

	*mine = n > 0 && c->owner_id && r->who.user && uuid_equal(c->owner_id, r->who.user);
	return n;
}

/* The decision itself, by the function that decides requests. */
static int
permission_check(struct request *r)
{
	const struct check *in = r->in;
	const char *const *name;
	struct buf b = BUF(r);
	bool here = !in->team || (r->who.team && uuid_equal(in->team, r->who.team)), mine = false;
	int n = in->capsule ? capsule_mine(r, in->capsule, &mine) : 1;

	if (n < 0)
		return -1;
	if (in->team && in->capsule)
		return fail(r, E_BAD_INPUT, "\"team\" and \"capsule\" exclude each other");
	buf_chr(&b, '{');
	for (name = in->permissions; *name; name++) {
		struct err ignored = { 0 };
		enum perm p = perm_find(*name);
		enum allowed a = p == PERM__MAX || !here || !n
		    ? ALLOW_NO
		    : principal_allowed(&r->who, p, &ignored);

		if (b.len > 1)
			buf_chr(&b, ',');
		buf_json(&b, *name);
		buf_str(&b,
		    a == ALLOW_ALL || (a == ALLOW_OWN && (mine || !in->capsule)) ? ":true"
										 : ":false");
	}
	buf_chr(&b, '}');
	return reply_row(r, 1, &(struct checked){ b.data });
}
