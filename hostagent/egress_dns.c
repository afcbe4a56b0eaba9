/*
 * egress_dns.c - names for capsules (RFC 1035): questions go to the host's name servers, which see
 * nothing of the guest but the question; answers with addresses nobody may reach become "no such
 * name", and so does a name that the policy denies.
 */
#include "egress_own.h"

#include <arpa/inet.h>
#include <errno.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>

enum {
	HEAD = 12,
	PORT = 53,
	TRY_MS = 2500,
	TRIES = 2,
	LOOKUPS = 256, /* of one capsule at once */
	TCP_MS = 10000,
	TYPE_A = 1,
	NXDOMAIN = 3,
	POINTERS = 16,
};

struct lookup {
	struct egress *egress;
	int fd, tries;
	uint16_t id;
	bool tcp, sent;
	uint8_t *query; /* with two bytes of length before it */
	size_t len;
	uint8_t *answer; /* the same */
	size_t have;
	struct watch *watch;
	struct timer *timer;
	void (*done)(void *, const uint8_t *, size_t);
	void *arg;
};

static void lookup_try(struct lookup *);

static uint16_t
word(const uint8_t *p)
{
	return (uint16_t)(p[0] << 8 | p[1]);
}

static void
lookup_close(struct lookup *l)
{
	TALLOC_FREE(l->watch);
	TALLOC_FREE(l->timer);
	if (l->fd >= 0)
		close(l->fd);
	l->fd = -1;
}

static int
lookup_free(struct lookup *l)
{
	lookup_close(l);
	return 0;
}

static void
lookup_end(struct lookup *l, const uint8_t *answer, size_t len)
{
	void (*done)(void *, const uint8_t *, size_t) = l->done;
	void *arg = l->arg;

	lookup_close(l);
	/* the answer lives until the caller frees us, in done or later */
	done(arg, answer, len);
}

static void
lookup_late(void *arg)
{
	struct lookup *l = arg;

	lookup_close(l);
	if (++l->tries < TRIES * l->egress->servers)
		lookup_try(l);
	else
		lookup_end(l, NULL, 0);
}

/* No label of a question has these: with them the text would be another name than the one asked. */
static bool
plain(const uint8_t *label, size_t n)
{
	return !memchr(label, 0, n) && !memchr(label, '.', n);
}

/* The name at p; returns what follows it, or 0. Pointers go backwards only. text: NULL, or where to
   write it, when it must stand there as a question's does: whole, in plain labels. */
static size_t
name_read(const uint8_t *m, size_t len, size_t at, char *text, size_t room)
{
	size_t next = 0, used = 0, n, limit = len;
	int pointers = 0;

	for (;;) {
		if (at >= limit)
			return 0;
		n = m[at];
		if (n >= 0xc0) {
			if (text || at + 1 >= len || ++pointers > POINTERS)
				return 0;
			next = next ? next : at + 2;
			n = (n & 0x3f) << 8 | m[at + 1];
			if (n >= at)
				return 0;
			limit = at;
			at = n;
			continue;
		}
		if (n > 63 || at + 1 + n > limit)
			return 0;
		if (n == 0)
			break;
		if (text && (used + n + 1 >= room || !plain(m + at + 1, n)))
			return 0;
		if (text) {
			memcpy(text + used, m + at + 1, n);
			used += n;
			text[used++] = '.';
		}
		at += n + 1;
	}
	if (text)
		text[used ? used - 1 : 0] = '\0';
	return next ? next : at + 1;
}

/* Calls with each address record of an answer; -1: it is not well formed. */
static int
answers(const uint8_t *m, size_t len, void (*each)(void *, uint32_t), void *arg)
{
	size_t at = HEAD, n;
	int questions, records;

	if (len < HEAD)
		return -1;
	questions = word(m + 4);
	records = word(m + 6);
	for (; questions; questions--)
		if ((at = name_read(m, len, at, NULL, 0)) == 0 || (at += 4) > len)
			return -1;
	for (; records; records--) {
		if ((at = name_read(m, len, at, NULL, 0)) == 0 || at + 10 > len)
			return -1;
		n = word(m + at + 8);
		if (at + 10 + n > len)
			return -1;
		if (word(m + at) == TYPE_A && n == 4)
			each(arg, (uint32_t)word(m + at + 10) << 16 | (uint32_t)word(m + at + 12));
		at += 10 + n;
	}
	return 0;
}

/* Whether an answer belongs to our question: same id, same name and type. */
static bool
belongs(const struct lookup *l, const uint8_t *m, size_t len)
{
	const uint8_t *q = l->query + 2;
	size_t i, end;

	if (len < HEAD || word(m) != l->id || !(m[2] & 0x80) || word(m + 4) != 1)
		return false;
	end = name_read(q, l->len, HEAD, NULL, 0) + 4;
	if (end > len || end > l->len)
		return false;
	for (i = HEAD; i < end; i++)
		if ((m[i] | 0x20) != (q[i] | 0x20))
			return false;
	return true;
}

static void
on_answer(void *arg, int events)
{
	struct lookup *l = arg;
	uint8_t *m = l->answer;
	ssize_t n;

	(void)events;
	if (l->tcp && !l->sent) {
		/* connected */
		l->sent = true;
		if (send(l->fd, l->query, l->len + 2, MSG_NOSIGNAL) != (ssize_t)l->len + 2) {
			lookup_late(l);
			return;
		}
		watch_events(l->watch, UV_READABLE);
		return;
	}
	n = l->tcp ? recv(l->fd, m + l->have, DNS_MAX + 2 - l->have, 0)
		   : recv(l->fd, m + 2, DNS_MAX, 0);
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n <= 0) {
		lookup_late(l);
		return;
	}
	if (!l->tcp) {
		l->have = (size_t)n;
		if (belongs(l, m + 2, l->have)) /* else somebody guesses: wait on */
			lookup_end(l, m + 2, l->have);
		return;
	}
	l->have += (size_t)n;
	if (l->have < 2 || l->have < 2U + word(m)) {
		if (l->have == DNS_MAX + 2)
			lookup_late(l);
		return;
	}
	if (belongs(l, m + 2, word(m)))
		lookup_end(l, m + 2, word(m));
	else
		lookup_late(l);
}

static void
lookup_try(struct lookup *l)
{
	struct egress *g = l->egress;
	struct sockaddr_in a = { .sin_family = AF_INET, .sin_port = htons(PORT) };

	l->timer = timer_new(l, g->loop, g->servers ? TRY_MS : 0, 0, lookup_late, l);
	if (!g->servers)
		return;
	a.sin_addr = g->server[l->tries % g->servers];
	l->have = 0;
	l->sent = false;
	(void)!getrandom(&l->id, sizeof l->id, 0);
	l->query[0] = (uint8_t)(l->len >> 8);
	l->query[1] = (uint8_t)l->len;
	l->query[2] = (uint8_t)(l->id >> 8);
	l->query[3] = (uint8_t)l->id;
	/* a socket each: the kernel chooses a port that nobody can guess */
	l->fd =
	    socket(AF_INET, (l->tcp ? SOCK_STREAM : SOCK_DGRAM) | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (l->fd < 0 ||
	    (connect(l->fd, (struct sockaddr *)&a, sizeof a) < 0 && errno != EINPROGRESS))
		return; /* the timer goes on to the next server */
	l->watch = watch_new(l, g->loop, l->fd, l->tcp ? UV_WRITABLE : UV_READABLE, on_answer, l);
	if (!l->tcp)
		(void)send(l->fd, l->query + 2, l->len, MSG_NOSIGNAL);
}

struct lookup *
lookup_new(void *mem, struct egress *g, const uint8_t *query, size_t len, bool tcp,
    void (*done)(void *, const uint8_t *, size_t), void *arg)
{
	struct lookup *l = talloc_zero(mem, struct lookup);

	l->egress = g;
	l->fd = -1;
	l->tcp = tcp;
	l->done = done;
	l->arg = arg;
	l->len = len;
	l->query = talloc_size(l, len + 2);
	l->answer = talloc_size(l, DNS_MAX + 2);
	memcpy(l->query + 2, query, len);
	talloc_set_destructor(l, lookup_free);
	lookup_try(l);
	return l;
}

/* The proxy's own questions. */

struct resolve {
	resolved *done;
	void *arg;
	uint32_t found[RESOLVED_MAX];
	size_t count;
};

static void
found(void *arg, uint32_t addr)
{
	struct resolve *r = arg;

	if (r->count < RESOLVED_MAX)
		r->found[r->count++] = addr;
}

static void
on_resolved(void *arg, const uint8_t *m, size_t len)
{
	struct resolve *r = arg;

	if (m)
		(void)answers(m, len, found, r);
	r->done(r->arg, r->found, r->count);
}

struct lookup *
resolve(void *mem, struct egress *g, const char *name, resolved *done, void *arg)
{
	/* recursion desired, one question */
	uint8_t q[HEAD + NET_NAME + 6] = { [2] = 1, [5] = 1 };
	struct resolve *r;
	struct lookup *l;
	size_t at = HEAD, n;

	for (; *name; name += n + (name[n] == '.')) {
		n = strcspn(name, ".");
		q[at++] = (uint8_t)n;
		memcpy(q + at, name, n);
		at += n;
	}
	q[at++] = 0;
	q[at + 1] = TYPE_A;
	q[at + 3] = 1;
	r = talloc_zero(mem, struct resolve);
	r->done = done;
	r->arg = arg;
	l = lookup_new(mem, g, q, at + 4, false, on_resolved, r);
	(void)talloc_steal(l, r);
	return l;
}

/* The guests' questions. */

struct question {
	struct outlet *outlet;
	struct lookup *lookup;
	int fd; /* of a TCP client; -1: UDP */
	struct sockaddr_in from;
	uint8_t query[DNS_MAX + 2]; /* with two bytes of length before it */
	size_t len, have;
	struct watch *watch;
	struct timer *timer;
};

static int
question_free(struct question *q)
{
	q->outlet->lookups--;
	TALLOC_FREE(q->watch);
	if (q->fd >= 0)
		close(q->fd);
	return 0;
}

static struct question *
question_new(struct outlet *o)
{
	struct question *q = talloc_zero(o, struct question);

	q->outlet = o;
	q->fd = -1;
	o->lookups++;
	talloc_set_destructor(q, question_free);
	return q;
}

static void
reply(struct question *q, uint8_t *m, size_t len)
{
	uint8_t head[2] = { (uint8_t)(len >> 8), (uint8_t)len };

	if (q->fd < 0)
		(void)sendto(q->outlet->fd[0], m, len, MSG_NOSIGNAL | MSG_DONTWAIT,
		    (struct sockaddr *)&q->from, sizeof q->from);
	else {
		(void)send(q->fd, head, sizeof head, MSG_NOSIGNAL | MSG_MORE | MSG_DONTWAIT);
		(void)send(q->fd, m, len, MSG_NOSIGNAL | MSG_DONTWAIT);
	}
	talloc_free(q);
}

/* The question alone, with this code. */
static void
refuse(struct question *q, int code)
{
	uint8_t *m = q->query + 2;
	size_t end = name_read(m, q->len, HEAD, NULL, 0) + 4;

	m[2] = (uint8_t)(m[2] | 0x80);
	m[3] = (uint8_t)(0x80 | code);
	memset(m + 6, 0, 6);
	reply(q, m, end <= q->len ? end : HEAD);
}

static void
reachable(void *arg, uint32_t addr)
{
	if (net_never(addr))
		*(bool *)arg = false;
}

static void
on_guest_answer(void *arg, const uint8_t *m, size_t len)
{
	struct question *q = arg;
	bool fine = true;
	uint8_t *copy;

	if (!m) {
		talloc_free(q); /* the guest asks again by itself */
		return;
	}
	if (answers(m, len, reachable, &fine) < 0 || !fine) {
		refuse(q, NXDOMAIN);
		return;
	}
	copy = talloc_memdup(q, m, len);
	memcpy(copy, q->query + 2, 2); /* the guest's own number */
	reply(q, copy, len);
}

/* What the policy says about the question; then it goes out, or an answer comes from here. */
static void
ask(struct question *q)
{
	uint8_t *m = q->query + 2;
	const struct net_policy *p = &q->outlet->policy;
	char text[300], name[NET_NAME];
	size_t end = q->len >= HEAD ? name_read(m, q->len, HEAD, text, sizeof text) : 0;

	if (!end || end + 4 > q->len || word(m + 4) != 1 || (m[2] & 0xf8)) {
		talloc_free(q); /* no plain question */
		return;
	}
	/* what stands behind it (options, records) nobody judges, so it goes nowhere */
	q->len = end + 4;
	memset(m + 6, 0, 6);
	if (*text ? !net_name_read(text, strlen(text), name) ||
		    net_name_verdict(p, name) == NET_DENIED
		  : !p->rules.internet)
		refuse(q, NXDOMAIN);
	else
		q->lookup =
		    lookup_new(q, q->outlet->egress, m, q->len, q->fd >= 0, on_guest_answer, q);
}

void
dns_packet(void *outlet, int events)
{
	struct outlet *o = outlet;
	struct question *q;
	socklen_t len = sizeof q->from;
	ssize_t n;

	(void)events;
	q = question_new(o);
	n = recvfrom(
	    o->fd[0], q->query + 2, DNS_MAX, MSG_DONTWAIT, (struct sockaddr *)&q->from, &len);
	if (n < HEAD || o->lookups > LOOKUPS) {
		talloc_free(q);
		return;
	}
	q->len = (size_t)n;
	ask(q);
}

static void
dns_late(void *arg)
{
	talloc_free(arg);
}

static void
dns_readable(void *arg, int events)
{
	struct question *q = arg;
	ssize_t n = recv(q->fd, q->query + q->have, sizeof q->query - q->have, MSG_DONTWAIT);

	(void)events;
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n <= 0) {
		talloc_free(q);
		return;
	}
	q->have += (size_t)n;
	if (q->have < 2 || q->have < 2U + word(q->query)) {
		if (q->have == sizeof q->query)
			talloc_free(q);
		return;
	}
	q->len = word(q->query);
	TALLOC_FREE(q->watch);
	ask(q);
}

/* A question each connection: enough for answers that were too long for a packet. */
void
dns_accept(void *outlet, int events)
{
	struct outlet *o = outlet;
	int fd = accept4(o->fd[1], NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	struct question *q;

	(void)events;
	if (fd < 0)
		return;
	q = question_new(o);
	q->fd = fd;
	if (o->lookups > LOOKUPS) {
		talloc_free(q);
		return;
	}
	q->timer = timer_new(q, o->egress->loop, TCP_MS, 0, dns_late, q);
	q->watch = watch_new(q, o->egress->loop, fd, UV_READABLE, dns_readable, q);
}
