/* capsule_op.c - start and destroy, and what operations share; see capsule_op.h. Crash points are
 * those of spec 02 §1.4. */
#include "capsule_steps.h"
#include "cleanup.h"
#include "crash.h"
#include "event.h"
#include "host_copy.h"
#include "placement.h"
#include "snapshots.q.h"

#include <inttypes.h>
#include <string.h>
#include <time.h>

static const struct {
	const char *kind;
	capsule_op *fn;
} ops[] = {
	{ "capsule.start", capsule_op_start },
	{ "capsule.destroy", capsule_op_destroy },
	{ "capsule.pause", capsule_op_pause },
	{ "capsule.resume", capsule_op_resume },
	{ "capsule.hibernate", capsule_op_hibernate },
	{ "capsule.snapshot", capsule_op_snapshot },
	{ "capsule.rollback", capsule_op_rollback },
	{ "capsule.fork", capsule_op_fork },
	{ "capsule.update", capsule_op_update },
};

capsule_op *
capsule_op_of(const char *kind)
{
	size_t i;

	for (i = 0; i < nitems(ops); i++)
		if (strcmp(ops[i].kind, kind) == 0)
			return ops[i].fn;
	return NULL;
}

/* --- what operations share ------------------------------------------------------------------ */

bool
op_unknown(const struct err *e)
{
	return e->code == E_TIMEOUT || e->code == E_HOST_UNAVAILABLE || e->code == E_OVERLOADED ||
	    e->code == E_DB || e->code == E_FENCED;
}

int
op_begin(struct work *w, const struct job_ref *job)
{
	db_begin(w->db);
	return job ? job_fence(w, job) : 0;
}

int
op_commit(struct work *w, const struct op_env *env)
{
	if (db_commit(w->db) < 0)
		return -1;
	if (env->queue)
		job_announce(w, env->queue);
	return 0;
}

int
op_event(struct work *w, const struct q_capsule_op *c, const char *type, const char *data)
{
	return event_add(w,
	    &(struct event){ .type = type,
		.team = c->team_id,
		.capsule = c->id,
		.resource_type = "sandbox",
		.resource_id = id_text(w, "cl-", c->id),
		.data = data });
}

int
op_event_error(struct work *w, const struct q_capsule_op *c, const char *type,
    const char *operation, const char *code, const char *message)
{
	struct buf data = BUF(w);

	buf_fmt(&data, "{\"operation\":\"%s\",\"code\":", operation);
	buf_json(&data, code);
	buf_str(&data, ",\"message\":");
	buf_json(&data, message);
	buf_chr(&data, '}');
	return op_event(w, c, type, data.data);
}

int
op_call(struct work *w, const struct q_capsule_op *c, const char *method, const char *verb,
    const char *op, int64_t epoch, const char *body, int64_t wait_ms, struct json_object **ret)
{
	const char *id = id_text(w, "cl-", c->id);
	struct agent_call call = { .method = method,
		.address = c->address,
		.path = talloc_asprintf(w, "/capsules/%s%s", id, verb),
		.op = op ? talloc_asprintf(w, "%s-%s-%" PRId64, op, id, epoch) : NULL,
		.epoch = epoch,
		.body = body,
		.total_ms = wait_ms };

	if (!c->address)
		return err_set(&w->err, E_HOST_UNAVAILABLE, "%s is on no host", id);
	return agent_send(w, &call, ret);
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

struct bytes
capsule_envs_open(
    void *mem, const struct keys *k, const struct uuid *id, struct bytes sealed, struct err *e)
{
	if (!sealed.p)
		return (struct bytes){ (const uint8_t *)"{}", 2 };
	return envelope_open(mem, k->key[KEY_ENVS], envs_aad(mem, id), sealed, e);
}

static int64_t
now_us(void)
{
	struct timespec t;

	clock_gettime(CLOCK_REALTIME, &t);
	return (int64_t)t.tv_sec * 1000000 + t.tv_nsec / 1000;
}

const char *
op_identity(struct work *w, const struct op_env *env, const struct q_capsule_op *c)
{
	struct buf b = BUF(w);
	struct bytes envs = capsule_envs_open(w, env->keys, c->id, c->envs_enc, &w->err);

	if (!envs.p)
		return NULL;
	buf_str(&b, "\"hostname\":");
	buf_json(&b, c->name ? c->name : "hutch");
	buf_str(&b, ",\"user\":");
	buf_json(&b, c->guest_user);
	buf_str(&b, ",\"workdir\":");
	buf_json(&b, c->workdir);
	buf_fmt(&b, ",\"team_id\":\"%s\",\"template_id\":\"%s\",\"access_token\":\"%s\",\"envs\":",
	    id_text(w, "team-", c->team_id), id_text(w, "tpl-", c->template_id),
	    crypto_guest_token(w, env->keys, c->id, GUEST_TOKEN_EPOCH));
	buf_add(&b, envs.p, envs.n);
	return b.data;
}

void
op_times(struct buf *b, const struct q_capsule_op *c)
{
	const char *const *s;
	int64_t sec = c->timeout_sec;

	/* what is left of a fixed time, so that a start that is repeated does not lengthen it */
	if (strcmp(c->timeout_mode, "fixed") == 0 && c->deadline_s != NULL_INT)
		sec = c->deadline_s > 0 ? c->deadline_s : 1;
	buf_fmt(b,
	    "\"told\":\"%s\",\"timeout_sec\":%" PRId64
	    ",\"timeout_mode\":\"%s\",\"idle_action\":\"%s\",\"idle_memory\":%s,\"idle_signals\":[",
	    c->told, sec, c->timeout_mode, c->idle_action, c->idle_memory ? "true" : "false");
	for (s = c->idle_signals; s && *s; s++)
		buf_fmt(b, "%s\"%s\"", s == c->idle_signals ? "" : ",", *s);
	buf_fmt(b, "],\"network\":%s", c->network);
}

static void
put_hex(struct buf *b, struct bytes id)
{
	char hex[65];

	if (id.p && id.n == 32)
		buf_fmt(b, "\"%s\"", hex_write(hex, id.p, id.n));
	else
		buf_str(b, "null");
}

const char *
op_start_body(struct work *w, const struct op_env *env, const struct q_capsule_op *c, int64_t epoch)
{
	struct buf b = BUF(w);
	const char *who = op_identity(w, env, c);

	if (!who)
		return NULL;
	buf_fmt(&b, "{\"epoch\":%" PRId64 ",\"template\":", epoch);
	buf_json(&b, c->template_name);
	buf_fmt(&b,
	    ",\"template_version\":%d,\"vcpus\":%d,\"memory_mb\":%d,\"disk_size_mb\":%d,"
	    "\"boot\":\"%s\",%s,",
	    c->template_version, c->vcpus, c->memory_mb, c->disk_size_mb,
	    c->wake_cold    ? "cold"
		: c->starts ? "warm"
			    : c->boot,
	    who);
	op_times(&b, c);
	if (c->wake_from && strcmp(c->wake_from, "image") == 0) {
		buf_str(&b, ",\"image\":{\"memory\":");
		put_hex(&b, c->wake_cold ? (struct bytes){ 0 } : c->image_memory);
		buf_str(&b, ",\"disk\":");
		put_hex(&b, c->image_disk);
		buf_fmt(&b, ",\"new_identity\":%s}", c->starts == 0 ? "true" : "false");
	}
	buf_chr(&b, '}');
	return b.data;
}

int
op_waits(struct work *w, const struct q_capsule_op *c, const char *what)
{
	return q_life_reason(w->db, .id = c->id, .epoch = c->epoch, .reason = what) < 0 ? -1 : 0;
}

/* One artifact: from a host that has it to the host that needs it. 1: it was pulled; 0: it was
   there. */
static int
pull(struct work *w, const struct q_capsule_op *c, struct bytes id, int64_t wait_ms)
{
	char hex[65];
	struct q_artifact_source *s;
	struct json_object *answer;
	int n, i;

	if (!id.p)
		return 0;
	n = q_artifact_sources(w->db, &s, .id = id);
	for (i = 0; i < n; i++)
		if (uuid_equal(s[i].holder, c->host_id))
			return 0;
	if (n <= 0)
		return n < 0
		    ? -1
		    : err_set(&w->err, E_HOST_UNAVAILABLE, "no host that has its image answers");
	if (op_waits(w, c, "pulling") < 0)
		return -1;
	hex_write(hex, id.p, id.n);
	for (i = 0; i < n; i++) {
		struct buf body = BUF(w);
		struct agent_call call = { .method = "PUT",
			.address = c->address,
			.path = talloc_asprintf(w, "/artifacts/%s", hex),
			.op = talloc_asprintf(w, "pull-%s", hex),
			.epoch = c->epoch,
			.total_ms = wait_ms };

		w->err = (struct err){ 0 };
		buf_str(&body, "{\"from\":");
		buf_json(&body, s[i].dial);
		buf_chr(&body, '}');
		call.body = body.data;
		if (agent_send(w, &call, &answer) < 0)
			continue;
		return q_artifact_held(w->db, .id = id, .holder = c->host_id) < 0 ? -1 : 1;
	}
	return -1;
}

/* Its place is reserved, so its state stays `starting` while its host pulls; one that failed is
   made again, and waited for on. */
int
op_pull(struct work *w, const struct q_capsule_op *c, int64_t wait_ms)
{
	bool image = c->wake_from && strcmp(c->wake_from, "image") == 0;
	bool waited = strcmp(c->state_reason, "pulling") == 0;
	int n = 0;

	if (c->host_id)
		n = host_bring_template(w, c->host_id, c->address, c->template_name, c, wait_ms);
	waited = waited || n > 0;
	if (n >= 0 && image && !c->wake_cold)
		n = pull(w, c, c->image_memory, wait_ms);
	waited = waited || n > 0;
	if (n >= 0 && image)
		n = pull(w, c, c->image_disk, wait_ms);
	if (n < 0)
		return -1;
	return waited || n > 0 ? op_waits(w, c, "") : 0;
}

int
op_running(struct work *w, const struct op_env *env, const struct job_ref *job,
    const struct q_capsule_op *c, const char *from, struct json_object *answer)
{
	const char *mode = json_str(answer, "start_mode", "cold");
	bool first = strcmp(from, "pending") == 0;
	const char *data;
	int n;

	if (strcmp(mode, "warm") != 0 && strcmp(mode, "restored") != 0)
		mode = "cold";
	data = talloc_asprintf(w, "{\"from\":\"%s\",\"took_ms\":%" PRId64 ",\"start_mode\":\"%s\"}",
	    from, first ? (now_us() - c->created_at) / 1000 : c->since_s * 1000, mode);
	if (op_begin(w, job) < 0)
		return -1;
	n = q_capsule_running(w->db, .id = c->id, .epoch = c->epoch, .start_mode = mode,
	    .accel = json_str(answer, "accel", "tcg"));
	if (n < 0 || (n > 0 && op_event(w, c, "capsule.running", data) < 0))
		return -1;
	return op_commit(w, env);
}

int
op_failed(struct work *w, const struct job_ref *job, const struct q_capsule_op *c, int64_t epoch,
    const char *operation, const char *code)
{
	struct err cause = w->err;
	const char *text = err_kinds[cause.code].text;
	int n;

	w->err = (struct err){ 0 };
	if (cause.code == E_NO_SPACE)
		code = "out_of_space";
	if (op_begin(w, job) < 0)
		return -1;
	n = q_capsule_failed(w->db, .id = c->id, .epoch = epoch, .code = code, .message = text,
	    .was = c->observed_state);
	if (n < 0 || (n > 0 && op_event_error(w, c, "capsule.error", operation, code, text) < 0) ||
	    db_commit(w->db) < 0)
		return -1;
	w->err = cause;
	return -1;
}

static int
hex_id(struct work *w, struct json_object *answer, const char *name, struct bytes *ret)
{
	const char *hex = json_str(answer, name, NULL);
	uint8_t *id;

	*ret = (struct bytes){ 0 };
	if (!hex)
		return 0;
	id = talloc_size(w, 32);
	if (strlen(hex) != 64 || !hex_read(hex, id, 32))
		return err_set(&w->err, E_AGENT, "\"%s\" is no artifact's id", name);
	*ret = (struct bytes){ id, 32 };
	return 0;
}

static int
note(struct work *w, const struct uuid *host, struct bytes id, struct bytes parent,
    const char *kind, const struct sealed *s)
{
	if (!id.p)
		return 0;
	if (q_artifact_add(w->db, .id = id, .parent = parent, .kind = kind, .bytes = s->bytes,
		.cpu_class = strcmp(kind, "memory") == 0 ? s->cpu_class : NULL) < 0)
		return -1;
	return host && q_artifact_held(w->db, .id = id, .holder = host) < 0 ? -1 : 0;
}

int
op_sealed(struct work *w, const struct uuid *host, struct json_object *answer, struct sealed *ret)
{
	struct bytes memory_parent, disk_parent;

	ret->cpu_class = json_str(answer, "cpu_class", "");
	ret->bytes = json_int(answer, "bytes", json_int(answer, "bytes_unique", 0));
	if (hex_id(w, answer, "memory", &ret->memory) < 0 ||
	    hex_id(w, answer, "memory_parent", &memory_parent) < 0 ||
	    hex_id(w, answer, "disk", &ret->disk) < 0 ||
	    hex_id(w, answer, "disk_parent", &disk_parent) < 0)
		return -1;
	if (!ret->disk.p)
		return err_set(&w->err, E_AGENT, "the host did not say which disk it sealed");
	if (note(w, host, ret->memory, memory_parent, "memory", ret) < 0)
		return -1;
	return note(w, host, ret->disk, disk_parent, "disk", ret);
}

int
op_image(struct work *w, const struct q_capsule_op *c, const struct sealed *s)
{
	if (q_life_images_old(w->db, .id = c->id, .epoch = c->epoch) < 0)
		return -1;
	return q_life_image_add(w->db, .id = c->id, .epoch = c->epoch, .team = c->team_id,
		   .memory = s->memory, .disk = s->disk, .cpu_class = s->cpu_class,
		   .bytes = s->bytes) < 0
	    ? -1
	    : 0;
}

/* --- start ---------------------------------------------------------------------------------- */

enum { ATTEMPTS = 3, FORGET_MS = 3000 };

static struct place_ask
place_ask(const struct op_env *env, const struct q_capsule_op *c)
{
	struct place_ask a = { .conf = env->conf,
		.team = c->team_id,
		.vcpus = c->vcpus,
		.memory_mb = c->memory_mb,
		.disk_mb = c->disk_size_mb,
		.template = c->template_name,
		.tags = c->host_tags };

	if (c->image_disk.p) {
		a.disk = c->image_disk;
		a.memory = c->wake_cold ? (struct bytes){ 0 } : c->image_memory;
		a.cpu_class = a.memory.p ? c->image_class : NULL;
	}
	return a;
}

/* pending -> starting. 1: placed; 0: somebody else moved it. */
static int
place(struct work *w, const struct op_env *env, const struct job_ref *job,
    const struct q_capsule_op *c)
{
	struct place_ask ask = place_ask(env, c);
	struct place at;
	int n;

	if (op_begin(w, job) < 0)
		return -1;
	if (host_place(w, &ask, &at) < 0) {
		db_rollback(w->db);
		if (w->err.code != E_NO_HOSTS || c->since_s < env->conf->host_place_sec)
			return -1;
		return op_failed(w, job, c, c->epoch, "place", "no_hosts_available");
	}
	n = q_life_place(w->db, .id = c->id, .epoch = c->epoch, .host = at.host);
	if (n < 0 || db_commit(w->db) < 0)
		return -1;
	return n > 0;
}

/* A start that failed is tried at another host, then without memory (spec 02 §1.3). 0: it goes on
   there. */
static int
try_elsewhere(struct work *w, const struct op_env *env, const struct job_ref *job,
    const struct q_capsule_op *c)
{
	struct err cause = w->err;
	struct place_ask ask = place_ask(env, c);
	bool cold = c->failures + 2 >= ATTEMPTS;
	struct place at;
	int n = 0;

	if (c->failures + 1 >= ATTEMPTS || op_unknown(&cause))
		return -1;
	w->err = (struct err){ 0 };
	ask.avoid = c->host_id;
	if (op_begin(w, job) < 0)
		return -1;
	if (host_place(w, &ask, &at) < 0) {
		/* no other host: here once more */
		w->err = (struct err){ 0 };
		db_rollback(w->db);
		if (op_begin(w, job) < 0)
			return -1;
		at.host = c->host_id;
	}
	n = q_life_move(w->db, .id = c->id, .epoch = c->epoch, .host = at.host, .cold = cold);
	if (n < 0 || db_commit(w->db) < 0)
		return -1;
	w->err = cause;
	return n > 0 ? 0 : -1;
}

int
capsule_op_start(struct work *w, const struct op_env *env, const struct job_ref *job,
    const struct op_args *a, int64_t wait_ms)
{
	struct json_object *answer;
	struct q_capsule_op *c;
	const char *body;
	int n = q_capsule_for_op(w->db, &c, .id = a->capsule);

	if (n <= 0)
		return n;
	if (c->epoch == a->epoch && c->wake_from && strcmp(c->wake_from, "parent") == 0 &&
	    (strcmp(c->observed_state, "pending") == 0 ||
		strcmp(c->observed_state, "starting") == 0)) {
		(void)err_set(&w->err, E_AGENT, "the fork that should have made it has ended");
		return op_failed(w, job, c, c->epoch, "fork", "start_failed");
	}
	if (c->epoch == a->epoch && strcmp(c->observed_state, "pending") == 0) {
		n = place(w, env, job, c);
		if (n <= 0 || q_capsule_for_op(w->db, &c, .id = a->capsule) <= 0)
			return n;
	}
	/* a start that moved to another host is a later epoch of the same job */
	if (c->epoch < a->epoch || strcmp(c->observed_state, "starting") != 0)
		return 0;
	crash_point("create.2");
	body = op_start_body(w, env, c, c->epoch);
	if (!body || op_pull(w, c, wait_ms) < 0 ||
	    op_call(w, c, "PUT", "", "start", c->epoch, body, wait_ms, &answer) < 0) {
		/* a host that cannot be reached, or still boots it, may have it running a moment
		 * later */
		if (op_unknown(&w->err))
			return -1;
		if (try_elsewhere(w, env, job, c) == 0)
			return w->err.code = E_OVERLOADED, -1;
		return op_failed(w, job, c, c->epoch, "start", "start_failed");
	}
	crash_point("create.6");
	return op_running(w, env, job, c, c->starts ? "error" : "pending", answer);
}

/* --- change --------------------------------------------------------------------------------- */

int
capsule_op_update(struct work *w, const struct op_env *env, const struct job_ref *job,
    const struct op_args *a, int64_t wait_ms)
{
	static const char *const moving[] = { "starting", "resuming", "pausing", "hibernating" };
	struct buf body = BUF(w);
	struct json_object *answer;
	struct q_capsule_op *c;
	int n = q_capsule_for_op(w->db, &c, .id = a->capsule);
	size_t i;

	(void)env;
	(void)job; /* it changes no row */
	if (n <= 0)
		return n;
	/* its host holds what an operation was given before: it is told at the end of that */
	for (i = 0; i < nitems(moving); i++)
		if (strcmp(c->observed_state, moving[i]) == 0)
			return err_set(&w->err, E_OVERLOADED, "the capsule is %s", moving[i]);
	/* one that is not there learns it with its next start */
	if (strcmp(c->observed_state, "running") != 0 && strcmp(c->observed_state, "paused") != 0)
		return 0;
	buf_chr(&body, '{');
	op_times(&body, c);
	buf_fmt(&body, ",\"disk_size_mb\":%d}", c->disk_size_mb);
	return op_call(w, c, "PATCH", "", NULL, c->epoch, body.data, wait_ms, &answer);
}

/* --- destroy -------------------------------------------------------------------------------- */

/* A sleeping capsule is on no host, but where it fell asleep its agent still knows it. A host that
   does not hear it is told when its inventory shows it (host_watch.c). */
static int
forget_images(struct work *w, const struct q_capsule_op *c, int64_t wait_ms)
{
	struct q_artifact_source *h;
	struct json_object *answer;
	int n = q_life_image_hosts(w->db, &h, .id = c->id), i;

	for (i = 0; i < n; i++) {
		struct q_capsule_op there = *c;

		there.address = h[i].dial;
		if (c->host_id && uuid_equal(c->host_id, h[i].holder))
			continue;
		(void)op_call(w, &there, "DELETE", "", NULL, c->epoch, NULL,
		    wait_ms < FORGET_MS ? wait_ms : FORGET_MS, &answer);
		w->err = (struct err){ 0 };
	}
	return n < 0 ? -1 : 0;
}

int
capsule_op_destroy(struct work *w, const struct op_env *env, const struct job_ref *job,
    const struct op_args *a, int64_t wait_ms)
{
	struct json_object *answer;
	struct q_capsule_op *c;
	int n = q_capsule_for_op(w->db, &c, .id = a->capsule);

	if (n <= 0)
		return n;
	if (strcmp(c->observed_state, "stopping") != 0)
		return 0;
	crash_point("destroy.2");
	if (c->host_id && op_call(w, c, "DELETE", "", NULL, c->epoch, NULL, wait_ms, &answer) < 0) {
		if (w->err.code != E_NOT_FOUND)
			return -1;
		w->err = (struct err){ 0 }; /* never made, or gone already */
	}
	if (forget_images(w, c, wait_ms) < 0)
		return -1;
	crash_point("destroy.6");
	if (op_begin(w, job) < 0 || q_capsule_stopped(w->db, .id = a->capsule) < 0 ||
	    q_life_images_gone(w->db, .id = a->capsule) < 0)
		return -1;
	return op_commit(w, env);
}
