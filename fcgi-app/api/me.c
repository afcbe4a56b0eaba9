/*
 * me.c - the signed-in user's own account.
 *
 * Queries: sql/queries/users.sql, teams.sql.  Tests: tests/http/me.t.
 */
#include "api.h"
#include "audit.h"
#include "teams.q.h"
#include "team_shape.h"
#include "users.q.h"

#include <talloc.h>

static handler me_get, me_rename;

struct me_quota {
	int32_t capsules, vcpus;
	int64_t memory_mb, disk_mb, used_capsules, used_vcpus, used_memory_mb, used_disk_mb;
};
static const struct field me_quota_fields[] = {
	FIELD(me_quota, capsules, "capsules", .flags = NEEDED),
	FIELD(me_quota, vcpus, "vcpus", .flags = NEEDED),
	FIELD(me_quota, memory_mb, "memory_mb", .flags = NEEDED),
	FIELD(me_quota, disk_mb, "disk_mb", .flags = NEEDED),
	FIELD(me_quota, used_capsules, "used_capsules", .flags = NEEDED),
	FIELD(me_quota, used_vcpus, "used_vcpus", .flags = NEEDED),
	FIELD(me_quota, used_memory_mb, "used_memory_mb", .flags = NEEDED),
	FIELD(me_quota, used_disk_mb, "used_disk_mb", .flags = NEEDED),
	{ 0 },
};

struct me {
	const struct uuid *id, *team, *default_team;
	const char *email, *name, *status, *platform_role;
	bool has_password, is_admin, email_verified, must_change_password, mfa_enabled;
	const char *const *providers;
	int64_t created_at;
	struct list teams;
	struct me_quota *quota;
};
static const struct field me_fields[] = {
	FIELD(me, name, "name", .flags = NEEDED),
	FIELD(me, email, "email", .flags = NEEDED),
	FIELD(me, has_password, "has_password", .flags = NEEDED),
	FIELD(me, providers, "providers", .flags = NEEDED),
	FIELD(me, id, "id", .flags = NEEDED, .prefix = "usr-"),
	FIELD(me, status, "status", .flags = NEEDED),
	FIELD(me, platform_role, "platform_role", .flags = NEEDED),
	FIELD(me, is_admin, "is_admin", .flags = NEEDED),
	FIELD(me, email_verified, "email_verified", .flags = NEEDED),
	FIELD(me, must_change_password, "must_change_password", .flags = NEEDED),
	FIELD(me, mfa_enabled, "mfa_enabled", .flags = NEEDED),
	FIELD(me, default_team, "default_team_id", .prefix = "team-"),
	FIELD(me, team, "team_id", .prefix = "team-"),
	SUB(me, teams, "teams", team_fields, q_team, .flags = NEEDED | LIST),
	FIELD(me, created_at, "created_at", .flags = NEEDED, .format = "date-time"),
	SUB(me, quota, "quota", me_quota_fields, me_quota, .flags = OMIT,
	    .doc = "Limits and use of the token's team."),
	{ 0 },
};

struct me_rename {
	const char *name;
};
static const struct field me_rename_fields[] = {
	FIELD(me_rename, name, "name", .flags = NEEDED, .min = 1, .max = 100, .format = "person"),
	{ 0 },
};

/* clang-format off */
const struct route me_routes[] = {
	{ "GET", "/v1/me", POOL_API, SIGNED_IN, me_get, "The signed-in user", BEFORE_CHANGE | BEFORE_MFA, 200, OUT(me) },
	{ "PATCH", "/v1/me", POOL_API, SIGNED_IN, me_rename, "Change one's name", BEFORE_MFA, 200, IN(me_rename), OUT(me) },
	{ 0 },
};
/* clang-format on */

static int
add_quota(struct request *r, struct me *m)
{
	struct q_quota *q;
	int n = q_team_quota(r->work.db, &q, .team = r->who.team);

	if (n <= 0)
		return n;
	m->quota = talloc(r, struct me_quota);
	*m->quota = (struct me_quota){ q->capsules, q->vcpus, q->memory_mb, q->disk_mb,
		q->used_capsules, q->used_vcpus, q->used_memory_mb, q->used_disk_mb };
	return 0;
}

static int
me_get(struct request *r)
{
	static const char *const none[] = { NULL };
	struct me m = { .providers = none, .team = r->who.team };
	struct q_team *teams;
	struct q_user *u;
	int n, i;

	if (q_user_share(r->work.db, &u, .id = r->who.user) <= 0)
		return -1;
	n = q_team_list(r->work.db, &teams, .user = r->who.user);
	if (n < 0 || (r->who.team && add_quota(r, &m) < 0))
		return -1;
	m.teams = (struct list){ teams, n };
	for (i = 0; i < n; i++)
		if (teams[i].is_default)
			m.default_team = teams[i].id;
	m.id = u->id;
	m.email = u->email;
	m.name = u->name;
	m.status = u->status;
	m.platform_role = u->platform_role;
	m.has_password = u->password_hash;
	m.is_admin = *u->platform_role == 'a';
	m.email_verified = u->email_verified_at != NULL_INT;
	m.must_change_password = u->must_change_password;
	m.created_at = u->created_at;
	return reply_row(r, 1, &m);
}

static int
me_rename(struct request *r)
{
	const struct me_rename *in = r->in;

	if (q_user_rename(r->work.db, .id = r->who.user, .name = in->name) < 0)
		return -1;
	if (audit_add(&r->work, AUDIT_USER_RENAME,
		&(struct audit){ .resource_id = id_text(r, "usr-", r->who.user),
		    .subject = r->who.user,
		    .metadata = "{\"changed\":[\"name\"]}",
		    .data = "{\"changed\":[\"name\"]}" }) < 0)
		return -1;
	return me_get(r);
}
