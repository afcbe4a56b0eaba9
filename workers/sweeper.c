/*
 * sweeper.c - each second, one at a time: announces what is due, takes jobs from the dead, fires
 * timers.
 *
 * Whatever Redis or a worker lost comes back from here; nothing else polls (spec 04 §2.2, §2.4).
 */
#include "worker.h"
#include "cleanup.h"
#include "db.h"
#include "event.h"
#include "log.h"
#include "sweeper.q.h"

#include <string.h>
#include <time.h>

enum { LIST_LOW = 200, SILENT_SEC = 30 };

typedef int step(struct process *, struct work *);
static step announce, leases, deadlines, timers, silent_slots;

static const struct {
	const char *name;
	step *fn;
} steps[] = {
	{ "leases", leases },
	{ "deadlines", deadlines },
	{ "timers", timers },
	{ "announce", announce },
	{ "silent slots", silent_slots },
};

/* The events of visible jobs that failed here; their actor is who asked for them. */
static int
tell_failed(struct work *w, const struct q_swept *rows, int n)
{
	char id[ID_SIZE];
	int i;

	for (i = 0; i < n; i++) {
		const struct q_swept *r = &rows[i];
		struct buf data = BUF(w);

		id_write(id, "job-", r->id);
		log_warn(NULL, "%s %s: %s, now %s", r->kind, id, r->error_code, r->state);
		if (!r->visible || strcmp(r->state, "failed") != 0)
			continue;
		buf_fmt(&data, "{\"kind\":\"%s\",\"error\":\"%s\"}", r->kind, r->error_code);
		w->actor = (struct actor){
			.type = r->actor_type, .id = r->actor_id, .name = r->actor_name
		};
		if (event_add(w,
			&(struct event){ .type = "job.failed",
			    .team = r->team_id,
			    .resource_type = "job",
			    .resource_id = id,
			    .data = data.data }) < 0)
			return -1;
	}
	w->actor = (struct actor){ 0 };
	return db_commit(w->db);
}

static int
leases(struct process *p, struct work *w)
{
	struct q_swept *rows;
	int n;

	(void)p;
	db_begin(w->db);
	n = q_sweep_leases(w->db, &rows);
	return n < 0 ? -1 : tell_failed(w, rows, n);
}

static int
deadlines(struct process *p, struct work *w)
{
	struct q_swept *rows;
	int n;

	(void)p;
	db_begin(w->db);
	n = q_sweep_deadlines(w->db, &rows);
	return n < 0 ? -1 : tell_failed(w, rows, n);
}

int
worker_crashed(struct work *w, const struct job_ref *j)
{
	struct q_swept *rows;
	int n;

	db_begin(w->db);
	n = q_job_crashed(w->db, &rows, .id = &j->id, .epoch = j->epoch);
	return n < 0 ? -1 : tell_failed(w, rows, n);
}

/* The slot is a row: whoever inserts it starts the job, however many sweepers and machines there
 * are. */
static int
timers(struct process *p, struct work *w)
{
	const char *name[32] = { 0 }, *period[32] = { 0 };
	const struct job_timer *t;
	struct q_swept_slot *slot;
	struct uuid id;
	int i, n = 0;

	(void)p;
	for (t = job_timers; t->kind && n < 31; t++) {
		if (!job_kind(t->kind))
			continue;
		name[n] = t->kind;
		period[n++] = talloc_asprintf(w, "%d", t->period_sec);
	}
	db_begin(w->db);
	n = q_timer_fire(w->db, &slot, .names = name, .periods = period);
	if (n < 0)
		return -1;
	for (i = 0; i < n; i++)
		if (job_add(w,
			&(struct job_new){ .kind = slot[i].name, .unique_key = slot[i].name }, &id,
			NULL) < 0 ||
		    q_timer_job(w->db, .job = &id, .name = slot[i].name, .slot = slot[i].slot) < 0)
			return -1;
	return db_commit(w->db);
}

/* How many ids wait in the list; -1: Redis is away. */
static int64_t
list_length(struct queue *q, const char *name)
{
	auto_reply *r = queue_cmd(q, "LLEN hutch:q:%s", name);

	return r && r->type == REDIS_REPLY_INTEGER ? r->integer : -1;
}

static int
announce(struct process *p, struct work *w)
{
	const struct job_queue *q;
	struct q_swept_due *due;
	char id[ID_SIZE];
	int64_t len;
	int i, n;

	for (q = job_queues; q->name; q++) {
		len = list_length(p->queue, q->name);
		if (len < 0)
			return 0; /* workers ask PostgreSQL themselves */
		if (len >= LIST_LOW)
			continue;
		n = q_sweep_announce(w->db, &due, .queue = q->name, .per_team = q->per_team);
		if (n < 0)
			return -1;
		for (i = 0; i < n; i++)
			queue_push(p->queue, q->name, id_write(id, "job-", due[i].id),
			    due[i].priority <= 10);
	}
	return 0;
}

/* What a slot held that has been silent for long goes back to its queue:
 * "machine:pid.queue.number". */
static void
empty_slot(struct queue *q, const char *slot)
{
	const char *dot = strchr(slot, '.'), *end = strrchr(slot, '.');
	redisReply *r;
	int i;

	for (i = 0; dot && end > dot && i < 100; i++) {
		auto_reply *moved = queue_cmd(q, "LMOVE hutch:w:%s hutch:q:%b LEFT RIGHT", slot,
		    dot + 1, (size_t)(end - dot - 1));

		if (!moved || moved->type != REDIS_REPLY_STRING)
			break;
	}
	r = queue_cmd(q, "ZREM hutch:workers %s", slot);
	if (r)
		freeReplyObject(r);
}

static int
silent_slots(struct process *p, struct work *w)
{
	auto_reply *r = queue_cmd(p->queue, "ZRANGEBYSCORE hutch:workers -inf %lld LIMIT 0 50",
	    (long long)time(NULL) - SILENT_SEC);
	size_t i;

	(void)w;
	for (i = 0; r && r->type == REDIS_REPLY_ARRAY && i < r->elements; i++)
		empty_slot(p->queue, r->element[i]->str);
	return 0;
}

static void
sweep(struct process *p)
{
	struct work *w = worker_unit(p);
	struct q_swept_lock *lock;
	size_t i;

	if (!w)
		return;
	if (q_sweep_lock(p->db, &lock) == 1 && lock->got) {
		for (i = 0; i < nitems(steps) && !worker_stop; i++) {
			if (steps[i].fn(p, w) < 0) {
				log_warn(NULL, "sweeper: %s: %s", steps[i].name, w->err.text);
				db_rollback(p->db);
				w->err = (struct err){ 0 };
			}
			job_announce(w, p->queue);
		}
		(void)q_sweep_unlock(p->db);
	}
	worker_unit_end(w);
}

int
sweeper_main(struct process *p)
{
	while (!worker_stop) {
		sweep(p);
		worker_sleep(1000);
	}
	return 0;
}
