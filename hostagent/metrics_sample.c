/*
 * metrics_sample.c - one look at a capsule: its cgroup or its process, its disk, QEMU, its guest.
 *
 * A capsule with a cgroup of its own is measured by it: pages of the shared template are then not
 * its memory. Else by QEMU's process, whose resident pages they are.
 */
#include "guest.h"
#include "metrics_in.h"
#include "qmp.h"
#include "vm.h"

#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

enum { GUEST_MS = 8000, SPREAD_S = 10, KIB = 1024, NS_PER_TICK = 10000000 };
static const uint64_t COUNTED_MOST = 1ULL << 50; /* bytes in ten seconds */

static size_t
slurp(const char *path, char *ret, size_t len)
{
	auto_fd fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t n = fd < 0 ? -1 : read(fd, ret, len - 1);

	ret[n > 0 ? n : 0] = '\0';
	return n > 0 ? (size_t)n : 0;
}

/* The process's cgroup in a hierarchy ("memory", "cpuacct"; "" is version 2), when it is named
   after this VM and so holds nothing else. */
static bool
cgroup_of(const struct vm *vm, const char *controller, char *ret, size_t len)
{
	char text[4096], path[64], *line, *save = NULL, *list, *where;

	snprintf(path, sizeof path, "/proc/%d/cgroup", (int)vm->pid);
	(void)slurp(path, text, sizeof text);
	for (line = strtok_r(text, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
		list = strchr(line, ':');
		where = list ? strchr(list + 1, ':') : NULL;
		if (!where || !strstr(where, vm->name))
			continue;
		*where++ = '\0';
		list++;
		if (!*controller && !*list)
			snprintf(ret, len, "/sys/fs/cgroup%s", where);
		else if (*controller && strstr(list, controller))
			snprintf(ret, len, "/sys/fs/cgroup/%s%s", controller, where);
		else
			continue;
		return true;
	}
	return false;
}

static uint64_t
number_in(const char *dir, const char *file)
{
	char path[512], text[64];

	snprintf(path, sizeof path, "%.400s/%.40s", dir, file);
	(void)slurp(path, text, sizeof text);
	return strtoull(text, NULL, 10);
}

static bool
by_cgroup(const struct vm *vm, uint64_t *cpu_ns, uint64_t *mem_kb)
{
	char dir[400], text[512], path[450];
	const char *p;

	if (cgroup_of(vm, "", dir, sizeof dir)) {
		*mem_kb = number_in(dir, "memory.current") / KIB;
		snprintf(path, sizeof path, "%s/cpu.stat", dir);
		(void)slurp(path, text, sizeof text);
		p = strstr(text, "usage_usec ");
		*cpu_ns = p ? strtoull(p + strlen("usage_usec "), NULL, 10) * 1000 : 0;
		return *mem_kb && *cpu_ns;
	}
	if (!cgroup_of(vm, "memory", dir, sizeof dir))
		return false;
	*mem_kb = number_in(dir, "memory.usage_in_bytes") / KIB;
	if (!cgroup_of(vm, "cpuacct", dir, sizeof dir))
		return false;
	*cpu_ns = number_in(dir, "cpuacct.usage");
	return *mem_kb && *cpu_ns;
}

static bool
by_process(const struct vm *vm, uint64_t *cpu_ns, uint64_t *mem_kb)
{
	char text[1024], path[64];
	unsigned long user = 0, kernel = 0, pages = 0;
	const char *p;

	snprintf(path, sizeof path, "/proc/%d/stat", (int)vm->pid);
	/* the name in parentheses may hold anything */
	if (!slurp(path, text, sizeof text) || !(p = strrchr(text, ')')))
		return false;
	if (sscanf(p + 1, " %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu", &user, &kernel) !=
	    2)
		return false;
	*cpu_ns = (uint64_t)(user + kernel) * NS_PER_TICK;
	snprintf(path, sizeof path, "/proc/%d/statm", (int)vm->pid);
	(void)slurp(path, text, sizeof text);
	if (sscanf(text, "%*u %lu", &pages) != 1)
		return false;
	*mem_kb = pages * (uint64_t)sysconf(_SC_PAGESIZE) / KIB;
	return true;
}

/* What was counted since the last time, handed out over the seconds until the next. A guest may say
   any number: what can be added up and written is the most. */
static void
counted(struct metrics *m, enum io i, uint64_t total)
{
	uint64_t more = total >= m->total[i] ? total - m->total[i] : total;

	m->total[i] = total;
	more = more < COUNTED_MOST ? more : COUNTED_MOST;
	m->left[i] += (float)more;
	m->rate[i] = m->left[i] / SPREAD_S;
}

bool
metrics_look(struct metrics *m, struct point *ret)
{
	const struct vm *vm = m->capsule->vm;
	uint64_t cpu_ns = 0, mem_kb = 0;
	int64_t now = now_mono(), past = m->at_ms;
	struct stat st = { 0 };
	char disk[LAYER_NAME];
	double used;
	int i;

	if (vm->pid <= 0 || now == past)
		return false;
	m->own_cgroup = by_cgroup(vm, &cpu_ns, &mem_kb);
	if (!m->own_cgroup && !by_process(vm, &cpu_ns, &mem_kb))
		return false;
	used = (double)(cpu_ns - m->cpu_ns) / 1e6;
	m->cpu_ns = cpu_ns;
	m->at_ms = now;
	if (m->pid != vm->pid) {
		/* the first look at this process: everything counts from here */
		m->pid = vm->pid;
		memset(m->total, 0, sizeof m->total);
		m->guest_kb = m->cache_kb = 0;
		m->processes = -1;
		m->guest_heard = now;
		metrics_ask(m);
		return false;
	}
	if (vm->dir >= 0)
		(void)fstatat(vm->dir, chain_file(vm->chain.active, disk), &st, 0);
	*ret = (struct point){ .at = (uint32_t)(now_real() / 1000),
		.cpu = (float)(used * 100 / (double)(now - past) / m->capsule->vcpus),
		.mem_kb = (uint32_t)mem_kb,
		.guest_kb = m->guest_kb,
		.cache_kb = m->cache_kb,
		.disk_kb = (uint32_t)(st.st_blocks / 2) };
	if (ret->cpu < 0 || ret->cpu > 100)
		ret->cpu = ret->cpu < 0 ? 0 : 100;
	for (i = 0; i < IO; i++) {
		ret->io[i] = m->rate[i] < m->left[i] ? m->rate[i] : m->left[i];
		m->left[i] -= ret->io[i];
	}
	return true;
}

/* QEMU's block counters. */

static void
on_blocks(void *arg, struct json_object *ret, const struct err *e)
{
	struct capsule *c = arg;
	struct json_object *one, *stats;
	uint64_t rd = 0, wr = 0;
	size_t i;

	if (e || !c->metrics || !json_object_is_type(ret, json_type_array))
		return;
	for (i = 0; i < json_object_array_length(ret); i++) {
		one = json_object_array_get_idx(ret, i);
		stats = json_get(one, "stats");
		rd += (uint64_t)json_int(stats, "rd_bytes", 0);
		wr += (uint64_t)json_int(stats, "wr_bytes", 0);
	}
	counted(c->metrics, IO_RD, rd);
	counted(c->metrics, IO_WR, wr);
}

/* The guest: hostile numbers, shown as the guest's and used for nothing else. */

static void
on_guest(void *arg, int status, const char *body, size_t len, const struct err *e)
{
	struct metrics *m = arg;
	auto_talloc char *mem = talloc_new(NULL);
	struct err bad = { 0 };
	struct json_object *j;

	m->guest_asked = false;
	if (e)
		return;
	m->guest_heard = now_mono();
	j = status == 200 ? json_parse(mem, body, len, NULL, &bad) : NULL;
	if (!j)
		return;
	m->guest_kb = (uint32_t)(json_int(j, "mem_used", 0) / KIB);
	m->cache_kb = (uint32_t)(json_int(j, "mem_cache", 0) / KIB);
	m->processes = (int)json_int(j, "processes", -1);
	counted(m, IO_RX, (uint64_t)json_int(j, "net_rx", 0));
	counted(m, IO_TX, (uint64_t)json_int(j, "net_tx", 0));
}

void
metrics_ask(struct metrics *m)
{
	struct vm *vm = m->capsule->vm;
	struct guest_call call = { .method = "GET", .path = "/stats", .timeout_ms = GUEST_MS };
	struct err e = { 0 };

	if (vm->qmp)
		qmp_call(vm->qmp, "query-blockstats", NULL, -1, on_blocks, m->capsule);
	/* an operation may be about to close the session: then the next turn asks */
	if (!m->guest_asked && !m->capsule->op && vm_guest_open(vm, &e) == 0) {
		m->guest_asked = true;
		guest_call(vm->guest, m, &call, on_guest, m);
	}
}
