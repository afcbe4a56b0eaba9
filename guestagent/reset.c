/* reset.c - see reset.h. */
#include "reset.h"

#include "cleanup.h"

#include <dirent.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { LISTENING = 0x0A, SOCKETS_MAX = 4096 };

struct found {
	unsigned long inode[SOCKETS_MAX];
	size_t n;
};

/* The IPv4 address of a table's column, also where it is within an IPv6 one; 0: none, or ::1. */
static uint32_t
address(const char *hex)
{
	size_t n = strlen(hex);

	if (n != 8 && (n != 32 || strncmp(hex, "0000000000000000FFFF0000", 24) != 0))
		return 0;
	return (uint32_t)strtoul(hex + n - 8, NULL, 16);
}

/* Connections whose other end is not in this machine. */
static void
table_read(const char *path, struct found *f)
{
	auto_file *in = fopen(path, "re");
	char line[256], here[33], there[33];
	unsigned state;
	unsigned long inode;

	while (in && f->n < SOCKETS_MAX && fgets(line, sizeof line, in))
		if (sscanf(line, " %*u: %32[0-9A-F]:%*x %32[0-9A-F]:%*x %x %*s %*s %*s %*u %*u %lu",
			here, there, &state, &inode) == 4 &&
		    state != LISTENING && inode && address(there) &&
		    address(there) != address(here) &&
		    ntohl(address(there)) >> 24 != IN_LOOPBACKNET)
			f->inode[f->n++] = inode;
}

static int
is_found(const struct found *f, const char *link)
{
	unsigned long inode;

	if (sscanf(link, "socket:[%lu]", &inode) != 1)
		return 0;
	for (size_t i = 0; i < f->n; i++)
		if (f->inode[i] == inode)
			return 1;
	return 0;
}

/* The same socket, in our hands: disconnected, its owner sees "connection reset by peer". */
static void
socket_reset(int process, int theirs)
{
	struct sockaddr none = { .sa_family = AF_UNSPEC };
	auto_fd fd = (int)syscall(SYS_pidfd_getfd, process, theirs, 0);

	if (fd >= 0)
		(void)connect(fd, &none, sizeof none);
}

static void
process_reset(const char *pid, const struct found *f)
{
	char path[64], link[64];
	struct dirent *e;
	auto_fd process = -1;
	DIR *d;
	ssize_t n;

	(void)snprintf(path, sizeof path, "/proc/%.20s/fd", pid);
	d = opendir(path);
	while (d && (e = readdir(d))) {
		n = readlinkat(dirfd(d), e->d_name, link, sizeof link - 1);
		if (n <= 0)
			continue;
		link[n] = '\0';
		if (!is_found(f, link))
			continue;
		if (process < 0)
			process = (int)syscall(SYS_pidfd_open, (pid_t)strtol(pid, NULL, 10), 0);
		if (process >= 0)
			socket_reset(process, (int)strtol(e->d_name, NULL, 10));
	}
	if (d)
		(void)closedir(d);
}

void
reset_connections(void)
{
	auto_talloc struct found *f = talloc_zero(NULL, struct found);
	struct dirent *e;
	DIR *d;

	if (!f)
		abort();
	table_read("/proc/net/tcp", f);
	table_read("/proc/net/tcp6", f);
	if (!f->n)
		return;
	d = opendir("/proc");
	while (d && (e = readdir(d)))
		if (e->d_name[0] >= '1' && e->d_name[0] <= '9')
			process_reset(e->d_name, f);
	if (d)
		(void)closedir(d);
}
