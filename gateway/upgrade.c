/* upgrade.c - see upgrade.h. The wire outlives the request by its last words, therefore it is its
 * own. */
#include "upgrade.h"

#include "front.h"
#include "gateway.h"
#include "log.h"
#include "timer.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <talloc.h>
#include <unistd.h>

enum { READ_MAX = 64 * 1024, LINGER_MS = 30000 };

/* libuv closes handles a turn later. */
struct handle {
	uv_poll_t uv;
	struct wire *wire; /* NULL: gone */
};

/* The socket and what waits to be written. */
struct wire {
	struct gateway *gw;
	struct sock *sock; /* NULL: last words are being sent */
	struct handle *h;
	struct timer *timer; /* the end of last words, or of a broken connection */
	int fd, events;
	struct buf out;
	size_t taken; /* of out */
	bool paused, eof, finish, broken;
};

struct sock {
	struct request *r;
	struct wire *wire; /* NULL: before the 101, and after the end */
	const struct sock_events *on;
	void *arg;
	struct sock *next, **at; /* in gw->socks, while open */
	struct buf early;        /* written before the 101 */
	bool paused, over;       /* over: closed before the 101 */
};

static void on_poll(uv_poll_t *, int, int);

/* ---- the wire */

static size_t
queued(const struct wire *w)
{
	return w->out.len - w->taken;
}

static void
wait_for_events(struct wire *w)
{
	int want = (!w->eof && !w->paused ? UV_READABLE : 0) | (queued(w) ? UV_WRITABLE : 0);

	if (want == w->events)
		return;
	w->events = want;
	if (want)
		uv_poll_start(&w->h->uv, want, on_poll);
	else
		uv_poll_stop(&w->h->uv);
}

static void
on_closed(uv_handle_t *h)
{
	free(h);
}

static void
wire_free(struct wire *w)
{
	struct gateway *gw = w->gw;

	w->h->wire = NULL;
	uv_close((uv_handle_t *)&w->h->uv, on_closed);
	close(w->fd);
	talloc_free(w);
	front_ended(gw->front);
}

static void
release(void *arg)
{
	talloc_free(arg);
}

/* The request goes when nobody on the stack works with it any more. */
static void
detach(struct sock *s)
{
	s->wire->sock = NULL;
	s->wire = NULL;
	*s->at = s->next;
	if (s->next)
		s->next->at = s->at;
	s->at = NULL;
	(void)timer_start(s->r, s->r->gw->loop, 0, 0, release, s->r);
}

static void
lost(void *arg)
{
	struct wire *w = arg;
	struct sock *s = w->sock;

	if (s) {
		detach(s);
		if (s->on->on_close)
			s->on->on_close(s);
	}
	wire_free(w);
}

/* Found out while somebody was writing: told in a turn of its own. */
static void
broken(struct wire *w)
{
	if (w->broken)
		return;
	w->broken = w->eof = true;
	TALLOC_FREE(w->out.data);
	w->out = BUF(w);
	w->taken = 0;
	TALLOC_FREE(w->timer);
	w->timer = timer_start(w, w->gw->loop, 0, 0, lost, w);
}

static void
flush(struct wire *w)
{
	size_t sent = 0;

	while (queued(w)) {
		ssize_t n = send(w->fd, w->out.data + w->taken, queued(w), MSG_NOSIGNAL);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno != EAGAIN) {
			broken(w);
			return;
		}
		if (n < 0)
			break;
		w->taken += (size_t)n;
		sent += (size_t)n;
	}
	if (!queued(w)) {
		TALLOC_FREE(w->out.data);
		w->out = BUF(w);
		w->taken = 0;
		if (w->finish)
			(void)shutdown(w->fd, SHUT_WR);
		w->finish = false;
	} else if (w->taken > SOCK_HIGH) {
		memmove(w->out.data, w->out.data + w->taken, queued(w));
		w->out.len -= w->taken;
		w->taken = 0;
	}
	if (sent && w->sock && w->sock->on->on_taken)
		w->sock->on->on_taken(w->sock, sent);
}

/* Last words: written, then what the peer still says is read, so that it does not find the
   connection closed under its writing; until it closes, or for LINGER_MS. */
static void
on_last(struct wire *w, int events)
{
	static char ignored[READ_MAX];
	ssize_t n = events & UV_READABLE ? recv(w->fd, ignored, sizeof ignored, 0) : 1;

	if (events & UV_WRITABLE)
		flush(w);
	if (w->broken || n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR))
		wire_free(w);
	else
		wait_for_events(w);
}

static void
read_more(struct wire *w)
{
	static uint8_t data[READ_MAX];
	struct sock *s = w->sock;
	ssize_t n = recv(w->fd, data, sizeof data, 0);

	if (n > 0) {
		s->on->on_data(s, data, (size_t)n);
	} else if (n == 0 && s->on->on_eof) {
		w->eof = true;
		s->on->on_eof(s);
	} else if (n == 0 || (errno != EAGAIN && errno != EINTR)) {
		broken(w);
	}
}

static void
on_poll(uv_poll_t *p, int status, int events)
{
	struct wire *w = ((struct handle *)p)->wire;
	struct sock *s = w ? w->sock : NULL;

	if (!w)
		return;
	if (status < 0) {
		broken(w);
		return;
	}
	if (!s) {
		on_last(w, events);
		return;
	}
	if (events & UV_WRITABLE) {
		flush(w);
		if (w->sock && !w->broken && queued(w) <= SOCK_LOW && s->on->on_room)
			s->on->on_room(s);
	}
	if (w->sock && events & UV_READABLE && !w->paused && !w->eof)
		read_more(w);
	if (w->sock || queued(w))
		wait_for_events(w);
}

/* ---- the socket */

static int
sock_destroy(struct sock *s)
{
	/* Only before the 101: afterwards the wire is what frees. */
	if (s->wire) {
		s->wire->sock = NULL;
		wire_free(s->wire);
		*s->at = s->next;
		if (s->next)
			s->next->at = s->at;
	}
	return 0;
}

struct sock *
upgrade_raw(struct request *r, const char *protocol, const struct sock_events *on, void *arg)
{
	struct sock *s = talloc_zero(r, struct sock);

	if (!s)
		abort();
	*s = (struct sock){ .r = r, .on = on, .arg = arg, .early = BUF(s) };
	if (r->work.trace)
		r->work.trace = talloc_strdup(r, r->work.trace);
	reply_header(r, "Upgrade", protocol);
	if (!reply_upgrade(r, s)) {
		talloc_free(s);
		(void)err_set(&r->work.err, E_BAD_STATE, "the request has an answer already");
		return NULL;
	}
	talloc_set_destructor(s, sock_destroy);
	return s;
}

void
upgrade_opened(struct sock *s, int fd, const void *more, size_t n)
{
	struct gateway *gw = s->r->gw;
	struct wire *w = talloc_zero(NULL, struct wire);
	struct handle *h = calloc(1, sizeof *h);

	if (!w || !h)
		abort();
	*w = (struct wire){ .gw = gw, .sock = s, .h = h, .fd = fd, .paused = s->paused };
	w->out = BUF(w);
	h->wire = w;
	s->wire = w;
	s->next = gw->socks;
	s->at = &gw->socks;
	if (s->next)
		s->next->at = &s->next;
	gw->socks = s;
	uv_poll_init(gw->loop, &h->uv, fd);
	if (s->on->on_open)
		s->on->on_open(s);
	if (s->wire && s->early.len)
		sock_write(s, s->early.data, s->early.len);
	TALLOC_FREE(s->early.data);
	if (s->over)
		sock_close(s);
	if (s->wire && n)
		s->on->on_data(s, more, n);
	if (s->wire)
		wait_for_events(s->wire);
}

void *
sock_arg(const struct sock *s)
{
	return s->arg;
}

void
sock_write(struct sock *s, const void *p, size_t n)
{
	struct wire *w = s->wire;
	bool waits = w && queued(w);

	if (!w) {
		if (!s->at && s->r->reply.state != REPLY_NONE)
			buf_add(&s->early, p, n);
		return;
	}
	if (w->broken || w->finish)
		return;
	buf_add(&w->out, p, n);
	if (waits)
		return;
	flush(w);
	if (!w->broken)
		wait_for_events(w);
}

size_t
sock_queued(const struct sock *s)
{
	return s->wire ? queued(s->wire) : s->early.len;
}

static void
set_paused(struct sock *s, bool paused)
{
	s->paused = paused;
	if (!s->wire)
		return;
	s->wire->paused = paused;
	wait_for_events(s->wire);
}

void
sock_pause(struct sock *s)
{
	set_paused(s, true);
}

void
sock_resume(struct sock *s)
{
	set_paused(s, false);
}

void
sock_finish(struct sock *s)
{
	struct wire *w = s->wire;

	if (!w || w->broken)
		return;
	w->finish = true;
	flush(w);
}

static void
last_words_over(void *arg)
{
	wire_free(arg);
}

void
sock_close(struct sock *s)
{
	struct wire *w = s->wire;

	s->over = true;
	if (!w)
		return;
	detach(s);
	if (w->broken)
		return; /* its timer ends it */
	w->paused = false;
	w->finish = true;
	w->timer = timer_start(w, w->gw->loop, LINGER_MS, 0, last_words_over, w);
	flush(w);
	if (!w->broken)
		wait_for_events(w);
}

size_t
upgrade_open(const struct gateway *gw)
{
	size_t n = 0;

	for (const struct sock *s = gw->socks; s; s = s->next)
		n++;
	return n;
}

void
upgrade_leave(struct gateway *gw)
{
	struct sock *next = NULL;

	for (struct sock *s = gw->socks; s; s = next) {
		next = s->next;
		if (s->on->on_leave)
			s->on->on_leave(s);
		else
			sock_close(s);
	}
}
