/*
 * auth_signup.c - sign-up, its mails, activation (spec 01 §1.1, §1.2).
 *
 * Whoever signs up learns nothing about addresses: every case has one hash, one transaction, one
 * answer, at one time. Routes: auth.c. Queries: sql/queries/users.sql.  Tests: tests/http/auth.t,
 * people*.py.
 */
#include "account.h"
#include "accounts.q.h"
#include "audit.h"
#include "json.h"
#include "cleanup.h"

#include <string.h>

struct signup_answer {
	const char *message;
};
const struct field signup_answer_fields[] = {
	FIELD(signup_answer, message, "message", .flags = NEEDED),
	{ 0 },
};
const struct field signup_fields[] = {
	FIELD(signup, email, "email", .flags = NEEDED, .max = 1024),
	FIELD(signup, password, "password", .flags = NEEDED | WRITE_ONLY, .min = 1, .max = 4096),
	FIELD(signup, name, "name", .flags = NEEDED, .min = 1, .max = 100, .format = "person"),
	FIELD(signup, invitation_token, "invitation_token", .flags = WRITE_ONLY, .max = 512,
	    .doc = "Where only the invited may sign up: of an invitation that is for anybody"),
	{ 0 },
};
const struct field activate_fields[] = {
	FIELD(activate, token, "token", .flags = NEEDED | WRITE_ONLY, .min = 1, .max = 512),
	{ 0 },
};
const struct field resend_fields[] = {
	FIELD(resend, email, "email", .flags = NEEDED, .max = 1024),
	FIELD(resend, password, "password", .flags = NEEDED | WRITE_ONLY, .min = 1, .max = 4096),
	{ 0 },
};

enum { REPLACE_AFTER = 1800, ACTIVATIONS_AN_HOUR = 5 };

/* --- sign-up ------------------------------------------------------------------------------- */

/* The words of this sign-up travel with its token: the link that is opened decides. */
static int
mail_activation(struct request *r, const struct q_user *u, const char *name, const char *hash)
{
	struct buf payload = BUF(r);
	struct q_user to = *u;
	struct uuid token;

	buf_str(&payload, "{\"name\":");
	buf_json(&payload, name);
	buf_str(&payload, ",\"password_hash\":");
	buf_json(&payload, hash);
	buf_chr(&payload, '}');
	if (mailed_token(r, u->id, "activation", payload.data, r->app->conf->auth_activation_ttl,
		&token) < 0)
		return -1;
	to.name = name;
	return account_mail(r, "activate", &to, NULL, &token, "activation", NULL) < 0 ? -1 : 0;
}

static int
signup_new(struct request *r, const char *email, const char *name, const char *hash)
{
	struct uuid id = uuid_new();
	struct q_user u = { .id = &id, .email = email, .name = name };
	uint8_t handle[64];

	crypto_random(handle, sizeof handle);
	if (q_user_insert(r->work.db, .id = &id, .source = "signup", .email = email, .name = name,
		.status = "inactive", .platform_role = "user", .password_hash = hash,
		.handle = { handle, sizeof handle }) < 0)
		return -1;
	if (mail_activation(r, &u, name, hash) < 0)
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
	return n->n >= ACTIVATIONS_AN_HOUR ? 0 : mail_activation(r, u, name, hash);
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

/* The owner of the address is told, at most once an hour. */
static int
signup_known(struct request *r, const struct q_user *u)
{
	bool deleted = strcmp(u->status, "deleted") == 0;
	const char *template = deleted ? "address_in_deletion" : "already_registered";
	struct pair more[2] = { 0 };
	struct q_purge_day *day;
	struct q_number *n;

	if (strcmp(r->app->conf->auth_signup_answers, "explicit") == 0)
		return fail(r, E_EMAIL_TAKEN, "the address is in use");
	if (q_mails_recent(
		r->work.db, &n, .to_hash = address_hash(r, u->email), .template = template) < 0)
		return -1;
	if (n->n)
		return 0;
	if (deleted && q_user_purge_day(r->work.db, &day, .id = u->id) > 0)
		more[0] = (struct pair){ "date", day->day };
	return account_mail(r, template, u, NULL, NULL, NULL, more) < 0 ? -1 : 0;
}

static bool
domain_allowed(const struct request *r, const char *email)
{
	const char *list = r->app->conf->auth_signup_domains, *domain = strchr(email, '@') + 1;
	size_t n;

	if (!*list)
		return true;
	for (; *list; list += n) {
		list += strspn(list, " ,");
		n = strcspn(list, " ,");
		if (n && n == strlen(domain) && strncasecmp(list, domain, n) == 0)
			return true;
	}
	return false;
}

static int
signup_by_state(struct request *r, const char *email, const char *name, const char *hash)
{
	struct q_user *u;
	int n = q_user_by_email_lock(r->work.db, &u, .email = email);

	if (n < 0)
		return -1;
	if (n == 0)
		return signup_new(r, email, name, hash);
	if (strcmp(u->status, "inactive") != 0)
		return signup_known(r, u);
	if (u->row_age_s < REPLACE_AFTER)
		return signup_again(r, u, name, hash);
	return signup_replace(r, u, name, hash);
}

/* Who may sign up at all; judged before any account is looked for. */
static int
admitted(struct request *r, const struct signup *in, const char *email)
{
	const char *mode = r->app->conf->auth_signup,
		   *token = in->invitation_token ? in->invitation_token : "";
	struct q_invited *i;
	uint8_t h[HASH_SIZE];

	if (!domain_allowed(r, email))
		return fail(r, E_SIGNUP_CLOSED, "addresses of this domain cannot sign up here");
	if (strcmp(mode, "open") == 0)
		return 0;
	crypto_sha256(token, strlen(token), h);
	if (q_signup_invited(r->work.db, &i, .email = email, .hash = { h, sizeof h }) < 0)
		return -1;
	return i->yes ? 0 : fail(r, E_SIGNUP_CLOSED, "only the invited may sign up here");
}

int
signup(struct request *r)
{
	const struct signup *in = r->in;
	struct signup_answer m = { "Almost there: open the link in the mail that we sent you." };
	const char *email, *hash;

	if (strcmp(r->app->conf->auth_signup, "closed") == 0)
		return fail(r, E_SIGNUP_CLOSED, "this installation takes no sign-ups");
	email = email_normal(r, in->email);
	if (!email || password_good(r, "password", in->password, email, in->name) < 0)
		return -1;
	if (admitted(r, in, email) < 0)
		return -1;
	if (address_take(r, ADDRESS_SIGNUP) < 0)
		return -1;
	hash = account_hash(r, in->password);
	if (!hash)
		return -1;
	answer_evenly(r);
	if (signup_by_state(r, email, in->name, hash) < 0) {
		/* two sign-ups at the same instant: the second finds the address taken, and says
		 * nothing of it */
		if (r->work.err.code != E_CONFLICT ||
		    strcmp(r->work.db->constraint, "users_email_key") != 0)
			return -1;
		if (strcmp(r->app->conf->auth_signup_answers, "explicit") == 0) {
			r->work.err = (struct err){ 0 };
			return fail(r, E_SIGNUP_COOLDOWN,
			    "a sign-up for this address is under way; look into your mail");
		}
		r->work.err = (struct err){ 0 };
		db_rollback(r->work.db);
	}
	return reply_with(r, signup_answer_fields, &m);
}

int
resend(struct request *r)
{
	const struct resend *in = r->in;
	const char *email = email_normal(r, in->email);
	struct q_user *u = NULL;
	struct q_count *count;
	struct attempt a;
	int n, good;

	if (!email || address_take(r, ADDRESS_RESET) < 0)
		return -1;
	n = q_user_by_email(r->work.db, &u, .email = email);
	if (n < 0)
		return -1;
	u = n ? u : NULL;
	if (attempt_begin(r, email, u, "resend", &a) < 0)
		return -1;
	good = account_verify(r, in->password, u ? u->password_hash : NULL);
	if (good < 0)
		return -1;
	answer_evenly(r);
	if (!good || strcmp(u->status, "inactive") != 0) {
		if (good ? attempt_good(r, &a, true) < 0
			 : attempt_failed(r, &a, u ? "bad_password" : "unknown") < 0)
			return -1;
		return reply_done(r, 1);
	}
	if (attempt_good(r, &a, true) < 0 ||
	    q_token_count_recent(r->work.db, &count, .user = u->id, .purpose = "activation") < 0)
		return -1;
	if (count->n < ACTIVATIONS_AN_HOUR && mail_activation(r, u, u->name, u->password_hash) < 0)
		return -1;
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
audit_activation(struct request *r, const struct uuid *user, bool admin)
{
	struct audit a = { .resource_id = id_text(r, "usr-", user), .subject = user };

	if (admin && audit_add(&r->work, AUDIT_PLATFORM_BOOTSTRAP, &a) < 0)
		return -1;
	a.metadata = "{\"by\":\"mail\"}";
	return audit_add(&r->work, AUDIT_USER_ACTIVATE, &a);
}

int
activate(struct request *r)
{
	const struct activate *in = r->in;
	struct login l = { .method = "activation", .client = "web" };
	struct json_object *payload;
	struct q_token *t;
	int n, admin;

	if (address_take(r, ADDRESS_TOKEN) < 0)
		return -1;
	n = mailed_token_take(r, in->token, "activation", &t);
	if (n < 0)
		return -1;
	if (n == 0)
		return fail(r, E_BAD_TOKEN, "the token is unknown, expired or already used");
	payload = json_parse(r, t->payload, strlen(t->payload), NULL, &r->work.err);
	if (!payload)
		return -1;
	admin = is_first_admin(r);
	if (admin < 0)
		return -1;
	n = q_user_activate(r->work.db, .id = t->user_id, .name = json_str(payload, "name", ""),
	    .password_hash = json_str(payload, "password_hash", ""), .admin = admin > 0);
	if (n < 0)
		return -1;
	if (n == 0) /* and the token stays unused: the transaction ends here */
		return fail(r, E_ALREADY_ACTIVE, "the account is active already: sign in");
	if (audit_activation(r, t->user_id, admin > 0) < 0)
		return -1;
	l.user = t->user_id;
	return login_open(r, &l);
}
