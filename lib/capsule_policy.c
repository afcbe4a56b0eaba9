/*
 * capsule_policy.c - what time does to capsules: lifetimes, deadlines, warnings, idle destroys;
 * snapshots and artifacts whose time is over (spec 02 §1.5). See capsule_op.h.
 *
 * Idle pauses are the host agent's own; here is what needs the database, or was lost on the way.
 */
#include "audit.h"
#include "capsule_steps.h"
#include "cleanup.h"
#include "event.h"
#include "log.h"
#include "rfc3339.h"
#include "snapshot.h"
#include "snapshots.q.h"

#include <inttypes.h>
#include <string.h>
#include <time.h>

enum { IDLE_80 = 1, IDLE_60S = 2, EXPIRING_10M = 4, EXPIRING_1M = 8 };
enum { UNNAMED_SECONDS = 3600 };

static int
warn(struct work *w, const struct q_life_policy *p, int bit, const char *type, int64_t left,
    const char *action)
{
	struct buf at = BUF(w);
	int n;

	if (p->warned & bit)
		return 0;
	n = q_life_warned(w->db, .id = p->id, .epoch = p->epoch, .bit = bit);
	if (n <= 0)
		return n;
	time_write(&at, ((int64_t)time(NULL) + left) * 1000000);
	return event_add(w,
	    &(struct event){ .type = type,
		.team = p->team_id,
		.capsule = p->id,
		.resource_type = "sandbox",
		.resource_id = id_text(w, "cl-", p->id),
		.data = talloc_asprintf(w,
		    "{\"idle_s\":%" PRId64 ",\"action\":\"%s\",\"action_at\":\"%s\"}",
		    p->idle_s == NULL_INT ? 0 : p->idle_s, action, at.data) });
}

static int
warnings(struct work *w, const struct q_life_policy *p)
{
	int64_t left;

	if (p->left_s != NULL_INT && p->left_s < 600 &&
	    warn(w, p, EXPIRING_10M, "capsule.expiring", p->left_s, p->on_max_lifetime) < 0)
		return -1;
	if (p->left_s != NULL_INT && p->left_s < 60 &&
	    warn(w, p, EXPIRING_1M, "capsule.expiring", p->left_s, p->on_max_lifetime) < 0)
		return -1;
	if (p->idle_s == NULL_INT || p->timeout_sec == 0 || p->fixed_s != NULL_INT)
		return 0;
	left = p->timeout_sec - p->idle_s;
	if (left < 0)
		return 0;
	if (left * 5 <= p->timeout_sec &&
	    warn(w, p, IDLE_80, "capsule.idle", left, p->idle_action) < 0)
		return -1;
	if (left <= 60 && p->timeout_sec > 60)
		return warn(w, p, IDLE_60S, "capsule.idle", left, p->idle_action);
	return 0;
}

/* Its time is up: asleep by policy, or gone. */
static int
act(struct work *w, const struct q_life_policy *p, const char *action, const char *by)
{
	const char *kind = strcmp(action, "pause") == 0 ? "capsule.pause" : "capsule.hibernate";
	/* what ends by its own clock sleeps as its maker said */
	bool memory = p->idle_memory || strcmp(by, "idle") != 0;
	struct job_ref job;
	int n;

	if (strcmp(action, "destroy") == 0)
		return capsule_destroy_for(w, p->team_id, p->id, p->epoch, by);
	if (strcmp(action, "pause") == 0)
		n = q_life_pause(w->db, .id = p->id, .epoch = p->epoch, .by = by);
	else
		n = q_life_hibernate(
		    w->db, .id = p->id, .epoch = p->epoch, .was = p->observed_state, .by = by);
	if (n <= 0)
		return n;
	return capsule_job(w, kind, p->team_id,
		   &(struct op_args){ .capsule = p->id, .epoch = p->epoch, .memory = memory }, NULL,
		   &job, NULL) < 0
	    ? -1
	    : 1;
}

static int
decide(struct work *w, const struct q_life_policy *p)
{
	bool runs = strcmp(p->observed_state, "running") == 0;
	bool over = p->left_s != NULL_INT && p->left_s <= 0;

	if (strcmp(p->observed_state, "error") == 0)
		return act(w, p, "destroy", "start_failed");
	if (over &&
	    !(strcmp(p->observed_state, "hibernated") == 0 &&
		strcmp(p->on_max_lifetime, "hibernate") == 0))
		return act(w, p, p->on_max_lifetime, "lifetime");
	if (!runs && strcmp(p->idle_action, "destroy") == 0 && p->paused_by &&
	    strcmp(p->paused_by, "idle") == 0)
		return act(w, p, "destroy", "idle");
	if (runs && p->fixed_s != NULL_INT && p->fixed_s <= 0)
		return act(w, p, p->idle_action, "idle");
	return runs ? warnings(w, p) : 0;
}

static int
expire_snapshots(struct work *w)
{
	struct q_snapshot_due *s;
	int n, i;

	db_begin(w->db);
	n = q_snapshots_expire(w->db, &s);
	for (i = 0; i < n; i++)
		if (audit_add(w, AUDIT_SNAPSHOT_DELETE,
			&(struct audit){ .team = s[i].team_id,
			    .capsule = s[i].capsule_id,
			    .resource_id = id_text(w, "snp-", s[i].id),
			    .metadata = "{\"cause\":\"expired\"}",
			    .data = talloc_asprintf(w, "{\"snapshot_id\":\"%s\",\"kind\":\"%s\"}",
				id_text(w, "snp-", s[i].id), s[i].kind) }) < 0)
			return -1;
	if (n < 0 || q_snapshots_lost(w->db) < 0)
		return -1;
	return db_commit(w->db);
}

int
capsule_policy(struct work *w, const struct op_env *env)
{
	struct q_life_policy *p;
	int n = q_life_policies(w->db, &p), i;

	for (i = 0; i < n; i++) {
		db_begin(w->db);
		if (decide(w, &p[i]) < 0 || db_commit(w->db) < 0) {
			/* one capsule's trouble is not the others' */
			log_warn(w->id, "policy: %s: %s", id_text(w, "cl-", p[i].id), w->err.text);
			db_rollback(w->db);
			w->err = (struct err){ 0 };
		}
	}
	if (n < 0 || expire_snapshots(w) < 0 || snapshot_clock(w, env) < 0)
		return -1;
	if (env->queue)
		job_announce(w, env->queue);
	return 0;
}

/* A copy goes first, then the name: a host that still needs it (a child lies on it) says so. */
static int
collect(struct work *w, const struct q_artifact_due *a)
{
	char hex[65];
	struct json_object *answer;
	struct agent_call call = { .method = "DELETE",
		.address = a->dial,
		.op = "gc",
		.epoch = 1,
		.total_ms = 10000,
		.path = talloc_asprintf(w, "/artifacts/%s", hex_write(hex, a->id.p, a->id.n)) };

	if (a->holder && a->dial && agent_send(w, &call, &answer) < 0) {
		if (w->err.code != E_NOT_FOUND) {
			struct err why = w->err;

			w->err = (struct err){ 0 };
			if (q_artifact_needed(w->db, .id = a->id) >= 0)
				w->err = why;
			return -1;
		}
		w->err = (struct err){ 0 };
	}
	if (a->holder && q_artifact_copy_gone(w->db, .id = a->id, .holder = a->holder) < 0)
		return -1;
	return q_artifact_gone(w->db, .id = a->id);
}

int
artifact_gc(struct work *w)
{
	struct q_artifact_due *a;
	int n = q_artifacts_unnamed(w->db, &a, .age = UNNAMED_SECONDS), i;

	for (i = 0; i < n; i++)
		if (collect(w, &a[i]) < 0) {
			log_warn(w->id, "artifact.gc: %s", w->err.text);
			w->err = (struct err){ 0 };
		}
	return n < 0 ? -1 : 0;
}
