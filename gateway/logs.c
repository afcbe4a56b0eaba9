/*
 * logs.c - GET …/logs: what a capsule's console said and what its host did with it; POST …/ping.
 *
 * follow=true: a stream of events (text/event-stream), a line of the log each, with the place
 * behind it as its id. The host is asked every second; who may is asked again every five.
 */
#include "back.h"
#include "cleanup.h"
#include "gateway.h"
#include "json.h"
#include "route.h"
#include "timer.h"
#include "utf8.h"

#include <inttypes.h>
#include <string.h>
#include <talloc.h>

static handler logs_get, capsule_ping;

struct logs_in {
	const char *source;
	int64_t tail;
	bool follow;
};
/* clang-format off */
static const struct field logs_in_fields[] = {
	FIELD(logs_in, source, "source", .flags = IN_QUERY, .text = "serial", .one_of = "serial|boot|agent", .doc = "The console, its first 64 KiB since the start, or what the host did."),
	FIELD(logs_in, tail, "tail", .flags = IN_QUERY, .dflt = 200, .min = 1, .max = 10000, .doc = "At most so many lines, the last ones."),
	FIELD(logs_in, follow, "follow", .flags = IN_QUERY, .doc = "Go on as text/event-stream: a line each."),
	{ 0 },
};

struct logs_out {
	const char *sandbox_id, *source;
	const char *const *lines;
};
static const struct field logs_out_fields[] = {
	FIELD(logs_out, sandbox_id, "sandbox_id", .flags = NEEDED),
	FIELD(logs_out, source, "source", .flags = NEEDED),
	FIELD(logs_out, lines, "lines", .flags = NEEDED, .doc = "Oldest first; empty where no host has the capsule."),
	{ 0 },
};

const struct route logs_routes[] = {
	{ "GET", "/v1/capsules/{id}/logs", POOL_GATEWAY, PERM_capsules_view, logs_get,
	    "A capsule's console, boot or host log", ASLEEP, 200, .in = logs_in_fields, .insize = sizeof(struct logs_in), OUT(logs_out), .ticket = "logs" },
	{ "POST", "/v1/capsules/{id}/ping", POOL_GATEWAY, PERM_capsules_connect, capsule_ping,
	    "Counts as use: the idle time begins anew", NO_BODY | NO_WAKE, 204 },
	{ 0 },
};
/* clang-format on */

enum { ASK_MS = 10000, POLL_MS = 1000, CHECK_EVERY = 5, SAY_EVERY = 20, BODY_MAX = 3 << 20 };

struct logs {
	struct request *r;
	const struct logs_in *in;
	struct guest *g; /* the host agent, while it is asked */
	struct timer *timer;
	struct buf body;
	char next[24]; /* place of the next question; "": the first one */
	unsigned turn;
};

static int ask(struct logs *);

/* Lines that a guest wrote are any bytes: what is no UTF-8 becomes U+FFFD. */
static void
put_line(struct buf *b, const char *p, size_t n)
{
	size_t i, len;

	while (n && (p[n - 1] == '\r'))
		n--;
	for (i = 0; i < n; i += len) {
		unsigned char c = (unsigned char)p[i];

		len = c < 0x80 ? 1 : c < 0xe0 ? 2 : c < 0xf0 ? 3 : 4;
		if (i + len > n || !utf8_ok(p + i, len)) {
			len = 1;
			buf_str(b, "\xef\xbf\xbd");
		} else if (c >= 0x20 || c == '\t' || c == 0x1b)
			buf_add(b, p + i, len);
	}
}

/* Each line of the body: one call. */
static void
each(const struct buf *body, void (*fn)(void *, const char *, size_t), void *arg)
{
	const char *p = body->data, *end = p + body->len, *nl;

	for (; p && p < end; p = nl + 1) {
		nl = memchr(p, '\n', (size_t)(end - p));
		if (!nl)
			nl = end;
		fn(arg, p, (size_t)(nl - p));
	}
}

static void
json_line(void *arg, const char *p, size_t n)
{
	struct buf *b = arg, line = BUF(b->mem);

	put_line(&line, p, n);
	if (b->data[b->len - 1] != '[')
		buf_chr(b, ',');
	buf_jsonn(b, line.data ? line.data : "", line.len);
	talloc_free(line.data);
}

static void
event_line(void *arg, const char *p, size_t n)
{
	struct buf *b = arg;

	buf_str(b, "data: ");
	put_line(b, p, n);
	buf_str(b, "\n\n");
}

static void
answer(struct logs *l)
{
	struct buf b = BUF(l);

	buf_str(&b, "{\"sandbox_id\":");
	buf_json(&b, l->r->access->id);
	buf_fmt(&b, ",\"source\":\"%s\",\"lines\":[", l->in->source);
	each(&l->body, json_line, &b);
	buf_str(&b, "]}");
	reply_json(l->r, 200, &b);
}

/* ---- follow */

static void
again(void *arg)
{
	struct logs *l = arg;

	TALLOC_FREE(l->timer);
	if (ask(l) < 0)
		reply_cut(l->r);
}

static void
still_allowed(struct request *r)
{
	again(r->state);
}

static void
on_poll(void *arg)
{
	struct logs *l = arg;

	TALLOC_FREE(l->timer);
	/* the host may have given it away, the right may be gone: then the stream is cut */
	if (++l->turn % CHECK_EVERY == 0)
		access_check(l->r, still_allowed);
	else
		again(l);
}

static void
drained(struct request *r)
{
	(void)r; /* the next turn writes more */
}

static void
push(struct logs *l)
{
	struct request *r = l->r;
	struct buf b = BUF(l);

	if (r->reply.state == REPLY_NONE) {
		r->on_room = drained;
		reply_begin(r, 200, "text/event-stream", -1);
		buf_str(&b, ": follows\n\n");
	}
	if (l->body.len) {
		buf_fmt(&b, "id: %s\n", l->next);
		each(&l->body, event_line, &b);
	} else if (l->turn % SAY_EVERY == 0)
		buf_str(&b, ": still here\n\n");
	if (b.len)
		reply_write(r, b.data, b.len);
	talloc_free(b.data);
	TALLOC_FREE(l->body.data);
	l->body = BUF(l);
	request_wake(r);
	l->timer = timer_start(l, r->gw->loop, POLL_MS, 0, on_poll, l);
}

/* ---- the host agent */

static void
host_head(struct guest *g, const struct h2_head *h)
{
	struct logs *l = guest_arg(g);
	const struct h2_header *i;

	for (i = h->header; i->name; i++)
		if (strcmp(i->name, "hutch-next") == 0 &&
		    strspn(i->value, "0123456789") == strlen(i->value))
			snprintf(l->next, sizeof l->next, "%.20s", i->value);
}

static void
host_data(struct guest *g, const uint8_t *p, size_t n)
{
	struct logs *l = guest_arg(g);

	guest_consume(g, n);
	if (l->body.len + n <= BODY_MAX)
		buf_add(&l->body, p, n);
}

static void
host_end(struct guest *g)
{
	struct logs *l = guest_arg(g);

	TALLOC_FREE(l->g);
	TALLOC_FREE(l->timer);
	if (l->in->follow)
		push(l);
	else
		answer(l);
}

static void
give_up(struct logs *l, enum err_code code, const char *text)
{
	TALLOC_FREE(l->g);
	TALLOC_FREE(l->timer);
	if (l->r->reply.state != REPLY_NONE)
		reply_end(l->r);
	else if (code == E_NOT_FOUND)
		answer(l); /* it is asleep somewhere, or gone: nothing is kept */
	else
		fail(l->r, code, "%s", text);
}

static void
host_refused(struct guest *g, int status, struct json_object *json)
{
	struct json_object *e = json ? json_get(json, "error") : NULL;

	give_up(guest_arg(g), status == 404 ? E_NOT_FOUND : E_AGENT,
	    e ? json_str(e, "message", "error") : "the host refuses");
}

static void
host_fail(struct guest *g, const struct err *e)
{
	give_up(guest_arg(g), e->code, e->text);
}

static void
host_late(void *arg)
{
	give_up(arg, E_HOST_UNAVAILABLE, "the host does not answer");
}

static const struct guest_events host_events = { .on_head = host_head,
	.on_data = host_data,
	.on_end = host_end,
	.on_refused = host_refused,
	.on_fail = host_fail };

static int
ask(struct logs *l)
{
	struct guest_call call = { .method = "GET", .end = true, .agent = true };
	auto_talloc char *path = NULL;

	path = *l->next
	    ? talloc_asprintf(l, "/logs?source=%s&from=%s", l->in->source, l->next)
	    : talloc_asprintf(l, "/logs?source=%s&tail=%" PRId64, l->in->source, l->in->tail);
	call.path = path;
	l->g = guest_open(l, l->r, &call, &host_events, l);
	if (!l->g)
		return -1;
	l->timer = timer_start(l, l->r->gw->loop, ASK_MS, 0, host_late, l);
	return 0;
}

static int
logs_get(struct request *r)
{
	struct logs *l = talloc_zero(r, struct logs);

	if (!l)
		abort();
	*l = (struct logs){ .r = r, .in = r->in, .body = BUF(l) };
	r->state = l;
	if (*r->access->host)
		return ask(l);
	answer(l);
	return 0;
}

/* ---- ping */

static void
pinged(struct guest *g)
{
	struct request *r = guest_arg(g);

	reply_empty(r, 204);
}

static void
ping_refused(struct guest *g, int status, struct json_object *json)
{
	struct request *r = guest_arg(g);
	struct json_object *e = json ? json_get(json, "error") : NULL;

	fail(r, status == 404 || status == 409 ? E_BAD_STATE : E_AGENT, "not running: %s",
	    e ? json_str(e, "message", "the host does not have it") : "the host refuses");
}

static void
ping_failed(struct guest *g, const struct err *e)
{
	fail(guest_arg(g), e->code, "%s", e->text);
}

static int
capsule_ping(struct request *r)
{
	static const struct guest_events events = {
		.on_end = pinged, .on_refused = ping_refused, .on_fail = ping_failed
	};
	struct guest_call call = { .method = "POST", .path = "/touch", .end = true, .agent = true };

	return guest_open(r, r, &call, &events, r) ? 0 : -1;
}
