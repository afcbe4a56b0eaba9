/* front.c - see front.h. */
#include "front.h"

#include "gateway.h"
#include "key_count.h"
#include "log.h"
#include "route.h"
#include "upgrade.h"
#include "cleanup.h"

#include <fcntl.h>
#include <microhttpd.h>
#include <string.h>
#include <strings.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
	POOL = 24 * 1024,  /* per connection: request head, read buffer, answer head */
	BLOCK = 32 * 1024, /* per streamed answer */
	CONNECTIONS = 20000,
	SILENCE = 300,     /* seconds a connection may stand still while we wait for it */
	DISCARD = 1 << 20, /* of a body that nobody wants, before the answer is sent all the same */
	LINGER = 64 << 20, /* and before the connection is cut */
	ROUNDS = 64,
};

struct front {
	struct gateway *gw;
	uv_loop_t *loop;
	struct MHD_Daemon *mhd;
	uv_poll_t poll;
	uv_timer_t timer;
	uv_prepare_t prepare;
	uv_idle_t idle; /* active while due: the loop does not sleep */
	void (*on_request)(struct request *);
	void (*on_idle)(struct gateway *);
	size_t requests, upgraded;
	bool leave; /* upgraded ones go with the last of the others */
	bool due;   /* somebody was resumed: libmicrohttpd must run before the loop sleeps */
};

/* ---- libmicrohttpd on libuv */

static void on_timer(uv_timer_t *);
static void on_idle_turn(uv_idle_t *);

static void
run(struct front *f)
{
	MHD_UNSIGNED_LONG_LONG ms = 0;

	uv_idle_stop(&f->idle);
	for (int i = 0; i < ROUNDS; i++) {
		f->due = false;
		MHD_run(f->mhd);
		if (!f->due)
			break;
	}
	if (f->due || MHD_get_timeout(f->mhd, &ms) == MHD_YES)
		uv_timer_start(&f->timer, on_timer, f->due ? 0 : ms, 0);
	else
		uv_timer_stop(&f->timer);
	if (f->leave && f->requests == f->upgraded) {
		f->leave = false;
		upgrade_leave(f->gw);
	}
	if (f->on_idle && f->requests == 0) {
		void (*idle)(struct gateway *) = f->on_idle;

		f->on_idle = NULL;
		idle(f->gw);
	}
}

static void
on_timer(uv_timer_t *t)
{
	run(t->data);
}

static void
on_poll(uv_poll_t *p, int status, int events)
{
	(void)status;
	(void)events;
	run(p->data);
}

static void
on_idle_turn(uv_idle_t *i)
{
	(void)i; /* on_prepare() does it, this only keeps the loop awake */
}

static void
on_prepare(uv_prepare_t *p)
{
	struct front *f = p->data;

	if (f->due)
		run(f);
}

void
request_wake(struct request *r)
{
	if (!r->suspended)
		return;
	r->suspended = false;
	MHD_resume_connection(r->mhd);
	r->gw->front->due = true;
	uv_idle_start(&r->gw->front->idle, on_idle_turn);
}

static void
hold(struct request *r)
{
	r->suspended = true;
	MHD_suspend_connection(r->mhd);
}

void
request_admit(struct request *r)
{
	r->may_read = true;
	request_wake(r);
}

const char *
request_header(const struct request *r, const char *name)
{
	return r->mhd ? MHD_lookup_connection_value(r->mhd, MHD_HEADER_KIND, name) : NULL;
}

struct each {
	void (*fn)(void *, const char *, const char *);
	void *arg;
};

static enum MHD_Result
on_header(void *cls, enum MHD_ValueKind kind, const char *name, const char *value)
{
	struct each *e = cls;

	(void)kind;
	e->fn(e->arg, name, value ? value : "");
	return MHD_YES;
}

void
request_headers(
    const struct request *r, void (*fn)(void *arg, const char *, const char *), void *arg)
{
	struct each e = { fn, arg };

	if (r->mhd)
		(void)MHD_get_connection_values(r->mhd, MHD_HEADER_KIND, on_header, &e);
}

/* ---- the answer */

static bool
ready(struct request *r, int status)
{
	if (r->reply.state != REPLY_NONE)
		return false;
	r->reply.state = REPLY_READY;
	r->reply.status = status;
	key_count(r);
	if (!r->reply.plain) {
		reply_header(r, "X-Request-Id", r->work.id);
		reply_header(r, "Cache-Control", "private, no-store");
	}
	request_wake(r);
	return true;
}

void
reply_header(struct request *r, const char *name, const char *value)
{
	if (r->reply.heads == REPLY_HEADERS_MAX || !value)
		return;
	if (!r->reply.head) {
		r->reply.head = r->reply.few;
		r->reply.room = REPLY_HEADERS;
	} else if (r->reply.heads == r->reply.room) {
		struct reply_head *more = talloc_array(r, struct reply_head, REPLY_HEADERS_MAX);

		if (!more)
			abort();
		memcpy(more, r->reply.head, r->reply.heads * sizeof *more);
		r->reply.head = more;
		r->reply.room = REPLY_HEADERS_MAX;
	}
	r->reply.head[r->reply.heads].name = name;
	r->reply.head[r->reply.heads++].value = value;
}

bool
reply(struct request *r, int status, const char *type, const void *p, size_t n)
{
	if (!ready(r, status))
		return false;
	if (type)
		reply_header(r, "Content-Type", type);
	buf_add(&r->reply.out, p, n);
	return true;
}

bool
reply_json(struct request *r, int status, const struct buf *b)
{
	return reply(r, status, "application/json", b->data, b->len);
}

bool
reply_empty(struct request *r, int status)
{
	return reply(r, status, NULL, "", 0);
}

bool
reply_begin(struct request *r, int status, const char *type, int64_t length)
{
	if (!ready(r, status))
		return false;
	if (type)
		reply_header(r, "Content-Type", type);
	r->reply.stream = true;
	r->reply.length = length;
	return true;
}

void
reply_write(struct request *r, const void *p, size_t n)
{
	if (r->reply.ended || r->reply.cut)
		return;
	buf_add(&r->reply.out, p, n);
	r->reply.written += (int64_t)n;
	request_wake(r);
}

size_t
reply_queued(const struct request *r)
{
	return r->reply.out.len - r->reply.taken;
}

void
reply_end(struct request *r)
{
	/* Fewer bytes than promised: the client must not take them for the whole. */
	if (r->reply.length >= 0 && r->reply.written < r->reply.length)
		r->reply.cut = true;
	r->reply.ended = true;
	request_wake(r);
}

void
reply_cut(struct request *r)
{
	r->reply.cut = true;
	request_wake(r);
}

static void
log_failure(const struct request *r)
{
	if (err_kinds[r->work.err.code].http >= 500)
		log_error(r->work.id, "%s %s: %s", r->method, r->path, r->work.err.text);
}

void
reply_error(struct request *r)
{
	const struct err_kind *k = &err_kinds[r->work.err.code];
	struct buf b = BUF(r);

	if (r->slept && route_again(r))
		return;
	log_failure(r);
	if (r->reply.state != REPLY_NONE) {
		if (r->reply.stream)
			reply_cut(r);
		return;
	}
	if (k->http == 503)
		reply_header(r, "Retry-After", "1");
	buf_str(&b, "{\"error\":{\"code\":");
	buf_json(&b, k->slug);
	buf_str(&b, ",\"message\":");
	buf_json(&b, err_public(&r->work.err));
	buf_str(&b, ",\"request_id\":");
	buf_json(&b, r->work.id);
	buf_str(&b, "}}");
	reply_json(r, k->http, &b);
}

void
fail(struct request *r, enum err_code code, const char *fmt, ...)
{
	char text[sizeof r->work.err.text];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof text, fmt, ap);
	va_end(ap);
	(void)err_set(&r->work.err, code, "%s", text);
	reply_error(r);
}

static ssize_t
read_stream(void *cls, uint64_t at, char *p, size_t room)
{
	struct request *r = cls;
	size_t n = 0;

	(void)at;
	if (reply_queued(r) == 0 && !r->reply.ended && !r->reply.cut && r->on_room)
		r->on_room(r);
	n = reply_queued(r);
	if (n > room)
		n = room;
	if (n) {
		memcpy(p, r->reply.out.data + r->reply.taken, n);
		r->reply.taken += n;
		if (reply_queued(r) == 0) {
			TALLOC_FREE(r->reply.out.data);
			r->reply.out = BUF(r);
			r->reply.taken = 0;
		}
		if (r->on_taken)
			r->on_taken(r, n);
		return (ssize_t)n;
	}
	if (r->reply.cut)
		return MHD_CONTENT_READER_END_WITH_ERROR;
	if (r->reply.ended)
		return MHD_CONTENT_READER_END_OF_STREAM;
	hold(r);
	return 0;
}

bool
reply_upgrade(struct request *r, struct sock *s)
{
	r->reply.upgrade = s;
	return ready(r, MHD_HTTP_SWITCHING_PROTOCOLS);
}

/* The 101 is out. Our own descriptor, so that libmicrohttpd's connection and its pool can go. */
static void
on_upgrade(void *cls, struct MHD_Connection *c, void *ptr, const char *more, size_t n,
    MHD_socket fd, struct MHD_UpgradeResponseHandle *urh)
{
	struct request *r = cls;
	int own = fcntl(fd, F_DUPFD_CLOEXEC, 0);

	(void)c;
	(void)ptr;
	if (own >= 0) {
		r->upgraded = true;
		r->mhd = NULL;
		r->gw->front->upgraded++;
		upgrade_opened(r->reply.upgrade, own, more, n);
	}
	(void)MHD_upgrade_action(urh, MHD_UPGRADE_ACTION_CLOSE);
	r->gw->front->due = true;
}

void
front_ended(struct front *f)
{
	f->upgraded--;
	f->requests--;
	f->due = true;
	uv_idle_start(&f->idle, on_idle_turn);
}

void
front_leave(struct front *f)
{
	f->leave = true;
	run(f);
}

static enum MHD_Result
send_reply(struct request *r)
{
	struct MHD_Response *m = NULL;
	enum MHD_Result rc = MHD_NO;

	if (r->reply.upgrade)
		m = MHD_create_response_for_upgrade(on_upgrade, r);
	else if (!r->reply.stream)
		m = MHD_create_response_from_buffer(r->reply.out.len,
		    r->reply.out.data ? r->reply.out.data : (char *)"", MHD_RESPMEM_PERSISTENT);
	else
		m = MHD_create_response_from_callback(
		    r->reply.length < 0 ? MHD_SIZE_UNKNOWN : (uint64_t)r->reply.length, BLOCK,
		    read_stream, r, NULL);
	if (!m)
		return MHD_NO;
	for (size_t i = 0; i < r->reply.heads; i++)
		(void)MHD_add_response_header(m, r->reply.head[i].name, r->reply.head[i].value);
	if (r->gw->draining && !r->reply.upgrade)
		(void)MHD_add_response_header(m, "Connection", "close");
	r->reply.state = REPLY_SENT;
	rc = MHD_queue_response(r->mhd, (unsigned)r->reply.status, m);
	MHD_destroy_response(m);
	return rc;
}

/* libmicrohttpd takes no answer before the body's end. When we do not want to read so far, the
   (small) answer is written here; nothing else was written on the connection. Reading goes on for a
   while: a web server that finds it closed under its writing may not look for an answer. */
static void
send_early(struct request *r)
{
	const union MHD_ConnectionInfo *info =
	    MHD_get_connection_info(r->mhd, MHD_CONNECTION_INFO_CONNECTION_FD);
	struct buf b = BUF(r);

	if (!info || r->reply.stream)
		return;
	buf_fmt(&b, "HTTP/1.1 %d %s\r\nConnection: close\r\nContent-Length: %zu\r\n",
	    r->reply.status, MHD_get_reason_phrase_for((unsigned)r->reply.status),
	    r->reply.out.len);
	for (size_t i = 0; i < r->reply.heads; i++)
		buf_fmt(&b, "%s: %s\r\n", r->reply.head[i].name, r->reply.head[i].value);
	buf_str(&b, "\r\n");
	buf_add(&b, r->reply.out.data, r->reply.out.len);
	if (write(info->connect_fd, b.data, b.len) < 0)
		log_debug(r->work.id, "early answer: the client has left");
	(void)shutdown(info->connect_fd, SHUT_WR);
}

/* ---- the request */

static bool
good_id(const char *id)
{
	size_t n = id ? strlen(id) : 0;

	return n >= 1 && n <= 64 &&
	    strspn(id, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-") == n;
}

static const char *
new_id(void *mem)
{
	uint8_t b[12] = { 0 };
	struct buf t = BUF(mem);

	if (getrandom(b, sizeof b, 0) != sizeof b)
		abort();
	for (size_t i = 0; i < sizeof b; i++)
		buf_fmt(&t, "%02x", b[i]);
	return t.data;
}

static void *
on_uri(void *cls, const char *uri, struct MHD_Connection *c)
{
	struct front *f = cls;
	struct request *r = talloc_zero(f, struct request);
	const char *q = strchr(uri, '?');

	if (!r)
		abort();
	r->gw = f->gw;
	r->mhd = c;
	r->uri = talloc_strdup(r, uri);
	r->path = q ? talloc_strndup(r, uri, (size_t)(q - uri)) : r->uri;
	r->query = q ? talloc_strdup(r, q + 1) : "";
	r->body = BUF(r);
	r->reply.out = BUF(r);
	r->reply.length = -1;
	f->requests++;
	return r;
}

static void
begin(struct front *f, struct request *r, const char *method)
{
	const char *id = request_header(r, "X-Request-Id");

	r->begun = true;
	r->method = talloc_strdup(r, method);
	r->work.id = good_id(id) ? talloc_strdup(r, id) : new_id(r);
	r->work.trace = request_header(r, "traceparent");
	f->on_request(r);
}

static enum MHD_Result
on_body(struct request *r, const char *p, size_t *n)
{
	size_t took = 0;

	if (r->reply.state != REPLY_NONE) { /* nobody wants the rest */
		r->discarded += *n;
		*n = 0;
		if (r->discarded > DISCARD && r->reply.state == REPLY_READY) {
			send_early(r);
			r->reply.state = REPLY_SENT;
		}
		return r->discarded > LINGER ? MHD_NO : MHD_YES;
	}
	if (!r->may_read || !r->on_body) {
		hold(r);
		return MHD_YES;
	}
	took = r->on_body(r, p, *n);
	*n -= took;
	if (*n && r->reply.state == REPLY_NONE)
		hold(r);
	return MHD_YES;
}

static enum MHD_Result
on_access(void *cls, struct MHD_Connection *c, const char *url, const char *method,
    const char *version, const char *data, size_t *n, void **ptr)
{
	struct front *f = cls;
	struct request *r = *ptr;

	(void)c;
	(void)url;
	(void)version;
	if (!r)
		return MHD_NO;
	if (!r->begun) {
		begin(f, r, method);
		return MHD_YES;
	}
	if (*n)
		return on_body(r, data, n);
	if (r->may_read && !r->body_ended && r->reply.state == REPLY_NONE) {
		r->body_ended = true;
		if (r->on_body_end)
			r->on_body_end(r);
	}
	if (r->reply.state == REPLY_READY)
		return send_reply(r);
	if (r->reply.state == REPLY_SENT)
		return MHD_NO; /* by send_early() */
	if (r->reply.state == REPLY_NONE)
		hold(r);
	return MHD_YES;
}

static void
on_completed(void *cls, struct MHD_Connection *c, void **ptr, enum MHD_RequestTerminationCode why)
{
	struct front *f = cls;

	struct request *r = *ptr;

	(void)c;
	(void)why;

	if (!r)
		return;
	*ptr = NULL;
	if (r->upgraded)
		return; /* upgrade.c's */
	talloc_free(r);
	f->requests--;
}

/* Paths are split and decoded by route.c, from the text as it was sent. */
static size_t
no_unescape(void *cls, struct MHD_Connection *c, char *s)
{
	(void)cls;
	(void)c;
	return strlen(s);
}

static void
on_log(void *cls, const char *fmt, va_list ap)
{
	char text[256];

	(void)cls;
	vsnprintf(text, sizeof text, fmt, ap);
	text[strcspn(text, "\n")] = '\0';
	log_debug(NULL, "http: %s", text);
}

struct front *
front_open(void *mem, uv_loop_t *loop, int fd, struct gateway *gw,
    void (*on_request)(struct request *), struct err *e)
{
	struct front *f = talloc_zero(mem, struct front);
	const union MHD_DaemonInfo *info = NULL;

	if (!f)
		abort();
	*f = (struct front){ .gw = gw, .loop = loop, .on_request = on_request };
	f->mhd = MHD_start_daemon(
	    MHD_USE_EPOLL | MHD_ALLOW_SUSPEND_RESUME | MHD_ALLOW_UPGRADE | MHD_USE_ERROR_LOG, 0,
	    NULL, NULL, on_access, f, MHD_OPTION_EXTERNAL_LOGGER, on_log, NULL,
	    MHD_OPTION_LISTEN_SOCKET, fd, MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t)POOL,
	    MHD_OPTION_CONNECTION_LIMIT, (unsigned)CONNECTIONS, MHD_OPTION_CONNECTION_TIMEOUT,
	    (unsigned)SILENCE, MHD_OPTION_URI_LOG_CALLBACK, on_uri, f, MHD_OPTION_UNESCAPE_CALLBACK,
	    no_unescape, NULL, MHD_OPTION_NOTIFY_COMPLETED, on_completed, f, MHD_OPTION_END);
	info = f->mhd ? MHD_get_daemon_info(f->mhd, MHD_DAEMON_INFO_EPOLL_FD) : NULL;
	if (!info) {
		(void)err_set(e, E_SYSTEM, "cannot start the HTTP server");
		return NULL;
	}
	uv_timer_init(loop, &f->timer);
	uv_prepare_init(loop, &f->prepare);
	uv_idle_init(loop, &f->idle);
	uv_poll_init(loop, &f->poll, info->epoll_fd);
	f->timer.data = f->prepare.data = f->poll.data = f;
	uv_prepare_start(&f->prepare, on_prepare);
	uv_unref((uv_handle_t *)&f->prepare);
	uv_poll_start(&f->poll, UV_READABLE, on_poll);
	return f;
}

void
front_drain(struct front *f, void (*on_idle)(struct gateway *))
{
	int fd = -1;

	if (f->on_idle)
		return;
	f->on_idle = on_idle;
	fd = MHD_quiesce_daemon(f->mhd);
	if (fd != MHD_INVALID_SOCKET)
		close(fd);
	run(f);
}

size_t
front_requests(const struct front *f)
{
	return f->requests;
}
