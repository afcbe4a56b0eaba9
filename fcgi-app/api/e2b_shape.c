/* e2b_shape.c - a capsule as clients of the E2B protocol see it (spec 06 §6). */
#include "cleanup.h"
#include "e2b.h"

#include <inttypes.h>

const struct field sandbox_shape_fields[] = {
	FIELD(sandbox_shape, id, "sandboxID", .flags = NEEDED, .prefix = ""),
	FIELD(sandbox_shape, template, "templateID", .flags = NEEDED, .prefix = ""),
	FIELD(sandbox_shape, alias, "alias", .flags = OMIT),
	FIELD(sandbox_shape, client, "clientID", .flags = NEEDED),
	FIELD(sandbox_shape, envd, "envdVersion", .flags = NEEDED),
	FIELD(sandbox_shape, token, "envdAccessToken", .doc = "Opens the guest protocol."),
	FIELD(sandbox_shape, traffic, "trafficAccessToken",
	    .doc = "Opens its ports; null where they are public."),
	FIELD(sandbox_shape, domain, "domain"),
	{ 0 },
};

#define LISTED(st)                                                                      \
	FIELD(st, id, "sandboxID", .flags = NEEDED, .prefix = ""),                      \
	    FIELD(st, template, "templateID", .flags = NEEDED, .prefix = ""),           \
	    FIELD(st, alias, "alias", .flags = OMIT),                                   \
	    FIELD(st, client, "clientID", .flags = NEEDED),                             \
	    FIELD(st, started_at, "startedAt", .flags = NEEDED, .format = "date-time"), \
	    FIELD(st, ends_at, "endAt", .flags = NEEDED, .format = "date-time"),        \
	    FIELD(st, state, "state", .flags = NEEDED, .one_of = "running|paused"),     \
	    FIELD(st, vcpus, "cpuCount", .flags = NEEDED),                              \
	    FIELD(st, memory_mb, "memoryMB", .flags = NEEDED),                          \
	    FIELD(st, disk_mb, "diskSizeMB", .flags = NEEDED),                          \
	    FIELD(st, envd, "envdVersion", .flags = NEEDED),                            \
	    FIELD(st, metadata, "metadata", .flags = NEEDED, .format = "json")
const struct field listed_sandbox_fields[] = { LISTED(listed_sandbox), { 0 } };

struct lifecycle {
	const char *on_timeout;
	bool auto_resume;
};
static const struct field lifecycle_fields[] = {
	FIELD(lifecycle, on_timeout, "onTimeout", .flags = NEEDED, .one_of = "kill|pause"),
	FIELD(lifecycle, auto_resume, "autoResume", .flags = NEEDED),
	{ 0 },
};
struct sandbox_detail {
	const struct uuid *id, *template;
	const char *alias, *client, *envd, *metadata, *state, *domain, *token, *network;
	int64_t started_at, ends_at;
	int32_t vcpus, memory_mb, disk_mb;
	bool internet;
	struct lifecycle *lifecycle;
};
const struct field sandbox_detail_fields[] = {
	LISTED(sandbox_detail),
	FIELD(sandbox_detail, domain, "domain"),
	FIELD(sandbox_detail, token, "envdAccessToken"),
	FIELD(sandbox_detail, internet, "allowInternetAccess"),
	FIELD(sandbox_detail, network, "network", .format = "json"),
	SUB(sandbox_detail, lifecycle, "lifecycle", lifecycle_fields, lifecycle),
	{ 0 },
};

static const struct uuid *
origin(const struct q_sandbox *s)
{
	return s->snapshot_id ? s->snapshot_id : s->template_id;
}

static const char *
token(struct request *r, const struct q_sandbox *s)
{
	return crypto_guest_token(r, r->app->keys, s->id, GUEST_TOKEN_EPOCH);
}

static const char *
domain(struct request *r)
{
	const char *d = r->app->conf->proxy_domain;

	return d && *d ? d : NULL;
}

void
sandbox_shape(struct request *r, const struct q_sandbox *s, struct sandbox_shape *ret)
{
	*ret = (struct sandbox_shape){ .id = s->id,
		.template = origin(s),
		.alias = s->alias,
		.client = E2B_CLIENT,
		.envd = E2B_ENVD,
		.token = token(r, s),
		.traffic = s->public_traffic
		    ? NULL
		    : crypto_traffic_token(r, r->app->keys, s->id, GUEST_TOKEN_EPOCH),
		.domain = domain(r) };
}

void
listed_sandbox(const struct q_sandbox *s, struct listed_sandbox *ret)
{
	*ret = (struct listed_sandbox){ .id = s->id,
		.template = origin(s),
		.alias = s->alias,
		.client = E2B_CLIENT,
		.envd = E2B_ENVD,
		.metadata = s->metadata,
		.state = s->state,
		.started_at = s->started_at,
		.ends_at = s->ends_at,
		.vcpus = s->vcpus,
		.memory_mb = s->memory_mb,
		.disk_mb = s->disk_size_mb,
		.created_at = s->created_at };
}

int
sandbox_detail(struct request *r, const struct q_sandbox *s)
{
	struct buf network = BUF(r);
	struct lifecycle life = { strcmp(s->idle_action, "destroy") == 0 ? "kill" : "pause",
		strcmp(s->auto_resume, "all") == 0 && strcmp(s->idle_action, "destroy") != 0 };
	struct sandbox_detail d = { .id = s->id,
		.template = origin(s),
		.alias = s->alias,
		.client = E2B_CLIENT,
		.envd = E2B_ENVD,
		.metadata = s->metadata,
		.state = s->state,
		.domain = domain(r),
		.token = token(r, s),
		.started_at = s->started_at,
		.ends_at = s->ends_at,
		.vcpus = s->vcpus,
		.memory_mb = s->memory_mb,
		.disk_mb = s->disk_size_mb,
		.internet = s->internet,
		.lifecycle = &life };

	e2b_network_write(&network, s);
	d.network = network.data;
	return reply_with(r, sandbox_detail_fields, &d);
}

int
sandbox_reply(struct request *r, const struct q_sandbox *s, int status)
{
	struct sandbox_shape shape;

	sandbox_shape(r, s, &shape);
	(void)reply_with(r, sandbox_shape_fields, &shape);
	r->status = status;
	return 0;
}

int
sandbox_any(struct request *r, const char *id, struct q_sandbox **ret)
{
	struct uuid u;
	int n = id_read(id, "", &u) ? q_e2b_get(r->work.db, ret, .id = &u) : 0;

	return n < 0 ? -1 : n ? 0 : fail(r, E_NOT_FOUND, "sandbox not found");
}

int
sandbox_find(struct request *r, const char *id, struct q_sandbox **ret)
{
	if (sandbox_any(r, id, ret) < 0)
		return -1;
	return (*ret)->state ? 0 : fail(r, E_NOT_FOUND, "sandbox not found");
}

int
sandbox_again(struct request *r, const struct uuid *id, struct q_sandbox **ret)
{
	int n = q_e2b_get(r->work.db, ret, .id = id);

	return n < 0 ? -1 : n ? 0 : fail(r, E_NOT_FOUND, "the sandbox is gone");
}
