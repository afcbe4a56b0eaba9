/* cgroup.c - see cgroup.h. */
#include "cgroup.h"
#include "cleanup.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

enum { PERIOD_US = 100000, SHARES = 1024, WEIGHT = 100, WEIGHT_MAX = 10000 };

static const struct controller {
	const char *name;
	const char *limit1, *limit2; /* the file of its first limit, in version 1 and 2 */
} controllers[CG__PARTS] = {
	/* clang-format off */
	[CG_MEMORY] = { "memory", "memory.limit_in_bytes", "memory.max" },
	[CG_CPU] = { "cpu", "cpu.cfs_quota_us", "cpu.max" },
	[CG_PIDS] = { "pids", "pids.max", "pids.max" },
	/* clang-format on */
};

static int
put(const char *dir, const char *file, const char *text)
{
	char path[512];
	auto_fd fd = -1;

	snprintf(path, sizeof path, "%s/%s", dir, file);
	fd = open(path, O_WRONLY | O_CLOEXEC);
	return fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text) ? 0 : -1;
}

static int
put_number(const char *dir, const char *file, uint64_t n)
{
	char text[32];

	snprintf(text, sizeof text, "%" PRIu64, n);
	return put(dir, file, text);
}

static int
get(const char *dir, const char *file, char *ret, size_t len)
{
	char path[512];
	auto_fd fd = -1;
	ssize_t n;

	snprintf(path, sizeof path, "%s/%s", dir, file);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	n = fd < 0 ? -1 : read(fd, ret, len - 1);
	ret[n > 0 ? n : 0] = '\0';
	return n > 0 ? 0 : -1;
}

static bool
has_word(const char *list, const char *word, const char *separators)
{
	size_t n = strlen(word), k;

	for (; *list; list += k + (list[k] != '\0')) {
		k = strcspn(list, separators);
		if (k == n && memcmp(list, word, n) == 0)
			return true;
	}
	return false;
}

/* Our own group in this hierarchy, from /proc/self/cgroup: "N:controllers:/path". */
static void
own_path(const char *controller, char *ret, size_t len)
{
	auto_file *f = fopen("/proc/self/cgroup", "re");
	char line[512], *list, *path;

	*ret = '\0';
	while (f && fgets(line, sizeof line, f)) {
		list = strchr(line, ':');
		path = list ? strchr(list + 1, ':') : NULL;
		if (!path)
			continue;
		*path++ = '\0';
		path[strcspn(path, "\n")] = '\0';
		if (controller ? has_word(list + 1, controller, ",") : list[1] == '\0')
			snprintf(ret, len, "%s", strcmp(path, "/") == 0 ? "" : path);
	}
}

/* Where a hierarchy is mounted: of version 2 without a controller's name. */
static bool
mount_point(const char *controller, char *ret, size_t len)
{
	auto_file *f = fopen("/proc/self/mounts", "re");
	char line[1024], dir[256], type[32], options[256];

	while (f && fgets(line, sizeof line, f)) {
		if (sscanf(line, "%*s %255s %31s %255s", dir, type, options) != 3)
			continue;
		if (strcmp(type, controller ? "cgroup" : "cgroup2") != 0 ||
		    (controller && !has_word(options, controller, ",")))
			continue;
		snprintf(ret, len, "%s", dir);
		return true;
	}
	return false;
}

/* In version 2 a group with processes has no children with controllers, but for the topmost: where
   it is refused we move to a leaf. */
static bool
find2(struct cgroups *g, const char *name, bool make, const char *own)
{
	char mount[256], base[400], dir[480], have[256];
	size_t i;

	if (!mount_point(NULL, mount, sizeof mount))
		return false;
	snprintf(base, sizeof base, "%s%s", mount, own);
	if (get(base, "cgroup.controllers", have, sizeof have) < 0)
		return false;
	for (i = 0; i < CG__PARTS; i++)
		if (!has_word(have, controllers[i].name, " \n"))
			return false;
	if (snprintf(g->root[0], sizeof g->root[0], "%s/%s", base, name) >= (int)sizeof g->root[0])
		return false;
	if (make) {
		if (put(base, "cgroup.subtree_control", "+memory +cpu +pids") < 0) {
			snprintf(dir, sizeof dir, "%s/agent", base);
			(void)mkdir(dir, 0755);
			if (put(dir, "cgroup.procs", "0") < 0 ||
			    put(base, "cgroup.subtree_control", "+memory +cpu +pids") < 0)
				return false;
		}
		if (mkdir(g->root[0], 0755) < 0 && errno != EEXIST)
			return false;
		if (put(g->root[0], "cgroup.subtree_control", "+memory +cpu +pids") < 0)
			return false;
	}
	for (i = 1; i < CG__PARTS; i++)
		memcpy(g->root[i], g->root[0], sizeof g->root[0]);
	return true;
}

static bool
find1(struct cgroups *g, const char *name, bool make)
{
	char mount[160], own[80];
	size_t i;

	for (i = 0; i < CG__PARTS; i++) {
		if (!mount_point(controllers[i].name, mount, sizeof mount))
			return false;
		own_path(controllers[i].name, own, sizeof own);
		if (snprintf(g->root[i], sizeof g->root[i], "%s%s/%.64s", mount, own, name) >=
		    (int)sizeof g->root[i])
			return false;
		if (make && mkdir(g->root[i], 0755) < 0 && errno != EEXIST)
			return false;
	}
	return true;
}

void
cgroup_find(struct cgroups *ret, const char *name, bool make, char *why, size_t len)
{
	char own[160];

	*ret = (struct cgroups){ 0 };
	own_path(NULL, own, sizeof own);
	/* at the top: what ends the service's group does not end the VMs; else the service's own,
	   if it was delegated to us */
	if (find2(ret, name, make, "") || (*own && find2(ret, name, make, own))) {
		ret->version = 2;
		snprintf(why, len, "version 2, below %s", ret->root[0]);
	} else if (find1(ret, name, make)) {
		ret->version = 1;
		snprintf(why, len, "version 1, below %s", ret->root[0]);
	} else {
		memset(ret->root, 0, sizeof ret->root);
		snprintf(why, len, "neither version 2 nor 1 has memory, cpu and pids for us");
	}
}

static void
group(const struct cgroups *g, int part, uid_t uid, char ret[400])
{
	snprintf(ret, 400, "%s/u%u", g->root[part], (unsigned)uid);
}

static int
limits2(const char *dir, const struct cgroup_limits *l)
{
	char text[64];

	snprintf(text, sizeof text, "%u %d", l->cpu_percent * (PERIOD_US / 100), PERIOD_US);
	/* there is swap in some kernels only */
	(void)put(dir, "memory.swap.max", "0");
	(void)put(dir, "memory.oom.group", "1");
	return put_number(dir, "memory.max", l->memory) < 0 || put(dir, "cpu.max", text) < 0 ||
		put_number(dir, "cpu.weight",
		    l->weight * WEIGHT > WEIGHT_MAX ? WEIGHT_MAX : l->weight * WEIGHT) < 0 ||
		put_number(dir, "pids.max", l->pids) < 0
	    ? -1
	    : 0;
}

static int
limits1(const struct cgroups *g, uid_t uid, const struct cgroup_limits *l)
{
	char memory[400], cpu[400], pids[400];

	group(g, CG_MEMORY, uid, memory);
	group(g, CG_CPU, uid, cpu);
	group(g, CG_PIDS, uid, pids);
	(void)put(memory, "memory.memsw.limit_in_bytes", "-1");
	if (put_number(memory, "memory.limit_in_bytes", l->memory) < 0 ||
	    put_number(cpu, "cpu.cfs_period_us", PERIOD_US) < 0 ||
	    put_number(cpu, "cpu.cfs_quota_us", l->cpu_percent * (PERIOD_US / 100)) < 0 ||
	    put_number(cpu, "cpu.shares", (uint64_t)l->weight * SHARES) < 0 ||
	    put_number(pids, "pids.max", l->pids) < 0)
		return -1;
	(void)put_number(memory, "memory.memsw.limit_in_bytes", l->memory);
	return 0;
}

int
cgroup_make(const struct cgroups *g, uid_t uid, const struct cgroup_limits *l, struct err *e)
{
	char dir[400];
	int i, parts = g->version == 2 ? 1 : g->version == 1 ? CG__PARTS : 0;

	for (i = 0; i < parts; i++) {
		group(g, i, uid, dir);
		if (mkdir(dir, 0755) < 0 && errno != EEXIST)
			return err_sys(e, "cgroup %.180s", dir);
	}
	group(g, 0, uid, dir);
	if (parts && (g->version == 2 ? limits2(dir, l) : limits1(g, uid, l)) < 0)
		return err_sys(e, "limits of cgroup %.180s", dir);
	return 0;
}

int
cgroup_enter(const struct cgroups *g, uid_t uid)
{
	char dir[400];
	int i, parts = g->version == 2 ? 1 : g->version == 1 ? CG__PARTS : 0;

	for (i = 0; i < parts; i++) {
		group(g, i, uid, dir);
		if (put(dir, "cgroup.procs", "0") < 0)
			return -1;
	}
	return 0;
}

bool
cgroup_holds(const struct cgroups *g, uid_t uid, pid_t pid, const struct cgroup_limits *l)
{
	char dir[400], text[65536], want[16];
	int i;

	snprintf(want, sizeof want, "%d", (int)pid);
	for (i = 0; g->version && i < CG__PARTS; i++) {
		group(g, i, uid, dir);
		if (get(dir, "cgroup.procs", text, sizeof text) < 0 || !has_word(text, want, "\n"))
			return false;
	}
	if (!g->version)
		return true;
	group(g, CG_MEMORY, uid, dir);
	return get(dir, g->version == 2 ? "memory.max" : "memory.limit_in_bytes", text,
		   sizeof text) == 0 &&
	    strtoull(text, NULL, 10) <= l->memory;
}

static bool
group_uid(const char *name, uid_t *ret)
{
	unsigned uid;
	char end;

	if (sscanf(name, "u%u%c", &uid, &end) != 1)
		return false;
	*ret = uid;
	return true;
}

void
cgroup_sweep(const struct cgroups *g, bool (*keep)(void *, uid_t), void *arg)
{
	int i, parts = g->version == 2 ? 1 : g->version == 1 ? CG__PARTS : 0;
	struct dirent *entry;
	uid_t uid;
	DIR *d;

	for (i = 0; i < parts; i++) {
		d = opendir(g->root[i]);
		/* one with processes in it is not removed by rmdir() */
		while (d && (entry = readdir(d)))
			if (group_uid(entry->d_name, &uid) && !keep(arg, uid))
				(void)unlinkat(dirfd(d), entry->d_name, AT_REMOVEDIR);
		if (d)
			closedir(d);
	}
}

int
cgroup_count(const struct cgroups *g)
{
	DIR *d = g->version ? opendir(g->root[0]) : NULL;
	struct dirent *entry;
	uid_t uid;
	int n = 0;

	while (d && (entry = readdir(d)))
		n += group_uid(entry->d_name, &uid);
	if (d)
		closedir(d);
	return n;
}
