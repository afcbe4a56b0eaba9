/* capsule_op.c - start and destroy; see capsule_op.h. Crash points are those of spec 02 §1.4. */
#include "capsule_op.h"
#include "agent.h"
#include "audit.h"
#include "capsules.q.h"
#include "cleanup.h"
#include "crash.h"
#include "event.h"

#include <inttypes.h>
#include <string.h>
#include <time.h>

const char *
capsule_args(void *mem, const struct uuid *id, int64_t epoch)
{
	char text[ID_SIZE];

	return talloc_asprintf(
	    mem, "{\"capsule\":\"%s\",\"epoch\":%" PRId64 "}", id_write(text, "cl-", id), epoch);
}

static const char *
envs_aad(void *mem, const struct uuid *id)
{
	return talloc_asprintf(mem, "capsules|envs_enc|%s", id_text(mem, "cl-", id));
}

struct bytes
capsule_envs_seal(void *mem, const struct keys *k, const struct uuid *id, const char *json)
{
	return envelope_seal(mem, k->key[KEY_ENVS], envs_aad(mem, id), json, strlen(json));
}

static int64_t
now_us(void)
{
	struct timespec t;

	clock_gettime(CLOCK_REALTIME, &t);
	return (int64_t)t.tv_sec * 1000000 + t.tv_nsec / 1000;
}

/* What the host agent gets: everything, so that the same call can be made again (spec 02 §5.7). */
static const char *
start_spec(struct work *w, const struct op_env *env, const struct q_capsule_op *c, int64_t epoch)
{
	struct buf b = BUF(w);
	struct bytes envs = { (const uint8_t *)"{}", 2 };

	if (c->envs_enc.p)
		envs = envelope_open(
		    w, env->keys->key[KEY_ENVS], envs_aad(w, c->id), c->envs_enc, &w->err);
	if (!envs.p)
		return NULL;
	buf_fmt(&b, "{\"epoch\":%" PRId64 ",\"template\":", epoch);
	buf_json(&b, c->template_name);
	buf_fmt(&b,
	    ",\"template_version\":%d,\"vcpus\":%d,\"memory_mb\":%d,\"disk_size_mb\":%d,"
	    "\"hostname\":",
	    c->template_version, c->vcpus, c->memory_mb, c->disk_size_mb);
	buf_json(&b, c->name ? c->name : "hutch");
	buf_str(&b, ",\"user\":");
	buf_json(&b, c->guest_user);
	buf_str(&b, ",\"workdir\":");
	buf_json(&b, c->workdir);
	buf_fmt(&b,
	    ",\"boot\":\"%s\",\"team_id\":\"%s\",\"template_id\":\"%s\",\"access_token\":\"%s\","
	    "\"envs\":",
	    c->boot, id_text(w, "team-", c->team_id), id_text(w, "tpl-", c->template_id),
	    crypto_guest_token(w, env->keys, c->id, 1));
	buf_add(&b, envs.p, envs.n);
	buf_chr(&b, '}');
	return b.data;
}

static int
fenced_begin(struct work *w, const struct job_ref *job)
{
	db_begin(w->db);
	return job ? job_fence(w, job) : 0;
}

/* starting -> running, with its event, in one transaction. */
static int
mark_running(struct work *w, const struct op_env *env, const struct job_ref *job,
    const struct q_capsule_op *c, int64_t epoch, struct json_object *answer)
{
	const char *mode = json_str(answer, "start_mode", "cold");
	struct event ev = { .type = "capsule.running",
		.team = c->team_id,
		.capsule = c->id,
		.resource_type = "sandbox",
		.resource_id = id_text(w, "cl-", c->id),
		.data = talloc_asprintf(w,
		    "{\"from\":\"pending\",\"took_ms\":%" PRId64 ",\"start_mode\":\"%s\"}",
		    (now_us() - c->created_at) / 1000,
		    strcmp(mode, "warm") == 0 ? "warm" : "cold") };
	int n;

	crash_point("create.6");
	if (fenced_begin(w, job) < 0)
		return -1;
	n = q_capsule_running(w->db, .id = c->id, .epoch = epoch, .start_mode = mode,
	    .accel = json_str(answer, "accel", "tcg"));
	if (n < 0 || (n > 0 && event_add(w, &ev) < 0))
		return -1;
	if (db_commit(w->db) < 0)
		return -1;
	if (env->queue)
		job_announce(w, env->queue);
	return 0;
}

static int
mark_failed(struct work *w, const struct job_ref *job, const struct q_capsule_op *c, int64_t epoch)
{
	struct err cause = w->err;
	struct buf data = BUF(w);
	struct event ev = { .type = "capsule.error",
		.team = c->team_id,
		.capsule = c->id,
		.resource_type = "sandbox",
		.resource_id = id_text(w, "cl-", c->id) };
	const char *code = cause.code == E_NO_SPACE ? "out_of_space" : "start_failed";
	int n;

	w->err = (struct err){ 0 };
	buf_fmt(&data, "{\"operation\":\"start\",\"code\":\"%s\",\"message\":", code);
	buf_json(&data, err_kinds[cause.code].text);
	buf_chr(&data, '}');
	ev.data = data.data;
	if (fenced_begin(w, job) < 0)
		return -1;
	n = q_capsule_failed(w->db, .id = c->id, .epoch = epoch, .code = code,
	    .message = err_kinds[cause.code].text, .was = "starting");
	if (n < 0 || (n > 0 && event_add(w, &ev) < 0) || db_commit(w->db) < 0)
		return -1;
	w->err = cause;
	return -1;
}

int
capsule_op_start(struct work *w, const struct op_env *env, const struct job_ref *job,
    const struct uuid *id, int64_t epoch, int64_t wait_ms, bool last)
{
	struct agent_call call = { .method = "PUT", .epoch = epoch, .total_ms = wait_ms };
	struct json_object *answer;
	struct q_capsule_op *c;
	int n = q_capsule_for_op(w->db, &c, .id = id);

	if (n <= 0)
		return n;
	if (c->epoch != epoch || strcmp(c->observed_state, "starting") != 0)
		return 0;
	crash_point("create.2");
	call.address = c->address;
	call.path = talloc_asprintf(w, "/capsules/%s", id_text(w, "cl-", id));
	call.op = talloc_asprintf(w, "start-%s-%" PRId64, id_text(w, "cl-", id), epoch);
	call.body = start_spec(w, env, c, epoch);
	if (!call.body)
		return last ? mark_failed(w, job, c, epoch) : -1;
	if (agent_send(w, &call, &answer) < 0) {
		/* a host that cannot be reached, or still boots it, may have it running a moment
		 * later */
		if (!last || w->err.code == E_TIMEOUT || w->err.code == E_HOST_UNAVAILABLE)
			return -1;
		return mark_failed(w, job, c, epoch);
	}
	return mark_running(w, env, job, c, epoch, answer);
}

int
capsule_op_destroy(struct work *w, const struct op_env *env, const struct job_ref *job,
    const struct uuid *id, int64_t wait_ms)
{
	struct agent_call call = { .method = "DELETE", .total_ms = wait_ms };
	struct json_object *answer;
	struct q_capsule_op *c;
	int n = q_capsule_for_op(w->db, &c, .id = id);

	if (n <= 0)
		return n;
	if (strcmp(c->observed_state, "stopping") != 0)
		return 0;
	crash_point("destroy.2");
	if (c->host_id) {
		call.address = c->address;
		call.epoch = c->epoch;
		call.path = talloc_asprintf(w, "/capsules/%s", id_text(w, "cl-", id));
		if (agent_send(w, &call, &answer) < 0) {
			if (w->err.code != E_NOT_FOUND)
				return -1;
			w->err = (struct err){ 0 }; /* never made, or gone already */
		}
	}
	crash_point("destroy.3");
	if (fenced_begin(w, job) < 0 || q_capsule_stopped(w->db, .id = id) < 0 ||
	    db_commit(w->db) < 0)
		return -1;
	if (env->queue)
		job_announce(w, env->queue);
	return 0;
}
