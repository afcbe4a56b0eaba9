/*
 * mfa.c - the second factors of one's own account: authenticator apps and backup codes (spec 01
 * §2.2).
 *
 * A factor counts from its first good code on. The secret is shown once and stored sealed; of
 * backup codes only hashes are stored. How a sign-in uses them is in auth_mfa.c. Queries:
 * sql/queries/accounts.sql.  Tests: tests/http/people_mfa.py.
 */
#include "account.h"
#include "accounts.q.h"
#include "audit.h"
#include "cleanup.h"
#include "totp.h"

#include <string.h>
#include <time.h>

static handler mfa_list, mfa_enrol, mfa_verify, mfa_remove, mfa_backup_codes;

enum { FACTORS_MAX = 10, CODES = 10 };

static const struct field factor_fields[] = {
	FIELD(q_factor, id, "id", .flags = NEEDED, .prefix = "mfa-"),
	FIELD(q_factor, type, "type", .flags = NEEDED, .one_of = "totp"),
	FIELD(q_factor, name, "name", .flags = NEEDED),
	FIELD(q_factor, created_at, "created_at", .flags = NEEDED, .format = "date-time"),
	FIELD(q_factor, last_used_at, "last_used_at", .format = "date-time"),
	{ 0 },
};
struct factors {
	struct list factors;
	int64_t backup_codes_left;
};
static const struct field factors_fields[] = {
	SUB(factors, factors, "factors", factor_fields, q_factor, .flags = NEEDED | LIST),
	FIELD(factors, backup_codes_left, "backup_codes_left", .flags = NEEDED),
	{ 0 },
};
struct enrol {
	const char *type, *name;
};
static const struct field enrol_fields[] = {
	FIELD(enrol, type, "type", .text = "totp", .one_of = "totp"),
	FIELD(
	    enrol, name, "name", .text = "Authenticator", .min = 1, .max = 100, .format = "person"),
	{ 0 },
};
struct enrolled {
	const struct uuid *id;
	const char *secret, *otpauth_url;
};
static const struct field enrolled_fields[] = {
	FIELD(enrolled, id, "id", .flags = NEEDED, .prefix = "mfa-"),
	FIELD(enrolled, secret, "secret", .flags = NEEDED, .doc = "Base32; shown once"),
	FIELD(enrolled, otpauth_url, "otpauth_url", .flags = NEEDED, .doc = "For a QR code"),
	{ 0 },
};
struct mfa_path {
	const struct uuid *id;
	const char *code;
};
static const struct field mfa_path_fields[] = {
	PATH_ID(mfa_path, "mfa-"),
	{ 0 },
};
static const struct field mfa_code_fields[] = {
	PATH_ID(mfa_path, "mfa-"),
	FIELD(mfa_path, code, "code", .flags = NEEDED | WRITE_ONLY, .min = 6, .max = 6),
	{ 0 },
};
struct verified {
	const struct uuid *id;
	const char *type, *name;
	int64_t created_at, last_used_at;
	const char *const *backup_codes;
};
static const struct field verified_fields[] = {
	FIELD(verified, id, "id", .flags = NEEDED, .prefix = "mfa-"),
	FIELD(verified, type, "type", .flags = NEEDED, .one_of = "totp"),
	FIELD(verified, name, "name", .flags = NEEDED),
	FIELD(verified, created_at, "created_at", .flags = NEEDED, .format = "date-time"),
	FIELD(verified, last_used_at, "last_used_at", .format = "date-time"),
	FIELD(verified, backup_codes, "backup_codes", .flags = OMIT,
	    .doc = "With the first factor; shown once"),
	{ 0 },
};
struct codes {
	const char *const *codes;
};
static const struct field codes_fields[] = {
	FIELD(codes, codes, "codes", .flags = NEEDED, .doc = "Shown once; earlier ones end"),
	{ 0 },
};

/* clang-format off */
const struct route mfa_routes[] = {
	{ "GET", "/v1/me/mfa", POOL_API, SIGNED_IN, mfa_list, "One's second factors", BEFORE_MFA, 200, OUT(factors) },
	{ "POST", "/v1/me/mfa", POOL_API, SIGNED_IN, mfa_enrol, "Enrol a second factor", PROOF | BEFORE_MFA | MAY_BE_EMPTY, 201,
	    IN(enrol), OUT(enrolled) },
	{ "POST", "/v1/me/mfa/{id}/verify", POOL_OPS, SIGNED_IN, mfa_verify, "The first code: from now on the factor counts",
	    BEFORE_MFA, 200, .in = mfa_code_fields, .insize = sizeof(struct mfa_path), OUT(verified) },
	{ "DELETE", "/v1/me/mfa/{id}", POOL_API, SIGNED_IN, mfa_remove, "Remove a second factor", PROOF | BEFORE_MFA, 204,
	    IN(mfa_path) },
	{ "POST", "/v1/me/mfa/backup-codes", POOL_OPS, SIGNED_IN, mfa_backup_codes, "New backup codes", PROOF | BEFORE_MFA | NO_BODY,
	    200, OUT(codes) },
	{ 0 },
};
/* clang-format on */

static int
mfa_list(struct request *r)
{
	struct factors out = { 0 };
	struct q_backups_left *left;
	struct q_factor *f;
	int n = q_factor_list(r->work.db, &f, .user = r->who.user);

	if (n < 0 || q_backup_left(r->work.db, &left, .user = r->who.user) < 0)
		return -1;
	out.factors = (struct list){ f, n };
	out.backup_codes_left = left->n;
	return reply_row(r, 1, &out);
}

static int
mfa_enrol(struct request *r)
{
	const struct enrol *in = r->in;
	struct uuid id = uuid_new();
	uint8_t secret[TOTP_SECRET];
	struct enrolled out = { .id = &id };
	struct q_factors_held *have;
	struct q_user *u;

	if (q_user_lock(r->work.db, &u, .id = r->who.user) <= 0 ||
	    q_factor_forget_unverified(r->work.db, .user = u->id) < 0 ||
	    q_factor_count(r->work.db, &have, .user = u->id) < 0)
		return -1;
	if (have->n >= FACTORS_MAX)
		return fail(r, E_QUOTA, "%d factors are the most", FACTORS_MAX);
	crypto_random(secret, sizeof secret);
	if (q_factor_insert(r->work.db, .id = &id, .user = u->id, .type = in->type,
		.name = in->name, .secret = factor_seal(r, &id, secret, sizeof secret)) < 0)
		return -1;
	out.secret = totp_base32(r, secret, sizeof secret);
	out.otpauth_url = totp_url(r, r->app->conf->mail_product, u->email, out.secret);
	explicit_bzero(secret, sizeof secret);
	return reply_row(r, 1, &out);
}

/* Ten new codes instead of all earlier ones; NULL: the unit's err. */
static const char *const *
new_codes(struct request *r, const struct uuid *user)
{
	const char **list = talloc_zero_array(r, const char *, CODES + 1);
	const char *hash;
	int i;

	if (q_backup_delete(r->work.db, .user = user) < 0)
		return NULL;
	for (i = 0; i < CODES; i++) {
		list[i] = backup_code_new(list, i);
		hash = account_hash(r, list[i]);
		if (!hash ||
		    q_backup_insert(r->work.db, .user = user, .idx = i, .code_hash = hash) < 0)
			return NULL;
	}
	return list;
}

static int
tell(struct request *r, enum audit_kind kind, const struct q_user *u, const char *what)
{
	const struct pair more[] = { { "what", what }, { 0 } };

	if (account_mail(r, "mfa_changed", u, NULL, NULL, NULL, more) < 0)
		return -1;
	return audit_add(&r->work, kind,
	    &(struct audit){ .resource_id = id_text(r, "usr-", u->id),
		.subject = u->id,
		.metadata = "{\"type\":\"totp\"}",
		.data = "{}" });
}

static int
mfa_verify(struct request *r)
{
	const struct mfa_path *in = r->in;
	struct verified out = { 0 };
	struct q_backups_left *left;
	struct q_mfa_state *before;
	struct q_factor *f;
	struct q_user *u;
	struct bytes secret;
	int64_t step;
	int n;

	if (q_user_lock(r->work.db, &u, .id = r->who.user) <= 0)
		return -1;
	n = q_factor_lock(r->work.db, &f, .id = in->id, .user = u->id);
	if (n <= 0)
		return n < 0 ? -1 : reply_done(r, 0);
	if (f->verified)
		return fail(r, E_BAD_STATE, "the factor is verified already");
	secret = factor_secret(r, f);
	if (!secret.p)
		return -1;
	step = totp_find(secret.p, in->code, time(NULL), f->last_step);
	if (!step)
		return fail(r, E_BAD_INPUT, "\"code\" is wrong");
	if (q_user_mfa(r->work.db, &before, .user = u->id) < 0 ||
	    q_factor_step(r->work.db, .id = f->id, .step = step) < 0 ||
	    q_backup_left(r->work.db, &left, .user = u->id) < 0)
		return -1;
	if (!before->has_factor && !(out.backup_codes = new_codes(r, u->id)))
		return -1;
	if (q_sessions_end_others(
		r->work.db, .user = u->id, .keep = r->who.session, .reason = "mfa") < 0 ||
	    q_session_prove(r->work.db, .id = r->who.session, .mfa = true) < 0 ||
	    tell(r, AUDIT_MFA_ENROLL, u, "An authenticator app was added.") < 0)
		return -1;
	out.id = f->id;
	out.type = f->type;
	out.name = f->name;
	out.created_at = f->created_at;
	out.last_used_at = (int64_t)time(NULL) * 1000000;
	return reply_row(r, 1, &out);
}

static int
mfa_remove(struct request *r)
{
	const struct mfa_path *in = r->in;
	struct q_mfa_state *m;
	struct q_factor *f, *all;
	struct q_user *u;
	int n;

	if (q_user_lock(r->work.db, &u, .id = r->who.user) <= 0)
		return -1;
	n = q_factor_lock(r->work.db, &f, .id = in->id, .user = u->id);
	if (n <= 0)
		return n < 0 ? -1 : reply_done(r, 0);
	n = q_factor_list(r->work.db, &all, .user = u->id);
	if (n < 0 || q_user_mfa(r->work.db, &m, .user = u->id) < 0)
		return -1;
	if (f->verified && n == 1 &&
	    (m->any_team || mfa_wanted(r->app->conf->auth_require_mfa, u->platform_role)))
		return fail(
		    r, E_MFA_POLICY, "the platform or one of your teams wants a second factor");
	if (q_factor_delete(r->work.db, .id = f->id, .user = u->id) < 0 ||
	    (f->verified && n == 1 && q_backup_delete(r->work.db, .user = u->id) < 0))
		return -1;
	if (f->verified && tell(r, AUDIT_MFA_REMOVE, u, "An authenticator app was removed.") < 0)
		return -1;
	return reply_done(r, 1);
}

static int
mfa_backup_codes(struct request *r)
{
	struct codes out = { 0 };
	struct q_user *u;

	if (!r->who.has_factor)
		return fail(r, E_BAD_STATE, "there is no second factor: POST /v1/me/mfa");
	if (q_user_lock(r->work.db, &u, .id = r->who.user) <= 0)
		return -1;
	out.codes = new_codes(r, u->id);
	if (!out.codes || tell(r, AUDIT_MFA_BACKUP_CODES, u, "New backup codes were made.") < 0)
		return -1;
	return reply_row(r, 1, &out);
}
