/* port_tls.c - see port_tls.h. */
#include "port_tls.h"

#include "cleanup.h"
#include "gateway.h"
#include "timer.h"
#include "tls.h"

#include <stdbool.h>
#include <stdlib.h>

enum { CHUNK = 16 * 1024, HANDSHAKE_MS = 10000 };

struct port_tls {
	struct tls *tls;
	const struct port_tls_events *on;
	void *arg;
	struct timer *late; /* until the handshake is done */
	bool stopped;
};

static void
flush(struct port_tls *t)
{
	uint8_t out[CHUNK];
	size_t n;

	while (!t->stopped && (n = tls_pull(t->tls, out, sizeof out)) > 0)
		t->on->on_wire(t->arg, out, n);
}

static void
failed(struct port_tls *t, const struct err *e)
{
	flush(t); /* an alert */
	if (t->stopped)
		return;
	port_tls_stop(t);
	t->on->on_fail(t->arg, e);
}

static void
late(void *arg)
{
	struct port_tls *t = arg;

	failed(t, &(struct err){ .text = "it did not finish the handshake of TLS in time" });
}

void
port_tls_stop(struct port_tls *t)
{
	t->stopped = true;
	TALLOC_FREE(t->late);
}

struct port_tls *
port_tls_open(
    void *mem, struct gateway *gw, const char *name, const struct port_tls_events *on, void *arg)
{
	struct port_tls *t = talloc_zero(mem, struct port_tls);
	struct err e = { 0 };

	if (!t)
		abort();
	if (!gw->anyone)
		gw->anyone = tls_anyone(gw->doors);
	*t = (struct port_tls){ .tls = tls_new(t, gw->anyone, false), .on = on, .arg = arg };
	t->late = timer_start(t, gw->loop, HANDSHAKE_MS, 0, late, t);
	if (name)
		tls_want(t->tls, name);
	(void)tls_begin(t->tls, &e);
	flush(t);
	return t;
}

void
port_tls_feed(struct port_tls *t, const uint8_t *p, size_t n)
{
	bool was_ready = tls_ready(t->tls);
	uint8_t plain[CHUNK];
	struct err e = { 0 };
	ssize_t got = 0;

	if (t->stopped)
		return;
	if (tls_feed(t->tls, p, n, &e) < 0) {
		failed(t, &e);
		return;
	}
	flush(t);
	if (!was_ready && tls_ready(t->tls)) {
		TALLOC_FREE(t->late);
		t->on->on_ready(t->arg);
	}
	while (!t->stopped && (got = tls_read(t->tls, plain, sizeof plain, &e)) > 0)
		t->on->on_data(t->arg, (const char *)plain, (size_t)got);
	flush(t);
	if (t->stopped || got == 0)
		return;
	if (e.code == E_CLOSED)
		t->on->on_end(t->arg);
	else
		failed(t, &e);
}

void
port_tls_write(struct port_tls *t, const void *p, size_t n)
{
	struct err e = { 0 };

	if (!n || t->stopped)
		return;
	/* it fails only when the service broke TLS, which reading tells */
	(void)tls_send(t->tls, p, n, &e);
	flush(t);
}

void
port_tls_finish(struct port_tls *t)
{
	tls_finish(t->tls);
	flush(t);
}
