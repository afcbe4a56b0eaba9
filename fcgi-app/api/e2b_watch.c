/*
 * e2b_watch.c - what is told of capsules through the E2B protocol: metrics and logs (spec
 * 06 §6).
 */
#include "agent.h"
#include "cleanup.h"
#include "e2b.h"
#include "json.h"
#include "life.q.h"
#include "metric_range.h"
#include "metrics.q.h"

#include <inttypes.h>
#include <time.h>

static handler metrics_of_one, metrics_of_many, logs_v1, logs_v2;

enum { HOST_MS = 2000, LOGS_MAX = 1000, MANY = 100, DAY = 86400 };

/* --- metrics -------------------------------------------------------------------------------- */

struct metrics_in {
	const char *id;
	int64_t start, end;
};
static const struct field metrics_in_fields[] = {
	SANDBOX_ID(metrics_in),
	FIELD(metrics_in, start, "start", .flags = IN_QUERY, .min = 0, .max = 253402300799,
	    .dflt = NULL_INT, .doc = "Unix seconds; absent: since it started, at most a day."),
	FIELD(metrics_in, end, "end", .flags = IN_QUERY, .min = 0, .max = 253402300799,
	    .dflt = NULL_INT, .doc = "Unix seconds; absent: now."),
	{ 0 },
};
struct metric {
	int64_t timestamp, unix_seconds, mem_used, mem_total, mem_cache, disk_used, disk_total;
	int32_t cpus;
	double cpu;
};
static const struct field metric_fields[] = {
	FIELD(metric, timestamp, "timestamp", .flags = NEEDED, .format = "date-time"),
	FIELD(metric, unix_seconds, "timestampUnix", .flags = NEEDED),
	FIELD(metric, cpus, "cpuCount", .flags = NEEDED),
	FIELD(metric, cpu, "cpuUsedPct", .flags = NEEDED),
	FIELD(metric, mem_used, "memUsed", .flags = NEEDED, .doc = "Bytes, like what follows."),
	FIELD(metric, mem_total, "memTotal", .flags = NEEDED),
	FIELD(metric, mem_cache, "memCache", .flags = NEEDED,
	    .doc = "Not within memUsed; 0 until the guest says."),
	FIELD(metric, disk_used, "diskUsed", .flags = NEEDED),
	FIELD(metric, disk_total, "diskTotal", .flags = NEEDED),
	{ 0 },
};
struct many {
	const char *const *ids;
};
static const struct field many_fields[] = {
	FIELD(many, ids, "sandbox_ids", .flags = IN_QUERY, .min = 1, .max = MANY),
	{ 0 },
};
struct many_out {
	const char *sandboxes;
};
static const struct field many_out_fields[] = {
	FIELD(many_out, sandboxes, "sandboxes", .flags = NEEDED, .format = "json",
	    .doc = "Id to its newest point."),
	{ 0 },
};

/* --- logs ----------------------------------------------------------------------------------- */

struct logs_in {
	const char *id, *direction, *level, *search;
	int64_t start, cursor;
	int32_t limit;
};
#define LIMIT(st) \
	FIELD(st, limit, "limit", .flags = IN_QUERY, .min = 1, .max = LOGS_MAX, .dflt = LOGS_MAX)
static const struct field logs_v1_fields[] = {
	SANDBOX_ID(logs_in),
	FIELD(logs_in, start, "start", .flags = IN_QUERY, .dflt = 0, .doc = "Unix milliseconds."),
	LIMIT(logs_in),
	{ 0 },
};
static const struct field logs_v2_fields[] = {
	SANDBOX_ID(logs_in),
	FIELD(logs_in, cursor, "cursor", .flags = IN_QUERY, .dflt = NULL_INT,
	    .doc = "Unix milliseconds: the first, or with backward the last."),
	LIMIT(logs_in),
	FIELD(logs_in, direction, "direction", .flags = IN_QUERY, .text = "forward",
	    .one_of = "forward|backward"),
	FIELD(logs_in, level, "level", .flags = IN_QUERY, .one_of = "debug|info|warn|error",
	    .doc = "The least; there are info and error."),
	FIELD(logs_in, search, "search", .flags = IN_QUERY, .max = 200,
	    .doc = "What the message has in it."),
	{ 0 },
};
struct log_line {
	int64_t timestamp;
	const char *line;
};
static const struct field log_line_fields[] = {
	FIELD(log_line, timestamp, "timestamp", .flags = NEEDED, .format = "date-time"),
	FIELD(log_line, line, "line", .flags = NEEDED, .doc = "JSON text: level, logger, message."),
	{ 0 },
};
struct log_entry {
	int64_t timestamp;
	const char *level, *message, *fields;
};
static const struct field log_entry_fields[] = {
	FIELD(log_entry, timestamp, "timestamp", .flags = NEEDED, .format = "date-time"),
	FIELD(log_entry, level, "level", .flags = NEEDED),
	FIELD(log_entry, message, "message", .flags = NEEDED),
	FIELD(log_entry, fields, "fields", .flags = NEEDED, .format = "json"),
	{ 0 },
};
struct logs_v1 {
	struct list lines, entries;
};
static const struct field logs_v1_out_fields[] = {
	SUB(logs_v1, lines, "logs", log_line_fields, log_line, .flags = NEEDED | LIST),
	SUB(logs_v1, entries, "logEntries", log_entry_fields, log_entry, .flags = NEEDED | LIST),
	{ 0 },
};
static const struct field logs_v2_out_fields[] = {
	SUB(logs_v1, entries, "logs", log_entry_fields, log_entry, .flags = NEEDED | LIST),
	{ 0 },
};

/* clang-format off */
#define LOGS(v) .in = logs_##v##_fields, .insize = sizeof(struct logs_in), .out = logs_##v##_out_fields
const struct route e2b_watch_routes[] = {
	{ "GET", "/sandboxes/metrics", POOL_OPS, PERM_capsules_view, metrics_of_many, "E2B: the newest metrics of sandboxes", E2B, 200, IN(many), OUT(many_out) },
	{ "GET", "/sandboxes/{id}/metrics", POOL_OPS, PERM_capsules_view, metrics_of_one, "E2B: metrics of a sandbox", E2B | LISTS, 200, IN(metrics_in), OUT(metric) },
	{ "GET", "/sandboxes/{id}/logs", POOL_API, PERM_capsules_view, logs_v1, "E2B: what happened to a sandbox", E2B, 200, LOGS(v1) },
	{ "GET", "/v2/sandboxes/{id}/logs", POOL_API, PERM_capsules_view, logs_v2, "E2B: what happened to a sandbox", E2B, 200, LOGS(v2) },
	{ 0 },
};
/* clang-format on */

/* --- metrics -------------------------------------------------------------------------------- */

struct seen {
	int64_t at, mem, guest, cache, disk; /* of the guest: 0 and below where it did not say */
	double cpu;
};

static struct metric
point(const struct q_sandbox *s, const struct seen *p)
{
	return (struct metric){ .timestamp = p->at * 1000000,
		.unix_seconds = p->at,
		.cpus = s->vcpus,
		.cpu = p->cpu,
		.mem_used = p->guest > 0 ? p->guest : p->mem,
		.mem_cache = p->cache > 0 ? p->cache : 0,
		.mem_total = (int64_t)s->memory_mb << 20,
		.disk_used = p->disk,
		.disk_total = (int64_t)s->disk_size_mb << 20 };
}

/* What the host itself remembers; NULL: it is on none, or the host does not say. */
static struct json_object *
of_host(struct request *r, const struct uuid *id, const char *tier)
{
	struct json_object *answer = NULL;
	struct q_capsule_op *c;
	struct agent_call call = { .method = "GET",
		.total_ms = HOST_MS,
		.path = talloc_asprintf(
		    r, "/capsules/%s/metrics?tier=%s", id_text(r, "cl-", id), tier) };

	if (q_capsule_for_op(r->work.db, &c, .id = id) <= 0 || !c->address)
		return NULL;
	call.address = c->address;
	call.epoch = c->epoch;
	if (agent_send(&r->work, &call, &answer) < 0) {
		r->work.err = (struct err){ 0 };
		return NULL;
	}
	return json_get(answer, "points");
}

/* The tables' points up to the host's first, then the host's. Returns how many; -1. */
static int
points(struct request *r, const struct q_sandbox *s, int64_t from, int64_t to, struct metric **ret)
{
	int64_t now = time(NULL), first = INT64_MAX;
	const char *tier = metric_tier(now - from);
	struct json_object *list = of_host(r, s->id, tier), *o;
	size_t said =
	    json_object_is_type(list, json_type_array) ? json_object_array_length(list) : 0;
	struct q_metric_point *old;
	struct seen p;
	size_t n = 0, i;
	int olds = q_metrics_read(r->work.db, &old, .team = s->team_id, .capsule = s->id,
	    .tier = tier, .seconds = now - from);

	if (olds < 0)
		return -1;
	*ret = talloc_array(r, struct metric, olds + said + 1);
	if (said)
		first = json_int(json_object_array_get_idx(list, 0), "timestamp_unix", 0);
	for (i = 0; i < (size_t)olds && old[i].at < first; i++)
		if (old[i].at >= from && old[i].at <= to)
			(*ret)[n++] = point(s,
			    &(struct seen){ old[i].at, old[i].mem, old[i].mem_guest,
				old[i].mem_cache, old[i].disk, old[i].cpu });
	for (i = 0; i < said; i++) {
		o = json_object_array_get_idx(list, i);
		p = (struct seen){ json_int(o, "timestamp_unix", 0), json_int(o, "mem_bytes", 0),
			json_int(o, "mem_guest_bytes", 0), json_int(o, "mem_cache_bytes", 0),
			json_int(o, "disk_bytes", 0),
			json_object_get_double(json_get(o, "cpu_pct")) };
		if (p.at >= from && p.at <= to)
			(*ret)[n++] = point(s, &p);
	}
	return n;
}

static int
metrics_of_one(struct request *r)
{
	const struct metrics_in *in = r->in;
	int64_t now = time(NULL), from = in->start;
	struct metric *all;
	struct q_sandbox *s;
	int n;

	if (sandbox_find(r, in->id, &s) < 0)
		return -1;
	if (from == NULL_INT)
		from = s->started_at / 1000000;
	if (from < now - DAY)
		from = now - DAY;
	n = points(r, s, from, in->end == NULL_INT ? now : in->end, &all);
	return reply_rows(r, n, all, sizeof *all);
}

static int
metrics_of_many(struct request *r)
{
	const struct many *in = r->in;
	const char *const *id;
	struct buf b = BUF(r);
	struct q_sandbox *s;
	struct metric *all;
	struct uuid u;
	int n;

	buf_chr(&b, '{');
	for (id = in->ids; id && *id; id++) {
		if (!id_read(*id, "", &u))
			continue;
		n = q_e2b_get(r->work.db, &s, .id = &u);
		if (n > 0 && s->state)
			n = points(r, s, time(NULL) - 600, time(NULL), &all);
		else if (n > 0)
			n = 0;
		if (n < 0)
			return -1;
		if (!n)
			continue;
		buf_fmt(&b, "%s\"%s\":", b.len > 1 ? "," : "", *id);
		fields_write(metric_fields, &all[n - 1], &b);
	}
	buf_chr(&b, '}');
	return reply_with(r, many_out_fields, &(struct many_out){ b.data });
}

/* --- logs: the events of a capsule ---------------------------------------------------------- */

/* Clients have a map of texts: what is none is its JSON. */
static const char *
texts(struct request *r, const char *data)
{
	struct err ignored = { 0 };
	struct json_object *all = json_parse(r, data, strlen(data), NULL, &ignored);
	struct buf b = BUF(r);

	if (!json_object_is_type(all, json_type_object))
		return "{}";
	buf_chr(&b, '{');
	json_object_object_foreach(all, name, value)
	{
		buf_str(&b, b.len > 1 ? "," : "");
		buf_json(&b, name);
		buf_chr(&b, ':');
		buf_json(&b,
		    json_object_is_type(value, json_type_string)
			? json_object_get_string(value)
			: json_object_to_json_string_ext(value, JSON_C_TO_STRING_PLAIN));
	}
	buf_chr(&b, '}');
	return b.data;
}

static bool
is_bad(const struct q_activity *a)
{
	return strstr(a->type, "error") || strstr(a->type, "failed");
}

static bool
wanted(const struct logs_in *in, const struct q_activity *a)
{
	bool all = !in->level || strcmp(in->level, "debug") == 0 || strcmp(in->level, "info") == 0;

	return (all || is_bad(a)) && (!in->search || strstr(a->type, in->search));
}

static void
entry(struct request *r, const struct q_activity *a, struct log_line *line, struct log_entry *e)
{
	struct buf b = BUF(r);

	*e = (struct log_entry){ a->at, is_bad(a) ? "error" : "info", a->type,
		texts(r, a->data ? a->data : "{}") };
	buf_fmt(&b, "{\"level\":\"%s\",\"logger\":\"hutch\",\"message\":", e->level);
	buf_json(&b, a->type);
	buf_fmt(&b, ",\"data\":%s}", a->data ? a->data : "{}");
	*line = (struct log_line){ a->at, b.data };
}

/* The newest events come from the query; the answer has the oldest first unless it goes backward.
 */
static int
logs(struct request *r, const struct logs_in *in, struct logs_v1 *ret)
{
	bool back = in->direction && strcmp(in->direction, "backward") == 0;
	int64_t at = in->cursor == NULL_INT ? 0 : in->cursor;
	struct q_activity *rows;
	struct log_entry *entries;
	struct log_line *lines;
	struct q_sandbox *s;
	int n, i, kept = 0, to;

	if (sandbox_any(r, in->id, &s) < 0)
		return -1;
	n = q_activity_list(r->work.db, &rows, .capsule = s->id,
	    .after = back ? NULL_INT : (in->start > at ? in->start : at) * 1000 - 1,
	    .until = back && at ? at * 1000 : NULL_INT, .before = NULL_INT, .limit = 10 * LOGS_MAX);
	if (n < 0)
		return -1;
	entries = talloc_zero_array(r, struct log_entry, n + 1);
	lines = talloc_zero_array(r, struct log_line, n + 1);
	for (i = 0; i < n && kept < in->limit; i++) {
		to = back ? i : n - 1 - i;
		if (!wanted(in, &rows[to]))
			continue;
		entry(r, &rows[to], &lines[kept], &entries[kept]);
		kept++;
	}
	*ret = (struct logs_v1){ { lines, kept }, { entries, kept } };
	return 0;
}

static int
logs_v1(struct request *r)
{
	struct logs_v1 all;
	struct logs_in in = *(const struct logs_in *)r->in;

	in.cursor = NULL_INT;
	return logs(r, &in, &all) < 0 ? -1 : reply_with(r, logs_v1_out_fields, &all);
}

static int
logs_v2(struct request *r)
{
	struct logs_v1 all;

	return logs(r, r->in, &all) < 0 ? -1 : reply_with(r, logs_v2_out_fields, &all);
}
