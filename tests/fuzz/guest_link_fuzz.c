/*
 * guest_link_fuzz.c - what a virtio-serial port delivers: pieces of sessions that are over, ends of
 * file that speak of hosts before this one, prefaces within frames, several sessions at once.
 *
 * Whatever came: a host that comes now is met, with the hails it has, and its call is answered.
 */
#include "fuzz.h"

#include "guest_machine.h"

#include <dirent.h>
#include <errno.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>

enum { PIECES = 64, PAGE = 4096, HAILS = 5, TURNS = 400 };

/* The port: what read() gives, piece by piece, and what was written. */
static struct {
	struct buf in, out;
	size_t piece[PIECES], pieces;
	bool end; /* an end of file behind them */
} port;

static ssize_t
port_read(void *to, size_t room)
{
	size_t n;

	if (!port.pieces) {
		errno = EAGAIN;
		n = port.end ? 0 : (size_t)-1;
		port.end = false;
		return (ssize_t)n;
	}
	n = port.piece[0];
	if (n > room)
		abort(); /* a page would be lost */
	memcpy(to, port.in.data, n);
	buf_cut(&port.in, n);
	memmove(port.piece, port.piece + 1, --port.pieces * sizeof *port.piece);
	return (ssize_t)n;
}

static ssize_t
port_write(const void *p, size_t n)
{
	buf_add(&port.out, p, n);
	return (ssize_t)n;
}

#define read(fd, p, n)  port_read(p, n)
#define write(fd, p, n) port_write(p, n)
#include "guestagent/link.c"

/* ---- the host */

static struct h2 *host; /* NULL: nobody is there */
static int status;      /* of its call */

static void
host_head(struct h2_stream *s, const struct h2_head *h)
{
	(void)s;
	status = h->status;
}

static void
host_data(struct h2_stream *s, const uint8_t *p, size_t n)
{
	(void)p;
	h2_consume(s, n);
}

static const struct h2_events host_events = { .on_head = host_head, .on_data = host_data };

static void
say(const uint8_t *p, size_t n)
{
	for (size_t k; n && port.pieces < PIECES; p += k, n -= k) {
		k = n < PAGE ? n : PAGE;
		buf_add(&port.in, p, k);
		port.piece[port.pieces++] = k;
	}
}

static uint32_t marks;

static struct h2_mark
mark_new(void)
{
	return (struct h2_mark){ { 0x6d61726b, ++marks } };
}

static void
host_comes(void *mem)
{
	static const struct h2_header head[] = { { ":method", "GET" }, { ":path", "/health" },
		{ 0 } };
	struct h2_mark mark = mark_new();
	struct h2_limits limits = { .mark = &mark };
	struct err e = { 0 };

	TALLOC_FREE(host);
	host = h2_new(mem, H2_CLIENT, &host_events, &limits, NULL);
	status = 0;
	if (!h2_request(host, head, true, NULL, &e))
		abort();
}

/* What the host says goes in, what the guest says comes out, while there is any. */
static bool
turn(struct link *l)
{
	const uint8_t *p = NULL;
	struct err e = { 0 };
	bool moved = port.pieces > 0 || port.end;
	ssize_t n;

	link_ready(l, EPOLLIN);
	link_flush(l);
	if (host && port.out.len) {
		moved = true;
		if (h2_feed(host, (const uint8_t *)port.out.data, port.out.len, &e) < 0)
			TALLOC_FREE(host);
	}
	buf_clear(&port.out);
	while (host && port.pieces < PIECES / 2 && (n = h2_pull(host, &p)) > 0) {
		say(p, (size_t)n);
		moved = true;
	}
	return moved;
}

static void
settle(struct link *l)
{
	int i = 0;

	while (turn(l))
		if (++i == TURNS)
			abort(); /* it spins */
}

static void
last_host(void *mem, struct link *l)
{
	struct h2_mark mark;

	host_comes(mem);
	settle(l);
	for (int i = 0; host && !h2_met(host) && i < HAILS; i++) {
		mark = mark_new();
		h2_hail(host, &mark);
		settle(l);
	}
	if (!host || !h2_met(host) || !status)
		abort();
}

static struct link *
link_here(void)
{
	static bool begun;
	static int fd;
	struct link *l;

	if (!begun) {
		log_open("fuzz", LOG_LEVEL_ERROR);
		(void)setenv("HUTCH_FUZZ", "1", 1);
		fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
		port.in = BUF(NULL);
		port.out = BUF(NULL);
	}
	begun = true;
	l = link_new(fd, true);
	link_wait(l);
	return l;
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct fuzz f = { data, size };
	void *mem = talloc_new(NULL);
	struct link *l = link_here();
	bool quiet = fuzz_byte(&f) & 1; /* the last host comes behind an end of file */
	const uint8_t *p = NULL;
	size_t n;

	while (f.n) {
		uint8_t what = fuzz_byte(&f);

		switch (what & 3) {
		case 0:
			n = fuzz_piece(&f, PAGE, &p);
			say(p, n);
			break;
		case 1:
			port.end = true;
			break;
		case 2:
			host_comes(mem);
			break;
		default:
			settle(l);
		}
		if (what & 4 || port.pieces > PIECES / 2 || port.end)
			(void)turn(l);
		if (what & 8)
			TALLOC_FREE(host); /* it goes, and says nothing */
	}
	settle(l);
	TALLOC_FREE(host);
	port.end = quiet;
	settle(l);
	last_host(mem, l);
	links = l->next;
	watch_stop(&l->watch);
	timer_stop(&l->retry);
	session_drop(l);
	talloc_free(l);
	talloc_free(mem);
	host = NULL;
	marks = 0;
	return 0;
}
