/* link.c - see link.h. */
#include "link.h"

#include "buf.h"
#include "cleanup.h"
#include "h2.h"
#include "log.h"
#include "loop.h"
#include "server.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/un.h>

enum {
	READ_SIZE = 64 * 1024,
	PIECE_MAX = 4096, /* a read() of the port gives one of the driver's pages at most */
	OUT_SIZE = 64 * 1024,
	FLUSH_MAX = 1024 * 1024,
	PORT_WAIT_MS = 10000,
	RETRY_MS = 500,
	GONE_MS = 30000, /* nobody there for so long: what the session holds is given back */
};

static const char preface[] = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

enum link_state {
	LINK_WAITING, /* the port's other end is closed; an edge or the timer wakes us */
	LINK_OPEN,    /* a session lives */
	LINK_MUTE,    /* the peer broke the protocol: nothing is heard until its end of file */
};

struct link {
	struct watch watch;
	struct timer retry;
	enum link_state state;
	bool port;      /* outlives its peers */
	bool fed;       /* the session has had bytes */
	bool cut;       /* an end of file was seen behind the last byte */
	bool shut;      /* nobody seems to be at the port's other end */
	uint64_t since; /* when that was first seen */
	struct h2 *h2;
	struct buf out; /* some frames: one write for many is what the port likes */
	size_t at;      /* of out, written already */
	struct link *next;
};

static struct link *links;

static void
session_drop(struct link *l)
{
	TALLOC_FREE(l->h2);
	buf_clear(&l->out);
	l->at = 0;
}

static void
link_wait(void *arg)
{
	struct link *l = arg;

	l->state = LINK_WAITING;
	/* POLLHUP is level-triggered for as long as nobody is there: only its edges are asked for.
	   A host that comes is one. The timer is a second string. */
	watch_set(&l->watch, EPOLLIN | EPOLLOUT | EPOLLET);
	timer_set(&l->retry, RETRY_MS);
}

static void
link_end(struct link *l)
{
	struct link **at = &links;

	session_drop(l);
	if (l->port) {
		link_wait(l);
		return;
	}
	while (*at != l)
		at = &(*at)->next;
	*at = l->next;
	watch_stop(&l->watch);
	(void)close(l->watch.fd);
	talloc_free(l);
}

/* p: the host's first bytes; the mark in them is said back. */
static void
link_begin(struct link *l, const uint8_t *p, size_t n)
{
	struct h2_mark mark = h2_mark_of(p, n);
	struct h2_limits limits = server_limits;

	timer_stop(&l->retry);
	session_drop(l);
	l->state = LINK_OPEN;
	l->fed = l->cut = l->shut = false;
	limits.mark = &mark;
	l->h2 = h2_new(l, H2_SERVER, &server_events, &limits, l);
	watch_set(&l->watch, EPOLLIN);
}

static void
out_add(struct link *l)
{
	size_t max = l->out.len + OUT_SIZE;
	const uint8_t *p = NULL;
	ssize_t n = 0;

	while (l->out.len < max && (n = h2_pull(l->h2, &p)) > 0)
		buf_add(&l->out, p, (size_t)n);
}

/* False: nothing to send. */
static bool
out_fill(struct link *l)
{
	if (l->at < l->out.len)
		return true;
	buf_clear(&l->out);
	l->at = 0;
	out_add(l);
	return l->out.len > 0;
}

/* What an open link waits for. Behind an end of file POLLHUP stands: level-triggered it would spin.
 */
static void
link_watch(struct link *l, bool more)
{
	if (l->state != LINK_OPEN)
		return;
	if (l->shut)
		watch_set(&l->watch, EPOLLIN | EPOLLOUT | EPOLLET);
	else
		watch_set(&l->watch, EPOLLIN | (more ? EPOLLOUT : 0));
}

static void
link_flush(struct link *l)
{
	size_t flushed = 0;

	while (l->h2 && out_fill(l)) {
		ssize_t n = flushed < FLUSH_MAX
		    ? write(l->watch.fd, l->out.data + l->at, l->out.len - l->at)
		    : 0;

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0) {
			/* Full, or it is others' turn. A peer that is gone shows in read(). */
			link_watch(l, true);
			return;
		}
		l->at += (size_t)n;
		flushed += (size_t)n;
	}
	link_watch(l, false);
}

static bool
is_preface(const uint8_t *p, size_t n)
{
	return n >= sizeof preface - 1 && memcmp(p, preface, sizeof preface - 1) == 0;
}

/* A session that says goodbye hears nothing more, but knows it only when its last word is pulled.
 */
static bool
broken(struct link *l)
{
	out_add(l);
	return !h2_alive(l->h2);
}

/*
 * A host that comes back may find us with the old session: its end of file is not seen when it is
 * quick, or when it restored us from memory. Its preface then is no frame, and where a frame must
 * begin it breaks the old session; inside of one it is somebody's data and means nothing, unless an
 * end of file stands before it.
 */
static void
link_fed(struct link *l, const uint8_t *p, size_t n)
{
	bool anew = is_preface(p, n);
	struct err e = { 0 };

	if (l->state == LINK_WAITING || (anew && (l->state == LINK_MUTE || l->cut)))
		link_begin(l, p, n);
	l->cut = l->shut = false;
	if (l->state == LINK_MUTE)
		return;
	if (h2_feed(l->h2, p, n, &e) == 0 && !(anew && l->fed && broken(l))) {
		l->fed = true;
		return;
	}
	if (anew && l->fed) {
		e = (struct err){ 0 };
		link_begin(l, p, n);
		l->fed = true;
		if (h2_feed(l->h2, p, n, &e) == 0)
			return;
	}
	log_warn(NULL, "session ended: %s", e.text);
	link_flush(l);
	session_drop(l);
	l->state = LINK_MUTE;
	watch_set(&l->watch, EPOLLIN);
}

/* The port gives a page with each read: gather some. -1: the end of file, after *got bytes. */
static int
gather(struct link *l, uint8_t *in, size_t *got)
{
	size_t n = 0;

	*got = 0;
	while (READ_SIZE - n >= PIECE_MAX) {
		ssize_t k = read(l->watch.fd, in + n, READ_SIZE - n);

		if (k < 0 && errno == EINTR)
			continue;
		if (k < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
			break;
		if (k <= 0) {
			*got = n;
			return -1;
		}
		if (n && is_preface(in + n, (size_t)k)) {
			/* Another session begins here. */
			link_fed(l, in, n);
			memmove(in, in + n, (size_t)k);
			n = 0;
		}
		n += (size_t)k;
	}
	*got = n;
	return 0;
}

/*
 * An end of file of a port is old news: that a host came or went is told in another queue than its
 * bytes, and on a busy machine long after them, so it may speak of the host before this one.
 * Whoever is there, nothing is lost by waiting: the same host goes on when the news are up to date,
 * another one begins with a preface, and hears nothing that is not marked as its own.
 */
static void
link_shut(struct link *l)
{
	if (!l->shut)
		l->since = loop_now();
	l->cut = l->shut = true;
	if (loop_now() - l->since >= GONE_MS) {
		link_end(l);
		return;
	}
	link_watch(l, false);
	timer_set(&l->retry, RETRY_MS);
}

static void
link_ready(void *arg, uint32_t events)
{
	static uint8_t in[READ_SIZE];
	struct link *l = arg;
	size_t n = 0;
	int rc = gather(l, in, &n);

	(void)events;
	if (n)
		link_fed(l, in, n);
	if (rc < 0 && l->port && l->state == LINK_OPEN)
		link_shut(l);
	else if (rc < 0 || (l->state == LINK_MUTE && !l->port))
		link_end(l);
	else if (l->state == LINK_WAITING)
		link_wait(l);
	else if (l->shut) {
		l->shut = false;
		timer_stop(&l->retry);
		link_watch(l, false);
	}
}

static void
link_retry(void *arg)
{
	link_ready(arg, 0);
}

static struct link *
link_new(int fd, bool port)
{
	struct link *l = talloc_zero(NULL, struct link);

	if (!l)
		abort();
	l->watch = (struct watch){ .fd = fd, .fn = link_ready, .arg = l };
	l->retry = (struct timer){ .fn = link_retry, .arg = l };
	l->port = port;
	l->out = BUF(l);
	l->next = links;
	links = l;
	return l;
}

void
link_flush_all(void)
{
	for (struct link *l = links; l; l = l->next)
		link_flush(l);
}

static int
port_named(const char *name)
{
	DIR *d = opendir("/sys/class/virtio-ports");
	struct dirent *e = NULL;
	int fd = -1;

	while (d && fd < 0 && (e = readdir(d))) {
		char path[300], text[64] = "";
		auto_file *f = NULL;

		if (e->d_name[0] == '.')
			continue;
		(void)snprintf(path, sizeof path, "/sys/class/virtio-ports/%s/name", e->d_name);
		f = fopen(path, "re");
		if (!f || !fgets(text, sizeof text, f))
			continue;
		text[strcspn(text, "\n")] = '\0';
		if (strcmp(text, name) != 0)
			continue;
		(void)snprintf(path, sizeof path, "/dev/%s", e->d_name);
		fd = open(path, O_RDWR | O_NONBLOCK | O_CLOEXEC);
	}
	if (d)
		(void)closedir(d);
	return fd;
}

int
link_open_port(const char *name, struct err *e)
{
	int fd = -1;

	for (int i = 0; fd < 0 && i < PORT_WAIT_MS / 2; i++) {
		fd = port_named(name);
		if (fd < 0)
			(void)usleep(2000);
	}
	if (fd < 0)
		return err_set(e, E_NOT_FOUND, "no virtio-serial port %s", name);
	link_wait(link_new(fd, true));
	return 0;
}

static void
listener_ready(void *arg, uint32_t events)
{
	struct watch *w = arg;
	int fd = accept4(w->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);

	(void)events;
	/* Its first bytes begin the session: a preface that follows our SETTINGS would begin a
	 * second. */
	if (fd >= 0)
		watch_set(&link_new(fd, false)->watch, EPOLLIN);
}

int
link_listen_unix(const char *path, struct err *e)
{
	static struct watch w;
	struct sockaddr_un a = { .sun_family = AF_UNIX };
	auto_fd fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

	if (strlen(path) >= sizeof a.sun_path)
		return err_set(e, E_BAD_INPUT, "the path of the socket is too long");
	(void)snprintf(a.sun_path, sizeof a.sun_path, "%s", path);
	(void)unlink(path);
	if (fd < 0 || bind(fd, (struct sockaddr *)&a, sizeof a) < 0 || listen(fd, 128) < 0)
		return err_sys(e, "listen on %s", path);
	w = (struct watch){ .fd = take_fd(&fd), .fn = listener_ready, .arg = &w };
	watch_set(&w, EPOLLIN);
	return 0;
}
