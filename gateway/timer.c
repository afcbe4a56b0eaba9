/* timer.c - see timer.h. libuv closes handles one turn later than talloc frees: the handle is its
 * own. */
#include "timer.h"

#include <stdlib.h>
#include <talloc.h>

struct handle {
	uv_timer_t uv;
	struct timer *owner; /* NULL when freed */
};

struct timer {
	struct handle *h;
	void (*fn)(void *);
	void *arg;
};

static void
on_closed(uv_handle_t *h)
{
	free(h);
}

static int
timer_destroy(struct timer *t)
{
	t->h->owner = NULL;
	uv_close((uv_handle_t *)&t->h->uv, on_closed);
	return 0;
}

static void
on_timer(uv_timer_t *uv)
{
	struct timer *t = ((struct handle *)uv)->owner;

	if (t)
		t->fn(t->arg);
}

struct timer *
timer_start(void *mem, uv_loop_t *loop, uint64_t ms, uint64_t again, void (*fn)(void *), void *arg)
{
	struct timer *t = talloc_zero(mem, struct timer);
	struct handle *h = calloc(1, sizeof *h);

	if (!t || !h)
		abort();
	*t = (struct timer){ .h = h, .fn = fn, .arg = arg };
	h->owner = t;
	uv_timer_init(loop, &h->uv);
	uv_timer_start(&h->uv, on_timer, ms, again);
	talloc_set_destructor(t, timer_destroy);
	return t;
}
