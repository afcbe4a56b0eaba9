/*
 * capsule_watch.c - what keeps rows and virtual machines in agreement: reconciler, host monitor,
 * reports; see capsule_op.h.
 *
 * Absence of a report is never proof (spec 02 §1.1): a capsule is declared lost, and a virtual
 * machine an orphan, only after two inventories that are 30 s apart said so.
 */
#include "agent.h"
#include "audit.h"
#include "capsule_steps.h"
#include "cleanup.h"
#include "event.h"
#include "hosts.q.h"
#include "log.h"

#include <inttypes.h>
#include <string.h>

enum { STUCK_SECONDS = 10, PROOF_SECONDS = 30 };

/* Which job brings a capsule on from this state. */
static const struct {
	const char *state, *kind;
} ways[] = {
	{ "pending", "capsule.start" },
	{ "starting", "capsule.start" },
	{ "pausing", "capsule.pause" },
	{ "resuming", "capsule.resume" },
	{ "hibernating", "capsule.hibernate" },
	{ "stopping", "capsule.destroy" },
};

static int
ask_again(struct work *w, const struct q_life_due *due)
{
	struct job_ref job;
	size_t i;

	for (i = 0; strcmp(ways[i].state, due->observed_state) != 0; i++)
		;
	db_begin(w->db);
	if (capsule_job(w, ways[i].kind, due->team_id,
		&(struct op_args){ .capsule = due->id, .epoch = due->epoch, .memory = true }, NULL,
		&job, NULL) < 0)
		return -1;
	return db_commit(w->db);
}

int
capsule_reconcile(struct work *w, const struct op_env *env)
{
	struct q_life_due *due;
	int n, i;

	if (q_capsules_op_lost(w->db, .age = PROOF_SECONDS) < 0)
		return -1;
	n = q_capsules_stuck(w->db, &due, .age = STUCK_SECONDS);
	for (i = 0; i < n; i++)
		if (ask_again(w, &due[i]) < 0)
			return -1;
	if (n > 0 && env->queue)
		job_announce(w, env->queue);
	return n < 0 ? -1 : 0;
}

static int
error_event(struct work *w, const struct uuid *id, const char *code)
{
	struct q_capsule_op *c;

	if (q_capsule_for_op(w->db, &c, .id = id) <= 0)
		return -1;
	return op_event_error(
	    w, c, "capsule.error", "run", code, "the host does not have it any more");
}

static int
mark_down(struct work *w, const struct op_env *env, const struct q_host_seen *h)
{
	int n;

	db_begin(w->db);
	n = q_host_mark_down(w->db, .id = h->id, .silent = env->conf->host_unreachable_sec);
	if (n > 0 &&
	    (q_capsule_set_missing(w->db, .host = h->id) < 0 ||
		audit_add(w, AUDIT_HOST_MARKED_DOWN,
		    &(struct audit){ .resource_id = id_text(w, "host-", h->id),
			.metadata = talloc_asprintf(w, "{\"silent_s\":%" PRId64 "}", h->silent_s),
			.data = "{\"reason\":\"silent\"}" }) < 0))
		return -1;
	if (n < 0 || db_commit(w->db) < 0)
		return -1;
	if (n > 0)
		log_warn(w->id, "host %s is silent for %" PRId64 " s: unreachable", h->name,
		    h->silent_s);
	return 0;
}

/* True when the disagreement was seen before, long enough ago to be proof. */
static bool
proven(struct work *w, const struct uuid *host, const char *capsule, const char *what)
{
	struct q_sighting *s;

	return q_sighting_note(w->db, &s, .host = host, .capsule = capsule, .what = what) > 0 &&
	    s->age_s >= PROOF_SECONDS;
}

static int
lost(struct work *w, const struct q_capsule_known *k)
{
	int n;

	db_begin(w->db);
	n = q_capsule_failed(w->db, .id = k->id, .epoch = k->epoch, .code = "lost",
	    .message = "the host does not have it any more", .was = k->observed_state);
	if (n < 0 || (n > 0 && error_event(w, k->id, "lost") < 0))
		return -1;
	return db_commit(w->db);
}

static int
discard(struct work *w, const struct q_host_seen *h, const char *id, int64_t epoch)
{
	struct agent_call call = { .address = h->address,
		.method = "DELETE",
		.epoch = epoch,
		.total_ms = 10000,
		.path = talloc_asprintf(w, "/capsules/%s", id) };
	struct json_object *answer;

	log_warn(w->id, "host %s: %s has no row; it is stopped", h->name, id);
	return agent_send(w, &call, &answer);
}

/* The inventory says what a report would have: in a transaction of its own. */
static int
seen(struct work *w, const struct uuid *id, struct json_object *one, int64_t change_no)
{
	struct capsule_report r = capsule_report_read(id, one);

	db_begin(w->db);
	if (capsule_reported(w, &r, change_no) < 0)
		return -1;
	return db_commit(w->db);
}

/* One entry of the inventory against its row. */
static int
compare(struct work *w, const struct q_host_seen *h, struct json_object *one,
    struct q_capsule_known *known, int n)
{
	const char *text = json_str(one, "id", "");
	int64_t epoch = json_int(one, "epoch", 0);
	struct uuid id;
	int i;

	if (!id_read(text, "cl-", &id))
		return 0;
	for (i = 0; i < n && !uuid_equal(known[i].id, &id); i++)
		;
	if (i == n) {
		struct q_capsule_op *row;

		if (!proven(w, h->id, text, "orphan"))
			return 0;
		/* the row is read after the second sighting: it may have been made in between */
		i = q_capsule_for_op(w->db, &row, .id = &id);
		if (i < 0 || (i > 0 && row->host_id && uuid_equal(row->host_id, h->id)))
			return i < 0 ? -1 : 0;
		return discard(w, h, text, epoch);
	}
	known[i].age_s = -1; /* seen */
	return seen(w, &id, one, known[i].change_no);
}

static int
inventory(struct work *w, const struct q_host_seen *h)
{
	struct agent_call call = {
		.address = h->address, .method = "GET", .path = "/capsules", .total_ms = 10000
	};
	struct json_object *answer, *list;
	struct q_capsule_known *known;
	size_t i, len;
	int n, k;

	n = q_host_capsules(w->db, &known, .host = h->id); /* noted before the inventory is taken */
	if (n < 0 || agent_send(w, &call, &answer) < 0)
		return -1;
	list = json_get(answer, "capsules");
	len = json_object_is_type(list, json_type_array) ? json_object_array_length(list) : 0;
	for (i = 0; i < len; i++)
		if (compare(w, h, json_object_array_get_idx(list, i), known, n) < 0)
			return -1;
	if (!json_flag(answer, "journal_complete", false))
		return 0;
	for (k = 0; k < n; k++)
		if (known[k].age_s >= PROOF_SECONDS &&
		    (strcmp(known[k].observed_state, "running") == 0 ||
			strcmp(known[k].observed_state, "paused") == 0 ||
			strcmp(known[k].observed_state, "missing") == 0) &&
		    proven(w, h->id, id_text(w, "cl-", known[k].id), "lost") &&
		    lost(w, &known[k]) < 0)
			return -1;
	return q_sightings_forget(w->db, .host = h->id) < 0 ? -1 : 0;
}

int
host_monitor(struct work *w, const struct op_env *env)
{
	struct q_host_seen *h;
	int n, i;

	n = q_hosts_watched(w->db, &h);
	for (i = 0; i < n; i++) {
		if (h[i].silent_s > env->conf->host_unreachable_sec &&
		    strcmp(h[i].status, "online") == 0) {
			if (mark_down(w, env, &h[i]) < 0)
				return -1;
			continue;
		}
		if (h[i].silent_s > env->conf->host_suspect_sec)
			continue;
		if (inventory(w, &h[i]) < 0) {
			/* one silent host does not keep the others from being watched */
			log_warn(w->id, "host %s: inventory: %s", h[i].name, w->err.text);
			db_rollback(w->db);
			w->err = (struct err){ 0 };
		}
	}
	return n < 0 ? -1 : 0;
}
