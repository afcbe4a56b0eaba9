/* capsule_work.c - one thing at a time goes on with a capsule; who waits for it. See capsule_in.h.
 */
#include "capsule_in.h"

#include <string.h>

enum { LATER_MS = 20 };

struct capsule_ask {
	struct capsule_ask *next;
	struct capsule *capsule;
	capsule_done *done;
	void *arg;
};

/* Who waits. */

static int
ask_free(struct capsule_ask *a)
{
	struct capsule_ask **p;

	for (p = &a->capsule->asks; *p; p = &(*p)->next)
		if (*p == a) {
			*p = a->next;
			break;
		}
	return 0;
}

void
capsule_ask(struct capsule *c, void *mem, capsule_done *done, void *arg)
{
	struct capsule_ask *a = talloc_zero(mem, struct capsule_ask);

	a->capsule = c;
	a->done = done;
	a->arg = arg;
	a->next = c->asks;
	c->asks = a;
	talloc_set_destructor(a, ask_free);
}

void
capsule_answer(struct capsule *c, const struct err *e)
{
	struct capsule_ask *a;

	while ((a = c->asks)) {
		capsule_done *done = a->done;
		void *arg = a->arg;

		talloc_free(a);
		done(arg, c, e);
	}
}

struct capsule *
capsule_find(struct agent *a, const char *id)
{
	struct capsule *c;

	TAILQ_FOREACH(c, &a->capsules, link)
	if (strcmp(c->id, id) == 0)
		return c;
	return NULL;
}

struct capsule *
capsule_known(struct agent *a, const char *id)
{
	struct capsule *c = capsule_find(a, id);

	if (c)
		return c;
	c = talloc_zero(a, struct capsule);
	c->agent = a;
	snprintf(c->id, sizeof c->id, "%s", id);
	c->exit_status = -1;
	TAILQ_INSERT_TAIL(&a->capsules, c, link);
	return c;
}

static int
op_free(struct capsule_op *op)
{
	cleanup_fd(&op->state);
	cleanup_fd(&op->flat);
	capsule_op_orphan(op);
	return 0;
}

struct capsule_op *
capsule_op_new(struct capsule *c, const char *name)
{
	struct capsule_op *op = talloc_zero(c->agent, struct capsule_op);

	op->capsule = c;
	op->name = name;
	op->state = op->flat = -1;
	op->epoch = c->epoch;
	op->began = now_mono();
	c->op = op;
	talloc_set_destructor(op, op_free);
	return op;
}

void
capsule_op_end(struct capsule_op *op, const struct err *e)
{
	struct capsule *c = op->capsule;

	c->op = NULL;
	c->made = op->made;
	if (!op->quiet)
		capsule_answer(c, e);
	c->made = NULL;
	talloc_free(op);
	capsule_grow_on(c); /* asked for meanwhile */
}

/* Somebody who waits for the end of a quiet op. */
struct later {
	struct timer *timer;
	void (*again)(void *);
	void *arg;
};

static void
on_later(void *arg)
{
	struct later *l = arg;
	void (*again)(void *) = l->again;
	void *user = l->arg;

	talloc_free(l);
	again(user);
}

bool
capsule_busy(struct capsule *c, void *mem, void (*again)(void *), void *arg, struct err *e)
{
	struct later *l;

	if (!c->op)
		return false;
	if (c->op->flattens && c->vm)
		vm_disk_flatten_cancel(c->vm);
	if (!c->op->quiet) {
		(void)err_set(e, E_CONFLICT, "capsule %s is busy: %s", c->id, c->op->name);
		return true;
	}
	l = talloc_zero(mem, struct later);
	l->again = again;
	l->arg = arg;
	l->timer = timer_new(l, c->agent->loop, LATER_MS, 0, on_later, l);
	return true;
}
