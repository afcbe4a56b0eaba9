/*
 * snapshot_policy.c - snapshots of a capsule that are taken by the clock (spec 02 §2.4).
 *
 * The clock is lib/snapshot.c. Queries: sql/queries/snapshots.sql.  Tests: tests/http/life.t,
 * tests/vm/life3_test.py.
 */
#include "audit.h"
#include "capsules.h"
#include "cleanup.h"
#include "cron.h"

#include <string.h>
#include <time.h>

static handler policy_get, policy_put;

enum { KEEP_LAST = 10, KEEP_DAYS = 30 };

static const struct field snapshot_policy_fields[] = {
	FIELD(q_snapshot_policy, cron, "cron", .doc = "null: none."),
	FIELD(q_snapshot_policy, keep_last, "keep_last", .flags = NEEDED),
	FIELD(q_snapshot_policy, keep_days, "keep_days", .flags = NEEDED),
	FIELD(q_snapshot_policy, memory, "memory", .flags = NEEDED),
	FIELD(q_snapshot_policy, next_at, "next_at", .format = "date-time"),
	FIELD(
	    q_snapshot_policy, last_error, "last_error", .doc = "Why the last one was not taken."),
	{ 0 },
};

struct policy_put {
	const struct uuid *id;
	const char *cron;
	int32_t keep_last, keep_days;
	bool memory;
};
static const struct field policy_put_fields[] = {
	PATH_ID(policy_put, "cl-"),
	FIELD(policy_put, cron, "cron", .max = 200,
	    .doc = "Minute, hour, day, month, weekday, in UTC; null: no more."),
	FIELD(policy_put, keep_last, "keep_last", .min = 1, .max = 1000, .dflt = KEEP_LAST),
	FIELD(policy_put, keep_days, "keep_days", .min = 1, .max = 3650, .dflt = KEEP_DAYS),
	FIELD(policy_put, memory, "memory", .dflt = 1),
	{ 0 },
};

/* clang-format off */
const struct route snapshot_policy_routes[] = {
	{ "GET", "/v1/capsules/{id}/snapshot-policy", POOL_API, PERM_capsules_view, policy_get, "When snapshots of a capsule are taken by the clock", 0, 200, .in = by_capsule_fields, .insize = sizeof(struct by_capsule), OUT(snapshot_policy) },
	{ "PUT", "/v1/capsules/{id}/snapshot-policy", POOL_API, PERM_snapshots_manage, policy_put, "Take snapshots of a capsule by the clock", 0, 200, IN(policy_put), OUT(snapshot_policy) },
	{ 0 },
};
/* clang-format on */

static int
reply(struct request *r, const struct uuid *capsule)
{
	struct q_snapshot_policy none = {
		.keep_last = KEEP_LAST, .keep_days = KEEP_DAYS, .memory = true, .next_at = NULL_INT
	};
	struct q_snapshot_policy *row;
	int n = q_snapshot_policy_get(r->work.db, &row, .capsule = capsule);

	return n < 0 ? -1 : reply_row(r, 1, n ? row : &none);
}

static int
policy_get(struct request *r)
{
	const struct by_capsule *in = r->in;
	struct q_capsule *row;
	int n = q_capsule_get(r->work.db, &row, .id = in->id);

	return n <= 0 ? reply_row(r, n, NULL) : reply(r, in->id);
}

static int
policy_put(struct request *r)
{
	const struct policy_put *in = r->in;
	struct q_capsule *row;
	int64_t next;
	int n;

	if (capsule_own(
		r, in->id, "only admins do this with capsules that somebody else made", &row) < 0)
		return -1;
	if (strcmp(row->state, "stopping") == 0 || strcmp(row->state, "stopped") == 0)
		return fail(r, E_BAD_STATE, "the capsule is %s", row->state);
	if (in->cron) {
		if (cron_next(in->cron, time(NULL), &next, &r->work.err) < 0)
			return -1;
		n = q_snapshot_policy_set(r->work.db, .capsule = in->id, .team = r->who.team,
		    .cron = in->cron, .last = in->keep_last, .days = in->keep_days,
		    .memory = in->memory, .next = next * 1000000);
	} else
		n = q_snapshot_policy_off(r->work.db, .capsule = in->id);
	if (n < 0 ||
	    audit_add(&r->work, AUDIT_SNAPSHOT_POLICY,
		&(struct audit){ .team = r->who.team,
		    .capsule = in->id,
		    .resource_id = id_text(r, "cl-", in->id),
		    .metadata = in->cron ? "{\"changed\":[\"cron\",\"keep_last\",\"keep_days\","
					   "\"memory\"]}"
					 : "{\"changed\":[\"cron\"]}" }) < 0)
		return -1;
	return reply(r, in->id);
}
