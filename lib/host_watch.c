/*
 * host_watch.c - silent hosts become unreachable; inventories are compared with the rows (spec 02
 * §5.3). See capsule_op.h.
 *
 * Nothing ends because of what was not heard. What a host has and the database does not know is
 * discarded (its agent keeps it for a day) only on proof: the database is the one the host
 * registered with, two inventories host.proof_sec apart show it, and the row was read after the
 * second.
 */
#include "agent.h"
#include "audit.h"
#include "capsule_steps.h"
#include "cleanup.h"
#include "event.h"
#include "host_scale.h"
#include "hosts.q.h"
#include "job.h"
#include "log.h"

#include <inttypes.h>
#include <string.h>

enum { INVENTORY_MS = 10000, DISCARD_MS = 10000 };

/* One turn of the monitor at one host. */
struct visit {
	struct work *w;
	const struct op_env *env;
	const struct q_host_seen *host;
	struct q_capsule_known
	    *known; /* what the rows say that it has, read before its inventory */
	int n;
	bool ours; /* the host registered with this database */
};

/* ---- silence */

static int
missing(struct work *w, const struct q_host_seen *h)
{
	struct q_host_only *c;
	int n = q_capsules_go_missing(w->db, &c, .host = h->id), i;

	for (i = 0; i < n; i++)
		if (event_add(w,
			&(struct event){ .type = "capsule.missing",
			    .team = c[i].team_id,
			    .capsule = c[i].id,
			    .resource_type = "sandbox",
			    .resource_id = id_text(w, "cl-", c[i].id) }) < 0)
			return -1;
	return n;
}

static int
mark_down(struct work *w, const struct op_env *env, const struct q_host_seen *h)
{
	int n, gone = 0;

	db_begin(w->db);
	n = q_host_mark_down(w->db, .id = h->id, .silent = env->conf->host_unreachable_sec);
	if (n > 0 && (gone = missing(w, h)) < 0)
		return -1;
	if (n > 0 &&
	    audit_add(w, AUDIT_HOST_MARKED_DOWN,
		&(struct audit){ .team = h->team_id,
		    .resource_id = id_text(w, "host-", h->id),
		    .metadata = talloc_asprintf(w, "{\"silent_s\":%" PRId64 "}", h->silent_s),
		    .data = talloc_asprintf(w, "{\"reason\":\"silent\",\"capsules\":%d}", gone) }) <
		0)
		return -1;
	if (n < 0 || db_commit(w->db) < 0)
		return -1;
	if (n > 0)
		log_warn(w->id,
		    "host %s is silent for %" PRId64 " s: unreachable, %d capsules missing",
		    h->name, h->silent_s, gone);
	return 0;
}

/* ---- inventory */

/* True when the disagreement was seen before, long enough ago to be proof. */
static bool
proven(const struct visit *v, const char *capsule, const char *what)
{
	struct q_sighting *s;

	return q_sighting_note(
		   v->w->db, &s, .host = v->host->id, .capsule = capsule, .what = what) > 0 &&
	    s->age_s >= v->env->conf->host_proof_sec;
}

static int
lost(const struct visit *v, const struct q_capsule_known *k)
{
	struct work *w = v->w;
	struct q_capsule_op *c;
	int n;

	db_begin(w->db);
	n = q_capsule_failed(w->db, .id = k->id, .epoch = k->epoch, .code = "lost",
	    .message = "the host does not have it any more", .was = k->observed_state);
	if (n > 0 && q_capsule_for_op(w->db, &c, .id = k->id) > 0)
		n = op_event_error(
		    w, c, "capsule.error", "run", "lost", "the host does not have it any more");
	return n < 0 ? -1 : db_commit(w->db);
}

/* Stops it; the agent keeps disk and image for a day. */
static int
discard(const struct visit *v, const char *id, int64_t epoch, const char *why)
{
	struct work *w = v->w;
	struct agent_call call = { .address = v->host->address,
		.method = "POST",
		.epoch = epoch,
		.total_ms = DISCARD_MS,
		.path = talloc_asprintf(w, "/capsules/%s/discard", id) };
	struct json_object *answer;

	log_warn(w->id, "host %s: %s %s: discarded", v->host->name, id, why);
	if (agent_send(w, &call, &answer) == 0)
		return 0;
	if (w->err.code != E_NOT_FOUND)
		return -1;
	w->err = (struct err){ 0 };
	return 0;
}

static int
orphan(const struct visit *v, const char *id, int64_t epoch)
{
	struct work *w = v->w;
	struct event ev = { .type = "host.orphan_found",
		.team = v->host->team_id,
		.resource_type = "host",
		.resource_id = id_text(w, "host-", v->host->id),
		.data = talloc_asprintf(w, "{\"reason\":\"%s\",\"capsules\":1}", id) };

	if (discard(v, id, epoch, "has no row") < 0)
		return -1;
	db_begin(w->db);
	return event_add(w, &ev) < 0 ? -1 : db_commit(w->db);
}

/* It fell asleep there and was destroyed while it slept, or later elsewhere: the agent's memory of
   it goes, its artifacts go by artifact.gc. */
static int
forget(const struct visit *v, const char *id, int64_t epoch)
{
	struct work *w = v->w;
	struct agent_call call = { .address = v->host->address,
		.method = "DELETE",
		.epoch = epoch,
		.total_ms = DISCARD_MS,
		.path = talloc_asprintf(w, "/capsules/%s", id) };
	struct json_object *answer;

	if (agent_send(w, &call, &answer) == 0)
		return 0;
	if (w->err.code != E_NOT_FOUND)
		return -1;
	w->err = (struct err){ 0 };
	return 0;
}

/* The host has a capsule whose row, when the inventory was asked for, did not say so. */
static int
stranger(const struct visit *v, const char *text, const struct uuid *id, struct json_object *one)
{
	int64_t epoch = json_int(one, "epoch", 0);
	struct q_capsule_op *row;
	bool elsewhere;
	int n = q_capsule_for_op(v->w->db, &row, .id = id);

	if (n < 0)
		return -1;
	elsewhere = n > 0 && row->host_id && !uuid_equal(row->host_id, v->host->id);
	/* not while it starts there: what it wakes from may still be pulled from here */
	if (elsewhere && row->epoch > epoch && strcmp(row->observed_state, "starting") != 0 &&
	    strcmp(row->observed_state, "resuming") != 0)
		return discard(v, text, epoch, "was started on another host since");
	if (n > 0 && strcmp(row->observed_state, "stopped") != 0)
		return 0; /* asleep, or placed a moment ago */
	if (n > 0 && v->ours && row->epoch >= epoch &&
	    strcmp(json_str(one, "state", ""), "hibernated") == 0)
		return forget(v, text, row->epoch);
	if (!v->ours || !proven(v, text, "orphan"))
		return 0;
	/* read after the second sighting: it may have been made in between */
	n = q_capsule_for_op(v->w->db, &row, .id = id);
	if (n < 0 || (n > 0 && strcmp(row->observed_state, "stopped") != 0))
		return n < 0 ? -1 : 0;
	return orphan(v, text, epoch);
}

/*
 * Its host was told other times, another network or disk than the row has: it was not there, or did
 * something else with the capsule at that moment. The row is looked at before the inventory and
 * now: what has changed in between is on its way, or arrived a moment ago.
 */
static int
tell(const struct visit *v, const struct q_capsule_known *k, struct json_object *one)
{
	const char *state = json_str(one, "state", ""), *told = json_str(one, "told", k->told);
	struct q_capsule_op *now;
	struct job_ref job;
	int n;

	if (strcmp(k->told, told) == 0 || k->epoch != json_int(one, "epoch", -1) ||
	    strcmp(k->observed_state, state) != 0 ||
	    (strcmp(state, "running") != 0 && strcmp(state, "paused") != 0))
		return 0;
	n = q_capsule_for_op(v->w->db, &now, .id = k->id);
	if (n <= 0 || strcmp(now->told, told) == 0 || strcmp(now->observed_state, state) != 0)
		return n < 0 ? -1 : 0;
	return capsule_job(v->w, "capsule.update", k->team_id,
	    &(struct op_args){ .capsule = k->id, .epoch = now->generation }, NULL, &job, NULL);
}

/* One entry of the inventory against its row. */
static int
compare(const struct visit *v, struct json_object *one)
{
	const char *text = json_str(one, "id", "");
	struct capsule_report report;
	struct uuid id;
	int i;

	if (!id_read(text, "cl-", &id))
		return 0;
	for (i = 0; i < v->n && !uuid_equal(v->known[i].id, &id); i++)
		;
	if (i == v->n)
		return stranger(v, text, &id, one);
	v->known[i].age_s = -1; /* seen */
	report = capsule_report_read(&id, one);
	db_begin(v->w->db);
	if (capsule_reported(v->w, &report, v->known[i].change_no) < 0 ||
	    tell(v, &v->known[i], one) < 0)
		return -1;
	return db_commit(v->w->db);
}

/* In the row, but not in a complete journal. */
static int
absent(const struct visit *v)
{
	static const char *const held[] = { "running", "paused", "missing" };
	const struct q_capsule_known *k;
	size_t s;

	for (k = v->known; k < v->known + v->n; k++)
		for (s = 0; s < nitems(held); s++)
			if (k->age_s >= v->env->conf->host_proof_sec &&
			    strcmp(k->observed_state, held[s]) == 0 &&
			    proven(v, id_text(v->w, "cl-", k->id), "lost") && lost(v, k) < 0)
				return -1;
	return 0;
}

/* The rows first: what changed in them since is left alone. */
static int
look(struct visit *v)
{
	v->n = q_host_capsules(v->w->db, &v->known, .host = v->host->id);
	return v->n < 0 ? -1 : 0;
}

static int
inventory(struct visit *v, struct json_object *answer)
{
	struct work *w = v->w;
	struct json_object *list = json_get(answer, "capsules");
	struct q_cluster *cluster;
	size_t i, len;

	if (q_cluster_id(w->db, &cluster) <= 0)
		return -1;
	v->ours = strcmp(json_str(answer, "cluster", ""), id_text(w, "cluster-", cluster->id)) == 0;
	len = json_object_is_type(list, json_type_array) ? json_object_array_length(list) : 0;
	for (i = 0; i < len; i++)
		if (compare(v, json_object_array_get_idx(list, i)) < 0)
			return -1;
	if (json_flag(answer, "journal_complete", false) && absent(v) < 0)
		return -1;
	return q_sightings_forget(w->db, .host = v->host->id, .age = v->env->conf->host_proof_sec) <
		0
	    ? -1
	    : 0;
}

/* One host that is silent or lies does not keep the others from being watched. */
static void
answered(void *arg, size_t i, struct json_object *answer)
{
	struct visit *v = (struct visit *)arg + i;
	struct work *w = v->w;

	if (answer && inventory(v, answer) == 0 &&
	    host_scale(w, v->host, json_str(answer, "scaling", NULL)) >= 0)
		return;
	log_warn(w->id, "host %s: inventory: %s", v->host->name, w->err.text);
	db_rollback(w->db);
	w->err = (struct err){ 0 };
}

/* All are asked at the same time; each is compared when it has answered. */
static int
visit_all(
    struct work *w, const struct op_env *env, const struct q_host_seen *const *hosts, size_t n)
{
	struct agent_call *calls = talloc_zero_array(w, struct agent_call, n + 1);
	struct visit *v = talloc_zero_array(w, struct visit, n + 1);
	size_t i;

	for (i = 0; i < n; i++) {
		v[i] = (struct visit){ .w = w, .env = env, .host = hosts[i] };
		calls[i] = (struct agent_call){ .address = hosts[i]->address,
			.method = "GET",
			.path = "/capsules",
			.total_ms = INVENTORY_MS };
		if (look(&v[i]) < 0)
			return -1;
	}
	agent_send_all(w, calls, n, answered, v);
	return 0;
}

int
host_monitor(struct work *w, const struct op_env *env)
{
	struct q_host_seen *h;
	const struct q_host_seen **live;
	int n, i;
	size_t alive = 0;

	n = q_hosts_watched(w->db, &h);
	if (n < 0)
		return -1;
	live = talloc_zero_array(w, const struct q_host_seen *, n + 1);
	for (i = 0; i < n; i++) {
		if (h[i].silent_s <= env->conf->host_suspect_sec)
			live[alive++] = &h[i];
		else if (h[i].silent_s > env->conf->host_unreachable_sec &&
		    strcmp(h[i].status, "unreachable") != 0 && mark_down(w, env, &h[i]) < 0)
			return -1;
	}
	if (visit_all(w, env, live, alive) < 0 || host_scale_alerts(w, env) < 0)
		return -1;
	if (n > 0 && env->queue)
		job_announce(w, env->queue);
	return 0;
}
