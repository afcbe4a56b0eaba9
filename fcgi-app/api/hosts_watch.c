/*
 * hosts_watch.c - what a host's agent says of its machine and of itself: metrics, log (spec 02
 * §5.1).
 *
 * The agent is asked when somebody looks; a host that does not answer is 503. A team's own host is
 * the team's: of what it sends only what is known by name and type goes on.
 *
 * Tests: tests/vm/hosts_test.py.
 */
#include "agent.h"
#include "cleanup.h"
#include "host_shape.h"
#include "json.h"
#include "metric_range.h"

#include <string.h>

static handler host_metrics, host_logs;

struct host_ask {
	const struct uuid *id;
	const char *range;
	int32_t tail;
};
static const struct field host_metrics_in_fields[] = {
	PATH_ID(host_ask, "host-"),
	FIELD(host_ask, range, "range", .flags = IN_QUERY, .text = METRIC_RANGE_USUAL,
	    .one_of = METRIC_RANGES),
	{ 0 },
};
static const struct field host_logs_in_fields[] = {
	PATH_ID(host_ask, "host-"),
	FIELD(host_ask, tail, "tail", .flags = IN_QUERY, .dflt = 200, .min = 1, .max = 10000,
	    .doc = "At most so many lines, the last ones."),
	{ 0 },
};

struct host_point {
	int64_t timestamp_unix, mem_bytes, disk_bytes, agent_mem_bytes;
	double cpu_pct, load, agent_cpu_pct;
	int32_t running, capsules;
};
static const struct field host_point_fields[] = {
	FIELD(host_point, timestamp_unix, "timestamp_unix", .flags = NEEDED,
	    .doc = "Begin of the step: 5 s up to 10m, 30 s up to 2h, else 300 s."),
	FIELD(host_point, cpu_pct, "cpu_pct", .flags = NEEDED, .doc = "0 to 100, of all cores."),
	FIELD(host_point, load, "load", .flags = NEEDED, .doc = "Mean of the last minute."),
	FIELD(host_point, mem_bytes, "mem_bytes", .flags = NEEDED,
	    .doc = "What programs cannot get any more."),
	FIELD(host_point, disk_bytes, "disk_bytes", .flags = NEEDED,
	    .doc = "In use, of the agent's file system."),
	FIELD(host_point, agent_cpu_pct, "agent_cpu_pct", .flags = NEEDED, .doc = "Of one core."),
	FIELD(host_point, agent_mem_bytes, "agent_mem_bytes", .flags = NEEDED),
	FIELD(host_point, running, "running", .flags = NEEDED, .doc = "Capsules that run."),
	FIELD(host_point, capsules, "capsules", .flags = NEEDED, .doc = "Capsules that are there."),
	{ 0 },
};

struct pool_creates {
	int64_t hot, waiting, spawned;
};
static const struct field pool_creates_fields[] = {
	FIELD(pool_creates, hot, "hot", .flags = NEEDED),
	FIELD(pool_creates, waiting, "waiting", .flags = NEEDED),
	FIELD(pool_creates, spawned, "spawned", .flags = NEEDED),
	{ 0 },
};

struct host_pool {
	const char *template, *build, *image;
	int32_t vcpus, memory_mb, ready, waiting, making, want_ready, want_waiting;
	int64_t image_bytes;
	struct pool_creates *creates;
};
static const struct field host_pool_fields[] = {
	FIELD(host_pool, template, "template", .flags = NEEDED),
	FIELD(host_pool, build, "build", .flags = NEEDED),
	FIELD(host_pool, vcpus, "vcpus", .flags = NEEDED),
	FIELD(host_pool, memory_mb, "memory_mb", .flags = NEEDED),
	FIELD(host_pool, image, "image", .flags = NEEDED, .doc = "State of its memory image."),
	FIELD(host_pool, image_bytes, "image_bytes", .flags = NEEDED),
	FIELD(host_pool, ready, "ready", .flags = NEEDED, .doc = "Hot clones: restored, stopped."),
	FIELD(host_pool, waiting, "waiting", .flags = NEEDED, .doc = "Started, nothing loaded."),
	FIELD(host_pool, making, "making", .flags = NEEDED),
	FIELD(host_pool, want_ready, "want_ready", .flags = NEEDED),
	FIELD(host_pool, want_waiting, "want_waiting", .flags = NEEDED),
	SUB(host_pool, creates, "creates", pool_creates_fields, pool_creates, .flags = NEEDED,
	    .doc = "What creates got since the agent started."),
	{ 0 },
};

struct host_machine {
	int32_t cpu_cores;
	int64_t mem_bytes, disk_bytes;
};
static const struct field host_machine_fields[] = {
	FIELD(host_machine, cpu_cores, "cpu_cores", .flags = NEEDED),
	FIELD(host_machine, mem_bytes, "mem_bytes", .flags = NEEDED),
	FIELD(host_machine, disk_bytes, "disk_bytes", .flags = NEEDED),
	{ 0 },
};

struct host_agent {
	const char *version, *accel, *qemu_version;
	int64_t started_unix;
	int32_t starting, uids_free, reports_waiting;
};
static const struct field host_agent_fields[] = {
	FIELD(host_agent, version, "version", .flags = NEEDED),
	FIELD(host_agent, accel, "accel", .flags = NEEDED),
	FIELD(host_agent, qemu_version, "qemu_version", .flags = NEEDED),
	FIELD(host_agent, started_unix, "started_unix", .flags = NEEDED),
	FIELD(host_agent, starting, "starting", .flags = NEEDED, .doc = "Starts in progress."),
	FIELD(host_agent, uids_free, "uids_free", .flags = NEEDED,
	    .doc = "So many machines may still be started."),
	FIELD(host_agent, reports_waiting, "reports_waiting", .flags = NEEDED,
	    .doc = "That the control plane has not confirmed."),
	{ 0 },
};

struct host_metrics {
	const struct uuid *host_id;
	const char *range;
	struct host_machine *machine;
	struct host_agent *agent;
	struct list pools, points;
};
static const struct field host_metrics_fields[] = {
	FIELD(host_metrics, host_id, "host_id", .flags = NEEDED, .prefix = "host-"),
	FIELD(host_metrics, range, "range", .flags = NEEDED),
	SUB(host_metrics, machine, "machine", host_machine_fields, host_machine, .flags = NEEDED),
	SUB(host_metrics, agent, "agent", host_agent_fields, host_agent, .flags = NEEDED),
	SUB(host_metrics, pools, "pools", host_pool_fields, host_pool, .flags = NEEDED | LIST),
	SUB(host_metrics, points, "points", host_point_fields, host_point, .flags = NEEDED | LIST,
	    .doc = "Oldest first; the agent keeps them in memory, from its start on."),
	{ 0 },
};

struct host_line {
	const char *time, *level, *request_id, *message;
};
static const struct field host_line_fields[] = {
	FIELD(host_line, time, "time", .flags = NEEDED),
	FIELD(host_line, level, "level", .flags = NEEDED),
	FIELD(host_line, request_id, "request_id", .flags = OMIT),
	FIELD(host_line, message, "message", .flags = NEEDED),
	{ 0 },
};

struct host_logs {
	const struct uuid *host_id;
	struct list lines;
};
static const struct field host_logs_fields[] = {
	FIELD(host_logs, host_id, "host_id", .flags = NEEDED, .prefix = "host-"),
	SUB(host_logs, lines, "lines", host_line_fields, host_line, .flags = NEEDED | LIST,
	    .doc = "Oldest first."),
	{ 0 },
};

/* clang-format off */
const struct route host_watch_routes[] = {
	{ "GET", "/v1/hosts/{id}/metrics", POOL_OPS, HOSTS_OPERATE, host_metrics, "What a host and its agent use, and its pools", 0, 200, .in = host_metrics_in_fields, .insize = sizeof(struct host_ask), OUT(host_metrics) },
	{ "GET", "/v1/hosts/{id}/logs", POOL_OPS, HOSTS_OPERATE, host_logs, "The last lines of a host agent's log", 0, 200, .in = host_logs_in_fields, .insize = sizeof(struct host_ask), OUT(host_logs) },
	{ 0 },
};
/* clang-format on */

enum { ASK_MS = 5000 };

/* What the agent answers; NULL: the request has failed. */
static struct json_object *
ask(struct request *r, const struct uuid *id, const char *path)
{
	struct agent_call call = { .method = "GET", .path = path, .total_ms = ASK_MS };
	struct json_object *answer = NULL;
	struct q_host *h;
	int n = q_host_get(r->work.db, &h, HOST_PERCENTS(r), .id = id);

	if (n <= 0) {
		if (n == 0)
			(void)fail(r, E_NOT_FOUND, "no such host");
		return NULL;
	}
	if (strcmp(h->status, "pending") == 0) {
		(void)fail(r, E_BAD_STATE, "the host has not registered");
		return NULL;
	}
	call.address = h->address;
	if (agent_send(&r->work, &call, &answer) < 0)
		return NULL;
	if (!answer)
		(void)fail(r, E_AGENT, "the host's answer is empty");
	return answer;
}

/* The agent's answer by the table of ours, which says more than it does: whose it is. */
static int
understood(struct request *r, const struct uuid *id, struct json_object *answer,
    const struct field *fields, void *ret)
{
	struct err e = { 0 };

	json_object_object_add(answer, "host_id", json_object_new_string(id_text(r, "host-", id)));
	if (fields_read(fields, answer, ret, r, &e) < 0)
		return fail(r, E_AGENT, "the host's answer is not understood: %s", e.text);
	return 0;
}

static int
host_metrics(struct request *r)
{
	const struct host_ask *in = r->in;
	const struct metric_range *range = metric_range(in->range);
	struct host_metrics out = { 0 };
	struct host_point *p;
	struct json_object *answer;
	int64_t from;
	size_t i;

	answer = ask(r, in->id, talloc_asprintf(r, "/metrics?tier=%s", range->tier));
	if (!answer)
		return -1;
	json_object_object_add(answer, "range", json_object_new_string(range->name));
	if (understood(r, in->id, answer, host_metrics_fields, &out) < 0)
		return -1;
	/* by the host's clock: its last point is now */
	p = out.points.item;
	from = out.points.n ? p[out.points.n - 1].timestamp_unix - range->seconds : 0;
	for (i = 0; i < out.points.n && p[i].timestamp_unix < from; i++)
		;
	out.points.item = p + i;
	out.points.n -= i;
	return reply_row(r, 1, &out);
}

static int
host_logs(struct request *r)
{
	const struct host_ask *in = r->in;
	struct host_logs out = { 0 };
	struct json_object *answer =
	    ask(r, in->id, talloc_asprintf(r, "/logs?tail=%d", (int)in->tail));

	if (!answer || understood(r, in->id, answer, host_logs_fields, &out) < 0)
		return -1;
	return reply_row(r, 1, &out);
}
