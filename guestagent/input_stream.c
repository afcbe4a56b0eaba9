/*
 * input_stream.c - process.Process/StreamInput: many pieces of input in one call. See process.h.
 *
 * One piece is handed on at a time; while the process does not take it the sender's window stays
 * closed.
 */
#include "process.h"

#include "cleanup.h"
#include "handlers.h"
#include "json.h"
#include "rpc.h"

#include <stdlib.h>

struct input_stream {
	int64_t pid; /* 0: the first message has not come */
	size_t held; /* bytes not yet given back to the sender's window */
	bool waiting, busy, over;
};

static void take_messages(struct call *);

static void
input_taken(struct call *c)
{
	struct input_stream *s = c->state;

	s->waiting = false;
	if (!s->busy)
		take_messages(c);
}

/* The process may have ended between two messages. */
static struct process *
target(struct call *c, const struct input_stream *s)
{
	for (struct process *p = process_list; p; p = p->next)
		if (p->pid == s->pid && process_alive(p))
			return p;
	(void)err_set(&c->err, E_NOT_FOUND, "process with pid %d not found", (int)s->pid);
	return NULL;
}

static int
take_message(struct call *c, struct json_object *in)
{
	struct input_stream *s = c->state;
	struct json_object *start = json_get(in, "start"), *data = json_get(in, "data");
	struct process *p = NULL;
	auto_talloc uint8_t *bytes = NULL;
	size_t n = 0;

	if (start && !s->pid) {
		p = process_find(start, false, &c->err);
		s->pid = p ? p->pid : 0;
		return p ? 0 : -1;
	}
	if (!s->pid)
		return err_set(&c->err, E_BAD_INPUT, "the first message is not \"start\"");
	if (!data)
		return 0; /* keepalive */
	p = target(c, s);
	if (!p || process_input(c, data, p, &bytes, &n) < 0)
		return -1;
	s->waiting = true;
	return input_add(p, c, bytes, n, input_taken);
}

static void
take_messages(struct call *c)
{
	struct input_stream *s = c->state;
	struct json_object *in = NULL;
	struct buf none = BUF(c);
	int rc = c->err.code == E_OK ? 1 : -1;

	s->busy = true;
	while (rc > 0 && !s->waiting) {
		auto_talloc char *mem = talloc_new(c);

		rc = rpc_frame(c, mem, &in);
		if (rc > 0 && (take_message(c, in) < 0 || c->err.code != E_OK))
			rc = -1;
	}
	s->busy = false;
	if (!s->waiting) {
		call_took(c, s->held);
		s->held = 0;
	}
	if (rc < 0)
		rpc_end(c);
	else if (rc == 0 && s->over)
		rpc_reply(c, &none);
}

static void
on_data(struct call *c, const uint8_t *p, size_t n)
{
	struct input_stream *s = c->state;

	buf_add(&c->body, p, n);
	s->held += n;
	if (!s->waiting)
		take_messages(c);
}

static void
on_end(struct call *c)
{
	struct input_stream *s = c->state;

	s->over = true;
	if (!s->waiting)
		take_messages(c);
}

void
process_stream_input(struct call *c)
{
	c->state = talloc_zero(c, struct input_stream);
	if (!c->state)
		abort();
	c->on_data = on_data;
	c->on_end = on_end;
}
