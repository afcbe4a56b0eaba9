/* files.c - GET /files: a file's bytes, whole or a range, as fast as the other side takes them. */
#include "cleanup.h"
#include "entry.h"
#include "gzip.h"
#include "handlers.h"
#include "text.h"
#include "user.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <nghttp2/nghttp2.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

enum { READ = 32 * 1024 };

struct download {
	struct call *call;
	int fd;
	int64_t at, left;
	bool endless;      /* a file that says it is empty and is not (/proc): to its end */
	struct gzip *gzip; /* NULL: as it is */
};

static int
download_free(struct download *d)
{
	cleanup_fd(&d->fd);
	return 0;
}

static int
packed(void *arg, const uint8_t *p, size_t n, struct err *e)
{
	struct download *d = arg;

	(void)e;
	if (d->call->stream)
		h2_write(d->call->stream, p, n);
	return 0;
}

static void
pump(struct call *c)
{
	static char data[READ];
	struct download *d = c->state;

	while (c->stream && !c->ended && !call_full(c)) {
		size_t want = d->endless || d->left > READ ? READ : (size_t)d->left;
		ssize_t n = want ? pread(d->fd, data, want, d->at) : 0;

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 || (n == 0 && d->left > 0)) {
			/* It shrank or broke while being read: an end would pass for the whole. */
			h2_reset(c->stream, NGHTTP2_INTERNAL_ERROR);
			c->ended = true;
			return;
		}
		if (n > 0 && d->gzip)
			(void)gzip_feed(d->gzip, (uint8_t *)data, (size_t)n, &c->err);
		else if (n > 0)
			h2_write(c->stream, data, (size_t)n);
		d->at += n;
		d->left -= d->endless ? 0 : n;
		if (n == 0 || (!d->endless && d->left == 0)) {
			if (d->gzip)
				(void)gzip_end(d->gzip, &c->err);
			h2_finish(c->stream);
			c->ended = true;
		}
	}
}

/* "bytes=a-b", "bytes=a-", "bytes=-n". 1: *from and *len; 0: none, or several: the whole file; -1:
 * outside. */
static int
range_read(const char *text, int64_t size, int64_t *from, int64_t *len)
{
	char *end = NULL;
	int64_t a = -1, b = -1;

	if (!text || strncmp(text, "bytes=", 6) != 0 || strchr(text, ','))
		return 0;
	text += 6;
	errno = 0;
	if (*text >= '0' && *text <= '9')
		a = strtoll(text, &end, 10);
	else
		end = (char *)text;
	if (*end++ != '-' || errno)
		return 0;
	if (*end >= '0' && *end <= '9')
		b = strtoll(end, &end, 10);
	if (*end || errno || (a < 0 && b < 0) || (a >= 0 && b >= 0 && b < a))
		return 0;
	if (a < 0) {
		a = b < size ? size - b : 0;
		b = b ? size - 1 : -1;
	}
	if (a >= size || (b >= 0 && b < a) || size == 0)
		return -1;
	*from = a;
	*len = (b < 0 || b >= size ? size - 1 : b) - a + 1;
	return 1;
}

/* attachment names need quoting; what is not plain ASCII goes percent-encoded (RFC 6266). */
static const char *
disposition(void *mem, const char *path)
{
	const char *name = strrchr(path, '/') + 1;
	struct buf b = BUF(mem);

	buf_str(&b, "inline; filename");
	if (strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-+") ==
	    strlen(name)) {
		buf_fmt(&b, "=%s", name);
		return b.data;
	}
	buf_str(&b, "*=utf-8''");
	for (; *name; name++) {
		unsigned char ch = (unsigned char)*name;

		if ((ch >= '0' && ch <= '9') || ((ch | 0x20) >= 'a' && (ch | 0x20) <= 'z') ||
		    strchr("._-", ch))
			buf_chr(&b, (char)ch);
		else
			buf_fmt(&b, "%%%02X", ch);
	}
	return b.data;
}

static const char *
http_date(void *mem, time_t t)
{
	struct tm tm;
	char text[64];

	if (!gmtime_r(&t, &tm) || !strftime(text, sizeof text, "%a, %d %b %Y %H:%M:%S GMT", &tm))
		return "Thu, 01 Jan 1970 00:00:00 GMT";
	return talloc_strdup(mem, text);
}

static void
send_head(struct call *c, struct download *d, const char *path, const struct stat *st, bool part)
{
	struct h2_header h[10] = {
		{ "content-type", "application/octet-stream" },
		{ "accept-ranges", "bytes" },
		{ "content-disposition", disposition(c, path) },
		{ "last-modified", http_date(c, st->st_mtime) },
	};
	int n = 4;

	if (d->gzip) {
		h[n++] = (struct h2_header){ "content-encoding", "gzip" };
		h[n++] = (struct h2_header){ "vary", "Accept-Encoding" };
	}
	if (!d->endless && !d->gzip)
		h[n++] =
		    (struct h2_header){ "content-length", talloc_asprintf(c, "%" PRId64, d->left) };
	if (part)
		h[n++] = (struct h2_header){ "content-range",
			talloc_asprintf(c, "bytes %" PRId64 "-%" PRId64 "/%lld", d->at,
			    d->at + d->left - 1, (long long)st->st_size) };
	c->answered = true;
	h2_respond(c->stream, part ? 206 : 200, h, !d->endless && d->left == 0);
}

static int
file_open(const struct user *u, const char *path, struct stat *st, struct err *e)
{
	auto_fd fd = -1;
	int rc = 0;

	if (user_enter(u, e) < 0)
		return -1;
	fd = open(path, O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
	if (fd < 0 || fstat(fd, st) < 0)
		rc = entry_error(e, path);
	user_leave();
	if (rc < 0)
		return -1;
	if (S_ISDIR(st->st_mode))
		return err_set(e, E_BAD_INPUT, "path '%.150s' is a directory", path);
	if (!S_ISREG(st->st_mode))
		return err_set(e, E_BAD_INPUT, "path '%.150s' is not a regular file", path);
	return take_fd(&fd);
}

static void
refuse_range(struct call *c, const struct stat *st)
{
	struct h2_header h[] = { { "content-range",
				     talloc_asprintf(c, "bytes */%lld", (long long)st->st_size) },
		{ NULL, NULL } };

	call_reply(c, 416, h, NULL, 0);
}

void
files_get(struct call *c)
{
	const char *name = call_query(c, "path");
	struct user *u = user_of(c, call_query(c, "username"));
	char *path = u ? user_path(c, u, name ? name : "", &c->err) : NULL;
	struct download *d = NULL;
	struct stat st;
	int fd = path ? file_open(u, path, &st, &c->err) : -1;
	int range = 0, packs = text_accepts(call_header(c, "accept-encoding"), "gzip");
	bool plain = text_accepts(call_header(c, "accept-encoding"), "identity") >= 0;
	char probe;

	if (fd < 0) {
		call_fail(c);
		return;
	}
	d = talloc_zero(c, struct download);
	if (!d)
		abort();
	*d = (struct download){ .call = c, .fd = fd, .left = st.st_size };
	talloc_set_destructor(d, download_free);
	d->endless = st.st_size == 0 && pread(fd, &probe, 1, 0) > 0;
	if (!plain && packs <= 0) {
		call_fail_as(c, 406, NULL, "no acceptable encoding");
		return;
	}
	range = d->endless || !plain
	    ? 0
	    : range_read(call_header(c, "range"), st.st_size, &d->at, &d->left);
	if (range < 0) {
		refuse_range(c, &st);
		return;
	}
	if (packs > 0 && (!plain || !call_header(c, "range")) && (d->left || d->endless))
		d->gzip = gzip_pack(d, packed, d);
	send_head(c, d, path, &st, range > 0);
	c->state = d;
	c->on_drain = pump;
	if (d->left || d->endless)
		pump(c);
}
