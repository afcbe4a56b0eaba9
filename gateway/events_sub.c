/*
 * events_sub.c - see events.h: who listens, and where each of his subscriptions stands.
 *
 * A subscription is behind until all up to the feed's place was shown to it; then the feed shows it
 * the rest. Numbers only rise, so that nothing is left out and nothing comes twice.
 */
#include "events.h"

#include "access.h"
#include "db.h"
#include "live.q.h"
#include "log.h"
#include "route.h"
#include "tally_all.h"
#include "ws.h"

#include <string.h>
#include <talloc.h>

/* A piece of the table for one subscription. */
struct page {
	struct work work;
	uv_work_t req;
	struct gateway *gw;
	struct sub *sub; /* NULL: gone meanwhile; never read in the thread */
	struct viewer who;
	bool first, has_since, runs_team;
	struct uuid since, capsule, job;
	bool of_capsule, of_job;
	int64_t after;
	bool here; /* back on the loop; before, the thread has it, and nobody else looks below */
	/* the answer */
	enum err_code code;
	const char *gap;
	int64_t head;
	struct happening *list;
	int n;
};

/* A capsule topic's right, asked again and again. */
struct hold {
	struct sub *sub;
	bool answered;
};

static void page_ask(struct sub *, bool first);

/* ---- the end of things */

static int
sub_destroy(struct sub *s)
{
	live_leave(s);
	if (s->page)
		s->page->sub = NULL;
	*s->at = s->next;
	if (s->next)
		s->next->at = s->at;
	s->l->topics -= s->n;
	return 0;
}

static void
refuse(struct sub *s, enum err_code code)
{
	struct listener *l = s->l;

	l->kind->refused(s, code);
	if (!l->over)
		talloc_free(s);
}

static int
listener_destroy(struct listener *l)
{
	while (l->subs)
		talloc_free(l->subs);
	*l->at = l->next;
	if (l->next)
		l->next->at = l->at;
	return 0;
}

void
listener_end(struct listener *l, int code, const char *reason, enum err_code e)
{
	if (l->over)
		return;
	l->over = true;
	TALLOC_FREE(l->right);
	l->kind->end(l, code, reason, e);
}

/* ---- who it is */

static void
news(void *arg, const struct right_news *n)
{
	struct listener *l = arg;
	struct sub *next = NULL;

	l->who.now = *n;
	l->who.sees_team = n->also;
	for (struct sub *s = l->subs; s && !l->over; s = next) {
		bool any = false;

		next = s->next;
		for (size_t i = 0; i < s->n; i++)
			any = any || topic_denied(&s->topic[i], &l->who) == E_OK;
		if (!any && s->state != SUB_ASKED)
			refuse(s, E_FORBIDDEN);
	}
}

static void
begin(struct listener *l)
{
	void (*ready)(struct listener *) = l->ready;

	if (!l->known || !l->counted || !ready)
		return;
	l->ready = NULL;
	ready(l);
}

static void
told(void *arg, enum err_code code, const char *state)
{
	struct listener *l = arg;

	(void)state;
	if (l->over)
		return;
	switch (code) {
	case E_OK:
		l->known = true;
		begin(l);
		return;
	case E_DB:
		if (!l->known)
			listener_end(l, WS_LOST, "the database does not answer", E_UNAVAILABLE);
		return;
	case E_UNAUTHORIZED:
		listener_end(l, WS_UNAUTHORIZED, "the login or the key has ended", E_UNAUTHORIZED);
		return;
	default:
		listener_end(l, WS_FORBIDDEN, "you may not do this any more", E_FORBIDDEN);
	}
}

static void
counted(void *arg, bool good)
{
	struct listener *l = arg;

	if (l->over)
		return;
	l->counted = good;
	if (good)
		begin(l);
	else
		listener_end(l, WS_SLOW, "too many listeners of this user or team", E_RATE);
}

static void
within_limits(struct listener *l)
{
	char id[ID_SIZE];
	const struct tally_ask asks[] = {
		{ talloc_asprintf(
		      l, "events:%s", l->who.has_user ? l->who.user_id : l->r->access->who),
		    LISTENERS_PER_USER },
		{ talloc_asprintf(l, "events:%s", id_write(id, "team-", &l->who.team)),
		    LISTENERS_PER_TEAM },
	};

	tally_all_take(l->r->gw, l, asks, l->who.has_team ? 2 : 1, counted, l);
}

struct listener *
listener_new(void *mem, struct request *r, const struct listener_kind *kind,
    void (*ready)(struct listener *))
{
	struct listener *l = talloc_zero(mem, struct listener);
	const struct access *a = r->access;
	struct feed *f = feed_get(r->gw);

	if (!l)
		abort();
	*l = (struct listener){ .r = r, .kind = kind, .ready = ready };
	l->who = (struct viewer){ .user = a->look.claims.sub,
		.has_user = !uuid_equal(&a->look.claims.sub, &uuid_zero),
		.team = a->team,
		.has_team = a->look.claims.has_team,
		.by_key = a->by_key };
	id_write(l->who.user_id, "usr-", &l->who.user);
	within_limits(l);
	l->next = f->first;
	l->at = &f->first;
	if (l->next)
		l->next->at = &l->next;
	f->first = l;
	talloc_set_destructor(l, listener_destroy);
	l->right = right_watch(l, r->gw,
	    &(struct right_of){ .look = a->look,
		.key = a->key,
		.ip = r->ip,
		.team = a->team,
		.perm = r->route->may,
		.news = news,
		.also = PERM_capsules_view },
	    told, l);
	right_look(l->right);
	feed_wake(f);
	return l;
}

/* ---- a subscription begins */

struct sub *
sub_new(struct listener *l, const struct topic *t, size_t n)
{
	struct sub *s = talloc_zero(l, struct sub);

	if (!s)
		abort();
	*s = (struct sub){ .l = l, .n = n, .next = l->subs, .at = &l->subs };
	s->topic = talloc_memdup(s, t, n * sizeof *t);
	for (size_t i = 0; i < n; i++)
		s->topic[i].name = talloc_strdup(s, t[i].name);
	if (s->next)
		s->next->at = &s->next;
	l->subs = s;
	l->topics += n;
	talloc_set_destructor(s, sub_destroy);
	return s;
}

static void
capsule_told(void *arg, enum err_code code, const char *state)
{
	struct hold *h = arg;
	struct sub *s = h->sub;

	(void)state;
	if (s->l->over || (code == E_DB && h->answered))
		return;
	if (code != E_OK) {
		refuse(s,
		    code == E_DB                             ? E_UNAVAILABLE
			: h->answered && code != E_NOT_FOUND ? E_FORBIDDEN
							     : E_NOT_FOUND);
		return;
	}
	h->answered = true;
	if (s->state == SUB_ASKED && !s->page)
		page_ask(s, true);
}

/* A capsule of the caller's team that he can see; asked once, then every 5 s. */
static void
hold_capsule(struct sub *s, const struct topic *t)
{
	struct request *r = s->l->r;
	struct hold *h = talloc_zero(s, struct hold);
	struct access *a = talloc_zero(s, struct access);

	if (!h || !a)
		abort();
	h->sub = s;
	a->team = r->access->team;
	a->capsule = t->id;
	s->right = right_watch(s, r->gw,
	    &(struct right_of){ .look = r->access->look,
		.key = r->access->key,
		.ip = r->ip,
		.access = a,
		.perm = PERM_capsules_view,
		.any_state = true },
	    capsule_told, h);
	right_look(s->right);
}

void
sub_start(struct sub *s)
{
	for (size_t i = 0; i < s->n; i++)
		if (s->topic[i].kind == TOPIC_CAPSULE) {
			hold_capsule(s, &s->topic[i]);
			return; /* one is enough: of the others nothing is shown that may not be
			           seen */
		}
	page_ask(s, true);
}

/* ---- pages; in a thread */

static const struct uuid *
if_set(bool set, const struct uuid *id)
{
	return set ? id : NULL;
}

/* A job's progress is for who asked for it, and for those who run the team. */
static bool
job_hidden(struct page *p)
{
	struct q_live_job *job = NULL;
	int n = q_live_job_get(p->work.db, &job, .id = &p->job, .team = &p->who.team);

	return n != 1 ||
	    (!p->runs_team && (!job->actor_id || strcmp(job->actor_id, p->who.user_id) != 0));
}

static int
begin_at(struct page *p, const char *job)
{
	struct q_live_since *since = NULL;
	int n = 0;

	p->after = p->head;
	if (!p->has_since)
		return 0;
	n = q_live_since_get(p->work.db, &since, .id = &p->since,
	    .team = if_set(p->who.has_team, &p->who.team),
	    .user = if_set(p->who.has_user && !p->who.by_key, &p->who.user), .head = p->head,
	    .capsule = if_set(p->of_capsule, &p->capsule), .job = job);
	if (n < 0)
		return -1;
	if (n == 0 || since->gpos == NULL_INT)
		p->gap = "unknown";
	else if (since->more > REPLAY_MAX)
		p->gap = "too_many";
	else
		p->after = since->gpos;
	return 0;
}

static int
look_up(struct page *p)
{
	struct q_live_event *rows = NULL;
	struct q_live_head *head = NULL;
	const char *job = p->of_job ? id_text(p, "job-", &p->job) : NULL;

	if (q_live_head_get(p->work.db, &head) != 1)
		return -1;
	p->head = head->gpos;
	if (p->first && p->of_job && job_hidden(p)) {
		p->code = E_NOT_FOUND;
		return p->work.err.code == E_OK ? 0 : -1;
	}
	if (p->first && begin_at(p, job) < 0)
		return -1;
	if (p->after >= p->head)
		return 0;
	p->n = q_live_replay(p->work.db, &rows, .after = p->after, .head = p->head,
	    .team = if_set(p->who.has_team, &p->who.team),
	    .user = if_set(p->who.has_user && !p->who.by_key, &p->who.user),
	    .capsule = if_set(p->of_capsule, &p->capsule), .job = job, .limit = PAGE);
	if (p->n < 0)
		return -1;
	p->list = happenings(p, rows, p->n);
	return 0;
}

static void
in_thread(uv_work_t *req)
{
	struct page *p = req->data;
	struct reader *k = reader_take(p->gw);
	int rc = -1;

	for (int tries = 0; rc < 0 && tries < 2; tries++) {
		p->work.err = (struct err){ 0 };
		p->work.db = reader_db(k);
		p->code = E_OK;
		if (db_unit(p->work.db, p, &p->work.err) == 0)
			rc = look_up(p);
		db_unit_end(p->work.db);
	}
	if (rc < 0)
		p->code = E_DB;
	reader_return(k);
}

/* ---- pages; on the loop */

static void
caught_up(struct sub *s)
{
	struct feed *f = s->l->r->gw->feed;

	if (s->state != SUB_BEHIND || s->page || s->l->over || f->pos < 0)
		return;
	if (f->pos <= s->pos)
		s->state = SUB_LIVE;
	else
		page_ask(s, false);
}

/* Its topics that show the event; false: the listener is over. */
static bool
show(struct sub *s, const struct happening *h)
{
	struct listener *l = s->l;

	if (h->kind && filter_shows(s->filters, h->type))
		for (size_t i = 0; i < s->n; i++)
			if (topic_shows(&s->topic[i], &l->who, h)) {
				l->kind->event(l, s, &s->topic[i], h);
				break;
			}
	s->pos = h->gpos;
	return !l->over;
}

static void
page_show(struct sub *s)
{
	struct page *p = s->page;
	struct listener *l = s->l;

	for (; s->shown < (size_t)p->n; s->shown++) {
		if (l->kind->queued(l) > PAGE_HIGH)
			return; /* subs_room() goes on */
		if (!show(s, &p->list[s->shown]))
			return;
	}
	if (p->n < PAGE)
		s->pos = p->head;
	s->page = NULL;
	talloc_free(p);
	caught_up(s);
}

static void
after_thread(uv_work_t *req, int status)
{
	struct page *p = req->data;
	struct sub *s = p->sub;

	(void)status;
	p->here = true;
	if (!s || s->l->over) {
		if (s)
			s->page = NULL;
		talloc_free(p);
		return;
	}
	if (p->code != E_OK && (p->first || p->code != E_DB)) {
		enum err_code code = p->code == E_DB ? E_UNAVAILABLE : p->code;

		if (p->code == E_DB)
			log_warn(NULL, "live events: %s", p->work.err.text);
		s->page = NULL;
		talloc_free(p);
		refuse(s, code);
		return;
	}
	if (p->code != E_OK) { /* the feed's next turn tries again */
		s->page = NULL;
		talloc_free(p);
		return;
	}
	if (p->first) {
		s->pos = p->after;
		s->state = SUB_BEHIND;
		s->shown = 0;
		s->held = true;
		s->gap = p->gap;
		s->l->kind->begun(s);
		return;
	}
	s->shown = 0;
	page_show(s);
}

void
sub_go(struct sub *s)
{
	if (!s->held || s->l->over)
		return;
	s->held = false;
	live_look(s);
	if (s->gap)
		s->l->kind->gap(s, s->gap);
	if (!s->l->over)
		page_show(s);
}

static void
page_ask(struct sub *s, bool first)
{
	struct page *p = talloc_zero(NULL, struct page);
	const struct topic *t = &s->topic[0];
	const struct viewer *v = &s->l->who;

	if (!p)
		abort();
	*p = (struct page){ .gw = s->l->r->gw,
		.sub = s,
		.who = *v,
		.first = first,
		.has_since = s->has_since,
		.since = s->since,
		.of_capsule = s->n == 1 && t->kind == TOPIC_CAPSULE,
		.of_job = s->n == 1 && t->kind == TOPIC_JOB,
		.capsule = t->id,
		.job = t->id,
		.after = s->pos,
		.runs_team = !v->by_key &&
		    (strcmp(v->now.role, "owner") == 0 || strcmp(v->now.role, "admin") == 0),
		.req.data = p };
	s->page = p;
	uv_queue_work(p->gw->loop, &p->req, in_thread, after_thread);
}

/* ---- the feed, and room */

void
subs_show(struct listener *l, const struct happening *h)
{
	struct sub *next = NULL;

	for (struct sub *s = l->subs; s; s = next) {
		next = s->next;
		if (s->state != SUB_LIVE || h->gpos <= s->pos)
			continue;
		if (!show(s, h))
			return;
		if (l->kind->queued(l) > WAITING_MAX) {
			listener_end(
			    l, WS_SLOW, "the reader is too slow: come back with since", E_RATE);
			return;
		}
	}
}

void
subs_caught_up(struct listener *l)
{
	struct sub *next = NULL;

	for (struct sub *s = l->subs; s && !l->over; s = next) {
		next = s->next;
		caught_up(s);
	}
}

void
subs_room(struct listener *l)
{
	struct sub *next = NULL;

	for (struct sub *s = l->subs; s && !l->over; s = next) {
		next = s->next;
		if (s->page && s->page->here && !s->held && s->state == SUB_BEHIND)
			page_show(s);
	}
}
