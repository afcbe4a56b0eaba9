/*
 * scaling.c - what stands ready on the platform's hosts before anybody asks for it, and how many
 * hosts there are to be (spec 02 §5.8).
 *
 * The way to the hosts and the alerts: lib/host_scale.c. Queries: sql/queries/scaling.sql.  Tests:
 * tests/http/routes.t, tests/vm/hosts_test.py, tests/vm/engine_scaling_test.py.
 */
#include "api.h"
#include "audit.h"
#include "cleanup.h"
#include "job.h"
#include "json.h"
#include "scaling.q.h"

#include <string.h>

static handler scaling_get, scaling_put;

enum { POOLS_MAX = 32, CLONES_MAX = 64 };

struct shape {
	int32_t vcpus, memory_mb;
};
static const struct field shape_fields[] = {
	FIELD(shape, vcpus, "vcpus", .flags = NEEDED, .min = 1, .max = 16),
	FIELD(shape, memory_mb, "memory_mb", .flags = NEEDED, .min = 128, .max = 65536),
	{ 0 },
};

struct scaling_pool {
	const char *template;
	struct shape *shape;
	int32_t hot, waiting;
};
static const struct field scaling_pool_fields[] = {
	FIELD(scaling_pool, template, "template", .flags = NEEDED, .min = 1, .max = 64),
	SUB(scaling_pool, shape, "shape", shape_fields, shape, .flags = NEEDED,
	    .doc = "Its memory is held ready on each host that has the template."),
	FIELD(scaling_pool, hot, "hot", .max = CLONES_MAX,
	    .doc =
		"Clones that stand restored on each host, at least: bursts of creates add more."),
	FIELD(scaling_pool, waiting, "waiting", .max = CLONES_MAX,
	    .doc = "Machines that stand started there, nothing loaded."),
	{ 0 },
};

struct scaling_put {
	struct list pools;
	int32_t warm_memory_percent, min_hosts, max_hosts;
	int64_t generation;
};
static const struct field scaling_put_fields[] = {
	SUB(scaling_put, pools, "pools", scaling_pool_fields, scaling_pool, .flags = NEEDED | LIST,
	    .min = 0, .max = POOLS_MAX,
	    .doc = "In the order in which they get memory. Shapes that are not named: as the "
		   "hosts' configurations say."),
	FIELD(scaling_put, warm_memory_percent, "warm_memory_percent", .min = 1, .max = 90,
	    .dflt = NULL_INT4,
	    .doc = "Share of a host's RAM that memory images may have; null: as its configuration "
		   "says."),
	FIELD(scaling_put, min_hosts, "min_hosts", .max = 100000, .dflt = NULL_INT4,
	    .doc = "With fewer that take capsules an alert is triggered; null: any number."),
	FIELD(scaling_put, max_hosts, "max_hosts", .min = 1, .max = 100000, .dflt = NULL_INT4,
	    .doc = "More are never wanted; null: any number."),
	FIELD(scaling_put, generation, "generation", .dflt = NULL_INT, .min = 0, .max = INT64_MAX,
	    .doc = "Of the setting that this one replaces; another one is 409."),
	{ 0 },
};

static const struct field scaling_alert_fields[] = {
	FIELD(q_scaling_alert, rule, "rule", .flags = NEEDED, .one_of = "hosts_below_min|no_room"),
	FIELD(q_scaling_alert, since, "since", .flags = NEEDED, .format = "date-time"),
	FIELD(q_scaling_alert, told_at, "triggered_at", .format = "date-time",
	    .doc = "The event alert.triggered; null: it does not last for host.alert_sec yet."),
	FIELD(q_scaling_alert, value, "value", .flags = NEEDED),
	FIELD(q_scaling_alert, threshold, "threshold", .flags = NEEDED),
	{ 0 },
};

struct scaling {
	struct list pools, alerts;
	int32_t warm_memory_percent, min_hosts, max_hosts;
	int64_t generation, updated_at, hosts, hosts_wanted, hosts_behind;
};
static const struct field scaling_fields[] = {
	SUB(scaling, pools, "pools", scaling_pool_fields, scaling_pool, .flags = NEEDED | LIST),
	FIELD(scaling, warm_memory_percent, "warm_memory_percent"),
	FIELD(scaling, min_hosts, "min_hosts"),
	FIELD(scaling, max_hosts, "max_hosts"),
	FIELD(scaling, generation, "generation", .flags = NEEDED,
	    .doc = "Counts changes; 0: never set, hosts go by their own configuration."),
	FIELD(scaling, updated_at, "updated_at", .format = "date-time"),
	FIELD(scaling, hosts, "hosts", .flags = NEEDED,
	    .doc = "Of the platform, that take capsules. Teams' own hosts are not scaled."),
	FIELD(scaling, hosts_wanted, "hosts_wanted", .doc = "As in /v1/admin/cluster."),
	FIELD(scaling, hosts_behind, "hosts_behind", .flags = NEEDED,
	    .doc = "Of the platform's, that have not said yet that they hold this setting."),
	SUB(scaling, alerts, "alerts", scaling_alert_fields, q_scaling_alert,
	    .flags = NEEDED | LIST, .doc = "What is wrong; of a platform whose scaling was set."),
	{ 0 },
};

/* clang-format off */
const struct route scaling_routes[] = {
	{ "GET", "/v1/admin/scaling", POOL_API, PLATFORM_ADMIN, scaling_get, "What stands ready on the platform's hosts, and how many there are to be", 0, 200, OUT(scaling) },
	{ "PUT", "/v1/admin/scaling", POOL_API, PLATFORM_ADMIN, scaling_put, "Say what stands ready on the platform's hosts, and how many there are to be", 0, 200, IN(scaling_put), OUT(scaling) },
	{ 0 },
};
/* clang-format on */

/* The pools as they are stored. */
static int
pools_read(struct request *r, const char *text, struct list *ret)
{
	static const struct field fields[] = {
		SUB(scaling_put, pools, "pools", scaling_pool_fields, scaling_pool,
		    .flags = NEEDED | LIST, .min = 0, .max = POOLS_MAX),
		{ 0 },
	};
	const char *body = talloc_asprintf(r, "{\"pools\":%s}", text);
	struct json_object *j = json_parse(r, body, strlen(body), NULL, &r->work.err);
	struct scaling_put had;

	if (!j || fields_read(fields, j, &had, r, &r->work.err) < 0)
		return -1;
	*ret = had.pools;
	return 0;
}

static int
scaling_get(struct request *r)
{
	const struct conf *c = r->app->conf;
	struct q_scaling *s;
	struct q_scaling_state *now;
	struct q_scaling_alert *alerts;
	struct scaling out;
	int n;

	if (q_scaling_get(r->work.db, &s) <= 0 ||
	    q_scaling_state_get(r->work.db, &now, .version = s->version,
		.mem_percent = c->host_overcommit_memory_percent,
		.cpu_percent = c->host_overcommit_cpu_percent,
		.tcg_percent = c->host_overcommit_cpu_tcg_percent) <= 0 ||
	    (n = q_scaling_alerts(r->work.db, &alerts)) < 0)
		return -1;
	out = (struct scaling){ .warm_memory_percent = s->warm_memory_percent,
		.min_hosts = s->min_hosts,
		.max_hosts = s->max_hosts,
		.generation = s->generation,
		.updated_at = s->updated_at,
		.hosts = now->takes,
		.hosts_wanted = now->wanted,
		.hosts_behind = now->behind,
		.alerts = { alerts, (size_t)n } };
	if (pools_read(r, s->pools, &out.pools) < 0)
		return -1;
	return reply_row(r, 1, &out);
}

static bool
same(const struct scaling_pool *a, const struct scaling_pool *b)
{
	return strcmp(a->template, b->template) == 0 && a->shape->vcpus == b->shape->vcpus &&
	    a->shape->memory_mb == b->shape->memory_mb;
}

static int
check(struct request *r, const struct scaling_put *in)
{
	const struct scaling_pool *p = in->pools.item;
	const char **names = talloc_zero_array(r, const char *, in->pools.n + 1);
	struct q_scaling_name *unknown;
	size_t i, k;
	int n;

	if (in->min_hosts != NULL_INT4 && in->max_hosts != NULL_INT4 &&
	    in->min_hosts > in->max_hosts)
		return fail(r, E_BAD_INPUT, "\"min_hosts\" is more than \"max_hosts\"");
	for (i = 0; i < in->pools.n; i++) {
		names[i] = p[i].template;
		for (k = 0; k < i; k++)
			if (same(&p[i], &p[k]))
				return fail(r, E_BAD_INPUT, "\"pools\" names %s %dx%d twice",
				    p[i].template, (int)p[i].shape->vcpus,
				    (int)p[i].shape->memory_mb);
	}
	n = q_scaling_unknown(r->work.db, &unknown, .names = names);
	if (n > 0)
		return fail(r, E_BAD_INPUT, "\"pools\": there is no template %s", unknown->name);
	return n;
}

static const char *
pools_text(struct request *r, const struct list *pools)
{
	const struct scaling_pool *p = pools->item;
	struct buf b = BUF(r);
	size_t i;

	buf_chr(&b, '[');
	for (i = 0; i < pools->n; i++) {
		buf_str(&b, i ? ",{\"template\":" : "{\"template\":");
		buf_json(&b, p[i].template);
		buf_fmt(&b, ",\"shape\":{\"vcpus\":%d,\"memory_mb\":%d},\"hot\":%d,\"waiting\":%d}",
		    (int)p[i].shape->vcpus, (int)p[i].shape->memory_mb, (int)p[i].hot,
		    (int)p[i].waiting);
	}
	buf_chr(&b, ']');
	return b.data;
}

static int
scaling_put(struct request *r)
{
	const struct scaling_put *in = r->in;
	struct job_new job = { .kind = "host.scale", .lock_key = "scaling" };
	struct q_scaling *s;
	struct q_scaling_changed *set;
	struct uuid id;
	int n;

	if (check(r, in) < 0 || q_scaling_lock(r->work.db, &s) <= 0)
		return -1;
	if (in->generation != NULL_INT && in->generation != s->generation)
		return fail(r, E_CONFLICT, "the scaling is at generation %lld by now",
		    (long long)s->generation);
	n = q_scaling_set(r->work.db, &set, .pools = pools_text(r, &in->pools),
	    .warm = in->warm_memory_percent, .min_hosts = in->min_hosts,
	    .max_hosts = in->max_hosts);
	if (n > 0 &&
	    (job_add(&r->work, &job, &id, NULL) < 0 ||
		audit_add(&r->work, AUDIT_PLATFORM_SCALING,
		    &(struct audit){ .resource_id = "scaling",
			.metadata = talloc_asprintf(r, "{\"changed\":%s}", set->changed) }) < 0))
		return -1;
	return n < 0 ? -1 : scaling_get(r);
}
