/*
 * members.c - who is in a team, and finding whom to add (spec 01 §2.5).
 *
 * What could leave a team without an owner happens under the lock of the team's row, where the
 * caller's role is read again.  Queries: sql/queries/teams.sql, invitations.sql.  Tests:
 * tests/http/teams.t, teams.py.
 */
#include "teams.h"
#include "audit.h"
#include "cleanup.h"
#include "invitations.q.h"
#include "member_shape.h"
#include "users.q.h"

#include <string.h>

static handler member_list, member_add, member_patch, member_remove, member_leave, user_search;

enum { ADDS_AN_HOUR = 30, SEARCHES_A_MINUTE = 30 };

struct member_add {
	const struct uuid *id;
	const char *email, *role;
};
static const struct field member_add_fields[] = {
	PATH_ID(member_add, "team-"),
	FIELD(member_add, email, "email", .flags = NEEDED, .max = 300),
	FIELD(member_add, role, "role", .text = "member", .one_of = "owner|" ROLES_GIVEN),
	{ 0 },
};

struct by_member {
	const struct uuid *id, *user;
};
#define MEMBER_PATH(st) \
	PATH_ID(st, "team-"), FIELD(st, user, "uid", .flags = NEEDED | IN_PATH, .prefix = "usr-")
static const struct field by_member_fields[] = { MEMBER_PATH(by_member), { 0 } };

struct member_patch {
	const struct uuid *id, *user;
	const char *role;
};
static const struct field member_patch_fields[] = {
	MEMBER_PATH(member_patch),
	FIELD(member_patch, role, "role", .flags = NEEDED, .one_of = "owner|" ROLES_GIVEN),
	{ 0 },
};

struct user_search {
	const char *email;
};
static const struct field user_search_fields[] = {
	FIELD(user_search, email, "email", .flags = NEEDED | IN_QUERY, .max = 300,
	    .doc = "The beginning of an address, letter for letter, with its @."),
	{ 0 },
};
static const struct field found_fields[] = {
	FIELD(q_found_user, user_id, "user_id", .flags = NEEDED, .prefix = "usr-"),
	FIELD(q_found_user, email, "email", .flags = NEEDED),
	{ 0 },
};

/* clang-format off */
const struct route member_routes[] = {
	{ "GET", "/v1/teams/{id}/members", POOL_API, PERM_view, member_list, "Members of a team", IN_TEAM | LISTS, 200, IN(by_team), OUT(member) },
	{ "POST", "/v1/teams/{id}/members", POOL_API, PERM_members_manage, member_add, "Add somebody who has an account", IN_TEAM | CREATES, 201, IN(member_add), OUT(member) },
	{ "PATCH", "/v1/teams/{id}/members/{uid}", POOL_API, PERM_members_manage, member_patch, "Change somebody's role", IN_TEAM, 204, IN(member_patch) },
	{ "DELETE", "/v1/teams/{id}/members/{uid}", POOL_API, PERM_members_manage, member_remove, "Remove somebody", IN_TEAM, 204, IN(by_member) },
	{ "POST", "/v1/teams/{id}/leave", POOL_API, SIGNED_IN, member_leave, "Leave a team", IN_TEAM | NO_BODY, 204, IN(by_team) },
	{ "GET", "/v1/users/search", POOL_API, SIGNED_IN, user_search, "Find people by the beginning of their address", LISTS, 200, IN(user_search), OUT(found) },
	{ 0 },
};
/* clang-format on */

static int
member_list(struct request *r)
{
	const struct by_team *in = r->in;
	struct q_member *m;
	int n = q_member_list(r->work.db, &m, .team = in->id);

	return reply_rows(r, n, m, sizeof *m);
}

/* Nobody gives what he has not; only owners make and unmake owners. */
static int
may_give(struct request *r, const char *mine, const char *role)
{
	enum perm p;
	bool own;

	if (strcmp(role, "owner") == 0 && strcmp(mine, "owner") != 0)
		return fail(r, E_FORBIDDEN, "only owners name owners");
	for (p = HOST_TOKEN + 1; p < PERM__MAX; p++)
		if (role_holds(role, p, &own) && !role_holds(mine, p, &own))
			return fail(r, E_FORBIDDEN, "the role %s holds more than yours: %s", role,
			    permission_wire(r, p));
	return 0;
}

static int
audit_member(struct request *r, enum audit_kind kind, const struct uuid *team,
    const struct uuid *user, const char *metadata, const char *role, const char *old_role)
{
	const char *id = id_text(r, "usr-", user);

	return audit_add(&r->work, kind,
	    &(struct audit){ .team = team,
		.resource_id = id,
		.subject = user,
		.metadata = metadata,
		.data = words(r, "user_id", id, "role", role, "old_role", old_role, NULL) });
}

static int
member_add(struct request *r)
{
	const struct member_add *in = r->in;
	const char *email = email_normal(r, in->email);
	struct q_team_locked *t;
	struct q_member *m;
	struct q_user *u;
	int n;

	if (!email ||
	    (r->app->conf->auth_rate_limits &&
		rate_limited(r, "add", r->who.rate_key, ADDS_AN_HOUR, 3600) < 0))
		return -1;
	n = q_user_active_share(r->work.db, &u, .email = email);
	if (n <= 0)
		return n < 0 ? -1 : fail(r, E_NOT_FOUND, "no active account has this address");
	if (team_locked(r, in->id, PERM_members_manage, &t) < 0 ||
	    may_give(r, t->role, in->role) < 0)
		return -1;
	if (strcmp(in->role, "owner") == 0 && proven_lately(r) < 0)
		return -1;
	n = q_member_add(r->work.db, .team = in->id, .user = u->id, .role = in->role,
	    .source = "added", .by = r->who.user);
	if (n <= 0)
		return n < 0 ? -1 : fail(r, E_BAD_INPUT, "\"email\" is a member already");
	if (q_member_get(r->work.db, &m, .team = in->id, .user = u->id) <= 0)
		return -1;
	if (team_mail(r, u->id, u->email, u->name,
		&(struct team_mail){ .template = "added", .team = t->name, .role = in->role }) <
		0 ||
	    audit_member(r, AUDIT_MEMBER_ADD, in->id, u->id,
		words(r, "email", u->email, "role", in->role, "source", "added", NULL), in->role,
		NULL) < 0)
		return -1;
	return reply_row(r, 1, m);
}

/* The team stays with an active owner when this one is none any more. */
static int
other_owner(struct request *r, const struct uuid *team, const struct uuid *user)
{
	struct q_team_count *n;

	if (q_member_owners(r->work.db, &n, .team = team, .user = user) < 0)
		return -1;
	return n->n ? 0 : fail(r, E_FORBIDDEN, "the team would have no active owner any more");
}

/* Locks the team, finds the member, and keeps others' hands off owners. */
static int
target(struct request *r, const struct uuid *team, const struct uuid *user,
    struct q_team_locked **t, struct q_member **m)
{
	int n;

	if (team_locked(r, team, PERM_members_manage, t) < 0)
		return -1;
	n = q_member_get(r->work.db, m, .team = team, .user = user);
	if (n <= 0)
		return n < 0 ? -1 : fail(r, E_NOT_FOUND, "no such object, or not yours");
	if (strcmp((*m)->role, "owner") == 0 && strcmp((*t)->role, "owner") != 0)
		return fail(r, E_FORBIDDEN, "only owners change owners");
	return 0;
}

static int
member_patch(struct request *r)
{
	const struct member_patch *in = r->in;
	struct q_team_locked *t;
	struct q_member *m;
	bool owner;

	if (target(r, in->id, in->user, &t, &m) < 0 || may_give(r, t->role, in->role) < 0)
		return -1;
	if (strcmp(m->role, in->role) == 0)
		return reply_done(r, 1);
	owner = strcmp(m->role, "owner") == 0;
	if ((owner || strcmp(in->role, "owner") == 0) && proven_lately(r) < 0)
		return -1;
	if (owner && other_owner(r, in->id, in->user) < 0)
		return -1;
	if (q_member_set_role(r->work.db, .team = in->id, .user = in->user, .role = in->role) < 0 ||
	    team_mail(r, m->user_id, m->email, m->name,
		&(struct team_mail){ .template = "role_changed",
		    .team = t->name,
		    .role = in->role,
		    .old_role = m->role }) < 0 ||
	    audit_member(r, AUDIT_MEMBER_ROLE_UPDATE, in->id, in->user,
		words(r, "old_role", m->role, "new_role", in->role, NULL), in->role, m->role) < 0)
		return -1;
	return reply_done(r, 1);
}

/* The membership and the keys that lived by it. What he made stays. */
static int
take_out(struct request *r, enum audit_kind kind, const struct uuid *team, const struct q_member *m)
{
	struct q_member_key *k;
	int n, i;

	n = q_member_keys_delete(r->work.db, &k, .team = team, .user = m->user_id);
	if (n < 0 || q_member_remove(r->work.db, .team = team, .user = m->user_id) < 0)
		return -1;
	for (i = 0; i < n; i++)
		if (audit_add(&r->work, AUDIT_API_KEY_REVOKE,
			&(struct audit){ .team = team,
			    .resource_id = id_text(r, "key-", k[i].id),
			    .subject = m->user_id,
			    .metadata =
				words(r, "name", k[i].name, "reason", "member_removed", NULL),
			    .data = words(r, "key_id", id_text(r, "key-", k[i].id), "name",
				k[i].name, "reason", "member_removed", NULL) }) < 0)
			return -1;
	if (audit_member(r, kind, team, m->user_id, NULL, m->role, NULL) < 0)
		return -1;
	return reply_done(r, 1);
}

static int
member_remove(struct request *r)
{
	const struct by_member *in = r->in;
	struct q_team_locked *t;
	struct q_member *m;

	if (target(r, in->id, in->user, &t, &m) < 0)
		return -1;
	if (strcmp(m->role, "owner") == 0 && other_owner(r, in->id, in->user) < 0)
		return -1;
	if (team_mail(r, m->user_id, m->email, m->name,
		&(struct team_mail){ .template = "removed", .team = t->name }) < 0)
		return -1;
	return take_out(r, AUDIT_MEMBER_REMOVE, in->id, m);
}

static int
member_leave(struct request *r)
{
	const struct by_team *in = r->in;
	struct q_team_locked *t;
	struct q_member *m;

	if (team_locked(r, in->id, SIGNED_IN, &t) < 0)
		return -1;
	if (q_member_get(r->work.db, &m, .team = in->id, .user = r->who.user) <= 0)
		return fail(r, E_NOT_FOUND, "no such object, or not yours");
	if (strcmp(m->role, "owner") == 0 && other_owner(r, in->id, r->who.user) < 0)
		return -1;
	return take_out(r, AUDIT_MEMBER_LEAVE, in->id, m);
}

/* --- finding people -------------------------------------------------------------------------- */

static bool
in_words(const char *list, const char *word)
{
	size_t n = strlen(word);
	const char *p;

	for (p = strstr(list, word); p; p = strstr(p + 1, word))
		if ((p == list || p[-1] == ' ') && (!p[n] || p[n] == ' '))
			return true;
	return false;
}

static int
user_search(struct request *r)
{
	const struct user_search *in = r->in;
	const struct conf *c = r->app->conf;
	const char *given = in->email ? in->email : "", *domain;
	struct q_found_user *u;
	char *s, *p;
	int n;

	given += strspn(given, " \t");
	s = talloc_strdup(r, given);
	for (p = s + strlen(s); p > s && strchr(" \t", p[-1]);)
		*--p = '\0';
	for (p = s; *p; p++)
		*p = *p >= 'A' && *p <= 'Z' ? *p + 32 : *p;
	if (strlen(s) < 3 || !strchr(s, '@'))
		return fail(r, E_BAD_INPUT, "\"email\" needs three characters, one of them @");
	if (c->auth_rate_limits &&
	    rate_limited(r, "search", r->who.rate_key, SEARCHES_A_MINUTE, 60) < 0)
		return -1;
	domain = strchr(r->who.email, '@') + 1;
	n = q_user_search(r->work.db, &u, .prefix = s, .user = r->who.user,
	    .everybody = strcmp(c->users_search_scope, "all") == 0,
	    .domain = in_words(c->users_public_domains, domain) ? NULL : domain);
	return reply_rows(r, n, u, sizeof *u);
}
