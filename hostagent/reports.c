/* reports.c - see reports.h. A line of the file: number, blank, JSON. */
#include "reports.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum { REPORTS_MAX = 10000, FILE_LIMIT = 64 << 20 };

struct report {
	STAILQ_ENTRY(report) link;
	int64_t number;
	const char *json;
};

struct reports {
	STAILQ_HEAD(, report) list;
	size_t waiting;
	int64_t last;
	int dir, fd; /* fd -1: only in memory */
};

static int
reports_free(struct reports *r)
{
	if (r->fd >= 0)
		close(r->fd);
	return 0;
}

static void
forget_first(struct reports *r)
{
	struct report *one = STAILQ_FIRST(&r->list);

	STAILQ_REMOVE_HEAD(&r->list, link);
	r->waiting--;
	talloc_free(one);
}

static void
remember(struct reports *r, int64_t number, const char *json)
{
	struct report *one = talloc_zero(r, struct report);

	if (r->waiting == REPORTS_MAX)
		forget_first(r);
	one->number = number;
	one->json = talloc_strdup(one, json);
	STAILQ_INSERT_TAIL(&r->list, one, link);
	r->waiting++;
}

/* The file holds no more than the list, or is not there. */
static void
rewrite(struct reports *r)
{
	auto_talloc char *mem = talloc_new(NULL);
	struct buf b = BUF(mem);
	const struct report *one;
	int fd = openat(
	    r->dir, "reports.new", O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_APPEND, 0600);

	STAILQ_FOREACH(one, &r->list, link)
	buf_fmt(&b, "%lld %s\n", (long long)one->number, one->json);
	if (fd < 0 || (b.len && write(fd, b.data, b.len) != (ssize_t)b.len) ||
	    renameat(r->dir, "reports.new", r->dir, "reports") < 0) {
		log_error(NULL, "reports: %s", strerror(errno));
		if (fd >= 0)
			close(fd);
		fd = -1;
	}
	if (r->fd >= 0)
		close(r->fd);
	r->fd = fd;
}

/* A torn last line is dropped. */
static void
load(struct reports *r)
{
	auto_fd fd = openat(r->dir, "reports", O_RDONLY | O_CLOEXEC);
	struct stat s;
	char *text, *line, *end, *json;
	ssize_t n;

	if (fd < 0 || fstat(fd, &s) < 0 || s.st_size == 0 || s.st_size > FILE_LIMIT)
		return;
	text = talloc_zero_size(r, (size_t)s.st_size + 1);
	n = read(fd, text, (size_t)s.st_size);
	for (line = text; n > 0 && (end = strchr(line, '\n')); line = end + 1) {
		*end = '\0';
		json = strchr(line, ' ');
		if (json && json[1] == '{')
			remember(r, strtoll(line, NULL, 10), json + 1);
	}
	talloc_free(text);
}

struct reports *
reports_open(void *mem, int state_fd)
{
	struct reports *r = talloc_zero(mem, struct reports);

	STAILQ_INIT(&r->list);
	r->dir = state_fd;
	r->fd = -1;
	talloc_set_destructor(r, reports_free);
	load(r);
	/* rises over restarts, too: the control plane drops what it has seen */
	r->last = now_real();
	rewrite(r);
	return r;
}

void
reports_add(struct reports *r, const char *json)
{
	auto_talloc char *line = NULL;
	struct stat s;

	remember(r, ++r->last, json);
	line = talloc_asprintf(NULL, "%lld %s\n", (long long)r->last, json);
	if (r->fd >= 0 && write(r->fd, line, strlen(line)) < 0)
		log_error(NULL, "reports: %s", strerror(errno));
	if (r->fd >= 0 && fstat(r->fd, &s) == 0 && s.st_size > FILE_LIMIT / 2)
		rewrite(r);
}

size_t
reports_waiting(const struct reports *r)
{
	return r->waiting;
}

int64_t
reports_batch(const struct reports *r, size_t n, struct buf *b)
{
	const struct report *one;
	int64_t last = 0;
	size_t done = 0;

	STAILQ_FOREACH(one, &r->list, link)
	{
		if (done++ == n)
			break;
		if (done > 1)
			buf_chr(b, ',');
		buf_str(b, one->json);
		last = one->number;
	}
	return last;
}

void
reports_sent(struct reports *r, int64_t number)
{
	const struct report *one;

	while ((one = STAILQ_FIRST(&r->list)) && one->number <= number)
		forget_first(r);
	if (r->waiting == 0 && r->fd >= 0)
		(void)!ftruncate(r->fd, 0);
}
