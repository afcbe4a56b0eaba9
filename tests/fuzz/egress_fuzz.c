/*
 * egress_fuzz.c - what a capsule says to the proxy and the resolver, and what a name server answers
 * it: the name in a TLS hello or a Host, questions, answers.
 *
 * A question that goes out is read once more, label by label: its name must be one that the policy
 * lets out, whatever the resolver took it for.
 */
#include "fuzz.h"

#include "cleanup.h"
#include "hostagent/egress_own.h"
#include "json.h"

#include <strings.h>
#include <sys/socket.h>

/* The sockets are the input. */
static struct fuzz *wire;
static bool wire_whole;
static uint64_t sum;

static ssize_t
wire_send(const void *p, size_t n)
{
	fuzz_mark(&sum, 's');
	fuzz_sum(&sum, p, n);
	return (ssize_t)n;
}

#define recv(fd, p, n, flags)           fuzz_recv(wire, wire_whole, p, n)
#define send(fd, p, n, flags)           wire_send(p, n)
#define sendto(fd, p, n, flags, to, tn) wire_send(p, n)
#define close(fd)                       (void)(fd)
#include "hostagent/egress_dns.c"

struct timer *
timer_new(void *mem, uv_loop_t *loop, uint64_t ms, uint64_t again, void (*fn)(void *), void *arg)
{
	(void)loop;
	(void)ms;
	(void)again;
	(void)fn;
	(void)arg;
	return talloc_zero_size(mem, 8);
}

struct watch *
watch_new(void *mem, uv_loop_t *loop, int fd, int events, void (*fn)(void *, int), void *arg)
{
	(void)loop;
	(void)fd;
	(void)events;
	(void)fn;
	(void)arg;
	return talloc_zero_size(mem, 8);
}

void
watch_events(struct watch *w, int events)
{
	(void)w;
	(void)events;
}

/* ---- the name that a connection is for */

static void
head(void *mem, struct fuzz f, bool whole)
{
	char name[NET_NAME] = "", again[NET_NAME];
	const uint8_t *all = f.p, *p = NULL;
	int found = 0;

	(void)mem;
	while (f.n && found == 0) {
		(void)fuzz_next(&f, whole, 6, &p);
		found = head_name(all, (size_t)(f.p - all), name);
	}
	fuzz_mark(&sum, (char)found);
	if (found != 1)
		return;
	fuzz_sum(&sum, name, strlen(name));
	if (!net_name_read(name, strlen(name), again) || strcmp(name, again) != 0)
		abort();
}

/* ---- questions and answers */

static const char *const policies[] = {
	"{\"internet\":false,\"allow\":[\"ok.example\",\"*.good.example\"]}",
	"{\"internet\":true,\"deny\":[\"bad.example\",\"*.worse.example\"]}",
};

/* Whether the labels at p are these, or (more) others and then these. */
static bool
are(const uint8_t *m, size_t len, const char *first, bool more)
{
	const char *want[] = { first, "example" };
	const uint8_t *label[128];
	size_t at = HEAD, n = 0, i;

	for (; at < len && m[at] && n < nitems(label); at += 1U + m[at])
		if (m[at] > 63)
			abort(); /* a pointer in a question that goes out */
		else
			label[n++] = m + at;
	if (more ? n < 3 : n != 2)
		return false;
	for (i = 0; i < 2; i++) {
		const uint8_t *l = label[n - 2 + i];

		if (*l != strlen(want[i]) ||
		    strncasecmp((const char *)l + 1, want[i], strlen(want[i])) != 0)
			return false;
	}
	return true;
}

static void
judge(bool open, const uint8_t *m, size_t len)
{
	bool good = open ? !are(m, len, "bad", false) && !are(m, len, "worse", true)
			 : are(m, len, "ok", false) || are(m, len, "good", true);

	if (!good)
		abort();
}

/* First byte: how the question comes and under which policy; then the question, then the answer. */
static void
question(void *mem, struct fuzz f, bool whole)
{
	struct egress *g = talloc_zero(mem, struct egress); /* no server: nothing is sent */
	struct outlet *o = talloc_zero(g, struct outlet);
	struct err e = { 0 };
	uint8_t how = fuzz_byte(&f);
	const char *text = policies[how & 1];
	const uint8_t *p = NULL;
	size_t n = fuzz_piece(&f, DNS_MAX, &p);
	struct fuzz asked = { p, n };
	struct question *q = question_new(o);

	o->egress = g;
	o->policy = *net_policy_read(o, json_parse(o, text, strlen(text), NULL, &e), &e);
	wire_whole = whole || !(how & 2); /* a packet is one */
	wire = &asked;
	if (how & 2) { /* as a connection says it, with its length before it */
		q->fd = 99;
		while (o->lookups && !q->lookup)
			dns_readable(q, 0);
	} else {
		memcpy(q->query + 2, p, n);
		q->len = n;
		ask(q);
	}
	fuzz_mark(&sum, o->lookups ? '+' : '-');
	if (!o->lookups)
		return;
	judge(how & 1, q->query + 2, q->len);
	wire = &f;
	q->lookup->sent = true;
	q->lookup->fd = 99;
	while (o->lookups && (f.n || q->lookup->tcp)) {
		q->lookup->fd = 99;
		on_answer(q->lookup, 0);
	}
}

static void
count(void *arg, const uint32_t *addr, size_t n)
{
	(void)arg;
	fuzz_sum(&sum, addr, n * sizeof *addr);
	fuzz_mark(&sum, (char)n);
}

/* The proxy's own question, which comes back in the answer as it went out. */
static void
own(void *mem, struct fuzz f, bool whole)
{
	struct egress *g = talloc_zero(mem, struct egress);
	struct lookup *l = resolve(mem, g, "ok.example", count, NULL);
	const uint8_t *p = NULL;
	size_t n = fuzz_piece(&f, 64, &p);
	struct buf b = BUF(mem);
	struct fuzz in;

	buf_add(&b, p, n < HEAD ? n : HEAD);
	buf_add(&b, l->query + 2 + b.len, l->len - b.len);
	buf_add(&b, f.p, f.n);
	in = (struct fuzz){ (const uint8_t *)b.data, b.len };
	wire = &in;
	wire_whole = true;
	(void)whole;
	l->fd = 99;
	on_answer(l, 0);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static fuzz_reader *const readers[] = { head, question, own };

	return fuzz_read(readers, nitems(readers), &sum, data, size);
}
