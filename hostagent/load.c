/*
 * load.c - see load.h.
 *
 * Processor time is what /proc/stat counts of all cores, the agent's what /proc/self/stat counts,
 * in percent of one core; memory is what programs cannot get any more.
 */
#include "load.h"
#include "accel.h"
#include "capsule.h"
#include "control.h"
#include "host.h"
#include "image.h"
#include "template.h"

#include <string.h>

enum { TICK_MS = 5000, TIERS = 3, SLOTS = 288 };

static const struct tier {
	const char *name;
	uint32_t step, slots; /* seconds, points */
} tiers[TIERS] = {
	{ "10m", 5, 120 },
	{ "2h", 30, 240 },
	{ "24h", 300, 288 },
};

struct point {
	uint32_t at; /* unix seconds, where its step begins */
	float cpu, load, agent_cpu;
	uint64_t mem_mb, disk_mb;
	uint32_t agent_kb, running, capsules;
};

struct ring {
	struct point point[SLOTS], sum;
	size_t head, count, summed;
};

static struct {
	struct ring ring[TIERS];
	int64_t started, at_ms;      /* unix ms; now_mono() of the last sample */
	uint64_t busy, idle, own_ms; /* counters then */
} seen;

static size_t
slurp(const char *path, char *ret, size_t len)
{
	auto_file *f = fopen(path, "re");
	size_t n = f ? fread(ret, 1, len - 1, f) : 0;

	ret[n] = '\0';
	return n;
}

/* Ticks of all cores since the boot: at work, and waiting. */
static void
processor(uint64_t *busy, uint64_t *idle)
{
	unsigned long long user = 0, nice = 0, kernel = 0, idles = 0, waits = 0, irq = 0, soft = 0,
			   steal = 0;
	char text[512];

	(void)slurp("/proc/stat", text, sizeof text);
	(void)sscanf(text, "cpu %llu %llu %llu %llu %llu %llu %llu %llu", &user, &nice, &kernel,
	    &idles, &waits, &irq, &soft, &steal);
	*busy = user + nice + kernel + irq + soft + steal;
	*idle = idles + waits;
}

/* The agent's own process: its processor time, what it has in memory. */
static void
own(uint64_t *cpu_ms, uint32_t *kb)
{
	unsigned long user = 0, kernel = 0, pages = 0;
	char text[1024];
	const char *p;

	(void)slurp("/proc/self/stat", text, sizeof text);
	p = strrchr(text, ')');
	if (p)
		(void)sscanf(
		    p + 1, " %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu", &user, &kernel);
	*cpu_ms = (user + kernel) * 1000UL / (unsigned long)sysconf(_SC_CLK_TCK);
	(void)slurp("/proc/self/statm", text, sizeof text);
	(void)sscanf(text, "%*u %lu", &pages);
	*kb = (uint32_t)(pages * (unsigned long)sysconf(_SC_PAGESIZE) / 1024);
}

static void
push(int k, const struct point *p)
{
	struct ring *r = &seen.ring[k];

	if (r->count < tiers[k].slots)
		r->point[r->count++] = *p;
	else {
		r->point[r->head] = *p;
		r->head = (r->head + 1) % tiers[k].slots;
	}
}

/* Into each tier: shares are the mean of a step, the rest is as it was at its end. */
static void
add(const struct point *p)
{
	int k;

	for (k = 0; k < TIERS; k++) {
		struct ring *r = &seen.ring[k];
		uint32_t at = p->at - p->at % tiers[k].step;
		struct point *s = &r->sum;

		if (r->summed && s->at != at) {
			s->cpu /= (float)r->summed;
			s->agent_cpu /= (float)r->summed;
			push(k, s);
			r->summed = 0;
			*s = (struct point){ 0 };
		}
		*s = (struct point){ .at = at,
			.cpu = s->cpu + p->cpu,
			.agent_cpu = s->agent_cpu + p->agent_cpu,
			.load = p->load,
			.mem_mb = p->mem_mb,
			.disk_mb = p->disk_mb,
			.agent_kb = p->agent_kb,
			.running = p->running,
			.capsules = p->capsules };
		r->summed++;
	}
}

static void
count(const struct agent *a, struct point *p)
{
	const struct capsule *c;

	TAILQ_FOREACH(c, &a->capsules, link)
	{
		p->running += c->state == CAP_RUNNING;
		p->capsules += c->state != CAP_GONE && c->state != CAP_NEW;
	}
}

static void
look(void *arg)
{
	const struct agent *a = arg;
	int64_t now = now_mono(), past = seen.at_ms;
	uint64_t busy, idle, own_ms, all;
	struct point p = { .at = (uint32_t)(now_real() / 1000) };
	struct host h = { 0 };
	struct err e = { 0 };

	if (host_facts(a, &h, &e) < 0)
		return;
	processor(&busy, &idle);
	own(&own_ms, &p.agent_kb);
	all = busy - seen.busy + idle - seen.idle;
	if (past && all && now > past) {
		p.cpu = (float)(busy - seen.busy) * 100 / (float)all;
		p.agent_cpu = (float)(own_ms - seen.own_ms) * 100 / (float)(now - past);
		p.load = (float)h.load;
		p.mem_mb = h.memory_mb - h.free_memory_mb;
		p.disk_mb = h.disk_mb - h.free_disk_mb;
		count(a, &p);
		add(&p);
	}
	seen.at_ms = now;
	seen.busy = busy;
	seen.idle = idle;
	seen.own_ms = own_ms;
}

void
load_start(struct agent *a)
{
	seen.started = now_real();
	look(a);
	(void)timer_new(a, a->loop, TICK_MS, TICK_MS, look, a);
}

static void
point_json(const struct point *p, struct buf *b)
{
	buf_fmt(b,
	    "{\"timestamp_unix\":%u,\"cpu_pct\":%.2f,\"load\":%.2f,\"mem_bytes\":%llu,"
	    "\"disk_bytes\":%llu,\"agent_cpu_pct\":%.2f,\"agent_mem_bytes\":%llu,\"running\":%u,"
	    "\"capsules\":%u}",
	    p->at, p->cpu, p->load, (unsigned long long)p->mem_mb << 20,
	    (unsigned long long)p->disk_mb << 20, p->agent_cpu,
	    (unsigned long long)p->agent_kb << 10, p->running, p->capsules);
}

static void
pools(const struct agent *a, struct buf *b)
{
	const struct image *i;
	const char *comma = "";

	TAILQ_FOREACH(i, &a->images, link)
	{
		if (!*i->name)
			continue; /* only held for a capsule's memory */
		buf_fmt(b, "%s{\"template\":", comma);
		buf_json(b, i->t->name);
		buf_str(b, ",\"build\":");
		buf_json(b, i->t->build);
		buf_fmt(b, ",\"vcpus\":%d,\"memory_mb\":%d,\"image\":\"%s\",\"image_bytes\":%llu,",
		    i->vcpus, i->memory_mb, image_state_name(i->state),
		    (unsigned long long)image_holds(i));
		pool_json(i, b);
		buf_chr(b, '}');
		comma = ",";
	}
}

int
load_json(const struct agent *a, const char *tier, struct buf *b)
{
	const struct ring *r;
	struct host h = { 0 };
	struct err e = { 0 };
	int k = 0;
	size_t i;

	while (k < TIERS && strcmp(tiers[k].name, tier) != 0)
		k++;
	if (k == TIERS)
		return -1;
	r = &seen.ring[k];
	(void)host_facts(a, &h, &e);
	buf_fmt(b,
	    "{\"machine\":{\"cpu_cores\":%d,\"mem_bytes\":%llu,\"disk_bytes\":%llu},\"agent\":{"
	    "\"version\":\"%s\",\"accel\":\"%s\",\"qemu_version\":",
	    a->cores, (unsigned long long)h.memory_mb << 20, (unsigned long long)h.disk_mb << 20,
	    PACKAGE_VERSION, accel_name(a->accel));
	buf_json(b, a->qemu_version);
	buf_fmt(b,
	    ",\"started_unix\":%lld,\"starting\":%zu,\"uids_free\":%d,\"reports_waiting\":%zu},"
	    "\"pools\":[",
	    (long long)seen.started / 1000, vm_starting(a), uid_free(a), control_waiting(a));
	pools(a, b);
	buf_str(b, "],\"points\":[");
	for (i = 0; i < r->count; i++) {
		buf_str(b, i ? "," : "");
		point_json(&r->point[(r->head + i) % tiers[k].slots], b);
	}
	buf_str(b, "]}");
	return 0;
}
