/*
 * capsule_flat.c - one memory, once in RAM, for all that start from it at the same time.
 *
 * A memory artifact is a difference to a template's image. One capsule alone maps that image and
 * loads the difference over it. Of several, each would load its own: forks of one parent, a
 * snapshot that is started often. For them image and difference are put together once, in a sealed
 * memory file like a template's; they map that privately and load the device state alone. It is
 * only another way to the same memory: what they sleep on is still the difference to the image.
 */
#include "capsule_in.h"
#include "host.h"
#include "image.h"
#include "stream_filter.h"

#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

enum {
	PAGE = 4096,
	LOOK_MS = 5,
	KEEP_MS = 20000, /* after the last one that took it */
	SPARE_PERCENT = 4
};

struct flat {
	TAILQ_ENTRY(flat) link;
	struct agent *agent;
	char id[LAYER_NAME]; /* of the memory artifact */
	bool made, failed;
	int memory, state; /* sealed; the thin stream */
	struct timer *end;
};

/* Lives as long as its thread, with descriptors of its own. */
struct flat_job {
	struct flat *flat;
	int base, in; /* the image's memory, -1: zeros; the difference */
	uint64_t size;
	int memory, state;
	int result;
	struct err err;
};

static int
seal(int fd, struct err *e)
{
	return fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) < 0
	    ? err_sys(e, "seal memory")
	    : 0;
}

static bool
is_zero(const char *p)
{
	return !*p && memcmp(p, p + 1, PAGE - 1) == 0;
}

/* What is not zero between two pages. An image's holes are gone once a clone of it was saved (QEMU
   reads them), and zeros would cost memory here as well. */
static int
copy_range(int to, const char *p, off_t at, off_t end)
{
	off_t run;
	ssize_t n;

	for (; at < end; at += PAGE) {
		for (run = at; run < end && !is_zero(p + run); run += PAGE)
			;
		for (; at < run; at += n)
			if ((n = pwrite(to, p + at, (size_t)(run - at), at)) <= 0)
				return -1;
	}
	return 0;
}

/* What the image has, where it has something. */
static int
copy_base(struct flat_job *j)
{
	off_t at, end = 0, size = (off_t)j->size;
	const char *p;
	int r = 0;

	if (ftruncate(j->memory, size) < 0)
		return err_sys(&j->err, "memory for several");
	if (j->base < 0)
		return 0;
	if (lseek(j->base, 0, SEEK_END) != size)
		return err_set(&j->err, E_TAMPERED, "the image below has another size");
	p = mmap(NULL, j->size, PROT_READ, MAP_SHARED, j->base, 0);
	if (p == MAP_FAILED)
		return err_sys(&j->err, "map the image below");
	while (r == 0 && (at = lseek(j->base, end, SEEK_DATA)) >= 0 && at < size) {
		end = lseek(j->base, at, SEEK_HOLE);
		if (copy_range(j->memory, p, at, end) < 0)
			r = err_sys(&j->err, "memory for several");
	}
	(void)munmap((void *)p, j->size);
	return r;
}

static void
flat_run(void *arg)
{
	struct flat_job *j = arg;
	struct stream_filter f = { .in = j->in, .over = true, .block = "mem", .size = j->size };

	j->result = -1;
	j->memory = memfd_create("hutch-fork", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	j->state = memfd_create("hutch-fork-state", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	if (j->memory < 0 || j->state < 0) {
		err_sys(&j->err, "memory for several");
		return;
	}
	if (copy_base(j) < 0 || lseek(j->in, 0, SEEK_SET) < 0)
		return;
	f.memory = j->memory;
	f.out = j->state;
	f.parent = -1;
	if (stream_filter(&f, &j->err) == 0 && seal(j->memory, &j->err) == 0 &&
	    seal(j->state, &j->err) == 0)
		j->result = 0;
}

/* Who maps it keeps it. */
static void
flat_end(void *arg)
{
	struct flat *f = arg;

	TAILQ_REMOVE(&f->agent->flats, f, link);
	cleanup_fd(&f->memory);
	cleanup_fd(&f->state);
	talloc_free(f);
}

static void
flat_used(struct flat *f)
{
	TALLOC_FREE(f->end);
	f->end = timer_new(f, f->agent->loop, KEEP_MS, 0, flat_end, f);
}

static void
flat_done(void *arg)
{
	struct flat_job *j = arg;
	struct flat *f = j->flat;

	if (j->result == 0) {
		f->memory = take_fd(&j->memory);
		f->state = take_fd(&j->state);
		f->made = true;
	} else {
		/* each loads its own, then */
		log_warn(NULL, "memory %.16s… is not shared: %s", f->id, j->err.text);
		f->failed = true;
	}
	flat_used(f);
	cleanup_fd(&j->base);
	cleanup_fd(&j->in);
	cleanup_fd(&j->memory);
	cleanup_fd(&j->state);
	talloc_free(j);
}

static struct flat *
flat_find(struct agent *a, const char *id)
{
	struct flat *f;

	TAILQ_FOREACH(f, &a->flats, link)
	if (strcmp(f->id, id) == 0)
		return f;
	return NULL;
}

/* Others are about to start from it, too. */
static bool
several(const struct capsule_op *op)
{
	const struct capsule *c;

	TAILQ_FOREACH(c, &op->capsule->agent->capsules, link)
	if (c->op && c->op != op && !c->op->vm && c->op->spec.memory &&
	    strcmp(c->op->spec.memory, op->spec.memory) == 0)
		return true;
	return false;
}

/* At most what the image has and all of the difference. */
static bool
room(const struct capsule_op *op)
{
	struct agent *a = op->capsule->agent;
	struct host h;
	struct stat s;
	struct err e = { 0 };
	uint64_t need;

	if (fstat(op->state, &s) < 0 || host_facts(a, &h, &e) < 0)
		return false;
	need = ((op->image ? image_holds(op->image) : 0) + (uint64_t)s.st_size) >> 20;
	return h.free_memory_mb > need &&
	    (h.free_memory_mb - need) * 100 >=
	    h.memory_mb * ((uint64_t)a->conf->agent_min_free_memory_percent + SPARE_PERCENT);
}

static struct flat *
flat_make(struct capsule_op *op)
{
	struct agent *a = op->capsule->agent;
	struct flat *f = talloc_zero(a, struct flat);
	struct flat_job *j = talloc_zero(NULL, struct flat_job);

	f->agent = a;
	f->memory = f->state = -1;
	snprintf(f->id, sizeof f->id, "%s", op->spec.memory);
	TAILQ_INSERT_TAIL(&a->flats, f, link);
	j->flat = f;
	j->memory = j->state = -1;
	j->base = op->image ? fcntl(op->image->memory, F_DUPFD_CLOEXEC, 0) : -1;
	j->in = fcntl(op->state, F_DUPFD_CLOEXEC, 0);
	j->size = (uint64_t)op->capsule->memory_mb << 20;
	background(a->loop, flat_run, flat_done, j);
	return f;
}

void
capsule_step_flat(void *user)
{
	struct capsule_op *op = user;
	struct agent *a = op->capsule->agent;
	struct flat *f = op->state >= 0 && op->spec.memory ? flat_find(a, op->spec.memory) : NULL;

	TALLOC_FREE(op->timer);
	if (!f && op->state >= 0 && op->spec.memory && several(op) && room(op))
		f = flat_make(op);
	if (f && !f->made && !f->failed) {
		op->timer = timer_new(op, a->loop, LOOK_MS, 0, capsule_step_flat, op);
		return;
	}
	if (f && f->made) {
		op->flat = fcntl(f->memory, F_DUPFD_CLOEXEC, 0);
		cleanup_fd(&op->state);
		op->state = fcntl(f->state, F_DUPFD_CLOEXEC, 0);
	}
	if (f)
		flat_used(f);
	flow_next(op->flow);
}
