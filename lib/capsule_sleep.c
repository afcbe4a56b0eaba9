/* capsule_sleep.c - pause, resume, hibernate; see capsule_op.h. */
#include "capsule_steps.h"
#include "cleanup.h"
#include "crash.h"

#include <inttypes.h>
#include <string.h>

enum { WAKE_TRIES = 3 };

const char *
op_slept(struct work *w, const char *by, int64_t bytes)
{
	if (bytes > 0)
		return talloc_asprintf(w, "{\"reason\":\"%s\",\"bytes\":%" PRId64 "}", by, bytes);
	return talloc_asprintf(w, "{\"reason\":\"%s\"}", by);
}

static const char *
by_body(struct work *w, const char *by, const char *more)
{
	return talloc_asprintf(w, "{\"by\":\"%s\"%s}", by ? by : "user", more);
}

/* The disk of an ended one, sealed so that it starts elsewhere (recover). */
static bool
recovers(const struct q_capsule_op *c)
{
	return strcmp(c->observed_state, "hibernating") == 0 &&
	    strcmp(c->desired_state, "running") == 0;
}

/*
 * A pause or hibernation failed: what the host says holds, running or paused (spec 02 §1.3). Keeps
 * the unit's error, returns -1; when the host does not say, the operation is made again.
 */
static int
settle(
    struct work *w, const struct job_ref *job, const struct q_capsule_op *c, const char *operation)
{
	struct err cause = w->err;
	const char *text = err_kinds[cause.code].text, *state;
	struct json_object *now;
	int n;

	if (recovers(c))
		return op_failed(w, job, c, c->epoch, "recover", "restore_failed");
	w->err = (struct err){ 0 };
	if (op_call(w, c, "GET", "", NULL, 0, NULL, 5000, &now) < 0)
		return -1;
	state = json_str(now, "state", "");
	if (strcmp(state, "running") != 0 && strcmp(state, "paused") != 0) {
		w->err = cause;
		return -1; /* it ended meanwhile: the report and the inventory say so */
	}
	if (op_begin(w, job) < 0)
		return -1;
	if (strcmp(state, "running") == 0)
		n = q_life_runs_on(w->db, .id = c->id, .epoch = c->epoch, .was = c->observed_state);
	else
		n = q_life_paused(w->db, .id = c->id, .epoch = c->epoch, .was = c->observed_state,
		    .residency = json_str(now, "residency", "ram"),
		    .by = c->paused_by ? c->paused_by : "user");
	if (n < 0 ||
	    (n > 0 &&
		op_event_error(w, c, "capsule.pause_failed", operation, err_kinds[cause.code].slug,
		    text) < 0) ||
	    db_commit(w->db) < 0)
		return -1;
	w->err = cause;
	return -1;
}

int
capsule_op_pause(struct work *w, const struct op_env *env, const struct job_ref *job,
    const struct op_args *a, int64_t wait_ms)
{
	struct json_object *answer;
	struct q_capsule_op *c;
	const char *by;
	int n = q_capsule_for_op(w->db, &c, .id = a->capsule);

	if (n <= 0)
		return n;
	if (c->epoch != a->epoch || strcmp(c->observed_state, "pausing") != 0)
		return 0;
	crash_point("pause.2");
	by = c->paused_by ? c->paused_by : "user";
	if (op_call(w, c, "POST", "/pause", "pause", c->epoch, by_body(w, by, ""), wait_ms,
		&answer) < 0)
		return op_unknown(&w->err) ? -1 : settle(w, job, c, "pause");
	crash_point("pause.6");
	if (op_begin(w, job) < 0)
		return -1;
	n = q_life_paused(w->db, .id = c->id, .epoch = c->epoch, .was = "pausing",
	    .residency = json_str(answer, "residency", "ram"), .by = by);
	if (n < 0 ||
	    (n > 0 &&
		op_event(w, c, "capsule.paused", op_slept(w, by, json_int(answer, "bytes", 0))) <
		    0))
		return -1;
	return op_commit(w, env);
}

/* A wake that failed: asleep as before; the third time in a row from RAM or disk it is an error,
   with the image kept. */
static int
sleeps_on(struct work *w, const struct job_ref *job, const struct q_capsule_op *c)
{
	struct err cause = w->err;
	const char *to = "paused", *text = err_kinds[cause.code].text;
	bool error = false;
	int n;

	if (strcmp(c->wake_from, "image") == 0)
		to = "hibernated";
	else if (strcmp(c->wake_from, "disk") == 0 || c->failures + 1 >= WAKE_TRIES)
		error = true;
	w->err = (struct err){ 0 };
	if (op_begin(w, job) < 0)
		return -1;
	n = q_life_sleeps_on(w->db, .id = c->id, .epoch = c->epoch, .to = error ? "error" : to,
	    .code = "restore_failed", .message = text);
	if (n < 0 ||
	    (n > 0 && error &&
		op_event_error(w, c, "capsule.error", "resume", "restore_failed", text) < 0) ||
	    db_commit(w->db) < 0)
		return -1;
	w->err = cause;
	return -1;
}

/* The instance that the host holds: its call is /resume; an image starts like a new capsule. */
static int
wake_call(struct work *w, const struct op_env *env, const struct q_capsule_op *c, int64_t wait_ms,
    struct json_object **answer)
{
	const char *body = op_start_body(w, env, c, c->epoch);

	if (!body)
		return -1;
	if (strcmp(c->wake_from, "image") == 0)
		return op_pull(w, c, wait_ms) < 0
		    ? -1
		    : op_call(w, c, "PUT", "", "start", c->epoch, body, wait_ms, answer);
	return op_call(w, c, "POST", "/resume", "resume", c->epoch, body, wait_ms, answer);
}

int
capsule_op_resume(struct work *w, const struct op_env *env, const struct job_ref *job,
    const struct op_args *a, int64_t wait_ms)
{
	struct json_object *answer;
	struct q_capsule_op *c;
	const char *from;
	int n = q_capsule_for_op(w->db, &c, .id = a->capsule);

	if (n <= 0)
		return n;
	if (c->epoch != a->epoch || strcmp(c->observed_state, "resuming") != 0 || !c->wake_from)
		return 0;
	if (c->op && strcmp(c->op, "rollback") == 0)
		return 0; /* that job's last step */
	crash_point("resume.2");
	from = strcmp(c->wake_from, "image") == 0 ? "hibernated"
	    : strcmp(c->wake_from, "disk") == 0   ? "error"
						  : "paused";
	if (wake_call(w, env, c, wait_ms, &answer) < 0)
		return op_unknown(&w->err) ? -1 : sleeps_on(w, job, c);
	crash_point("resume.6");
	return op_running(w, env, job, c, from, answer);
}

static int
mark_hibernated(struct work *w, const struct op_env *env, const struct job_ref *job,
    const struct q_capsule_op *c, struct json_object *answer)
{
	const char *by = c->paused_by ? c->paused_by : "user";
	struct sealed s;
	int n;

	if (op_begin(w, job) < 0)
		return -1;
	if (op_sealed(w, c->host_id, answer, &s) < 0)
		return -1;
	n = q_life_hibernated(
	    w->db, .id = c->id, .epoch = c->epoch, .was = "hibernating", .by = by);
	if (n == 0)
		db_rollback(w->db);
	if (n <= 0)
		return n;
	if (op_image(w, c, &s) < 0 ||
	    op_event(w, c, "capsule.hibernated", op_slept(w, by, s.bytes)) < 0)
		return -1;
	return op_commit(w, env);
}

/* Sealed; now it starts where there is room. Without any it sleeps, and nothing is lost. */
static int
start_sealed(struct work *w, const struct op_env *env, const struct job_ref *job,
    const struct q_capsule_op *c)
{
	struct wake_ask ask = {
		.id = c->id, .cause = "recover", .cold = true, .timeout_sec = NULL_INT4
	};
	struct wake woken;

	if (op_begin(w, job) < 0)
		return -1;
	if (capsule_wake(w, env, &ask, &woken) >= 0)
		return op_commit(w, env);
	db_rollback(w->db);
	w->err = (struct err){ 0 };
	return 0;
}

int
capsule_op_hibernate(struct work *w, const struct op_env *env, const struct job_ref *job,
    const struct op_args *a, int64_t wait_ms)
{
	struct json_object *answer;
	struct q_capsule_op *c;
	int n = q_capsule_for_op(w->db, &c, .id = a->capsule);

	if (n <= 0)
		return n;
	if (c->epoch != a->epoch || strcmp(c->observed_state, "hibernating") != 0)
		return 0;
	crash_point("hibernate.2");
	if (op_call(w, c, "POST", "/hibernate", "hibernate", c->epoch,
		by_body(w, c->paused_by,
		    a->memory && !recovers(c) ? ",\"memory\":true" : ",\"memory\":false"),
		wait_ms, &answer) < 0)
		return op_unknown(&w->err) ? -1 : settle(w, job, c, "hibernate");
	crash_point("hibernate.6");
	if (mark_hibernated(w, env, job, c, answer) < 0)
		return -1;
	return recovers(c) ? start_sealed(w, env, job, c) : 0;
}
