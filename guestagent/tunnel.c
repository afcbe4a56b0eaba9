/*
 * tunnel.c - CONNECT localhost:PORT (RFC 9113 §8.5): a byte stream to a port of this machine.
 *
 * The machine's own address is dialled first, then 127.0.0.1 and [::1], so that a service is
 * reached wherever it listens. A byte is taken from one side only when the other side took those
 * before it. An end goes on as an end, a break as a reset.
 */
#include "cleanup.h"
#include "handlers.h"
#include "text.h"

#include <arpa/inet.h>
#include <errno.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <nghttp2/nghttp2.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>

enum { DIAL_MS = 2000, READ = 16 * 1024, PLACES = 3 };

struct tunnel {
	struct call *call;
	struct watch watch;
	struct timer late;
	uint16_t port;
	int place;     /* the next of places[] to dial */
	bool open;     /* the service took the connection */
	struct buf in; /* for the service, not yet taken */
	size_t at;     /* of in, taken */
	bool in_ended, in_closed;
	bool out_ended; /* the service's end was seen */
};

/* ---- where */

/* The first address that is not the loopback's. */
static bool
own_address(struct in_addr *ret)
{
	struct ifaddrs *list = NULL;
	bool found = false;

	if (getifaddrs(&list) < 0)
		return false;
	for (struct ifaddrs *i = list; i && !found; i = i->ifa_next) {
		if (!i->ifa_addr || i->ifa_addr->sa_family != AF_INET ||
		    i->ifa_flags & IFF_LOOPBACK || !(i->ifa_flags & IFF_UP))
			continue;
		*ret = ((struct sockaddr_in *)i->ifa_addr)->sin_addr;
		found = true;
	}
	freeifaddrs(list);
	return found;
}

/* The n-th place to look for the service; false: this machine has no such place. */
static bool
place(int n, uint16_t port, struct sockaddr_storage *a, socklen_t *len)
{
	struct sockaddr_in *four = (struct sockaddr_in *)a;
	struct sockaddr_in6 *six = (struct sockaddr_in6 *)a;

	memset(a, 0, sizeof *a);
	if (n == 2) {
		*six = (struct sockaddr_in6){ .sin6_family = AF_INET6, .sin6_port = htons(port) };
		six->sin6_addr = in6addr_loopback;
		*len = sizeof *six;
		return true;
	}
	*four = (struct sockaddr_in){ .sin_family = AF_INET, .sin_port = htons(port) };
	four->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	*len = sizeof *four;
	return n == 1 || own_address(&four->sin_addr);
}

/* ---- the end */

static void
socket_close(struct tunnel *t, bool broken)
{
	struct linger now = { .l_onoff = 1 };

	watch_stop(&t->watch);
	if (t->watch.fd >= 0 && broken)
		(void)setsockopt(t->watch.fd, SOL_SOCKET, SO_LINGER, &now, sizeof now);
	cleanup_fd(&t->watch.fd);
	t->watch.fd = -1;
}

static void
tunnel_gone(struct call *c)
{
	struct tunnel *t = c->state;

	timer_stop(&t->late);
	socket_close(t, !t->in_closed || !t->out_ended);
}

/* The service broke off: the caller's stream is reset. */
static void
tunnel_break(struct tunnel *t)
{
	socket_close(t, true);
	t->call->discard = true;
	h2_reset(t->call->stream, NGHTTP2_CONNECT_ERROR);
}

/* ---- bytes */

static void
tunnel_watch(struct tunnel *t)
{
	bool room = h2_queued(t->call->stream) < H2_LOW && !t->out_ended;

	if (t->watch.fd < 0)
		return;
	watch_set(&t->watch, (room ? EPOLLIN : 0) | (t->at < t->in.len ? EPOLLOUT : 0));
	/* nothing is asked for: an error would be told all the same, and again and again */
	if (!t->watch.events && t->in_closed && t->out_ended)
		socket_close(t, false);
}

/* To the service. -1: it broke off. */
static int
push(struct tunnel *t)
{
	while (t->at < t->in.len) {
		ssize_t n = send(t->watch.fd, t->in.data + t->at, t->in.len - t->at, MSG_NOSIGNAL);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno == EAGAIN)
			return 0;
		if (n < 0)
			return -1;
		t->at += (size_t)n;
		call_took(t->call, (size_t)n);
	}
	buf_clear(&t->in);
	t->at = 0;
	if (t->in_ended && !t->in_closed) {
		t->in_closed = true;
		(void)shutdown(t->watch.fd, SHUT_WR);
	}
	return 0;
}

/* From the service, as much as the caller's queue has room for. -1: it broke off. */
static int
pull(struct tunnel *t)
{
	static char data[READ];

	while (!t->out_ended && h2_queued(t->call->stream) < H2_LOW) {
		ssize_t n = recv(t->watch.fd, data, sizeof data, 0);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return errno == EAGAIN ? 0 : -1;
		if (n == 0) {
			t->out_ended = true;
			t->call->ended = true;
			h2_finish(t->call->stream);
			break;
		}
		h2_write(t->call->stream, data, (size_t)n);
		if ((size_t)n < sizeof data)
			break;
	}
	return 0;
}

static void
tunnel_ready(struct tunnel *t, uint32_t events)
{
	int rc = events & EPOLLERR ? -1 : 0;

	if (rc == 0 && (events & (EPOLLIN | EPOLLHUP)))
		rc = pull(t);
	if (rc == 0 && (events & EPOLLOUT))
		rc = push(t);
	if (rc < 0)
		tunnel_break(t);
	else
		tunnel_watch(t);
}

static void
tunnel_data(struct call *c, const uint8_t *p, size_t n)
{
	struct tunnel *t = c->state;

	if (t->in_ended || (t->open && t->watch.fd < 0)) {
		call_took(c, n);
		return;
	}
	buf_add(&t->in, p, n);
	if (!t->open)
		return;
	if (push(t) < 0)
		tunnel_break(t);
	else
		tunnel_watch(t);
}

static void
tunnel_end(struct call *c)
{
	struct tunnel *t = c->state;

	t->in_ended = true;
	if (!t->open || t->watch.fd < 0)
		return;
	if (push(t) < 0)
		tunnel_break(t);
	else
		tunnel_watch(t);
}

static void
tunnel_drain(struct call *c)
{
	struct tunnel *t = c->state;

	if (t->open)
		tunnel_watch(t);
}

/* ---- the beginning */

static void dial(struct tunnel *);

static void
dial_next(struct tunnel *t)
{
	timer_stop(&t->late);
	socket_close(t, true);
	dial(t);
}

static void
dial_late(void *arg)
{
	dial_next(arg);
}

static void
tunnel_open(struct tunnel *t)
{
	int on = 1;

	timer_stop(&t->late);
	(void)setsockopt(t->watch.fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
	t->open = true;
	t->call->answered = true;
	h2_respond(t->call->stream, 200, NULL, false);
	if (push(t) < 0)
		tunnel_break(t);
	else
		tunnel_watch(t);
}

static void
socket_ready(void *arg, uint32_t events)
{
	struct tunnel *t = arg;
	int error = 0;
	socklen_t len = sizeof error;

	if (t->open) {
		tunnel_ready(t, events);
		return;
	}
	if (getsockopt(t->watch.fd, SOL_SOCKET, SO_ERROR, &error, &len) < 0 || error)
		dial_next(t);
	else
		tunnel_open(t);
}

static void
dial(struct tunnel *t)
{
	struct sockaddr_storage a;
	socklen_t len;

	while (t->place < PLACES) {
		if (!place(t->place++, t->port, &a, &len))
			continue;
		t->watch.fd = socket(a.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
		if (t->watch.fd >= 0 &&
		    (connect(t->watch.fd, (struct sockaddr *)&a, len) == 0 ||
			errno == EINPROGRESS)) {
			watch_set(&t->watch, EPOLLOUT);
			timer_set(&t->late, DIAL_MS);
			return;
		}
		socket_close(t, true);
	}
	t->call->on_data = NULL;
	call_took(t->call, t->in.len);
	buf_clear(&t->in);
	call_fail_as(t->call, 502, NULL, "port is not open");
}

void
tunnel_connect(struct call *c)
{
	const char *where = call_header(c, ":authority");
	struct tunnel *t = talloc_zero(c, struct tunnel);
	int64_t port = 0;

	if (!t)
		abort();
	if (!where || strncmp(where, "localhost:", 10) != 0 ||
	    text_int(where + 10, 1, 65535, &port, &c->err) < 0) {
		call_fail_as(c, 400, NULL, "CONNECT takes localhost and a port");
		return;
	}
	*t = (struct tunnel){ .call = c, .port = (uint16_t)port, .in = BUF(t) };
	t->watch = (struct watch){ .fd = -1, .fn = socket_ready, .arg = t };
	t->late = (struct timer){ .fn = dial_late, .arg = t };
	c->state = t;
	c->on_data = tunnel_data;
	c->on_end = tunnel_end;
	c->on_drain = tunnel_drain;
	c->on_gone = tunnel_gone;
	dial(t);
}
