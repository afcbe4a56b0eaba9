/* flow.c - see flow.h. */
#include "flow.h"
#include "loop.h"

#include <stdbool.h>
#include <talloc.h>

struct flow {
	uv_loop_t *loop;
	const struct step *step; /* the one that runs */
	void *user;
	void (*done)(void *, const struct err *);
	struct timer *kick;     /* runs the next step from the loop: no recursion, no dead frames */
	struct timer *deadline; /* NULL: none */
	bool ended;
};

static void
run(void *arg)
{
	struct flow *f = arg;

	TALLOC_FREE(f->kick);
	if (f->step->run) {
		f->step->run(f->user);
		return;
	}
	f->ended = true;
	TALLOC_FREE(f->deadline);
	f->done(f->user, NULL);
}

static void
on_deadline(void *arg)
{
	struct flow *f = arg;
	struct err e = { 0 };

	(void)err_set(&e, E_TIMEOUT, "%s took too long", f->step->name ? f->step->name : "the end");
	flow_fail(f, &e);
}

struct flow *
flow_new(void *mem, uv_loop_t *loop, const struct step *steps, void *user,
    void (*done)(void *, const struct err *))
{
	struct flow *f = talloc_zero(mem, struct flow);

	f->loop = loop;
	f->step = steps;
	f->user = user;
	f->done = done;
	f->kick = timer_new(f, loop, 0, 0, run, f);
	return f;
}

void
flow_next(struct flow *f)
{
	if (!f || f->ended || f->kick)
		return;
	f->step++;
	f->kick = timer_new(f, f->loop, 0, 0, run, f);
}

void
flow_fail(struct flow *f, const struct err *e)
{
	struct err copy = *e;

	if (!f || f->ended)
		return;
	f->ended = true;
	TALLOC_FREE(f->deadline);
	TALLOC_FREE(f->kick);
	f->done(f->user, &copy);
}

void
flow_deadline(struct flow *f, uint64_t ms)
{
	TALLOC_FREE(f->deadline);
	if (ms)
		f->deadline = timer_new(f, f->loop, ms, 0, on_deadline, f);
}
