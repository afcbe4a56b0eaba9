/* placement.c - see placement.h. */
#include "placement.h"
#include "cleanup.h"
#include "crypto.h"
#include "placement.q.h"

#include <stdlib.h>
#include <string.h>

enum { TRIES = 3, OVERHEAD_MB = 64, OVERHEAD_TCG_MB = 128 };
#define WARM_BONUS 0.30
#define HELD_BONUS 0.10
#define TIE        1e-6 /* equals are told apart by chance */

/* What a machine takes besides its guest's memory (host_used() counts the same). */
static int64_t
memory_of(const struct place_ask *a, const struct q_place_host *h)
{
	return a->memory_mb + (strcmp(h->accel, "kvm") == 0 ? OVERHEAD_MB : OVERHEAD_TCG_MB);
}

static bool
has_room(const struct place_ask *a, const struct q_place_host *h)
{
	return h->memory_mb + memory_of(a, h) <= h->all_memory_mb &&
	    h->vcpus + a->vcpus <= h->all_vcpus;
}

static bool
fits_disk(int32_t more, int64_t used, int64_t all, int64_t left)
{
	return used + more / 2 <= all && left > 1024 + more / 10;
}

static bool
has_disk(const struct place_ask *a, const struct q_place_host *h)
{
	return fits_disk(a->disk_mb, h->disk_mb, h->all_disk_mb, h->free_disk_mb);
}

/* Agents start as many at once as they have cores; more wait there, but not without end. */
static bool
queue_is_short(const struct place_ask *a, const struct q_place_host *h)
{
	return h->starting < h->cpu_cores * a->conf->host_starts_per_core;
}

static double
left(int64_t used, int64_t more, int64_t all)
{
	return all > 0 ? 1.0 - (double)(used + more) / (double)all : 0;
}

/* What remains free after the placement, of what gets scarcest. */
static double
free_after(const struct place_ask *a, const struct q_place_host *h)
{
	double memory = left(h->memory_mb, memory_of(a, h), h->all_memory_mb);
	double cpu = left(h->vcpus, a->vcpus, h->all_vcpus);
	double disk = left(h->disk_mb, a->disk_mb / 2, h->all_disk_mb);
	double least = memory < cpu ? memory : cpu;

	return least < disk ? least : disk;
}

static double
bonus(const struct q_place_host *h)
{
	return (h->is_warm ? WARM_BONUS : 0) + (h->has_template || h->has_copy ? HELD_BONUS : 0);
}

static double
least_loaded(const struct place_ask *a, const struct q_place_host *h)
{
	return free_after(a, h) * h->weight + bonus(h);
}

static double
pack(const struct place_ask *a, const struct q_place_host *h)
{
	return (1 - free_after(a, h)) * h->weight + bonus(h);
}

static double
round_robin(const struct place_ask *a, const struct q_place_host *h)
{
	(void)a;
	return h->last_placed_at == NULL_INT ? 0 : -(double)h->last_placed_at;
}

const struct sched_policy sched_policies[] = {
	/* clang-format off */
	{ "least_loaded",	has_room,	least_loaded },
	{ "pack",		has_room,	pack },
	{ "round_robin",	has_room,	round_robin },
	{ 0 },
	/* clang-format on */
};

static const struct sched_policy *
policy(const struct conf *c)
{
	const struct sched_policy *p = sched_policies;

	while (p->name && strcmp(p->name, c->host_policy) != 0)
		p++;
	return p->name ? p : sched_policies;
}

struct candidate {
	const struct q_place_host *host;
	bool busy; /* as many starts as cores: only if nobody else is left */
	double score;
};

static int
better(const void *left_one, const void *right_one)
{
	const struct candidate *a = left_one, *b = right_one;

	if (a->busy != b->busy)
		return a->busy ? 1 : -1;
	return a->score < b->score ? 1 : a->score > b->score ? -1 : 0;
}

static const char *const *
artifacts(struct work *w, const struct place_ask *a)
{
	const struct bytes *const both[] = { &a->memory, &a->disk };
	const char **list = talloc_zero_array(w, const char *, 3);
	size_t i, n = 0;

	for (i = 0; i < nitems(both); i++)
		if (both[i]->p)
			list[n++] = hex_write(
			    talloc_array(w, char, 2 * both[i]->n + 1), both[i]->p, both[i]->n);
	return list;
}

static int
hosts(struct work *w, const struct place_ask *a, const struct uuid *only, struct q_place_host **ret)
{
	static const char *const none[] = { NULL };

	return q_place_hosts(w->db, ret, .mem_percent = a->conf->host_overcommit_memory_percent,
	    .cpu_percent = a->conf->host_overcommit_cpu_percent,
	    .tcg_percent = a->conf->host_overcommit_cpu_tcg_percent, .template = a->template,
	    .artifacts = artifacts(w, a), .suspect = a->conf->host_suspect_sec, .team = a->team,
	    .tags = a->tags ? a->tags : none, .arch = a->arch, .cpu_class = a->cpu_class,
	    .only = only, .avoid = a->avoid);
}

static int
take(struct work *w, const struct sched_policy *p, const struct q_place_host *h, struct place *ret)
{
	*ret = (struct place){
		.host = h->id, .address = h->address, .accel = h->accel, .has_copy = h->has_copy
	};
	return p->score == round_robin ? q_place_note(w->db, .id = h->id) : 0;
}

int
host_place(struct work *w, const struct place_ask *a, struct place *ret)
{
	const struct sched_policy *p = policy(a->conf);
	struct candidate *list;
	struct q_place_host *h, *now;
	int n = hosts(w, a, a->only, &h), fit = 0, i, k;
	bool disk = false;

	if (n < 0)
		return -1;
	list = talloc_array(w, struct candidate, n + 1);
	for (i = 0; i < n; i++) {
		if (!p->filter(a, &h[i]) || !queue_is_short(a, &h[i]))
			continue;
		disk = disk || !has_disk(a, &h[i]);
		if (has_disk(a, &h[i]))
			list[fit++] = (struct candidate){ &h[i], h[i].starting >= h[i].cpu_cores,
				p->score(a, &h[i]) + TIE * (double)(random() % 1000) / 1000 };
	}
	qsort(list, fit, sizeof *list, better);
	for (i = 0; i < fit && i < TRIES; i++) {
		if (q_place_lock(w->db, .id = list[i].host->id) < 0)
			return -1;
		k = hosts(w, a, list[i].host->id, &now);
		if (k < 0)
			return -1;
		if (k > 0 && p->filter(a, now) && queue_is_short(a, now) && has_disk(a, now))
			return take(w, p, now, ret) < 0 ? -1 : 0;
	}
	if (!fit && disk)
		return err_set(
		    &w->err, E_NO_SPACE, "every host that fits lacks disk for %d MiB", a->disk_mb);
	return err_set(&w->err, E_NO_HOSTS, "no host has room for %d vcpus and %d MiB%s%s",
	    a->vcpus, a->memory_mb, a->cpu_class ? ", and loads memory of class " : "",
	    a->cpu_class ? a->cpu_class : "");
}

int
host_disk(struct work *w, const struct conf *conf, const struct uuid *capsule, int32_t more_mb)
{
	struct q_place_left *d;
	int n = q_place_lock_of(w->db, .capsule = capsule);

	if (n <= 0)
		return n;
	n = q_place_disk(w->db, &d, .capsule = capsule,
	    .mem_percent = conf->host_overcommit_memory_percent,
	    .cpu_percent = conf->host_overcommit_cpu_percent,
	    .tcg_percent = conf->host_overcommit_cpu_tcg_percent);
	if (n <= 0)
		return n;
	return fits_disk(more_mb, d->disk_mb, d->all_disk_mb, d->free_disk_mb)
	    ? 0
	    : err_set(&w->err, E_NO_SPACE, "its host lacks disk for %d MiB more", more_mb);
}
