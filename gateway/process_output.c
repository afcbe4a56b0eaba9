/* process_output.c - see process_output.h. The guest sends what its ring has, and ends. */
#include "process_output.h"

#include "back.h"
#include "cleanup.h"
#include "connect.h"
#include "crypto.h"
#include "gateway.h"
#include "json.h"
#include "timer.h"

#include <inttypes.h>
#include <string.h>

enum { FRAME_MAX = 1 << 20 };

struct output {
	struct request *r;
	struct guest *g;
	struct connect frames;
	struct buf chunks;
	uint64_t next, gap_from, gap_to;
	size_t left; /* bytes that may still be added */
	bool full;
};

static void
answer(struct output *o)
{
	struct buf b = BUF(o->r);

	buf_fmt(
	    &b, "{\"chunks\":[%s],\"next\":%" PRIu64, o->chunks.len ? o->chunks.data : "", o->next);
	if (o->gap_to)
		buf_fmt(&b, ",\"gap\":{\"from\":%" PRIu64 ",\"to\":%" PRIu64 "}", o->gap_from,
		    o->gap_to);
	buf_chr(&b, '}');
	reply_json(o->r, 200, &b);
}

static void
add(struct output *o, const char *stream, const char *base64, uint64_t seq)
{
	struct bytes raw = base64_read(o, base64);
	size_t n = raw.n < o->left ? raw.n : o->left;

	if (!raw.p)
		return;
	o->next = seq - (raw.n - n);
	o->left -= n;
	o->full = o->left == 0;
	if (n)
		buf_fmt(&o->chunks, "%s{\"stream\":\"%s\",\"seq\":%" PRIu64 ",\"data\":\"",
		    o->chunks.len ? "," : "", stream, o->next);
	if (n) {
		buf_base64(&o->chunks, raw.p, n);
		buf_str(&o->chunks, "\"}");
	}
	talloc_free((void *)raw.p);
}

static void
event(struct output *o, struct json_object *ev)
{
	static const char *const kinds[] = { "stdout", "stderr", "pty" };
	struct json_object *data = json_get(ev, "data"), *gap = json_get(ev, "gap");

	if (gap) {
		o->gap_from = strtoull(json_str(gap, "from", "0"), NULL, 10);
		o->gap_to = o->next = strtoull(json_str(gap, "to", "0"), NULL, 10);
	}
	for (size_t i = 0; data && i < nitems(kinds); i++)
		if (json_str(data, kinds[i], NULL))
			add(o, kinds[i], json_str(data, kinds[i], ""),
			    strtoull(json_str(data, "seq", "0"), NULL, 10));
}

/* 0: go on; 1: answered. */
static int
frame(void *arg, unsigned flags, const char *text, size_t n)
{
	struct output *o = arg;
	auto_talloc char *mem = talloc_new(o->r);
	struct err e = { 0 };
	struct json_object *json = json_parse(mem, text, n, NULL, &e);
	struct json_object *ev = json ? json_get(json, "event") : NULL;
	struct json_object *error = json ? json_get(json, "error") : NULL;

	if (!json) {
		fail(o->r, E_AGENT, "the guest's frame is not JSON");
		return 1;
	}
	if (flags & CONNECT_LAST && error && json_object_is_type(error, json_type_object)) {
		guest_refused(o->r, 0, error);
		reply_error(o->r);
		return 1;
	}
	if (ev && !o->full)
		event(o, ev);
	if (!(flags & CONNECT_LAST) && !o->full)
		return 0;
	answer(o);
	return 1;
}

static void
on_refused(struct guest *g, int status, struct json_object *json)
{
	struct output *o = guest_arg(g);

	guest_refused(o->r, status, json);
	reply_error(o->r);
}

static void
on_data(struct guest *g, const uint8_t *p, size_t n)
{
	struct output *o = guest_arg(g);
	struct err e = { 0 };

	guest_consume(g, n);
	if (o->r->reply.state != REPLY_NONE)
		return;
	if (connect_feed(&o->frames, p, n, frame, o, &e) < 0)
		fail(o->r, e.code, "%s", e.text);
}

static void
on_fail(struct guest *g, const struct err *e)
{
	struct output *o = guest_arg(g);

	if (o->r->reply.state == REPLY_NONE)
		fail(o->r, e->code, "%s", e->text);
}

static void
on_end(struct guest *g)
{
	struct err e = { 0 };

	(void)err_set(&e, E_AGENT, "the guest's answer has no end");
	on_fail(g, &e);
}

static void
on_late(void *arg)
{
	struct output *o = arg;

	if (o->r->reply.state == REPLY_NONE)
		fail(o->r, E_TIMEOUT, "the guest did not answer in time");
}

static const struct guest_events events = {
	.on_refused = on_refused, .on_data = on_data, .on_end = on_end, .on_fail = on_fail
};

int
output_read(struct request *r, const struct process_selector *who, uint64_t since, size_t max)
{
	struct output *o = talloc_zero(r, struct output);
	struct guest_call call = { .method = "POST",
		.path = "/process.Process/Connect",
		.type = "application/connect+json",
		.activity = "touch" };
	struct buf message = BUF(r), framed = BUF(r);

	if (!o)
		abort();
	*o = (struct output){ .r = r, .next = since, .left = max };
	o->chunks = BUF(o);
	o->frames = (struct connect){ .part = BUF(o), .max = FRAME_MAX };
	process_selector_put(&message, who);
	buf_fmt(&message, ",\"since\":%" PRIu64 ",\"once\":true}", since);
	connect_frame(&framed, 0, message.data, message.len);
	o->g = guest_open(o, r, &call, &events, o);
	if (!o->g)
		return -1;
	guest_write(o->g, framed.data, framed.len);
	guest_finish(o->g);
	(void)timer_start(o, r->gw->loop, GUEST_MS, 0, on_late, o);
	return 0;
}
