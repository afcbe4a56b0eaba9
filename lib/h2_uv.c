/* h2_uv.c - see h2_uv.h. */
#include "h2_uv.h"
#include "tls.h"

#include <stdlib.h>
#include <string.h>
#include <talloc.h>
#include <unistd.h>

enum { CHUNK = 64 * 1024 };

/* libuv's handles outlive their owner by one turn of the loop, so they live outside of talloc. */
struct io {
	uv_pipe_t pipe;  /* any stream socket: libuv does not look at its family */
	struct h2_uv *u; /* NULL: the owner is gone */
	struct turn *turn;
	struct io *next_due;
	bool is_due;
	bool wired; /* it has its descriptor */
	bool closing;
	size_t waiting; /* bytes in libuv's queue */
};

struct h2_uv {
	struct io *io;
	struct h2 *h2;
	struct tls *tls; /* NULL: the bytes go as they are */
	void *user;
	void (*on_gone)(struct h2_uv *, const struct err *);
	struct err err;
};

/* One per loop: sessions that have something to send, written before the loop sleeps. The idle
   handle is active while there are some: whoever made them due after our prepare callback ran
   (another prepare callback), the loop does not sleep but turns once more. */
struct turn {
	uv_prepare_t prepare;
	uv_idle_t idle;
	int handles;
	uv_loop_t *loop;
	struct turn *next;
	struct io *due;
	size_t users;
};

struct out {
	uv_write_t req;
	size_t len;
	uint8_t data[];
};

static _Thread_local struct turn *turns;
static _Thread_local uint8_t in_chunk[CHUNK], out_chunk[CHUNK];

static void io_flush(struct io *);

/* ---- the turn */

static void
turn_run(uv_prepare_t *p)
{
	struct turn *t = p->data;
	struct io *io = NULL;

	/* A flush may make others due; they are written in this same turn. Each session is pulled
	   until it has no more or its socket is full, so this ends. */
	uv_idle_stop(&t->idle);
	while ((io = t->due)) {
		t->due = io->next_due;
		io->is_due = false;
		io_flush(io);
	}
}

static void
turn_again(uv_idle_t *p)
{
	(void)p;
}

static void
turn_closed(uv_handle_t *p)
{
	struct turn *t = p->data;

	if (--t->handles == 0)
		free(t);
}

static struct turn *
turn_join(uv_loop_t *loop)
{
	struct turn *t = turns;

	while (t && t->loop != loop)
		t = t->next;
	if (!t) {
		t = calloc(1, sizeof *t);
		if (!t)
			abort();
		t->loop = loop;
		t->next = turns;
		turns = t;
		t->handles = 2;
		uv_prepare_init(loop, &t->prepare);
		uv_idle_init(loop, &t->idle);
		t->prepare.data = t->idle.data = t;
		uv_prepare_start(&t->prepare, turn_run);
		uv_unref((uv_handle_t *)&t->prepare);
	}
	t->users++;
	return t;
}

static void
turn_leave(struct turn *t)
{
	struct turn **p = &turns;

	if (--t->users)
		return;
	while (*p != t)
		p = &(*p)->next;
	*p = t->next;
	uv_close((uv_handle_t *)&t->prepare, turn_closed);
	uv_close((uv_handle_t *)&t->idle, turn_closed);
}

static void
io_due(void *arg)
{
	struct io *io = arg;

	if (io->is_due || io->closing)
		return;
	io->is_due = true;
	io->next_due = io->turn->due;
	io->turn->due = io;
	uv_idle_start(&io->turn->idle, turn_again);
}

static void
io_not_due(struct io *io)
{
	struct io **p = &io->turn->due;

	if (!io->is_due)
		return;
	while (*p != io)
		p = &(*p)->next_due;
	*p = io->next_due;
	io->is_due = false;
}

/* ---- the end */

static void
io_closed(uv_handle_t *p)
{
	struct io *io = p->data;
	struct h2_uv *u = io->u;

	if (u)
		h2_close(u->h2);
	if (io->u && u->on_gone)
		u->on_gone(u, &u->err);
	if (io->u)
		talloc_free(io->u);
	turn_leave(io->turn);
	free(io);
}

static void
io_close(struct io *io)
{
	if (io->closing)
		return;
	io->closing = true;
	io_not_due(io);
	uv_close((uv_handle_t *)&io->pipe, io_closed);
}

static void
io_fail(struct io *io, enum err_code code, const char *what, int rc)
{
	if (io->u && !io->closing && rc)
		(void)err_set(&io->u->err, code, "%s: %s", what, uv_strerror(rc));
	else if (io->u && !io->closing)
		(void)err_set(&io->u->err, code, "%s", what);
	io_close(io);
}

static int
h2_uv_destroy(struct h2_uv *u)
{
	u->io->u = NULL;
	io_close(u->io);
	return 0;
}

/* ---- writing */

static void
on_written(uv_write_t *req, int rc)
{
	struct io *io = req->data;
	struct out *o = (struct out *)req;

	io->waiting -= o->len;
	free(o);
	if (rc < 0)
		io_fail(io, E_CLOSED, "write", rc);
	else
		io_due(io);
}

static void
io_queue(struct io *io, const uint8_t *p, size_t n)
{
	struct out *o = malloc(sizeof *o + n);
	uv_buf_t b = { 0 };
	int rc = 0;

	if (!o)
		abort();
	o->len = n;
	o->req.data = io;
	memcpy(o->data, p, n);
	b = uv_buf_init((char *)o->data, (unsigned)n);
	rc = uv_write(&o->req, (uv_stream_t *)&io->pipe, &b, 1, on_written);
	if (rc < 0) {
		free(o);
		io_fail(io, E_CLOSED, "write", rc);
		return;
	}
	io->waiting += n;
}

static void
io_send(struct io *io, const uint8_t *p, size_t n)
{
	uv_buf_t b = uv_buf_init((char *)p, (unsigned)n);
	int rc = io->waiting ? UV_EAGAIN : uv_try_write((uv_stream_t *)&io->pipe, &b, 1);

	if (rc < 0 && rc != UV_EAGAIN)
		io_fail(io, E_CLOSED, "write", rc);
	else if (rc < 0)
		io_queue(io, p, n);
	else if ((size_t)rc < n)
		io_queue(io, p + rc, n - (size_t)rc);
}

/* What TLS has for the wire: handshake, records, alerts. */
static void
tls_flush(struct io *io)
{
	static _Thread_local uint8_t wire[CHUNK];
	size_t n;

	while (io->u && !io->closing && (n = tls_pull(io->u->tls, wire, sizeof wire)) > 0)
		io_send(io, wire, n);
}

static void
io_say(struct io *io, const uint8_t *p, size_t n)
{
	if (!io->u->tls)
		io_send(io, p, n);
	else if (tls_send(io->u->tls, p, n, &io->u->err) < 0)
		io_close(io);
	else
		tls_flush(io);
}

/* Frames are small; one write carries as many as fit. */
static void
io_flush(struct io *io)
{
	size_t n = 0;
	ssize_t got = 1;

	if (!io->wired)
		return;
	if (io->u && io->u->tls) {
		tls_flush(io);
		if (!tls_ready(io->u->tls))
			return;
	}
	while (got > 0 && io->u && !io->closing && io->waiting < H2_HIGH) {
		const uint8_t *p = NULL;

		got = h2_pull(io->u->h2, &p);
		if (got > 0 && n + (size_t)got > sizeof out_chunk) {
			io_say(io, out_chunk, n);
			n = 0;
		}
		if (!io->u || io->closing)
			return;
		if (got > 0 && (size_t)got > sizeof out_chunk) {
			io_say(io, p, (size_t)got);
		} else if (got > 0) {
			memcpy(out_chunk + n, p, (size_t)got);
			n += (size_t)got;
		}
	}
	if (n && !io->closing)
		io_say(io, out_chunk, n);
	if (!io->u || io->closing)
		return;
	if (got < 0)
		io_fail(io, E_PROTOCOL, "HTTP/2: cannot send", 0);
	else if (!h2_alive(io->u->h2) && io->waiting == 0)
		io_fail(io, E_CLOSED, "the connection ended", 0);
}

/* ---- reading */

static void
on_alloc(uv_handle_t *p, size_t hint, uv_buf_t *ret)
{
	(void)p;
	(void)hint;
	*ret = uv_buf_init((char *)in_chunk, sizeof in_chunk);
}

/* Events may end the connection between two pieces. */
static int
tls_in(struct io *io, const uint8_t *p, size_t n)
{
	static _Thread_local uint8_t plain[CHUNK];
	ssize_t got;

	if (tls_feed(io->u->tls, p, n, &io->u->err) < 0)
		return -1;
	while (io->u && !io->closing) {
		got = tls_read(io->u->tls, plain, sizeof plain, &io->u->err);
		if (got < 0)
			return -1;
		if (got == 0)
			break;
		if (h2_feed(io->u->h2, plain, (size_t)got, &io->u->err) < 0)
			return -1;
	}
	if (!io->closing)
		io_due(io);
	return 0;
}

static void
on_read(uv_stream_t *stream, ssize_t n, const uv_buf_t *b)
{
	struct io *io = stream->data;

	if (n == 0 || io->closing || !io->u)
		return;
	if (n < 0) {
		io_fail(io, E_CLOSED, n == UV_EOF ? "the peer closed the connection" : "read",
		    n == UV_EOF ? 0 : (int)n);
		return;
	}
	if (io->u->tls ? tls_in(io, (uint8_t *)b->base, (size_t)n) == 0
		       : h2_feed(io->u->h2, (uint8_t *)b->base, (size_t)n, &io->u->err) == 0)
		return;
	/* The goodbye that nghttp2 queued still goes out, if the socket takes it. */
	if (io->u)
		io_flush(io);
	io_close(io);
}

int
h2_uv_wire(struct h2_uv *u, int fd, struct err *e)
{
	struct io *io = u->io;
	int rc = uv_pipe_open(&io->pipe, fd);

	if (rc < 0)
		close(fd);
	else
		rc = uv_read_start((uv_stream_t *)&io->pipe, on_alloc, on_read);
	if (rc < 0)
		return err_set(e, E_SYSTEM, "h2_uv_wire: %s", uv_strerror(rc));
	io->wired = true;
	io_due(io);
	return 0;
}

struct h2_uv *
h2_uv_open(void *mem, uv_loop_t *loop, int fd, enum h2_role role, const struct h2_events *on,
    const struct h2_limits *limits, void *user, void (*on_gone)(struct h2_uv *, const struct err *),
    struct err *e)
{
	struct h2_uv *u = talloc_zero(mem, struct h2_uv);
	struct io *io = calloc(1, sizeof *io);

	if (!u || !io)
		abort();
	*u = (struct h2_uv){ .io = io, .user = user, .on_gone = on_gone };
	io->u = u;
	io->turn = turn_join(loop);
	uv_pipe_init(loop, &io->pipe, 0);
	io->pipe.data = io;
	talloc_set_destructor(u, h2_uv_destroy);
	if (fd >= 0 && h2_uv_wire(u, fd, e) < 0) {
		talloc_free(u);
		return NULL;
	}
	u->h2 = h2_new(u, role, on, limits, user);
	h2_set_due(u->h2, io_due, io);
	return u;
}

int
h2_uv_tls(struct h2_uv *u, struct tls_ctx *c, bool server)
{
	u->tls = tls_new(u, c, server);
	if (!server && tls_begin(u->tls, &u->err) < 0)
		return -1;
	io_due(u->io);
	return 0;
}

const struct tls *
h2_uv_peer(const struct h2_uv *u)
{
	return u->tls;
}

struct h2 *
h2_uv_session(const struct h2_uv *u)
{
	return u->h2;
}

void *
h2_uv_user(const struct h2_uv *u)
{
	return u->user;
}

void
h2_uv_close(struct h2_uv *u)
{
	io_close(u->io);
}
