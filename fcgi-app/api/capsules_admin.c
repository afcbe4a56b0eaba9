/*
 * capsules_admin.c - capsules of every team, for operators and administrators of the platform (spec
 * 02 §2.3): list, get, destroy. What is in them (exec, files, streams) is never theirs, but in the
 * Platform's own: those routes have the flag OF_PLATFORM (capsules_create.c, gateway).
 *
 * Queries: sql/queries/capsules.sql.  Tests: tests/http/operators.py.
 */
#include "capsules_list.h"
#include "cleanup.h"

static handler any_list, any_get, any_destroy;

static const struct field any_filter_fields[] = {
	FIELD(capsule_filter, team, "team", .flags = IN_QUERY, .prefix = "team-",
	    .doc = "Absent: of all teams."),
	CAPSULE_FILTER_FIELDS,
	{ 0 },
};

struct any_destroy {
	const struct uuid *id;
	int32_t wait;
};
static const struct field any_destroy_fields[] = {
	PATH_ID(any_destroy, "cl-"),
	WAIT_FIELD(any_destroy),
	{ 0 },
};

/* clang-format off */
const struct route capsule_admin_routes[] = {
	{ "GET", "/v1/admin/capsules", POOL_API, PLATFORM_READ, any_list, "Capsules of all teams, newest first", LISTS, 200, .in = any_filter_fields, .insize = sizeof(struct capsule_filter), OUT(capsule) },
	{ "GET", "/v1/admin/capsules/{id}", POOL_API, PLATFORM_READ, any_get, "A capsule of any team", 0, 200, IN(by_capsule), OUT(capsule) },
	{ "DELETE", "/v1/admin/capsules/{id}", POOL_OPS, PLATFORM_READ, any_destroy, "Destroy a capsule of any team", 0, 204, IN(any_destroy) },
	{ 0 },
};
/* clang-format on */

static int
any_list(struct request *r)
{
	const struct capsule_filter *in = r->in;
	struct q_capsule_list q;
	struct q_capsule *rows;
	struct page p;
	int n;

	if (capsule_list_query(r, in, &p, &q) < 0)
		return -1;
	n = q_admin_capsule_list(r->work.db, &rows, .team = in->team, .state = q.state,
	    .template = q.template, .tags = q.tags, .tag_any = q.tag_any,
	    .created_after = q.created_after, .created_before = q.created_before, .name = q.name,
	    .owner = q.owner, .metadata = q.metadata, .before = q.before, .before_id = q.before_id,
	    .limit = q.limit);
	return capsule_list_reply(r, &p, rows, n);
}

static int
any_get(struct request *r)
{
	const struct by_capsule *in = r->in;
	struct q_capsule *row;
	struct capsule c;
	int n = q_admin_capsule_get(r->work.db, &row, .id = in->id);

	if (n > 0)
		capsule_complete(r, row, &c);
	return reply_row(r, n, &c);
}

/* As its team's own DELETE: the row in the team's log names who it was. */
static int
any_destroy(struct request *r)
{
	const struct any_destroy *in = r->in;
	struct q_capsule *row;
	int n = q_admin_capsule_get(r->work.db, &row, .id = in->id);

	if (n <= 0)
		return reply_done(r, n);
	if (capsule_end_of(r, row, wait_or(in->wait, WAIT_SHORT), capsule_ended) < 0)
		return -1;
	return reply_done(r, 1);
}
