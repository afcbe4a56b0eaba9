/*
 * capsules_do.c - an operation on a capsule: its job is added in the transaction and done behind
 * the commit by this process, which hands it to a worker when time is up (spec 02 §1.4).
 */
#include "capsules.h"
#include "cleanup.h"
#include "crash.h"

#include <string.h>
#include <time.h>

int32_t
wait_or(int32_t asked, int32_t usual)
{
	return asked < 0 ? usual : asked;
}

const char *
capsule_worker(const struct request *r)
{
	return r->route->pool == POOL_OPS ? r->app->pool : NULL;
}

int64_t
capsule_clock(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

static bool
listed(const char *word, const char *list)
{
	size_t n = strlen(word);
	const char *p;

	for (p = list; (p = strstr(p, word)) != NULL; p += n)
		if ((p == list || p[-1] == ' ') && (p[n] == ' ' || p[n] == '\0'))
			return true;
	return false;
}

int
capsule_look_on(struct request *r, const struct doing *d, int64_t until)
{
	static const struct timespec pause = { 0, 50000000 };
	struct q_capsule *row;

	for (;;) {
		if (q_capsule_get(r->work.db, &row, .id = &d->id) <= 0)
			return -1;
		if (listed(row->state, d->until) || capsule_clock() >= until)
			return 0;
		nanosleep(&pause, NULL);
	}
}

/* 0: it is done, or others go on with it. -1: it failed for good, and the row says so. */
static int
do_it(struct request *r, struct doing *d, int64_t wait_ms)
{
	struct op_env env = { r->app->conf, r->app->keys, r->app->queue };
	struct err cause;
	struct job_ending end = { .how = JOB_FAILED };

	if (capsule_op_of(d->kind)(&r->work, &env, &d->job, &d->args, wait_ms) == 0) {
		(void)job_end_claimed(&r->work, r->app->queue, &d->job, NULL);
		r->work.err = (struct err){ 0 };
		return 0;
	}
	cause = r->work.err;
	db_rollback(r->work.db);
	r->work.err = (struct err){ 0 };
	switch (cause.code) {
	case E_FENCED:
		return 0;
	case E_TIMEOUT:
	case E_HOST_UNAVAILABLE:
	case E_OVERLOADED:
	case E_DB:
	case E_NO_HOSTS: /* it waits as pending */
		(void)job_hand_back(&r->work, r->app->queue, &d->job);
		r->work.err = (struct err){ 0 }; /* otherwise the lease ends by itself */
		return 0;
	default:
		end.error_code = err_kinds[cause.code].slug;
		end.error_text = err_public(&cause);
		(void)job_finish(&r->work, r->app->queue, &d->job, &end);
		r->work.err = cause;
		return -1;
	}
}

static int
the_capsule(struct request *r)
{
	struct doing *d = r->after_arg;
	struct q_capsule *row;
	struct capsule c;
	int n = q_capsule_get(r->work.db, &row, .id = &d->id);

	if (n <= 0)
		return reply_row(r, n, NULL);
	capsule_complete(r, row, &c);
	if (reply_row(r, 1, &c) < 0)
		return -1;
	if (d->later && !listed(row->state, d->until))
		r->status = d->later;
	return 0;
}

static int
behind_commit(struct request *r)
{
	struct doing *d = r->after_arg;
	int64_t wait_ms = (int64_t)d->wait_sec * 1000;
	int rc = 0;

	if (strcmp(d->kind, "capsule.start") == 0)
		crash_point("create.1");
	else
		crash_point(strchr(talloc_asprintf(r, "%s.1", d->kind), '.') + 1);
	if (d->claimed)
		rc = do_it(r, d, wait_ms > 0 ? wait_ms : 1);
	else if (wait_ms > 0)
		rc = capsule_look_on(r, d, capsule_clock() + wait_ms);
	if (d->answer)
		return d->answer(r);
	return rc < 0 ? -1 : the_capsule(r);
}

int
capsule_begin(struct request *r, struct doing *d)
{
	struct job_ref job;
	bool claimed;

	if (capsule_job(&r->work, d->kind, d->team ? d->team : r->who.team, &d->args,
		capsule_worker(r), &job, &claimed) < 0)
		return -1;
	return capsule_continue(r, d, &job, claimed);
}

int
capsule_continue(struct request *r, struct doing *d, const struct job_ref *job, bool claimed)
{
	struct q_capsule *row;
	struct capsule c;

	d->job = *job;
	d->claimed = claimed;
	r->after = behind_commit;
	r->after_arg = d;
	if (r->route->out != capsule_fields)
		return 0; /* it answers with something else */
	if (q_capsule_get(r->work.db, &row, .id = &d->id) <= 0)
		return -1;
	capsule_complete(r, row, &c);
	return reply_row(r, 1, &c);
}
