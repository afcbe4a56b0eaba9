/* own_log.c - see own_log.h. Threads of the agent log, too: a lock orders them. */
#include "own_log.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <string.h>
#include <sys/stat.h>

#define NEWER "log/agent.0"
#define OLDER "log/agent.1"

enum { HALF = 1 << 20 };

static struct {
	pthread_mutex_t lock;
	int dir, fd;
	off_t size;
} file = { .lock = PTHREAD_MUTEX_INITIALIZER, .fd = -1 };

static void
keep(const char *line, size_t n)
{
	(void)pthread_mutex_lock(&file.lock);
	if (file.size + (off_t)n > HALF) {
		(void)renameat(file.dir, NEWER, file.dir, OLDER);
		close(file.fd);
		file.fd = openat(
		    file.dir, NEWER, O_WRONLY | O_CREAT | O_TRUNC | O_APPEND | O_CLOEXEC, 0600);
		file.size = 0;
	}
	if (file.fd >= 0 && write(file.fd, line, n) > 0)
		file.size += (off_t)n;
	(void)pthread_mutex_unlock(&file.lock);
}

void
own_log_open(struct agent *a)
{
	struct stat s;

	(void)mkdirat(a->state_fd, "log", 0700);
	file.dir = a->state_fd;
	file.fd = openat(a->state_fd, NEWER, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
	if (file.fd < 0 || fstat(file.fd, &s) < 0) {
		log_warn(NULL, "the log is not kept: " NEWER ": %s", strerror(errno));
		return;
	}
	file.size = s.st_size;
	log_copy(keep);
}

static void
half(const struct agent *a, const char *name, struct buf *b)
{
	auto_fd fd = openat(a->state_fd, name, O_RDONLY | O_CLOEXEC);
	struct stat s;
	ssize_t n;

	if (fd < 0 || fstat(fd, &s) < 0 || s.st_size > 2 * HALF)
		return;
	buf_need(b, (size_t)s.st_size);
	n = read(fd, b->data + b->len, (size_t)s.st_size);
	if (n > 0)
		b->len += (size_t)n;
	b->data[b->len] = '\0';
}

void
own_log_tail(const struct agent *a, int lines, struct buf *b)
{
	auto_talloc char *mem = talloc_new(NULL);
	struct buf all = BUF(mem);
	const char *p, *end, *nl, *comma = "";

	half(a, OLDER, &all);
	half(a, NEWER, &all);
	p = end = all.data ? all.data + all.len : NULL;
	for (; p && p > all.data && lines > 0; lines--)
		for (p--; p > all.data && p[-1] != '\n';)
			p--;
	for (; p && p < end; p = nl + 1) {
		nl = memchr(p, '\n', (size_t)(end - p));
		if (!nl)
			break;
		if (*p != '{' || nl[-1] != '}')
			continue; /* cut off by a full disk */
		buf_str(b, comma);
		buf_add(b, p, (size_t)(nl - p));
		comma = ",";
	}
}
