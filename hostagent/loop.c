/* loop.c - see loop.h. */
#include "loop.h"

#include <stdlib.h>
#include <talloc.h>
#include <time.h>

struct timer {
	uv_timer_t *uv;
	void (*cb)(void *);
	void *arg;
};

struct watch {
	uv_poll_t *uv;
	void (*cb)(void *, int);
	void *arg;
};

struct unit {
	uv_work_t uv;
	void (*work)(void *), (*done)(void *);
	void *arg;
};

static void
on_closed(uv_handle_t *h)
{
	free(h);
}

static void
on_timer(uv_timer_t *uv)
{
	struct timer *t = uv->data;

	t->cb(t->arg);
}

static int
timer_free(struct timer *t)
{
	uv_close((uv_handle_t *)t->uv, on_closed);
	return 0;
}

static void *
need(size_t size)
{
	void *p = calloc(1, size);

	if (!p)
		abort();
	return p;
}

struct timer *
timer_new(void *mem, uv_loop_t *loop, uint64_t ms, uint64_t repeat, void (*cb)(void *), void *arg)
{
	struct timer *t = talloc_zero(mem, struct timer);

	t->uv = need(sizeof *t->uv);
	t->uv->data = t;
	t->cb = cb;
	t->arg = arg;
	(void)uv_timer_init(loop, t->uv);
	uv_update_time(loop);
	(void)uv_timer_start(t->uv, on_timer, ms, repeat);
	talloc_set_destructor(t, timer_free);
	return t;
}

void
timer_again(struct timer *t, uint64_t ms)
{
	(void)uv_timer_start(t->uv, on_timer, ms, uv_timer_get_repeat(t->uv));
}

static void
on_poll(uv_poll_t *uv, int status, int events)
{
	struct watch *w = uv->data;

	w->cb(w->arg, status < 0 ? UV_READABLE : events);
}

static int
watch_free(struct watch *w)
{
	uv_close((uv_handle_t *)w->uv, on_closed);
	return 0;
}

struct watch *
watch_new(void *mem, uv_loop_t *loop, int fd, int events, void (*cb)(void *, int), void *arg)
{
	struct watch *w = talloc_zero(mem, struct watch);

	w->uv = need(sizeof *w->uv);
	w->uv->data = w;
	w->cb = cb;
	w->arg = arg;
	if (uv_poll_init(loop, w->uv, fd) < 0)
		abort();
	(void)uv_poll_start(w->uv, events, on_poll);
	talloc_set_destructor(w, watch_free);
	return w;
}

void
watch_events(struct watch *w, int events)
{
	(void)uv_poll_start(w->uv, events, on_poll);
}

static int units;

int
background_open(void)
{
	return units;
}

static void
on_work(uv_work_t *uv)
{
	struct unit *u = uv->data;

	u->work(u->arg);
}

static void
on_work_done(uv_work_t *uv, int status)
{
	struct unit *u = uv->data;

	(void)status;
	units--;
	u->done(u->arg);
	free(u);
}

void
background(uv_loop_t *loop, void (*work)(void *), void (*done)(void *), void *arg)
{
	struct unit *u = need(sizeof *u);

	units++;
	u->uv.data = u;
	u->work = work;
	u->done = done;
	u->arg = arg;
	(void)uv_queue_work(loop, &u->uv, on_work, on_work_done);
}

static int64_t
milliseconds(clockid_t id)
{
	struct timespec t;

	clock_gettime(id, &t);
	return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

int64_t
now_mono(void)
{
	return milliseconds(CLOCK_MONOTONIC);
}

int64_t
now_real(void)
{
	return milliseconds(CLOCK_REALTIME);
}
