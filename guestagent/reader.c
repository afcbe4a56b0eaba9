/* reader.c - a process's output on its way to a stream. See process.h. */
#include "process.h"

#include "cleanup.h"
#include "rpc.h"

#include <inttypes.h>
#include <nghttp2/nghttp2.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/wait.h>
#include <termios.h>

enum { STALL_MS = 60 * 1000 };

struct reader {
	struct process *process;
	struct call *call;
	struct reader *next;
	uint64_t at; /* position of the next byte to send */
	bool seq;    /* additive fields */
	bool once;   /* what there is, then the end */
	struct timer deadline, stall;
	size_t stalled_at; /* what was queued when the stall began */
};

static const char *const kinds[] = {
	[RING_STDOUT] = "stdout", [RING_STDERR] = "stderr", [RING_PTY] = "pty"
};

/* As Go's syscall package calls them: clients compare these texts. */
static const char *const signal_names[] = {
	[SIGHUP] = "hangup",
	[SIGINT] = "interrupt",
	[SIGQUIT] = "quit",
	[SIGILL] = "illegal instruction",
	[SIGTRAP] = "trace/breakpoint trap",
	[SIGABRT] = "aborted",
	[SIGBUS] = "bus error",
	[SIGFPE] = "floating point exception",
	[SIGKILL] = "killed",
	[SIGUSR1] = "user defined signal 1",
	[SIGSEGV] = "segmentation fault",
	[SIGUSR2] = "user defined signal 2",
	[SIGPIPE] = "broken pipe",
	[SIGALRM] = "alarm clock",
	[SIGTERM] = "terminated",
};

bool
reader_is_behind(const struct process *p)
{
	return p->starter && p->starter->call->stream && call_full(p->starter->call);
}

static void
reader_free(struct reader *r)
{
	struct process *p = r->process;
	struct reader **at = &p->readers;

	while (*at != r)
		at = &(*at)->next;
	*at = r->next;
	timer_stop(&r->deadline);
	timer_stop(&r->stall);
	r->call->on_gone = NULL;
	r->call->on_drain = NULL;
	r->call->state = NULL;
	if (p->starter == r)
		p->starter = NULL;
	talloc_free(r);
}

static void
send_start(struct reader *r)
{
	struct winsize size = { 0 };
	struct buf b = BUF(r);

	buf_fmt(&b, "{\"event\":{\"start\":{\"pid\":%d", (int)r->process->pid);
	if (r->seq && r->process->tag) {
		buf_str(&b, ",\"tag\":");
		buf_json(&b, r->process->tag);
	}
	if (r->seq && r->process->in.fd >= 0 && r->process->terminal &&
	    ioctl(r->process->in.fd, TIOCGWINSZ, &size) == 0)
		buf_fmt(&b, ",\"cols\":%d,\"rows\":%d", size.ws_col, size.ws_row);
	buf_str(&b, "}}}");
	rpc_send(r->call, &b);
}

static void
put_status(struct buf *b, int status)
{
	int sig = WIFSIGNALED(status) ? WTERMSIG(status) : 0;

	if (!sig)
		buf_fmt(b, "exit status %d", WEXITSTATUS(status));
	else if (sig < (int)nitems(signal_names) && signal_names[sig])
		buf_fmt(b, "signal: %s", signal_names[sig]);
	else
		buf_fmt(b, "signal: signal %d", sig);
	if (sig && WCOREDUMP(status))
		buf_str(b, " (core dumped)");
}

static void
send_end(struct reader *r)
{
	int status = r->process->status;
	int code = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
	struct buf b = BUF(r), text = BUF(r);

	put_status(&text, status);
	buf_str(&b, "{\"event\":{\"end\":{");
	if (code)
		buf_fmt(&b, "\"exitCode\":%d,", code);
	if (WIFEXITED(status))
		buf_str(&b, "\"exited\":true,");
	buf_fmt(&b, "\"status\":\"%s\"", text.data);
	if (code)
		buf_fmt(&b, ",\"error\":\"%s\"", text.data);
	if (r->seq && WIFSIGNALED(status))
		buf_fmt(&b, ",\"signal\":%d", WTERMSIG(status));
	buf_str(&b, "}}}");
	rpc_send(r->call, &b);
}

static void
send_data(struct reader *r, enum ring_kind kind, const char *data, size_t n)
{
	auto_talloc char *mem = talloc_new(NULL);
	struct buf b = BUF(mem);

	r->at += n;
	buf_need(&b, n / 3 * 4 + 96);
	buf_fmt(&b, "{\"event\":{\"data\":{\"%s\":\"", kinds[kind]);
	buf_base64(&b, data, n);
	buf_chr(&b, '"');
	if (r->seq)
		buf_fmt(&b, ",\"seq\":\"%" PRIu64 "\"", r->at);
	buf_str(&b, "}}}");
	rpc_send(r->call, &b);
}

/* The ring ran away from a reader that did not keep up. False: the stream was ended. */
static bool
send_gap(struct reader *r)
{
	const struct ring *ring = &r->process->ring;
	auto_talloc char *mem = talloc_new(NULL);
	struct buf b = BUF(mem);

	if (!r->seq) {
		(void)err_set(
		    &r->call->err, E_TOO_LARGE, "output was lost: the client is too slow");
		rpc_end(r->call);
		return false;
	}
	buf_fmt(&b, "{\"event\":{\"gap\":{\"from\":\"%" PRIu64 "\",\"to\":\"%" PRIu64 "\"}}}",
	    r->at, ring->begin);
	r->at = ring->begin;
	rpc_send(r->call, &b);
	return true;
}

/* False: the reader is done with and freed. */
static bool
reader_pump(struct reader *r)
{
	struct process *p = r->process;
	size_t max = p->terminal ? PROCESS_PTY_OUT : PROCESS_OUT;

	while (r->at < p->ring.end) {
		enum ring_kind kind = RING_STDOUT;
		const char *data = NULL;
		size_t n = 0;

		if (call_full(r->call))
			return true;
		if (r->at < p->ring.begin && !send_gap(r)) {
			reader_free(r);
			return false;
		}
		n = ring_get(&p->ring, r->at, &kind, &data);
		send_data(r, kind, data, n < max ? n : max);
	}
	if (p->state == PROCESS_ENDED)
		send_end(r);
	else if (!r->once)
		return true;
	rpc_end(r->call);
	reader_free(r);
	return false;
}

static void watch_stall(struct process *);

static void
stall_over(void *arg)
{
	struct reader *r = arg;
	size_t queued = h2_queued(r->call->stream);
	struct process *p = r->process;
	struct h2_stream *s = r->call->stream;

	if (!call_full(r->call)) {
		/* others took so much that there is room again */
		(void)reader_pump(r);
		watch_stall(p);
		process_flow(p);
		return;
	}
	if (queued != r->stalled_at) {
		r->stalled_at = queued;
		timer_set(&r->stall, STALL_MS);
		return;
	}
	reader_free(r);
	h2_reset(s, NGHTTP2_ENHANCE_YOUR_CALM);
	process_flow(p);
}

static void
watch_stall(struct process *p)
{
	struct reader *r = p->starter;

	if (!reader_is_behind(p) || r->stall.due)
		return;
	r->stalled_at = h2_queued(r->call->stream);
	timer_set(&r->stall, STALL_MS);
}

void
readers_pump(struct process *p)
{
	struct reader *next = NULL;

	if (p->state == PROCESS_STARTING)
		return;
	for (struct reader *r = p->readers; r; r = next) {
		next = r->next;
		(void)reader_pump(r);
	}
	watch_stall(p);
}

static void
on_drain(struct call *c)
{
	struct reader *r = c->state;
	struct process *p = r->process;

	if (p->state == PROCESS_STARTING)
		return;
	(void)reader_pump(r);
	watch_stall(p);
	process_flow(p);
}

/* A connection that closes never kills. */
static void
on_gone(struct call *c)
{
	struct reader *r = c->state;
	struct process *p = r->process;

	reader_free(r);
	process_flow(p);
}

static void
deadline_over(void *arg)
{
	struct reader *r = arg;
	struct process *p = r->process;

	if (p->starter == r)
		process_signal(p, SIGKILL);
	(void)err_set(&r->call->err, E_DEADLINE, "the deadline passed");
	rpc_end(r->call);
	reader_free(r);
	process_flow(p);
}

void
reader_add(struct process *p, struct call *c, uint64_t at, unsigned how)
{
	struct reader *r = talloc_zero(c, struct reader);
	int64_t ms = rpc_timeout(c);

	if (!r)
		abort();
	r->process = p;
	r->call = c;
	r->at = at;
	r->seq = how & READER_SEQ;
	r->once = how & READER_ONCE;
	r->next = p->readers;
	p->readers = r;
	r->deadline = (struct timer){ .fn = deadline_over, .arg = r };
	r->stall = (struct timer){ .fn = stall_over, .arg = r };
	c->state = r;
	c->on_drain = on_drain;
	c->on_gone = on_gone;
	if (how & READER_STARTER)
		p->starter = r;
	if (ms > 0)
		timer_set(&r->deadline, (uint64_t)ms);
	if (p->state == PROCESS_STARTING)
		return;
	send_start(r);
	(void)reader_pump(r);
}

void
readers_started(struct process *p, const struct err *e)
{
	struct reader *next = NULL;

	for (struct reader *r = p->readers; r; r = next) {
		next = r->next;
		if (e->code == E_OK) {
			send_start(r);
			continue;
		}
		r->call->err = *e;
		rpc_end(r->call);
		reader_free(r);
	}
}

void
readers_drop(struct process *p)
{
	while (p->readers) {
		struct h2_stream *s = p->readers->call->stream;

		reader_free(p->readers);
		h2_reset(s, NGHTTP2_CANCEL);
	}
}
