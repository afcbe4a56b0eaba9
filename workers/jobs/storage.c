/*
 * storage.c - the end of storage connections: objects first, while the credentials exist, then the
 * credentials (spec 01 §6.3, spec 05 §5.4). Best effort: a store that does not answer holds up
 * nothing for longer than 15 minutes.
 *
 * Queries: sql/queries/storage.sql. Tests: tests/jobs/storage.py.
 */
#include "audit.h"
#include "cascade.q.h"
#include "db.h"
#include "log.h"
#include "s3.h"
#include "storage.q.h"
#include "storage_seal.h"
#include "workers/cascade.h"

#include <inttypes.h>
#include <time.h>

static job_fn storage_delete, wanted_objects, credentials;

struct storage_args {
	const struct uuid *connection;
};
static const struct field storage_args_fields[] = {
	FIELD(storage_args, connection, "connection", .flags = NEEDED, .prefix = "cn-"),
	{ 0 },
};

const struct job_kind storage_jobs[] = {
	{ "storage.delete", storage_delete, IN(storage_args) },
	{ 0 },
};

static const struct cascade_step steps[] = {
	{ "objects", wanted_objects },
	{ "credentials", credentials },
	{ 0 },
};

enum { CONNECTION_SEC = 900 };

static int64_t
now_sec(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec;
}

/* What became of one object: its row goes when it is gone from the store. */
static int
note(struct job *j, const struct uuid *object, const struct err *why)
{
	const char *target = id_text(j, "obj-", object);

	if (job_begin(j) < 0)
		return -1;
	if (!why && q_object_forget(j->work.db, .id = object) < 0)
		return -1;
	if (cascade_item(j, target, why ? "failed" : "succeeded", why) < 0)
		return -1;
	return job_commit(j);
}

static int
delete_one(struct job *j, const struct s3 *s, const struct q_doomed *o, const struct err *given_up)
{
	struct err why = { 0 };

	if (given_up)
		return note(j, o->id, given_up);
	if (s3_delete(j, s, s3_key(j, s, o->team_id, o->id), &why) == 0)
		return note(j, o->id, NULL);
	log_warn(j->work.id, "%s: %s", id_text(j, "obj-", o->id), why.text);
	return note(j, o->id, &why);
}

int
storage_delete_objects(struct job *j, const struct q_connection_secret *c)
{
	struct err why = { 0 }, late = { 0 };
	int64_t end = now_sec() + CONNECTION_SEC;
	const struct err *given_up = NULL;
	struct q_doomed *o;
	struct s3 s;
	int n, i;

	if (storage_open(j, j->conf, j->keys, c, &s, &why) < 0)
		given_up = &why; /* a secret of a lost key: nothing can be asked with it */
	err_set(&late, E_TIMEOUT, "the store took too long for the objects before");
	for (;;) {
		n = q_objects_doomed(j->work.db, &o, .connection = c->id, .job = &j->ref.id);
		if (n <= 0)
			return n;
		for (i = 0; i < n; i++) {
			if (job_must_stop(j))
				return job_yield(j);
			if (!given_up && now_sec() > end)
				given_up = &late;
			if (delete_one(j, &s, &o[i], given_up) < 0)
				return -1;
		}
	}
}

int
storage_purge(struct job *j, const struct q_connection_secret *c, int n, const struct uuid *team)
{
	struct q_item_counts *objects;
	const char *data;
	int i;

	if (!n)
		return 0;
	if (job_begin(j) < 0)
		return -1;
	for (i = 0; i < n; i++)
		if (q_connection_delete(j->work.db, .id = c[i].id) < 0 ||
		    cascade_item(j, id_text(j, "cn-", c[i].id), "succeeded", NULL) < 0)
			return -1;
	if (q_items_count(j->work.db, &objects, .job = &j->ref.id, .prefix = "obj-") < 0)
		return -1;
	data = talloc_asprintf(j,
	    "{\"providers\":[\"s3\"],\"objects_deleted\":%" PRId64 ",\"objects_failed\":%" PRId64
	    "}",
	    objects->done, objects->failed);
	if (audit_add(&j->work, AUDIT_STORAGE_PURGE,
		&(struct audit){ .team = team,
		    .resource_id = n == 1 ? id_text(j, "cn-", c->id) : NULL,
		    .metadata = data,
		    .data = data }) < 0)
		return -1;
	return job_commit(j);
}

/* --- the job of a DELETE --------------------------------------------------------------------- */

static int
find(struct job *j, struct q_connection_secret **c)
{
	return q_connection_open(
	    j->work.db, c, .id = ((const struct storage_args *)j->in)->connection);
}

static int
storage_delete(struct job *j)
{
	return cascade_run(j, steps);
}

static int
wanted_objects(struct job *j)
{
	struct q_connection_secret *c;
	int n = find(j, &c);

	return n <= 0 || !c->delete_objects ? n < 0 ? -1 : 0 : storage_delete_objects(j, c);
}

static int
credentials(struct job *j)
{
	struct q_connection_secret *c;
	int n = find(j, &c);

	return n <= 0 ? n : storage_purge(j, c, 1, c->team_id);
}
