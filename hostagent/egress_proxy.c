/*
 * egress_proxy.c - connections of capsules whose policy has names, to ports 80 and 443.
 *
 * The name is read from the first bytes, resolved here, and the address looked at: what the guest
 * believes the address to be does not count. A connection without a name goes by its address.
 */
#include "egress_own.h"

#include <arpa/inet.h>
#include <errno.h>
#include <linux/netfilter_ipv4.h>
#include <string.h>
#include <sys/socket.h>

enum {
	HEAD_MAX = 24576,
	HEAD_MS = 10000,
	CONNECT_MS = 10000,
	CONNS = 1024, /* of one capsule */
	CHUNK = 65536,
	QUEUE_MAX = 4 * CHUNK,
};

/* One of the two sides; closed by uv_close(), which outlives the connection. */
struct side {
	uv_tcp_t tcp;
	uv_connect_t connect;
	struct conn *conn; /* NULL: it is gone */
	bool open, ended, paused;
};

struct conn {
	TAILQ_ENTRY(conn) link;
	struct outlet *outlet;
	struct side *guest, *far;
	char name[NET_NAME]; /* "": none */
	uint32_t addr;       /* where the guest wanted to go, then where it went */
	uint16_t port;
	uint8_t *head;
	size_t len;
	struct timer *timer;
};

struct write {
	uv_write_t req;
	struct side *from;
	char data[];
};

static void
side_closed(uv_handle_t *h)
{
	free(h->data);
}

static void
side_end(struct side *s)
{
	if (!s)
		return;
	s->conn = NULL;
	if (s->open)
		uv_close((uv_handle_t *)&s->tcp, side_closed);
	else
		free(s);
}

static int
conn_free(struct conn *c)
{
	TAILQ_REMOVE(&c->outlet->conns, c, link);
	c->outlet->conn_count--;
	side_end(c->guest);
	side_end(c->far);
	return 0;
}

static struct side *
side_new(struct conn *c, int fd)
{
	struct side *s = calloc(1, sizeof *s);

	if (!s)
		abort();
	s->conn = c;
	if (uv_tcp_init(c->outlet->egress->loop, &s->tcp) == 0) {
		s->open = true;
		s->tcp.data = s;
		if (fd >= 0 && uv_tcp_open(&s->tcp, fd) == 0)
			return s;
		if (fd < 0)
			return s;
	}
	close(fd);
	return s;
}

static void
conn_late(void *arg)
{
	talloc_free(arg);
}

/* Both ways, with a bound on what waits. */

static void relay_read(uv_stream_t *, ssize_t, const uv_buf_t *);

static void
on_buffer(uv_handle_t *h, size_t wish, uv_buf_t *b)
{
	struct write *w = malloc(sizeof *w + CHUNK);

	(void)h;
	(void)wish;
	b->base = w ? w->data : NULL;
	b->len = w ? CHUNK : 0;
}

static struct write *
write_of(const uv_buf_t *b)
{
	return (struct write *)(b->base - offsetof(struct write, data));
}

static struct side *
other(const struct side *s)
{
	return s == s->conn->guest ? s->conn->far : s->conn->guest;
}

static void
on_written(uv_write_t *req, int status)
{
	struct write *w = (struct write *)req;
	struct side *to = req->handle->data, *from = to->conn ? other(to) : NULL;

	free(w);
	if (!to->conn)
		return;
	if (status < 0) {
		talloc_free(to->conn);
		return;
	}
	if (from && from->paused &&
	    uv_stream_get_write_queue_size((uv_stream_t *)&to->tcp) < QUEUE_MAX) {
		from->paused = false;
		(void)uv_read_start((uv_stream_t *)&from->tcp, on_buffer, relay_read);
	}
}

static void
on_shutdown(uv_shutdown_t *req, int status)
{
	(void)status;
	free(req);
}

/* One direction has ended; the connection does when both have. */
static void
side_ended(struct side *s)
{
	struct side *to = other(s);
	uv_shutdown_t *req;

	s->ended = true;
	if (to->ended) {
		talloc_free(s->conn);
		return;
	}
	req = malloc(sizeof *req);
	if (!req || uv_shutdown(req, (uv_stream_t *)&to->tcp, on_shutdown) < 0) {
		free(req);
		talloc_free(s->conn);
	}
}

static void
relay_read(uv_stream_t *stream, ssize_t n, const uv_buf_t *b)
{
	struct side *s = stream->data, *to = s->conn ? other(s) : NULL;
	struct write *w = b->base ? write_of(b) : NULL;
	uv_buf_t out = uv_buf_init(b->base, n > 0 ? (unsigned)n : 0);

	if (!to || n <= 0) {
		free(w);
		if (!to || n == 0)
			return;
		if (n == UV_EOF)
			side_ended(s);
		else
			talloc_free(s->conn);
		return;
	}
	w->from = s;
	if (uv_write(&w->req, (uv_stream_t *)&to->tcp, &out, 1, on_written) < 0) {
		free(w);
		talloc_free(s->conn);
		return;
	}
	if (uv_stream_get_write_queue_size((uv_stream_t *)&to->tcp) > QUEUE_MAX) {
		s->paused = true;
		(void)uv_read_stop(stream);
	}
}

static void
on_connected(uv_connect_t *req, int status)
{
	struct side *s = req->handle->data;
	struct conn *c = s->conn;
	struct write *w;
	uv_buf_t out;

	if (!c || status < 0) {
		talloc_free(c);
		return;
	}
	TALLOC_FREE(c->timer);
	w = malloc(sizeof *w + c->len);
	if (!w)
		abort();
	memcpy(w->data, c->head, c->len);
	out = uv_buf_init(w->data, (unsigned)c->len);
	TALLOC_FREE(c->head);
	if (uv_write(&w->req, (uv_stream_t *)&c->far->tcp, &out, 1, on_written) < 0 ||
	    uv_read_start((uv_stream_t *)&c->far->tcp, on_buffer, relay_read) < 0 ||
	    uv_read_start((uv_stream_t *)&c->guest->tcp, on_buffer, relay_read) < 0)
		talloc_free(c);
}

/* By name when there is one, else by address; and never to this machine. */
static bool
may(const struct conn *c, uint32_t addr)
{
	const struct net_policy *p = &c->outlet->policy;
	enum net_verdict v = *c->name ? net_name_verdict(p, c->name) : NET_BY_ADDRESS;

	if (v == NET_DENIED || net_never(addr))
		return false;
	return (v == NET_ALLOWED || net_address_allowed(p, addr)) &&
	    netlink_leaves(c->outlet->egress->link, addr);
}

static void
go(struct conn *c, uint32_t addr)
{
	struct sockaddr_in a = {
		.sin_family = AF_INET, .sin_port = htons(c->port), .sin_addr.s_addr = htonl(addr)
	};

	c->addr = addr;
	c->far = side_new(c, -1);
	c->timer = timer_new(c, c->outlet->egress->loop, CONNECT_MS, 0, conn_late, c);
	if (uv_tcp_connect(&c->far->connect, &c->far->tcp, (struct sockaddr *)&a, on_connected) < 0)
		talloc_free(c);
}

static void
on_addresses(void *arg, const uint32_t *addr, size_t n)
{
	struct conn *c = arg;
	size_t i;

	for (i = 0; i < n; i++)
		if (may(c, addr[i])) {
			go(c, addr[i]);
			return;
		}
	talloc_free(c);
}

static void
head_end(struct conn *c, int found)
{
	const struct net_policy *p = &c->outlet->policy;

	(void)uv_read_stop((uv_stream_t *)&c->guest->tcp);
	TALLOC_FREE(c->timer);
	if (found < 0) {
		*c->name = '\0';
		if (may(c, c->addr))
			go(c, c->addr);
		else
			talloc_free(c);
	} else if (net_name_verdict(p, c->name) == NET_DENIED)
		talloc_free(c);
	else
		(void)resolve(c, c->outlet->egress, c->name, on_addresses, c);
}

static void
head_read(uv_stream_t *stream, ssize_t n, const uv_buf_t *b)
{
	struct side *s = stream->data;
	struct conn *c = s->conn;
	struct write *w = b->base ? write_of(b) : NULL;
	int found;

	if (!c || n == 0 || (n > 0 && c->len + (size_t)n > HEAD_MAX) || n < 0) {
		free(w);
		if (n != 0)
			talloc_free(c);
		return;
	}
	memcpy(c->head + c->len, b->base, (size_t)n);
	c->len += (size_t)n;
	free(w);
	found = head_name(c->head, c->len, c->name);
	if (found)
		head_end(c, found);
}

void
proxy_accept(void *outlet, int events)
{
	struct outlet *o = outlet;
	struct sockaddr_in a = { 0 };
	socklen_t len = sizeof a;
	int fd = accept4(o->fd[2], NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	struct conn *c;

	(void)events;
	if (fd < 0)
		return;
	if (o->conn_count >= CONNS || getsockopt(fd, SOL_IP, SO_ORIGINAL_DST, &a, &len) < 0) {
		close(fd);
		return;
	}
	c = talloc_zero(o, struct conn);
	c->outlet = o;
	TAILQ_INSERT_TAIL(&o->conns, c, link);
	o->conn_count++;
	talloc_set_destructor(c, conn_free);
	c->addr = ntohl(a.sin_addr.s_addr);
	c->port = ntohs(a.sin_port);
	c->head = talloc_size(c, HEAD_MAX);
	c->guest = side_new(c, fd);
	c->timer = timer_new(c, o->egress->loop, HEAD_MS, 0, conn_late, c);
	if (uv_read_start((uv_stream_t *)&c->guest->tcp, on_buffer, head_read) < 0)
		talloc_free(c);
}

void
proxy_review(struct outlet *o)
{
	struct conn *c, *next;

	for (c = TAILQ_FIRST(&o->conns); c; c = next) {
		next = TAILQ_NEXT(c, link);
		if (c->far && !may(c, c->addr))
			talloc_free(c);
	}
}
