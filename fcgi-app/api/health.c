/*
 * health.c - is the service there, and who am I to it.
 *
 * Queries: sql/queries/health.sql.  Tests: tests/http/health.t.
 */
#include "api.h"
#include "health.q.h"

static handler health, whoami;

struct health {
	const char *status, *version, *database, *redis;
};
static const struct field health_fields[] = {
	FIELD(health, status, "status", .flags = NEEDED, .one_of = "ok|degraded"),
	FIELD(health, version, "version", .flags = NEEDED),
	FIELD(health, database, "database", .flags = NEEDED, .one_of = "ok"),
	FIELD(health, redis, "redis", .flags = NEEDED, .one_of = "ok|away"),
	{ 0 },
};

struct whoami {
	const char *type, *role, *platform_role;
	const struct uuid *user, *key, *team;
	const char *const *permissions;
};
static const struct field whoami_fields[] = {
	FIELD(whoami, type, "type", .flags = NEEDED, .one_of = "user|api_key"),
	FIELD(whoami, user, "user", .flags = OMIT, .prefix = "usr-"),
	FIELD(whoami, key, "key", .flags = OMIT, .prefix = "key-"),
	FIELD(whoami, team, "team", .prefix = "team-"),
	FIELD(whoami, role, "role", .flags = OMIT),
	FIELD(whoami, platform_role, "platform_role", .flags = NEEDED,
	    .one_of = "user|operator|admin"),
	FIELD(whoami, permissions, "permissions", .flags = NEEDED),
	{ 0 },
};

/* clang-format off */
const struct route health_routes[] = {
	{ "GET", "/v1/health", POOL_API, ANYONE, health, "Is the service up", .status = 200, OUT(health) },
	{ "GET", "/v1/auth/whoami", POOL_API, SIGNED_IN_OR_KEY, whoami, "Who the credential is, and what it may do",
	    .status = 200, OUT(whoami) },
	{ 0 },
};
/* clang-format on */

static int
health(struct request *r)
{
	struct health h = {
		.status = "ok", .version = PACKAGE_VERSION, .database = "ok", .redis = "ok"
	};
	struct q_pong *ping;
	auto_reply *pong = NULL;

	if (q_ping(r->work.db, &ping) < 0)
		return -1;
	pong = queue_cmd(r->app->queue, "PING");
	if (!pong) {
		h.redis = "away";
		h.status = "degraded";
	}
	return reply_row(r, 1, &h);
}

static int
whoami(struct request *r)
{
	const struct principal *p = &r->who;
	struct whoami w = { .type = p->type == CALLER_KEY ? "api_key" : "user",
		.role = p->team ? p->role : NULL,
		.platform_role = p->platform_role,
		.user = p->user,
		.key = p->key,
		.team = p->team,
		.permissions = principal_permissions(r, p) };

	return reply_row(r, 1, &w);
}
