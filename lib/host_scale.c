/* host_scale.c - see host_scale.h. Queries: sql/queries/scaling.sql. */
#include "host_scale.h"
#include "agent.h"
#include "cleanup.h"
#include "event.h"
#include "log.h"
#include "scaling.q.h"

#include <inttypes.h>
#include <string.h>

enum { TELL_MS = 10000 };

/* ---- to the hosts */

/* The call that makes a host hold the setting; a team's own holds none. */
static struct agent_call
order(struct work *w, const struct q_host_seen *h, const struct q_scaling *s)
{
	struct agent_call call = {
		.address = h->address, .method = "DELETE", .path = "/scaling", .total_ms = TELL_MS
	};

	if (!h->regular || s->generation == 0)
		return call;
	call.method = "PUT";
	call.body = talloc_asprintf(w,
	    "{\"version\":\"%s\",\"pools\":%s,\"warm_memory_percent\":%d}", s->version,
	    s->agent_pools, s->warm_memory_percent == NULL_INT4 ? 0 : (int)s->warm_memory_percent);
	return call;
}

static const char *
version_for(const struct q_host_seen *h, const struct q_scaling *s)
{
	return h->regular ? s->version : "";
}

int
host_scale(struct work *w, const struct q_host_seen *h, const char *holds)
{
	struct q_scaling *s;
	struct agent_call call;
	struct json_object *answer;

	if (!holds)
		return 0;
	if (q_scaling_get(w->db, &s) <= 0)
		return -1;
	if (strcmp(holds, version_for(h, s)) != 0) {
		call = order(w, h, s);
		if (agent_send(w, &call, &answer) < 0)
			return -1;
		holds = version_for(h, s);
		log_info(w->id, "host %s holds scaling %s", h->name, *holds ? holds : "of its own");
	}
	return strcmp(holds, h->scaling) == 0 ? 0
					      : q_host_scaled(w->db, .id = h->id, .version = holds);
}

/* All at once. */
struct round {
	struct work *w;
	const struct q_scaling *setting;
	const struct q_host_seen **host;
};

static void
told(void *arg, size_t i, struct json_object *answer)
{
	const struct round *r = arg;
	struct work *w = r->w;
	const struct q_host_seen *h = r->host[i];

	if (w->err.code == E_OK &&
	    q_host_scaled(w->db, .id = h->id, .version = version_for(h, r->setting)) >= 0)
		return;
	(void)answer;
	log_warn(w->id, "host %s: scaling: %s", h->name, w->err.text);
	w->err = (struct err){ 0 };
}

int
host_scale_all(struct work *w, const struct op_env *env)
{
	struct q_host_seen *h;
	struct q_scaling *s;
	struct round round = { .w = w };
	struct agent_call *calls;
	size_t alive = 0;
	int n = q_hosts_watched(w->db, &h), i;

	if (n < 0 || q_scaling_get(w->db, &s) <= 0)
		return -1;
	round.setting = s;
	round.host = talloc_zero_array(w, const struct q_host_seen *, n + 1);
	calls = talloc_zero_array(w, struct agent_call, n + 1);
	for (i = 0; i < n; i++)
		if (h[i].regular && h[i].silent_s <= env->conf->host_suspect_sec) {
			round.host[alive] = &h[i];
			calls[alive++] = order(w, &h[i], s);
		}
	agent_send_all(w, calls, alive, told, &round);
	return 0;
}

/* ---- alerts */

struct alert {
	const char *rule, *metric, *severity;
	int64_t value, threshold; /* it is wrong while the value is less */
};

static int
tell(struct work *w, const struct alert *a, const char *type)
{
	log_warn(w->id, "%s: %s: %s is %" PRId64 ", %" PRId64 " wanted", type, a->rule, a->metric,
	    a->value, a->threshold);
	return event_add(w,
	    &(struct event){ .type = type,
		.resource_type = "platform",
		.resource_id = "scaling",
		.data = talloc_asprintf(w,
		    "{\"rule\":\"%s\",\"metric\":\"%s\",\"value\":%" PRId64
		    ",\"threshold\":%" PRId64 ",\"severity\":\"%s\"}",
		    a->rule, a->metric, a->value, a->threshold, a->severity) });
}

static int
judge(struct work *w, const struct op_env *env, const struct alert *a)
{
	struct q_scaling_alert *over;
	int n;

	if (a->value < a->threshold) {
		n = q_scaling_alert_bad(
		    w->db, .rule = a->rule, .value = a->value, .threshold = a->threshold);
		if (n >= 0)
			n = q_scaling_alert_due(
			    w->db, .rule = a->rule, .seconds = env->conf->host_alert_sec);
		return n > 0 ? tell(w, a, "alert.triggered") : n;
	}
	n = q_scaling_alert_over(w->db, &over, .rule = a->rule);
	if (n == 0)
		return q_scaling_alert_good(w->db, .rule = a->rule);
	return n > 0 && over->told_at != NULL_INT ? tell(w, a, "alert.resolved") : n;
}

int
host_scale_alerts(struct work *w, const struct op_env *env)
{
	const struct conf *c = env->conf;
	struct q_scaling *s;
	struct q_scaling_state *now;
	int64_t least;
	bool set;

	if (q_scaling_get(w->db, &s) <= 0 ||
	    q_scaling_state_get(w->db, &now, .version = s->version,
		.mem_percent = c->host_overcommit_memory_percent,
		.cpu_percent = c->host_overcommit_cpu_percent,
		.tcg_percent = c->host_overcommit_cpu_tcg_percent) <= 0)
		return -1;
	/* nobody has said yet what this platform is to be */
	set = s->generation > 0;
	least = s->min_hosts == NULL_INT4 ? 0 : s->min_hosts;
	struct alert alerts[] = {
		{ "hosts_below_min", "hosts", "error", now->takes, least },
		{ "no_room", "hosts_with_room", "critical", now->with_room, set },
	};
	db_begin(w->db);
	for (size_t i = 0; i < nitems(alerts); i++)
		if (judge(w, env, &alerts[i]) < 0)
			return -1;
	return db_commit(w->db);
}
