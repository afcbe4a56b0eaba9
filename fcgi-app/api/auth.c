/*
 * auth.c - the routes of sign-in, and the sign-in with a password.
 *
 * Known and unknown addresses cost the same work and get the same answer (spec 01 §3). Sign-up is
 * in auth_signup.c, second factors in auth_mfa.c, sessions in sessions.c, the limits of guessing in
 * throttle.c. Queries: sql/queries/users.sql, accounts.sql.  Tests: tests/http/auth.t, people*.py.
 */
#include "account.h"
#include "accounts.q.h"
#include "audit.h" /* the rows are written by the files named above */
#include "idps.q.h"
#include "sessions.h"
#include "cleanup.h"

#include <string.h>

static handler login, auth_methods;

struct login_in {
	const char *email, *password, *client;
	const struct uuid *team;
};
static const struct field login_in_fields[] = {
	FIELD(login_in, email, "email", .flags = NEEDED, .max = 1024),
	FIELD(login_in, password, "password", .flags = NEEDED | WRITE_ONLY, .min = 1, .max = 4096),
	FIELD(login_in, client, "client", .text = "web", .one_of = "web|cli",
	    .doc = "cli: the refresh token comes in the body"),
	FIELD(login_in, team, "team_id", .prefix = "team-",
	    .doc = "The token's team; by default the user's default"),
	{ 0 },
};

struct provider_shape {
	const char *id, *type, *name, *login_url;
};
static const struct field provider_shape_fields[] = {
	FIELD(provider_shape, id, "id", .flags = NEEDED),
	FIELD(provider_shape, type, "type", .flags = NEEDED),
	FIELD(provider_shape, name, "name", .flags = NEEDED),
	FIELD(provider_shape, login_url, "login_url", .flags = NEEDED),
	{ 0 },
};
struct methods {
	bool password, first_admin;
	const char *signup;
	struct list providers;
};
static const struct field methods_fields[] = {
	FIELD(methods, password, "password", .flags = NEEDED),
	FIELD(methods, signup, "signup", .flags = NEEDED, .one_of = "open|invite|closed"),
	FIELD(methods, first_admin, "first_admin", .flags = NEEDED,
	    .doc = "The first account that is activated becomes the administrator"),
	SUB(methods, providers, "providers", provider_shape_fields, provider_shape,
	    .flags = NEEDED | LIST),
	{ 0 },
};

/* clang-format off */
const struct route auth_routes[] = {
	{ "POST", "/v1/auth/signup", POOL_OPS, ANYONE, signup, "Sign up; a mail with a link follows", TIGHT | ACROSS, 201,
	    IN(signup), OUT(signup_answer) },
	{ "POST", "/v1/auth/activate", POOL_OPS, ANYONE, activate, "Activate the account with the mailed token", TIGHT, 200,
	    IN(activate), .out = auth_response_fields },
	{ "POST", "/v1/auth/activate/resend", POOL_OPS, ANYONE, resend, "Mail the activation link again", TIGHT, 204,
	    IN(resend) },
	{ "POST", "/v1/auth/login", POOL_OPS, ANYONE, login, "Sign in", TIGHT, 200, IN(login_in),
	    .out = auth_response_fields },
	{ "POST", "/v1/auth/mfa", POOL_OPS, ANYONE, auth_mfa, "The second factor of a sign-in", TIGHT, 200, IN(mfa_in),
	    .out = auth_response_fields },
	{ "POST", "/v1/auth/reauth", POOL_OPS, SIGNED_IN, auth_reauth, "Prove again who one is", TIGHT | BEFORE_MFA, 204, IN(reauth) },
	{ "POST", "/v1/auth/refresh", POOL_OPS, ANYONE, session_refresh, "A new access token; the refresh token rotates",
	    TIGHT | MAY_BE_EMPTY, 200, .in = session_refresh_fields, .insize = sizeof(struct session_refresh),
	    .out = auth_response_fields },
	{ "POST", "/v1/auth/switch-team", POOL_OPS, SIGNED_IN, session_switch_team, "A token for another of one's teams", BEFORE_MFA,
	    200, .in = session_switch_fields, .insize = sizeof(struct session_switch), .out = auth_response_fields },
	{ "POST", "/v1/auth/logout", POOL_OPS, ANYONE, session_logout, "End this login, or all", MAY_BE_EMPTY, 204,
	    .in = session_logout_fields, .insize = sizeof(struct session_logout) },
	{ "GET", "/v1/auth/csrf", POOL_API, ANYONE, session_csrf, "The token that goes with the refresh cookie", .status = 200,
	    .out = session_csrf_fields },
	{ "GET", "/v1/auth/methods", POOL_API, ANYONE, auth_methods, "How one can sign in here", .status = 200, OUT(methods) },
	{ 0 },
};
/* clang-format on */

static const char *
why_not(const struct q_user *u, bool good)
{
	if (!u || strcmp(u->status, "deleted") == 0)
		return "unknown";
	if (!u->password_hash)
		return "no_password";
	if (!good)
		return "bad_password";
	return strcmp(u->status, "inactive") == 0 ? "inactive"
	    : strcmp(u->status, "disabled") == 0  ? "disabled"
						  : NULL;
}

/* The failure is recorded although the request fails: its own transaction. */
static int
refuse(struct request *r, const struct attempt *a, const char *reason)
{
	if (attempt_failed(r, a, reason) < 0)
		return -1;
	if (strcmp(reason, "inactive") == 0)
		return fail(r, E_NOT_ACTIVATED,
		    "the account waits for its activation: look into your mail");
	if (strcmp(reason, "disabled") == 0)
		return fail(r, E_DISABLED, "the account is disabled");
	return fail(r, E_UNAUTHORIZED, "the address or the password is wrong");
}

static int
login(struct request *r)
{
	const struct login_in *in = r->in;
	struct login l = { .method = "password", .client = in->client, .team = in->team };
	const char *email = email_normal(r, in->email), *reason;
	struct q_user *u = NULL;
	struct q_mfa_state *m;
	struct attempt a;
	int n, good;

	if (!email || address_take(r, ADDRESS_SIGNIN) < 0)
		return -1;
	n = q_user_by_email(r->work.db, &u, .email = email);
	if (n < 0)
		return -1;
	u = n ? u : NULL;
	if (attempt_begin(r, email, u, "password", &a) < 0)
		return -1;
	good = account_verify(
	    r, in->password, u && strcmp(u->status, "deleted") != 0 ? u->password_hash : NULL);
	if (good < 0)
		return -1;
	reason = why_not(u, good);
	if (reason)
		return refuse(r, &a, reason);
	/* with a second factor the window is cleared when that was good, too */
	if (q_user_mfa(r->work.db, &m, .user = u->id) < 0 ||
	    attempt_good(r, &a, !m->has_factor) < 0 || account_rehash(r, u, in->password) < 0)
		return -1;
	l.user = u->id;
	l.want_refresh = strcmp(in->client, "cli") == 0;
	return login_next(r, &l);
}

/* What can be chosen at the door: never what only administrators see. */
static int
list_providers(struct request *r, struct methods *m)
{
	struct provider_shape *list;
	struct q_idp *idp;
	int n = q_idp_list(r->work.db, &idp), i;

	if (n < 0)
		return -1;
	list = talloc_zero_array(r, struct provider_shape, n + 1);
	m->providers.item = list;
	for (i = 0; i < n; i++)
		if (idp[i].enabled)
			list[m->providers.n++] =
			    (struct provider_shape){ idp[i].slug, idp[i].type, idp[i].name,
				    talloc_asprintf(r, "%s/auth/oauth/%s",
					r->app->conf->http_public_url, idp[i].slug) };
	return 0;
}

static int
auth_methods(struct request *r)
{
	const struct conf *c = r->app->conf;
	struct methods m = { .password = true, .signup = c->auth_signup };
	struct q_bootstrapped *b;
	int n = q_platform_bootstrapped(r->work.db, &b);

	if (n < 0 || list_providers(r, &m) < 0)
		return -1;
	m.first_admin = n && !b->done && strcmp(c->auth_first_admin, "first_activation") == 0;
	return reply_row(r, 1, &m);
}
