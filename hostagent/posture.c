/* posture.c - see posture.h. A point is a row of posture_points[] and a function. */
#include "posture.h"
#include "cleanup.h"
#include "landlock.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <pwd.h>
#include <sched.h>
#include <stdarg.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/statvfs.h>
#include <sys/wait.h>

enum { GIB_SHIFT = 30, KVM_API = 12 };

static void __attribute__((format(printf, 5, 6)))
say(struct posture *p, int i, enum posture_level level, const char *next, const char *fmt, ...)
{
	va_list ap;

	p->point[i].level = level;
	va_start(ap, fmt);
	vsnprintf(p->point[i].why, sizeof p->point[i].why, fmt, ap);
	va_end(ap);
	snprintf(p->point[i].next, sizeof p->point[i].next, "%s", next ? next : "");
}

/* The first line of a small file; "" without it. */
static void
line_of(const char *path, char *ret, size_t len)
{
	auto_fd fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t n = fd < 0 ? -1 : read(fd, ret, len - 1);

	ret[n > 0 ? n : 0] = '\0';
	ret[strcspn(ret, "\n")] = '\0';
}

/* In a process of its own: what it changes ends with it. */
static bool
tried(bool (*try)(const void *), const void *arg)
{
	int status;
	pid_t pid = fork();

	if (pid == 0)
		_exit(try(arg) ? 0 : 1);
	return pid > 0 && waitpid(pid, &status, 0) == pid && status == 0;
}

static bool
try_mounts(const void *program)
{
	return confine_can_mounts(program);
}

static bool
try_user_ns(const void *arg)
{
	(void)arg;
	return confine_can_user_ns();
}

/* The points. */

static void
look_root(const struct conf *k, struct posture *p, int i)
{
	p->cage.separate = geteuid() == 0;
	p->cage.program = k->agent_qemu;
	if (p->cage.separate)
		say(p, i, POSTURE_OK, NULL,
		    "the launcher is root: each capsule gets a user id of its own");
	else
		say(p, i, POSTURE_WARN, "start the agent as root, with agent.user set",
		    "not root: all capsules run as this user, without networks of their own");
}

static void
look_account(const struct conf *k, struct posture *p, int i)
{
	if (!p->cage.separate)
		say(p, i, POSTURE_OK, NULL, "the agent is not root");
	else if (!*k->agent_user)
		say(p, i, POSTURE_WARN, "make an account and set agent.user to it",
		    "agent.user is empty: what speaks to network and guests is root");
	else if (!getpwnam(k->agent_user))
		say(p, i, POSTURE_FAIL, "make the account, or change agent.user",
		    "agent.user: there is no account %s", k->agent_user);
	else
		say(p, i, POSTURE_OK, NULL, "the agent runs as %s", k->agent_user);
}

static void
look_uids(const struct conf *k, struct posture *p, int i)
{
	unsigned first = (unsigned)k->agent_uid_first,
		 last = first + (unsigned)k->agent_uid_count - 1, id;
	const struct passwd *pw = NULL;

	for (id = first; id <= last && id < first + 2000 && !pw; id++)
		pw = getpwuid(id);
	if (pw)
		say(p, i, POSTURE_FAIL, "choose another range: agent.uid_first, agent.uid_count",
		    "user id %u of the capsules' range belongs to %s", (unsigned)pw->pw_uid,
		    pw->pw_name);
	else
		say(p, i, POSTURE_OK, NULL, "user ids %u to %u are free for capsules", first, last);
}

static void
look_kvm(const struct conf *k, struct posture *p, int i)
{
	auto_fd fd = open("/dev/kvm", O_RDWR | O_CLOEXEC), vm = -1;
	char path[512], text[600];

	p->cage.kvm = confine_kvm_group();
	snprintf(path, sizeof path, "%s/accel.json", k->agent_state_dir);
	line_of(path, text, sizeof text);
	if (strcmp(k->agent_accel, "tcg") == 0)
		say(p, i, POSTURE_WARN, "set agent.accel to auto",
		    "agent.accel says tcg: capsules are slow");
	else if (fd < 0)
		say(p, i, POSTURE_WARN,
		    "use a machine with VT-x or AMD-V, or allow nested virtualisation",
		    "/dev/kvm: %s: capsules run under TCG, slowly", strerror(errno));
	else if (ioctl(fd, KVM_GET_API_VERSION, 0) != KVM_API ||
	    (vm = ioctl(fd, KVM_CREATE_VM, 0)) < 0)
		say(p, i, POSTURE_WARN, "look at the kernel's log for kvm",
		    "/dev/kvm makes no virtual machine: capsules run under TCG, slowly");
	else if (strstr(text, "\"tcg\""))
		say(p, i, POSTURE_WARN, "remove accel.json from agent.state_dir to try again",
		    "a probe guest did not boot under KVM: capsules run under TCG, slowly");
	else
		say(p, i, POSTURE_OK, NULL, "KVM makes virtual machines%s",
		    strstr(text, "\"kvm\"") ? "; a probe guest booted"
					    : "; the agent boots a probe guest at its first start");
}

static void
look_cgroup(const struct conf *k, struct posture *p, int i)
{
	(void)k;
	/* looked at by posture_look(), which knows the group's name */
	if (p->cage.groups.version)
		say(p, i, POSTURE_OK, NULL, "%s", p->point[i].next);
	else
		say(p, i, POSTURE_WARN,
		    "mount cgroup2 on /sys/fs/cgroup; under systemd: Delegate=yes",
		    "no control groups: memory and processes are bounded by rlimits, CPU is not");
}

static void
look_mounts(const struct conf *k, struct posture *p, int i)
{
	p->cage.own_mounts = p->cage.separate && tried(try_mounts, k->agent_qemu);
	if (p->cage.own_mounts)
		say(p, i, POSTURE_OK, NULL,
		    "each capsule's process sees libraries, and no other file");
	else
		say(p, i, POSTURE_WARN, "give the launcher CAP_SYS_ADMIN",
		    "no mount namespace: capsules' processes see the host's files that are open to "
		    "all");
}

static bool
try_netns(const void *arg)
{
	struct posture *p = (struct posture *)arg;
	struct netns n;
	struct err e = { 0 };

	return net_host_prepare(&p->plan, &e) == 0 && net_plan_open(NULL, &p->plan, &e) == 0 &&
	    netns_make(NULL, &p->plan, &n, &e) == 0;
}

/* Without `make` the host's packet rules stay as they are: in a network namespace of our own. */
static bool
try_netns_apart(const void *arg)
{
	return unshare(CLONE_NEWNET) == 0 && try_netns(arg);
}

static bool
try_empty_netns(const void *arg)
{
	(void)arg;
	return unshare(CLONE_NEWNET) == 0;
}

static void
look_network(const struct conf *k, struct posture *p, int i)
{
	struct err e = { 0 };

	if (strcmp(k->agent_network_mode, "user") == 0)
		say(p, i, POSTURE_WARN, "set agent.network_mode to auto",
		    "agent.network_mode says user: no capsule reaches the internet");
	else if (net_plan_read(
		     &p->plan, k->agent_network, (uint32_t)k->agent_network_mb_per_sec, &e) < 0)
		say(p, i, POSTURE_FAIL, "correct agent.network", "%s", e.text);
	else if (p->cage.separate && tried(try_netns_apart, p)) {
		p->cage.tap = true;
		say(p, i, POSTURE_OK, NULL,
		    "network namespace, veth, tap and nftables work: capsules reach what their "
		    "policy says");
	} else
		say(p, i, POSTURE_WARN,
		    "give the launcher root, the kernel nf_tables, tun and veth",
		    "no network namespaces with tap and nftables: no capsule reaches the internet");
	p->cage.own_network = p->cage.tap || (p->cage.separate && tried(try_empty_netns, NULL));
}

static void
look_user_ns(const struct conf *k, struct posture *p, int i)
{
	(void)k;
	if (p->cage.separate) {
		say(p, i, POSTURE_OK, NULL, "user namespaces are not needed");
		return;
	}
	p->cage.user_ns = p->cage.own_network = tried(try_user_ns, NULL);
	if (p->cage.user_ns)
		say(p, i, POSTURE_OK, NULL,
		    "each capsule's process gets an empty network by a user namespace");
	else
		say(p, i, POSTURE_WARN,
		    "sysctl user.max_user_namespaces, kernel.unprivileged_userns_clone=1",
		    "no user namespaces: QEMU's restricted network is the only wall around "
		    "capsules");
}

static void
look_landlock(const struct conf *k, struct posture *p, int i)
{
	(void)k;
	p->cage.landlock = landlock_abi();
	if (p->cage.landlock)
		say(p, i, POSTURE_OK, NULL, "Landlock, ABI %d", p->cage.landlock);
	else
		say(p, i, POSTURE_WARN, "boot with lsm=…,landlock (Linux 5.13 or newer)",
		    "no Landlock: files are kept away by user ids and namespaces alone");
}

static void
look_seccomp(const struct conf *k, struct posture *p, int i)
{
	char text[200];

	(void)k;
	line_of("/proc/sys/kernel/seccomp/actions_avail", text, sizeof text);
	if (prctl(PR_GET_SECCOMP, 0, 0, 0, 0) >= 0 && strstr(text, "kill"))
		say(p, i, POSTURE_OK, NULL, "system call filters work");
	else
		say(p, i, POSTURE_FAIL, "use a kernel with CONFIG_SECCOMP_FILTER",
		    "no system call filters: no capsule is started");
}

static void
look_memory(const struct conf *k, struct posture *p, int i)
{
	unsigned long total = 0, available = 0;
	char line[128];
	auto_file *f = fopen("/proc/meminfo", "re");

	while (f && fgets(line, sizeof line, f)) {
		(void)sscanf(line, "MemTotal: %lu", &total);
		(void)sscanf(line, "MemAvailable: %lu", &available);
	}
	if (available * 100 < total * (unsigned long)k->agent_min_free_memory_percent)
		say(p, i, POSTURE_FAIL, "end capsules or add memory; agent.min_free_memory_percent",
		    "%lu of %lu MiB are free: creates are refused", available / 1024, total / 1024);
	else
		say(p, i, POSTURE_OK, NULL, "%lu of %lu MiB are free", available / 1024,
		    total / 1024);
}

static void
look_disk(const struct conf *k, struct posture *p, int i)
{
	struct statvfs s;
	unsigned long long size, left, least;

	if (statvfs(k->agent_state_dir, &s) < 0) {
		say(p, i, POSTURE_WARN, "start the agent once, or make the folder", "%s: %s",
		    k->agent_state_dir, strerror(errno));
		return;
	}
	size = (unsigned long long)s.f_blocks * s.f_frsize;
	left = (unsigned long long)s.f_bavail * s.f_frsize;
	least = size / 100 * (unsigned long long)k->agent_min_free_disk_percent;
	if (least < (unsigned long long)k->agent_min_free_disk_gb << GIB_SHIFT)
		least = (unsigned long long)k->agent_min_free_disk_gb << GIB_SHIFT;
	if (left < least)
		say(p, i, POSTURE_FAIL, "make room; agent.min_free_disk_gb, …_percent",
		    "%llu GiB of %llu are free in %s, %llu are the least: creates are refused",
		    left >> GIB_SHIFT, size >> GIB_SHIFT, k->agent_state_dir, least >> GIB_SHIFT);
	else
		say(p, i, POSTURE_OK, NULL, "%llu GiB of %llu are free in %s", left >> GIB_SHIFT,
		    size >> GIB_SHIFT, k->agent_state_dir);
}

static void
look_swap(const struct conf *k, struct posture *p, int i)
{
	char line[256] = "";
	auto_file *f = fopen("/proc/swaps", "re");

	(void)k;
	if (f && fgets(line, sizeof line, f) && fgets(line, sizeof line, f))
		say(p, i, POSTURE_WARN, "swapoff -a, or encrypt it",
		    "swap is on (%.*s): guests' memory may be written to disk",
		    (int)strcspn(line, " \t\n"), line);
	else
		say(p, i, POSTURE_OK, NULL, "no swap");
}

static void
look_core(const struct conf *k, struct posture *p, int i)
{
	char text[200];

	(void)k;
	line_of("/proc/sys/kernel/core_pattern", text, sizeof text);
	if (*text == '|')
		/* a program gets the core whatever RLIMIT_CORE says, unless it is 1 */
		say(p, i, POSTURE_WARN, "sysctl kernel.core_pattern=core",
		    "core dumps go to a program (%.80s): look that it keeps none of QEMU", text);
	else
		say(p, i, POSTURE_OK, NULL, "capsules' processes leave no core dumps");
}

static void
look_processor(const struct conf *k, struct posture *p, int i)
{
	static const char *const names[] = { "l1tf", "mds", "meltdown", "mmio_stale_data",
		"retbleed", "spec_store_bypass", "spectre_v1", "spectre_v2", "srbds",
		"tsx_async_abort", NULL };
	char path[128], text[200], list[160] = "";
	int n;

	(void)k;
	for (n = 0; names[n]; n++) {
		snprintf(path, sizeof path, "/sys/devices/system/cpu/vulnerabilities/%s", names[n]);
		line_of(path, text, sizeof text);
		if (strncmp(text, "Vulnerable", 10) == 0 &&
		    strlen(list) + strlen(names[n]) + 2 < sizeof list)
			snprintf(list + strlen(list), sizeof list - strlen(list), "%s%s",
			    *list ? " " : "", names[n]);
	}
	if (*list)
		say(p, i, POSTURE_WARN,
		    "install the processor's microcode and boot without mitigations=off",
		    "the processor is open to: %s", list);
	else
		say(p, i, POSTURE_OK, NULL, "no known weakness of the processor is left open");
}

static void
look_smt(const struct conf *k, struct posture *p, int i)
{
	char text[16];

	(void)k;
	line_of("/sys/devices/system/cpu/smt/active", text, sizeof text);
	if (strcmp(text, "1") == 0)
		say(p, i, POSTURE_WARN, "boot with nosmt if tenants distrust each other",
		    "two capsules may share a core's two threads");
	else
		say(p, i, POSTURE_OK, NULL, "no core is shared by threads");
}

static void
look_qemu(const struct conf *k, struct posture *p, int i)
{
	if (access(k->agent_qemu, X_OK) < 0)
		say(p, i, POSTURE_FAIL, "apt-get install qemu-system-x86; agent.qemu", "%s: %s",
		    k->agent_qemu, strerror(errno));
	else
		say(p, i, POSTURE_OK, NULL, "%s is there", k->agent_qemu);
}

/* The order matters: the first ones tell the later ones what there is. */
const struct posture_point posture_points[] = {
	/* clang-format off */
	{ "root",	"capsules_share_uid",	look_root },
	{ "account",	"agent_is_root",	look_account },
	{ "uids",	"uids_taken",		look_uids },
	{ "qemu",	"qemu_missing",		look_qemu },
	{ "kvm",	NULL,			look_kvm }, /* the agent tries it out: accel_tcg */
	{ "cgroup",	"no_cgroups",		look_cgroup },
	{ "mounts",	"no_mount_namespaces",	look_mounts },
	{ "network",	"network_user_mode",	look_network },
	{ "user_ns",	"no_user_namespaces",	look_user_ns },
	{ "landlock",	"no_landlock",		look_landlock },
	{ "seccomp",	"no_seccomp",		look_seccomp },
	{ "memory",	NULL,			look_memory },
	{ "disk",	NULL,			look_disk },
	{ "swap",	"swap_on",		look_swap },
	{ "core",	"core_dumps_piped",	look_core },
	{ "processor",	"processor_vulnerable",	look_processor },
	{ "smt",	NULL,			look_smt },
	{ 0 },
	/* clang-format on */
};

void
posture_look(const struct conf *k, const char *group, bool make, struct posture *ret)
{
	char why[POSTURE_TEXT];
	struct err e = { 0 };
	int i;

	*ret = (struct posture){ 0 };
	cgroup_find(&ret->cage.groups, group, make && geteuid() == 0, why, sizeof why);
	if (geteuid() != 0)
		ret->cage.groups.version = 0;
	for (i = 0; posture_points[i].name; i++) {
		if (posture_points[i].look == look_cgroup)
			memcpy(ret->point[i].next, why, sizeof why);
		posture_points[i].look(k, ret, i);
	}
	if (make && ret->cage.tap && net_host_prepare(&ret->plan, &e) < 0)
		ret->cage.tap = false;
}
