/*
 * init.c - see init.h.
 *
 * Kernel command line: groot=/dev/vdb (ext4, written) glower=/dev/vda (erofs, read only). The new
 * root is an overlay of both; the same program goes on in it, its pages are the initramfs'.
 */
#include "init.h"

#include "cleanup.h"
#include "clock_event.h"
#include "freeze.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <net/if.h>
#include <net/route.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/syscall.h>

#define EXT4_IOC_RESIZE_FS _IOW('f', 16, uint64_t)

enum { DEVICE_WAIT_MS = 10000 };

static char cmdline[4096];
static int upper_fd = -1; /* the writable file system's root, hidden below the overlay */
static char upper_dev[64];

struct mount {
	const char *what, *where, *type;
	unsigned long flags;
	const char *data;
	mode_t mode; /* of the directory, when it has to be made */
};

static const struct mount early[] = {
	{ "devtmpfs", "/dev", "devtmpfs", MS_NOSUID, NULL, 0755 },
	{ "proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL, 0555 },
	{ "sysfs", "/sys", "sysfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL, 0555 },
	{ "tmpfs", "/run", "tmpfs", MS_NOSUID | MS_NODEV, "mode=755", 0755 },
	{ 0 },
};

static const struct mount late[] = {
	{ "devpts", "/dev/pts", "devpts", MS_NOSUID | MS_NOEXEC, "mode=620,gid=5,ptmxmode=666",
	    0755 },
	{ "tmpfs", "/dev/shm", "tmpfs", MS_NOSUID | MS_NODEV, "mode=1777", 01777 },
	{ "cgroup2", "/sys/fs/cgroup", "cgroup2", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL, 0755 },
	{ 0 },
};

static const struct {
	const char *path, *value;
} settings[] = {
	{ "/proc/sys/fs/inotify/max_user_watches", "65536" },
	{ "/proc/sys/fs/inotify/max_user_instances", "1024" },
	{ "/proc/sys/kernel/panic", "-1" },
	{ "/proc/sys/net/ipv4/ping_group_range", "0 2147483647" },
	{ "/proc/self/oom_score_adj", "-1000" },
};

static const struct {
	const char *target, *name;
} links[] = {
	{ "/proc/self/fd", "/dev/fd" },
	{ "/proc/self/fd/0", "/dev/stdin" },
	{ "/proc/self/fd/1", "/dev/stdout" },
	{ "/proc/self/fd/2", "/dev/stderr" },
};

/* One line for the kernel log: there is no other place yet. */
static void
klog(const char *what, const char *which)
{
	auto_fd fd = open("/dev/kmsg", O_WRONLY | O_CLOEXEC);
	char line[256];
	int saved = errno;
	int n = snprintf(line, sizeof line, "hutch: %s %s: %s\n", what, which, strerror(saved));

	if (fd >= 0 && n > 0)
		(void)!write(fd, line, (size_t)n < sizeof line ? (size_t)n : sizeof line - 1);
	errno = saved;
}

static void
write_text(const char *path, const char *text)
{
	auto_fd fd = open(path, O_WRONLY | O_CLOEXEC);

	if (fd >= 0)
		(void)!write(fd, text, strlen(text));
}

static void
mount_all(const struct mount *m)
{
	for (; m->what; m++) {
		(void)mkdir(m->where, m->mode);
		if (mount(m->what, m->where, m->type, m->flags, m->data) < 0 && errno != EBUSY)
			klog("mount", m->where);
	}
}

/* The value of name= on the kernel's command line. */
static const char *
option(const char *name, char *value, size_t room)
{
	const char *p = cmdline;
	size_t len = strlen(name);

	while (*p) {
		size_t word = strcspn(p, " \n");

		if (word > len && strncmp(p, name, len) == 0 && p[len] == '=') {
			(void)snprintf(value, room, "%.*s", (int)(word - len - 1), p + len + 1);
			return value;
		}
		p += word;
		p += strspn(p, " \n");
	}
	return NULL;
}

static void
module_load(const char *name)
{
	char path[128];
	auto_fd fd = -1;

	(void)snprintf(path, sizeof path, "/m/%s.ko", name);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0 || (syscall(SYS_finit_module, fd, "", 0) < 0 && errno != EEXIST))
		klog("module", name);
	(void)unlink(path);
}

/* In the order the image's builder wrote; the files are removed to give their memory back. */
static void
modules_load(void)
{
	auto_file *order = fopen("/m/order", "re");
	char name[64];

	while (order && fgets(name, sizeof name, order)) {
		name[strcspn(name, "\n")] = '\0';
		if (name[0])
			module_load(name);
	}
	(void)unlink("/m/order");
	(void)rmdir("/m");
}

static int
device_wait(const char *path)
{
	struct stat st;

	for (int i = 0; i < DEVICE_WAIT_MS / 2; i++) {
		if (stat(path, &st) == 0)
			return 0;
		(void)usleep(2000);
	}
	return -1;
}

void
init_end(bool off)
{
	sync();
	/* QEMU runs with -no-reboot: it ends in both cases, and tells the host agent which it was
	 */
	(void)reboot(off ? RB_POWER_OFF : RB_AUTOBOOT);
	(void)reboot(RB_AUTOBOOT);
	for (;;)
		(void)pause();
}

static void
must(int rc, const char *what, const char *which)
{
	if (rc >= 0)
		return;
	klog(what, which);
	init_end(false);
}

/* Nothing else mends it: the kernel measures once. Its host lets it start anew (hostagent/vm.c). */
static void
clock_must_be_right(void)
{
	struct err e = { 0 };

	if (clock_event_right(&e) == 0)
		return;
	errno = EAGAIN;
	klog("starting anew:", e.text);
	init_end(false);
}

/* lower and upper become /new. */
static void
overlay_mount(const char *lower, const char *upper)
{
	(void)mkdir("/new", 0755);
	(void)mkdir("/lower", 0755);
	(void)mkdir("/upper", 0755);
	must(device_wait(lower), "no device", lower);
	must(device_wait(upper), "no device", upper);
	must(mount(lower, "/lower", "erofs", MS_RDONLY, NULL), "mount", lower);
	must(mount(upper, "/upper", "ext4", MS_NOATIME, NULL), "mount", upper);
	(void)mkdir("/upper/root", 0755);
	(void)mkdir("/upper/work", 0755);
	must(mount("overlay", "/new", "overlay", MS_NOATIME,
		 "lowerdir=/lower,upperdir=/upper/root,workdir=/upper/work,redirect_dir=on"),
	    "mount", "overlay");
	upper_fd = open("/upper", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	(void)snprintf(upper_dev, sizeof upper_dev, "%s", upper);
}

static void
switch_root(void)
{
	static const char *const moved[] = { "/dev", "/proc", "/sys", "/run" };
	char target[32];

	for (size_t i = 0; i < nitems(moved); i++) {
		(void)snprintf(target, sizeof target, "/new%s", moved[i]);
		must(mount(moved[i], target, NULL, MS_MOVE, NULL), "move", moved[i]);
	}
	(void)unlink("/init"); /* no name any more; this process keeps the pages */
	must(chdir("/new"), "chdir", "/new");
	must(mount(".", "/", NULL, MS_MOVE, NULL), "move", "root");
	must(chroot("."), "chroot", "/new");
	must(chdir("/"), "chdir", "/");
}

void
init_root(void)
{
	char lower[64], upper[64];
	auto_fd fd = -1;
	ssize_t n = 0;

	if (access("/m/order", R_OK) < 0)
		return;
	mount_all(early);
	clock_must_be_right();
	fd = open("/proc/cmdline", O_RDONLY | O_CLOEXEC);
	n = fd < 0 ? 0 : read(fd, cmdline, sizeof cmdline - 1);
	cmdline[n > 0 ? n : 0] = '\0';
	modules_load();
	if (!option("glower", lower, sizeof lower))
		(void)snprintf(lower, sizeof lower, "/dev/vda");
	if (!option("groot", upper, sizeof upper))
		(void)snprintf(upper, sizeof upper, "/dev/vdb");
	overlay_mount(lower, upper);
	switch_root();
}

static void
interface_up(int fd, const char *name)
{
	struct ifreq r = { 0 };

	(void)snprintf(r.ifr_name, sizeof r.ifr_name, "%s", name);
	if (ioctl(fd, SIOCGIFFLAGS, &r) < 0)
		return;
	r.ifr_flags |= IFF_UP;
	if (ioctl(fd, SIOCSIFFLAGS, &r) < 0)
		klog("up", name);
}

static int
interface_set(int fd, const char *name, unsigned long what, const char *address)
{
	struct ifreq r = { 0 };
	struct sockaddr_in in = { .sin_family = AF_INET };

	(void)snprintf(r.ifr_name, sizeof r.ifr_name, "%s", name);
	(void)inet_pton(AF_INET, address, &in.sin_addr);
	memcpy(&r.ifr_addr, &in, sizeof in);
	return ioctl(fd, what, &r);
}

/* Every capsule has the same address in a network of its own: nothing to configure after a clone.
 */
static void
network_up(void)
{
	auto_fd fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	struct sockaddr_in any = { .sin_family = AF_INET }, gateway = any;
	struct rtentry route = { .rt_flags = RTF_UP | RTF_GATEWAY };

	if (fd < 0)
		return;
	interface_up(fd, "lo");
	if (interface_set(fd, "eth0", SIOCSIFADDR, "10.0.2.15") < 0)
		return; /* a capsule without network */
	(void)interface_set(fd, "eth0", SIOCSIFNETMASK, "255.255.255.0");
	interface_up(fd, "eth0");
	(void)inet_pton(AF_INET, "10.0.2.2", &gateway.sin_addr);
	memcpy(&route.rt_dst, &any, sizeof any);
	memcpy(&route.rt_genmask, &any, sizeof any);
	memcpy(&route.rt_gateway, &gateway, sizeof gateway);
	if (ioctl(fd, SIOCADDRT, &route) < 0 && errno != EEXIST)
		klog("route", "default");
}

static void
resolv_conf(void)
{
	auto_fd fd = -1;
	struct stat st;

	if (stat("/etc/resolv.conf", &st) == 0 && st.st_size > 0)
		return;
	fd = open("/etc/resolv.conf", O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
	if (fd >= 0)
		(void)!write(fd, "nameserver 10.0.2.3\n", 20);
}

/* A template without an init has no poweroff either: these tell process 1. */
static void
power_programs(void)
{
	static const struct {
		const char *path, *text;
	} programs[] = {
		{ "/usr/sbin/poweroff", "#!/bin/sh\nexec kill -USR2 1\n" },
		{ "/usr/sbin/halt", "#!/bin/sh\nexec kill -USR2 1\n" },
		{ "/usr/sbin/reboot", "#!/bin/sh\nexec kill -TERM 1\n" },
	};

	for (size_t i = 0; i < nitems(programs); i++) {
		auto_fd fd = open(programs[i].path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0755);

		if (fd >= 0)
			(void)!write(fd, programs[i].text, strlen(programs[i].text));
	}
}

void
init_system(void)
{
	struct rlimit files = { 1048576, 1048576 };

	mount_all(late);
	freeze_init();
	power_programs();
	for (size_t i = 0; i < nitems(links); i++)
		(void)symlink(links[i].target, links[i].name);
	for (size_t i = 0; i < nitems(settings); i++)
		write_text(settings[i].path, settings[i].value);
	(void)mkdir("/run/lock", 01777);
	(void)chmod("/run/lock", 01777);
	(void)mkdir("/tmp", 01777);
	(void)chmod("/tmp", 01777);
	(void)setrlimit(RLIMIT_NOFILE, &files);
	(void)sethostname("hutch", 5);
	network_up();
	resolv_conf();
}

int
init_grow(uint64_t least, struct err *e)
{
	auto_fd dev = -1;
	struct statfs fs;
	uint64_t bytes = 0, blocks = 0;

	if (upper_fd < 0)
		return 1;
	dev = open(upper_dev, O_RDONLY | O_CLOEXEC);
	if (dev < 0 || ioctl(dev, BLKGETSIZE64, &bytes) < 0 || fstatfs(upper_fd, &fs) < 0)
		return err_sys(e, "size of %s", upper_dev);
	if (bytes < least)
		return 0;
	blocks = bytes / (uint64_t)fs.f_bsize;
	/* f_blocks leaves out the file system's own tables, so a disk of the same size looks
	   larger; the kernel knows the true number and does nothing then. */
	if (ioctl(upper_fd, EXT4_IOC_RESIZE_FS, &blocks) < 0)
		return err_sys(e, "grow %s", upper_dev);
	return 1;
}
