/* landlock.c - see landlock.h. The numbers are the kernel's; Debian's headers are older than it. */
#include "landlock.h"

#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

enum {
	CREATE_RULESET_VERSION = 1,
	RULE_PATH_BENEATH = 1,
	FS_EXECUTE = 1 << 0,
	FS_WRITE_FILE = 1 << 1,
	FS_READ_FILE = 1 << 2,
	FS_READ_DIR = 1 << 3,
	FS_ABI1 = (1 << 13) - 1,
	FS_REFER = 1 << 13,     /* ABI 2 */
	FS_TRUNCATE = 1 << 14,  /* ABI 3 */
	FS_IOCTL_DEV = 1 << 15, /* ABI 5 */
	NET_BIND_CONNECT = 3,   /* ABI 4 */
	SCOPE_ALL = 3,          /* ABI 6: abstract sockets, signals to others */
};

struct ruleset {
	uint64_t fs, net, scoped;
};

struct path_beneath {
	uint64_t allowed;
	int32_t parent;
} __attribute__((packed));

int
landlock_abi(void)
{
	long n = syscall(SYS_landlock_create_ruleset, NULL, 0, CREATE_RULESET_VERSION);

	return n > 0 ? (int)n : 0;
}

static int
allow_fd(int ruleset, int fd, uint64_t what)
{
	struct path_beneath p = { .allowed = what, .parent = fd };

	return (int)syscall(SYS_landlock_add_rule, ruleset, RULE_PATH_BENEATH, &p, 0);
}

/* What is not there needs no rule. */
static int
allow(int ruleset, const char *path, uint64_t folder, uint64_t file)
{
	int fd = open(path, O_PATH | O_CLOEXEC), rc;
	struct stat s;

	if (fd < 0)
		return errno == ENOENT ? 0 : -1;
	rc = fstat(fd, &s) < 0 ? -1 : allow_fd(ruleset, fd, S_ISDIR(s.st_mode) ? folder : file);
	close(fd);
	return rc;
}

static int
allow_again(int ruleset, int fd, uint64_t handled)
{
	int mode = fcntl(fd, F_GETFL) & O_ACCMODE;
	uint64_t what =
	    mode == O_RDONLY ? FS_READ_FILE : FS_READ_FILE | FS_WRITE_FILE | FS_TRUNCATE;
	struct stat s;

	/* files in memory are of no file system that could be ruled */
	if (fstat(fd, &s) < 0 || !S_ISREG(s.st_mode))
		return 0;
	return allow_fd(ruleset, fd, what & handled) < 0 && errno != EBADFD ? -1 : 0;
}

int
landlock_enter(int abi, bool network, const char *const *read, const char *const *devices,
    const int *fd, int fds)
{
	struct ruleset r = { .fs = FS_ABI1 };
	size_t size = abi >= 6 ? sizeof r : abi >= 4 ? 2 * sizeof r.fs : sizeof r.fs;
	int set, i, rc = 0;

	if (abi >= 2)
		r.fs |= FS_REFER;
	if (abi >= 3)
		r.fs |= FS_TRUNCATE;
	if (abi >= 5)
		r.fs |= FS_IOCTL_DEV;
	if (abi >= 4 && !network)
		r.net = NET_BIND_CONNECT;
	if (abi >= 6)
		r.scoped = SCOPE_ALL;
	set = (int)syscall(SYS_landlock_create_ruleset, &r, size, 0);
	if (set < 0)
		return -1;
	for (; *read && rc == 0; read++)
		rc = allow(
		    set, *read, FS_EXECUTE | FS_READ_FILE | FS_READ_DIR, FS_EXECUTE | FS_READ_FILE);
	for (; *devices && rc == 0; devices++)
		rc = allow(set, *devices, 0, (FS_READ_FILE | FS_WRITE_FILE | FS_IOCTL_DEV) & r.fs);
	for (i = 0; i < fds && rc == 0; i++)
		rc = allow_again(set, fd[i], r.fs);
	if (rc == 0)
		rc = (int)syscall(SYS_landlock_restrict_self, set, 0);
	close(set);
	return rc;
}
