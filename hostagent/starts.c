/* starts.c - see starts.h. */
#include "starts.h"
#include "vm.h"

struct start {
	TAILQ_ENTRY(start) link;
	struct agent *agent;
	struct flow *flow;
	bool soon, goes;
};

struct starts {
	TAILQ_HEAD(, start) queue; /* those that go, too */
	size_t going, all;
};

static void
starts_next(struct agent *a)
{
	size_t most =
	    a->conf->agent_max_starts ? (size_t)a->conf->agent_max_starts : (size_t)a->cores;
	struct start *s, *best;

	while (a->starts->going < most) {
		best = NULL;
		TAILQ_FOREACH(s, &a->starts->queue, link)
		if (!s->goes && (!best || (s->soon && !best->soon)))
			best = s;
		if (!best)
			return;
		best->goes = true;
		a->starts->going++;
		flow_next(best->flow);
	}
}

static int
start_free(struct start *s)
{
	struct starts *all = s->agent->starts;

	TAILQ_REMOVE(&all->queue, s, link);
	all->all--;
	if (s->goes)
		all->going--;
	starts_next(s->agent);
	return 0;
}

struct start *
start_wait(struct agent *a, void *mem, bool soon, struct flow *flow)
{
	struct start *s = talloc_zero(mem, struct start);

	if (!a->starts) {
		a->starts = talloc_zero(a, struct starts);
		TAILQ_INIT(&a->starts->queue);
	}
	s->agent = a;
	s->flow = flow;
	s->soon = soon;
	TAILQ_INSERT_TAIL(&a->starts->queue, s, link);
	a->starts->all++;
	talloc_set_destructor(s, start_free);
	starts_next(a);
	return s;
}

size_t
vm_starting(const struct agent *a)
{
	return a->starts ? a->starts->all : 0;
}
