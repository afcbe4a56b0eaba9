/*
 * admin_users.c - administrators of the platform: other people's accounts (spec 01 §2.8).
 *
 * No route here makes a session, token or key for anybody, and no answer has one. What ends and
 * restores accounts is lib/deletion.c.
 *
 * Queries: sql/queries/admin.sql.  Tests: tests/jobs/admin.py.
 */
#include "admin.h"
#include "account.h"
#include "accounts.q.h"
#include "audit.h"
#include "deletion.q.h"
#include "job.h"
#include "json.h"
#include "keys.q.h"
#include "mail.h"
#include "sessions.q.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

static handler user_list, user_create, user_get, user_patch, user_active, user_status, user_reset,
    user_logout, user_mfa_reset, user_remove, user_back;

static const struct field admin_user_fields[] = {
	FIELD(q_admin_user, id, "id", .flags = NEEDED, .prefix = "usr-"),
	FIELD(q_admin_user, email, "email", .flags = NEEDED),
	FIELD(q_admin_user, name, "name", .flags = NEEDED),
	FIELD(q_admin_user, is_admin, "is_admin", .flags = NEEDED),
	FIELD(q_admin_user, status, "status", .flags = NEEDED,
	    .one_of = "inactive|active|disabled|deleted"),
	FIELD(q_admin_user, created_at, "created_at", .flags = NEEDED, .format = "date-time"),
	FIELD(q_admin_user, teams_joined, "teams_joined", .flags = NEEDED),
	FIELD(q_admin_user, teams_owned, "teams_owned", .flags = NEEDED),
	FIELD(q_admin_user, platform_role, "platform_role", .flags = NEEDED,
	    .one_of = "user|operator|admin"),
	FIELD(q_admin_user, source, "source", .flags = NEEDED),
	FIELD(q_admin_user, mfa, "mfa", .flags = NEEDED),
	FIELD(q_admin_user, has_password, "has_password", .flags = NEEDED),
	FIELD(q_admin_user, providers, "providers", .flags = NEEDED),
	FIELD(q_admin_user, must_change_password, "must_change_password", .flags = NEEDED),
	FIELD(q_admin_user, last_login_at, "last_login_at", .format = "date-time"),
	FIELD(q_admin_user, disabled_at, "disabled_at", .format = "date-time"),
	FIELD(q_admin_user, deleted_at, "deleted_at", .format = "date-time"),
	FIELD(q_admin_user, purge_after, "purge_after", .format = "date-time"),
	{ 0 },
};

struct user_filter {
	const char *page, *cursor, *status, *q, *platform_role, *source, *sort;
};
static const struct field user_filter_fields[] = {
	FIELD(user_filter, page, "page", .flags = IN_QUERY, .doc = "1 to 100."),
	FIELD(user_filter, cursor, "cursor", .flags = IN_QUERY,
	    .doc = "X-Next-Cursor of the page before; with sort -created_at."),
	FIELD(user_filter, status, "status", .flags = IN_QUERY,
	    .one_of = "inactive|active|disabled|deleted", .doc = "Absent: all but deleted."),
	FIELD(user_filter, q, "q", .flags = IN_QUERY, .max = 254,
	    .doc = "Prefix of address or name."),
	FIELD(user_filter, platform_role, "platform_role", .flags = IN_QUERY,
	    .one_of = "user|operator|admin"),
	FIELD(user_filter, source, "source", .flags = IN_QUERY,
	    .one_of = "signup|oauth|sso|scim|admin|cli"),
	FIELD(user_filter, sort, "sort", .flags = IN_QUERY, .text = "-created_at",
	    .one_of = "-created_at|created_at|email|last_login_at"),
	{ 0 },
};
struct user_page {
	struct list users;
	int64_t total, page, per_page, total_pages;
};
static const struct field user_page_fields[] = {
	SUB(user_page, users, "users", admin_user_fields, q_admin_user, .flags = NEEDED | LIST),
	FIELD(user_page, total, "total", .flags = NEEDED),
	FIELD(user_page, page, "page", .flags = NEEDED),
	FIELD(user_page, per_page, "per_page", .flags = NEEDED),
	FIELD(user_page, total_pages, "total_pages", .flags = NEEDED),
	{ 0 },
};

struct user_team {
	const struct uuid *id;
	const char *role;
};
static const struct field user_team_fields[] = {
	FIELD(user_team, id, "id", .flags = NEEDED, .prefix = "team-"),
	FIELD(user_team, role, "role", .text = "member",
	    .one_of = "owner|admin|member|viewer|auditor"),
	{ 0 },
};
struct user_create {
	const char *email, *name, *password, *platform_role;
	struct list teams;
};
static const struct field user_create_fields[] = {
	FIELD(user_create, email, "email", .flags = NEEDED, .max = 300),
	FIELD(user_create, name, "name", .flags = NEEDED, .min = 1, .max = 100, .format = "person"),
	FIELD(user_create, password, "password", .flags = WRITE_ONLY,
	    .doc = "To be changed at the first sign-in; absent: a mail with a link to choose one."),
	FIELD(user_create, platform_role, "platform_role", .text = "user",
	    .one_of = "user|operator|admin"),
	SUB(user_create, teams, "teams", user_team_fields, user_team, .flags = LIST, .max = 20),
	{ 0 },
};

struct by_user {
	const struct uuid *id;
};
static const struct field by_user_fields[] = { PATH_ID(by_user, "usr-"), { 0 } };

struct user_patch {
	const struct uuid *id;
	const char *name, *email, *platform_role;
	bool must_change_password;
};
static const struct field user_patch_fields[] = {
	PATH_ID(user_patch, "usr-"),
	FIELD(user_patch, name, "name", .min = 1, .max = 100, .format = "person"),
	FIELD(user_patch, email, "email", .max = 300),
	FIELD(user_patch, platform_role, "platform_role", .one_of = "user|operator|admin"),
	FIELD(user_patch, must_change_password, "must_change_password"),
	{ 0 },
};

struct user_active {
	const struct uuid *id;
	bool active;
};
static const struct field user_active_fields[] = {
	PATH_ID(user_active, "usr-"),
	FIELD(user_active, active, "active", .flags = NEEDED),
	{ 0 },
};
struct user_status {
	const struct uuid *id;
	const char *status, *reason;
};
static const struct field user_status_fields[] = {
	PATH_ID(user_status, "usr-"),
	FIELD(user_status, status, "status", .flags = NEEDED, .one_of = "active|disabled"),
	FIELD(user_status, reason, "reason", .max = 500),
	{ 0 },
};
struct user_queued {
	const char *status;
};
static const struct field user_queued_fields[] = {
	FIELD(user_queued, status, "status", .flags = NEEDED),
	{ 0 },
};
struct user_remove {
	const struct uuid *id;
	const char *purge;
	bool delete_teams;
};
static const struct field user_remove_fields[] = {
	PATH_ID(user_remove, "usr-"),
	FIELD(user_remove, purge, "purge", .flags = IN_QUERY, .one_of = "now",
	    .doc = "now: no days of grace."),
	FIELD(user_remove, delete_teams, "delete_teams", .flags = IN_QUERY,
	    .doc = "Also teams with other members that would have no owner."),
	{ 0 },
};
struct user_purge {
	const struct uuid *job_id;
};
static const struct field user_purge_fields[] = {
	FIELD(user_purge, job_id, "job_id", .flags = NEEDED, .prefix = "job-"),
	{ 0 },
};

/* clang-format off */
const struct route admin_user_routes[] = {
	{ "GET", "/v1/admin/users", POOL_API, PLATFORM_READ, user_list, "Accounts", 0, 200, IN(user_filter), OUT(user_page) },
	{ "POST", "/v1/admin/users", POOL_OPS, PLATFORM_ADMIN, user_create, "Make an account", CREATES, 201, IN(user_create), OUT(admin_user) },
	{ "GET", "/v1/admin/users/{id}", POOL_API, PLATFORM_READ, user_get, "An account", 0, 200, IN(by_user), OUT(admin_user) },
	{ "PATCH", "/v1/admin/users/{id}", POOL_API, PLATFORM_ADMIN, user_patch, "Change an account", 0, 200, IN(user_patch), OUT(admin_user) },
	{ "PUT", "/v1/admin/users/{id}/active", POOL_API, PLATFORM_ADMIN, user_active, "Disable or enable an account", 0, 204, IN(user_active) },
	{ "PATCH", "/v1/admin/users/{id}/status", POOL_API, PLATFORM_ADMIN, user_status, "Disable or enable an account", 0, 200, IN(user_status), OUT(admin_user) },
	{ "POST", "/v1/admin/users/{id}/password-reset", POOL_API, PLATFORM_ADMIN, user_reset, "Mail a link to choose a new password", NO_BODY, 202, IN(by_user), OUT(user_queued) },
	{ "POST", "/v1/admin/users/{id}/logout", POOL_API, PLATFORM_ADMIN, user_logout, "End all logins of an account", NO_BODY, 204, IN(by_user) },
	{ "DELETE", "/v1/admin/users/{id}/mfa", POOL_API, PLATFORM_ADMIN, user_mfa_reset, "Remove the second factors of an account", PROOF, 204, IN(by_user) },
	{ "DELETE", "/v1/admin/users/{id}", POOL_API, PLATFORM_ADMIN, user_remove, "Delete an account", PROOF, 204, .also = 202, IN(user_remove), OUT(user_purge) },
	{ "POST", "/v1/admin/users/{id}/restore", POOL_API, PLATFORM_ADMIN, user_back, "Restore a deleted account", NO_BODY, 200, IN(by_user), OUT(admin_user) },
	{ 0 },
};
/* clang-format on */

/* --- shared with admin_teams.c -------------------------------------------------------------- */

int
admin_page_read(struct request *r, const char *text, const char *cursor, struct admin_page *p)
{
	char *end;
	long n = text ? strtol(text, &end, 10) : 1;

	if (text && (*end || !*text || n < 1))
		n = 1;
	if (n > 100)
		return fail(r, E_BAD_INPUT, "\"page\" ends at 100; go on with \"cursor\"");
	*p = (struct admin_page){ .number = (int32_t)n };
	if (page_read(r, ADMIN_PAGE, cursor, &p->key) < 0)
		return -1;
	if (!cursor)
		p->skip = (p->number - 1) * ADMIN_PAGE;
	return 0;
}

int
admin_rows(const struct admin_page *p, int n)
{
	return n > p->key.limit ? p->key.limit : n;
}

int64_t
admin_pages(int64_t total)
{
	return (total + ADMIN_PAGE - 1) / ADMIN_PAGE;
}

struct deletion
admin_acts(struct request *r)
{
	return (
	    struct deletion){ .conf = r->app->conf, .keys = r->app->keys, .admin = r->who.user };
}

void
admin_job(struct request *r, int n, const struct uuid *job)
{
	if (n > 0)
		reply_header(r, "X-Job-Id", "%s", id_text(r, "job-", job));
}

/* --- read ------------------------------------------------------------------------------------ */

static int
reply_user(struct request *r, const struct uuid *id)
{
	struct q_admin_user *u;
	int n = q_admin_user_get(r->work.db, &u, .id = id);

	return reply_row(r, n, u);
}

static int
user_get(struct request *r)
{
	return reply_user(r, ((const struct by_user *)r->in)->id);
}

static int
user_list(struct request *r)
{
	const struct user_filter *in = r->in;
	bool newest = *in->sort == '-';
	struct q_admin_user *rows;
	struct q_admin_total *total;
	struct user_page out;
	struct admin_page p;
	int n;

	if (in->cursor && !newest)
		return fail(r, E_BAD_INPUT, "\"cursor\" goes with sort -created_at only");
	if (admin_page_read(r, in->page, in->cursor, &p) < 0)
		return -1;
	if (newest)
		n = q_admin_user_list(r->work.db, &rows, .status = in->status, .q = in->q,
		    .role = in->platform_role, .source = in->source, .before = p.key.before,
		    .before_id = p.key.before_id, .skip = p.skip, .limit = p.key.limit + 1);
	else
		n = q_admin_user_sorted(r->work.db, &rows, .status = in->status, .q = in->q,
		    .role = in->platform_role, .source = in->source, .sort = in->sort,
		    .skip = p.skip, .limit = p.key.limit + 1);
	if (n < 0 ||
	    q_admin_user_count(r->work.db, &total, .status = in->status, .q = in->q,
		.role = in->platform_role, .source = in->source) < 0)
		return -1;
	out = (struct user_page){ { rows, admin_rows(&p, n) }, total->n, p.number, ADMIN_PAGE,
		admin_pages(total->n) };
	if (newest)
		page_link(r, n, rows, sizeof *rows, &p.key,
		    offsetof(struct q_admin_user, created_at), offsetof(struct q_admin_user, id));
	return reply_with(r, r->route->out, &out);
}

/* --- make and change ------------------------------------------------------------------------- */

static int
audit_user(struct request *r, enum audit_kind kind, const struct uuid *user, const char *metadata)
{
	return audit_add(&r->work, kind,
	    &(struct audit){
		.resource_id = id_text(r, "usr-", user), .subject = user, .metadata = metadata });
}

static const char *
email_meta(struct request *r, const char *email, const char *more)
{
	struct buf b = BUF(r);

	buf_str(&b, "{\"email\":");
	buf_json(&b, email);
	buf_str(&b, more);
	buf_chr(&b, '}');
	return b.data;
}

/* The mail with the link to a password; its token stands in no answer. */
static int
mail_link(struct request *r, const char *template, const char *purpose, const struct q_user *u,
    int64_t ttl)
{
	struct uuid token;

	if (q_tokens_forget(r->work.db, .user = u->id, .purpose = purpose) < 0 ||
	    mailed_token(r, u->id, purpose, NULL, ttl, &token) < 0)
		return -1;
	return account_mail(r, template, u, NULL, &token, purpose, NULL);
}

enum { RESET_TTL = 1800, SET_TTL = 86400 };

static int
join_teams(struct request *r, const struct user_create *in, const struct uuid *user)
{
	const struct user_team *t = in->teams.item;
	size_t i;
	int n;

	for (i = 0; i < in->teams.n; i++) {
		n = q_admin_member_add(r->work.db, .team = t[i].id, .user = user, .role = t[i].role,
		    .by = r->who.user);
		if (n <= 0)
			return n < 0
			    ? -1
			    : fail(r, E_NOT_FOUND, "no team %s", id_text(r, "team-", t[i].id));
	}
	return 0;
}

static int
taken(struct request *r)
{
	if (r->work.err.code != E_CONFLICT)
		return -1;
	r->work.err = (struct err){ 0 };
	return fail(r, E_EMAIL_TAKEN, "the address is in use");
}

static int
user_create(struct request *r)
{
	const struct user_create *in = r->in;
	const char *email = email_normal(r, in->email), *hash = NULL;
	struct uuid id = uuid_new();
	uint8_t handle[64];
	struct q_user *u;

	if (!email || (strcmp(in->platform_role, "user") != 0 && proven_lately(r) < 0))
		return -1;
	if (in->password) {
		if (password_good(r, "password", in->password, email, in->name) < 0)
			return -1;
		hash = account_hash(r, in->password);
		if (!hash)
			return -1;
	}
	crypto_random(handle, sizeof handle);
	if (q_admin_user_insert(r->work.db, .id = &id, .email = email, .name = in->name,
		.role = in->platform_role, .password_hash = hash,
		.handle = { handle, sizeof handle }) < 0)
		return taken(r);
	if (join_teams(r, in, &id) < 0 || q_user_share(r->work.db, &u, .id = &id) <= 0)
		return -1;
	if (!hash && mail_link(r, "set_password", "password_set", u, SET_TTL) < 0)
		return -1;
	if (audit_user(r, AUDIT_USER_CREATE, &id,
		email_meta(r, email,
		    talloc_asprintf(r, ",\"platform_role\":\"%s\"", in->platform_role))) < 0)
		return -1;
	return reply_user(r, &id);
}

/* Both addresses are told; the new one is not verified. */
static int
tell_new_email(struct request *r, const struct q_user *u, const char *email)
{
	const struct pair vars[] = { { "new_email", email }, { 0 } };

	return account_mail(r, "email_change", u, NULL, NULL, NULL, vars) < 0 ||
		account_mail(r, "email_change", u, email, NULL, NULL, vars) < 0
	    ? -1
	    : 0;
}

static int
update(struct request *r, const struct user_patch *in, const struct q_user *u, const char *email)
{
	struct json_object *must = json_get(r->body, "must_change_password");
	bool name = in->name && strcmp(in->name, u->name) != 0;
	struct buf b = BUF(r);
	int n;

	email = email && strcmp(email, u->email) != 0 ? email : NULL;
	if (must && in->must_change_password == u->must_change_password)
		must = NULL;
	if (!email && !name && !must)
		return 0;
	n = q_admin_user_update(r->work.db, .id = u->id, .name = name ? in->name : NULL,
	    .email = email,
	    .must_change = !must           ? NULL
		: in->must_change_password ? "true"
					   : "false");
	if (n < 0)
		return taken(r);
	if (email && tell_new_email(r, u, email) < 0)
		return -1;
	buf_fmt(&b, "{\"changed\":[%s%s%s", name ? "\"name\"," : "", email ? "\"email\"," : "",
	    must ? "\"must_change_password\"," : "");
	b.data[b.len - 1] = ']';
	buf_chr(&b, '}');
	return audit_user(r, AUDIT_USER_UPDATE, u->id, b.data);
}

static int
user_patch(struct request *r)
{
	const struct user_patch *in = r->in;
	const char *email = in->email ? email_normal(r, in->email) : NULL;
	struct deletion d = admin_acts(r);
	struct q_user *u;
	int n;

	if (in->email && !email)
		return -1;
	if (in->platform_role && (proven_lately(r) < 0 || q_platform_lock(r->work.db) < 0))
		return -1;
	n = q_user_lock(r->work.db, &u, .id = in->id);
	if (n <= 0 || strcmp(u->status, "deleted") == 0)
		return n < 0 ? -1 : reply_done(r, 0);
	if (in->platform_role && user_set_role(&r->work, &d, in->id, in->platform_role) < 0)
		return -1;
	return update(r, in, u, email) < 0 ? -1 : reply_user(r, in->id);
}

/* --- disable and enable ---------------------------------------------------------------------- */

static int
set_active(struct request *r, const struct uuid *user, bool active, const char *reason)
{
	struct deletion d = admin_acts(r);
	struct uuid job;
	int n;

	d.reason = reason;
	if (active)
		return user_enable(&r->work, &d, user);
	n = user_disable(&r->work, &d, user, &job);
	admin_job(r, n, &job);
	return n;
}

static int
user_active(struct request *r)
{
	const struct user_active *in = r->in;

	return set_active(r, in->id, in->active, NULL) < 0 ? -1 : reply_done(r, 1);
}

static int
user_status(struct request *r)
{
	const struct user_status *in = r->in;

	return set_active(r, in->id, *in->status == 'a', in->reason) < 0 ? -1
									 : reply_user(r, in->id);
}

/* --- logins, passwords, factors --------------------------------------------------------------- */

static int
lock_living(struct request *r, struct q_user **u)
{
	int n = q_user_lock(r->work.db, u, .id = ((const struct by_user *)r->in)->id);

	if (n > 0 && strcmp((*u)->status, "deleted") == 0)
		n = 0;
	return n > 0 ? 0 : n < 0 ? -1 : fail(r, E_NOT_FOUND, "no such object, or not yours");
}

static int
user_reset(struct request *r)
{
	static const struct user_queued queued = { "queued" };
	struct q_user *u;

	if (lock_living(r, &u) < 0)
		return -1;
	if (strcmp(u->status, "active") != 0)
		return fail(r, E_BAD_STATE, "the account is %s", u->status);
	if (mail_link(r, "password_reset_link", "password_reset", u, RESET_TTL) < 0 ||
	    audit_user(r, AUDIT_USER_RESET_SENT, u->id, email_meta(r, u->email, "")) < 0)
		return -1;
	return reply_with(r, r->route->out, &queued);
}

static int
end_logins(struct request *r, const struct q_user *u, const char *reason)
{
	struct q_gone_key *keys;
	int n, i;

	n = q_keys_of_logins_delete(r->work.db, &keys, .user = u->id);
	if (n < 0 || q_session_revoke_all(r->work.db, .user = u->id, .reason = reason) < 0)
		return -1;
	for (i = 0; i < n; i++)
		if (audit_add(&r->work, AUDIT_API_KEY_REVOKE,
			&(struct audit){ .team = keys[i].team_id,
			    .resource_id = id_text(r, "key-", keys[i].id),
			    .metadata = "{\"reason\":\"session_ended\"}" }) < 0)
			return -1;
	return 0;
}

/* The row of the Platform team comes first: its chain is locked before those of others. */
static int
user_logout(struct request *r)
{
	struct q_user *u;

	if (lock_living(r, &u) < 0 ||
	    audit_user(r, AUDIT_USER_LOGOUT_ALL, u->id, email_meta(r, u->email, "")) < 0)
		return -1;
	return end_logins(r, u, "admin") < 0 ? -1 : reply_done(r, 1);
}

static int
user_mfa_reset(struct request *r)
{
	struct q_user *u;

	if (lock_living(r, &u) < 0 || q_factors_of_user_delete(r->work.db, .user = u->id) < 0 ||
	    q_codes_of_user_delete(r->work.db, .user = u->id) < 0 ||
	    q_tokens_forget(r->work.db, .user = u->id, .purpose = "mfa_challenge") < 0 ||
	    account_mail(r, "mfa_reset", u, NULL, NULL, NULL, NULL) < 0 ||
	    audit_user(r, AUDIT_USER_MFA_RESET, u->id, email_meta(r, u->email, "")) < 0)
		return -1;
	return end_logins(r, u, "mfa_reset") < 0 ? -1 : reply_done(r, 1);
}

/* --- delete and restore ----------------------------------------------------------------------- */

static int
user_remove(struct request *r)
{
	const struct user_remove *in = r->in;
	struct deletion d = admin_acts(r);
	struct uuid job;
	const struct user_purge out = { &job };
	int n;

	d.delete_teams = in->delete_teams;
	d.purge_now = in->purge;
	n = user_delete(&r->work, &d, in->id, &job);
	if (n < 0)
		return -1;
	admin_job(r, n, &job);
	if (!in->purge)
		return reply_done(r, 1);
	if (reply_with(r, r->route->out, &out) < 0)
		return -1;
	r->status = r->route->also;
	return 0;
}

static int
user_back(struct request *r)
{
	const struct by_user *in = r->in;
	struct deletion d = admin_acts(r);

	return user_restore(&r->work, &d, in->id) < 0 ? -1 : reply_user(r, in->id);
}
