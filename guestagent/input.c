/* input.c - what callers write to a process's standard input or terminal. See process.h. */
#include "process.h"

#include "cleanup.h"
#include "rpc.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>

enum { QUEUE_MAX = 16 * 1024 * 1024 };

/* A call that is answered when its bytes were taken. */
struct waiter {
	struct process *process;
	struct call *call;
	uint64_t upto; /* in bytes ever taken */
	struct waiter *next;
};

size_t
input_queued(const struct process *p)
{
	return p->input.len - p->input_at;
}

/* n bytes were written; the memory goes in halves, not with every write. */
static void
took(struct process *p, size_t n)
{
	p->input_at += n;
	p->input_taken += n;
	if (p->input_at < p->input.len / 2)
		return;
	buf_cut(&p->input, p->input_at);
	p->input_at = 0;
}

static void
waiter_free(struct waiter *w)
{
	struct waiter **at = &w->process->waiters;

	while (*at != w)
		at = &(*at)->next;
	*at = w->next;
	w->call->on_gone = NULL;
	w->call->state = NULL;
	talloc_free(w);
}

static void
waiter_gone(struct call *c)
{
	waiter_free(c->state);
}

/* Answers those whose bytes are taken; with an error, all. */
static void
answer(struct process *p, const char *error)
{
	struct waiter *next = NULL;
	struct buf none = { 0 };

	for (struct waiter *w = p->waiters; w; w = next) {
		struct call *c = w->call;

		next = w->next;
		if (!error && w->upto > p->input_taken)
			continue;
		waiter_free(w);
		if (error) {
			(void)err_set(&c->err, E_SYSTEM, "%s", error);
			rpc_fail(c);
		} else {
			rpc_reply(c, &none);
		}
	}
}

void
input_close(struct process *p)
{
	watch_stop(&p->in);
	cleanup_fd(&p->in.fd);
	p->in.fd = -1;
	buf_clear(&p->input);
	p->input_at = 0;
	answer(p, "the process's standard input is closed");
}

void
input_ready(void *arg, uint32_t events)
{
	struct process *p = arg;
	ssize_t n = 0;

	(void)events;
	while (input_queued(p)) {
		n = write(p->in.fd, p->input.data + p->input_at, input_queued(p));
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno == EAGAIN)
			break;
		if (n <= 0) {
			input_close(p);
			return;
		}
		took(p, (size_t)n);
	}
	if (input_queued(p) == 0 && p->input_ends) {
		/* First the answers: taken is taken. */
		answer(p, NULL);
		input_close(p);
		return;
	}
	watch_set(&p->in, input_queued(p) ? EPOLLOUT : 0);
	answer(p, NULL);
}

int
input_add(struct process *p, struct call *c, const void *data, size_t n, struct err *e)
{
	struct waiter *w = NULL;

	if (p->in.fd < 0 || p->input_ends)
		return err_set(e, E_SYSTEM, "the process's standard input is closed");
	if (input_queued(p) && input_queued(p) + n > QUEUE_MAX)
		return err_set(e, E_TOO_LARGE, "too much input is waiting");
	w = talloc_zero(c, struct waiter);
	if (!w)
		abort();
	buf_add(&p->input, data, n);
	*w = (struct waiter){ p, c, p->input_taken + input_queued(p), p->waiters };
	p->waiters = w;
	c->state = w;
	c->on_gone = waiter_gone;
	input_ready(p, 0);
	return 0;
}

void
input_end(struct process *p)
{
	p->input_ends = true;
	if (p->in.fd >= 0)
		input_ready(p, 0);
}
