/* snapshot.c - see snapshot.h. */
#include "snapshot.h"
#include "audit.h"
#include "capsule_steps.h"
#include "cleanup.h"
#include "cron.h"
#include "event.h"
#include "log.h"
#include "rfc3339.h"
#include "snapshots.q.h"

#include <inttypes.h>
#include <string.h>
#include <time.h>

static void
put_list(struct buf *b, const char *const *t)
{
	const char *const *first = t;

	buf_chr(b, '[');
	for (; t && *t; t++) {
		if (t != first)
			buf_chr(b, ',');
		buf_json(b, *t);
	}
	buf_chr(b, ']');
}

static const char *
spec(struct work *w, const struct q_capsule_op *c)
{
	struct buf b = BUF(w);

	buf_fmt(&b, "{\"template_id\":\"%s\",\"template\":", id_text(w, "tpl-", c->template_id));
	buf_json(&b, c->template_name);
	buf_fmt(&b,
	    ",\"template_version\":%d,\"vcpus\":%d,\"memory_mb\":%d,\"disk_size_mb\":%d,\"user\":",
	    c->template_version, c->vcpus, c->memory_mb, c->disk_size_mb);
	buf_json(&b, c->guest_user);
	buf_str(&b, ",\"workdir\":");
	buf_json(&b, c->workdir);
	buf_fmt(&b, ",\"network\":%s,\"tags\":", c->network);
	put_list(&b, c->tags);
	buf_fmt(&b, ",\"epoch\":%" PRId64 ",\"env_names\":", c->epoch);
	put_list(&b, c->env_names);
	buf_chr(&b, '}');
	return b.data;
}

static const char *
usual_name(struct work *w, const char *kind, const struct uuid *id)
{
	static const struct {
		const char *kind, *prefix;
	} names[] = { { "pre_op", "before-rollback" }, { "last", "last" },
		{ "scheduled", "scheduled" }, { "manual", "snap" } };
	size_t i = 0;

	while (i < nitems(names) - 1 && strcmp(names[i].kind, kind) != 0)
		i++;
	return talloc_asprintf(
	    w, "%s-%s", names[i].prefix, id_text(w, "snp-", id) + strlen("snp-") + 15);
}

int
snapshot_add(struct work *w, const struct keys *k, const struct q_capsule_op *c,
    const struct snapshot_ask *a, struct uuid *ret)
{
	struct bytes envs = capsule_envs_open(w, k, c->id, c->envs_enc, &w->err), sealed = { 0 };
	int n;

	*ret = uuid_new();
	if (!envs.p)
		return -1;
	if (c->envs_enc.p)
		sealed =
		    capsule_envs_seal(w, k, ret, talloc_strndup(w, (const char *)envs.p, envs.n));
	n = q_snapshot_insert(w->db, .id = ret, .team = c->team_id, .capsule = c->id,
	    .name = a->name ? a->name : usual_name(w, a->kind, ret),
	    .description = a->description ? a->description : "", .kind = a->kind,
	    .memory = a->memory, .spec = spec(w, c), .envs_enc = sealed,
	    .metadata = a->metadata ? a->metadata : "{}", .expires_in_sec = a->expires_in_sec,
	    .user = a->user);
	if (n < 0 && w->err.code == E_CONFLICT)
		snprintf(w->err.text, sizeof w->err.text, "the capsule has a snapshot %s", a->name);
	return n < 0 ? -1 : 0;
}

int
snapshot_of_image(struct work *w, const struct q_capsule_op *c, const struct uuid *id, bool memory)
{
	bool whole = memory && c->image_memory.p;
	int64_t logical = ((int64_t)c->disk_size_mb + (whole ? c->memory_mb : 0)) << 20;

	return q_snapshot_ready(w->db, .id = id,
		   .memory = memory ? c->image_memory : (struct bytes){ 0 }, .disk = c->image_disk,
		   .cpu_class = c->image_class, .logical = logical,
		   .unique = c->image_bytes == NULL_INT ? 0 : c->image_bytes) < 0
	    ? -1
	    : 0;
}

/* --- by the clock --------------------------------------------------------------------------- */

static bool
is(const struct q_capsule_op *c, const char *state)
{
	return strcmp(c->observed_state, state) == 0;
}

static int
skipped(struct work *w, const struct q_capsule_op *c, const char *code)
{
	return op_event(w, c, "snapshot.skipped",
	    talloc_asprintf(w, "{\"capsule_id\":\"%s\",\"kind\":\"scheduled\",\"code\":\"%s\"}",
		id_text(w, "cl-", c->id), code));
}

static int
audit(struct work *w, enum audit_kind kind, const struct uuid *team, const struct uuid *capsule,
    const struct uuid *id, const char *cause)
{
	const char *snapshot = id_text(w, "snp-", id);

	return audit_add(w, kind,
	    &(struct audit){ .team = team,
		.capsule = capsule,
		.resource_id = snapshot,
		.metadata = talloc_asprintf(w, "{\"cause\":\"%s\"}", cause),
		.data = kind == AUDIT_SNAPSHOT_DELETE
		    ? talloc_asprintf(
			  w, "{\"snapshot_id\":\"%s\",\"kind\":\"scheduled\"}", snapshot)
		    : NULL });
}

/* Taken, or begun; *why: why not. */
static int
take(struct work *w, const struct op_env *env, const struct q_capsule_op *c, bool memory,
    const char **why)
{
	struct op_args args = { .capsule = c->id, .epoch = c->epoch, .memory = memory };
	struct job_ref job;
	struct uuid id;

	*why = c->op ? "busy" : c->observed_state;
	if (c->op || (!is(c, "running") && !is(c, "paused") && !is(c, "hibernated")))
		return skipped(w, c, *why);
	*why = NULL;
	if (snapshot_add(w, env->keys, c,
		&(struct snapshot_ask){
		    .kind = "scheduled", .memory = memory, .expires_in_sec = NULL_INT },
		&id) < 0)
		return -1;
	if (is(c, "hibernated")) {
		if (snapshot_of_image(w, c, &id, memory) < 0)
			return -1;
	} else {
		args.snapshot = &id;
		if (capsule_job(w, "capsule.snapshot", c->team_id, &args, NULL, &job, NULL) < 0 ||
		    q_life_op(w->db, .id = c->id, .epoch = c->epoch, .was = c->observed_state,
			.op = "snapshot", .job = &job.id) <= 0)
			return -1;
	}
	return audit(w, AUDIT_SNAPSHOT_CREATE, c->team_id, c->id, &id, "policy");
}

static int
prune(struct work *w, const struct q_snapshot_turn *p)
{
	struct q_snapshot_due *old;
	int n = q_snapshots_prune(
		w->db, &old, .capsule = p->capsule_id, .last = p->keep_last, .days = p->keep_days),
	    i;

	for (i = 0; i < n; i++)
		if (audit(w, AUDIT_SNAPSHOT_DELETE, old[i].team_id, old[i].capsule_id, old[i].id,
			"policy") < 0)
			return -1;
	return n < 0 ? -1 : 0;
}

static int
turn(struct work *w, const struct op_env *env, const struct q_snapshot_turn *p)
{
	struct q_capsule_op *c;
	const char *why;
	int64_t next;

	if (q_capsule_for_op(w->db, &c, .id = p->capsule_id) <= 0 ||
	    cron_next(p->cron, time(NULL), &next, &w->err) < 0 ||
	    take(w, env, c, p->memory, &why) < 0 || prune(w, p) < 0)
		return -1;
	return q_snapshot_turned(
	    w->db, .capsule = p->capsule_id, .next = next * 1000000, .error = why);
}

/* What went wrong is told once; the next turn is tried again. */
static int
missed(struct work *w, const struct q_snapshot_turn *p)
{
	struct err cause = w->err;
	struct q_capsule_op *c;
	int64_t next;

	log_warn(w->id, "snapshot policy: %s: %s", id_text(w, "cl-", p->capsule_id), cause.text);
	db_rollback(w->db);
	w->err = (struct err){ 0 };
	db_begin(w->db);
	if (q_capsule_for_op(w->db, &c, .id = p->capsule_id) <= 0 ||
	    cron_next(p->cron, time(NULL), &next, &w->err) < 0 ||
	    skipped(w, c, err_kinds[cause.code].slug) < 0 ||
	    q_snapshot_turned(w->db, .capsule = p->capsule_id, .next = next * 1000000,
		.error = err_kinds[cause.code].slug) < 0)
		return -1;
	return db_commit(w->db);
}

int
snapshot_clock(struct work *w, const struct op_env *env)
{
	struct q_snapshot_turn *p;
	int n = q_snapshot_turns(w->db, &p), i;

	for (i = 0; i < n; i++) {
		db_begin(w->db);
		if ((turn(w, env, &p[i]) < 0 || db_commit(w->db) < 0) && missed(w, &p[i]) < 0)
			return -1;
	}
	return n < 0 ? -1 : 0;
}
