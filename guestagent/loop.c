/* loop.c - see loop.h. */
#include "loop.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <time.h>

static int epoll_fd = -1;
static struct epoll_event ready[64];
static int nready;
static struct timer *timers; /* by due time */
static bool ended;

static int
loop_fd(void)
{
	if (epoll_fd < 0)
		epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	if (epoll_fd < 0)
		abort();
	return epoll_fd;
}

void
watch_set(struct watch *w, uint32_t events)
{
	struct epoll_event e = { .events = events, .data.ptr = w };

	if (w->events == events)
		return;
	if (events == 0) {
		watch_stop(w);
		return;
	}
	if (epoll_ctl(loop_fd(), w->events ? EPOLL_CTL_MOD : EPOLL_CTL_ADD, w->fd, &e) < 0)
		abort();
	w->events = events;
}

void
watch_stop(struct watch *w)
{
	if (w->events == 0)
		return;
	w->events = 0;
	(void)epoll_ctl(loop_fd(), EPOLL_CTL_DEL, w->fd, NULL);
	/* It may wait in the round that is being handled. */
	for (int i = 0; i < nready; i++)
		if (ready[i].data.ptr == w)
			ready[i].data.ptr = NULL;
}

void
timer_stop(struct timer *t)
{
	if (t->due == 0)
		return;
	*t->back = t->next;
	if (t->next)
		t->next->back = t->back;
	t->due = 0;
	t->next = NULL;
	t->back = NULL;
}

void
timer_set(struct timer *t, uint64_t ms)
{
	struct timer **at = &timers;

	timer_stop(t);
	t->due = loop_now() + ms;
	while (*at && (*at)->due <= t->due)
		at = &(*at)->next;
	t->next = *at;
	t->back = at;
	if (t->next)
		t->next->back = &t->next;
	*at = t;
}

uint64_t
loop_now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

static int
timers_run(void)
{
	uint64_t now = loop_now();

	while (timers && timers->due <= now) {
		struct timer *t = timers;

		timer_stop(t);
		t->fn(t->arg);
	}
	if (!timers)
		return -1;
	now = loop_now();
	if (timers->due <= now)
		return 0;
	return timers->due - now > 60000 ? 60000 : (int)(timers->due - now);
}

void
loop_run(void (*after)(void))
{
	while (!ended) {
		int wait = timers_run();

		after();
		nready = epoll_wait(loop_fd(), ready, sizeof ready / sizeof ready[0], wait);
		if (nready < 0 && errno != EINTR)
			abort();
		for (int i = 0; i < nready; i++) {
			struct watch *w = ready[i].data.ptr;

			if (w)
				w->fn(w->arg, ready[i].events);
		}
		nready = 0;
	}
	after();
}

void
loop_end(void)
{
	ended = true;
}
