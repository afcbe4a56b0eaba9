/*
 * mail.c - the job mail.send: render one mail, send it, mark it (spec 04 §3).
 *
 * A repeat is harmless: a sent mail is not sent again, and one that was cut while it was being sent
 * has the same Message-ID. Queries: sql/queries/mail.sql. Tests: tests/jobs/.
 */
#include "workers/job.h"
#include "db.h"
#include "json.h"
#include "mail.h"
#include "mail.q.h"

#include <string.h>

static job_fn mail_send_job;

struct mail_send {
	const struct uuid *email;
};
static const struct field mail_send_fields[] = {
	FIELD(mail_send, email, "email", .flags = NEEDED, .prefix = "eml-"),
	{ 0 },
};

const struct job_kind mail_jobs[] = {
	{ "mail.send", mail_send_job, IN(mail_send) },
	{ 0 },
};

enum { VARS_MAX = 32 };

/* The token is derived again, not stored: with the mail key of the day it was made, which may be
 * the former. */
static const char *
token_of(struct job *j, const struct q_mail *m)
{
	const char *token = crypto_mail_token(j, j->keys, m->token_id, m->token_purpose);
	uint8_t hash[HASH_SIZE];
	struct keys former;
	const char *other;

	crypto_sha256(token, strlen(token), hash);
	if (!j->keys->has_previous || crypto_equal(hash, m->token_hash.p, sizeof hash))
		return token;
	former = *j->keys;
	memcpy(former.key[KEY_MAIL], j->keys->previous[KEY_MAIL], KEY_SIZE);
	other = crypto_mail_token(j, &former, m->token_id, m->token_purpose);
	explicit_bzero(&former, sizeof former);
	crypto_sha256(other, strlen(other), hash);
	return crypto_equal(hash, m->token_hash.p, sizeof hash) ? other : token;
}

static const char *
link_of(struct job *j, const struct q_mail *m)
{
	const struct mail_kind *k;

	for (k = mail_kinds; k->name; k++)
		if (strcmp(k->name, m->template) == 0 && k->link && m->token_id)
			return talloc_asprintf(j, "%s%s%stoken=%s", j->conf->http_public_url,
			    k->link, j->conf->mail_link_query ? "?" : "#", token_of(j, m));
	return NULL;
}

/* What every template may use, then the mail's own. */
static const struct pair *
vars_of(struct job *j, const struct q_mail *m)
{
	struct pair *v = talloc_zero_array(j, struct pair, VARS_MAX + 1);
	struct json_object *own = json_parse(j, m->vars, strlen(m->vars), NULL, &j->work.err);
	int n = 0;

	if (!own)
		return NULL;
	v[n++] = (struct pair){ "name", m->to_name };
	v[n++] = (struct pair){ "product", j->conf->mail_product };
	v[n++] = (struct pair){ "url", j->conf->http_public_url };
	v[n++] = (struct pair){ "link", link_of(j, m) };
	v[n++] = (struct pair){ "activation_minutes",
		talloc_asprintf(j, "%lld", (long long)j->conf->auth_activation_ttl / 60) };
	json_object_object_foreach(own, name, value)
	{
		if (n < VARS_MAX)
			v[n++] = (struct pair){ name, json_object_get_string(value) };
	}
	return v;
}

/* The second transaction: what became of it. suppress: nothing goes to the address for a while. */
static int
mark(struct job *j, const struct q_mail *m, const char *state, const char *reason, int code,
    bool suppress)
{
	if (job_begin(j) < 0)
		return -1;
	if (q_mail_mark(j->work.db, .id = m->id, .state = state, .reason = reason,
		.code = code ? code : NULL_INT4) < 0)
		return -1;
	if (suppress && q_mail_suppress(j->work.db, .to_hash = m->to_hash, .reason = "bounced") < 0)
		return -1;
	return job_commit(j);
}

/* Marks while the unit has an error, which stays its error. */
static int
mark_failed(struct job *j, const struct q_mail *m, const struct mail_result *r)
{
	struct err cause = j->work.err;
	bool cut = r->phase == MAIL_DATA && r->code < 400;

	j->work.err = (struct err){ 0 };
	if (cause.code == E_BOUNCED) {
		if (mark(j, m, "bounced", cause.text, r->code, r->phase == MAIL_RCPT) < 0)
			return -1;
	} else if (cut && m->reason && strcmp(m->reason, "cut") == 0) {
		/* it may have arrived twice already: a third one would help nobody */
		if (mark(j, m, "bounced", "cut after DATA, twice", r->code, false) < 0)
			return -1;
		return err_set(&j->work.err, E_BOUNCED, "cut after DATA, twice");
	} else if (cut && mark(j, m, "queued", "cut", r->code, false) < 0) {
		return -1;
	}
	j->work.err = cause;
	return -1;
}

static int
mail_send_job(struct job *j)
{
	const struct mail_send *in = j->in;
	struct mail mail = { .id = id_text(j, "job-", &j->ref.id) };
	struct mail_result result;
	const struct pair *vars;
	struct q_mail *m;
	int n = q_mail_get(j->work.db, &m, .id = in->email);

	if (n <= 0)
		return n < 0 ? -1 : err_set(&j->work.err, E_NOT_FOUND, "no such mail");
	if (strcmp(m->state, "queued") != 0)
		return 0;
	if (m->expired || !m->to_addr || (m->token_id && !m->token_hash.p))
		return mark(j, m, "expired", "not worth sending any more", 0, false);
	vars = vars_of(j, m);
	if (!vars || mail_render(j, j->conf, m->template, m->locale, vars, &mail, &j->work.err) < 0)
		return -1;
	mail.to = m->to_addr;
	if (job_begin(j) < 0 || job_commit(j) < 0) /* still ours? */
		return -1;
	if (mail_send(j, j->conf, &mail, &result, &j->work.err) < 0)
		return mark_failed(j, m, &result);
	return mark(j, m, "sent", NULL, result.code, false);
}
