/*
 * pool.c - ready clones of the images used last: restored, stopped, their guest session open.
 *
 * A create takes one and continues it; the pool makes another in the background. See image.h.
 */
#include "image.h"

enum { SHAPES = 4, FAILED_PAUSE_MS = 10000 }; /* pools of this many images are kept */

struct pooled {
	TAILQ_ENTRY(pooled) link;
	struct image *image;
	struct vm *vm;
	bool ready;
};

struct pool {
	TAILQ_HEAD(, pooled) clones; /* those being made, too */
	size_t count;
	int64_t not_before; /* after a failure */
};

static int
pooled_free(struct pooled *p)
{
	TAILQ_REMOVE(&p->image->pool->clones, p, link);
	p->image->pool->count--;
	return 0;
}

static void
pooled_died(void *user, struct vm *vm)
{
	struct pooled *p = user;
	struct agent *a = vm->agent;

	talloc_free(p);
	vm_destroy(vm, NULL, NULL);
	pool_fill(a);
}

static void
pooled_made(void *user, const struct err *e)
{
	struct pooled *p = user;
	struct image *i = p->image;

	if (!e) {
		p->ready = true;
		p->vm->on_dead = pooled_died;
		p->vm->user = p;
		pool_fill(i->agent);
		return;
	}
	log_warn(NULL, "pool of %s: %s", i->name, e->text);
	i->pool->not_before = now_mono() + FAILED_PAUSE_MS;
	vm_destroy(p->vm, NULL, NULL);
	talloc_free(p);
}

static void
pool_add(struct image *i)
{
	struct pooled *p = talloc_zero(i->pool, struct pooled);
	struct vm_spec spec = {
		.t = i->t, .vcpus = i->vcpus, .memory_mb = i->memory_mb, .image = i, .hot = true
	};

	p->image = i;
	TAILQ_INSERT_TAIL(&i->pool->clones, p, link);
	i->pool->count++;
	talloc_set_destructor(p, pooled_free);
	p->vm = vm_start(i->agent, &spec, pooled_made, p);
}

void
pool_fill(struct agent *a)
{
	size_t want = a->conf->agent_pool_size, shapes = 0;
	struct image *i;

	if (a->stopping)
		return;
	TAILQ_FOREACH(i, &a->images, link)
	{
		if (i->state != IMG_READY)
			continue;
		if (!i->pool) {
			i->pool = talloc_zero(i, struct pool);
			TAILQ_INIT(&i->pool->clones);
		}
		if (++shapes > SHAPES) {
			pool_drop(i);
			continue;
		}
		/* half of the uids stay for capsules that start without a pool */
		while (i->pool->count < want && now_mono() >= i->pool->not_before &&
		    uid_free(a) > (int)a->conf->agent_uid_count / 2)
			pool_add(i);
	}
}

struct vm *
pool_take(struct image *i)
{
	struct pooled *p;
	struct vm *vm;

	if (!i->pool)
		return NULL;
	TAILQ_FOREACH(p, &i->pool->clones, link)
	{
		if (!p->ready || p->vm->state != VM_STOPPED || !p->vm->qmp)
			continue;
		vm = p->vm;
		vm->on_dead = NULL;
		talloc_free(p);
		return vm;
	}
	return NULL;
}

void
pool_drop(struct image *i)
{
	struct pooled *p, *next;

	if (!i->pool)
		return;
	for (p = TAILQ_FIRST(&i->pool->clones); p; p = next) {
		next = TAILQ_NEXT(p, link);
		vm_destroy(p->vm, NULL, NULL);
		talloc_free(p);
	}
}

size_t
pool_ready(const struct image *i)
{
	struct pooled *p;
	size_t n = 0;

	if (i->pool)
		TAILQ_FOREACH(p, &i->pool->clones, link)
	n += p->ready;
	return n;
}
