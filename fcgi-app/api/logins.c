/*
 * logins.c - where one is signed in, and how to end it (spec 01 §2.2).
 *
 * Queries: sql/queries/accounts.sql.  Tests: tests/http/people*.py.
 */
#include "account.h"
#include "accounts.q.h"
#include "audit.h"
#include "cleanup.h"

static handler logins_list, logins_end_others, login_end;

static const struct field login_fields[] = {
	FIELD(q_login, id, "id", .flags = NEEDED, .prefix = "ses-"),
	FIELD(q_login, kind, "kind", .flags = NEEDED, .one_of = "web|cli"),
	FIELD(q_login, method, "method", .flags = NEEDED),
	FIELD(q_login, idp, "idp", .flags = OMIT),
	FIELD(q_login, current, "current", .flags = NEEDED),
	FIELD(q_login, mfa, "mfa", .flags = NEEDED),
	FIELD(q_login, ip, "ip"),
	FIELD(q_login, user_agent, "user_agent"),
	FIELD(q_login, created_at, "created_at", .flags = NEEDED, .format = "date-time"),
	FIELD(q_login, last_seen_at, "last_seen_at", .flags = NEEDED, .format = "date-time"),
	FIELD(q_login, expires_at, "expires_at", .flags = NEEDED, .format = "date-time"),
	{ 0 },
};
struct login_path {
	const struct uuid *id;
};
static const struct field login_path_fields[] = {
	PATH_ID(login_path, "ses-"),
	{ 0 },
};

/* clang-format off */
const struct route login_routes[] = {
	{ "GET", "/v1/me/logins", POOL_API, SIGNED_IN, logins_list, "Where one is signed in", LISTS | BEFORE_MFA, 200,
	    .out = login_fields },
	{ "DELETE", "/v1/me/logins", POOL_API, SIGNED_IN, logins_end_others, "End all logins but this one", BEFORE_MFA, 204 },
	{ "DELETE", "/v1/me/logins/{id}", POOL_API, SIGNED_IN, login_end, "End a login", BEFORE_MFA, 204, IN(login_path) },
	{ 0 },
};
/* clang-format on */

static int
logins_list(struct request *r)
{
	struct q_login *l;
	int n = q_login_list(r->work.db, &l, .user = r->who.user, .session = r->who.session);

	return reply_rows(r, n, l, sizeof *l);
}

static int
audit_ends(struct request *r, int n)
{
	return audit_add(&r->work, AUDIT_AUTH_SESSION_REVOKE,
	    &(struct audit){ .team = r->who.team,
		.resource_id = id_text(r, "usr-", r->who.user),
		.subject = r->who.user,
		.metadata = talloc_asprintf(r, "{\"sessions\":%d,\"reason\":\"user\"}", n),
		.data = "{}" });
}

static int
logins_end_others(struct request *r)
{
	int n = q_sessions_end_others(
	    r->work.db, .user = r->who.user, .keep = r->who.session, .reason = "user");

	if (n < 0 || (n && audit_ends(r, n) < 0))
		return -1;
	return reply_done(r, 1);
}

static int
login_end(struct request *r)
{
	const struct login_path *in = r->in;
	int n = q_session_end_own(r->work.db, .id = in->id, .user = r->who.user);

	if (n < 0 || (n && audit_ends(r, n) < 0))
		return -1;
	return reply_done(r, n);
}
