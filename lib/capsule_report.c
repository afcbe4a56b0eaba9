/*
 * capsule_report.c - what hosts say of capsules becomes the rows' state; see capsule_op.h.
 *
 * By compare-and-set on epoch and state only, so that a report that comes twice, late, or together
 * with the inventory moves the row once.
 */
#include "audit.h"
#include "capsule_steps.h"
#include "cleanup.h"
#include "jobs.q.h"
#include "quota.h"

#include <inttypes.h>
#include <string.h>

struct capsule_report
capsule_report_read(const struct uuid *id, struct json_object *o)
{
	struct json_object *error = json_get(o, "error");

	return (struct capsule_report){ .id = id,
		.epoch = json_int(o, "epoch", 0),
		.state = json_str(o, "state", ""),
		.code = json_str(error, "code", "vmm_exit"),
		.message = json_str(error, "message", "the virtual machine ended"),
		.residency = json_str(o, "residency", NULL),
		.by = json_str(o, "paused_by", NULL),
		.memory = json_str(o, "memory", NULL),
		.disk = json_str(o, "disk", NULL),
		.memory_parent = json_str(o, "memory_parent", NULL),
		.disk_parent = json_str(o, "disk_parent", NULL),
		.cpu_class = json_str(o, "cpu_class", ""),
		.bytes = json_int(o, "bytes", 0),
		.reboots = json_int(o, "reboots", 0),
		.idle_s = json_int(o, "idle_ms", -1000) / 1000 };
}

static const char *
who_slept(const char *by)
{
	static const char *const known[] = { "user", "idle", "lifetime", "snapshot", "host",
		"drain", "schedule", "client" };
	size_t i;

	for (i = 0; by && i < nitems(known); i++)
		if (strcmp(by, known[i]) == 0)
			return by;
	/* a guest that switched itself off: its user did it */
	return by && strcmp(by, "poweroff") == 0 ? "user" : "host";
}

static bool
is(const char *state, const char *list)
{
	size_t n = strlen(state);
	const char *p;

	for (p = list; (p = strstr(p, state)) != NULL; p += n)
		if ((p == list || p[-1] == ' ') && (p[n] == ' ' || p[n] == '\0'))
			return true;
	return false;
}

int
capsule_destroy_for(
    struct work *w, const struct uuid *team, const struct uuid *id, int64_t epoch, const char *why)
{
	const char *data = talloc_asprintf(w, "{\"reason\":\"%s\"}", why);
	struct job_ref job;
	int n = q_capsule_stop_wanted(w->db, .id = id, .reason = why);

	if (n <= 0)
		return n;
	if (capsule_job(w, "capsule.destroy", team,
		&(struct op_args){ .capsule = id, .epoch = epoch }, NULL, &job, NULL) < 0 ||
	    audit_add(w, AUDIT_SANDBOX_DESTROY,
		&(struct audit){ .team = team,
		    .capsule = id,
		    .resource_id = id_text(w, "cl-", id),
		    .metadata = talloc_asprintf(w, "{\"cause\":\"%s\"}", why),
		    .data = data }) < 0)
		return -1;
	return 1;
}

/* It stopped by itself: its idle time is over, or its host was told so. */
static int
said_paused(struct work *w, const struct q_capsule_op *c, const struct capsule_report *r)
{
	const char *residency = r->residency && strcmp(r->residency, "disk") == 0 ? "disk" : "ram";
	const char *by = who_slept(is(c->observed_state, "pausing") ? c->paused_by : r->by);
	int n;

	if (is(c->observed_state, "paused"))
		return q_life_residency(
		    w->db, .id = c->id, .epoch = c->epoch, .residency = residency);
	if (!is(c->observed_state, "running pausing missing"))
		return 0;
	n = q_life_paused(w->db, .id = c->id, .epoch = c->epoch, .was = c->observed_state,
	    .residency = residency, .by = by);
	if (n <= 0 || (c->missing_from && strcmp(c->missing_from, "paused") == 0))
		return n;
	if (op_event(w, c, "capsule.paused", talloc_asprintf(w, "{\"reason\":\"%s\"}", by)) < 0)
		return -1;
	/* the agent never destroys: it pauses, and here it is decided again */
	if (strcmp(by, "idle") == 0 && strcmp(c->idle_action, "destroy") == 0)
		return capsule_destroy_for(w, c->team_id, c->id, c->epoch, "idle");
	return 1;
}

static int
said_hibernated(struct work *w, const struct q_capsule_op *c, const struct capsule_report *r)
{
	const char *const ids[] = { "memory", r->memory, "memory_parent", r->memory_parent, "disk",
		r->disk, "disk_parent", r->disk_parent, "cpu_class", r->cpu_class };
	struct json_object *answer;
	const char *by = who_slept(is(c->observed_state, "hibernating") ? c->paused_by : r->by);
	struct sealed s;
	size_t i;
	int n;

	if (!r->disk || !is(c->observed_state, "running pausing paused hibernating missing"))
		return 0;
	answer = json_object_new_object();
	for (i = 0; i < nitems(ids); i += 2)
		if (ids[i + 1])
			json_object_object_add(answer, ids[i], json_object_new_string(ids[i + 1]));
	json_object_object_add(answer, "bytes", json_object_new_int64(r->bytes));
	n = op_sealed(w, c->host_id, answer, &s);
	s.cpu_class = r->cpu_class ? r->cpu_class : ""; /* not on the answer, which goes */
	json_object_put(answer);
	if (n < 0)
		return -1;
	n = q_life_hibernated(
	    w->db, .id = c->id, .epoch = c->epoch, .was = c->observed_state, .by = by);
	if (n <= 0 || op_image(w, c, &s) < 0)
		return n;
	if (op_event(w, c, "capsule.hibernated", op_slept(w, by, s.bytes)) < 0)
		return -1;
	if (strcmp(by, "idle") == 0 && strcmp(c->idle_action, "destroy") == 0)
		return capsule_destroy_for(w, c->team_id, c->id, c->epoch, "idle");
	return 1;
}

/* error -> resuming from the disk, three times an hour; not when the team may not have it again. */
static int
restart(struct work *w, const struct q_capsule_op *c)
{
	struct job_ref job;
	int n = quota_take(w,
	    &(struct quota_ask){
		.team = c->team_id, .vcpus = c->vcpus, .memory_mb = c->memory_mb });

	if (n < 0 && (w->err.code == E_QUOTA || w->err.code == E_TEAM_FROZEN)) {
		w->err = (struct err){ 0 };
		return 0;
	}
	if (n < 0)
		return -1;
	n = q_life_restart(w->db, .id = c->id, .epoch = c->epoch);
	if (n <= 0)
		return n;
	if (capsule_job(w, "capsule.resume", c->team_id,
		&(struct op_args){ .capsule = c->id, .epoch = c->epoch + 1 }, NULL, &job, NULL) < 0)
		return -1;
	return audit_add(w, AUDIT_SANDBOX_RESUME,
	    &(struct audit){ .team = c->team_id,
		.capsule = c->id,
		.resource_id = id_text(w, "cl-", c->id),
		.metadata = "{\"cause\":\"restart_policy\"}" });
}

/* The virtual machine ended; the disk is there. A policy may start it again from it, unless the
 * guest does nothing but boot. */
static int
said_error(struct work *w, const struct q_capsule_op *c, const struct capsule_report *r)
{
	const char *code = r->code && *r->code ? r->code : "vmm_exit";
	const char *text = r->message && *r->message ? r->message : "the virtual machine ended";
	int n;

	if (!is(c->observed_state, "running pausing paused resuming hibernating missing"))
		return 0;
	/* a rollback that the agent's end broke off: its job asks for it again, and says how it
	 * ends; a disk that is being sealed to be recovered is of an ended one */
	if (is(c->observed_state, "resuming") && c->op && strcmp(c->op, "rollback") == 0)
		return 0;
	if (is(c->observed_state, "hibernating") && is(c->desired_state, "running"))
		return 0;
	n = q_capsule_failed(w->db, .id = c->id, .epoch = c->epoch, .code = code, .message = text,
	    .was = c->observed_state);
	if (n <= 0 || op_event_error(w, c, "capsule.error", "run", code, text) < 0)
		return n;
	if (strcmp(c->restart_policy, "on_failure") == 0 && is(c->desired_state, "running") &&
	    strcmp(code, "boot_loop") != 0)
		return restart(w, c) < 0 ? -1 : 1;
	return 1;
}

/* Its host counts, and ends what does nothing but reboot (boot_loop). */
static int
said_rebooted(struct work *w, const struct q_capsule_op *c, const struct capsule_report *r)
{
	int n =
	    q_life_rebooted(w->db, .id = c->id, .epoch = c->epoch, .reboots = (int32_t)r->reboots);

	return n > 0 && r->reboots > 0 ? op_event(w, c, "capsule.rebooted", "{}") : n;
}

static int
said_running(struct work *w, const struct q_capsule_op *c, const struct capsule_report *r)
{
	int n;

	if (r->code && strcmp(r->code, "pause_failed") == 0)
		return op_event_error(
		    w, c, "capsule.pause_failed", "idle", "pause_failed", r->message);
	if (is(c->observed_state, "missing"))
		return q_life_runs_on(w->db, .id = c->id, .epoch = c->epoch, .was = "missing");
	/* the host's credentials are good again: what their refusal paused runs, under its epoch */
	if (is(c->observed_state, "paused") && c->paused_by && is(c->paused_by, "host") &&
	    is(c->desired_state, "paused")) {
		n = q_life_runs_on(w->db, .id = c->id, .epoch = c->epoch, .was = "paused");

		return n > 0 ? op_event(w, c, "capsule.running", "{\"from\":\"paused\"}") : n;
	}
	if (r->idle_s >= 0 && is(c->observed_state, "running"))
		return q_life_used(w->db, .id = c->id, .epoch = c->epoch, .idle_s = r->idle_s);
	return 0;
}

/* The host may tell the end of a pause before the job that asked for it: it is that of who asked.
 */
static int
asker(struct work *w, const struct q_capsule_op *c)
{
	struct q_job_asked *j;
	const char *kind = is(c->observed_state, "pausing") ? "capsule.pause" : "capsule.hibernate";
	int n = q_job_asker(w->db, &j, .lock = id_text(w, "cl-", c->id), .kind = kind);

	if (n > 0)
		w->actor = (struct actor){
			.type = j->actor_type, .id = j->actor_id, .name = j->actor_name
		};
	return n;
}

static int
apply(struct work *w, const struct capsule_report *r, int64_t change_no)
{
	struct q_capsule_op *c;
	int n = q_capsule_for_op(w->db, &c, .id = r->id);

	if (n <= 0)
		return n;
	/* a paused one may be held under an earlier epoch: its last wake did not reach it */
	if (c->epoch != r->epoch &&
	    !(is(r->state, "paused") && is(c->observed_state, "missing") && r->epoch < c->epoch))
		return 0;
	if (change_no != NULL_INT && c->change_no != change_no)
		return 0;
	if (c->epoch == r->epoch && said_rebooted(w, c, r) < 0)
		return -1;
	if (is(c->observed_state, "pausing hibernating") && asker(w, c) < 0)
		return -1;
	if (strcmp(r->state, "paused") == 0)
		return said_paused(w, c, r);
	if (strcmp(r->state, "hibernated") == 0)
		return said_hibernated(w, c, r);
	if (strcmp(r->state, "error") == 0 || strcmp(r->state, "exited") == 0)
		return said_error(w, c, r);
	return strcmp(r->state, "running") == 0 ? said_running(w, c, r) : 0;
}

/* What hosts do by themselves is the platform's doing (spec 02 §1.1), by report as by inventory. */
int
capsule_reported(struct work *w, const struct capsule_report *r, int64_t change_no)
{
	struct actor who = w->actor;
	int n;

	w->actor = (struct actor){ 0 };
	n = apply(w, r, change_no);
	w->actor = who;
	return n;
}
