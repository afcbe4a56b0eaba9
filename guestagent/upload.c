/*
 * upload.c - POST /files: bytes to a temporary name beside the target, renamed when complete.
 *
 * The body is written as it comes; nothing is held but one window. What fails leaves the old file.
 */
#include "cleanup.h"
#include "entry.h"
#include "handlers.h"
#include "multipart.h"
#include "text.h"
#include "upload.h"
#include "user.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/xattr.h>

#define METADATA "x-metadata-"

int
incoming_refuse(struct err *e)
{
	return errno == ENOSPC || errno == EDQUOT ? err_set(e, E_NO_SPACE, "not enough disk space")
						  : err_sys(e, "write");
}

void
incoming_drop(struct upload *u)
{
	if (u->file.fd < 0)
		return;
	cleanup_fd(&u->file.fd);
	u->file.fd = -1;
	(void)unlink(u->file.temporary);
}

static int
upload_free(struct upload *u)
{
	incoming_drop(u);
	return 0;
}

/* A link is written through, to the file that it names; sets the mode to keep. */
static int
target_look(struct upload *u, char *path, struct err *e)
{
	char real[PATH_MAX];
	struct stat st;

	u->file.target = path;
	u->file.mode = 0666 & ~022;
	u->file.replaces = false;
	if (stat(path, &st) < 0) {
		if (errno != ENOENT)
			return entry_error(e, path);
		return 0;
	}
	if (S_ISDIR(st.st_mode))
		return err_set(e, E_BAD_INPUT, "path '%.150s' is a directory", path);
	if (!S_ISREG(st.st_mode))
		return err_set(e, E_BAD_INPUT, "path '%.150s' is not a regular file", path);
	if (u->if_absent)
		return err_set(e, E_CONFLICT, "path '%.150s' exists", path);
	/* What may not be written may not be replaced either, though a rename could. */
	if (faccessat(AT_FDCWD, path, W_OK, AT_EACCESS) < 0 && u->user->uid != 0)
		return entry_error(e, path);
	if (!realpath(path, real))
		return entry_error(e, path);
	u->file.target = talloc_strdup(u, real);
	u->file.replaces = true;
	u->file.mode = st.st_mode & 07777;
	return 0;
}

static int
temporary_open(struct upload *u, struct err *e)
{
	const char *slash = strrchr(u->file.target, '/');
	uint64_t r = 0;

	(void)getrandom(&r, sizeof r, 0);
	u->file.temporary =
	    talloc_asprintf(u, "%.*s/" UPLOAD_PREFIX "%016llx%c", (int)(slash - u->file.target),
		u->file.target, (unsigned long long)r, u->file.replaces ? 'r' : 'n');
	u->file.fd =
	    open(u->file.temporary, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
	return u->file.fd < 0 ? entry_error(e, u->file.target) : 0;
}

int
incoming_begin(struct upload *u, const char *path, struct err *e)
{
	char *full = user_path(u, u->user, path, e);
	int rc = -1;

	if (!full || user_enter(u->user, e) < 0)
		return -1;
	if (entry_parents(full, e) == 0 && target_look(u, full, e) == 0)
		rc = temporary_open(u, e);
	user_leave();
	for (size_t i = 0; rc == 0 && i < u->ndone; i++)
		if (strcmp(u->done[i], u->file.target) == 0)
			rc = err_set(e, E_BAD_INPUT, "path '%.150s' comes twice", path);
	return rc;
}

static int
incoming_write(struct upload *u, const uint8_t *p, size_t n, struct err *e)
{
	while (n) {
		ssize_t k = write(u->file.fd, p, n);

		if (k < 0 && errno == EINTR)
			continue;
		if (k <= 0)
			return incoming_refuse(e);
		p += k;
		n -= (size_t)k;
	}
	return 0;
}

/* The headers x-metadata-k become attributes; a new file has no others. */
static int
set_metadata(struct upload *u, struct buf *shown, struct err *e)
{
	char name[XATTR_NAME_MAX + 1];
	size_t begin = shown->len;

	for (const struct h2_header *h = u->call->header; h->name; h++) {
		const char *key = h->name + sizeof METADATA - 1;

		if (strncmp(h->name, METADATA, sizeof METADATA - 1) != 0 || !*key)
			continue;
		(void)snprintf(name, sizeof name, "user.e2b.%s", key);
		if (fsetxattr(u->file.fd, name, h->value, strlen(h->value), 0) < 0)
			return errno == ENOTSUP ? 0 : err_sys(e, "attribute %s", key);
		buf_str(shown, shown->len == begin ? ",\"metadata\":{" : ",");
		buf_json(shown, key);
		buf_chr(shown, ':');
		buf_json(shown, h->value);
	}
	if (shown->len > begin)
		buf_chr(shown, '}');
	return 0;
}

static int
attributes_set(struct upload *u, struct err *e)
{
	struct timespec times[2] = { { .tv_nsec = UTIME_NOW }, { .tv_sec = u->mtime } };
	mode_t mode = u->mode >= 0 ? (mode_t)u->mode : u->file.mode;

	if (u->owner && fchown(u->file.fd, u->owner->uid, u->owner->gid) < 0)
		return err_sys(e, "owner of '%.80s'", u->file.target);
	if (fchmod(u->file.fd, mode) < 0)
		return err_sys(e, "mode of '%.80s'", u->file.target);
	if (u->mtime >= 0 && futimens(u->file.fd, times) < 0)
		return err_sys(e, "time of '%.80s'", u->file.target);
	return 0;
}

static int
target_rename(struct upload *u, struct err *e)
{
	int rc = 0;

	if (user_enter(u->user, e) < 0)
		return -1;
	if (renameat2(AT_FDCWD, u->file.temporary, AT_FDCWD, u->file.target,
		u->if_absent ? RENAME_NOREPLACE : 0) < 0)
		rc = entry_error(e, u->file.target);
	user_leave();
	return rc;
}

int
incoming_end(struct upload *u, struct err *e)
{
	const char *slash = strrchr(u->file.target, '/');
	struct buf metadata = BUF(u);

	if (set_metadata(u, &metadata, e) < 0 || attributes_set(u, e) < 0)
		return -1;
	if (close(take_fd(&u->file.fd)) < 0 || target_rename(u, e) < 0) {
		(void)unlink(u->file.temporary);
		return e->code ? -1 : incoming_refuse(e);
	}
	buf_str(&u->answer, u->answer.len > 1 ? ",{\"name\":" : "{\"name\":");
	buf_json(&u->answer, slash + 1);
	buf_str(&u->answer, ",\"path\":");
	buf_json(&u->answer, u->file.target);
	buf_str(&u->answer, ",\"type\":\"file\"");
	if (metadata.len)
		buf_add(&u->answer, metadata.data, metadata.len);
	buf_chr(&u->answer, '}');
	u->done[u->ndone++] = u->file.target;
	return 0;
}

/* ---- the body: parts, or the file itself ---- */

static int
part_begin(void *arg, const char *name, const char *filename, struct err *e)
{
	struct upload *u = arg;

	if (!name || strcmp(name, "file") != 0)
		return 0; /* fields that are no files are passed over */
	if (u->ndone == UPLOAD_FILES_MAX)
		return err_set(e, E_BAD_INPUT, "more than %d files", UPLOAD_FILES_MAX);
	if (u->path && u->ndone)
		return err_set(e, E_BAD_INPUT, "several files for one path");
	if (!u->path && (!filename || !filename[0]))
		return err_set(e, E_BAD_INPUT, "a file without a name");
	return incoming_begin(u, u->path ? u->path : filename, e);
}

static int
part_data(void *arg, const uint8_t *p, size_t n, struct err *e)
{
	struct upload *u = arg;

	return u->file.fd < 0 ? 0 : incoming_write(u, p, n, e);
}

static int
part_end(void *arg, struct err *e)
{
	struct upload *u = arg;

	return u->file.fd < 0 ? 0 : incoming_end(u, e);
}

static const struct multipart_events part_events = { part_begin, part_data, part_end };

static void
fail(struct call *c)
{
	incoming_drop(c->state);
	c->on_data = NULL;
	c->on_end = NULL;
	call_fail(c);
}

/* The body, unpacked. */
static int
take(void *arg, const uint8_t *p, size_t n, struct err *e)
{
	struct upload *u = arg;

	return u->parts ? multipart_feed(u->parts, p, n, e) : incoming_write(u, p, n, e);
}

static void
on_data(struct call *c, const uint8_t *p, size_t n)
{
	struct upload *u = c->state;
	int rc = u->gzip ? gzip_feed(u->gzip, p, n, &c->err) : take(u, p, n, &c->err);

	call_took(c, n);
	if (rc < 0)
		fail(c);
}

static void
on_end(struct call *c)
{
	struct upload *u = c->state;
	int rc = u->gzip ? gzip_end(u->gzip, &c->err) : 0;

	if (rc == 0)
		rc = u->parts ? multipart_end(u->parts, &c->err) : incoming_end(u, &c->err);
	if (rc < 0) {
		fail(c);
		return;
	}
	if (u->answer.len == 1) {
		(void)err_set(&c->err, E_BAD_INPUT, "the body has no file");
		fail(c);
		return;
	}
	buf_chr(&u->answer, ']');
	call_reply_json(c, &u->answer);
}

/* ---- the beginning ---- */

static int
octal(const char *text, int64_t *ret, struct err *e)
{
	size_t n = strspn(text, "01234567");

	if (n == 0 || n > 5 || text[n])
		return err_set(e, E_BAD_INPUT, "\"mode\" is not an octal number");
	*ret = strtol(text, NULL, 8) & 07777;
	return 0;
}

static int
options_read(struct upload *u)
{
	struct call *c = u->call;
	const char *mode = call_query(c, "mode"), *mtime = call_query(c, "mtime");
	const char *owner = call_query(c, "owner"), *absent = call_query(c, "if_absent");
	const char *encoding = call_header(c, "content-encoding");

	u->if_absent = absent && strcmp(absent, "1") == 0;
	if (encoding && strcasecmp(encoding, "gzip") == 0)
		u->gzip = gzip_unpack(u, take, u);
	else if (encoding && strcasecmp(encoding, "identity") != 0)
		return err_set(
		    &c->err, E_MEDIA_TYPE, "content-encoding %.40s is not supported", encoding);
	if (mode && octal(mode, &u->mode, &c->err) < 0)
		return -1;
	if (mtime && text_int(mtime, 0, INT64_C(253402300799), &u->mtime, &c->err) < 0)
		return -1;
	if (!owner)
		return 0;
	u->owner = user_find(u, owner, &c->err);
	if (!u->owner)
		return -1;
	if (u->owner->uid != u->user->uid && u->user->uid != 0)
		return err_set(&c->err, E_FORBIDDEN, "only root may give files away");
	return 0;
}

static int
upload_begin(struct upload *u)
{
	struct call *c = u->call;
	const char *type = call_header(c, "content-type");

	u->user = user_of(c, call_query(c, "username"));
	if (!u->user || options_read(u) < 0)
		return -1;
	u->path = call_query(c, "path");
	if (u->path && !u->path[0])
		u->path = NULL;
	if (type && strncasecmp(type, "multipart/form-data", 19) == 0) {
		u->parts = multipart_new(u, type, &part_events, u, &c->err);
		return u->parts ? 0 : -1;
	}
	if (!type || strncasecmp(type, "application/octet-stream", 24) != 0)
		return err_set(&c->err, E_MEDIA_TYPE,
		    "neither multipart/form-data nor application/octet-stream");
	if (!u->path)
		return err_set(&c->err, E_BAD_INPUT, "\"path\" is missing");
	return incoming_begin(u, u->path, &c->err);
}

struct upload *
upload_new(struct call *c)
{
	struct upload *u = talloc_zero(c, struct upload);

	if (!u)
		abort();
	*u = (struct upload){ .call = c, .file.fd = -1, .mode = -1, .mtime = -1, .answer = BUF(u) };
	talloc_set_destructor(u, upload_free);
	buf_chr(&u->answer, '[');
	return u;
}

void
files_post(struct call *c)
{
	struct upload *u = upload_new(c);

	c->state = u;
	if (upload_begin(u) < 0) {
		fail(c);
		return;
	}
	c->on_data = on_data;
	c->on_end = on_end;
}
