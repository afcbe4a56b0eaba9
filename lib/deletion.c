/*
 * deletion.c - see deletion.h. Queries: sql/queries/deletion.sql. Tests: tests/jobs/deletion.py,
 * tests/jobs/admin.py.
 *
 * Audit rows lock the heads of their teams' chains, in order of the teams' ids and as the last lock
 * of all: they are collected in a ledger and written at the end.
 */
#include "deletion.h"
#include "accounts.q.h"
#include "admin.q.h"
#include "audit.h"
#include "db.h"
#include "deletion.q.h"
#include "deletion_ledger.h"
#include "job.h"
#include "mail.h"
#include "rfc3339.h"
#include "sessions.q.h"
#include "users.q.h"

#include <inttypes.h>
#include <string.h>
#include <talloc.h>

static const char *
usr(struct work *w, const struct uuid *id)
{
	return id_text(w->db->mem, "usr-", id);
}

static const char *
by_word(const struct deletion *d)
{
	return d->admin ? "admin" : d->via ? d->via : "self";
}

static const char *
time_text(struct work *w, int64_t us)
{
	struct buf b = BUF(w->db->mem);

	time_write(&b, us);
	return b.data;
}

/* The mail is a row; whether it can be sent is not the cascade's business. */
static int
tell(struct work *w, const struct deletion *d, const char *template, const struct q_person *p,
    const struct pair *vars)
{
	struct mail_new m = {
		.template = template, .user = p->id, .to = p->email, .name = p->name, .vars = vars
	};

	return mail_add(w, d->keys, &m) < 0 ? -1 : 0;
}

/* --- guards -------------------------------------------------------------------------------- */

/* Locks what decides who is a platform administrator, then reads the caller again. */
static int
begin(struct work *w, const struct deletion *d)
{
	struct q_tally *t;

	if (q_platform_lock(w->db) < 0)
		return -1;
	if (!d->admin)
		return 0;
	if (q_admin_is_active(w->db, &t, .id = d->admin) < 0)
		return -1;
	return t->n ? 0 : err_set(&w->err, E_FORBIDDEN, "you are no active administrator any more");
}

static int
lock_user(struct work *w, const struct deletion *d, const struct uuid *user, struct q_dying **u)
{
	int n;

	if (begin(w, d) < 0)
		return -1;
	n = q_dying_lock(w->db, u, .id = user);
	return n < 0 ? -1 : n ? 0 : err_set(&w->err, E_NOT_FOUND, "no such account");
}

static int
not_the_last_admin(struct work *w, const struct q_dying *u)
{
	struct q_tally *t;

	if (strcmp(u->platform_role, "admin") != 0 || strcmp(u->status, "active") != 0)
		return 0;
	if (q_admins_left(w->db, &t, .id = u->id) < 0)
		return -1;
	return t->n ? 0
		    : err_set(&w->err, E_LAST_ADMIN, "%s is the last active platform administrator",
			  u->email);
}

/* --- teams --------------------------------------------------------------------------------- */

static int
ledger_keys(struct ledger *l, const struct q_gone_key *keys, int n, const char *reason)
{
	int i;

	for (i = 0; i < n; i++) {
		struct buf meta = BUF(l->w->db->mem);

		buf_str(&meta, "{\"name\":");
		buf_json(&meta, keys[i].name);
		buf_fmt(&meta, ",\"reason\":\"%s\"}", reason);
		ledger_add(l, AUDIT_API_KEY_REVOKE, keys[i].team_id,
		    id_text(l->w->db->mem, "key-", keys[i].id), NULL, meta.data);
	}
	return n;
}

static int
tell_team(struct work *w, const struct deletion *d, const struct q_dying_team *t)
{
	const struct pair vars[] = { { "team", t->name }, { 0 } };
	struct q_person *p;
	int n = q_team_people(w->db, &p, .team = t->id), i;

	for (i = 0; i < n; i++)
		if (tell(w, d, "team_deleted", &p[i], vars) < 0)
			return -1;
	return n < 0 ? -1 : 0;
}

/* The team's row is locked by the caller. */
static int
end_team(struct ledger *l, const struct deletion *d, const struct q_dying_team *t, struct uuid *job)
{
	struct work *w = l->w;
	const char *id = id_text(w->db->mem, "team-", t->id);
	struct buf meta = BUF(w->db->mem);
	struct q_gone_key *keys;
	int n, capsules;

	if (q_team_creations_wait(w->db, .team = t->id) < 0 || tell_team(w, d, t) < 0 ||
	    q_team_set_deleted(w->db, .id = t->id) < 0 ||
	    q_invitations_of_team_revoke(w->db, .team = t->id) < 0)
		return -1;
	n = q_keys_of_team_delete(w->db, &keys, .team = t->id);
	capsules = q_capsules_shall_stop(w->db, .team = t->id);
	if (n < 0 || capsules < 0)
		return -1;
	ledger_keys(l, keys, n, "team_deleted");
	buf_fmt(&meta, "{\"capsules\":%d,\"keys\":%d,\"by\":\"%s\"}", capsules, n, by_word(d));
	ledger_add(l, AUDIT_TEAM_DELETE, t->id, id, NULL, meta.data);
	if (d->admin)
		ledger_add(l, AUDIT_TEAM_DELETE, &uuid_zero, id, NULL, meta.data);
	return job_add(w,
		   &(struct job_new){ .kind = "team.purge",
		       .team = t->id,
		       .args = talloc_asprintf(w->db->mem, "{\"team\":\"%s\"}", id),
		       .unique_key = id,
		       .lock_key = id },
		   job, NULL) < 0
	    ? -1
	    : 0;
}

int
team_delete(struct work *w, const struct deletion *d, const struct uuid *team, struct uuid *job)
{
	struct ledger l = { .w = w };
	struct q_dying_team *t;
	int n;

	if (d->admin && begin(w, d) < 0)
		return -1;
	n = q_dying_team_lock(w->db, &t, .id = team);
	if (n < 0)
		return -1;
	if (n && t->is_platform)
		return err_set(&w->err, E_PLATFORM_TEAM, "the Platform team cannot be deleted");
	if (!n || t->deleted)
		return err_set(&w->err, E_NOT_FOUND, "no such team");
	return end_team(&l, d, t, job) < 0 || ledger_write(&l) < 0 ? -1 : 1;
}

/* --- accounts: what disabling and deleting share ------------------------------------------- */

/* Logins, mailed links, keys, invitations he made. Returns how many keys; -1. */
static int
end_credentials(struct ledger *l, const struct uuid *user, const char *reason)
{
	struct db *db = l->w->db;
	struct q_gone_key *keys;
	int n;

	if (q_session_revoke_all(db, .user = user, .reason = reason) < 0 ||
	    q_tokens_of_user_delete(db, .user = user) < 0 ||
	    q_invitations_by_user_revoke(db, .user = user) < 0)
		return -1;
	n = q_keys_of_user_delete(db, &keys, .user = user);
	return n < 0 ? -1 : ledger_keys(l, keys, n, reason);
}

static struct q_person
person(const struct q_dying *u)
{
	return (struct q_person){ u->id, u->email, u->name };
}

static void
add_id(struct buf *b, const char *prefix, const struct uuid *id)
{
	char text[ID_SIZE];

	buf_fmt(b, "%s\"%s\"", b->data[b->len - 1] == '[' ? "" : ",", id_write(text, prefix, id));
}

static int
add_user_job(struct work *w, const char *kind, const struct uuid *user, const char *args,
    int64_t run_at, struct uuid *job)
{
	struct job_new j = { .kind = kind, .args = args, .run_at = run_at };

	j.unique_key = j.lock_key = usr(w, user);
	return job_add(w, &j, job, NULL) < 0 ? -1 : 0;
}

/* --- disable, enable ------------------------------------------------------------------------ */

/* Capsules of his teams that have no other active owner shall stop. Ids of the teams to *ids. */
static int
stop_capsules(struct work *w, const struct uuid *user, struct buf *ids, int *teams)
{
	struct q_his_team *t;
	int n, i, one, all = 0;

	if (q_his_teams_lock(w->db, .user = user) < 0)
		return -1;
	n = q_his_teams(w->db, &t, .user = user);
	buf_chr(ids, '[');
	for (i = 0; i < n; i++) {
		if (strcmp(t[i].role, "owner") != 0 || t[i].other_owner)
			continue;
		if (q_team_creations_wait(w->db, .team = t[i].id) < 0)
			return -1;
		one = q_capsules_shall_stop(w->db, .team = t[i].id);
		if (one < 0)
			return -1;
		all += one;
		++*teams;
		add_id(ids, "team-", t[i].id);
	}
	buf_chr(ids, ']');
	return n < 0 ? -1 : all;
}

int
user_disable(struct work *w, const struct deletion *d, const struct uuid *user, struct uuid *job)
{
	struct ledger l = { .w = w };
	struct buf teams = BUF(w->db->mem), meta = BUF(w->db->mem);
	int keys, capsules, n = 0;
	struct q_dying *u;
	struct q_person p;

	if (d->admin && uuid_equal(d->admin, user))
		return err_set(&w->err, E_BAD_INPUT, "you cannot disable your own account");
	if (lock_user(w, d, user, &u) < 0)
		return -1;
	if (strcmp(u->status, "deleted") == 0)
		return err_set(&w->err, E_NOT_FOUND, "no such account");
	if (strcmp(u->status, "disabled") == 0)
		return 0;
	if (not_the_last_admin(w, u) < 0 || q_user_set_disabled(w->db, .id = user) < 0)
		return -1;
	capsules = stop_capsules(w, user, &teams, &n);
	keys = capsules < 0 ? -1 : end_credentials(&l, user, "user_disabled");
	if (keys < 0)
		return -1;
	buf_str(&meta, "{\"email\":");
	buf_json(&meta, u->email);
	if (d->reason) {
		buf_str(&meta, ",\"reason\":");
		buf_json(&meta, d->reason);
	}
	buf_fmt(&meta, ",\"capsules\":%d,\"keys\":%d,\"teams\":%d", capsules, keys, n);
	buf_str(&meta, d->via ? ",\"via\":\"hutchctl\"}" : "}");
	ledger_add(&l, AUDIT_USER_DEACTIVATE, &uuid_zero, usr(w, user), user, meta.data);
	p = person(u);
	if (add_user_job(w, "user.disable", user,
		talloc_asprintf(w->db->mem, "{\"teams\":%s}", teams.data), 0, job) < 0 ||
	    (strcmp(u->status, "active") == 0 && tell(w, d, "disabled", &p, NULL) < 0))
		return -1;
	return ledger_write(&l) < 0 ? -1 : 1;
}

int
user_enable(struct work *w, const struct deletion *d, const struct uuid *user)
{
	struct ledger l = { .w = w };
	struct buf meta = BUF(w->db->mem);
	struct q_dying *u;
	struct q_person p;

	if (lock_user(w, d, user, &u) < 0)
		return -1;
	if (strcmp(u->status, "deleted") == 0)
		return err_set(&w->err, E_NOT_FOUND, "no such account");
	if (strcmp(u->status, "active") == 0)
		return 0;
	if (q_user_set_enabled(w->db, .id = user) < 0)
		return -1;
	buf_str(&meta, "{\"email\":");
	buf_json(&meta, u->email);
	buf_fmt(&meta, ",\"by\":\"%s\"}", by_word(d));
	ledger_add(&l, AUDIT_USER_REACTIVATE, &uuid_zero, usr(w, user), user, meta.data);
	p = person(u);
	return tell(w, d, "enabled", &p, NULL) < 0 || ledger_write(&l) < 0 ? -1 : 1;
}

/* --- delete, restore ------------------------------------------------------------------------ */

/* 409: the teams that would have no owner, as members of the error. */
static int
owns_teams(struct work *w, const struct q_his_team *t, int n)
{
	struct buf more = BUF(w->db->mem);
	int i, count = 0;

	buf_str(&more, "\"teams\":[");
	for (i = 0; i < n; i++) {
		if (!team_would_be_orphan(&t[i]))
			continue;
		buf_fmt(&more, "%s{\"id\":\"%s\",\"name\":", count++ ? "," : "",
		    id_text(w->db->mem, "team-", t[i].id));
		buf_json(&more, t[i].name);
		buf_chr(&more, '}');
	}
	if (!count)
		return 0;
	buf_fmt(&more, "],\"count\":%d", count);
	w->err_more = more.data;
	return err_set(&w->err, E_OWNS_TEAM,
	    "the account is the only active owner of %d team%s with other members", count,
	    count == 1 ? "" : "s");
}

bool
team_would_be_orphan(const struct q_his_team *t)
{
	return t->others && strcmp(t->role, "owner") == 0 && !t->other_owner;
}

bool
team_goes_along(const struct q_his_team *t, bool delete_teams)
{
	return !t->others || (delete_teams && team_would_be_orphan(t));
}

/* His teams that go with him. Ids of them to *ids; how many capsules nobody asks. */
static int
end_teams(struct ledger *l, const struct deletion *d, const struct uuid *user, struct buf *ids)
{
	struct work *w = l->w;
	struct q_his_team *t;
	int n, i;

	if (q_his_teams_lock(w->db, .user = user) < 0)
		return -1;
	n = q_his_teams(w->db, &t, .user = user);
	if (n < 0 || (!d->delete_teams && owns_teams(w, t, n) < 0))
		return -1;
	buf_chr(ids, '[');
	for (i = 0; i < n; i++) {
		struct q_dying_team team = { .id = t[i].id, .name = t[i].name };

		if (!team_goes_along(&t[i], d->delete_teams))
			continue;
		if (end_team(l, d, &team, NULL) < 0)
			return -1;
		add_id(ids, "team-", t[i].id);
	}
	buf_chr(ids, ']');
	return 0;
}

/* In its days of grace: now instead of later. */
static int
hurry(struct work *w, const struct q_dying *u, struct uuid *job)
{
	const char *args = talloc_asprintf(w->db->mem, "{\"user\":\"%s\"}", usr(w, u->id));

	if (u->purging)
		return err_set(&w->err, E_BAD_STATE, "the purge has begun");
	if (q_user_purge_now(w->db, .id = u->id) < 0 ||
	    q_purge_job_now(w->db, .key = usr(w, u->id)) < 0 ||
	    add_user_job(w, "user.purge", u->id, args, 0, job) < 0)
		return -1;
	return 1;
}

static int
tell_deleted(struct work *w, const struct deletion *d, const struct q_dying *u, int64_t purge_after)
{
	const char *day = talloc_strndup(w->db->mem, time_text(w, purge_after), 10);
	const struct pair vars[] = { { "date", day }, { 0 } };
	struct q_person p = person(u);

	return strcmp(u->status, "inactive") == 0 ? 0 : tell(w, d, "account_deleted", &p, vars);
}

int
user_delete(struct work *w, const struct deletion *d, const struct uuid *user, struct uuid *job)
{
	struct ledger l = { .w = w };
	struct buf teams = BUF(w->db->mem), meta = BUF(w->db->mem);
	struct q_purge_time *t;
	struct q_dying *u;
	int keys;

	if (d->admin && uuid_equal(d->admin, user))
		return err_set(&w->err, E_BAD_INPUT, "your own account: DELETE /v1/me");
	if (lock_user(w, d, user, &u) < 0)
		return -1;
	if (strcmp(u->status, "deleted") == 0)
		return d->purge_now ? hurry(w, u, job)
				    : err_set(&w->err, E_NOT_FOUND, "no such account");
	if (not_the_last_admin(w, u) < 0 || end_teams(&l, d, user, &teams) < 0)
		return -1;
	keys = end_credentials(&l, user, "user_deleted");
	if (keys < 0 ||
	    q_user_set_deleted(w->db, &t, .id = user,
		.days = d->purge_now ? 0 : (int32_t)d->conf->accounts_grace_days) < 0)
		return -1;
	buf_str(&meta, "{\"email\":");
	buf_json(&meta, u->email);
	buf_fmt(&meta, ",\"purge_after\":\"%s\",\"teams\":%s,\"keys\":%d,\"by\":\"%s\"}",
	    time_text(w, t->purge_after), teams.data, keys, by_word(d));
	ledger_add(&l, d->admin || d->via ? AUDIT_USER_DELETE : AUDIT_USER_DELETE_SELF, &uuid_zero,
	    usr(w, user), user, meta.data);
	if (add_user_job(w, "user.purge", user,
		talloc_asprintf(
		    w->db->mem, "{\"user\":\"%s\",\"teams\":%s}", usr(w, user), teams.data),
		d->purge_now ? 0 : t->purge_after, job) < 0 ||
	    tell_deleted(w, d, u, t->purge_after) < 0)
		return -1;
	return ledger_write(&l) < 0 ? -1 : 1;
}

int
user_restore(struct work *w, const struct deletion *d, const struct uuid *user)
{
	struct ledger l = { .w = w };
	struct q_dying *u;
	struct q_person p;

	if (lock_user(w, d, user, &u) < 0)
		return -1;
	if (strcmp(u->status, "deleted") != 0)
		return err_set(&w->err, E_BAD_STATE, "the account is %s", u->status);
	if (u->purging)
		return err_set(&w->err, E_BAD_STATE, "its purge has begun");
	if (q_user_set_restored(w->db, .id = user) < 0 ||
	    q_purge_job_cancel(w->db, .key = usr(w, user)) < 0)
		return -1;
	ledger_add(&l, AUDIT_USER_RESTORE, &uuid_zero, usr(w, user), user, NULL);
	p = person(u);
	return tell(w, d, "restored", &p, NULL) < 0 || ledger_write(&l) < 0 ? -1 : 1;
}

/* --- roles of the platform ------------------------------------------------------------------ */

int
user_set_role(struct work *w, const struct deletion *d, const struct uuid *user, const char *role)
{
	struct ledger l = { .w = w };
	struct q_dying *u;

	if (lock_user(w, d, user, &u) < 0)
		return -1;
	if (strcmp(u->status, "deleted") == 0)
		return err_set(&w->err, E_NOT_FOUND, "no such account");
	if (strcmp(u->platform_role, role) == 0)
		return 0;
	if (strcmp(role, "admin") != 0 && not_the_last_admin(w, u) < 0)
		return -1;
	if (q_user_make_admin(w->db, .id = user, .platform_role = role) < 0)
		return -1;
	ledger_add(&l, AUDIT_USER_ROLE_UPDATE, &uuid_zero, usr(w, user), user,
	    talloc_asprintf(w->db->mem, "{\"old\":\"%s\",\"new\":\"%s\"%s}", u->platform_role, role,
		d->via ? ",\"via\":\"hutchctl\"" : ""));
	return ledger_write(&l) < 0 ? -1 : 1;
}

int
user_reset_mfa(struct work *w, const struct deletion *d, const struct uuid *user)
{
	struct mail_new m = { .template = "mfa_reset", .user = user };
	struct ledger l = { .w = w };
	struct q_gone_key *keys;
	struct q_dying *u;
	int n, i;

	if (lock_user(w, d, user, &u) < 0)
		return -1;
	if (strcmp(u->status, "deleted") == 0)
		return err_set(&w->err, E_NOT_FOUND, "no such account");
	m.to = u->email;
	m.name = u->name;
	n = q_keys_of_logins_delete(w->db, &keys, .user = user);
	if (n < 0 || q_factors_of_user_delete(w->db, .user = user) < 0 ||
	    q_codes_of_user_delete(w->db, .user = user) < 0 ||
	    q_tokens_forget(w->db, .user = user, .purpose = "mfa_challenge") < 0 ||
	    q_session_revoke_all(w->db, .user = user, .reason = "mfa_reset") < 0 ||
	    mail_add(w, d->keys, &m) < 0)
		return -1;
	for (i = 0; i < n; i++)
		ledger_add(&l, AUDIT_API_KEY_REVOKE, keys[i].team_id,
		    id_text(w->db->mem, "key-", keys[i].id), NULL,
		    "{\"reason\":\"session_ended\"}");
	ledger_add(&l, AUDIT_USER_MFA_RESET, &uuid_zero, usr(w, user), user,
	    d->via ? "{\"via\":\"hutchctl\"}" : "{}");
	return ledger_write(&l) < 0 ? -1 : 1;
}
