/*
 * events_live.c - see events.h: what is never a row (spec 04 §1.1) and is shown while it is new:
 * figures of capsules and of the platform, every 5 s.
 *
 * A turn is one question to the database, for all who look on: where their capsules run, and the
 * platform's figures. Then each capsule's host is asked once for what it has measured since,
 * however many look at it. Nothing is asked when nobody looks on.
 */
#include "access.h"
#include "back.h"
#include "cleanup.h"
#include "db.h"
#include "events.h"
#include "json.h"
#include "live.q.h"
#include "log.h"
#include "metrics.h"
#include "timer.h"

#include <inttypes.h>
#include <string.h>
#include <time.h>

enum {
	FIRST_MS = 1000,
	EVERY_MS = 5000,
	EVERY_SEC = 5,
	BODY_MAX = 1 << 20,
	KEYS_MAX = 20000,
	BUCKETS = 256
};

/* A capsule that some look at; the platform itself is the one without an id. */
struct watched {
	struct watched *next;
	struct live *live;
	struct uuid id;
	struct sub *subs;
	int64_t from;     /* of the points that were not shown yet; 0: nothing was shown */
	struct request r; /* as which the host is asked */
	struct access at;
	struct guest *g; /* its answer, while it comes */
	struct buf body;
};

struct live {
	struct gateway *gw;
	struct watched *bucket[BUCKETS], platform;
	struct timer *timer;
	size_t watching; /* subscriptions */
	bool asking;
};

struct question {
	struct work work;
	uv_work_t req;
	struct live *live;
	const char *ids; /* a JSON array; of what to look for */
	bool figures;
	struct q_live_place *place;
	int n;
	const char *said; /* the figures, or NULL */
};

/* ---- to those who look on */

/* Who has lost the right, or reads too slowly, is left out: the next one comes soon. */
static void
show(struct watched *w, const char *json, size_t n)
{
	struct sub *next = NULL;

	for (struct sub *s = w->subs; s; s = next) {
		struct listener *l = s->l;

		next = s->look_next;
		for (size_t i = 0; i < s->n && !l->over; i++)
			if (s->topic[i].kind ==
				(w == &w->live->platform ? TOPIC_METRICS : TOPIC_CAPSULE) &&
			    topic_denied(&s->topic[i], &l->who) == E_OK &&
			    l->kind->queued(l) <= PAGE_HIGH)
				l->kind->live(l, &s->topic[i], "metrics", json, n);
	}
}

static void
show_points(struct watched *w, struct json_object *said)
{
	struct buf b = BUF(w);
	char id[ID_SIZE];
	size_t empty = 0;

	buf_fmt(&b, "{\"sandbox_id\":\"%s\",\"points\":[", id_write(id, "cl-", &w->id));
	empty = b.len;
	w->from = metrics_points(&b, said, w->from) + 1;
	buf_str(&b, "]}");
	if (b.len > empty + 2)
		show(w, b.data, b.len);
	talloc_free(b.data);
}

/* ---- the hosts */

static void
on_data(struct guest *g, const uint8_t *p, size_t n)
{
	struct watched *w = guest_arg(g);

	guest_consume(g, n);
	if (w->body.len + n <= BODY_MAX)
		buf_add(&w->body, p, n);
}

static void
on_end(struct guest *g)
{
	struct watched *w = guest_arg(g);
	void *mem = talloc_new(w);
	struct err e = { 0 };
	struct json_object *said = w->body.len
	    ? json_parse(mem, w->body.data, w->body.len, &(struct json_limits){ 8, KEYS_MAX }, &e)
	    : NULL;

	TALLOC_FREE(w->g);
	if (said)
		show_points(w, said);
	talloc_free(mem);
}

static void
on_refused(struct guest *g, int status, struct json_object *json)
{
	struct watched *w = guest_arg(g);

	(void)status;
	(void)json;
	TALLOC_FREE(w->g);
}

static void
on_fail(struct guest *g, const struct err *e)
{
	on_refused(g, 0, NULL);
	(void)e;
}

static const struct guest_events host_events = {
	.on_data = on_data, .on_end = on_end, .on_refused = on_refused, .on_fail = on_fail
};

/* An answer that has not come in a whole turn does not come. */
static void
ask_host(struct watched *w, const char *host)
{
	struct guest_call call = { .method = "GET", .end = true, .agent = true, .no_token = true };
	void *mem = talloc_new(w);

	TALLOC_FREE(w->g);
	buf_clear(&w->body);
	w->at.host = talloc_strdup(mem, host);
	w->r = (struct request){ .gw = w->live->gw, .access = &w->at, .work.id = "live" };
	if (!w->from)
		w->from = (int64_t)time(NULL) - EVERY_SEC;
	call.path = talloc_asprintf(mem, "/metrics?tier=10m&since=%" PRId64, w->from);
	w->g = guest_open(w, &w->r, &call, &host_events, w);
	w->at.host = ""; /* what was asked is on its way */
	talloc_free(mem);
}

/* ---- turns */

static void
in_thread(uv_work_t *req)
{
	struct question *q = req->data;
	struct reader *k = reader_take(q->live->gw);
	struct q_live_figures *f = NULL;
	int figures = 0;

	q->n = -1;
	for (int tries = 0; (q->n < 0 || figures < 0) && tries < 2; tries++) {
		q->work.err = (struct err){ 0 };
		q->work.db = reader_db(k);
		if (db_unit(q->work.db, q, &q->work.err) == 0) {
			q->n = q_live_places(q->work.db, &q->place, .ids = q->ids);
			figures = q->figures ? q_live_figures_get(q->work.db, &f) : 0;
		}
		db_unit_end(q->work.db);
	}
	q->said = figures == 1 ? f->figures : NULL;
	reader_return(k);
}

static struct watched *
find(struct live *live, const struct uuid *id)
{
	struct watched *w = live->bucket[id->b[15] % BUCKETS];

	while (w && !uuid_equal(&w->id, id))
		w = w->next;
	return w;
}

static void
after_thread(uv_work_t *req, int status)
{
	struct question *q = req->data;
	struct live *live = q->live;

	(void)status;
	live->asking = false;
	if (q->work.err.code != E_OK)
		log_warn(NULL, "live figures: %s", q->work.err.text);
	for (int i = 0; i < q->n; i++) {
		struct watched *w = find(live, q->place[i].id);

		if (w)
			ask_host(w, q->place[i].address);
	}
	if (q->said)
		show(&live->platform, q->said, strlen(q->said));
	talloc_free(q);
}

static void
turn(void *arg)
{
	struct live *live = arg;
	struct question *q = NULL;
	struct buf b = { 0 };
	char id[37];

	if (live->asking)
		return;
	q = talloc_zero(NULL, struct question);
	if (!q)
		abort();
	b = BUF(q);
	buf_chr(&b, '[');
	for (size_t i = 0; i < BUCKETS; i++)
		for (struct watched *w = live->bucket[i]; w; w = w->next) {
			uuid_write(id, &w->id);
			buf_fmt(&b, "%s\"%s\"", b.len > 1 ? "," : "", id);
		}
	buf_chr(&b, ']');
	*q = (struct question){
		.live = live, .ids = b.data, .figures = live->platform.subs != NULL, .req.data = q
	};
	live->asking = true;
	uv_queue_work(live->gw->loop, &q->req, in_thread, after_thread);
}

/* ---- who looks on */

static struct watched *
watched_get(struct live *live, const struct uuid *id)
{
	struct watched **at = &live->bucket[id->b[15] % BUCKETS], *w = find(live, id);

	if (w)
		return w;
	w = talloc_zero(live, struct watched);
	if (!w)
		abort();
	*w = (struct watched){ .next = *at, .live = live, .id = *id, .body = BUF(w) };
	w->at.capsule = *id;
	id_write(w->at.id, "cl-", id);
	return *at = w;
}

static void
look(struct sub *s, struct watched *w)
{
	struct live *live = w->live;

	s->look = w;
	s->look_next = w->subs;
	s->look_at = &w->subs;
	if (s->look_next)
		s->look_next->look_at = &s->look_next;
	w->subs = s;
	live->watching++;
	if (!live->timer)
		live->timer = timer_start(live, live->gw->loop, FIRST_MS, EVERY_MS, turn, live);
}

void
live_look(struct sub *s)
{
	struct gateway *gw = s->l->r->gw;
	struct live *live = gw->live;

	if (!live) {
		live = gw->live = talloc_zero(NULL, struct live);
		if (!live)
			abort();
		live->gw = gw;
		live->platform.live = live;
	}
	for (size_t i = 0; i < s->n && !s->look; i++) {
		if (s->topic[i].kind == TOPIC_METRICS)
			look(s, &live->platform);
		else if (s->topic[i].kind == TOPIC_CAPSULE && s->metrics)
			look(s, watched_get(live, &s->topic[i].id));
	}
}

void
live_leave(struct sub *s)
{
	struct watched *w = s->look, **at = NULL;
	struct live *live = w ? w->live : NULL;

	if (!w)
		return;
	s->look = NULL;
	*s->look_at = s->look_next;
	if (s->look_next)
		s->look_next->look_at = s->look_at;
	if (!--live->watching)
		TALLOC_FREE(live->timer);
	if (w->subs || w == &live->platform)
		return;
	for (at = &live->bucket[w->id.b[15] % BUCKETS]; *at != w; at = &(*at)->next)
		;
	*at = w->next;
	talloc_free(w);
}
