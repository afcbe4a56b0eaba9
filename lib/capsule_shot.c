/* capsule_shot.c - snapshot and rollback; see capsule_op.h. */
#include "capsule_steps.h"
#include "cleanup.h"
#include "crash.h"
#include "snapshots.q.h"

#include <inttypes.h>
#include <string.h>

static int
snapshot_event(struct work *w, const struct q_capsule_op *c, const char *type,
    const struct uuid *snapshot, const char *kind, const char *more)
{
	return op_event(w, c, type,
	    talloc_asprintf(w, "{\"snapshot_id\":\"%s\",\"capsule_id\":\"%s\",\"kind\":\"%s\"%s}",
		id_text(w, "snp-", snapshot), id_text(w, "cl-", c->id), kind, more));
}

/* It could not be taken: the row says so, the capsule is as before. Keeps the error, returns -1. */
static int
shot_failed(struct work *w, const struct job_ref *job, const struct q_capsule_op *c,
    const struct q_snapshot *s, const char *op)
{
	struct err cause = w->err;
	const char *code = err_kinds[cause.code].slug;
	int n;

	w->err = (struct err){ 0 };
	if (op_begin(w, job) < 0)
		return -1;
	n = q_snapshot_failed(
	    w->db, .id = s->id, .code = code, .message = err_kinds[cause.code].text);
	if (n < 0 || q_life_op_end(w->db, .id = c->id, .op = op) < 0 ||
	    (n > 0 &&
		snapshot_event(w, c, "snapshot.failed", s->id, s->kind,
		    talloc_asprintf(w, ",\"code\":\"%s\"", code)) < 0) ||
	    db_commit(w->db) < 0)
		return -1;
	w->err = cause;
	return -1;
}

/* creating -> ready. ends: the operation that ends with it, or NULL. */
static int
shoot(struct work *w, const struct op_env *env, const struct job_ref *job,
    const struct q_capsule_op *c, const struct q_snapshot *s, const char *ends, int64_t wait_ms)
{
	const char *id = id_text(w, "snp-", s->id);
	struct json_object *answer;
	struct sealed sealed;
	int n;

	if (op_call(w, c, "POST", "/snapshot", id, c->epoch,
		talloc_asprintf(
		    w, "{\"snapshot\":\"%s\",\"memory\":%s}", id, s->memory ? "true" : "false"),
		wait_ms, &answer) < 0)
		return op_unknown(&w->err) ? -1
					   : shot_failed(w, job, c, s, ends ? ends : "rollback");
	crash_point("snapshot.6");
	if (op_begin(w, job) < 0)
		return -1;
	if (op_sealed(w, c->host_id, answer, &sealed) < 0) {
		if (w->err.code != E_AGENT)
			return -1;
		db_rollback(w->db); /* what it says is no snapshot: it has failed */
		return shot_failed(w, job, c, s, ends ? ends : "rollback");
	}
	n = q_snapshot_ready(w->db, .id = s->id, .memory = sealed.memory, .disk = sealed.disk,
	    .cpu_class = sealed.cpu_class, .logical = json_int(answer, "bytes_logical", 0),
	    .unique = json_int(answer, "bytes_unique", 0));
	if (n < 0 ||
	    (n > 0 &&
		snapshot_event(w, c, "snapshot.created", s->id, s->kind,
		    talloc_asprintf(
			w, ",\"bytes\":%" PRId64, json_int(answer, "bytes_unique", 0))) < 0))
		return -1;
	if (ends && q_life_op_end(w->db, .id = c->id, .op = ends) < 0)
		return -1;
	return op_commit(w, env);
}

/* The last one is there: now the capsule may go, and not before. */
static int
then_destroy(struct work *w, const struct op_env *env, const struct job_ref *job,
    const struct q_capsule_op *c)
{
	if (op_begin(w, job) < 0 || q_life_op_end(w->db, .id = c->id, .op = "snapshot") < 0 ||
	    capsule_destroy_for(w, c->team_id, c->id, c->epoch, "user") < 0)
		return -1;
	return op_commit(w, env);
}

int
capsule_op_snapshot(struct work *w, const struct op_env *env, const struct job_ref *job,
    const struct op_args *a, int64_t wait_ms)
{
	struct q_capsule_op *c;
	struct q_snapshot *s;
	int n = q_capsule_for_op(w->db, &c, .id = a->capsule);

	if (n <= 0)
		return n;
	n = q_snapshot_for_op(w->db, &s, .id = a->snapshot);
	if (n <= 0)
		return n;
	if (strcmp(s->state, "creating") != 0)
		return a->destroy && strcmp(s->state, "ready") == 0 ? then_destroy(w, env, job, c)
								    : 0;
	crash_point("snapshot.2");
	if (!c->host_id || c->epoch != a->epoch ||
	    (strcmp(c->observed_state, "running") != 0 &&
		strcmp(c->observed_state, "paused") != 0)) {
		(void)err_set(&w->err, E_BAD_STATE, "the capsule is %s", c->observed_state);
		return shot_failed(w, job, c, s, "snapshot");
	}
	if (shoot(w, env, job, c, s, "snapshot", wait_ms) < 0)
		return -1;
	return a->destroy ? then_destroy(w, env, job, c) : 0;
}

/* --- rollback ------------------------------------------------------------------------------- */

/* The host did not do it: the capsule is as before, at the epoch that the host names. */
static int
roll_failed(struct work *w, const struct job_ref *job, const struct q_capsule_op *c)
{
	struct err cause = w->err;
	struct json_object *now;
	const char *state;
	int n;

	w->err = (struct err){ 0 };
	if (op_call(w, c, "GET", "", NULL, 0, NULL, 5000, &now) < 0)
		return -1;
	state = json_str(now, "state", "");
	if (op_begin(w, job) < 0)
		return -1;
	if (strcmp(state, "running") == 0 || strcmp(state, "paused") == 0)
		n = q_life_back(w->db, .id = c->id, .epoch = c->epoch, .to = state,
		    .held = json_int(now, "epoch", c->epoch - 1));
	else
		n = q_capsule_failed(w->db, .id = c->id, .epoch = c->epoch,
		    .code = "restore_failed", .message = err_kinds[cause.code].text,
		    .was = "resuming");
	if (n < 0 || q_life_image_drop(w->db, .id = c->id, .epoch = c->epoch) < 0 ||
	    q_life_op_end(w->db, .id = c->id, .op = "rollback") < 0 ||
	    (n > 0 &&
		op_event_error(w, c, "capsule.error", "rollback", "restore_failed",
		    err_kinds[cause.code].text) < 0) ||
	    db_commit(w->db) < 0)
		return -1;
	w->err = cause;
	return -1;
}

/* running, paused -> resuming at the next epoch, with the snapshot as its image. */
static int
roll_begin(struct work *w, const struct job_ref *job, const struct q_capsule_op *c,
    const struct q_snapshot *s)
{
	int n;

	if (op_begin(w, job) < 0)
		return -1;
	n = q_life_roll(w->db, .id = c->id, .epoch = c->epoch, .was = c->observed_state,
	    .cold = !s->memory_artifact.p);
	if (n <= 0)
		return n;
	if (q_life_image_add(w->db, .id = c->id, .epoch = c->epoch + 1, .team = c->team_id,
		.memory = s->memory_artifact, .disk = s->disk_artifact,
		.cpu_class = s->cpu_class ? s->cpu_class : "", .bytes = s->bytes_unique) < 0)
		return -1;
	return db_commit(w->db) < 0 ? -1 : 1;
}

static int
roll_end(struct work *w, const struct op_env *env, const struct job_ref *job,
    const struct q_capsule_op *c, const struct uuid *snapshot)
{
	const char *data =
	    talloc_asprintf(w, "{\"snapshot_id\":\"%s\"}", id_text(w, "snp-", snapshot));

	if (op_begin(w, job) < 0)
		return -1;
	if (q_life_op_end(w->db, .id = c->id, .op = "rollback") > 0 &&
	    op_event(w, c, "capsule.rolled_back", data) < 0)
		return -1;
	return op_commit(w, env);
}

static int
roll(struct work *w, const struct op_env *env, const struct job_ref *job,
    const struct q_capsule_op *c, const struct uuid *snapshot, int64_t wait_ms)
{
	const char *who = op_identity(w, env, c);
	struct buf body = BUF(w);
	struct json_object *answer;
	char hex[65];

	if (!who)
		return -1;
	buf_str(&body, "{\"memory\":");
	if (c->image_memory.p && !c->wake_cold)
		buf_fmt(&body, "\"%s\"", hex_write(hex, c->image_memory.p, 32));
	else
		buf_str(&body, "null");
	buf_fmt(&body, ",\"disk\":\"%s\",\"template\":", hex_write(hex, c->image_disk.p, 32));
	buf_json(&body, c->template_name);
	buf_fmt(&body, ",\"vcpus\":%d,\"memory_mb\":%d,\"disk_size_mb\":%d,%s,", c->vcpus,
	    c->memory_mb, c->disk_size_mb, who);
	op_times(&body, c);
	buf_chr(&body, '}');
	if (op_pull(w, c, wait_ms) < 0 ||
	    op_call(w, c, "POST", "/rollback", "rollback", c->epoch, body.data, wait_ms, &answer) <
		0)
		return op_unknown(&w->err) ? -1 : roll_failed(w, job, c);
	crash_point("rollback.6");
	if (op_running(w, env, job, c, "rollback", answer) < 0)
		return -1;
	return roll_end(w, env, job, c, snapshot);
}

int
capsule_op_rollback(struct work *w, const struct op_env *env, const struct job_ref *job,
    const struct op_args *a, int64_t wait_ms)
{
	struct q_snapshot *s, *safety;
	struct q_capsule_op *c;
	int n = q_capsule_for_op(w->db, &c, .id = a->capsule);

	if (n <= 0)
		return n;
	if (!c->op || strcmp(c->op, "rollback") != 0 || !c->host_id)
		return 0;
	if (c->epoch == a->epoch && a->safety) {
		if (q_snapshot_for_op(w->db, &safety, .id = a->safety) > 0 &&
		    strcmp(safety->state, "creating") == 0) {
			crash_point("rollback.2");
			if (shoot(w, env, job, c, safety, NULL, wait_ms) < 0)
				return -1;
		}
	}
	crash_point("rollback.3");
	if (c->epoch == a->epoch) {
		if (q_snapshot_for_op(w->db, &s, .id = a->snapshot) <= 0 || !s->disk_artifact.p) {
			(void)err_set(&w->err, E_NOT_FOUND, "the snapshot is gone");
			return q_life_op_end(w->db, .id = c->id, .op = "rollback") < 0 ? -1 : -1;
		}
		n = roll_begin(w, job, c, s);
		if (n <= 0 || q_capsule_for_op(w->db, &c, .id = a->capsule) <= 0)
			return n;
	}
	crash_point("rollback.4");
	/* it died between the last two transactions */
	if (c->epoch == a->epoch + 1 && strcmp(c->observed_state, "running") == 0)
		return roll_end(w, env, job, c, a->snapshot);
	if (c->epoch != a->epoch + 1 || strcmp(c->observed_state, "resuming") != 0)
		return 0;
	return roll(w, env, job, c, a->snapshot, wait_ms);
}
