/*
 * transfer.c - see transfer.h.
 *
 * Nothing is kept but one HTTP/2 window and libmicrohttpd's buffers: a download is consumed as the
 * client takes it, an upload is not read while the guest does not take it.
 */
#include "transfer.h"

#include "back.h"
#include "cleanup.h"
#include "gateway.h"
#include "multipart.h"

#include <inttypes.h>
#include <string.h>

enum { EARLY_MAX = 1 << 20, FIELD_MAX = 4096 };

/* ---- read */

static const char *
header(const struct h2_head *head, const char *name)
{
	for (const struct h2_header *h = head->header; h->name; h++)
		if (strcmp(h->name, name) == 0)
			return h->value;
	return NULL;
}

static void
read_head(struct guest *g, const struct h2_head *head)
{
	struct request *r = guest_arg(g);
	const char *length = header(head, "content-length");
	const char *range = header(head, "content-range");
	const char *modified = header(head, "last-modified");

	reply_header(r, "Accept-Ranges", "bytes");
	if (range)
		reply_header(r, "Content-Range", talloc_strdup(r, range));
	if (modified)
		reply_header(r, "Last-Modified", talloc_strdup(r, modified));
	reply_begin(
	    r, head->status, "application/octet-stream", length ? strtoll(length, NULL, 10) : -1);
}

static void
read_data(struct guest *g, const uint8_t *p, size_t n)
{
	reply_write(guest_arg(g), p, n); /* consumed when the client took it */
}

static void
read_end(struct guest *g)
{
	reply_end(guest_arg(g));
}

static void
failed(struct guest *g, const struct err *e)
{
	struct request *r = guest_arg(g);

	fail(r, e->code, "%s", e->text);
}

static void
refused(struct guest *g, int status, struct json_object *json)
{
	struct request *r = guest_arg(g);

	guest_refused(r, status, json);
	reply_error(r);
}

static const struct guest_events read_events = {
	.on_head = read_head,
	.on_refused = refused,
	.on_data = read_data,
	.on_end = read_end,
	.on_fail = failed,
};

static void
taken(struct request *r, size_t n)
{
	guest_consume(r->state, n);
}

static int
read_path(struct request *r, const char *path)
{
	struct guest_call call = { .method = "GET", .end = true, .name = "range" };
	struct buf b = BUF(r);

	buf_str(&b, "/files?path=");
	query_escape(&b, path);
	call.path = b.data;
	call.value = request_header(r, "Range");
	r->on_taken = taken;
	r->state = guest_open(r, r, &call, &read_events, r);
	return r->state ? 0 : -1;
}

int
transfer_read(struct request *r)
{
	const struct by_path *in = r->in;

	return read_path(r, in->path);
}

/* The name in both forms of RFC 6266: bare ASCII, and UTF-8. */
static const char *
disposition(struct request *r, const struct content *in)
{
	const char *slash = strrchr(in->path, '/'), *name = slash ? slash + 1 : in->path;
	bool saved = in->download && strcmp(in->download, "false") != 0;
	struct buf b = BUF(r);

	if (saved && *in->download && strcmp(in->download, "true") != 0)
		name = in->download;
	buf_fmt(&b, "%s; filename=\"", saved ? "attachment" : "inline");
	for (const char *c = name; *c; c++)
		buf_chr(&b, *c < ' ' || *c > '~' || strchr("\"\\%/", *c) ? '_' : *c);
	buf_str(&b, "\"; filename*=UTF-8''");
	for (; *name; name++)
		if (*name == '/')
			buf_str(&b, "%2F");
		else
			query_escape(&b, (char[]){ *name, '\0' });
	return b.data;
}

/* A file of a capsule in a browser: whatever it is, it runs nothing and reaches nothing. */
int
transfer_content(struct request *r)
{
	const struct content *in = r->in;

	if (!in->path || !*in->path)
		return err_set(&r->work.err, E_BAD_INPUT, "\"path\" is missing");
	reply_header(r, "Content-Disposition", disposition(r, in));
	reply_header(r, "X-Content-Type-Options", "nosniff");
	reply_header(r, "Content-Security-Policy", "sandbox");
	return read_path(r, in->path);
}

/* ---- write */

enum part {
	PART_PATH,
	PART_MODE,
	PART_OWNER,
	PART_MTIME,
	PART_IF_ABSENT,
	PART_FIELDS,
	PART_FILE,
	PART_OTHER
};

static const char *const part_names[] = {
	[PART_PATH] = "path",
	[PART_MODE] = "mode",
	[PART_OWNER] = "owner",
	[PART_MTIME] = "mtime",
	[PART_IF_ABSENT] = "if_absent",
};

struct upload {
	struct request *r;
	struct guest *g; /* NULL: the path is not known, or it is over */
	struct multipart form;
	enum part part;
	struct buf field[PART_FIELDS];
	bool seen[PART_FIELDS];
	bool file_seen, path_first;
	struct buf early; /* of the file, before the path was known */
	int64_t bytes;
};

static void
up_refused(struct guest *g, int status, struct json_object *json)
{
	struct upload *u = guest_arg(g);

	u->g = NULL;
	guest_refused(u->r, status, json);
	reply_error(u->r);
	talloc_free(g);
}

static void
up_failed(struct guest *g, const struct err *e)
{
	struct upload *u = guest_arg(g);

	u->g = NULL;
	fail(u->r, e->code, "%s", e->text);
	talloc_free(g);
}

static void
up_end(struct guest *g)
{
	struct upload *u = guest_arg(g);

	u->g = NULL;
	reply_empty(u->r, 204);
	talloc_free(g);
}

static void
up_drain(struct guest *g)
{
	request_wake(((struct upload *)guest_arg(g))->r);
}

static const struct guest_events write_events = {
	.on_refused = up_refused,
	.on_end = up_end,
	.on_drain = up_drain,
	.on_fail = up_failed,
};

static bool
truth(const char *s)
{
	return strcmp(s, "1") == 0 || strcmp(s, "true") == 0;
}

static int
check_fields(struct upload *u, struct err *e)
{
	const char *mode = u->field[PART_MODE].data, *mtime = u->field[PART_MTIME].data;

	if (!u->seen[PART_PATH] || !u->field[PART_PATH].len)
		return err_set(e, E_BAD_INPUT, "\"path\" is missing");
	if (mode && (!*mode || strlen(mode) > 5 || strspn(mode, "01234567") != strlen(mode)))
		return err_set(e, E_BAD_INPUT, "\"mode\" is not an octal number");
	if (mtime &&
	    (!*mtime || strlen(mtime) > 12 || strspn(mtime, "0123456789") != strlen(mtime)))
		return err_set(e, E_BAD_INPUT, "\"mtime\" is not a time in unix seconds");
	return 0;
}

/* Opens the guest's side: what is asked for is complete. */
static int
up_open(struct upload *u, struct err *e)
{
	struct guest_call call = { .method = "POST", .type = "application/octet-stream" };
	struct buf b = BUF(u);

	if (check_fields(u, e) < 0)
		return -1;
	buf_str(&b, "/files?path=");
	query_escape(&b, u->field[PART_PATH].data);
	for (enum part p = PART_MODE; p <= PART_MTIME; p++)
		if (u->field[p].data) {
			buf_fmt(&b, "&%s=", part_names[p]);
			query_escape(&b, u->field[p].data);
		}
	if (u->field[PART_IF_ABSENT].data && truth(u->field[PART_IF_ABSENT].data))
		buf_str(&b, "&if_absent=1");
	call.path = b.data;
	u->g = guest_open(u, u->r, &call, &write_events, u);
	talloc_free(b.data);
	if (!u->g)
		return -1;
	guest_write(u->g, u->early.data, u->early.len);
	TALLOC_FREE(u->early.data);
	u->early = BUF(u);
	return 0;
}

static int
on_part(void *arg, const char *name, struct err *e)
{
	struct upload *u = arg;

	u->part = PART_OTHER;
	if (strcmp(name, "file") == 0) {
		if (u->file_seen)
			return err_set(e, E_BAD_INPUT, "more than one part \"file\"");
		u->file_seen = true;
		u->part = PART_FILE;
		if (u->path_first && !u->seen[PART_PATH])
			return err_set(
			    e, E_BAD_INPUT, "the part \"path\" must come before \"file\"");
		return u->seen[PART_PATH] ? up_open(u, e) : 0;
	}
	for (enum part p = 0; p < PART_FIELDS; p++) {
		if (strcmp(name, part_names[p]) != 0)
			continue;
		if (u->seen[p])
			return err_set(e, E_BAD_INPUT, "more than one part \"%s\"", name);
		if (u->g)
			return err_set(
			    e, E_BAD_INPUT, "the part \"%s\" must come before \"file\"", name);
		u->seen[p] = true;
		u->part = p;
	}
	return 0;
}

static int
file_data(struct upload *u, const char *p, size_t n, struct err *e)
{
	int64_t max = u->r->gw->conf->gateway_file_max_mb << 20;

	u->bytes += (int64_t)n;
	if (u->bytes > max)
		return err_set(
		    e, E_TOO_LARGE, "the file is larger than %" PRId64 " MiB", max >> 20);
	if (u->g) {
		guest_write(u->g, p, n);
		return 0;
	}
	if (u->early.len + n > EARLY_MAX)
		return err_set(
		    e, E_BAD_INPUT, "the part \"path\" must come before a file of more than 1 MiB");
	buf_add(&u->early, p, n);
	return 0;
}

static int
on_data(void *arg, const char *p, size_t n, struct err *e)
{
	struct upload *u = arg;

	if (u->part == PART_FILE)
		return file_data(u, p, n, e);
	if (u->part == PART_OTHER)
		return 0;
	if (u->field[u->part].len + n > FIELD_MAX)
		return err_set(e, E_BAD_INPUT, "\"%s\" is longer than %d bytes",
		    part_names[u->part], FIELD_MAX);
	if (memchr(p, '\0', n))
		return err_set(e, E_BAD_INPUT, "\"%s\" has a NUL", part_names[u->part]);
	buf_add(&u->field[u->part], p, n);
	return 0;
}

static int
on_part_end(void *arg, struct err *e)
{
	(void)arg;
	(void)e;
	return 0;
}

static const struct multipart_events form_events = { on_part, on_data, on_part_end };

/* The guest keeps the old file when its stream is reset. */
static void
up_cancel(struct upload *u)
{
	TALLOC_FREE(u->g);
	reply_error(u->r);
}

static size_t
on_body(struct request *r, const char *p, size_t n)
{
	struct upload *u = r->state;

	if (u->g && guest_queued(u->g) >= H2_HIGH)
		return 0; /* up_drain() wakes us */
	if (multipart_feed(&u->form, p, n, &r->work.err) < 0)
		up_cancel(u);
	return n;
}

static void
on_body_end(struct request *r)
{
	struct upload *u = r->state;
	struct err *e = &r->work.err;
	int rc = multipart_end(&u->form, e);

	if (rc == 0 && !u->file_seen)
		rc = err_set(e, E_BAD_INPUT, "the part \"file\" is missing");
	if (rc == 0 && !u->g)
		rc = up_open(u, e);
	if (rc < 0)
		up_cancel(u);
	else
		guest_finish(u->g);
}

static int
write_file(struct request *r, bool path_first)
{
	struct upload *u = talloc_zero(r, struct upload);

	if (!u)
		abort();
	*u = (struct upload){ .r = r, .early = BUF(u), .path_first = path_first };
	for (size_t i = 0; i < PART_FIELDS; i++)
		u->field[i] = BUF(u);
	if (multipart_open(
		&u->form, u, request_header(r, "Content-Type"), &form_events, u, &r->work.err) < 0)
		return -1;
	r->state = u;
	r->on_body = on_body;
	r->on_body_end = on_body_end;
	return 0;
}

int
transfer_write(struct request *r)
{
	return write_file(r, false);
}

int
transfer_write_stream(struct request *r)
{
	return write_file(r, true);
}
