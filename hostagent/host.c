/* host.c - see host.h. */
#include "host.h"
#include "disk.h"
#include "posture.h"
#include "qemu.h"
#include "scaling.h"
#include "vm.h"

#include <string.h>
#include <sys/utsname.h>

enum { STARTS_MAX = 256, PERCENT = 100, MIB = 1 << 20 };

static uint64_t
meminfo_mb(const char *text, const char *name)
{
	const char *p = strstr(text, name);
	unsigned long kb = 0;

	if (p)
		(void)sscanf(p + strlen(name), " %lu", &kb);
	return kb / 1024;
}

int
host_facts(const struct agent *a, struct host *ret, struct err *e)
{
	uint64_t disk_free, disk_total;
	char text[4096];
	auto_file *f = fopen("/proc/meminfo", "re");
	size_t n = f ? fread(text, 1, sizeof text - 1, f) : 0;

	text[n] = '\0';
	if (disk_room(a->conf->agent_state_dir, &disk_free, &disk_total, e) < 0)
		return -1;
	*ret = (struct host){ .memory_mb = meminfo_mb(text, "MemTotal:"),
		.free_memory_mb = meminfo_mb(text, "MemAvailable:"),
		.disk_mb = disk_total / MIB,
		.free_disk_mb = disk_free / MIB };
	(void)getloadavg(&ret->load, 1);
	return 0;
}

void
host_conditions(const struct agent *a, struct buf *b)
{
	const struct posture_point *p = posture_points;
	const char *comma = "";
	int i;

	for (i = 0; p[i].name; i++) {
		if (!p[i].condition || a->posture->point[i].level == POSTURE_OK)
			continue;
		buf_fmt(b, "%s\"%s\"", comma, p[i].condition);
		comma = ",";
	}
	if (a->accel != ACCEL_KVM) {
		buf_fmt(b, "%s\"accel_tcg\"", comma);
		comma = ",";
	}
	if (!a->journal_complete) {
		buf_fmt(b, "%s\"journal_incomplete\"", comma);
		comma = ",";
	}
	if (scaling_short(a))
		buf_fmt(b, "%s\"warm_memory_short\"", comma);
}

int
host_disk_room(const struct agent *a, uint64_t mb, struct err *e)
{
	const struct conf *k = a->conf;
	struct host h;
	uint64_t least;

	if (host_facts(a, &h, e) < 0)
		return -1;
	least = h.disk_mb * k->agent_min_free_disk_percent / PERCENT;
	if (least < (uint64_t)k->agent_min_free_disk_gb * 1024)
		least = (uint64_t)k->agent_min_free_disk_gb * 1024;
	if (h.free_disk_mb < least + mb)
		return err_set(e, E_NO_SPACE, "less than %llu MiB of the host's disk are free",
		    (unsigned long long)(least + mb));
	return 0;
}

int
host_room(const struct agent *a, struct err *e)
{
	const struct conf *k = a->conf;
	struct host h;

	if (a->stopping)
		return err_set(e, E_OVERLOADED, "this machine goes down");
	if (host_facts(a, &h, e) < 0)
		return -1;
	if (h.free_memory_mb * PERCENT < h.memory_mb * k->agent_min_free_memory_percent)
		return err_set(e, E_OVERLOADED, "less than %d %% of the host's memory is free",
		    (int)k->agent_min_free_memory_percent);
	if (host_disk_room(a, 0, e) < 0)
		return -1;
	if (uid_free(a) == 0)
		return err_set(e, E_OVERLOADED, "all user ids for capsules are in use");
	if (vm_starting(a) >= STARTS_MAX)
		return err_set(e, E_OVERLOADED, "%d starts wait already", STARTS_MAX);
	return 0;
}

/* Model and features of the CPU, as one number (FNV-1a): equal CPUs have equal lines. */
static unsigned
cpu_digest(void)
{
	auto_file *f = fopen("/proc/cpuinfo", "re");
	unsigned sum = 2166136261U;
	char line[8192], *p;

	while (f && fgets(line, sizeof line, f) && *line != '\n')
		if (strncmp(line, "model name", 10) == 0 || strncmp(line, "flags", 5) == 0)
			for (p = line; *p; p++)
				sum = (sum ^ (unsigned char)*p) * 16777619U;
	return sum;
}

const char *
host_cpu_class(const struct agent *a)
{
	static char text[128];
	char now[sizeof text];
	struct utsname u;
	int major = 0, minor = 0;

	(void)uname(&u);
	(void)sscanf(a->qemu_version, "%d.%d", &major, &minor);
	/* an emulated CPU is the same everywhere, only its clock is the host's */
	if (a->accel == ACCEL_KVM)
		snprintf(now, sizeof now, "%.16s-kvm-%08x-qemu%d.%d-%.32s", u.machine, cpu_digest(),
		    major, minor, qemu_model());
	else
		snprintf(now, sizeof now, "%.16s-tcg-%lumhz-qemu%d.%d-%.32s", u.machine,
		    (a->tsc_khz + 5000) / 10000 * 10, major, minor, qemu_model());
	/* threads read what was given out before: it is not written again while it is the same */
	if (strcmp(now, text) != 0)
		memcpy(text, now, sizeof text);
	return text;
}
