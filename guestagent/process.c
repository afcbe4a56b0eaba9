/* process.c - see process.h. */
#include "process.h"

#include "cleanup.h"
#include "log.h"

#include <errno.h>
#include <fcntl.h>
#include <pty.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/wait.h>

enum {
	RING_MAX = 1024 * 1024,
	RING_PTY_MAX = 256 * 1024,
	LINGER_MS = 1000,
	KEEP_MS = 10 * 60 * 1000,
	ALIVE_MAX = 1024,
	ENDED_MAX = 256,
	ENDED_BYTES = 16 * 1024 * 1024,
};

struct process *process_list; /* newest first */

/* Both ends of what connects us with a child. */
struct ends {
	int ours[3], theirs[3]; /* in, out, err; -1: none */
	int report[2];
};

bool
process_alive(const struct process *p)
{
	return p->state == PROCESS_STARTING || p->state == PROCESS_RUNNING;
}

static void
ends_close(int *fd, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		cleanup_fd(&fd[i]);
		fd[i] = -1;
	}
}

static int
pipe_pair(int *read_end, int *write_end, struct err *e)
{
	int fd[2];

	if (pipe2(fd, O_CLOEXEC) < 0)
		return err_sys(e, "pipe");
	*read_end = fd[0];
	*write_end = fd[1];
	return 0;
}

static int
terminal_pair(const struct process_plan *plan, struct ends *x, struct err *e)
{
	struct winsize size = { .ws_col = plan->cols, .ws_row = plan->rows };
	int master = -1, slave = -1;

	if (openpty(&master, &slave, NULL, NULL, &size) < 0)
		return err_sys(e, "open a terminal");
	(void)fcntl(master, F_SETFD, FD_CLOEXEC);
	(void)fcntl(slave, F_SETFD, FD_CLOEXEC);
	x->ours[0] = master;
	x->ours[1] = fcntl(master, F_DUPFD_CLOEXEC, 3); /* epoll wants one descriptor per watch */
	x->theirs[0] = slave;
	x->theirs[1] = fcntl(slave, F_DUPFD_CLOEXEC, 3);
	x->theirs[2] = fcntl(slave, F_DUPFD_CLOEXEC, 3);
	if (geteuid() == 0)
		(void)fchown(slave, plan->user->uid, (gid_t)-1);
	return 0;
}

static int
ends_open(const struct process_plan *plan, struct ends *x, struct err *e)
{
	if (pipe_pair(&x->report[0], &x->report[1], e) < 0)
		return -1;
	if (plan->terminal) {
		if (terminal_pair(plan, x, e) < 0)
			return -1;
	} else {
		if (plan->no_stdin) {
			x->theirs[0] = open("/dev/null", O_RDONLY | O_CLOEXEC);
			if (x->theirs[0] < 0)
				return err_sys(e, "/dev/null");
		} else if (pipe_pair(&x->theirs[0], &x->ours[0], e) < 0) {
			return -1;
		}
		if (pipe_pair(&x->ours[1], &x->theirs[1], e) < 0 ||
		    pipe_pair(&x->ours[2], &x->theirs[2], e) < 0)
			return -1;
	}
	for (int i = 0; i < 3; i++)
		if (x->ours[i] >= 0)
			(void)fcntl(x->ours[i], F_SETFL, fcntl(x->ours[i], F_GETFL) | O_NONBLOCK);
	return 0;
}

static void
watch_close(struct watch *w)
{
	watch_stop(w);
	cleanup_fd(&w->fd);
	w->fd = -1;
}

static void
process_free(void *arg)
{
	struct process *p = arg;

	timer_stop(&p->linger);
	timer_stop(&p->deadline);
	timer_stop(&p->forget);
	readers_drop(p);
	input_close(p);
	watch_close(&p->report);
	watch_close(&p->out[0]);
	watch_close(&p->out[1]);
	*p->back = p->next;
	if (p->next)
		p->next->back = p->back;
	ring_forget(&p->ring);
	talloc_free(p);
}

/* Ended ones have limits in number and memory; the first to end are the first to go. */
static void
forget_surplus(void)
{
	for (;;) {
		struct process *oldest = NULL;
		size_t n = 0, bytes = 0;

		for (struct process *p = process_list; p; p = p->next) {
			if (p->state != PROCESS_ENDED || p->readers)
				continue;
			n++;
			bytes += p->ring.room;
			if (!oldest || p->ended <= oldest->ended)
				oldest = p;
		}
		if (n <= ENDED_MAX && bytes <= ENDED_BYTES)
			return;
		process_free(oldest);
	}
}

void
process_forget_ended(void)
{
	struct process *next = NULL;

	for (struct process *p = process_list; p; p = next) {
		next = p->next;
		if (p->state == PROCESS_ENDED)
			process_free(p);
	}
}

static void
process_end(struct process *p)
{
	p->state = PROCESS_ENDED;
	p->ended = loop_now();
	timer_stop(&p->linger);
	timer_stop(&p->deadline);
	watch_close(&p->out[0]);
	watch_close(&p->out[1]);
	input_close(p);
	readers_pump(p);
	timer_set(&p->forget, KEEP_MS);
	forget_surplus();
}

static void
end_if_drained(struct process *p)
{
	if (p->state == PROCESS_DEAD && p->out[0].fd < 0 && p->out[1].fd < 0)
		process_end(p);
}

/* One read; false: nothing there now, or the pipe is closed. */
static bool
output_read(struct process *p, struct watch *w)
{
	static char data[PROCESS_OUT];
	size_t max = p->terminal ? PROCESS_PTY_OUT : PROCESS_OUT;
	ssize_t n = read(w->fd, data, max);
	enum ring_kind kind = p->terminal ? RING_PTY : w == &p->out[0] ? RING_STDOUT : RING_STDERR;

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return false;
	if (n <= 0) { /* a terminal without slaves says EIO */
		watch_close(w);
		return false;
	}
	ring_add(p, &p->ring, kind, data, (size_t)n);
	return true;
}

static void
output_ready(struct process *p, struct watch *w)
{
	if (output_read(p, w))
		readers_pump(p);
	process_flow(p);
	end_if_drained(p);
}

static void
stdout_ready(void *arg, uint32_t events)
{
	struct process *p = arg;

	(void)events;
	output_ready(p, &p->out[0]);
}

static void
stderr_ready(void *arg, uint32_t events)
{
	struct process *p = arg;

	(void)events;
	output_ready(p, &p->out[1]);
}

/* A second after death what children still hold open is closed; what is in the pipes is taken
 * first. */
static void
linger_over(void *arg)
{
	struct process *p = arg;

	if (p->starter && p->out[0].events == 0 && p->out[1].events == 0 &&
	    (p->out[0].fd >= 0 || p->out[1].fd >= 0)) {
		timer_set(&p->linger, LINGER_MS); /* its starter is slow: nothing is dropped */
		return;
	}
	for (size_t i = 0; i < nitems(p->out); i++)
		for (int n = 0; n < 4 && p->out[i].fd >= 0 && output_read(p, &p->out[i]); n++)
			;
	process_end(p);
}

/* The pipe of the child's exec: closed is success, a report is not. */
static void
report_ready(void *arg, uint32_t events)
{
	struct process *p = arg;
	struct spawn_report r;
	struct err e = { 0 };
	ssize_t n = read(p->report.fd, &r, sizeof r);

	(void)events;
	if (n < 0 && errno == EINTR)
		return;
	watch_close(&p->report);
	if (n == (ssize_t)sizeof r)
		spawn_explain(&r, p->cmd, p->cwd, &e);
	if (p->state == PROCESS_STARTING)
		p->state = PROCESS_RUNNING;
	readers_started(p, &e);
	if (e.code == E_OK) {
		process_flow(p);
		return;
	}
	/* It never was: only its body has to be collected. */
	process_free(p);
}

void
process_died(pid_t pid, int status)
{
	struct process *p = process_list;

	while (p && !(p->pid == pid && process_alive(p)))
		p = p->next;
	if (!p)
		return; /* an orphan of somebody's, or a start that failed */
	p->status = status;
	if (p->state == PROCESS_STARTING) {
		pid_t was = p->pid;

		report_ready(p, 0); /* may free it */
		for (p = process_list; p && p->pid != was; p = p->next)
			;
		if (!p)
			return;
	}
	p->state = PROCESS_DEAD;
	input_close(p);
	timer_set(&p->linger, LINGER_MS);
	end_if_drained(p);
}

void
process_signal(struct process *p, int sig)
{
	if (p->pid > 1 && process_alive(p))
		(void)kill(-p->pid, sig);
}

static void
forget_due(void *arg)
{
	process_free(arg);
}

void
process_flow(struct process *p)
{
	bool go = p->state != PROCESS_STARTING && !reader_is_behind(p);

	for (size_t i = 0; i < nitems(p->out); i++)
		if (p->out[i].fd >= 0)
			watch_set(&p->out[i], go ? EPOLLIN : 0);
}

static struct process *
process_new(const struct process_plan *plan, struct ends *x)
{
	struct process *p = talloc_zero(NULL, struct process);

	if (!p)
		abort();
	p->state = PROCESS_STARTING;
	p->terminal = plan->terminal;
	p->tag = plan->tag ? talloc_strdup(p, plan->tag) : NULL;
	p->config = talloc_strdup(p, plan->config);
	p->cmd = talloc_strdup(p, plan->cmd);
	p->cwd = talloc_strdup(p, plan->cwd);
	p->ring.max = plan->terminal ? RING_PTY_MAX : RING_MAX;
	p->input = BUF(p);
	clock_gettime(CLOCK_REALTIME, &p->started);
	p->report = (struct watch){ .fd = take_fd(&x->report[0]), .fn = report_ready, .arg = p };
	p->in = (struct watch){ .fd = take_fd(&x->ours[0]), .fn = input_ready, .arg = p };
	p->out[0] = (struct watch){ .fd = take_fd(&x->ours[1]), .fn = stdout_ready, .arg = p };
	p->out[1] = (struct watch){ .fd = take_fd(&x->ours[2]), .fn = stderr_ready, .arg = p };
	p->linger = (struct timer){ .fn = linger_over, .arg = p };
	p->forget = (struct timer){ .fn = forget_due, .arg = p };
	p->next = process_list;
	p->back = &process_list;
	if (p->next)
		p->next->back = &p->next;
	process_list = p;
	return p;
}

struct process *
process_start(const struct process_plan *plan, struct err *e)
{
	struct ends x = { { -1, -1, -1 }, { -1, -1, -1 }, { -1, -1 } };
	struct process *p = NULL;
	size_t alive = 0;
	pid_t pid = -1;

	for (p = process_list; p; p = p->next)
		alive += process_alive(p);
	if (alive >= ALIVE_MAX) {
		(void)err_set(e, E_TOO_LARGE, "%d processes are running", ALIVE_MAX);
		return NULL;
	}
	if (ends_open(plan, &x, e) == 0) {
		struct spawn s = { .cmd = plan->cmd,
			.argv = plan->argv,
			.envp = plan->envp,
			.cwd = plan->cwd,
			.cwd_is_default = plan->cwd_is_default,
			.user = plan->user,
			.in = x.theirs[0],
			.out = x.theirs[1],
			.err = x.theirs[2],
			.terminal = plan->terminal,
			.report = x.report[1] };

		pid = spawn(&s, e);
	}
	if (pid > 0) {
		p = process_new(plan, &x);
		p->pid = pid;
		watch_set(&p->report, EPOLLIN);
	}
	ends_close(x.ours, nitems(x.ours));
	ends_close(x.theirs, nitems(x.theirs));
	ends_close(x.report, nitems(x.report));
	return p;
}
