/*
 * auth_mfa.c - the second factor of a sign-in, and proving again who one is (spec 01 §2.1, §2.2).
 *
 * A sign-in whose first proof was good waits as a one-time token for at most five codes. A code is
 * good once: the step of an authenticator only rises, a backup code is taken by whoever comes
 * first. Routes: auth.c; factors themselves: mfa.c. Queries: sql/queries/accounts.sql.  Tests:
 * tests/http/people_mfa.py.
 */
#include "account.h"
#include "accounts.q.h"
#include "audit.h"
#include "json.h"
#include "totp.h"
#include "cleanup.h"

#include <string.h>
#include <time.h>

const struct field mfa_in_fields[] = {
	FIELD(mfa_in, mfa_token, "mfa_token", .flags = NEEDED | WRITE_ONLY, .min = 1, .max = 512,
	    .doc = "Of the answer mfa_required"),
	FIELD(mfa_in, type, "type", .text = "totp", .one_of = "totp|backup"),
	FIELD(mfa_in, code, "code", .flags = NEEDED | WRITE_ONLY, .min = 1, .max = 64),
	{ 0 },
};
const struct field reauth_fields[] = {
	FIELD(reauth, password, "password", .flags = WRITE_ONLY, .max = 4096,
	    .doc = "Of an account without a second factor"),
	FIELD(reauth, type, "type", .text = "totp", .one_of = "totp|backup"),
	FIELD(reauth, code, "code", .flags = WRITE_ONLY, .max = 64,
	    .doc = "Of an account with a second factor"),
	{ 0 },
};

enum { CHALLENGE_TTL = 300, DEAD_AN_HOUR = 10 };

/* --- the challenge -------------------------------------------------------------------------- */

static const char *
challenge_words(struct request *r, const struct login *l)
{
	struct buf b = BUF(r);

	buf_fmt(&b, "{\"method\":\"%s\",\"client\":\"%s\",\"want_refresh\":%d", l->method,
	    l->client, l->want_refresh);
	if (l->team)
		buf_fmt(&b, ",\"team\":\"%s\"", id_text(r, "team-", l->team));
	if (l->idp)
		buf_fmt(&b, ",\"idp\":\"%s\"", id_text(r, "idp-", l->idp));
	buf_chr(&b, '}');
	return b.data;
}

static int
challenge(struct request *r, const struct login *l)
{
	struct q_backups_left *left;
	struct q_number *dead;
	struct uuid id;

	if (q_challenges_dead(r->work.db, &dead, .user = l->user) < 0)
		return -1;
	if (dead->n >= DEAD_AN_HOUR) {
		reply_header(r, "Retry-After", "3600");
		return fail(r, E_RATE, "too many wrong codes; try again later");
	}
	if (mailed_token(r, l->user, "mfa_challenge", challenge_words(r, l), CHALLENGE_TTL, &id) <
		0 ||
	    q_backup_left(r->work.db, &left, .user = l->user) < 0 || db_commit(r->work.db) < 0)
		return -1;
	r->work.err_more = talloc_asprintf(r, "\"mfa_token\":\"%s\",\"methods\":[\"totp\"%s]",
	    crypto_mail_token(r, r->app->keys, &id, "mfa_challenge"), left->n ? ",\"backup\"" : "");
	return fail(r, E_MFA_REQUIRED, "the second factor is needed: POST /v1/auth/mfa");
}

int
login_next(struct request *r, const struct login *l)
{
	struct q_mfa_state *m;

	if (q_user_mfa(r->work.db, &m, .user = l->user) < 0)
		return -1;
	return m->has_factor ? challenge(r, l) : login_open(r, l);
}

/* --- codes ---------------------------------------------------------------------------------- */

static const char *
factor_place(struct request *r, const struct uuid *id)
{
	return talloc_asprintf(r, "mfa_factors|secret_enc|%s", id_text(r, "mfa-", id));
}

struct bytes
factor_secret(struct request *r, const struct q_factor *f)
{
	struct bytes b = envelope_open(
	    r, r->app->keys->key[KEY_FACTOR], factor_place(r, f->id), f->secret_enc, &r->work.err);

	if (!b.p && r->app->keys->has_previous) {
		r->work.err = (struct err){ 0 };
		b = envelope_open(r, r->app->keys->previous[KEY_FACTOR], factor_place(r, f->id),
		    f->secret_enc, &r->work.err);
	}
	return b;
}

struct bytes
factor_seal(struct request *r, const struct uuid *id, const uint8_t *secret, size_t n)
{
	return envelope_seal(r, r->app->keys->key[KEY_FACTOR], factor_place(r, id), secret, n);
}

static int
totp_check(struct request *r, const struct uuid *user, const char *code)
{
	struct q_factor *f;
	struct bytes secret;
	int64_t step;
	int n = q_factor_list(r->work.db, &f, .user = user), i;

	for (i = 0; i < n; i++) {
		if (strcmp(f[i].type, "totp") != 0)
			continue;
		secret = factor_secret(r, &f[i]);
		if (!secret.p)
			return -1;
		step = totp_find(secret.p, code, time(NULL), f[i].last_step);
		if (step) /* of two requests with the same code one finds the step lower */
			return q_factor_step(r->work.db, .id = f[i].id, .step = step);
	}
	return n < 0 ? -1 : 0;
}

static int
backup_check(struct request *r, const struct uuid *user, const char *code)
{
	struct q_backup *b;
	const char *normal;
	int idx = backup_code_read(r, code, &normal), n, good;

	if (idx < 0)
		return 0;
	n = q_backup_get(r->work.db, &b, .user = user, .idx = idx);
	if (n < 0)
		return -1;
	good = account_verify(r, normal, n ? b->code_hash : NULL);
	if (good <= 0)
		return good;
	n = q_backup_use(r->work.db, .user = user, .idx = idx);
	if (n <= 0)
		return n;
	return audit_add(&r->work, AUDIT_MFA_BACKUP_USED,
		   &(struct audit){ .resource_id = id_text(r, "usr-", user),
		       .subject = user,
		       .metadata = "{\"type\":\"backup\"}" }) < 0
	    ? -1
	    : 1;
}

int
factor_check(struct request *r, const struct uuid *user, const char *type, const char *code)
{
	return strcmp(type, "backup") == 0 ? backup_check(r, user, code)
					   : totp_check(r, user, code);
}

/* --- routes --------------------------------------------------------------------------------- */

/* What the first half of the sign-in had asked for. */
static int
login_of(struct request *r, const struct q_challenge *c, struct login *l)
{
	struct json_object *o = json_parse(r, c->payload, strlen(c->payload), NULL, &r->work.err);
	struct uuid *id = talloc_array(r, struct uuid, 2);
	const char *team, *idp;

	if (!o)
		return -1;
	team = json_str(o, "team", NULL);
	idp = json_str(o, "idp", NULL);
	*l = (struct login){ .user = c->user_id,
		.method = json_str(o, "method", "password"),
		.client = json_str(o, "client", "web"),
		.want_refresh = json_int(o, "want_refresh", 0) != 0 };
	if (team && id_read(team, "team-", &id[0]))
		l->team = &id[0];
	if (idp && id_read(idp, "idp-", &id[1]))
		l->idp = &id[1];
	return 0;
}

int
auth_mfa(struct request *r)
{
	const struct mfa_in *in = r->in;
	struct q_challenge *c;
	struct q_token *used;
	struct q_user *u;
	struct attempt a;
	struct login l;
	uint8_t h[HASH_SIZE];
	int n;

	if (address_take(r, ADDRESS_SIGNIN) < 0)
		return -1;
	crypto_sha256(in->mfa_token, strlen(in->mfa_token), h);
	n = q_challenge_take(r->work.db, &c, .hash = { h, sizeof h });
	if (n < 0)
		return -1;
	if (n == 0)
		return fail(r, E_BAD_TOKEN, "the sign-in is over: begin again");
	if (login_of(r, c, &l) < 0 || q_user_share(r->work.db, &u, .id = c->user_id) <= 0)
		return -1;
	if (attempt_begin(r, u->email, u, "mfa", &a) < 0)
		return -1;
	n = factor_check(r, u->id, in->type, in->code);
	if (n < 0)
		return -1;
	if (n == 0)
		return attempt_failed(r, &a, "mfa") < 0
		    ? -1
		    : fail(r, E_UNAUTHORIZED, "the code is wrong, or was used already");
	n = q_token_use(r->work.db, &used, .hash = { h, sizeof h }, .purpose = "mfa_challenge");
	if (n <= 0)
		return n < 0 ? -1 : fail(r, E_BAD_TOKEN, "the sign-in is over: begin again");
	if (attempt_good(r, &a, true) < 0)
		return -1;
	l.mfa = in->type;
	return login_open(r, &l);
}

int
auth_reauth(struct request *r)
{
	const struct reauth *in = r->in;
	bool code = r->who.has_factor;
	struct q_user *u;
	struct attempt a;
	int n;

	if (code ? !in->code : !in->password)
		return code ? fail(r, E_MFA_REQUIRED, "\"code\" of a second factor is needed")
			    : fail(r, E_BAD_INPUT, "\"password\" is missing");
	if (address_take(r, ADDRESS_SIGNIN) < 0 ||
	    q_user_share(r->work.db, &u, .id = r->who.user) <= 0 ||
	    attempt_begin(r, u->email, u, "reauth", &a) < 0)
		return -1;
	n = code ? factor_check(r, u->id, in->type, in->code)
		 : account_verify(r, in->password, u->password_hash);
	if (n < 0)
		return -1;
	if (n == 0)
		return attempt_failed(r, &a, "reauth") < 0
		    ? -1
		    : fail(r, E_UNAUTHORIZED, "the %s is wrong", code ? "code" : "password");
	if (attempt_good(r, &a, true) < 0)
		return -1;
	return reply_done(r, q_session_prove(r->work.db, .id = r->who.session, .mfa = code));
}
