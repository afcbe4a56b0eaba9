/* starts.c - see starts.h. */
#include "starts.h"
#include "vm.h"

enum {
	QUIET_MS = 150,     /* since the last create, before a refill begins */
	PATIENCE_MS = 2000, /* then a refill begins even between creates */
};

struct start {
	TAILQ_ENTRY(start) link;
	struct agent *agent;
	struct flow *flow;
	bool soon, goes;
	int64_t since;
};

struct starts {
	TAILQ_HEAD(, start) queue; /* those that go, too */
	size_t going[2], all;      /* refills, creates */
	int64_t busy_at;           /* now_mono() of the last create */
	struct timer *later;
};

static void starts_next(struct agent *);

static struct starts *
starts_of(struct agent *a)
{
	if (!a->starts) {
		a->starts = talloc_zero(a, struct starts);
		TAILQ_INIT(&a->starts->queue);
	}
	return a->starts;
}

static void
on_later(void *arg)
{
	struct agent *a = arg;

	TALLOC_FREE(a->starts->later);
	starts_next(a);
}

/* Milliseconds until this refill may begin; 0: now. */
static int64_t
patience(const struct starts *all, const struct start *s, size_t most)
{
	int64_t now = now_mono(), quiet = all->busy_at + QUIET_MS - now;
	int64_t end = s->since + PATIENCE_MS - now;

	if (all->going[true] || all->going[false] >= (most > 1 ? most - 1 : 1))
		return QUIET_MS;
	quiet = quiet < end ? quiet : end;
	return quiet > 0 ? quiet : 0;
}

static void
starts_next(struct agent *a)
{
	struct starts *all = a->starts;
	size_t most =
	    a->conf->agent_max_starts ? (size_t)a->conf->agent_max_starts : (size_t)a->cores;
	struct start *s, *best;
	int64_t wait;

	while (all->going[false] + all->going[true] < most) {
		best = NULL;
		TAILQ_FOREACH(s, &all->queue, link)
		if (!s->goes && (!best || (s->soon && !best->soon)))
			best = s;
		if (!best)
			return;
		wait = best->soon ? 0 : patience(all, best, most);
		if (wait > 0) {
			if (!all->later)
				all->later =
				    timer_new(all, a->loop, (uint64_t)wait, 0, on_later, a);
			return;
		}
		best->goes = true;
		all->going[best->soon]++;
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
		all->going[s->soon]--;
	starts_next(s->agent);
	return 0;
}

struct start *
start_wait(struct agent *a, void *mem, bool soon, struct flow *flow)
{
	struct starts *all = starts_of(a);
	struct start *s = talloc_zero(mem, struct start);

	s->agent = a;
	s->flow = flow;
	s->soon = soon;
	s->since = now_mono();
	if (soon)
		all->busy_at = s->since;
	TAILQ_INSERT_TAIL(&all->queue, s, link);
	all->all++;
	talloc_set_destructor(s, start_free);
	starts_next(a);
	return s;
}

void
starts_noticed(struct agent *a)
{
	starts_of(a)->busy_at = now_mono();
}

size_t
vm_starting(const struct agent *a)
{
	return a->starts ? a->starts->all : 0;
}
