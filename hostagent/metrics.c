/*
 * metrics.c - see metrics.h: tiers, what is answered, what is sent.
 *
 * A chunk is a piece of a tier that begins at a multiple of its length. The control plane keeps one
 * row per chunk and joins what it gets of it, so a chunk may be sent again and again as it fills.
 */
#include "metrics_in.h"
#include "id.h"
#include "idle.h"

#include <string.h>

enum { TICK_MS = 1000, ASK_EVERY = 10, ROWS_MAX = 4096, CPU_WINDOW = 60, GUEST_SILENT_MS = 30000 };

static const struct tier {
	const char *name;
	uint32_t step, slots, chunk; /* seconds, points, points */
} tiers[TIERS] = {
	{ "10m", 1, 600, 600 },
	{ "2h", 30, 240, 120 },
	{ "24h", 300, 288, 24 },
};

struct row {
	STAILQ_ENTRY(row) link;
	char id[CAPSULE_ID];
	int tier;
	uint32_t from;
	int64_t sequence;
	char *json;
};

static STAILQ_HEAD(, row) rows = STAILQ_HEAD_INITIALIZER(rows);
static size_t rows_waiting;

struct metrics *
metrics_of(struct capsule *c)
{
	if (!c->metrics) {
		c->metrics = talloc_zero(c, struct metrics);
		c->metrics->capsule = c;
		c->metrics->processes = -1;
	}
	return c->metrics;
}

/* Rings. */

static const struct point *
point_at(const struct ring *r, size_t i)
{
	return &r->point[(r->head + i) % r->room];
}

static void
push(struct metrics *m, int k, const struct point *p)
{
	struct ring *r = &m->ring[k];

	if (r->count == r->room && r->room < tiers[k].slots) {
		/* it did not go round yet: head is 0 */
		r->room = r->room ? r->room * 2 : 32;
		if (r->room > tiers[k].slots)
			r->room = tiers[k].slots;
		r->point = talloc_realloc(m, r->point, struct point, r->room);
	}
	if (r->count == r->room) {
		r->point[r->head] = *p;
		r->head = (r->head + 1) % r->room;
	} else
		r->point[r->count++] = *p;
}

static void queue_tier(struct metrics *, int k);

/* The mean of the step, memory and disk as they were at its end. */
static void
step_over(struct metrics *m, int k)
{
	struct ring *r = &m->ring[k];
	struct point p = r->sum;

	p.cpu /= (float)r->summed;
	r->summed = 0;
	r->sum = (struct point){ 0 };
	push(m, k, &p);
	if (k == TIERS - 1)
		queue_tier(m, k);
}

void
metrics_add(struct metrics *m, const struct point *p)
{
	int k, i;

	push(m, 0, p);
	for (k = 1; k < TIERS; k++) {
		struct ring *r = &m->ring[k];
		uint32_t at = p->at - p->at % tiers[k].step;

		if (r->summed && r->sum.at != at)
			step_over(m, k);
		r->sum.at = at;
		r->sum.cpu += p->cpu;
		r->sum.mem_kb = p->mem_kb;
		r->sum.guest_kb = p->guest_kb;
		r->sum.cache_kb = p->cache_kb;
		r->sum.disk_kb = p->disk_kb;
		for (i = 0; i < IO; i++)
			r->sum.io[i] += p->io[i];
		r->summed++;
	}
}

/* What goes to the control plane. */

/* In the order of their names in row_json(). */
enum series { S_CPU, S_MEM, S_GUEST, S_CACHE, S_DISK, S_IO };

static uint32_t
kilobytes(const struct point *p, int which)
{
	return which == S_MEM  ? p->mem_kb
	    : which == S_GUEST ? p->guest_kb
	    : which == S_CACHE ? p->cache_kb
			       : p->disk_kb;
}

static void
number(struct buf *b, const char *name, const struct point *const *slot, uint32_t n, int which)
{
	bool of_guest = which == S_GUEST || which == S_CACHE;
	uint32_t i;

	buf_fmt(b, ",\"%s\":[", name);
	for (i = 0; i < n; i++) {
		const struct point *p = slot[i];

		if (i)
			buf_chr(b, ',');
		if (!p || (of_guest && !kilobytes(p, which)))
			buf_str(b, "null");
		else if (which == S_CPU)
			buf_fmt(b, "%.2f", p->cpu);
		else if (which < S_IO)
			buf_int(b, 1024LL * kilobytes(p, which));
		else
			buf_int(b, (int64_t)p->io[which - S_IO]);
	}
	buf_chr(b, ']');
}

static char *
row_json(void *mem, const struct capsule *c, int k, uint32_t from, const struct point **slot)
{
	static const char *const names[] = { "cpu", "mem", "mem_guest", "mem_cache", "disk", "rx",
		"tx", "rd", "wr" };
	struct buf b = BUF(mem);
	struct uuid id = { 0 };
	uint32_t n = tiers[k].chunk;
	size_t i;

	while (n && !slot[n - 1])
		n--;
	(void)id_read(c->id, "cl-", &id);
	buf_str(&b, "{\"id\":\"");
	for (i = 0; i < sizeof id.b; i++)
		buf_fmt(&b, "%02x", id.b[i]);
	buf_fmt(&b, "\",\"tier\":\"%s\",\"from_s\":%u,\"step_ms\":%u", tiers[k].name, from,
	    tiers[k].step * 1000);
	for (i = 0; i < nitems(names); i++)
		number(&b, names[i], slot, n, (int)i);
	buf_chr(&b, '}');
	return b.data;
}

static void
row_drop(struct row *r)
{
	STAILQ_REMOVE(&rows, r, row, link);
	rows_waiting--;
	talloc_free(r);
}

/* A chunk that waits already is replaced, under a new number: what is under way is not it. */
static void
queue_row(struct capsule *c, int k, uint32_t from, const struct point **slot)
{
	static int64_t sequence;
	struct row *r;

	STAILQ_FOREACH(r, &rows, link)
	if (r->from == from && r->tier == k && strcmp(r->id, c->id) == 0)
		break;
	if (!r && rows_waiting == ROWS_MAX)
		r = STAILQ_FIRST(&rows);
	if (r)
		row_drop(r);
	r = talloc_zero(c->agent, struct row);
	snprintf(r->id, sizeof r->id, "%s", c->id);
	r->tier = k;
	r->from = from;
	r->sequence = ++sequence;
	r->json = row_json(r, c, k, from, slot);
	STAILQ_INSERT_TAIL(&rows, r, link);
	rows_waiting++;
}

/* The chunks of a tier that have points which were not queued yet, whole. */
static void
queue_tier(struct metrics *m, int k)
{
	struct ring *r = &m->ring[k];
	uint32_t length = tiers[k].step * tiers[k].chunk, from = 0;
	const struct point **slot = talloc_zero_array(m, const struct point *, tiers[k].chunk);
	bool news = false;
	size_t i;

	if (!m->capsule->agent->control) {
		talloc_free(slot);
		return; /* nobody will ever take them */
	}
	for (i = 0; i < r->count; i++) {
		const struct point *p = point_at(r, i);

		if (p->at - p->at % length != from) {
			if (news)
				queue_row(m->capsule, k, from, slot);
			memset(slot, 0, tiers[k].chunk * sizeof *slot);
			from = p->at - p->at % length;
			news = false;
		}
		slot[(p->at - from) / tiers[k].step] = p;
		news = news || p->at > r->queued;
	}
	if (news)
		queue_row(m->capsule, k, from, slot);
	if (r->count)
		r->queued = point_at(r, r->count - 1)->at;
	talloc_free(slot);
}

bool
metrics_waiting(void)
{
	return rows_waiting > 0;
}

int64_t
metrics_rows(size_t most, struct buf *b)
{
	const struct row *r;
	int64_t last = 0;

	STAILQ_FOREACH(r, &rows, link)
	{
		if (most-- == 0)
			break;
		if (last)
			buf_chr(b, ',');
		buf_str(b, r->json);
		last = r->sequence;
	}
	return last;
}

void
metrics_sent(int64_t sequence)
{
	struct row *r;

	while ((r = STAILQ_FIRST(&rows)) && r->sequence <= sequence)
		row_drop(r);
}

void
metrics_changed(struct capsule *c)
{
	struct metrics *m = c->metrics;
	int k;

	if (!m || c->state == CAP_RUNNING || c->state == CAP_PAUSING || c->state == CAP_RESUMING ||
	    c->state == CAP_STARTING)
		return;
	/* a step that was cut short is a step, too */
	for (k = 1; k < TIERS; k++)
		if (m->ring[k].summed)
			step_over(m, k);
	for (k = 0; k < TIERS; k++)
		queue_tier(m, k);
	if (c->state == CAP_GONE)
		TALLOC_FREE(c->metrics);
}

/* What is answered. */

int
metrics_json(const struct capsule *c, const char *tier, int64_t since, struct buf *b)
{
	static const char *const io[IO] = { "net_rx", "net_tx", "disk_read", "disk_write" };
	const struct metrics *m = c->metrics;
	const struct ring *r;
	size_t i, n;
	int k = 0;

	while (k < TIERS && strcmp(tiers[k].name, tier) != 0)
		k++;
	if (k == TIERS)
		return -1;
	r = m ? &m->ring[k] : NULL;
	buf_fmt(b,
	    "{\"tier\":\"%s\",\"step_ms\":%u,\"sources\":{\"cpu\":\"%s\",\"mem\":\"%s\",\"disk\":"
	    "\"host\",\"disk_io\":\"vmm\",\"net\":\"guest\",\"mem_guest\":\"guest\","
	    "\"mem_cache\":\"guest\"},\"points\":[",
	    tier, tiers[k].step * 1000, m && m->own_cgroup ? "cgroup" : "process",
	    m && m->own_cgroup ? "cgroup" : "process");
	for (i = 0; r && i < r->count; i++) {
		const struct point *p = point_at(r, i);

		if (p->at < since)
			continue;
		buf_fmt(b,
		    "%s{\"timestamp_unix\":%u,\"cpu_pct\":%.2f,\"mem_bytes\":%llu,"
		    "\"disk_bytes\":%llu",
		    b->data[b->len - 1] == '[' ? "" : ",", p->at, p->cpu, 1024ULL * p->mem_kb,
		    1024ULL * p->disk_kb);
		if (p->guest_kb)
			buf_fmt(b, ",\"mem_guest_bytes\":%llu", 1024ULL * p->guest_kb);
		if (p->cache_kb)
			buf_fmt(b, ",\"mem_cache_bytes\":%llu", 1024ULL * p->cache_kb);
		for (n = 0; n < IO; n++)
			buf_fmt(b, ",\"%s\":%lld", io[n], (long long)p->io[n]);
		buf_chr(b, '}');
	}
	buf_str(b, "]}");
	return 0;
}

bool
metrics_guest_silent(const struct capsule *c)
{
	const struct metrics *m = c->metrics;

	return m && c->state == CAP_RUNNING && m->guest_heard &&
	    now_mono() - m->guest_heard > GUEST_SILENT_MS;
}

/* The tick. */

/* Percent of one vCPU in the last minute; 0 when it is not that old. */
static double
cpu_minute(const struct metrics *m)
{
	const struct ring *r = &m->ring[0];
	double sum = 0;
	size_t i;

	if (r->count < CPU_WINDOW)
		return 0;
	for (i = r->count - CPU_WINDOW; i < r->count; i++)
		sum += point_at(r, i)->cpu;
	return sum / CPU_WINDOW * m->capsule->vcpus;
}

static void
on_tick(void *arg)
{
	struct agent *a = arg;
	static unsigned turn;
	struct capsule *c;
	struct point p;

	turn++;
	TAILQ_FOREACH(c, &a->capsules, link)
	{
		if (c->state != CAP_RUNNING || !c->vm)
			continue;
		if (metrics_look(metrics_of(c), &p))
			metrics_add(c->metrics, &p);
		if (turn % ASK_EVERY == 0) {
			idle_sample(c, cpu_minute(c->metrics), c->metrics->processes);
			metrics_ask(c->metrics);
		}
	}
}

void
metrics_start(struct agent *a)
{
	(void)timer_new(a, a->loop, TICK_MS, TICK_MS, on_tick, a);
}
