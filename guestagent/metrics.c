/*
 * metrics.c - GET /metrics: what the machine uses, as the guest's own kernel sees it.
 *
 * GET /stats is what the host agent adds to its own figures; the bridge lets nobody else ask it.
 */
#include "cleanup.h"
#include "handlers.h"
#include "process.h"

#include <inttypes.h>
#include <string.h>
#include <sys/statvfs.h>
#include <time.h>

struct cpu {
	uint64_t busy, all;
};

static struct cpu
cpu_read(void)
{
	auto_file *f = fopen("/proc/stat", "re");
	uint64_t v[8] = { 0 };
	struct cpu c = { 0 };

	if (f &&
	    fscanf(f,
		"cpu %" SCNu64 " %" SCNu64 " %" SCNu64 " %" SCNu64 " %" SCNu64 " %" SCNu64
		" %" SCNu64 " %" SCNu64,
		&v[0], &v[1], &v[2], &v[3], &v[4], &v[5], &v[6], &v[7]) < 4)
		return c;
	for (size_t i = 0; i < nitems(v); i++)
		c.all += v[i];
	c.busy = c.all - v[3] - v[4];
	return c;
}

/* A line of /proc/meminfo, in bytes. */
static uint64_t
memory(const char *name)
{
	auto_file *f = fopen("/proc/meminfo", "re");
	size_t n = strlen(name);
	char line[128];
	uint64_t kb = 0;

	while (f && fgets(line, sizeof line, f))
		if (strncmp(line, name, n) == 0 && line[n] == ':') {
			kb = strtoull(line + n + 1, NULL, 10);
			break;
		}
	return kb * 1024;
}

void
metrics_get(struct call *c)
{
	static struct cpu before;
	struct cpu now = cpu_read();
	uint64_t all = now.all - before.all, busy = now.busy - before.busy;
	uint64_t total = memory("MemTotal"), available = memory("MemAvailable");
	struct statvfs fs = { 0 };
	struct buf b = BUF(c);

	before = now;
	(void)statvfs("/", &fs);
	buf_fmt(&b, "{\"ts\":%lld,\"cpu_count\":%ld,\"cpu_used_pct\":%.2f", (long long)time(NULL),
	    sysconf(_SC_NPROCESSORS_ONLN), all ? 100.0 * (double)busy / (double)all : 0.0);
	buf_fmt(&b, ",\"mem_total\":%" PRIu64 ",\"mem_used\":%" PRIu64 ",\"mem_cache\":%" PRIu64,
	    total, total - available, memory("Cached"));
	buf_fmt(&b, ",\"mem_total_mib\":%" PRIu64 ",\"mem_used_mib\":%" PRIu64, total >> 20,
	    (total - available) >> 20);
	buf_fmt(&b, ",\"disk_used\":%" PRIu64 ",\"disk_total\":%" PRIu64 "}",
	    (uint64_t)(fs.f_blocks - fs.f_bfree) * fs.f_frsize,
	    (uint64_t)fs.f_blocks * fs.f_frsize);
	call_reply_json(c, &b);
}

/* Bytes in and out of all interfaces but the loopback. */
static void
network(uint64_t *rx, uint64_t *tx)
{
	auto_file *f = fopen("/proc/net/dev", "re");
	char line[512], name[32];
	uint64_t in, out;

	*rx = *tx = 0;
	while (f && fgets(line, sizeof line, f)) {
		if (sscanf(line, " %31[^:]: %" SCNu64 " %*u %*u %*u %*u %*u %*u %*u %" SCNu64, name,
			&in, &out) != 3 ||
		    strcmp(name, "lo") == 0)
			continue;
		*rx += in;
		*tx += out;
	}
}

void
stats_get(struct call *c)
{
	uint64_t rx, tx;
	struct buf b = BUF(c);
	int alive = 0;

	for (const struct process *p = process_list; p; p = p->next)
		alive += process_alive(p);
	network(&rx, &tx);
	buf_fmt(&b,
	    "{\"mem_used\":%" PRIu64 ",\"mem_cache\":%" PRIu64 ",\"net_rx\":%" PRIu64
	    ",\"net_tx\":%" PRIu64 ",\"processes\":%d}",
	    memory("MemTotal") - memory("MemAvailable"), memory("Cached"), rx, tx, alive);
	call_reply_json(c, &b);
}
