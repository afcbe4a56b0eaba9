/* rights.c - see rights.h. */
#include "rights.h"

#include "buf.h"
#include "gateway.h"
#include "streams.q.h"
#include "timer.h"

#include <inttypes.h>
#include <string.h>
#include <talloc.h>

enum { EVERY_MS = 5000 };

struct right {
	struct gateway *gw;
	struct right_of of;
	right_told *told;
	void *arg;
	struct right *next, **at; /* in gw->rights */
	struct item *item;        /* of the question under way, or NULL */
};

struct rights {
	struct right *first;
	struct timer *timer;
	bool asking; /* about all */
};

/* A right in a question; the thread sees nothing else. */
struct item {
	struct right *right; /* NULL: gone meanwhile */
	struct right_of of;
	struct uuid capsule;
	int64_t epoch;
	enum err_code code;
	char state[24];
	struct right_news news;
};

struct question {
	struct work work;
	uv_work_t req;
	struct gateway *gw;
	struct item *item;
	size_t n;
	bool all;
};

/* ---- in a thread */

static void
put_uuid(struct buf *b, const char *name, const struct uuid *id)
{
	char text[37];

	if (b->data[b->len - 1] != '{')
		buf_chr(b, ',');
	uuid_write(text, id);
	buf_fmt(b, "\"%s\":\"%s\"", name, text);
}

static const char *
asked(struct question *q)
{
	struct buf b = BUF(q);

	buf_chr(&b, '[');
	for (size_t i = 0; i < q->n; i++) {
		const struct item *it = &q->item[i];
		bool key = it->of.look.type == CALLER_KEY;

		buf_str(&b, i ? ",{" : "{");
		put_uuid(&b, "team", &it->of.team);
		put_uuid(&b, "user", &it->of.look.claims.sub);
		put_uuid(&b, key ? "key" : "session", key ? &it->of.key : &it->of.look.claims.sid);
		if (it->of.access)
			put_uuid(&b, "capsule", &it->capsule);
		if (it->of.ip)
			buf_fmt(&b, ",\"ip\":\"%s\"", it->of.ip);
		buf_chr(&b, '}');
	}
	buf_chr(&b, ']');
	return b.data;
}

/* A private capsule is there for its owner and for those who run the team, as in access.c. */
static bool
visible(const struct q_stream_right *row, const struct principal *p)
{
	return access_visible(row->visibility, row->owner_id, p);
}

static enum err_code
judge(struct question *q, struct item *it, const struct q_stream_right *row)
{
	struct principal p;
	enum allowed may = ALLOW_NO;
	struct err e = { 0 };

	if (principal_of_stream(&q->work, row, &it->of.look, &p) < 0)
		return E_UNAUTHORIZED;
	if (principal_gate(&p, it->of.perm, 0, q->gw->conf->auth_require_mfa, &e) < 0)
		return E_FORBIDDEN;
	snprintf(it->news.role, sizeof it->news.role, "%s", p.role ? p.role : "");
	snprintf(it->news.platform_role, sizeof it->news.platform_role, "%s",
	    p.platform_role ? p.platform_role : "");
	it->news.also = principal_allowed(&p, it->of.also, &(struct err){ 0 }) != ALLOW_NO;
	may = principal_allowed(&p, it->of.perm, &e);
	if (may == ALLOW_NO)
		return E_FORBIDDEN;
	if (!it->of.access)
		return E_OK;
	if (!row->capsule_state)
		return E_NOT_FOUND;
	if (!visible(row, &p) ||
	    (may == ALLOW_OWN && !(p.user && row->owner_id && uuid_equal(p.user, row->owner_id))))
		return E_FORBIDDEN;
	snprintf(it->state, sizeof it->state, "%s", row->capsule_state);
	if (it->of.any_state)
		return E_OK;
	if (strcmp(row->capsule_state, "missing") == 0)
		return E_HOST_UNAVAILABLE;
	return strcmp(row->capsule_state, "running") == 0 && row->epoch == it->epoch ? E_OK
										     : E_BAD_STATE;
}

static void
in_thread(uv_work_t *req)
{
	struct question *q = req->data;
	struct desk *k = desk_take(q->gw->doorman);
	struct q_stream_right *row = NULL;
	int n = -1;

	if (!k)
		return;
	for (int tries = 0; n < 0 && tries < 2; tries++) {
		q->work.err = (struct err){ 0 };
		q->work.db = desk_db(k);
		if (db_unit(desk_db(k), q, &q->work.err) == 0)
			n = q_stream_check(desk_db(k), &row, .asked = asked(q));
		for (int i = 0; i < n; i++)
			if (row[i].n >= 0 && (size_t)row[i].n < q->n)
				q->item[row[i].n].code = judge(q, &q->item[row[i].n], &row[i]);
		db_unit_end(desk_db(k));
	}
	desk_return(q->gw->doorman, k);
}

/* ---- on the loop */

static void
after_thread(uv_work_t *req, int status)
{
	struct question *q = req->data;

	(void)status;
	for (size_t i = 0; i < q->n; i++) {
		struct item *it = &q->item[i];
		struct right *right = it->right;

		if (!right)
			continue;
		right->item = NULL;
		if (it->code == E_OK && right->of.news)
			right->of.news(right->arg, &it->news);
		if (!it->right)
			continue; /* the news ended it */
		if (!q->all || (it->code != E_OK && it->code != E_DB))
			right->told(right->arg, it->code, *it->state ? it->state : NULL);
	}
	if (q->all)
		q->gw->rights->asking = false;
	talloc_free(q);
}

static void
put_item(struct question *q, struct right *right)
{
	struct item *it = &q->item[q->n++];

	*it = (struct item){ .right = right, .of = right->of, .code = E_DB };
	it->of.ip = right->of.ip ? talloc_strdup(q, right->of.ip) : NULL;
	if (right->of.access) {
		it->capsule = right->of.access->capsule;
		it->epoch = right->of.access->epoch;
		it->of.team = right->of.access->team;
	}
	right->item = it;
}

static void
ask(struct gateway *gw, struct right *one)
{
	struct question *q = talloc_zero(NULL, struct question);
	size_t n = one ? 1 : 0;

	for (struct right *r = gw->rights->first; !one && r; r = r->next)
		n += !r->item;
	if (!q)
		abort();
	*q = (struct question){ .gw = gw, .all = !one, .req.data = q };
	q->item = talloc_zero_array(q, struct item, n + 1);
	if (!q->item)
		abort();
	if (one)
		put_item(q, one);
	for (struct right *r = gw->rights->first; !one && r; r = r->next)
		if (!r->item)
			put_item(q, r);
	gw->rights->asking = gw->rights->asking || !one;
	uv_queue_work(gw->loop, &q->req, in_thread, after_thread);
}

static void
on_tick(void *arg)
{
	struct gateway *gw = arg;

	if (!gw->rights->asking)
		ask(gw, NULL);
}

static int
right_destroy(struct right *r)
{
	struct rights *all = r->gw->rights;

	if (r->item)
		r->item->right = NULL;
	*r->at = r->next;
	if (r->next)
		r->next->at = r->at;
	if (!all->first)
		TALLOC_FREE(all->timer);
	return 0;
}

struct right *
right_watch(void *mem, struct gateway *gw, const struct right_of *of, right_told *told, void *arg)
{
	struct right *r = talloc_zero(mem, struct right);

	if (!gw->rights)
		gw->rights = talloc_zero(NULL, struct rights);
	if (!r || !gw->rights)
		abort();
	*r = (struct right){ .gw = gw, .of = *of, .told = told, .arg = arg };
	r->next = gw->rights->first;
	r->at = &gw->rights->first;
	if (r->next)
		r->next->at = &r->next;
	gw->rights->first = r;
	talloc_set_destructor(r, right_destroy);
	if (!gw->rights->timer)
		gw->rights->timer =
		    timer_start(gw->rights, gw->loop, EVERY_MS, EVERY_MS, on_tick, gw);
	return r;
}

void
right_look(struct right *r)
{
	if (r->item)
		r->item->right = NULL; /* the answer on its way may be too old */
	ask(r->gw, r);
}
