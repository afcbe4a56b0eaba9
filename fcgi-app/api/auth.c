/*
 * auth.c - sign-up, activation, sign-in, and the end of a login.
 *
 * Uniform answers: whoever signs up learns nothing about addresses, and known and unknown ones cost
 * the same work (spec 01 §1.2, §3). Sessions themselves are in sessions.c.
 * Queries: sql/queries/users.sql.  Tests: tests/http/auth.t.
 */
#include "api.h"
#include "audit.h"
#include "mail.h"
#include "password.h"
#include "fcgi-app/hash_slot.h"
#include "sessions.h"
#include "teams.q.h"
#include "json.h"
#include "users.q.h"
#include "cleanup.h"

#include <ctype.h>
#include <string.h>

static handler signup, activate, resend, login;

struct message {
	const char *message;
};
static const struct field message_fields[] = {
	FIELD(message, message, "message", .flags = NEEDED),
	{ 0 },
};

struct signup {
	const char *email, *password, *name;
};
static const struct field signup_fields[] = {
	FIELD(signup, email, "email", .flags = NEEDED, .max = 1024),
	FIELD(signup, password, "password", .flags = NEEDED | WRITE_ONLY, .min = 1, .max = 4096),
	FIELD(signup, name, "name", .flags = NEEDED, .min = 1, .max = 100, .format = "person"),
	{ 0 },
};

struct activate {
	const char *token;
};
static const struct field activate_fields[] = {
	FIELD(activate, token, "token", .flags = NEEDED | WRITE_ONLY, .min = 1, .max = 512),
	{ 0 },
};

struct resend {
	const char *email, *password;
};
static const struct field resend_fields[] = {
	FIELD(resend, email, "email", .flags = NEEDED, .max = 1024),
	FIELD(resend, password, "password", .flags = NEEDED | WRITE_ONLY, .min = 1, .max = 4096),
	{ 0 },
};

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

/* clang-format off */
const struct route auth_routes[] = {
	{ "POST", "/v1/auth/signup", POOL_OPS, ANYONE, signup, "Sign up; a mail with a link follows", TIGHT, 201,
	    IN(signup), OUT(message) },
	{ "POST", "/v1/auth/activate", POOL_OPS, ANYONE, activate, "Activate the account with the mailed token", TIGHT, 200,
	    IN(activate), .out = auth_response_fields },
	{ "POST", "/v1/auth/activate/resend", POOL_OPS, ANYONE, resend, "Mail the activation link again", TIGHT, 204,
	    IN(resend) },
	{ "POST", "/v1/auth/login", POOL_OPS, ANYONE, login, "Sign in", TIGHT, 200, IN(login_in),
	    .out = auth_response_fields },
	{ "POST", "/v1/auth/refresh", POOL_OPS, ANYONE, session_refresh, "A new access token; the refresh token rotates",
	    TIGHT | MAY_BE_EMPTY, 200, .in = session_refresh_fields, .insize = sizeof(struct session_refresh),
	    .out = auth_response_fields },
	{ "POST", "/v1/auth/logout", POOL_OPS, ANYONE, session_logout, "End this login, or all", MAY_BE_EMPTY, 204,
	    .in = session_logout_fields, .insize = sizeof(struct session_logout) },
	{ "GET", "/v1/auth/csrf", POOL_API, ANYONE, session_csrf, "The token that goes with the refresh cookie", .status = 200,
	    .out = session_csrf_fields },
	{ 0 },
};
/* clang-format on */

const char *
email_normal(struct request *r, const char *given)
{
	char *s, *p;

	while (isspace((unsigned char)*given))
		given++;
	s = talloc_strdup(r, given);
	for (p = s + strlen(s); p > s && isspace((unsigned char)p[-1]);)
		*--p = '\0';
	for (p = s; *p; p++)
		*p = *p >= 'A' && *p <= 'Z' ? *p + 32 : *p;
	if (!format_ok("email", s)) {
		fail(r, E_BAD_INPUT, "\"email\" is not an e-mail address");
		return NULL;
	}
	return s;
}

/* --- sign-up ------------------------------------------------------------------------------- */

static int
mail_activation(struct request *r, const struct uuid *user, const char *email, const char *name,
    const char *hash)
{
	struct app *app = r->app;
	struct uuid id = uuid_new();
	const char *token = crypto_mail_token(r, app->keys, &id, "activation");
	uint8_t h[HASH_SIZE];
	struct buf payload = BUF(r);
	struct mail_new m = { .template = "activate",
		.user = user,
		.to = email,
		.name = name,
		.token = &id,
		.purpose = "activation" };

	buf_str(&payload, "{\"name\":");
	buf_json(&payload, name);
	buf_str(&payload, ",\"password_hash\":");
	buf_json(&payload, hash);
	buf_chr(&payload, '}');
	crypto_sha256(token, strlen(token), h);
	if (q_token_insert(r->work.db, .hash = { h, sizeof h }, .id = &id, .user = user,
		.purpose = "activation", .payload = payload.data, .ip = r->ip,
		.ttl = app->conf->auth_activation_ttl) < 0)
		return -1;
	return mail_add(&r->work, app->keys, &m) < 0 ? -1 : 0;
}

static int
signup_new(struct request *r, const char *email, const char *name, const char *hash)
{
	struct uuid id = uuid_new();
	uint8_t handle[64];

	crypto_random(handle, sizeof handle);
	if (q_user_insert(r->work.db, .id = &id, .source = "signup", .email = email, .name = name,
		.status = "inactive", .platform_role = "user", .password_hash = hash,
		.handle = { handle, sizeof handle }) < 0)
		return -1;
	if (mail_activation(r, &id, email, name, hash) < 0)
		return -1;
	return audit_add(&r->work, AUDIT_USER_SIGNUP,
	    &(struct audit){ .resource_id = id_text(r, "usr-", &id),
		.subject = &id,
		.metadata = "{\"source\":\"signup\"}" });
}

/* Another sign-up for an address whose first one waits: one more link, bound to this request's
 * words. */
static int
signup_again(struct request *r, const struct q_user *u, const char *name, const char *hash)
{
	struct q_count *n;

	if (strcmp(r->app->conf->auth_signup_answers, "explicit") == 0)
		return fail(r, E_SIGNUP_COOLDOWN,
		    "a sign-up for this address is under way; look into your mail");
	if (q_token_count_recent(r->work.db, &n, .user = u->id, .purpose = "activation") < 0)
		return -1;
	return n->n >= 5 ? 0 : mail_activation(r, u->id, u->email, name, hash);
}

static int
signup_replace(struct request *r, const struct q_user *u, const char *name, const char *hash)
{
	if (q_user_remove(r->work.db, .id = u->id) < 0)
		return -1;
	if (signup_new(r, u->email, name, hash) < 0)
		return -1;
	return audit_add(&r->work, AUDIT_USER_REPLACE,
	    &(struct audit){ .resource_id = id_text(r, "usr-", u->id) });
}

static int
signup_known(struct request *r, const struct q_user *u)
{
	struct mail_new m = {
		.template = "already_registered", .user = u->id, .to = u->email, .name = u->name
	};

	if (strcmp(r->app->conf->auth_signup_answers, "explicit") == 0)
		return fail(r, E_EMAIL_TAKEN, "the address is in use");
	return mail_add(&r->work, r->app->keys, &m) < 0 ? -1 : 0;
}

static int
signup(struct request *r)
{
	const struct signup *in = r->in;
	const struct conf *c = r->app->conf;
	struct message m = { "Almost there: open the link in the mail that we sent you." };
	const char *email, *hash;
	struct q_user *u;
	int n;

	if (strcmp(c->auth_signup, "open") != 0)
		return fail(r, E_SIGNUP_CLOSED, "this installation takes no sign-ups");
	email = email_normal(r, in->email);
	if (!email ||
	    password_check(in->password, c->auth_password_min, email, in->name, &r->work.err) < 0)
		return -1;
	if (hash_slot_take(r) < 0)
		return -1;
	hash = password_hash(r, in->password, c->auth_hash_cost, &r->work.err);
	hash_slot_give();
	if (!hash)
		return -1;
	n = q_user_by_email_lock(r->work.db, &u, .email = email);
	if (n < 0)
		return -1;
	if (n == 0)
		n = signup_new(r, email, in->name, hash);
	else if (strcmp(u->status, "inactive") != 0)
		n = signup_known(r, u);
	else if (u->row_age_s < 1800)
		n = signup_again(r, u, in->name, hash);
	else
		n = signup_replace(r, u, in->name, hash);
	if (n < 0) {
		/* two sign-ups at the same instant: the second finds the address taken, and says
		 * nothing of it */
		if (r->work.err.code != E_CONFLICT ||
		    strcmp(r->work.db->constraint, "users_email_key") != 0)
			return -1;
		r->work.err = (struct err){ 0 };
		db_rollback(r->work.db);
	}
	return reply_with(r, message_fields, &m);
}

static int
resend(struct request *r)
{
	const struct resend *in = r->in;
	const char *email = email_normal(r, in->email);
	struct q_user *u = NULL;
	struct q_count *count;
	bool good;
	int n;

	if (!email)
		return -1;
	n = q_user_by_email(r->work.db, &u, .email = email);
	if (n < 0 || hash_slot_take(r) < 0)
		return -1;
	good = password_verify(
	    in->password, n ? u->password_hash : NULL, r->app->conf->auth_hash_cost);
	hash_slot_give();
	if (good && strcmp(u->status, "inactive") == 0) {
		if (q_token_count_recent(
			r->work.db, &count, .user = u->id, .purpose = "activation") < 0)
			return -1;
		if (count->n < 5 &&
		    mail_activation(r, u->id, u->email, u->name, u->password_hash) < 0)
			return -1;
	}
	return reply_done(r, 1);
}

/* --- activation ---------------------------------------------------------------------------- */

/* The first account that becomes active gets the platform, if the configuration says so; once for
 * ever. */
static int
is_first_admin(struct request *r)
{
	if (strcmp(r->app->conf->auth_first_admin, "first_activation") != 0)
		return 0;
	return q_platform_bootstrap(r->work.db);
}

static int
activate(struct request *r)
{
	const struct activate *in = r->in;
	struct login l = { .method = "activation", .client = "web" };
	struct json_object *payload;
	struct q_token *t;
	uint8_t h[HASH_SIZE];
	const char *name;
	int n, admin;

	crypto_sha256(in->token, strlen(in->token), h);
	n = q_token_use(r->work.db, &t, .hash = { h, sizeof h }, .purpose = "activation");
	if (n < 0)
		return -1;
	if (n == 0)
		return fail(r, E_BAD_TOKEN, "the token is unknown, expired or already used");
	payload = json_parse(r, t->payload, strlen(t->payload), NULL, &r->work.err);
	if (!payload)
		return -1;
	name = json_str(payload, "name", "");
	admin = is_first_admin(r);
	if (admin < 0)
		return -1;
	n = q_user_activate(r->work.db, .id = t->user_id, .name = name,
	    .password_hash = json_str(payload, "password_hash", ""), .admin = admin > 0);
	if (n < 0)
		return -1;
	if (n == 0)
		return fail(r, E_ALREADY_ACTIVE, "the account is active already: sign in");
	if (admin &&
	    audit_add(&r->work, AUDIT_PLATFORM_BOOTSTRAP,
		&(struct audit){
		    .resource_id = id_text(r, "usr-", t->user_id), .subject = t->user_id }) < 0)
		return -1;
	if (audit_add(&r->work, AUDIT_USER_ACTIVATE,
		&(struct audit){
		    .resource_id = id_text(r, "usr-", t->user_id), .subject = t->user_id }) < 0)
		return -1;
	l.user = t->user_id;
	return login_open(r, &l);
}

/* --- sign-in ------------------------------------------------------------------------------- */

enum { FAILURES = 10, FAILURES_MONTH = 100 };

/* The account in the throttle's table: an HMAC of the address, known or not. */
static struct bytes
subject_of(struct request *r, const char *email)
{
	uint8_t *h = talloc_array(r, uint8_t, HASH_SIZE);

	crypto_hmac(r->app->keys->key[KEY_ADDRESS], email, strlen(email), h);
	return (struct bytes){ h, HASH_SIZE };
}

static int
throttled(struct request *r, struct bytes subject)
{
	struct q_throttle *t;
	int n = q_throttle_get(r->work.db, &t, .subject = subject, .kind = "login");

	if (n < 0)
		return -1;
	if (n == 0 || (t->failures < FAILURES && t->month_failures < FAILURES_MONTH))
		return 0;
	reply_header(r, "Retry-After", "%d", (int)t->wait_s);
	return fail(r, E_RATE, "too many failed sign-ins for this account; try again later");
}

/* The failure is counted and recorded although the request fails: its own transaction. */
static int
login_failed(struct request *r, struct bytes subject, const struct q_user *u, const char *reason)
{
	char hash[2 * HASH_SIZE + 1];
	const char *meta = talloc_asprintf(r, "{\"reason\":\"%s\",\"method\":\"password\"%s%s%s}",
	    reason, u ? "" : ",\"address_hash\":\"", u ? "" : hex_write(hash, subject.p, subject.n),
	    u ? "" : "\"");

	if (q_throttle_fail(r->work.db, .subject = subject, .kind = "login") < 0)
		return -1;
	if (audit_add(&r->work, AUDIT_AUTH_LOGIN_FAILED,
		&(struct audit){ .resource_id = u ? id_text(r, "usr-", u->id) : NULL,
		    .subject = u ? u->id : NULL,
		    .metadata = meta,
		    .data = "{\"method\":\"password\"}" }) < 0)
		return -1;
	if (db_commit(r->work.db) < 0)
		return -1;
	if (strcmp(reason, "inactive") == 0)
		return fail(r, E_NOT_ACTIVATED,
		    "the account waits for its activation: look into your mail");
	if (strcmp(reason, "disabled") == 0)
		return fail(r, E_DISABLED, "the account is disabled");
	return fail(r, E_UNAUTHORIZED, "the address or the password is wrong");
}

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

static int
login(struct request *r)
{
	const struct login_in *in = r->in;
	struct login l = { .method = "password", .client = in->client, .team = in->team };
	const char *email = email_normal(r, in->email), *reason;
	struct q_user *u = NULL;
	struct bytes subject;
	bool good;
	int n;

	if (!email)
		return -1;
	subject = subject_of(r, email);
	if (throttled(r, subject) < 0)
		return -1;
	n = q_user_by_email(r->work.db, &u, .email = email);
	if (n < 0 || hash_slot_take(r) < 0)
		return -1;
	u = n ? u : NULL;
	good = password_verify(in->password,
	    u && strcmp(u->status, "deleted") != 0 ? u->password_hash : NULL,
	    r->app->conf->auth_hash_cost);
	hash_slot_give();
	reason = why_not(u, good);
	if (reason)
		return login_failed(r, subject, u, reason);
	if (q_throttle_clear(r->work.db, .subject = subject, .kind = "login") < 0)
		return -1;
	l.user = u->id;
	l.want_refresh = strcmp(in->client, "cli") == 0;
	return login_open(r, &l);
}
