/* route.c - see route.h. */
#include "route.h"

#include "access.h"
#include "cleanup.h"
#include "gateway.h"
#include "json.h"
#include "port.h"
#include "tally.h"
#include "timer.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>

const struct route *const route_tables[] = { exec_routes, exec_stream_routes, pty_routes,
	process_routes, file_routes, watch_routes, metrics_routes, logs_routes, events_routes,
	NULL };

enum {
	SEGMENT_MAX = 512,
	PATH_MAX_BYTES = 4096,
	PER_CAPSULE = 128, /* in one process; a guest takes 512 streams */
	PER_CREDENTIAL = 512,
	AGAIN_MAX = 100,
	AGAIN_MS = 100,
};

/* One %-encoded piece, decoded on mem. NULL: bad escape or a NUL. */
static char *
decode(void *mem, const char *p, size_t n, bool plus)
{
	char *out = talloc_array(mem, char, n + 1), *o = out;

	if (!out)
		abort();
	for (const char *end = p + n; p < end; p++) {
		unsigned c = (unsigned char)*p;

		if (c == '%') {
			if (end - p < 3 || !isxdigit((unsigned char)p[1]) ||
			    !isxdigit((unsigned char)p[2]))
				return NULL;
			c = (unsigned)strtoul((char[]){ p[1], p[2], '\0' }, NULL, 16);
			p += 2;
			if (!c)
				return NULL;
		} else if (plus && c == '+') {
			c = ' ';
		}
		*o++ = (char)c;
	}
	*o = '\0';
	return out;
}

const char *
query_get(struct request *r, const char *name)
{
	size_t len = strlen(name);

	for (const char *p = r->query; *p; p += *p == '&') {
		size_t n = strcspn(p, "&");

		if (n > len && strncmp(p, name, len) == 0 && p[len] == '=')
			return decode(r, p + len + 1, n - len - 1, true);
		p += n;
	}
	return NULL;
}

void
query_escape(struct buf *b, const char *s)
{
	for (; *s; s++)
		if (isalnum((unsigned char)*s) || strchr("-._~/", *s))
			buf_chr(b, *s);
		else
			buf_fmt(b, "%%%02X", (unsigned char)*s);
}

/* Does the path fit the pattern? Fills r->param from the {…} segments. */
static bool
matches(struct request *r, const char *pattern)
{
	const char *p = r->path;
	size_t params = 0;

	while (*pattern == '/' && *p == '/') {
		size_t n = strcspn(++p, "/"), m = strcspn(++pattern, "/");

		if (*pattern == '{') {
			if (n == 0 || n > SEGMENT_MAX)
				return false;
			r->param[params] = decode(r, p, n, false);
			if (!r->param[params++])
				return false;
		} else if (n != m || strncmp(p, pattern, n) != 0) {
			return false;
		}
		p += n;
		pattern += m;
	}
	return !*p && !*pattern;
}

static const struct route *
find(struct request *r, struct buf *allow)
{
	for (size_t t = 0; route_tables[t]; t++)
		for (const struct route *row = route_tables[t]; row->path; row++) {
			if (!matches(r, row->path))
				continue;
			if (strcmp(row->method, r->method) == 0)
				return row;
			buf_fmt(allow, "%s%s", allow->len ? ", " : "", row->method);
		}
	return NULL;
}

/* ---- bodies of JSON routes */

static size_t
collect(struct request *r, const char *p, size_t n)
{
	size_t max = (size_t)r->gw->conf->http_body_max_kb * 1024;

	if (r->body.len + n > max)
		fail(r, E_TOO_LARGE, "the body is larger than %zu bytes", max);
	else
		buf_add(&r->body, p, n);
	return n;
}

static void
run(struct request *r)
{
	if (r->route->fn(r) < 0)
		reply_error(r);
}

static int
input(struct request *r)
{
	const struct route *row = r->route;
	struct json_object *json = NULL;
	void *in = talloc_zero_size(r, row->insize);

	if (!in)
		abort();
	r->in = in;
	if (!r->body.len)
		return err_set(&r->work.err, E_BAD_INPUT, "the body is empty");
	json = json_parse(r, r->body.data, r->body.len, NULL, &r->work.err);
	if (!json)
		return -1;
	if (!json_object_is_type(json, json_type_object))
		return err_set(&r->work.err, E_BAD_INPUT, "the body is not a JSON object");
	fields_default(row->in, in);
	return fields_read(row->in, json, in, r, &r->work.err);
}

/* The query of a GET, by the same kind of table. */
static int
input_query(struct request *r)
{
	const struct field *f;
	void *in = talloc_zero_size(r, r->route->insize);

	if (!in)
		abort();
	r->in = in;
	fields_default(r->route->in, in);
	for (f = r->route->in; f->name; f++) {
		const char *text = query_get(r, f->name);

		if (text && field_read_text(f, text, in, r, &r->work.err) < 0)
			return -1;
	}
	return 0;
}

static void
collected(struct request *r)
{
	int rc = input(r);

	TALLOC_FREE(r->body.data);
	r->body = BUF(r);
	if (rc < 0)
		reply_error(r);
	else
		run(r);
}

static void
allowed(struct request *r)
{
	struct tally **busy = &r->gw->busy;

	if ((*r->access->id && !tally_take(busy, r, r->access->id, PER_CAPSULE)) ||
	    !tally_take(busy, r, r->access->who, PER_CREDENTIAL)) {
		reply_header(r, "Retry-After", "1");
		fail(r, E_RATE,
		    "more than %d requests at once to one capsule, or %d with one credential",
		    PER_CAPSULE, PER_CREDENTIAL);
		return;
	}
	if (r->route->in && strcmp(r->method, "GET") == 0) {
		if (input_query(r) < 0)
			reply_error(r);
		else
			run(r);
	} else if (r->route->in) {
		r->on_body = collect;
		r->on_body_end = collected;
	} else {
		run(r);
	}
	request_admit(r);
}

/*
 * The capsule fell asleep under the call: what was asked is asked again, which wakes it. Only what
 * is known whole can be: the host refused it before the guest saw anything. The host may be ahead
 * of its report, so that the row is looked at more than once.
 */
static void
begin_anew(void *arg)
{
	access_check(arg, run);
}

bool
route_again(struct request *r)
{
	if (r->work.err.code != E_BAD_STATE || r->reply.state != REPLY_NONE || !r->in ||
	    r->again == AGAIN_MAX || r->route->flags & (NO_WAKE | ASLEEP))
		return false;
	r->slept = false;
	r->again++;
	r->access = NULL;
	r->work.err = (struct err){ 0 };
	(void)timer_start(r, r->gw->loop, AGAIN_MS, 0, begin_anew, r);
	return true;
}

/* A body that no route asked for is thrown away. */
static size_t
ignore(struct request *r, const char *p, size_t n)
{
	(void)p;
	r->discarded += n;
	if (r->discarded > 64 * 1024)
		fail(r, E_TOO_LARGE, "this request takes no body");
	return n;
}

void
route_request(struct request *r)
{
	struct buf allow = BUF(r);

	r->on_body = ignore;
	if (port_request(r))
		return;
	if (strlen(r->uri) > PATH_MAX_BYTES) {
		fail(r, E_URI_TOO_LONG, "the path is longer than %d bytes", PATH_MAX_BYTES);
		return;
	}
	r->route = find(r, &allow);
	if (!r->route && allow.len) {
		reply_header(r, "Allow", allow.data);
		fail(r, E_NO_METHOD, "this path takes %s", allow.data);
	} else if (!r->route) {
		fail(r, E_NOT_FOUND, "no such path");
	} else if (r->route->flags & SOCKET) {
		if (r->route->in && input_query(r) < 0)
			reply_error(r);
		else
			run(r); /* gateway/stream.h */
	} else {
		access_check(r, allowed);
	}
}
