/* qmp.c - see qmp.h. */
#include "qmp.h"
#include "buf.h"
#include "cleanup.h"
#include "json.h"
#include "loop.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <string.h>
#include <sys/queue.h>
#include <sys/socket.h>

enum { MAX_LINE = 1 << 20 }; /* QEMU's longest answer to what we ask is a few KiB */

struct command {
	STAILQ_ENTRY(command) link;
	uint64_t id;
	const char *name;
	struct buf text; /* empty once it was sent */
	int fd;          /* ours (a dup), or -1 */
	qmp_reply *reply;
	void *arg;
};

struct qmp {
	uv_loop_t *loop;
	int fd;
	struct watch *watch;
	const struct qmp_events *events;
	void *user;
	struct buf in;
	STAILQ_HEAD(, command) open; /* in order: sent ones first */
	uint64_t ids;
	bool gone;
	struct timer *late; /* gone_later() */
	struct err why;
	bool *freed; /* set when the owner frees us from a callback */
};

static int
qmp_free(struct qmp *q)
{
	if (q->freed)
		*q->freed = true;
	TALLOC_FREE(q->watch);
	close(q->fd);
	return 0;
}

static int
command_free(struct command *c)
{
	if (c->fd >= 0)
		close(c->fd);
	return 0;
}

/* The connection is of no use any more: open calls fail, then the owner hears of it, once. */
static void
gone(struct qmp *q, const struct err *why)
{
	bool told = q->gone, freed = false, *outer = q->freed;
	struct command *c;

	q->gone = true;
	TALLOC_FREE(q->watch);
	q->freed = &freed;
	while (!freed && (c = STAILQ_FIRST(&q->open))) {
		STAILQ_REMOVE_HEAD(&q->open, link);
		if (c->reply)
			c->reply(c->arg, NULL, why);
		if (!freed)
			talloc_free(c);
	}
	if (!freed && !told && q->events->on_gone)
		q->events->on_gone(q->user, why);
	if (!freed)
		q->freed = outer;
	else if (outer)
		*outer = true;
}

static void
on_late(void *arg)
{
	struct qmp *q = arg;

	TALLOC_FREE(q->late);
	gone(q, &q->why);
}

/* The same from the loop: who calls qmp_call() must not be called back by it. */
static void
gone_later(struct qmp *q, const struct err *why)
{
	if (q->late)
		return;
	q->why = *why;
	q->late = timer_new(q, q->loop, 0, 0, on_late, q);
}

static int
command_send(struct qmp *q, struct command *c)
{
	char control[CMSG_SPACE(sizeof(int))] = { 0 };
	struct iovec io = { .iov_base = c->text.data, .iov_len = c->text.len };
	struct msghdr m = { .msg_iov = &io, .msg_iovlen = 1 };
	struct cmsghdr *h;
	ssize_t n;

	if (c->fd >= 0) {
		m.msg_control = control;
		m.msg_controllen = sizeof control;
		h = CMSG_FIRSTHDR(&m);
		h->cmsg_level = SOL_SOCKET;
		h->cmsg_type = SCM_RIGHTS;
		h->cmsg_len = CMSG_LEN(sizeof(int));
		memcpy(CMSG_DATA(h), &c->fd, sizeof(int));
	}
	n = sendmsg(q->fd, &m, MSG_NOSIGNAL | MSG_DONTWAIT);
	if (n < 0)
		return errno == EAGAIN ? 0 : -1;
	if (c->fd >= 0) {
		close(c->fd);
		c->fd = -1;
	}
	buf_cut(&c->text, n);
	return 0;
}

/* Sends what can be sent; waits for the socket when there is more. */
static void
pump(struct qmp *q)
{
	struct command *c;
	struct err e = { 0 };

	STAILQ_FOREACH(c, &q->open, link)
	{
		if (!c->text.len)
			continue;
		if (command_send(q, c) < 0) {
			err_sys(&e, "QMP %s", c->name);
			gone_later(q, &e);
			return;
		}
		if (c->text.len) {
			watch_events(q->watch, UV_READABLE | UV_WRITABLE);
			return;
		}
	}
	watch_events(q->watch, UV_READABLE);
}

static void
answered(struct qmp *q, struct json_object *msg)
{
	struct command *c = STAILQ_FIRST(&q->open);
	struct json_object *error = json_get(msg, "error");
	struct err e = { 0 };

	if (!c || c->text.len || (uint64_t)json_int(msg, "id", -1) != c->id) {
		(void)err_set(&e, E_QEMU, "QMP: answer to nothing that was asked");
		gone(q, &e);
		return;
	}
	STAILQ_REMOVE_HEAD(&q->open, link);
	if (error)
		(void)err_set(&e, E_QEMU, "QMP %s: %s", c->name, json_str(error, "desc", "failed"));
	if (c->reply) {
		qmp_reply *reply = c->reply;
		void *arg = c->arg;

		talloc_free(c);
		reply(arg, error ? NULL : json_get(msg, "return"), error ? &e : NULL);
	} else
		talloc_free(c);
}

static void
line(struct qmp *q, const char *text, size_t len)
{
	static const struct json_limits limits = { .depth = 32, .keys = 20000 };
	auto_talloc char *mem = talloc_new(NULL);
	struct err e = { 0 };
	struct json_object *msg = json_parse(mem, text, len, &limits, &e);

	if (!msg) {
		gone(q, &e);
		return;
	}
	if (json_get(msg, "event")) {
		if (q->events->on_event)
			q->events->on_event(
			    q->user, json_str(msg, "event", ""), json_get(msg, "data"));
	} else if (!json_get(msg, "QMP"))
		answered(q, msg);
}

static void
on_ready(void *arg, int events)
{
	struct qmp *q = arg;
	struct err e = { 0 };
	bool freed = false;
	ssize_t n;
	char *end;

	if (events & UV_WRITABLE)
		pump(q);
	if (q->gone || !(events & UV_READABLE))
		return;
	buf_need(&q->in, 16384);
	n = recv(q->fd, q->in.data + q->in.len, 16384, MSG_DONTWAIT);
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n <= 0 || q->in.len + n > MAX_LINE) {
		(void)err_set(&e, E_CLOSED, "QEMU closed its control socket");
		gone(q, &e);
		return;
	}
	q->in.len += n;
	q->in.data[q->in.len] = '\0';
	q->freed = &freed;
	while (!freed && !q->gone && (end = memchr(q->in.data, '\n', q->in.len))) {
		size_t len = end - q->in.data;
		char *text = talloc_memdup(NULL, q->in.data, len + 1); /* zeros among them */

		buf_cut(&q->in, len + 1);
		if (len && text[len - 1] == '\r')
			len--;
		line(q, text, len);
		talloc_free(text);
	}
	if (!freed)
		q->freed = NULL;
}

struct qmp *
qmp_open(void *mem, uv_loop_t *loop, int fd, const struct qmp_events *events, void *user)
{
	struct qmp *q = talloc_zero(mem, struct qmp);

	q->loop = loop;
	q->fd = fd;
	q->events = events;
	q->user = user;
	q->in = BUF(q);
	STAILQ_INIT(&q->open);
	(void)fcntl(fd, F_SETFL, O_NONBLOCK);
	q->watch = watch_new(q, loop, fd, UV_READABLE, on_ready, q);
	talloc_set_destructor(q, qmp_free);
	qmp_call(q, "qmp_capabilities", NULL, -1, NULL, NULL);
	return q;
}

void
qmp_call(
    struct qmp *q, const char *command, const char *arguments, int fd, qmp_reply *reply, void *arg)
{
	struct command *c = talloc_zero(q, struct command);
	struct err e = { 0 };

	c->id = ++q->ids;
	c->name = command;
	c->text = BUF(c);
	c->fd = fd >= 0 ? fcntl(fd, F_DUPFD_CLOEXEC, 0) : -1;
	c->reply = reply;
	c->arg = arg;
	talloc_set_destructor(c, command_free);
	buf_fmt(&c->text, "{\"execute\":\"%s\",\"id\":%llu", command, (unsigned long long)c->id);
	if (arguments)
		buf_fmt(&c->text, ",\"arguments\":%s", arguments);
	buf_str(&c->text, "}\r\n");
	STAILQ_INSERT_TAIL(&q->open, c, link);
	if (q->gone) {
		(void)err_set(&e, E_CLOSED, "QEMU is gone");
		gone_later(q, &e);
	} else
		pump(q);
}
