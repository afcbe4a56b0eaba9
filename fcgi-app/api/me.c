/*
 * me.c - the signed-in user's own account.
 *
 * Queries: sql/queries/users.sql, accounts.sql, teams.sql.  Tests: tests/http/auth.t, people*.py.
 */
#include "account.h"
#include "accounts.q.h"
#include "audit.h"
#include "json.h"
#include "sessions.h"
#include "teams.q.h"
#include "team_shape.h"
#include "cleanup.h"

#include <string.h>

static handler me_get, me_change, email_ask, email_confirm;

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

struct me_change {
	const char *name;
	const struct uuid *default_team;
};
static const struct field me_change_fields[] = {
	FIELD(me_change, name, "name", .min = 1, .max = 100, .format = "person"),
	FIELD(me_change, default_team, "default_team_id", .prefix = "team-"),
	{ 0 },
};
struct email_ask {
	const char *email;
};
static const struct field email_ask_fields[] = {
	FIELD(email_ask, email, "email", .flags = NEEDED, .max = 1024),
	{ 0 },
};
struct email_confirm {
	const char *token;
};
static const struct field email_confirm_fields[] = {
	FIELD(email_confirm, token, "token", .flags = NEEDED | WRITE_ONLY, .min = 1, .max = 512),
	{ 0 },
};

/* clang-format off */
const struct route me_routes[] = {
	{ "GET", "/v1/me", POOL_API, SIGNED_IN, me_get, "The signed-in user", BEFORE_CHANGE | BEFORE_MFA, 200, OUT(me) },
	{ "PATCH", "/v1/me", POOL_API, SIGNED_IN, me_change, "Change one's name or default team", BEFORE_MFA, 200, IN(me_change),
	    .out = auth_response_fields },
	{ "POST", "/v1/me/email", POOL_OPS, SIGNED_IN, email_ask, "Change one's address; a mail with a link goes to the new one",
	    PROOF | BEFORE_MFA, 204, IN(email_ask) },
	{ "POST", "/v1/me/email/confirm", POOL_OPS, ANYONE, email_confirm, "The new address, by the mailed token", TIGHT, 204,
	    IN(email_confirm) },
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
	struct me m = { .team = r->who.team };
	struct q_providers *p;
	struct q_team *teams;
	struct q_user *u;
	int n, i;

	if (q_user_share(r->work.db, &u, .id = r->who.user) <= 0 ||
	    q_user_providers(r->work.db, &p, .user = r->who.user) <= 0)
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
	m.providers = p->slugs;
	m.mfa_enabled = r->who.has_factor;
	m.is_admin = *u->platform_role == 'a';
	m.email_verified = u->email_verified_at != NULL_INT;
	m.must_change_password = u->must_change_password;
	m.created_at = u->created_at;
	return reply_row(r, 1, &m);
}

static int
change_default_team(struct request *r, const struct uuid *team)
{
	int n;

	if (q_user_no_default_team(r->work.db, .user = r->who.user) < 0)
		return -1;
	n = q_user_default_team(r->work.db, .user = r->who.user, .team = team);
	return n > 0 ? 0 : reply_done(r, n);
}

static int
me_change(struct request *r)
{
	const struct me_change *in = r->in;
	const char *changed;
	struct q_user *u;

	if (!in->name && !in->default_team)
		return session_answer(r);
	if (q_user_lock(r->work.db, &u, .id = r->who.user) <= 0)
		return -1;
	if (in->name && q_user_rename(r->work.db, .id = u->id, .name = in->name) < 0)
		return -1;
	if (in->default_team && change_default_team(r, in->default_team) < 0)
		return -1;
	changed = talloc_asprintf(r, "{\"changed\":[%s%s%s]}", in->name ? "\"name\"" : "",
	    in->name && in->default_team ? "," : "", in->default_team ? "\"default_team_id\"" : "");
	if (session_answer(r) < 0)
		return -1;
	return audit_add(&r->work, AUDIT_USER_RENAME,
	    &(struct audit){ .resource_id = id_text(r, "usr-", u->id),
		.subject = u->id,
		.metadata = changed,
		.data = changed });
}

/* --- the address ----------------------------------------------------------------------------- */

enum { EMAIL_TTL = 1800 };

/* Whoever has the address already is told; who asked is not. */
static int
tell_owner(struct request *r, const struct q_user *owner)
{
	struct q_number *n;

	if (q_mails_recent(r->work.db, &n, .to_hash = address_hash(r, owner->email),
		.template = "already_registered") < 0)
		return -1;
	if (n->n || strcmp(owner->status, "deleted") == 0)
		return 0;
	return account_mail(r, "already_registered", owner, NULL, NULL, NULL, NULL) < 0 ? -1 : 0;
}

static int
email_ask(struct request *r)
{
	const struct email_ask *in = r->in;
	const char *email = email_normal(r, in->email);
	struct buf payload = BUF(r);
	const struct pair more[] = { { "new_email", email }, { 0 } };
	struct q_user *u, *owner;
	struct uuid token;
	int n;

	if (!email || address_take(r, ADDRESS_RESET) < 0)
		return -1;
	answer_evenly(r);
	n = q_user_by_email(r->work.db, &owner, .email = email);
	if (n < 0 || q_user_lock(r->work.db, &u, .id = r->who.user) <= 0)
		return -1;
	if (strcmp(email, u->email) == 0)
		return reply_done(r, 1);
	if (n)
		return tell_owner(r, owner) < 0 ? -1 : reply_done(r, 1);
	buf_str(&payload, "{\"email\":");
	buf_json(&payload, email);
	buf_chr(&payload, '}');
	if (q_tokens_forget(r->work.db, .user = u->id, .purpose = "email_change") < 0 ||
	    mailed_token(r, u->id, "email_change", payload.data, EMAIL_TTL, &token) < 0 ||
	    account_mail(r, "email_change", u, email, &token, "email_change", more) < 0 ||
	    account_mail(r, "email_change", u, NULL, NULL, NULL, more) < 0)
		return -1;
	return reply_done(r, 1);
}

static int
email_confirm(struct request *r)
{
	const struct email_confirm *in = r->in;
	struct json_object *payload;
	const char *email;
	struct q_token *t;
	struct q_user *u;
	int n;

	if (address_take(r, ADDRESS_TOKEN) < 0)
		return -1;
	n = mailed_token_take(r, in->token, "email_change", &t);
	if (n < 0)
		return -1;
	if (n == 0 || q_user_lock(r->work.db, &u, .id = t->user_id) <= 0)
		return fail(r, E_BAD_TOKEN, "the token is unknown, expired or already used");
	payload = json_parse(r, t->payload, strlen(t->payload), NULL, &r->work.err);
	if (!payload)
		return -1;
	email = json_str(payload, "email", "");
	n = q_user_new_email(r->work.db, .id = u->id, .email = email);
	if (n < 0 && r->work.err.code == E_CONFLICT) { /* somebody was faster */
		r->work.err = (struct err){ 0 };
		n = 0;
	}
	if (n <= 0)
		return n < 0 ? -1 : fail(r, E_BAD_TOKEN, "the token is good for nothing any more");
	/* a link that waits in the old mailbox opens nothing any more */
	if (q_tokens_forget(r->work.db, .user = u->id, .purpose = "password_reset") < 0 ||
	    q_throttle_forget(r->work.db, .subject = address_hash(r, u->email)) < 0)
		return -1;
	if (audit_add(&r->work, AUDIT_USER_EMAIL_CHANGE,
		&(struct audit){ .resource_id = id_text(r, "usr-", u->id),
		    .subject = u->id,
		    .metadata = "{\"changed\":[\"email\"]}",
		    .data = "{\"changed\":[\"email\"]}" }) < 0)
		return -1;
	return reply_done(r, 1);
}
