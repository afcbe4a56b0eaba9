/* capsule_wake.c - a sleeping capsule is asked to wake: by the API, by a call that needs it, by the
 * platform; see capsule_op.h. */
#include "audit.h"
#include "capsule_steps.h"
#include "cleanup.h"
#include "placement.h"
#include "quota.h"

#include <inttypes.h>
#include <string.h>

/* What the wake begins with. NULL: it is not asleep. */
static const char *
source(const struct q_capsule_op *c)
{
	if (strcmp(c->observed_state, "paused") == 0)
		return "held";
	if (strcmp(c->observed_state, "hibernated") == 0)
		return "image";
	if (strcmp(c->observed_state, "error") != 0)
		return NULL;
	if (c->starts == 0)
		return NULL;
	return c->host_id ? "disk" : c->image_disk.p ? "image" : NULL;
}

/* The host that has it must answer; one that sleeps on disk there, or grows, needs room again. */
static int
stay(struct work *w, const struct op_env *env, const struct q_capsule_op *c, bool cold)
{
	struct place_ask ask = { .conf = env->conf,
		.team = c->team_id,
		.vcpus = cold ? c->cold_vcpus : c->vcpus,
		.memory_mb = cold ? c->cold_memory_mb : c->memory_mb,
		.only = c->host_id };
	struct place at;

	if (!cold && strcmp(c->observed_state, "paused") == 0 &&
	    (!c->residency || strcmp(c->residency, "disk") != 0)) {
		if (c->host_status && strcmp(c->host_status, "unreachable") == 0)
			return err_set(&w->err, E_HOST_UNAVAILABLE, "its host does not answer");
		return 0;
	}
	return host_place(w, &ask, &at);
}

static int
elsewhere(struct work *w, const struct op_env *env, const struct q_capsule_op *c, bool cold,
    struct place *at)
{
	struct place_ask ask = { .conf = env->conf,
		.team = c->team_id,
		.vcpus = cold ? c->cold_vcpus : c->vcpus,
		.memory_mb = cold ? c->cold_memory_mb : c->memory_mb,
		.disk_mb = cold ? c->cold_disk_size_mb : c->disk_size_mb,
		.tags = c->host_tags,
		.disk = c->image_disk };

	if (!c->image_disk.p)
		return err_set(&w->err, E_BAD_STATE, "the capsule has no image to wake from");
	if (!cold && c->image_memory.p) {
		ask.memory = c->image_memory;
		ask.cpu_class = c->image_class && *c->image_class ? c->image_class : NULL;
	}
	return host_place(w, &ask, at);
}

int
capsule_wake(struct work *w, const struct op_env *env, const struct wake_ask *a, struct wake *ret)
{
	struct place at = { 0 };
	struct q_capsule_op *c;
	const char *from;
	int n = q_capsule_for_op(w->db, &c, .id = a->id);
	bool cold = a->cold;

	*ret = (struct wake){ 0 };
	if (n <= 0)
		return n;
	if (c->op)
		return err_set(&w->err, E_CONFLICT, "%s is under way", c->op);
	from = source(c);
	if (!from)
		return 0;
	if (strcmp(from, "disk") == 0 || (strcmp(from, "image") == 0 && !c->image_memory.p))
		cold = true;
	if (quota_take(w,
		&(struct quota_ask){ .team = c->team_id,
		    .vcpus = cold ? c->cold_vcpus : c->vcpus,
		    .memory_mb = cold ? c->cold_memory_mb : c->memory_mb }) < 0)
		return -1;
	if (strcmp(from, "image") != 0) {
		at.host = c->host_id;
		if (stay(w, env, c, cold) < 0)
			return -1;
	} else if (elsewhere(w, env, c, cold, &at) < 0)
		return -1;
	n = q_life_wake(w->db, .id = c->id, .epoch = c->epoch, .was = c->observed_state,
	    .host = at.host, .from = from, .cold = cold, .reason = a->cause,
	    .timeout_sec = a->timeout_sec, .note = a->note);
	if (n <= 0)
		return n;
	ret->epoch = c->epoch + 1;
	if (capsule_job(w, "capsule.resume", c->team_id,
		&(struct op_args){ .capsule = c->id, .epoch = ret->epoch, .memory = !cold },
		a->worker, &ret->job, &ret->claimed) < 0 ||
	    audit_add(w, AUDIT_SANDBOX_RESUME,
		&(struct audit){ .team = c->team_id,
		    .capsule = c->id,
		    .resource_id = id_text(w, "cl-", c->id),
		    .metadata = talloc_asprintf(w, "{\"cause\":\"%s\"}", a->cause) }) < 0)
		return -1;
	return 1;
}
