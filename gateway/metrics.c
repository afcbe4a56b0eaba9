/*
 * metrics.c - GET …/metrics: what a capsule used, in any state (spec 02 §2.3).
 *
 * The host that has it is asked; what it does not know (it is away, it has just taken the capsule
 * over) comes from the tables, where hosts send what they have measured.
 */
#include "back.h"
#include "capsule_data.h"
#include "gateway.h"
#include "metrics.h"
#include "metric_range.h"
#include "json.h"
#include "route.h"
#include "timer.h"

#include <inttypes.h>
#include <string.h>
#include <talloc.h>
#include <time.h>

static handler metrics_get;

struct metrics_in {
	const char *range;
};
/* clang-format off */
static const struct field metrics_in_fields[] = {
	FIELD(metrics_in, range, "range", .flags = IN_QUERY, .text = METRIC_RANGE_USUAL, .one_of = METRIC_RANGES),
	{ 0 },
};

struct point_out {
	int64_t timestamp_unix, mem_bytes, mem_guest_bytes, disk_bytes, net_rx, net_tx, disk_read, disk_write;
	double cpu_pct;
};
static const struct field point_out_fields[] = {
	FIELD(point_out, timestamp_unix, "timestamp_unix", .flags = NEEDED, .doc = "Begin of the step: 1 s up to 10m, 30 s up to 2h, else 300 s."),
	FIELD(point_out, cpu_pct, "cpu_pct", .flags = NEEDED, .doc = "0 to 100, of its virtual CPUs."),
	FIELD(point_out, mem_bytes, "mem_bytes", .flags = NEEDED, .doc = "Memory of the virtual machine on its host."),
	FIELD(point_out, disk_bytes, "disk_bytes", .flags = NEEDED, .doc = "Allocated by its disk."),
	FIELD(point_out, mem_guest_bytes, "mem_guest_bytes", .flags = OMIT, .doc = "As the guest says."),
	FIELD(point_out, net_rx, "net_rx", .flags = NEEDED, .doc = "Bytes in this step, like what follows."),
	FIELD(point_out, net_tx, "net_tx", .flags = NEEDED),
	FIELD(point_out, disk_read, "disk_read", .flags = NEEDED),
	FIELD(point_out, disk_write, "disk_write", .flags = NEEDED),
	{ 0 },
};

struct metrics_out {
	const char *sandbox_id, *range, *sources;
	struct list points;
};
static const struct field metrics_out_fields[] = {
	FIELD(metrics_out, sandbox_id, "sandbox_id", .flags = NEEDED),
	FIELD(metrics_out, range, "range", .flags = NEEDED),
	FIELD(metrics_out, sources, "sources", .flags = OMIT, .format = "json", .doc = "Where the host has each figure from: cgroup, process, vmm, host, or the guest itself."),
	SUB(metrics_out, points, "points", point_out_fields, point_out, .flags = NEEDED | LIST),
	{ 0 },
};

const struct route metrics_routes[] = {
	CAPSULE_ROUTES("GET", "metrics", PERM_capsules_view, metrics_get,
	    "What a capsule used, oldest first; in every state", ASLEEP, 200, .in = metrics_in_fields, .insize = sizeof(struct metrics_in), OUT(metrics_out)),
	{ 0 },
};
/* clang-format on */

enum { HOST_MS = 2000, BODY_MAX = 1 << 20, KEYS_MAX = 20000 };

struct asked {
	struct request *r;
	const struct metric_range *range;
	struct guest *g; /* the host agent, while it is asked */
	struct buf body;
	struct json_object *said; /* its answer; NULL: none */
};

static void
put_point(struct buf *b, const struct point_out *p)
{
	buf_fmt(b,
	    "%s{\"timestamp_unix\":%" PRId64 ",\"cpu_pct\":%.2f,\"mem_bytes\":%" PRId64
	    ",\"disk_bytes\":%" PRId64,
	    b->data[b->len - 1] == '[' ? "" : ",", p->timestamp_unix, p->cpu_pct, p->mem_bytes,
	    p->disk_bytes);
	if (p->mem_guest_bytes > 0)
		buf_fmt(b, ",\"mem_guest_bytes\":%" PRId64, p->mem_guest_bytes);
	buf_fmt(b,
	    ",\"net_rx\":%" PRId64 ",\"net_tx\":%" PRId64 ",\"disk_read\":%" PRId64
	    ",\"disk_write\":%" PRId64 "}",
	    p->net_rx, p->net_tx, p->disk_read, p->disk_write);
}

static double
number(struct json_object *o, const char *name)
{
	struct json_object *v = json_get(o, name);

	return v ? json_object_get_double(v) : 0;
}

static struct json_object *
said_points(struct json_object *said, size_t *n)
{
	struct json_object *list = said ? json_get(said, "points") : NULL;

	*n =
	    list && json_object_is_type(list, json_type_array) ? json_object_array_length(list) : 0;
	return list;
}

int64_t
metrics_points(struct buf *b, struct json_object *said, int64_t from)
{
	size_t n = 0;
	struct json_object *list = said_points(said, &n);
	int64_t last = from - 1;

	for (size_t i = 0; i < n; i++) {
		struct json_object *o = json_object_array_get_idx(list, i);
		int64_t at = json_int(o, "timestamp_unix", 0);

		if (at < from)
			continue;
		put_point(b,
		    &(struct point_out){ .timestamp_unix = at,
			.cpu_pct = number(o, "cpu_pct"),
			.mem_bytes = json_int(o, "mem_bytes", 0),
			.mem_guest_bytes = json_int(o, "mem_guest_bytes", 0),
			.disk_bytes = json_int(o, "disk_bytes", 0),
			.net_rx = json_int(o, "net_rx", 0),
			.net_tx = json_int(o, "net_tx", 0),
			.disk_read = json_int(o, "disk_read", 0),
			.disk_write = json_int(o, "disk_write", 0) });
		last = at > last ? at : last;
	}
	return last;
}

/* The tables' points up to the host's first, then the host's. */
static void
answer(struct asked *q, const struct q_metric_point *old, int olds)
{
	struct request *r = q->r;
	int64_t from = (int64_t)time(NULL) - q->range->seconds, first_said = INT64_MAX;
	struct buf b = BUF(r);
	struct json_object *list, *o;
	size_t n;

	list = said_points(q->said, &n);
	if (n)
		first_said = json_int(json_object_array_get_idx(list, 0), "timestamp_unix", 0);
	buf_str(&b, "{\"sandbox_id\":");
	buf_json(&b, r->access->id);
	buf_fmt(&b, ",\"range\":\"%s\"", q->range->name);
	o = q->said ? json_get(q->said, "sources") : NULL;
	if (o)
		buf_fmt(&b, ",\"sources\":%s",
		    json_object_to_json_string_ext(o, JSON_C_TO_STRING_PLAIN));
	buf_str(&b, ",\"points\":[");
	for (int k = 0; k < olds && old[k].at < first_said; k++)
		put_point(&b,
		    &(struct point_out){ .timestamp_unix = old[k].at,
			.cpu_pct = old[k].cpu,
			.mem_bytes = old[k].mem,
			.mem_guest_bytes = old[k].mem_guest,
			.disk_bytes = old[k].disk,
			.net_rx = old[k].rx,
			.net_tx = old[k].tx,
			.disk_read = old[k].rd,
			.disk_write = old[k].wr });
	(void)metrics_points(&b, q->said, from);
	buf_str(&b, "]}");
	reply_json(r, 200, &b);
}

static void
stored(struct request *r, const struct q_metric_point *p, int n, const struct err *e)
{
	struct asked *q = r->state;

	if (n < 0 && !q->said) {
		fail(r, e->code, "%s", e->text);
		return;
	}
	answer(q, p, n);
}

/* The host has said what it will: does it reach back far enough? */
static void
heard(struct asked *q)
{
	int64_t from = (int64_t)time(NULL) - q->range->seconds, first = INT64_MAX;
	struct json_object *list;
	size_t n;

	TALLOC_FREE(q->g);
	list = said_points(q->said, &n);
	if (n)
		first = json_int(json_object_array_get_idx(list, 0), "timestamp_unix", 0);
	if (first <= from + 1)
		answer(q, NULL, 0);
	else
		points_fetch(q->r, q->range->tier, q->range->seconds, stored);
}

/* ---- the host agent */

static void
host_data(struct guest *g, const uint8_t *p, size_t n)
{
	struct asked *q = guest_arg(g);

	guest_consume(g, n);
	if (q->body.len + n <= BODY_MAX)
		buf_add(&q->body, p, n);
}

static void
host_end(struct guest *g)
{
	struct asked *q = guest_arg(g);
	struct err e = { 0 };

	if (q->body.len)
		q->said = json_parse(
		    q, q->body.data, q->body.len, &(struct json_limits){ 8, KEYS_MAX }, &e);
	heard(q);
}

static void
host_refused(struct guest *g, int status, struct json_object *json)
{
	(void)status;
	(void)json;
	heard(guest_arg(g));
}

static void
host_fail(struct guest *g, const struct err *e)
{
	(void)e;
	heard(guest_arg(g));
}

static void
host_late(void *arg)
{
	struct asked *q = arg;

	if (q->g)
		heard(q);
}

static const struct guest_events host_events = {
	.on_data = host_data, .on_end = host_end, .on_refused = host_refused, .on_fail = host_fail
};

static int
metrics_get(struct request *r)
{
	const struct metrics_in *in = r->in;
	struct guest_call call = { .method = "GET", .end = true, .agent = true };
	struct asked *q = talloc_zero(r, struct asked);

	if (!q)
		abort();
	*q = (struct asked){ .r = r, .range = metric_range(in->range), .body = BUF(q) };
	r->state = q;
	call.path = talloc_asprintf(q, "/metrics?tier=%s", q->range->tier);
	if (*r->access->host)
		q->g = guest_open(q, r, &call, &host_events, q);
	if (q->g)
		(void)timer_start(q, r->gw->loop, HOST_MS, 0, host_late, q);
	else {
		r->work.err = (struct err){ 0 }; /* the tables know, too */
		heard(q);
	}
	return 0;
}
