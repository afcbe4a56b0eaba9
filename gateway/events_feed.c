/*
 * events_feed.c - see events.h: every event of the installation, once, in order.
 *
 * The loop asks for what is behind its place, in a thread, when the bell rings and each second. The
 * bell is a thread that waits on the stream hutch:ev; without Redis the seconds remain.
 */
#include "events.h"

#include "cleanup.h"
#include "db.h"
#include "live.q.h"
#include "log.h"
#include "queue.h"
#include "timer.h"

#include <pthread.h>
#include <string.h>
#include <time.h>

enum { TICK_MS = 1000, READERS = 2, BLOCK_MS = 400 };

/* ---- connections */

struct reader {
	struct db *db;
	struct reader *next;
};

static struct {
	pthread_mutex_t lock;
	pthread_cond_t free;
	struct reader *idle;
	int made;
} readers = { .lock = PTHREAD_MUTEX_INITIALIZER, .free = PTHREAD_COND_INITIALIZER };

/* Waits for one: questions are short, and fewer than threads. */
struct reader *
reader_take(struct gateway *gw)
{
	struct reader *k = NULL;

	pthread_mutex_lock(&readers.lock);
	while (!readers.idle && readers.made == READERS)
		pthread_cond_wait(&readers.free, &readers.lock);
	k = readers.idle;
	if (k)
		readers.idle = k->next;
	else
		readers.made++;
	pthread_mutex_unlock(&readers.lock);
	if (!k) {
		k = talloc_zero(NULL, struct reader);
		if (!k)
			abort();
		k->db = db_open(k, gw->conf->db_work_url, "hutch-gateway-events",
		    gw->conf->db_statement_timeout_ms);
	}
	return k;
}

struct db *
reader_db(struct reader *k)
{
	return k->db;
}

void
reader_return(struct reader *k)
{
	pthread_mutex_lock(&readers.lock);
	k->next = readers.idle;
	readers.idle = k;
	pthread_cond_signal(&readers.free);
	pthread_mutex_unlock(&readers.lock);
}

/* ---- rows */

static void
fill(struct happening *h, const struct q_live_event *r, void *mem)
{
	struct buf b = BUF(mem);

	*h = (struct happening){ .gpos = r->gpos,
		.id = *r->id,
		.team = *r->team_id,
		.has_user = r->user_id != NULL,
		.has_capsule = r->capsule_id != NULL,
		.has_owner = r->owner_id != NULL,
		.private_capsule = r->visibility && strcmp(r->visibility, "private") == 0,
		.lost_capsule = r->capsule_id && !r->visibility,
		.kind = event_kind(r->type),
		.type = talloc_strdup(mem, r->type),
		.resource_type = talloc_strdup(mem, r->resource_type ? r->resource_type : ""),
		.resource_id = talloc_strdup(mem, r->resource_id ? r->resource_id : ""),
		.actor_id = talloc_strdup(mem, r->actor_id ? r->actor_id : "") };
	if (r->user_id)
		h->user = *r->user_id;
	if (r->capsule_id)
		h->capsule = *r->capsule_id;
	if (r->owner_id)
		h->owner = *r->owner_id;
	event_envelope(&b, EVENT_ROW(r));
	h->json = b.data;
	h->n = b.len;
}

struct happening *
happenings(void *mem, const struct q_live_event *rows, int n)
{
	struct happening *list = talloc_zero_array(mem, struct happening, (size_t)n + 1);

	if (!list)
		abort();
	for (int i = 0; i < n; i++)
		fill(&list[i], &rows[i], list);
	return list;
}

/* ---- reading on */

struct reading {
	struct work work;
	uv_work_t req;
	struct feed *feed;
	int64_t after; /* -1: only where we are */
	int64_t upto;
	struct happening *list;
	int n; /* -1: no answer */
};

static int
read_on(struct reading *q)
{
	struct q_live_event *rows = NULL;
	struct q_live_head *head = NULL;
	int n = 0;

	if (q->after < 0) {
		n = q_live_head_get(q->work.db, &head);
		q->upto = n == 1 ? head->gpos : 0;
		return n < 0 ? -1 : 0;
	}
	n = q_live_next(q->work.db, &rows, .after = q->after, .limit = PAGE);
	if (n < 0)
		return -1;
	q->list = happenings(q, rows, n);
	q->upto = n ? rows[n - 1].gpos : q->after;
	return n;
}

static void
in_thread(uv_work_t *req)
{
	struct reading *q = req->data;
	struct reader *k = reader_take(q->feed->gw);

	q->n = -1;
	for (int tries = 0; q->n < 0 && tries < 2; tries++) {
		q->work.err = (struct err){ 0 };
		q->work.db = reader_db(k);
		if (db_unit(q->work.db, q, &q->work.err) == 0)
			q->n = read_on(q);
		db_unit_end(q->work.db);
	}
	reader_return(k);
}

/* Listeners may end while they are told, but only themselves. */
static void
show_all(struct feed *f, const struct reading *q)
{
	struct listener *next = NULL;

	for (struct listener *l = f->first; l; l = next) {
		next = l->next;
		for (int i = 0; i < q->n && !l->over; i++) {
			if (changes_rights(&l->who, &q->list[i]) && l->right)
				right_look(l->right);
			subs_show(l, &q->list[i]);
		}
	}
}

static void
after_thread(uv_work_t *req, int status)
{
	struct reading *q = req->data;
	struct feed *f = q->feed;
	struct listener *next = NULL;

	(void)status;
	f->reading = false;
	if (q->n < 0)
		log_warn(NULL, "live events: %s", q->work.err.text);
	else if (f->first) {
		show_all(f, q);
		f->pos = q->upto;
		for (struct listener *l = f->first; l; l = next) {
			next = l->next;
			subs_caught_up(l);
		}
		if (q->n == PAGE || f->again)
			feed_wake(f);
	}
	talloc_free(q);
}

void
feed_wake(struct feed *f)
{
	struct reading *q = NULL;

	if (f->reading) {
		f->again = true;
		return;
	}
	f->again = false;
	if (!f->first) {
		f->pos = -1; /* whoever comes next begins where the events are then */
		return;
	}
	q = talloc_zero(NULL, struct reading);
	if (!q)
		abort();
	*q = (struct reading){ .feed = f, .after = f->pos, .req.data = q };
	f->reading = true;
	uv_queue_work(f->gw->loop, &q->req, in_thread, after_thread);
}

/* ---- the bell */

static struct {
	pthread_mutex_t lock;
	pthread_cond_t wanted;
	bool listening;
	const struct conf *conf;
	uv_async_t *bell;
} ringer = { .lock = PTHREAD_MUTEX_INITIALIZER, .wanted = PTHREAD_COND_INITIALIZER };

/* The id of the stream's last entry, or of the last one of an answer of XREAD. */
static bool
last_id(redisReply *r, char id[64])
{
	redisReply *list = r;

	if (r && r->type == REDIS_REPLY_ARRAY && r->elements == 1 &&
	    r->element[0]->type == REDIS_REPLY_ARRAY && r->element[0]->elements == 2 &&
	    r->element[0]->element[1]->type == REDIS_REPLY_ARRAY &&
	    r->element[0]->element[0]->type == REDIS_REPLY_STRING &&
	    strcmp(r->element[0]->element[0]->str, "hutch:ev") == 0)
		list = r->element[0]->element[1];
	if (!list || list->type != REDIS_REPLY_ARRAY || !list->elements)
		return false;
	list = list->element[list->elements - 1];
	if (list->type != REDIS_REPLY_ARRAY || !list->elements ||
	    list->element[0]->type != REDIS_REPLY_STRING)
		return false;
	snprintf(id, 64, "%s", list->element[0]->str);
	return true;
}

static void *
ring(void *arg)
{
	struct queue *q = queue_open(NULL, ringer.conf);
	char id[64] = "";

	for (;;) {
		struct timespec second = { .tv_sec = 1 };

		pthread_mutex_lock(&ringer.lock);
		while (!ringer.listening)
			pthread_cond_wait(&ringer.wanted, &ringer.lock);
		pthread_mutex_unlock(&ringer.lock);
		if (!*id) {
			auto_reply *r = queue_cmd(q, "XREVRANGE hutch:ev + - COUNT 1");

			if (!r)
				nanosleep(&second, NULL);
			else if (!last_id(r, id))
				snprintf(id, sizeof id, "0");
			continue;
		}
		auto_reply *r =
		    queue_cmd(q, "XREAD COUNT 1000 BLOCK %d STREAMS hutch:ev %s", BLOCK_MS, id);
		if (last_id(r, id))
			uv_async_send(ringer.bell);
		else if (!queue_up(q))
			*id = '\0';
	}
	return arg;
}

static void
rung(uv_async_t *a)
{
	feed_wake(a->data);
}

static void
on_tick(void *arg)
{
	struct feed *f = arg;
	struct listener *next = NULL;
	uint64_t now = uv_now(f->gw->loop);

	for (struct listener *l = f->first; l; l = next) {
		next = l->next;
		if (f->gw->draining && !l->over)
			listener_end(l, 1001, "the server is restarted: come back", E_UNAVAILABLE);
		else if (l->kind->tick && !l->over)
			l->kind->tick(l, now);
	}
	feed_wake(f);
	pthread_mutex_lock(&ringer.lock);
	ringer.listening = f->first != NULL;
	pthread_cond_signal(&ringer.wanted);
	pthread_mutex_unlock(&ringer.lock);
	if (!f->first)
		TALLOC_FREE(f->tick);
}

struct feed *
feed_get(struct gateway *gw)
{
	struct feed *f = gw->feed;
	pthread_t thread;

	if (!f) {
		f = gw->feed = talloc_zero(NULL, struct feed);
		if (!f)
			abort();
		*f = (struct feed){ .gw = gw, .pos = -1 };
		uv_async_init(gw->loop, &f->bell, rung);
		f->bell.data = f;
		uv_unref((uv_handle_t *)&f->bell);
		ringer.conf = gw->conf;
		ringer.bell = &f->bell;
		if (pthread_create(&thread, NULL, ring, NULL) == 0)
			pthread_detach(thread);
		else
			log_warn(
			    NULL, "live events: no thread for the bell: they come each second");
	}
	if (!f->tick) {
		f->tick = timer_start(f, gw->loop, TICK_MS, TICK_MS, on_tick, f);
		pthread_mutex_lock(&ringer.lock);
		ringer.listening = true;
		pthread_cond_signal(&ringer.wanted);
		pthread_mutex_unlock(&ringer.lock);
	}
	return f;
}
