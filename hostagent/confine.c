/* confine.c - see confine.h. */
#include "confine.h"
#include "cleanup.h"
#include "landlock.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <libgen.h>
#include <linux/capability.h>
#include <sched.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>

enum {
	OVERHEAD_KVM_MB = 192,
	OVERHEAD_TCG_MB = 384, /* with its 64 MiB of translated code */
	OVERHEAD_PART = 32,    /* page tables and bitmaps grow with the memory */
	CPU_EXTRA = 50,        /* percent of a CPU for disk and network */
	PIDS = 256,
	FILES = 512,
	PROCESSES = 128,
	MIB = 1 << 20,
};

/* Where the new root is put together; only this process sees it there. */
#define ROOT "/run"

static const char *const folders[] = { "/usr", "/bin", "/lib", "/lib64", "/lib32", NULL };
static const char *const files[] = { "/etc/ld.so.cache", "/dev/null", "/dev/urandom", "/dev/kvm",
	NULL };
static const char *const devices[] = { "/dev/null", "/dev/kvm", NULL };

void
confine_limits(const struct cage_size *s, struct cgroup_limits *ret)
{
	uint64_t mb = s->memory_mb + s->memory_mb / OVERHEAD_PART +
	    (s->kvm ? OVERHEAD_KVM_MB : OVERHEAD_TCG_MB);

	*ret = (struct cgroup_limits){ .memory = mb * MIB,
		.cpu_percent = s->vcpus * 100 + CPU_EXTRA,
		.weight = s->vcpus,
		.pids = PIDS };
}

gid_t
confine_kvm_group(void)
{
	struct stat s;

	return stat("/dev/kvm", &s) == 0 && s.st_gid != 0 && (s.st_mode & 060) == 060 ? s.st_gid
										      : 0;
}

/* mkdir -p of a folder below ROOT. */
static void
make_dirs(const char *path)
{
	char text[512], *p;

	snprintf(text, sizeof text, ROOT "%s", path);
	for (p = text + sizeof ROOT; (p = strchr(p, '/')); p++) {
		*p = '\0';
		(void)mkdir(text, 0755);
		*p = '/';
	}
	(void)mkdir(text, 0755);
}

static int
show_folder(const char *path)
{
	char to[512], link[256];
	struct stat s;
	ssize_t n;

	snprintf(to, sizeof to, ROOT "%s", path);
	if (lstat(path, &s) < 0)
		return 0;
	if (S_ISLNK(s.st_mode)) {
		n = readlink(path, link, sizeof link - 1);
		link[n > 0 ? n : 0] = '\0';
		return symlink(link, to);
	}
	make_dirs(path);
	if (mount(path, to, NULL, MS_BIND | MS_REC, NULL) < 0)
		return -1;
	return mount(NULL, to, NULL, MS_BIND | MS_REMOUNT | MS_RDONLY | MS_NOSUID | MS_NODEV, NULL);
}

static int
show_file(const char *path)
{
	char to[512], parent[512];
	auto_fd fd = -1;

	if (access(path, F_OK) < 0)
		return 0;
	snprintf(parent, sizeof parent, "%s", path);
	make_dirs(dirname(parent));
	snprintf(to, sizeof to, ROOT "%s", path);
	fd = open(to, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
	return fd < 0 || mount(path, to, NULL, MS_BIND, NULL) < 0 ? -1 : 0;
}

/* A program outside of /usr: the folder above its bin, where its firmware is, too. */
static int
show_program(const char *program)
{
	char path[512];
	int i;

	for (i = 0; folders[i]; i++)
		if (strncmp(program, folders[i], strlen(folders[i])) == 0)
			return 0;
	snprintf(path, sizeof path, "%s", program);
	(void)dirname(dirname(path));
	return strcmp(path, "/") == 0 ? 0 : show_folder(path);
}

/* A file system with the libraries, two devices and /proc of processes. */
static int
own_root(const char *program)
{
	mode_t mask = umask(022);
	int i;

	if (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 ||
	    mount("none", ROOT, "tmpfs", MS_NOSUID | MS_NODEV, "size=256k,mode=755") < 0)
		return -1;
	for (i = 0; folders[i]; i++)
		if (show_folder(folders[i]) < 0)
			return -1;
	for (i = 0; files[i]; i++)
		if (show_file(files[i]) < 0)
			return -1;
	if (show_program(program) < 0)
		return -1;
	make_dirs("/proc");
	(void)umask(mask);
	if (mount("proc", ROOT "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, "subset=pid") <
		0 &&
	    mount("/proc", ROOT "/proc", NULL, MS_BIND | MS_REC, NULL) < 0)
		return -1;
	if (chdir(ROOT) < 0 || syscall(SYS_pivot_root, ".", ".") < 0 ||
	    umount2(".", MNT_DETACH) < 0)
		return -1;
	(void)mount(NULL, "/", NULL, MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NOSUID | MS_NODEV, NULL);
	return chdir("/");
}

static int
write_file(const char *path, const char *text)
{
	auto_fd fd = open(path, O_WRONLY | O_CLOEXEC);

	return fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text) ? 0 : -1;
}

/* Without root: a user namespace in which we are ourselves and nobody else. */
static int
own_user_ns(int more)
{
	uid_t uid = getuid();
	gid_t gid = getgid();
	char text[64];

	if (unshare(CLONE_NEWUSER | more) < 0)
		return -1;
	snprintf(text, sizeof text, "%u %u 1", (unsigned)uid, (unsigned)uid);
	if (write_file("/proc/self/uid_map", text) < 0 ||
	    write_file("/proc/self/setgroups", "deny") < 0)
		return -1;
	snprintf(text, sizeof text, "%u %u 1", (unsigned)gid, (unsigned)gid);
	return write_file("/proc/self/gid_map", text);
}

static void
limit(int what, rlim_t n)
{
	struct rlimit r = { .rlim_cur = n, .rlim_max = n };

	(void)setrlimit(what, &r);
}

static int
limits(const struct cage *c, const struct cage_size *s)
{
	struct cgroup_limits l;

	limit(RLIMIT_CORE, 0);
	limit(RLIMIT_NOFILE, FILES);
	limit(RLIMIT_MEMLOCK, 0);
	if (c->separate)
		limit(RLIMIT_NPROC, PROCESSES);
	if (!c->groups.version) {
		/* the address space has stacks and code that memory does not */
		confine_limits(s, &l);
		limit(RLIMIT_AS, l.memory + 4ULL * 1024 * MIB);
	}
	return 0;
}

static int
no_capabilities(void)
{
	int i;

	for (i = 0; i <= CAP_LAST_CAP; i++)
		if (prctl(PR_CAPBSET_DROP, i, 0, 0, 0) < 0 && errno != EINVAL)
			return -1;
	(void)prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
	return 0;
}

int
confine_user(uid_t uid, gid_t gid, gid_t extra)
{
	if (setgroups(extra ? 1 : 0, &extra) < 0 || setresgid(gid, gid, gid) < 0 ||
	    setresuid(uid, uid, uid) < 0)
		return -1;
	/* it must not be possible to go back */
	return setuid(0) == 0 ? -1 : 0;
}

static int
namespaces(const struct cage *c, int netns)
{
	int want =
	    (c->own_mounts ? CLONE_NEWNS : 0) | (c->own_network && netns < 0 ? CLONE_NEWNET : 0);

	if (netns >= 0 && setns(netns, CLONE_NEWNET) < 0)
		return -1;
	if (c->user_ns)
		return own_user_ns(want);
	return want ? unshare(want) : 0;
}

int
confine_self(const struct cage *c, uid_t uid, const struct cage_size *s, int netns, const int *fd,
    int fds, const char **ret_what)
{
	const char *read[nitems(folders) + 2] = { 0 };
	char prefix[512];
	int i;

	*ret_what = "enter its control group";
	if (c->groups.version && cgroup_enter(&c->groups, uid) < 0)
		return -1;
	*ret_what = "enter its namespaces";
	if (namespaces(c, netns) < 0)
		return -1;
	*ret_what = "change its root";
	if (c->own_mounts && own_root(c->program) < 0)
		return -1;
	*ret_what = "set its limits";
	if (limits(c, s) < 0 || chdir("/") < 0)
		return -1;
	*ret_what = "become its user";
	if (c->separate && (no_capabilities() < 0 || confine_user(uid, uid, c->kvm) < 0))
		return -1;
	*ret_what = "set no_new_privs";
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
		return -1;
	*ret_what = "enter Landlock";
	for (i = 0; folders[i]; i++)
		read[i] = folders[i];
	read[i++] = "/etc/ld.so.cache";
	snprintf(prefix, sizeof prefix, "%s", c->program);
	(void)dirname(dirname(prefix));
	if (strcmp(prefix, "/") != 0)
		read[i++] = prefix;
	if (c->landlock && landlock_enter(c->landlock, false, read, devices, fd, fds) < 0)
		return -1;
	return 0;
}

/* For posture.c, in a process that is thrown away. */

bool
confine_can_mounts(const char *program)
{
	return unshare(CLONE_NEWNS) == 0 && own_root(program) == 0;
}

bool
confine_can_user_ns(void)
{
	return own_user_ns(CLONE_NEWNET) == 0;
}

/* Looking at /proc. */

static const struct status_row {
	const char *name, *want; /* the whole value, blanks as tabs */
	const char *what;
} status_rows[] = {
	/* clang-format off */
	{ "Seccomp", "2", "a system call filter" },
	{ "NoNewPrivs", "1", "no_new_privs" },
	{ "CapPrm", "0000000000000000", "an empty set of capabilities" },
	{ "CapEff", "0000000000000000", "an empty set of capabilities" },
	{ "CapAmb", "0000000000000000", "an empty set of capabilities" },
	{ "CapInh", "0000000000000000", "an empty set of capabilities" },
	/* clang-format on */
};

static void
value_of(const char *text, const char *name, char *ret, size_t len)
{
	char want[32];
	const char *p;

	snprintf(want, sizeof want, "\n%s:\t", name);
	p = strstr(text, want);
	*ret = '\0';
	if (p) {
		p += strlen(want);
		snprintf(ret, len, "%.*s", (int)strcspn(p, "\n"), p);
	}
}

static int
check_identity(const struct cage *c, const char *text, uid_t uid, struct err *e)
{
	char want[64], got[128], groups[32];

	snprintf(want, sizeof want, "%u\t%u\t%u\t%u", (unsigned)uid, (unsigned)uid, (unsigned)uid,
	    (unsigned)uid);
	snprintf(groups, sizeof groups, "%u ", (unsigned)c->kvm);
	value_of(text, "Uid", got, sizeof got);
	if (strcmp(got, want) != 0)
		return err_set(e, E_QEMU, "QEMU does not run as user %u", (unsigned)uid);
	value_of(text, "Gid", got, sizeof got);
	if (strcmp(got, want) != 0)
		return err_set(e, E_QEMU, "QEMU does not run as group %u", (unsigned)uid);
	value_of(text, "Groups", got, sizeof got);
	if (strcmp(got, c->kvm ? groups : " ") != 0 && *got)
		return err_set(e, E_QEMU, "QEMU has other groups: %.60s", got);
	value_of(text, "CapBnd", got, sizeof got);
	if (strcmp(got, "0000000000000000") != 0)
		return err_set(e, E_QEMU, "QEMU could get capabilities: %.20s", got);
	return 0;
}

static bool
same_namespace(pid_t pid, const char *name)
{
	char path[64];
	struct stat ours, its;

	snprintf(path, sizeof path, "/proc/self/ns/%s", name);
	if (stat(path, &ours) < 0)
		return true;
	snprintf(path, sizeof path, "/proc/%d/ns/%s", (int)pid, name);
	return stat(path, &its) < 0 || (ours.st_ino == its.st_ino && ours.st_dev == its.st_dev);
}

int
confine_check(const struct cage *c, pid_t pid, uid_t uid, const struct cage_size *s, struct err *e)
{
	char path[40], text[8192], got[128];
	struct cgroup_limits l;
	ssize_t n;
	size_t i;

	snprintf(path, sizeof path, "/proc/%d/status", (int)pid);
	auto_fd fd = open(path, O_RDONLY | O_CLOEXEC);
	n = fd < 0 ? -1 : read(fd, text, sizeof text - 1);
	if (n <= 0)
		return err_sys(e, "%s", path);
	text[n] = '\0';
	for (i = 0; i < nitems(status_rows); i++) {
		value_of(text, status_rows[i].name, got, sizeof got);
		if (strcmp(got, status_rows[i].want) != 0)
			return err_set(e, E_QEMU, "QEMU runs without %s (%s %s)",
			    status_rows[i].what, status_rows[i].name, got);
	}
	if (c->separate && check_identity(c, text, uid, e) < 0)
		return -1;
	if (c->own_network && same_namespace(pid, "net"))
		return err_set(e, E_QEMU, "QEMU has no network namespace of its own");
	if (c->own_mounts && same_namespace(pid, "mnt"))
		return err_set(e, E_QEMU, "QEMU has no mount namespace of its own");
	confine_limits(s, &l);
	if (!cgroup_holds(&c->groups, uid, pid, &l))
		return err_set(e, E_QEMU, "QEMU is not in its control group, or that has no limit");
	return 0;
}
