/* input.c - what callers write to a process's standard input or terminal. See process.h. */
#include "process.h"

#include "cleanup.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>

enum { QUEUE_MAX = 16 * 1024 * 1024 };

/* A call that waits until its bytes were taken; goes with the call. */
struct waiter {
	struct process *process;
	struct call *call;
	uint64_t upto; /* in bytes ever taken */
	call_fn *done;
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

static int
waiter_unlink(struct waiter *w)
{
	struct waiter **at = &w->process->waiters;

	while (*at != w)
		at = &(*at)->next;
	*at = w->next;
	return 0;
}

/* Tells those whose bytes are taken; with an error, all. */
static void
answer(struct process *p, const char *error)
{
	struct waiter *w = p->waiters;

	while (w) {
		struct call *c = w->call;
		call_fn *done = w->done;

		if (!error && w->upto > p->input_taken) {
			w = w->next;
			continue;
		}
		talloc_free(w);
		if (error)
			(void)err_set(&c->err, E_SYSTEM, "%s", error);
		done(c);
		w = p->waiters; /* done() may have added one */
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
input_add(struct process *p, struct call *c, const void *data, size_t n, call_fn *done)
{
	struct waiter *w = NULL;

	if (p->in.fd < 0 || p->input_ends)
		return err_set(&c->err, E_SYSTEM, "the process's standard input is closed");
	if (input_queued(p) && input_queued(p) + n > QUEUE_MAX)
		return err_set(&c->err, E_TOO_LARGE, "too much input is waiting");
	w = talloc_zero(c, struct waiter);
	if (!w)
		abort();
	buf_add(&p->input, data, n);
	*w = (struct waiter){ p, c, p->input_taken + input_queued(p), done, p->waiters };
	talloc_set_destructor(w, waiter_unlink);
	p->waiters = w;
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
