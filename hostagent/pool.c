/*
 * pool.c - clones that wait for a create: hot ones (restored, stopped, their guest session open)
 * and waiting ones (QEMU is up, the state is not loaded yet). See image.h.
 *
 * How many hot ones a shape gets follows demand: as many as its largest burst of late, at least
 * agent.pool_size for the shape used last, at most agent.pool_max; of a shape that the control
 * plane names (scaling.c) at least as many as it says, used or not. A create takes a hot one, else
 * a waiting one, else it starts a process. Refilling goes through starts.c behind all creates, and
 * stops, then gives back, when the host's memory runs short.
 */
#include "host.h"
#include "image.h"
#include "starts.h"
#include "template.h"

enum {
	SHAPES = 4, /* pools of this many images are kept */
	FAILED_PAUSE_MS = 10000,
	BURST_MS = 10000, /* creates within this time are one burst */
	FORGET_MS =
	    600000,     /* a burst counts half after this time, a shape nobody used not at all */
	LOOK_MS = 1000, /* how old the view of the host's memory may be */
	SPARE_PERCENT = 10, /* of memory above min_free_memory_percent: no refill below */
};

enum kind { HOT, WAITING, KINDS };

struct pooled {
	TAILQ_ENTRY(pooled) link;
	struct image *image;
	struct vm *vm;
	enum kind kind;
	bool ready;
};

struct pool {
	TAILQ_HEAD(, pooled) clones; /* those being made, too */
	size_t count[KINDS];
	int64_t not_before; /* after a failure */
	/* demand */
	int64_t burst_began, burst_seen, used_at;
	size_t burst, most;
	size_t taken[KINDS + 1]; /* hot, waiting, neither */
};

static int
pooled_free(struct pooled *p)
{
	TAILQ_REMOVE(&p->image->pool->clones, p, link);
	p->image->pool->count[p->kind]--;
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
pool_add(struct image *i, enum kind kind)
{
	struct pooled *p = talloc_zero(i->pool, struct pooled);
	struct vm_spec spec = { .t = i->t,
		.vcpus = i->vcpus,
		.memory_mb = i->memory_mb,
		.image = i,
		.hot = kind == HOT,
		.waiting = kind == WAITING };

	p->image = i;
	p->kind = kind;
	TAILQ_INSERT_TAIL(&i->pool->clones, p, link);
	i->pool->count[kind]++;
	talloc_set_destructor(p, pooled_free);
	p->vm = vm_start(i->agent, &spec, pooled_made, p);
}

static void
pooled_drop(struct pooled *p)
{
	struct vm *vm = p->vm;

	talloc_free(p);
	vm_destroy(vm, NULL, NULL);
}

/* Demand. */

static struct pool *
pool_of(struct image *i)
{
	if (!i->pool) {
		i->pool = talloc_zero(i, struct pool);
		TAILQ_INIT(&i->pool->clones);
	}
	return i->pool;
}

static void
asked(struct pool *p)
{
	int64_t now = now_mono();

	if (now - p->burst_began > BURST_MS) {
		p->burst_began = now;
		p->burst = 0;
	}
	p->used_at = now;
	if (++p->burst >= p->most) {
		p->most = p->burst;
		p->burst_seen = now;
	}
}

static void
forget(struct pool *p)
{
	int64_t now = now_mono();

	if (p->most > 1 && now - p->burst_seen > FORGET_MS) {
		p->most /= 2;
		p->burst_seen = now;
	}
}

static size_t
between(size_t n, size_t least, size_t most)
{
	if (most < least)
		most = least;
	return n < least ? least : n > most ? most : n;
}

/* How many of a kind the shape shall have. first: it was used last of all. */
static size_t
target(const struct image *i, const struct pool *p, enum kind kind, bool first)
{
	const struct agent *a = i->agent;
	size_t least = (size_t)a->conf->agent_pool_size, most = (size_t)a->conf->agent_pool_max;
	bool used = p->used_at && now_mono() - p->used_at < FORGET_MS;

	if (i->pinned && kind == WAITING)
		return i->waiting;
	if (i->pinned)
		return between(used && least ? p->most : 0, i->hot, most);
	if (least == 0 || (!first && !used))
		return 0;
	if (kind == WAITING)
		return used ? (size_t)a->conf->agent_pool_waiting : 0;
	return between(p->most, least, most);
}

/* Memory: 0 is plenty, 1 is too little to refill, 2 is to give back. */
static int
short_of_memory(const struct agent *a)
{
	static int64_t looked;
	static int verdict;
	struct err e = { 0 };
	struct host h;
	uint64_t percent;

	if (looked && now_mono() - looked < LOOK_MS)
		return verdict;
	looked = now_mono();
	if (host_facts(a, &h, &e) < 0 || h.memory_mb == 0)
		return verdict = 1;
	percent = h.free_memory_mb * 100 / h.memory_mb;
	verdict = percent < (uint64_t)a->conf->agent_min_free_memory_percent + SPARE_PERCENT / 2 ? 2
	    : percent < (uint64_t)a->conf->agent_min_free_memory_percent + SPARE_PERCENT         ? 1
											 : 0;
	return verdict;
}

bool
pool_memory(const struct agent *a)
{
	return short_of_memory(a) == 0;
}

/* What is more than `want`: those not ready first. */
static void
shrink(struct pool *pool, enum kind kind, size_t want)
{
	struct pooled *p, *next;
	int ready;

	for (ready = 0; ready < 2; ready++)
		for (p = TAILQ_FIRST(&pool->clones); p && pool->count[kind] > want; p = next) {
			next = TAILQ_NEXT(p, link);
			if (p->kind == kind && p->ready == (ready == 1))
				pooled_drop(p);
		}
}

void
pool_fill(struct agent *a)
{
	size_t all = 0, shapes = 0, want;
	int tight = short_of_memory(a);
	struct image *i;
	int kind;

	if (a->stopping)
		return;
	TAILQ_FOREACH(i, &a->images, link)
	{
		struct pool *p;

		if (i->state != IMG_READY || !*i->name)
			continue;
		p = pool_of(i);
		forget(p);
		all++;
		shapes += !i->pinned;
		for (kind = 0; kind < KINDS; kind++) {
			want = target(i, p, kind, all == 1);
			if (tight == 2 || (shapes > SHAPES && !i->pinned))
				want = 0;
			/* what is too much by one burst that is over stays until it is forgotten */
			if (p->count[kind] > want)
				shrink(p, kind, want);
			/* half of the uids stay for capsules that start without a pool */
			while (!tight && p->count[kind] < want && now_mono() >= p->not_before &&
			    uid_free(a) > (int)a->conf->agent_uid_count / 2)
				pool_add(i, kind);
		}
	}
}

struct vm *
pool_take(struct image *i)
{
	struct pool *pool = pool_of(i);
	struct pooled *p;
	struct vm *vm;
	int kind;

	asked(pool);
	starts_noticed(i->agent);
	for (kind = 0; kind < KINDS; kind++)
		TAILQ_FOREACH(p, &pool->clones, link)
		{
			if (p->kind != (enum kind)kind || !p->ready || !p->vm->qmp ||
			    p->vm->state != (kind == HOT ? VM_STOPPED : VM_WAITING))
				continue;
			vm = p->vm;
			vm->on_dead = NULL;
			talloc_free(p);
			pool->taken[kind]++;
			return vm;
		}
	pool->taken[KINDS]++;
	return NULL;
}

void
pool_drop(struct image *i)
{
	if (!i->pool)
		return;
	shrink(i->pool, HOT, 0);
	shrink(i->pool, WAITING, 0);
}

static size_t
ready(const struct pool *pool, enum kind kind)
{
	const struct pooled *p;
	size_t n = 0;

	TAILQ_FOREACH(p, &pool->clones, link)
	n += p->ready && p->kind == kind;
	return n;
}

size_t
pool_ready(const struct image *i)
{
	return i->pool ? ready(i->pool, HOT) : 0;
}

void
pool_json(const struct image *i, struct buf *b)
{
	static const struct pool none = { .clones = { 0 } };
	const struct pool *p = i->pool ? i->pool : &none;
	bool first = TAILQ_FIRST(&i->agent->images) == i;

	buf_fmt(b,
	    "\"ready\":%zu,\"waiting\":%zu,\"making\":%zu,\"want_ready\":%zu,\"want_waiting\":%zu,"
	    "\"creates\":{\"hot\":%zu,\"waiting\":%zu,\"spawned\":%zu}",
	    ready(p, HOT), ready(p, WAITING),
	    p->count[HOT] + p->count[WAITING] - ready(p, HOT) - ready(p, WAITING),
	    i->state == IMG_READY ? target(i, p, HOT, first) : 0,
	    i->state == IMG_READY ? target(i, p, WAITING, first) : 0, p->taken[HOT],
	    p->taken[WAITING], p->taken[KINDS]);
}

void
pools_json(const struct agent *a, struct buf *b)
{
	const struct image *i;
	const char *comma = "";

	TAILQ_FOREACH(i, &a->images, link)
	{
		if (!*i->name)
			continue; /* only held for a capsule's memory */
		buf_fmt(b, "%s\"%s@%s/%dx%d\":{\"image\":\"%s\",\"image_mb\":%llu,", comma,
		    i->t->name, i->t->build, i->vcpus, i->memory_mb, image_state_name(i->state),
		    (unsigned long long)image_holds(i) >> 20);
		pool_json(i, b);
		buf_chr(b, '}');
		comma = ",";
	}
}
