/*
 * user.c - the purge of a deleted account (spec 01 §6.3), and the sweep that makes missing purges.
 *
 * One job per account, so that one that fails holds up nobody. The account's row goes last, and
 * only in a transaction in which nothing bore its name any more.
 *
 * Queries: sql/queries/cascade.sql, storage.sql, deletion.sql. Tests: tests/jobs/deletion.py.
 */
#include "workers/cascade.h"
#include "audit.h"
#include "cascade.q.h"
#include "crash.h"
#include "db.h"
#include "deletion.q.h"
#include "log.h"
#include "mail.h"
#include "queue.h"
#include "storage.q.h"

#include <inttypes.h>
#include <time.h>

static job_fn user_purge, purge_missing;
static job_fn due, delete_objects, delete_connections, anonymise, finish;

struct purge_args {
	const struct uuid *user; /* NULL: the account went in an earlier run */
};
static const struct field purge_args_fields[] = {
	FIELD(purge_args, user, "user", .prefix = "usr-"),
	{ 0 },
};

const struct job_kind user_jobs[] = {
	{ "user.purge", user_purge, IN(purge_args) },
	{ "user.purge_missing", purge_missing },
	{ 0 },
};

static const struct cascade_step steps[] = {
	{ "due", due },
	{ "objects", delete_objects },
	{ "connections", delete_connections },
	{ "anonymise", anonymise },
	{ "finish", finish },
	{ 0 },
};

enum { BATCH = 5000, PAGE = 20000, DAY_MS = 86400000 };

static const struct uuid *
user_of(const struct job *j)
{
	return ((const struct purge_args *)j->in)->user;
}

/* Restored, or gone already: nothing to do, and nothing is touched. */
static int
user_purge(struct job *j)
{
	struct q_purge_start *p;
	int n = user_of(j) ? q_user_purge_due(j->work.db, &p, .id = user_of(j)) : 0;

	if (n < 0)
		return -1;
	return n && p->due ? cascade_run(j, steps) : 0;
}

static int
due(struct job *j)
{
	struct q_purge_start *p;

	if (job_begin(j) < 0)
		return -1;
	if (q_user_purge_due(j->work.db, &p, .id = user_of(j)) <= 0 || !p->due)
		return err_set(&j->work.err, E_CANCELLED, "the account was restored");
	if (p->waits)
		return err_set(
		    &j->work.err, E_CONFLICT, "the teams that went with it are not purged yet");
	if (q_user_purge_begin(j->work.db, .id = user_of(j)) < 0)
		return -1;
	return job_commit(j);
}

static int
delete_objects(struct job *j)
{
	struct q_connection_secret *c;
	int n = q_connections_of_user(j->work.db, &c, .user = user_of(j)), i;

	for (i = 0; i < n; i++)
		if (storage_delete_objects(j, &c[i]) < 0)
			return -1;
	return n < 0 ? -1 : 0;
}

static int
delete_connections(struct job *j)
{
	struct q_connection_secret *c;
	int n = q_connections_of_user(j->work.db, &c, .user = user_of(j));

	return n < 0 ? -1 : storage_purge(j, c, n, NULL);
}

/* Inside a transaction: the next rows of the audit log. How many they were; -1. */
static int
anonymise_rows(struct job *j)
{
	struct q_anonymised *a;
	const char *meta;

	if (q_audit_anonymise(j->work.db, &a, .user = user_of(j), .most = BATCH) < 0)
		return -1;
	if (!a->n)
		return 0;
	meta = talloc_asprintf(j, "{\"rows\":%" PRId64 ",\"batch\":%" PRId64 ",\"digest\":\"%s\"}",
	    a->n, a->batch, a->digest);
	if (audit_add(&j->work, AUDIT_AUDIT_ANONYMISE, &(struct audit){ .metadata = meta }) < 0)
		return -1;
	return (int)a->n;
}

/* Tables that name people in text, page by page. */
struct pager {
	struct uuid after;
	const struct q_dying *who;
	const char *wire;
};
typedef int page_fn(struct job *, const struct pager *, struct q_page_end **);

static int
events_page(struct job *j, const struct pager *p, struct q_page_end **ret)
{
	return q_events_forget(j->work.db, ret, .after = &p->after, .most = PAGE,
	    .user = p->who->id, .wire = p->wire, .email = p->who->email);
}

static int
jobs_page(struct job *j, const struct pager *p, struct q_page_end **ret)
{
	return q_jobs_forget(
	    j->work.db, ret, .after = &p->after, .most = PAGE, .wire = p->wire, .self = &j->ref.id);
}

static int
emails_page(struct job *j, const struct pager *p, struct q_page_end **ret)
{
	return q_emails_forget(j->work.db, ret, .after = &p->after, .most = PAGE,
	    .user = p->who->id, .email = p->who->email, .name = p->who->name);
}

static page_fn *const tables[] = { events_page, jobs_page, emails_page };

/* The rest of a table behind `after`; each page is a transaction, unless one is open. */
static int
forget_table(struct job *j, page_fn *fn, struct pager p, bool open)
{
	struct q_page_end *end;

	for (;;) {
		if (!open && job_begin(j) < 0)
			return -1;
		if (fn(j, &p, &end) < 0 || (!open && job_commit(j) < 0))
			return -1;
		if (end->n < PAGE)
			return 0;
		p.after = *end->last;
	}
}

static int
forget_all(struct job *j, const struct q_dying *u, const struct uuid *after, bool open)
{
	struct pager p = { *after, u, id_text(j, "usr-", u->id) };
	size_t i;

	for (i = 0; i < sizeof tables / sizeof *tables; i++)
		if (forget_table(j, tables[i], p, open) < 0)
			return -1;
	return 0;
}

/* The stream of events has the rows as they were. Without Redis there is none: it is filled from
 * the rows again. */
static void
forget_stream(struct job *j, const struct q_dying *u)
{
	const char *texts[] = { id_text(j, "usr-", u->id), u->email, NULL };

	if (queue_stream_forget(j->queue, "hutch:ev", texts) < 0)
		log_warn(j->work.id, "the stream of events could not be searched");
}

static int
anonymise(struct job *j)
{
	struct q_dying *u;
	int n;

	do {
		if (job_must_stop(j))
			return job_yield(j);
		if (job_begin(j) < 0)
			return -1;
		n = anonymise_rows(j);
		if (n < 0 || job_commit(j) < 0)
			return -1;
		crash_point("user.purge.anonymise.batch");
	} while (n == BATCH);
	n = q_dying_lock(j->work.db, &u, .id = user_of(j));
	if (n <= 0)
		return n < 0 ? -1 : err_set(&j->work.err, E_BUG, "the account is gone");
	if (forget_all(j, u, &uuid_zero, false) < 0)
		return -1;
	forget_stream(j, u);
	return 0;
}

/* Ids begin with the time: all that was made in the last day lies behind this one. */
static struct uuid
yesterday(void)
{
	struct uuid u = { { 0 } };
	struct timespec now;
	uint64_t ms;
	int i;

	clock_gettime(CLOCK_REALTIME, &now);
	ms = (uint64_t)now.tv_sec * 1000 - DAY_MS;
	for (i = 0; i < 6; i++)
		u.b[i] = ms >> (40 - 8 * i);
	return u;
}

/* What came since the last step, then the account itself, then the word about it. */
static int
erase(struct job *j, const struct q_dying *u)
{
	struct uuid after = yesterday();
	struct db *db = j->work.db;
	struct q_item_counts *objects, *connections;
	int n;

	do
		n = anonymise_rows(j);
	while (n == BATCH);
	if (n < 0 || forget_all(j, u, &after, true) < 0 ||
	    q_invitations_to_forget(db, .email = u->email) < 0 ||
	    q_idempotency_forget(db, .user = u->id) < 0 || q_user_gone(db, .id = u->id) < 0 ||
	    q_items_count(db, &objects, .job = &j->ref.id, .prefix = "obj-") < 0 ||
	    q_items_count(db, &connections, .job = &j->ref.id, .prefix = "cn-") < 0)
		return -1;
	j->result = talloc_asprintf(j,
	    "{\"objects\":%" PRId64 ",\"objects_failed\":%" PRId64 ",\"connections\":%" PRId64 "}",
	    objects->done, objects->failed, connections->done);
	j->how = objects->failed ? JOB_PARTIAL : JOB_SUCCEEDED;
	return audit_add(&j->work, AUDIT_USER_PURGE, &(struct audit){ .metadata = j->result });
}

static int
finish(struct job *j)
{
	struct mail_new m = { .template = "account_purged" };
	struct q_dying *u;
	int n;

	if (job_begin(j) < 0)
		return -1;
	n = q_dying_lock(j->work.db, &u, .id = user_of(j));
	if (n <= 0)
		return n < 0 ? -1 : err_set(&j->work.err, E_BUG, "the account is gone");
	m.to = u->email;
	m.name = u->name;
	if (erase(j, u) < 0)
		return -1;
	/* a sign-up that was never activated gets no word: nobody proved that the address is his */
	if ((!u->deleted_from || *u->deleted_from != 'i') && mail_add(&j->work, j->keys, &m) < 0)
		return -1;
	if (q_job_forget_self(j->work.db, .id = &j->ref.id, .wire = id_text(j, "usr-", u->id)) < 0)
		return -1;
	return job_commit(j);
}

static int
purge_missing(struct job *j)
{
	struct q_missing_purge *m;
	int n, i;

	if (job_begin(j) < 0)
		return -1;
	n = q_purges_missing(j->work.db, &m);
	for (i = 0; i < n; i++) {
		bool user = m[i].kind[0] == 'u';
		const char *id = id_text(j, user ? "usr-" : "team-", m[i].id);
		struct job_new add = { .kind = m[i].kind,
			.team = user ? NULL : m[i].id,
			.args = talloc_asprintf(j, "{\"%s\":\"%s\"}", user ? "user" : "team", id),
			.unique_key = id,
			.lock_key = id,
			.run_at = m[i].run_at == NULL_INT ? 0 : m[i].run_at };

		if (job_add(&j->work, &add, NULL, NULL) < 0)
			return -1;
	}
	return n < 0 ? -1 : job_commit(j);
}
