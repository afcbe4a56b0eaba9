/*
 * child.c - a child does one job at a time: take an id, claim it, run it, end it (spec 04 §2.2,
 * §2.5).
 *
 * Redis gives ids in order; without it PostgreSQL is asked each second. The claim is the same.
 */
#include "worker.h"
#include "cleanup.h"
#include "db.h"
#include "event.h"
#include "jobs.q.h"
#include "json.h"
#include "log.h"

#include <string.h>
#include <unistd.h>

enum { JOBS_MAX = 1000, AGE_MAX_MS = 3600000 };

int
job_begin(struct job *j)
{
	db_begin(j->work.db);
	return job_fence(&j->work, &j->ref);
}

int
job_commit(struct job *j)
{
	if (db_commit(j->work.db) < 0)
		return -1;
	job_announce(&j->work, j->queue);
	return 0;
}

int
job_save(struct job *j, const char *checkpoint, const char *phase)
{
	return q_job_checkpoint(j->work.db, .id = &j->ref.id, .epoch = j->ref.epoch,
		   .checkpoint = checkpoint, .phase = phase) < 0
	    ? -1
	    : 0;
}

bool
job_must_stop(const struct job *j)
{
	return atomic_load(&j->held->must_stop);
}

bool
job_cancelled(const struct job *j)
{
	return atomic_load(&j->held->cancel);
}

int
job_yield(struct job *j)
{
	j->how = JOB_YIELD;
	return 0;
}

int
job_again(struct job *j, int64_t delay_ms)
{
	j->how = JOB_YIELD;
	j->delay_us = delay_ms * 1000;
	return 0;
}

/* A visible job's first start is an event, by the one who asked for it. */
static int
tell_started(struct job *j, const struct q_job *row)
{
	struct buf data = BUF(j);
	char id[ID_SIZE];

	if (!row->visible || row->attempts != 1)
		return 0;
	buf_str(&data, "{\"kind\":");
	buf_json(&data, row->kind);
	buf_chr(&data, '}');
	return event_add(&j->work,
	    &(struct event){ .type = "job.started",
		.team = row->team_id,
		.resource_type = "job",
		.resource_id = id_write(id, "job-", row->id),
		.data = data.data });
}

/* 1: ours, with the row. 0: not to be had now. -1: error. */
static int
claim(struct process *p, struct job *j, const struct job_queue *queue, const struct uuid *id,
    struct q_job **row)
{
	struct db *db = p->db;
	int n;

	db_begin(db);
	if (q_job_claim_lock(db, .queue = queue->name, .id = id) < 0)
		return -1;
	n = q_job_claim(db, row, .id = id, .worker = p->name,
	    .lease_sec = (int)p->conf->workers_lease_sec, .per_team = queue->per_team);
	if (n < 0 && j->work.err.code == E_CONFLICT) { /* the lock was taken in the same moment */
		j->work.err = (struct err){ 0 };
		n = 0;
	}
	if (n != 1) {
		db_rollback(db);
		return n;
	}
	j->work.id = (*row)->request_id;
	j->work.trace = (*row)->traceparent;
	j->work.actor = (struct actor){
		.type = (*row)->actor_type, .id = (*row)->actor_id, .name = (*row)->actor_name
	};
	if (tell_started(j, *row) < 0)
		return -1;
	return db_commit(db) < 0 ? -1 : 1;
}

static int
read_args(struct job *j, const char *args)
{
	struct json_object *obj;
	void *in;

	if (!j->kind->in)
		return 0;
	obj = json_parse(j, args, strlen(args), NULL, &j->work.err);
	if (!obj)
		return -1;
	in = talloc_zero_size(j, j->kind->insize);
	fields_default(j->kind->in, in);
	j->in = in;
	return fields_read(j->kind->in, obj, in, j, &j->work.err);
}

static int
run(struct job *j, const struct q_job *row)
{
	j->kind = job_kind(row->kind);
	j->team = row->team_id;
	j->try = row->attempts;
	j->checkpoint = row->checkpoint;
	if (!j->kind)
		return err_set(
		    &j->work.err, E_UNSUPPORTED, "no worker knows the job %s", row->kind);
	if (read_args(j, row->args) < 0)
		return -1;
	if (j->kind->fn(j) < 0)
		return err_set(&j->work.err, E_BUG, "%s failed and does not say why", row->kind);
	return 0;
}

static void
log_end(const struct job *j, const struct q_job *row, const struct err *cause,
    const struct job_ending *end)
{
	char id[ID_SIZE];

	id_write(id, "job-", &j->ref.id);
	if (cause->code == E_OK)
		log_info(j->work.id, "%s %s done", row->kind, id);
	else if (end->how == JOB_CANCELLED)
		log_info(j->work.id, "%s %s cancelled", row->kind, id);
	else if (end->how == JOB_FAILED)
		log_error(j->work.id, "%s %s failed for good: %s", row->kind, id, cause->text);
	else
		log_warn(j->work.id, "%s %s try %d: %s; again in %lld ms", row->kind, id, j->try,
		    cause->text, (long long)(end->delay_us / 1000));
}

/* Writes the end. The database may have just come back: some tries, within the lease. */
static int
end(struct process *p, struct job *j, const struct q_job *row, int rc)
{
	struct err cause = j->work.err;
	struct job_ending how = { .how = j->how, .result = j->result, .delay_us = j->delay_us };
	int try;

	if (rc < 0)
		job_judge(
		    job_kind_row(row->kind), j->try, row->waits, j->retry_after, &cause, &how);
	log_end(j, row, &cause, &how);
	for (try = 0; try < 5; try++) {
		j->work.err = (struct err){ 0 };
		if (db_unit(p->db, j, &j->work.err) == 0 &&
		    job_finish(&j->work, p->queue, &j->ref, &how) == 0)
			return 0;
		if (j->work.err.code == E_FENCED)
			return -1;
		worker_sleep(1000);
	}
	log_error(j->work.id, "%s: its end could not be written: %s", row->kind, j->work.err.text);
	return -1;
}

/* Claims and runs. -1: this process has lost a job to somebody else, and must end. */
static int
do_job(struct process *p, const struct job_queue *queue, const struct uuid *id)
{
	auto_talloc struct job *j = talloc_zero(NULL, struct job);
	struct held *held = p->held;
	struct q_job *row;
	int rc = 0, n;

	j->work.db = p->db;
	j->conf = p->conf;
	j->keys = p->keys;
	j->queue = p->queue;
	j->held = held;
	j->retry_after = -1;
	n = db_unit(p->db, j, &j->work.err) < 0 ? -1 : claim(p, j, queue, id, &row);
	if (n == 1) {
		j->ref = (struct job_ref){ *row->id, row->epoch };
		held->id = *row->id;
		held->epoch = row->epoch;
		atomic_store(&held->cancel, 0);
		atomic_store(&held->busy, 1);
		job_announce(&j->work, p->queue);
		rc = run(j, row);
		if (rc < 0 && j->work.err.code == E_FENCED)
			rc = -1;
		else
			rc = end(p, j, row, rc);
		atomic_store(&held->busy, 0);
		atomic_fetch_add(&held->done, 1);
	} else if (n < 0) {
		log_warn(NULL, "claim: %s", j->work.err.text);
		worker_sleep(1000);
	}
	db_unit_end(p->db);
	return rc;
}

/* Without Redis: the next id from PostgreSQL, or a second's pause. */
static bool
peek(struct process *p, const struct job_queue *queue, struct uuid *ret)
{
	struct work *w = worker_unit(p);
	struct q_job_id *row;
	bool found = false;

	if (w) {
		found =
		    q_job_peek(p->db, &row, .queue = queue->name, .per_team = queue->per_team) == 1;
		if (found)
			*ret = *row->id;
		worker_unit_end(w);
	}
	if (!found)
		worker_sleep(1000);
	return found;
}

/* What stands in this slot's list was taken by a predecessor that died, or by our last, cut,
 * BLMOVE. */
static void
give_back(struct process *p, const struct job_queue *queue)
{
	int i;

	for (i = 0; i < 100; i++) {
		auto_reply *r = queue_cmd(
		    p->queue, "LMOVE hutch:w:%s hutch:q:%s LEFT RIGHT", p->name, queue->name);

		if (!r || r->type != REDIS_REPLY_STRING)
			return;
	}
}

static int
take_and_do(struct process *p, const struct job_queue *queue)
{
	auto_talloc char *list = talloc_asprintf(NULL, "hutch:w:%s", p->name);
	const char *text = queue_take(p->queue, list, queue->name, list, 5, &worker_stop);
	redisReply *r;
	struct uuid id;
	int rc = 0;

	if (text) {
		if (id_read(text, "job-", &id))
			rc = do_job(p, queue, &id);
		r = queue_cmd(p->queue, "LREM %s 1 %s", list, text);
		if (r)
			freeReplyObject(r);
	} else if (!worker_stop && !queue_up(p->queue) && peek(p, queue, &id)) {
		rc = do_job(p, queue, &id);
	}
	return rc;
}

int
child_main(struct process *p, const struct job_queue *queue)
{
	int64_t start = worker_now_ms();

	give_back(p, queue);
	while (!worker_stop && atomic_load(&p->held->done) < JOBS_MAX &&
	    worker_now_ms() - start < AGE_MAX_MS)
		if (take_and_do(p, queue) < 0)
			return 1; /* fenced: nothing more may be touched */
	give_back(p, queue);
	return 0;
}
