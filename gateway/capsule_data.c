/* capsule_data.c - see capsule_data.h. */
#include "capsule_data.h"
#include "access.h"
#include "db.h"
#include "gateway.h"

#include <talloc.h>
#include <uv.h>

/* In the thread nobody else touches it; the request may end before it does. */
struct fetch {
	struct work work;
	uv_work_t req;
	struct doorman *doorman;
	struct request *r; /* NULL: the client has left */
	struct uuid team, capsule;
	const char *tier;
	int64_t seconds;
	struct q_metric_point *point;
	int n;
	points_done *done;
};

/* The request's hold on it. */
struct tie {
	struct fetch *fetch;
};

static int
tie_free(struct tie *t)
{
	if (t->fetch)
		t->fetch->r = NULL;
	return 0;
}

static int
fetch(struct fetch *f, struct db *db)
{
	struct q_metric_tenant *tenant;

	db_begin(db);
	if (q_metrics_tenant(db, &tenant, .team = &f->team) < 0)
		return -1;
	f->n = q_metrics_read(db, &f->point, .team = &f->team, .capsule = &f->capsule,
	    .tier = f->tier, .seconds = f->seconds);
	return f->n < 0 ? -1 : db_commit(db);
}

static void
in_thread(uv_work_t *req)
{
	struct fetch *f = req->data;
	struct desk *k = desk_take(f->doorman);

	f->n = -1;
	if (!k) {
		(void)err_set(&f->work.err, E_DB, "no database connection is free");
		return;
	}
	f->work.db = desk_db(k);
	if (db_unit(f->work.db, f, &f->work.err) < 0 || fetch(f, f->work.db) < 0)
		f->n = -1;
	db_unit_end(f->work.db);
	desk_return(f->doorman, k);
}

static void
after_thread(uv_work_t *req, int status)
{
	struct fetch *f = req->data;

	if (status < 0)
		(void)err_set(&f->work.err, E_UNAVAILABLE, "the process is ending");
	if (f->r)
		f->done(f->r, f->point, status < 0 ? -1 : f->n, &f->work.err);
	talloc_free(f); /* the tie learns of it first */
}

static int
fetch_free(struct fetch *f)
{
	if (f->r && f->r->look) {
		((struct tie *)f->r->look)->fetch = NULL;
		TALLOC_FREE(f->r->look);
	}
	return 0;
}

void
points_fetch(struct request *r, const char *tier, int64_t seconds, points_done *done)
{
	/* a root of its own: threads must not share a tree */
	struct fetch *f = talloc_zero(NULL, struct fetch);
	struct tie *t = talloc_zero(r, struct tie);

	if (!f || !t)
		abort();
	*f = (struct fetch){ .doorman = r->gw->doorman,
		.r = r,
		.team = r->access->team,
		.capsule = r->access->capsule,
		.tier = tier,
		.seconds = seconds,
		.done = done,
		.req.data = f };
	t->fetch = f;
	r->look = t;
	talloc_set_destructor(t, tie_free);
	talloc_set_destructor(f, fetch_free);
	uv_queue_work(r->gw->loop, &f->req, in_thread, after_thread);
}
