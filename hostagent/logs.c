/* logs.c - see logs.h. */
#include "logs.h"
#include "capsule.h"
#include "vm.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>

enum {
	HALF = 1 << 20,         /* of the serial log */
	BOOT_MAX = 64 * 1024,   /* of the boot log, and of what is kept before a capsule is known */
	AGENT_HALF = 64 * 1024, /* of the agent log */
	PIECE = 16 * 1024,
	BURST = 256 * 1024, /* then the console rests: 2.5 MB/s at most */
	REST_MS = 100,
};

/* Each log is its newer and its older half; "at" of the newer one is the place of its first byte.
 */
static const struct source {
	const char *name, *newer, *older;
	off_t half;
} sources[] = {
	/* clang-format off */
	[LOG_SERIAL] =	{ "serial",	"serial.0",	"serial.1",	HALF },
	[LOG_BOOT] =	{ "boot",	"boot",		NULL,		BOOT_MAX },
	[LOG_AGENT] =	{ "agent",	"agent.0",	"agent.1",	AGENT_HALF },
	/* clang-format on */
};

struct serial {
	struct vm *vm;
	struct watch *watch;
	struct timer *rest;
	int fd;
	size_t burst;
	struct buf early;        /* until it is bound */
	struct capsule *capsule; /* NULL: not yet */
	bool booted;             /* the boot log is full, or of an earlier start */
};

int
logs_source(const char *name)
{
	size_t i;

	for (i = 0; i < nitems(sources); i++)
		if (strcmp(sources[i].name, name) == 0)
			return (int)i;
	return -1;
}

/* The capsule's folder, made when needed. */
static int
folder(struct capsule *c, bool make)
{
	char path[16 + CAPSULE_ID];

	snprintf(path, sizeof path, "log/%s", c->id);
	if (make) {
		(void)mkdirat(c->agent->state_fd, "log", 0700);
		(void)mkdirat(c->agent->state_fd, path, 0700);
	}
	return openat(c->agent->state_fd, path, O_PATH | O_DIRECTORY | O_CLOEXEC);
}

/* Appends; a full newer half becomes the older one. */
static void
append(struct capsule *c, enum log_source which, const char *p, size_t n)
{
	const struct source *s = &sources[which];
	auto_fd dir = folder(c, true);
	auto_fd fd =
	    dir < 0 ? -1 : openat(dir, s->newer, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
	struct stat st = { 0 };

	if (fd < 0 || fstat(fd, &st) < 0)
		return;
	if (!s->older && st.st_size + (off_t)n > s->half)
		n = st.st_size < s->half ? (size_t)(s->half - st.st_size) : 0;
	else if (s->older && st.st_size > 0 && st.st_size + (off_t)n > s->half) {
		c->logged[which] += st.st_size;
		(void)renameat(dir, s->newer, dir, s->older);
		close(fd);
		fd = openat(
		    dir, s->newer, O_WRONLY | O_CREAT | O_TRUNC | O_APPEND | O_CLOEXEC, 0600);
	}
	if (fd >= 0 && n && write(fd, p, n) < 0)
		log_debug(NULL, "capsule %s: log %s: %s", c->id, s->name, strerror(errno));
}

static void
heard(struct serial *s, const char *p, size_t n)
{
	if (!s->capsule) {
		if (s->early.len + n > BOOT_MAX)
			n = s->early.len < BOOT_MAX ? BOOT_MAX - s->early.len : 0;
		buf_add(&s->early, p, n);
		return;
	}
	append(s->capsule, LOG_SERIAL, p, n);
	if (!s->booted)
		append(s->capsule, LOG_BOOT, p, n);
}

static void on_console(void *, int);

static void
rested(void *arg)
{
	struct serial *s = arg;

	TALLOC_FREE(s->rest);
	s->burst = 0;
	s->watch = watch_new(s, s->vm->agent->loop, s->fd, UV_READABLE, on_console, s);
}

static void
on_console(void *arg, int events)
{
	struct serial *s = arg;
	char piece[PIECE];
	ssize_t n = recv(s->fd, piece, sizeof piece, MSG_DONTWAIT);

	(void)events;
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n <= 0) {
		TALLOC_FREE(s->watch); /* QEMU ended; the VM's end follows */
		return;
	}
	heard(s, piece, (size_t)n);
	s->burst += (size_t)n;
	if (s->burst >= BURST) {
		TALLOC_FREE(s->watch);
		s->rest = timer_new(s, s->vm->agent->loop, REST_MS, 0, rested, s);
	}
}

static int
serial_free(struct serial *s)
{
	TALLOC_FREE(s->watch);
	close(s->fd);
	return 0;
}

void
logs_open(struct vm *vm)
{
	struct err e = { 0 };
	int fd = vm_connect(vm, "serial", &e);
	struct serial *s;

	if (fd < 0) {
		log_debug(NULL, "vm %s: console: %s", vm->name, e.text);
		return;
	}
	s = talloc_zero(vm, struct serial);
	s->vm = vm;
	s->fd = fd;
	s->early = BUF(s);
	s->watch = watch_new(s, vm->agent->loop, fd, UV_READABLE, on_console, s);
	talloc_set_destructor(s, serial_free);
	TALLOC_FREE(vm->serial);
	vm->serial = s;
}

void
logs_bind(struct capsule *c, struct vm *vm, bool fresh)
{
	struct serial *s = vm->serial;
	auto_fd dir = -1;

	if (!s || s->capsule)
		return;
	if (fresh) {
		dir = folder(c, true);
		if (dir >= 0)
			(void)unlinkat(dir, sources[LOG_BOOT].newer, 0);
	}
	s->capsule = c;
	if (s->early.len)
		heard(s, s->early.data, s->early.len);
	TALLOC_FREE(s->early.data);
	s->early = BUF(s);
}

void
logs_note(struct capsule *c, const char *fmt, ...)
{
	char text[512], line[600];
	struct timespec now;
	struct tm tm;
	va_list ap;
	int n;

	clock_gettime(CLOCK_REALTIME, &now);
	(void)gmtime_r(&now.tv_sec, &tm);
	va_start(ap, fmt);
	vsnprintf(text, sizeof text, fmt, ap);
	va_end(ap);
	n = snprintf(line, sizeof line, "%04d-%02d-%02dT%02d:%02d:%02d.%03ldZ epoch %lld: %s\n",
	    tm.tm_year + 1900, tm.tm_mon + 1, tm.tm_mday, tm.tm_hour, tm.tm_min, tm.tm_sec,
	    now.tv_nsec / 1000000, (long long)c->epoch, text);
	append(c, LOG_AGENT, line, (size_t)n < sizeof line ? (size_t)n : sizeof line - 1);
}

/* Reads a half whole. */
static void
half(int dir, const char *name, struct buf *b, off_t most)
{
	auto_fd fd = name ? openat(dir, name, O_RDONLY | O_CLOEXEC) : -1;
	struct stat st;
	ssize_t n;

	if (fd < 0 || fstat(fd, &st) < 0)
		return;
	if (st.st_size > most)
		st.st_size = most;
	buf_need(b, (size_t)st.st_size);
	n = read(fd, b->data + b->len, (size_t)st.st_size);
	if (n > 0)
		b->len += (size_t)n;
	b->data[b->len] = '\0';
}

/* Where the last n lines begin. */
static size_t
tail_at(const struct buf *b, int n)
{
	size_t at = b->len && b->data[b->len - 1] == '\n' ? b->len - 1 : b->len;

	if (n <= 0)
		return b->len;
	while (at > 0 && !(b->data[at - 1] == '\n' && --n == 0))
		at--;
	return at;
}

int64_t
logs_read(struct capsule *c, enum log_source which, int tail, int64_t from, struct buf *b)
{
	const struct source *s = &sources[which];
	auto_talloc char *mem = talloc_new(NULL);
	auto_fd dir = folder(c, false);
	struct buf all = BUF(mem);
	int64_t first, end;
	size_t at, old;

	if (dir < 0)
		return -1;
	half(dir, s->older, &all, s->half);
	old = all.len;
	half(dir, s->newer, &all, s->half);
	first = c->logged[which] - (int64_t)old;
	end = first + (int64_t)all.len;
	at = from < 0 || from < first || from > end ? tail_at(&all, tail) : (size_t)(from - first);
	if (all.len > at)
		buf_add(b, all.data + at, all.len - at);
	return end;
}

void
logs_remove(struct capsule *c)
{
	auto_fd dir = folder(c, false);
	char path[16 + CAPSULE_ID];
	size_t i;

	if (dir < 0)
		return;
	for (i = 0; i < nitems(sources); i++) {
		(void)unlinkat(dir, sources[i].newer, 0);
		if (sources[i].older)
			(void)unlinkat(dir, sources[i].older, 0);
	}
	snprintf(path, sizeof path, "log/%s", c->id);
	(void)unlinkat(c->agent->state_fd, path, AT_REMOVEDIR);
}
