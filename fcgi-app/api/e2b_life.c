/*
 * e2b_life.c - what is done to capsules through the E2B protocol: end, pause, times, network, fork
 * (spec 06 §6, §7).
 */
#include "cleanup.h"
#include "e2b.h"

#include <inttypes.h>
#include <time.h>

static handler sandbox_kill, sandbox_timeout, sandbox_refresh, sandbox_pause, sandbox_network,
    sandbox_fork;

static const struct field by_sandbox_fields[] = { SANDBOX_ID(by_sandbox), { 0 } };

struct timed {
	const char *id;
	int32_t seconds;
};
static const struct field timeout_fields[] = {
	SANDBOX_ID(timed),
	FIELD(timed, seconds, "timeout", .flags = NEEDED, .min = 0, .max = E2B_TIMEOUT_MAX,
	    .doc = "Seconds from now; 0 ends it."),
	{ 0 },
};
static const struct field refresh_fields[] = {
	SANDBOX_ID(timed),
	FIELD(timed, seconds, "duration", .min = 0, .max = E2B_TIMEOUT_MAX, .dflt = 15,
	    .doc = "Seconds from now, if that is longer."),
	{ 0 },
};
struct pause_in {
	const char *id;
	bool memory;
};
static const struct field pause_in_fields[] = {
	SANDBOX_ID(pause_in),
	FIELD(pause_in, memory, "memory", .dflt = 1, .doc = "false: only the disk is kept."),
	{ 0 },
};
struct copies {
	const char *id;
	int32_t count, timeout;
};
static const struct field copies_fields[] = {
	SANDBOX_ID(copies),
	FIELD(copies, count, "count", .min = 1, .max = 100, .dflt = 1),
	FIELD(copies, timeout, "timeout", .min = 0, .max = E2B_TIMEOUT_MAX, .dflt = 15),
	{ 0 },
};
struct why_not {
	int32_t code;
	const char *message;
};
static const struct field why_not_fields[] = {
	FIELD(why_not, code, "code", .flags = NEEDED),
	FIELD(why_not, message, "message", .flags = NEEDED),
	{ 0 },
};
struct copied {
	struct sandbox_shape *sandbox;
	struct why_not *error;
};
static const struct field copied_fields[] = {
	SUB(copied, sandbox, "sandbox", sandbox_shape_fields, sandbox_shape, .flags = OMIT),
	SUB(copied, error, "error", why_not_fields, why_not, .flags = OMIT),
	{ 0 },
};

/* clang-format off */
#define TIMED(table) .in = table##_fields, .insize = sizeof(struct timed)
const struct route e2b_life_routes[] = {
	{ "DELETE", "/sandboxes/{id}", POOL_OPS, PERM_capsules_delete, sandbox_kill, "E2B: kill a sandbox", E2B, 204, IN(by_sandbox) },
	{ "POST", "/sandboxes/{id}/timeout", POOL_OPS, PERM_capsules_update, sandbox_timeout, "E2B: when a sandbox ends", E2B, 204, TIMED(timeout) },
	{ "POST", "/sandboxes/{id}/refreshes", POOL_OPS, PERM_capsules_update, sandbox_refresh, "E2B: a sandbox lives longer", E2B | MAY_BE_EMPTY, 204, TIMED(refresh) },
	{ "POST", "/sandboxes/{id}/pause", POOL_OPS, PERM_capsules_update, sandbox_pause, "E2B: pause a sandbox", E2B | MAY_BE_EMPTY, 204, IN(pause_in) },
	{ "PUT", "/sandboxes/{id}/network", POOL_OPS, PERM_capsules_update, sandbox_network, "E2B: replace a sandbox's outward rules", E2B, 204, IN(e2b_network_update) },
	{ "POST", "/sandboxes/{id}/fork", POOL_OPS, PERM_capsules_create, sandbox_fork, "E2B: copies of a sandbox", E2B | CREATES | LISTS | MAY_BE_EMPTY, 201, IN(copies), OUT(copied) },
	{ 0 },
};
/* clang-format on */

/* --- what a route waits for ----------------------------------------------------------------- */

int
sandbox_reached(struct request *r, const char *wanted, const char *moving, const char *failed,
    struct q_sandbox **ret)
{
	const struct doing *d = r->after_arg;
	struct err cause = r->work.err;
	int64_t wait_ms = cause.code == E_OK ? (int64_t)d->wait_sec * 1000 : 0;

	r->work.err = (struct err){ 0 };
	if (capsule_look_on(r, d, capsule_clock() + wait_ms) < 0 ||
	    sandbox_again(r, &d->id, ret) < 0)
		return -1;
	if (strcmp((*ret)->observed, wanted) == 0)
		return 0;
	if (!(*ret)->state)
		return fail(r, E_NOT_FOUND, "the sandbox is gone");
	if (strstr(moving, (*ret)->observed))
		return fail(r, E_TIMEOUT, "it is still on its way; ask again");
	if (cause.code == E_OK)
		return fail(r, E_AGENT, "%s", failed);
	r->work.err = cause;
	return -1;
}

int
sandbox_give_up(struct request *r, const struct q_sandbox *s)
{
	db_begin(r->work.db);
	if (capsule_destroy_for(&r->work, s->team_id, s->id, s->epoch, "placement_timeout") < 0)
		return -1;
	return db_commit(r->work.db);
}

int
sandbox_ends_in(struct request *r, const struct q_sandbox *s, int32_t seconds)
{
	const struct capsule_patch p = { .id = s->id,
		.t = { .timeout_sec = seconds,
		    .timeout_mode = "fixed",
		    .max_lifetime_sec = NULL_INT4 },
		.vcpus = NULL_INT4,
		.disk_size_mb = NULL_INT4,
		.memory_mb = NULL_INT4,
		.generation = NULL_INT,
		.changed = "{\"changed\":[\"timeout_sec\"]}" };
	struct q_capsule *row;

	return capsule_change(r, &p, &row);
}

/* --- end ------------------------------------------------------------------------------------ */

/* Waits until it is gone, whoever does it. */
static int
gone(struct request *r)
{
	struct doing *d = r->after_arg;
	struct q_sandbox *s;

	r->work.err = (struct err){ 0 };
	d->until = "stopped";
	if (capsule_look_on(r, d, capsule_clock() + (int64_t)d->wait_sec * 1000) < 0 ||
	    sandbox_any(r, id_text(r, "", &d->id), &s) < 0)
		return -1;
	if (strcmp(s->observed, "stopped") != 0)
		return fail(r, E_TIMEOUT, "its host has not confirmed the end yet");
	return reply_done(r, 1);
}

static int
end(struct request *r, const struct q_sandbox *s)
{
	struct doing *d;

	if (strcmp(s->observed, "stopped") == 0)
		return fail(r, E_NOT_FOUND, "sandbox not found");
	if (strcmp(s->observed, "stopping") != 0)
		return capsule_end(r, s->id, WAIT_LONG, gone) < 0 ? -1 : reply_done(r, 1);
	d = talloc_zero(r, struct doing);
	*d = (struct doing){ .id = *s->id, .wait_sec = WAIT_LONG };
	r->after = gone;
	r->after_arg = d;
	return reply_done(r, 1);
}

static int
sandbox_kill(struct request *r)
{
	const struct by_sandbox *in = r->in;
	struct q_sandbox *s;

	return sandbox_any(r, in->id, &s) < 0 ? -1 : end(r, s);
}

/* --- pause ---------------------------------------------------------------------------------- */

static int
asleep(struct request *r)
{
	struct q_sandbox *s;

	if (sandbox_reached(r, "hibernated", "hibernating", "it could not be paused", &s) < 0)
		return -1;
	return reply_done(r, 1);
}

static int
put_to_sleep(struct request *r, const struct q_sandbox *s, bool memory)
{
	struct capsule_move move = { .id = s->id,
		.by = "client",
		.memory = memory,
		.timeout_sec = NULL_INT4,
		.wait = WAIT_LONG,
		.answer = asleep };
	struct doing *d;

	if (strcmp(s->observed, "hibernating") == 0) { /* a repeat joins */
		d = talloc_zero(r, struct doing);
		*d = (struct doing){ .id = *s->id, .wait_sec = WAIT_LONG };
		r->after = asleep;
		r->after_arg = d;
	} else if (strcmp(s->state, "paused") == 0)
		return fail(r, E_BAD_STATE, "already paused");
	else if (capsule_hibernates(r, &move) < 0)
		return -1;
	d = r->after_arg;
	d->until = "hibernated paused running error stopping stopped missing";
	return reply_done(r, 1);
}

static int
sandbox_pause(struct request *r)
{
	const struct pause_in *in = r->in;
	struct q_sandbox *s;

	return sandbox_find(r, in->id, &s) < 0 ? -1 : put_to_sleep(r, s, in->memory);
}

/* --- times ---------------------------------------------------------------------------------- */

static int
set_end(struct request *r, const struct q_sandbox *s, int32_t seconds)
{
	return sandbox_ends_in(r, s, seconds) < 0 ? -1 : reply_done(r, 1);
}

static int
running(struct request *r, const char *id, struct q_sandbox **ret)
{
	if (sandbox_find(r, id, ret) < 0)
		return -1;
	return strcmp((*ret)->state, "running") == 0
	    ? 0
	    : fail(r, E_NOT_FOUND, "the sandbox is not running");
}

/* 0: now, and as it would have ended by itself. */
static int
sandbox_timeout(struct request *r)
{
	const struct timed *in = r->in;
	struct q_sandbox *s;

	if (running(r, in->id, &s) < 0)
		return -1;
	if (in->seconds > 0)
		return set_end(r, s, in->seconds);
	return strcmp(s->idle_action, "destroy") == 0 ? end(r, s)
						      : put_to_sleep(r, s, s->idle_memory);
}

static int
sandbox_refresh(struct request *r)
{
	const struct timed *in = r->in;
	struct q_sandbox *s;

	if (running(r, in->id, &s) < 0)
		return -1;
	if (s->left_s == NULL_INT || s->left_s >= in->seconds)
		return reply_done(r, 1);
	return set_end(r, s, in->seconds);
}

/* --- network -------------------------------------------------------------------------------- */

/* Behind the commit: does the host enforce it? When the job failed, r->work.err says why. */
static int
enforced(struct request *r)
{
	static const struct timespec pause = { 0, 50000000 };
	struct doing *d = r->after_arg;
	const int64_t *until = d->arg;
	struct q_e2b_job_state *job;

	if (r->work.err.code != E_OK)
		return -1;
	for (;; nanosleep(&pause, NULL)) {
		if (q_e2b_job(r->work.db, &job, .id = &d->job.id) <= 0)
			return -1;
		if (strcmp(job->state, "succeeded") == 0)
			return reply_done(r, 1);
		if (strcmp(job->state, "queued") != 0 && strcmp(job->state, "running") != 0)
			return fail(r, E_AGENT, "its host did not take the rules");
		if (capsule_clock() >= *until)
			return fail(r, E_TIMEOUT, "its host has not confirmed the rules yet");
	}
}

/* All outward rules at once; what is left out is cleared. Done when the host has them. */
static int
sandbox_network(struct request *r)
{
	const struct e2b_network_update *in = r->in;
	struct capsule_patch p = { .t = { .timeout_sec = NULL_INT4, .max_lifetime_sec = NULL_INT4 },
		.vcpus = NULL_INT4,
		.disk_size_mb = NULL_INT4,
		.memory_mb = NULL_INT4,
		.generation = NULL_INT,
		.changed = "{\"changed\":[\"network\"]}" };
	int64_t *until = talloc(r, int64_t);
	struct doing *d = talloc_zero(r, struct doing);
	struct q_capsule *row;
	struct q_sandbox *s;

	if (running(r, in->id, &s) < 0)
		return -1;
	*until = capsule_clock() + E2B_WAIT_MS;
	*d =
	    (struct doing){ .wait_sec = WAIT_LONG, .until = "-", .answer = enforced, .arg = until };
	p.id = s->id;
	p.told = d;
	p.t.network = e2b_network_of(
	    r, in->internet, in->allow_out, in->deny_out, in->rules, in->egress_proxy);
	if (!p.t.network || capsule_change(r, &p, &row) < 0)
		return -1;
	return reply_done(r, 1);
}

/* --- fork ----------------------------------------------------------------------------------- */

static struct why_not *
told(void *mem, enum err_code code, const char *message)
{
	struct why_not *w = talloc(mem, struct why_not);
	const char *slug;

	*w = (struct why_not){ e2b_status(code, &slug), message };
	return w;
}

/* A child that does not come in time goes again; what failed is told in its place. */
static int
wait_for_child(struct request *r, struct brood *b, int i)
{
	const struct doing d = { .id = b->id[i],
		.until = "running error paused hibernated stopping stopped" };
	struct q_sandbox *s;

	if (capsule_look_on(r, &d, b->until) < 0 || sandbox_again(r, &b->id[i], &s) < 0)
		return -1;
	if (strcmp(s->observed, "running") == 0)
		return 0;
	b->error[i] =
	    (struct refusal){ "sandbox_create_failed", "it could not be started", E_START_FAILED };
	if (!s->state)
		return 0;
	b->error[i] = (struct refusal){ "sandbox_placement_timeout", "it did not start in time",
		E_NOT_PLACED };
	return sandbox_give_up(r, s);
}

/* Behind the commit: the children run, and the parent takes another operation. */
static int
wait_for_brood(struct request *r, struct brood *b)
{
	static const struct timespec pause = { 0, 50000000 };
	const struct copies *in = r->in;
	struct q_sandbox *s;
	int i;

	for (i = 0; i < b->count; i++)
		if (!b->error[i].code && wait_for_child(r, b, i) < 0)
			return -1;
	job_announce(&r->work, r->app->queue);
	while (sandbox_any(r, in->id, &s) == 0 && s->op && capsule_clock() < b->until)
		nanosleep(&pause, NULL);
	return r->work.err.code == E_OK ? 0 : -1;
}

static int
forked(struct request *r, struct brood *b)
{
	struct copied *all = talloc_zero_array(r, struct copied, b->count);
	struct q_sandbox *s;
	int i;

	if (b->until && wait_for_brood(r, b) < 0)
		return -1;
	b->until = capsule_clock() + E2B_WAIT_MS;

	for (i = 0; i < b->count; i++) {
		if (b->error[i].code) {
			all[i].error = told(all, b->error[i].why, b->error[i].message);
			continue;
		}
		if (sandbox_again(r, &b->id[i], &s) < 0)
			return -1;
		all[i].sandbox = talloc(all, struct sandbox_shape);
		sandbox_shape(r, s, all[i].sandbox);
	}
	return reply_rows(r, b->count, all, sizeof *all);
}

static int
sandbox_fork(struct request *r)
{
	const struct copies *in = r->in;
	struct fork_in f = { .count = in->count,
		.memory = true,
		.c = { .wait = WAIT_LONG,
		    .t = { .timeout_sec = in->timeout,
			.timeout_mode = "fixed",
			.max_lifetime_sec = NULL_INT4 } } };
	struct q_sandbox *s;

	if (sandbox_find(r, in->id, &s) < 0)
		return -1;
	f.c.id = s->id;
	return capsule_forks(r, &f, forked);
}
