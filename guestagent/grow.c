/* grow.c - see grow.h. */
#include "grow.h"

#include "init.h"
#include "json.h"
#include "rpc.h"

#include <talloc.h>

enum { LIMIT_MS = 10000, LOOK_MS = 5 };

struct grow {
	struct call *call; /* NULL: it went away */
	uint64_t least, until;
	void (*done)(struct call *, const struct err *);
	struct timer look;
};

static void
gone(struct call *c)
{
	struct grow *g = c->state;

	g->call = NULL;
}

static void
look(void *arg)
{
	struct grow *g = arg;
	struct err e = { 0 };
	int has = init_grow(g->least, &e);

	if (has == 0 && loop_now() < g->until) {
		timer_set(&g->look, LOOK_MS);
		return;
	}
	if (has == 0)
		(void)err_set(&e, E_UNAVAILABLE, "the disk has not %llu bytes yet",
		    (unsigned long long)g->least);
	if (g->call)
		g->call->on_gone = NULL;
	g->done(g->call, e.code == E_OK ? NULL : &e);
	talloc_free(g);
}

void
grow_run(struct call *c, uint64_t least, void (*done)(struct call *, const struct err *))
{
	struct grow *g = talloc_zero(NULL, struct grow);

	*g = (struct grow){ .call = c,
		.least = least,
		.until = loop_now() + LIMIT_MS,
		.done = done,
		.look = { .fn = look, .arg = g } };
	c->state = g;
	c->on_gone = gone;
	look(g);
}

static void
grown(struct call *c, const struct err *e)
{
	if (!c)
		return;
	if (e) {
		c->err = *e;
		call_fail(c);
	} else
		call_reply(c, 204, NULL, NULL, 0);
}

void
grow_call(struct call *c)
{
	struct json_object *in =
	    json_parse(c, c->body.data ? c->body.data : "", c->body.len, NULL, &c->err);
	int64_t bytes = 0;

	if (!in || !json_object_is_type(in, json_type_object)) {
		(void)err_set(&c->err, E_BAD_INPUT, "the body is not an object");
		call_fail(c);
	} else if (rpc_int(in, "bytes", 1, INT64_MAX, &bytes, &c->err) < 0)
		call_fail(c);
	else if (!bytes) {
		(void)err_set(&c->err, E_BAD_INPUT, "\"bytes\" is missing");
		call_fail(c);
	} else
		grow_run(c, (uint64_t)bytes, grown);
}
