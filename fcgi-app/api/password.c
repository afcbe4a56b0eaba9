/*
 * password.c - the password of one's own account: change it, add one, get a new one by mail (spec
 * 01 §2.2).
 *
 * Asking for a reset gets the same answer at the same time whether the address has an account or
 * not. A reset ends every login and signs nobody in; second factors stay. Queries:
 * sql/queries/accounts.sql, users.sql.  Tests: tests/http/people*.py.
 */
#include "account.h"
#include "accounts.q.h"
#include "audit.h"
#include "cleanup.h"
#include "sessions.q.h"

#include <string.h>

static handler password_set, reset_ask, reset_confirm;

struct password_set {
	const char *current_password, *new_password, *confirm_password;
};
static const struct field password_set_fields[] = {
	FIELD(password_set, current_password, "current_password", .flags = WRITE_ONLY, .max = 4096,
	    .doc = "Of an account that has one"),
	FIELD(password_set, new_password, "new_password", .flags = NEEDED | WRITE_ONLY, .min = 1,
	    .max = 4096),
	FIELD(password_set, confirm_password, "confirm_password", .flags = WRITE_ONLY, .max = 4096,
	    .doc = "Of an account that has none yet: the same again"),
	{ 0 },
};

struct reset_ask {
	const char *email;
};
static const struct field reset_ask_fields[] = {
	FIELD(reset_ask, email, "email", .flags = NEEDED, .max = 1024),
	{ 0 },
};

struct reset_confirm {
	const char *token, *new_password;
};
static const struct field reset_confirm_fields[] = {
	FIELD(reset_confirm, token, "token", .flags = NEEDED | WRITE_ONLY, .min = 1, .max = 512),
	FIELD(reset_confirm, new_password, "new_password", .flags = NEEDED | WRITE_ONLY, .min = 1,
	    .max = 4096),
	{ 0 },
};

/* clang-format off */
const struct route password_routes[] = {
	{ "POST", "/v1/me/password", POOL_OPS, SIGNED_IN, password_set, "Change one's password, or add one",
	    BEFORE_CHANGE | BEFORE_MFA, 204, IN(password_set) },
	{ "POST", "/v1/me/password/reset", POOL_OPS, ANYONE, reset_ask, "Mail a link for a new password",
	    TIGHT | ANY_INPUT | MAY_BE_EMPTY, 204, IN(reset_ask) },
	{ "POST", "/v1/me/password/reset/confirm", POOL_OPS, ANYONE, reset_confirm, "A new password, by the mailed token", TIGHT, 204,
	    IN(reset_confirm) },
	{ 0 },
};
/* clang-format on */

enum { RESET_TTL = 900, RESETS_AN_HOUR = 5 };

static int
audit_password(
    struct request *r, enum audit_kind kind, const struct uuid *user, int sessions, bool first)
{
	return audit_add(&r->work, kind,
	    &(struct audit){ .resource_id = id_text(r, "usr-", user),
		.subject = user,
		.metadata = talloc_asprintf(
		    r, "{\"sessions\":%d,\"first\":%s}", sessions, first ? "true" : "false"),
		.data = "{}" });
}

/* --- change ---------------------------------------------------------------------------------- */

static int
current_is(struct request *r, const struct q_user *u, const char *given)
{
	struct attempt a;
	int good;

	if (!given)
		return fail(r, E_BAD_INPUT, "\"current_password\" is missing");
	if (attempt_begin(r, u->email, u, "password", &a) < 0)
		return -1;
	good = account_verify(r, given, u->password_hash);
	if (good < 0)
		return -1;
	if (!good)
		return attempt_failed(r, &a, "bad_password") < 0
		    ? -1
		    : fail(r, E_WRONG_PASSWORD, "the current password is wrong");
	return attempt_good(r, &a, true);
}

static int
password_set(struct request *r)
{
	const struct password_set *in = r->in;
	struct q_user *u;
	const char *hash;
	bool first;
	int n;

	if (q_user_share(r->work.db, &u, .id = r->who.user) <= 0)
		return -1;
	first = !u->password_hash;
	if (first && (!in->confirm_password || strcmp(in->new_password, in->confirm_password) != 0))
		return fail(r, E_BAD_INPUT, "\"confirm_password\" is not the same");
	if (password_good(r, "new_password", in->new_password, u->email, u->name) < 0 ||
	    (!first && current_is(r, u, in->current_password) < 0))
		return -1;
	hash = account_hash(r, in->new_password);
	if (!hash || q_user_lock(r->work.db, &u, .id = r->who.user) <= 0)
		return -1;
	n = q_sessions_end_others(
	    r->work.db, .user = u->id, .keep = r->who.session, .reason = "password");
	if (n < 0 || q_user_new_password(r->work.db, .id = u->id, .password_hash = hash) < 0 ||
	    q_tokens_forget(r->work.db, .user = u->id, .purpose = "password_reset") < 0 ||
	    q_tokens_forget(r->work.db, .user = u->id, .purpose = "password_set") < 0 ||
	    account_mail(
		r, first ? "password_added" : "password_changed", u, NULL, NULL, NULL, NULL) < 0 ||
	    audit_password(r, AUDIT_USER_PASSWORD_CHANGE, u->id, n, first) < 0)
		return -1;
	return reply_done(r, 1);
}

/* --- reset ----------------------------------------------------------------------------------- */

static int
reset_mail(struct request *r, const struct q_user *u)
{
	static const struct pair more[] = { { "minutes", "15" }, { 0 } };
	struct q_number *sent;
	struct uuid token;
	int n;

	if (q_mails_recent(r->work.db, &sent, .to_hash = address_hash(r, u->email),
		.template = "password_reset_link") < 0)
		return -1;
	if (sent->n >= RESETS_AN_HOUR)
		return 0; /* the link of the last mail stays good */
	if (q_tokens_forget(r->work.db, .user = u->id, .purpose = "password_reset") < 0 ||
	    mailed_token(r, u->id, "password_reset", NULL, RESET_TTL, &token) < 0)
		return -1;
	n = account_mail(r, "password_reset_link", u, NULL, &token, "password_reset", more);
	if (n < 0)
		return -1;
	if (n == 0) { /* no mail, no new link */
		db_rollback(r->work.db);
		return 0;
	}
	return audit_add(&r->work, AUDIT_USER_RESET_REQUEST,
	    &(struct audit){ .resource_id = id_text(r, "usr-", u->id), .subject = u->id });
}

static int
reset_ask(struct request *r)
{
	const struct reset_ask *in = r->in;
	const char *email = in && in->email ? email_normal(r, in->email) : NULL;
	struct q_user *u;
	int n;

	r->work.err = (struct err){ 0 };
	if (address_take(r, ADDRESS_RESET) < 0)
		return -1;
	answer_evenly(r);
	if (!email)
		return reply_done(r, 1);
	n = q_user_by_email_lock(r->work.db, &u, .email = email);
	if (n < 0 || (n && strcmp(u->status, "active") == 0 && reset_mail(r, u) < 0))
		return -1;
	return reply_done(r, 1);
}

static int
reset_confirm(struct request *r)
{
	const struct reset_confirm *in = r->in;
	struct q_token *t;
	struct q_user *u;
	const char *hash;
	int n;

	if (address_take(r, ADDRESS_TOKEN) < 0)
		return -1;
	n = mailed_token_take(r, in->token, "password_reset", &t);
	if (n == 0)
		n = mailed_token_take(r, in->token, "password_set", &t);
	if (n < 0)
		return -1;
	if (n == 0 || q_user_lock(r->work.db, &u, .id = t->user_id) <= 0 ||
	    strcmp(u->status, "active") != 0)
		return fail(r, E_BAD_TOKEN, "the token is unknown, expired or already used");
	/* what fails from here leaves the token as it was: all of it is one transaction */
	if (password_good(r, "new_password", in->new_password, u->email, u->name) < 0)
		return -1;
	hash = account_hash(r, in->new_password);
	if (!hash)
		return -1;
	n = q_session_revoke_all(r->work.db, .user = u->id, .reason = "password_reset");
	if (n < 0 || q_user_new_password(r->work.db, .id = u->id, .password_hash = hash) < 0 ||
	    q_tokens_forget(r->work.db, .user = u->id, .purpose = "password_reset") < 0 ||
	    q_tokens_forget(r->work.db, .user = u->id, .purpose = "password_set") < 0 ||
	    q_tokens_forget(r->work.db, .user = u->id, .purpose = "email_change") < 0 ||
	    q_tokens_forget(r->work.db, .user = u->id, .purpose = "mfa_challenge") < 0 ||
	    q_throttle_forget(r->work.db, .subject = address_hash(r, u->email)) < 0 ||
	    account_mail(r, "password_reset", u, NULL, NULL, NULL, NULL) < 0 ||
	    audit_password(r, AUDIT_USER_PASSWORD_RESET, u->id, n, !u->password_hash) < 0)
		return -1;
	return reply_done(r, 1);
}
