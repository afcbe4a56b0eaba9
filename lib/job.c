/* job.c - see job.h. Queries: sql/queries/jobs.sql. */
#include "job.h"
#include "bell.h"
#include "buf.h"
#include "cleanup.h"
#include "db.h"
#include "event.h"
#include "jobs.q.h"

#include <string.h>
#include <sys/random.h>
#include <time.h>

const struct job_queue job_queues[] = {
#define QUEUE(name, per_team, drain, keys, doc) { #name, per_team, drain, keys, doc },
#include "proto/jobs.def"
#undef QUEUE
	{ 0 },
};

const struct job_kind_row job_kind_rows[] = {
#define JOB(name, queue, priority, tries, deadline, visible, days, doc) \
	{ name, #queue, priority, tries, deadline, visible, days, doc },
#include "proto/jobs.def"
#undef JOB
	{ 0 },
};

const struct job_timer job_timers[] = {
#define TIMER(kind, period) { kind, period },
#include "proto/jobs.def"
#undef TIMER
	{ 0 },
};

const struct job_queue *
job_queue(const char *name)
{
	const struct job_queue *q;

	for (q = job_queues; q->name; q++)
		if (strcmp(q->name, name) == 0)
			return q;
	return NULL;
}

const struct job_kind_row *
job_kind_row(const char *name)
{
	const struct job_kind_row *k;

	for (k = job_kind_rows; k->name; k++)
		if (strcmp(k->name, name) == 0)
			return k;
	return NULL;
}

void
bell_add(struct work *w, const char *queue, const struct uuid *job, bool urgent)
{
	struct bell *b;

	for (b = w->bells; b && !queue; b = b->next)
		if (!b->queue)
			return; /* the relay needs one */
	b = talloc_zero(w->db->mem, struct bell);
	b->queue = queue;
	b->urgent = urgent;
	if (job)
		id_write(b->id, "job-", job);
	b->next = w->bells;
	w->bells = b;
}

static int64_t
now_us(void)
{
	struct timespec t;

	clock_gettime(CLOCK_REALTIME, &t);
	return (int64_t)t.tv_sec * 1000000 + t.tv_nsec / 1000;
}

int
job_add(struct work *w, const struct job_new *j, struct uuid *ret, bool *claimed)
{
	const struct job_kind_row *k = job_kind_row(j->kind);
	int64_t deadline = NULL_INT;
	struct uuid id = uuid_new();
	struct q_job_in *in;
	int n, priority;

	if (!k)
		return err_set(&w->err, E_BUG, "no kind of job %s", j->kind);
	if (j->deadline_at)
		deadline = j->deadline_at;
	else if (k->deadline_sec)
		deadline = (j->run_at ? j->run_at : now_us()) + (int64_t)k->deadline_sec * 1000000;
	priority = j->priority ? j->priority : k->priority;
	n = q_job_insert(w->db, &in, .id = &id, .kind = k->name, .queue = k->queue,
	    .priority = priority, .team = j->team ? j->team : &uuid_zero,
	    .actor_type = w->actor.type ? w->actor.type : "system", .actor_id = w->actor.id,
	    .actor_name = w->actor.name, .request = w->id, .trace = w->trace,
	    .args = j->args ? j->args : "{}", .unique_key = j->unique_key, .lock_key = j->lock_key,
	    .run_at = j->run_at ? j->run_at : NULL_INT, .deadline = deadline, .visible = k->visible,
	    .worker = j->claimed ? (j->worker ? j->worker : "claimed") : NULL,
	    .lease_sec = j->lease_sec ? j->lease_sec : 30);
	if (n < 0)
		return -1;
	if (n == 0)
		return err_set(&w->err, E_BUG, "job_insert gave no row");
	if (ret)
		*ret = *in->id;
	if (claimed)
		*claimed = in->claimed;
	if (in->inserted && !in->claimed && !j->run_at)
		bell_add(w, k->queue, in->id, priority <= 10);
	return in->inserted;
}

void
job_announce(struct work *w, struct queue *q)
{
	struct bell *b, *list = NULL, *next;

	for (b = w->bells; b; b = next) { /* in the order of their insertion */
		next = b->next;
		b->next = list;
		list = b;
	}
	w->bells = NULL;
	for (b = list; b; b = b->next) {
		if (b->queue)
			queue_push(q, b->queue, b->id, b->urgent);
		else
			queue_bell_ring(q, "hutch:relay");
	}
}

int
job_fence(struct work *w, const struct job_ref *j)
{
	struct q_job_one *one;
	int n = q_job_fence(w->db, &one, .id = &j->id, .epoch = j->epoch);

	if (n == 0)
		return err_set(&w->err, E_FENCED, "another worker has the job");
	return n < 0 ? -1 : 0;
}

int
job_renew(struct work *w, const struct job_ref *j, int lease_sec)
{
	int n = q_job_renew(w->db, .id = &j->id, .epoch = j->epoch, .lease_sec = lease_sec);

	if (n == 0)
		return err_set(&w->err, E_FENCED, "another worker has the job");
	return n < 0 ? -1 : 0;
}

/* base × factor^(n-1), at most cap, times 0.8 to 1.0: what failed together shall not come back
 * together. */
static int64_t
backoff_us(double base_sec, double factor, int n, double cap_sec)
{
	uint32_t r = 0;

	while (--n > 0 && base_sec < cap_sec)
		base_sec *= factor;
	if (base_sec > cap_sec)
		base_sec = cap_sec;
	(void)!getrandom(&r, sizeof r, 0);
	return (int64_t)(base_sec * 1e6 * (0.8 + 0.2 * (r % 1024) / 1023));
}

void
job_judge(const struct job_kind_row *k, int attempts, int waits, int64_t retry_after,
    const struct err *e, struct job_ending *ret)
{
	const struct err_kind *kind = &err_kinds[e->code];

	*ret = (struct job_ending){
		.how = JOB_AGAIN, .error_code = kind->slug, .error_text = err_public(e)
	};
	if (e->code == E_CANCELLED) {
		ret->how = JOB_CANCELLED;
		return;
	}
	switch (kind->class) {
	case PERMANENT:
		ret->how = JOB_FAILED;
		return;
	case BUSY:
		ret->how = JOB_BUSY;
		ret->delay_us = backoff_us(2, 1.5, waits + 1, 30);
		return;
	case THROTTLED:
		ret->delay_us = retry_after >= 0
		    ? backoff_us(retry_after < 1 ? 1 : (double)retry_after * 1.25, 1, 1, 21600)
		    : backoff_us(30, 2, attempts, 1800);
		break;
	case TRANSIENT:
		ret->delay_us = backoff_us(5, 2, attempts, 600);
		break;
	}
	if (k->tries && attempts >= k->tries)
		ret->how = JOB_FAILED;
}

static const struct {
	const char *state, *event;
	int uncount, wait;
} endings[] = {
	[JOB_SUCCEEDED] = { "succeeded", "job.finished", 0, 0 },
	[JOB_PARTIAL] = { "partial", "job.finished", 0, 0 },
	[JOB_CANCELLED] = { "cancelled", "job.cancelled", 0, 0 },
	[JOB_FAILED] = { "failed", "job.failed", 0, 0 },
	[JOB_AGAIN] = { "queued", NULL, 0, 0 },
	[JOB_BUSY] = { "queued", NULL, 1, 1 },
	[JOB_YIELD] = { "queued", NULL, 1, 0 },
};

/* The event of a visible job's end; its actor is who asked for the job. */
static int
tell(struct work *w, const struct job_ref *j, const struct q_job_held *held,
    const struct job_ending *end)
{
	struct actor saved = w->actor;
	struct buf data = BUF(w->db->mem);
	char id[ID_SIZE];
	int rc;

	buf_str(&data, "{\"kind\":");
	buf_json(&data, held->kind);
	if (end->error_code) {
		buf_str(&data, ",\"error\":");
		buf_json(&data, end->error_code);
	}
	buf_chr(&data, '}');
	w->actor = (struct actor){
		.type = held->actor_type, .id = held->actor_id, .name = held->actor_name
	};
	rc = event_add(w,
	    &(struct event){ .type = endings[end->how].event,
		.team = held->team_id,
		.resource_type = "job",
		.resource_id = id_write(id, "job-", &j->id),
		.data = data.data });
	w->actor = saved;
	return rc;
}

static int
end_in_transaction(
    struct work *w, const struct job_ref *j, const struct job_ending *end, struct q_job_held **held)
{
	int n = q_job_hold(w->db, held, .id = &j->id, .epoch = j->epoch);

	if (n == 0)
		return err_set(w->db->err, E_FENCED, "another worker has the job");
	if (n < 0)
		return -1;
	if (q_job_end(w->db, .id = &j->id, .state = endings[end->how].state,
		.delay_us = end->delay_us, .uncount = endings[end->how].uncount,
		.wait = endings[end->how].wait, .result = end->result,
		.error_code = end->error_code, .error_text = end->error_text) < 0)
		return -1;
	if ((*held)->visible && endings[end->how].event && tell(w, j, *held, end) < 0)
		return -1;
	return db_commit(w->db);
}

/* Who waited behind the job is called at once: limits and locks cost no polling. */
static void
call_next(struct work *w, struct queue *q, const struct q_job_held *held)
{
	const struct job_queue *queue = job_queue(held->queue);
	struct q_job_due *due;
	char id[ID_SIZE];
	int i, n;

	n = q_job_next(w->db, &due, .queue = held->queue, .team = held->team_id,
	    .lock_key = held->lock_key, .per_team = queue ? queue->per_team : 0);
	for (i = 0; i < n; i++)
		queue_push(q, due[i].queue, id_write(id, "job-", due[i].id), due[i].priority <= 10);
}

int
job_finish(struct work *w, struct queue *q, const struct job_ref *j, const struct job_ending *end)
{
	struct q_job_held *held;
	char id[ID_SIZE];

	if (db_in_transaction(w->db))
		db_rollback(w->db);
	db_begin(w->db);
	if (end_in_transaction(w, j, end, &held) < 0) {
		db_rollback(w->db);
		return -1;
	}
	job_announce(w, q);
	if (end->how == JOB_YIELD && end->delay_us == 0)
		queue_push(q, held->queue, id_write(id, "job-", &j->id), true);
	else
		call_next(w, q, held);
	return 0;
}

/* Ends a claimed job by the class of the unit's error, which stays the unit's error. */
int
job_end_claimed(struct work *w, struct queue *q, const struct job_ref *j, const char *result)
{
	struct err cause = w->err;
	struct job_ending end = { .how = JOB_SUCCEEDED, .result = result };
	const struct job_kind_row *k;
	struct q_job_held *held;
	int rc = -1, n;

	if (cause.code == E_FENCED)
		return -1;
	if (db_in_transaction(w->db))
		db_rollback(w->db);
	w->err = (struct err){ 0 };
	n = q_job_hold(w->db, &held, .id = &j->id, .epoch = j->epoch);
	k = n == 1 ? job_kind_row(held->kind) : NULL;
	if (k) {
		if (cause.code != E_OK)
			job_judge(k, held->attempts, held->waits, -1, &cause, &end);
		rc = job_finish(w, q, j, &end);
	} else if (n == 0) {
		err_set(&w->err, E_FENCED, "another worker has the job");
	}
	if (cause.code != E_OK)
		w->err = cause;
	return rc;
}

int
job_hand_back(struct work *w, struct queue *q, const struct job_ref *j)
{
	struct err cause = w->err;
	int rc;

	w->err = (struct err){ 0 };
	rc = job_finish(w, q, j, &(struct job_ending){ .how = JOB_YIELD });
	if (cause.code != E_OK)
		w->err = cause;
	return rc;
}
