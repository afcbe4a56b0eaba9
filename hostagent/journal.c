/* journal.c - see journal.h. */
#include "journal.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

enum { LARGE = 4 << 20, LINE_MAX_BYTES = 65536 };

/* Who waits for a record. */
struct waiter {
	TAILQ_ENTRY(waiter) link;
	struct journal *journal;
	journal_done *done;
	void *arg;
};

TAILQ_HEAD(waiters, waiter);

struct journal {
	struct agent *agent;
	int fd;
	off_t size;
	struct buf next;        /* records that the next write takes */
	struct waiters waiting; /* for `next` */
	struct waiters writing; /* for what the thread writes */
	struct write *write;    /* the thread's, NULL: idle */
	void (*on_rewrite)(struct agent *, struct journal *);
};

struct write {
	struct journal *journal;
	int fd;
	char *data;
	size_t len;
	off_t at;
	struct err err;
};

static uint32_t
crc32(const char *p, size_t n)
{
	uint32_t c = ~0U;
	int i;

	while (n--) {
		c ^= (unsigned char)*p++;
		for (i = 0; i < 8; i++)
			c = c >> 1 ^ (c & 1 ? 0xedb88320U : 0);
	}
	return ~c;
}

static void
line(struct buf *b, const char *json)
{
	buf_fmt(b, "%08x ", crc32(json, strlen(json)));
	buf_str(b, json);
	buf_chr(b, '\n');
}

static int
waiter_free(struct waiter *w)
{
	/* it is in one of the two lists; a TAILQ element may leave without knowing which, unless it
	   is the last: so the list is found */
	struct waiter *i;

	TAILQ_FOREACH(i, &w->journal->writing, link)
	if (i == w) {
		TAILQ_REMOVE(&w->journal->writing, w, link);
		return 0;
	}
	TAILQ_REMOVE(&w->journal->waiting, w, link);
	return 0;
}

static void write_next(struct journal *);

static void
write_run(void *arg)
{
	struct write *w = arg;
	size_t done = 0;
	ssize_t n;

	while (done < w->len) {
		n = pwrite(w->fd, w->data + done, w->len - done, w->at + (off_t)done);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0) {
			err_sys(&w->err, "journal");
			return;
		}
		done += n;
	}
	if (fdatasync(w->fd) < 0)
		err_sys(&w->err, "journal");
}

static void
write_done(void *arg)
{
	struct write *w = arg;
	struct journal *j = w->journal;
	struct waiter *i;
	struct err e = w->err;

	j->write = NULL;
	if (e.code == E_OK)
		j->size += (off_t)w->len;
	else
		log_error(
		    NULL, "journal: %s", e.text); /* the next write overwrites what was torn */
	talloc_free(w);
	while ((i = TAILQ_FIRST(&j->writing))) {
		journal_done *done = i->done;
		void *user = i->arg;

		talloc_free(i);
		done(user, e.code == E_OK ? NULL : &e);
	}
	write_next(j);
}

static void
write_next(struct journal *j)
{
	struct write *w;

	if (j->write || !j->next.len)
		return;
	w = talloc_zero(NULL, struct write);
	w->journal = j;
	w->fd = j->fd;
	w->at = j->size;
	w->data = talloc_memdup(w, j->next.data, j->next.len);
	w->len = j->next.len;
	buf_clear(&j->next);
	TAILQ_CONCAT(&j->writing, &j->waiting, link);
	j->write = w;
	background(j->agent->loop, write_run, write_done, w);
}

void
journal_append(struct journal *j, void *owner, const char *json, journal_done *done, void *arg)
{
	struct waiter *w;

	line(&j->next, json);
	if (done) {
		w = talloc_zero(owner, struct waiter);
		w->journal = j;
		w->done = done;
		w->arg = arg;
		TAILQ_INSERT_TAIL(&j->waiting, w, link);
		talloc_set_destructor(w, waiter_free);
	}
	write_next(j);
}

void
journal_keep(struct journal *j, const char *json)
{
	line(&j->next, json);
}

/* Whole lines with the right sum, until the first that is not. Returns the length of what is good.
 */
static size_t
replay(struct agent *a, char *text, size_t len,
    void (*on_record)(struct agent *, struct json_object *))
{
	size_t at = 0;
	char *end;

	while ((end = memchr(text + at, '\n', len - at))) {
		auto_talloc char *mem = talloc_new(NULL);
		struct err e = { 0 };
		struct json_object *json;
		const char *p = text + at;
		unsigned long sum;

		*end = '\0';
		if (end - p < 10 || end - p > LINE_MAX_BYTES || p[8] != ' ')
			break;
		sum = strtoul(p, NULL, 16);
		if (sum != crc32(p + 9, end - p - 9) ||
		    !(json = json_parse(mem, p + 9, end - p - 9, NULL, &e)))
			break;
		on_record(a, json);
		at = end + 1 - text;
	}
	return at;
}

static int
rewrite(struct journal *j, struct err *e)
{
	int dir = j->agent->state_fd;
	auto_fd fd = openat(dir, "journal.new", O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

	buf_clear(&j->next);
	j->on_rewrite(j->agent, j);
	if (fd < 0 ||
	    pwrite(fd, j->next.data ? j->next.data : "", j->next.len, 0) != (ssize_t)j->next.len ||
	    fsync(fd) < 0 || renameat(dir, "journal.new", dir, "journal") < 0 || fsync(dir) < 0)
		return err_sys(e, "journal.new");
	if (j->fd >= 0)
		close(j->fd);
	j->size = (off_t)j->next.len;
	buf_clear(&j->next);
	j->fd = take_fd(&fd);
	return 0;
}

struct journal *
journal_open(struct agent *a, void (*on_record)(struct agent *, struct json_object *),
    void (*on_rewrite)(struct agent *, struct journal *), bool *ret_complete, struct err *e)
{
	struct journal *j = talloc_zero(a, struct journal);
	auto_fd fd = openat(a->state_fd, "journal", O_RDONLY | O_CLOEXEC);
	auto_talloc char *text = NULL;
	struct stat s = { 0 };
	size_t good = 0;

	j->agent = a;
	j->fd = -1;
	j->next = BUF(j);
	j->on_rewrite = on_rewrite;
	TAILQ_INIT(&j->waiting);
	TAILQ_INIT(&j->writing);
	*ret_complete = fd >= 0 || a->fresh;
	if (fd >= 0) {
		if (fstat(fd, &s) < 0 || !(text = talloc_size(NULL, s.st_size + 1)) ||
		    read(fd, text, s.st_size) != s.st_size) {
			err_sys(e, "journal");
			return NULL;
		}
		good = replay(a, text, s.st_size, on_record);
	}
	/* the last line may be torn: its promise was never answered. More than that is damage. */
	if (good < (size_t)s.st_size && memchr(text + good, '\n', s.st_size - good)) {
		*ret_complete = false;
		log_error(NULL, "journal: damaged at byte %zu of %lld; kept as journal.bad", good,
		    (long long)s.st_size);
		(void)renameat(a->state_fd, "journal", a->state_fd, "journal.bad");
	}
	return rewrite(j, e) < 0 ? NULL : j;
}

void
journal_compact(struct journal *j)
{
	struct err e = { 0 };

	if (j->size > LARGE && !j->write && !j->next.len && rewrite(j, &e) < 0)
		log_error(NULL, "%s", e.text);
}
