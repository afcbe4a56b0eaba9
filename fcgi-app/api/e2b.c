/*
 * e2b.c - capsules through the E2B protocol: create, one, connect, resume (spec 06 §6, §7).
 *
 * Lists: e2b_list.c. Pause, end, times, network, fork: e2b_life.c. Queries: sql/queries/e2b.sql.
 * Tests: tests/http/e2b.py, tests/compat/.
 */
#include "cleanup.h"
#include "e2b.h"

#include <inttypes.h>

static handler create_v2, create_v1, sandbox_get, sandbox_connect, sandbox_resume;

struct switch_in {
	bool enabled;
};
static const struct field switch_fields[] = { FIELD(switch_in, enabled, "enabled"), { 0 } };
struct mount_in {
	const char *name, *path;
};
static const struct field mount_fields[] = {
	FIELD(mount_in, name, "name"),
	FIELD(mount_in, path, "path"),
	{ 0 },
};

struct new_sandbox {
	const char *template, *iam;
	int32_t timeout;
	const struct pair *metadata, *envs;
	struct e2b_network *network;
	struct switch_in *auto_resume;
	struct list mounts;
	bool internet, auto_pause, pause_memory, secure;
};
/* clang-format off */
#define NEW_SANDBOX(seconds)									\
	FIELD(new_sandbox, template, "templateID", .flags = NEEDED, .min = 1, .max = 200, .doc = "Id or name of a template or snapshot."),	\
	FIELD(new_sandbox, timeout, "timeout", .min = 0, .max = E2B_TIMEOUT_MAX, .dflt = seconds, .doc = "Seconds to live; 0: no end."),	\
	FIELD(new_sandbox, metadata, "metadata", .max = 1000),					\
	FIELD(new_sandbox, envs, "envVars", .max = 1000, .format = "env-name"),		\
	FIELD(new_sandbox, internet, "allow_internet_access", .dflt = 1),			\
	SUB(new_sandbox, network, "network", e2b_network_fields, e2b_network),			\
	FIELD(new_sandbox, auto_pause, "autoPause", .doc = "Sleep when the time is up, instead of the end."),	\
	FIELD(new_sandbox, pause_memory, "autoPauseMemory", .dflt = 1, .doc = "false: with its disk alone."),	\
	SUB(new_sandbox, auto_resume, "autoResume", switch_fields, switch_in, .doc = "Traffic wakes it."),	\
	SUB(new_sandbox, mounts, "volumeMounts", mount_fields, mount_in, .flags = LIST, .doc = "Not supported here."),	\
	FIELD(new_sandbox, iam, "iam", .format = "json", .doc = "Not supported here.")
static const struct field new_sandbox_v2_fields[] = { NEW_SANDBOX(300), { 0 } };
static const struct field new_sandbox_v1_fields[] = {
	NEW_SANDBOX(15),
	FIELD(new_sandbox, secure, "secure", .dflt = 1, .doc = "false is refused: each has its token."),
	{ 0 },
};

struct wake_in {
	const char *id;
	int32_t timeout;
	bool memory;
};
#define WAKE(...)										\
	SANDBOX_ID(wake_in),									\
	FIELD(wake_in, timeout, "timeout", .min = 0, .max = E2B_TIMEOUT_MAX, __VA_ARGS__),	\
	FIELD(wake_in, memory, "memory", .dflt = 1, .doc = "false: boots the disk, without the memory.")
static const struct field connect_v2_fields[] = { WAKE(.dflt = 300), { 0 } };
static const struct field connect_v1_fields[] = { WAKE(.flags = NEEDED), { 0 } };
static const struct field resume_fields[] = { WAKE(.dflt = 15), { 0 } };
static const struct field by_sandbox_fields[] = { SANDBOX_ID(by_sandbox), { 0 } };

#define NEW(v) .in = new_sandbox_##v##_fields, .insize = sizeof(struct new_sandbox), OUT(sandbox_shape)
#define WAKES(v) .in = v##_fields, .insize = sizeof(struct wake_in), OUT(sandbox_shape)
const struct route e2b_routes[] = {
	{ "POST", "/v2/sandboxes", POOL_OPS, PERM_capsules_create, create_v2, "E2B: create a sandbox", E2B | CREATES, 201, NEW(v2) },
	{ "POST", "/sandboxes", POOL_OPS, PERM_capsules_create, create_v1, "E2B: create a sandbox", E2B | CREATES, 201, NEW(v1) },
	{ "GET", "/sandboxes/{id}", POOL_API, PERM_capsules_view, sandbox_get, "E2B: one sandbox", E2B, 200, IN(by_sandbox), OUT(sandbox_detail) },
	{ "POST", "/v2/sandboxes/{id}/connect", POOL_OPS, PERM_capsules_update, sandbox_connect, "E2B: extend or wake a sandbox", E2B | MAY_BE_EMPTY, 200, 201, WAKES(connect_v2) },
	{ "POST", "/sandboxes/{id}/connect", POOL_OPS, PERM_capsules_update, sandbox_connect, "E2B: extend or wake a sandbox", E2B, 200, 201, WAKES(connect_v1) },
	{ "POST", "/sandboxes/{id}/resume", POOL_OPS, PERM_capsules_update, sandbox_resume, "E2B: wake a sandbox", E2B | MAY_BE_EMPTY, 201, WAKES(resume) },
	{ 0 },
};
/* clang-format on */

static int
sandbox_get(struct request *r)
{
	const struct by_sandbox *in = r->in;
	struct q_sandbox *s;

	return sandbox_find(r, in->id, &s) < 0 ? -1 : sandbox_detail(r, s);
}

/* --- create --------------------------------------------------------------------------------- */

/* Nobody waits for it any more: it goes, and the client asks again. */
static int
give_up(struct request *r, const struct q_sandbox *s)
{
	if (sandbox_give_up(r, s) < 0)
		return -1;
	job_announce(&r->work, r->app->queue);
	return fail(r, E_NOT_PLACED, "it did not start in time");
}

static int
created(struct request *r)
{
	struct doing *d = r->after_arg;
	const int64_t *until = d->arg;
	struct q_sandbox *s;

	r->work.err = (struct err){ 0 };
	if (capsule_look_on(r, d, *until) < 0 || sandbox_again(r, &d->id, &s) < 0)
		return -1;
	if (strcmp(s->observed, "running") == 0 || strcmp(s->observed, "paused") == 0)
		return sandbox_reply(r, s, 201);
	if (strcmp(s->observed, "error") == 0)
		return fail(r, E_START_FAILED, "the host could not start it");
	if (!s->state)
		return fail(r, E_NOT_FOUND, "the sandbox was destroyed");
	return give_up(r, s);
}

static int
check_map(struct request *r, const char *what, const struct pair *p)
{
	size_t all = 0;

	for (; p && p->name; p++)
		all += strlen(p->name) + strlen(p->value);
	return all > ENV_VALUE
	    ? fail(r, E_BAD_INPUT, "\"%s\" has more than %d bytes", what, ENV_VALUE)
	    : 0;
}

/* What is not built is refused, not ignored. */
static int
check(struct request *r, const struct new_sandbox *in)
{
	const struct pair *p;

	if (in->iam && strcmp(in->iam, "{}") != 0)
		return fail(r, E_UNSUPPORTED, "\"iam\" is not supported here");
	if (in->mounts.n)
		return fail(r, E_UNSUPPORTED, "\"volumeMounts\" is not supported here");
	if (!in->pause_memory && in->auto_resume && in->auto_resume->enabled)
		return fail(r, E_BAD_INPUT,
		    "\"autoResume\" wakes the memory that \"autoPauseMemory\": false does not "
		    "keep");
	for (p = in->envs; p && p->name; p++)
		if (strncmp(p->name, "HUTCH_", 6) == 0)
			return fail(r, E_BAD_INPUT,
			    "\"envVars.%.40s\" is reserved: names that begin with HUTCH_", p->name);
	return check_map(r, "metadata", in->metadata) < 0 ? -1 : check_map(r, "envVars", in->envs);
}

/* What /v1/capsules would be told. */
static struct capsule_create
translated(struct request *r, const struct new_sandbox *in, struct network *network)
{
	int64_t *until = talloc(r, int64_t);

	*until = capsule_clock() + E2B_WAIT_MS;
	return (struct capsule_create){ .envs = in->envs,
		.metadata = in->metadata,
		.t = { .timeout_sec = in->timeout,
		    .timeout_mode = "fixed",
		    .idle_action = in->auto_pause ? "hibernate" : "destroy",
		    .auto_resume = in->auto_resume && in->auto_resume->enabled ? "all" : "off",
		    .max_lifetime_sec = NULL_INT4,
		    .network = network },
		.wait = WAIT_LONG,
		.checked = true,
		.answer = created,
		.arg = until };
}

static int
create(struct request *r, const struct new_sandbox *in)
{
	static const struct e2b_network open = { .public_traffic = true };
	const struct e2b_network *n = in->network ? in->network : &open;
	struct capsule_create c;
	struct network *network;
	struct e2b_named from;
	struct q_snapshot *s;
	struct q_sandbox *row;
	const char *ingress;
	struct uuid id;
	int rc;

	if (check(r, in) < 0)
		return -1;
	network =
	    e2b_network_of(r, in->internet, n->allow_out, n->deny_out, n->rules, n->egress_proxy);
	ingress = network ? e2b_ingress(r, n) : NULL;
	if (!ingress || e2b_resolve(r, in->template, &from) < 0)
		return -1;
	c = translated(r, in, network);
	if (from.snapshot) {
		if (q_snapshot_get(r->work.db, &s, .id = from.snapshot->id) <= 0)
			return fail(r, E_NOT_FOUND, "template not found");
		rc = capsule_from_snapshot(r, &c, s, &id);
	} else {
		c.template = talloc_asprintf(r, "%s/%s", from.template->slug, from.template->name);
		c.vcpus = E2B_VCPUS;
		c.memory_mb = E2B_MEMORY_MB;
		c.disk_size_mb = from.template->disk_size_mb > E2B_DISK_MB
		    ? from.template->disk_size_mb
		    : E2B_DISK_MB;
		rc = capsule_new(r, &c, &id);
	}
	if (rc < 0 ||
	    q_e2b_door(r->work.db, .id = &id, .public_traffic = n->public_traffic,
		.ingress = ingress, .idle_memory = in->pause_memory) < 0 ||
	    sandbox_again(r, &id, &row) < 0)
		return -1;
	return sandbox_reply(r, row, 201);
}

static int
create_v2(struct request *r)
{
	return create(r, r->in);
}

static int
create_v1(struct request *r)
{
	const struct new_sandbox *in = r->in;

	if (!in->secure)
		return fail(r, E_FORBIDDEN, "sandboxes without a token are not allowed here");
	return create(r, in);
}

/* --- connect, resume ------------------------------------------------------------------------ */

/* Behind a wake, or while somebody else wakes it. */
static int
awake(struct request *r)
{
	const struct doing *d = r->after_arg;
	struct q_sandbox *s;

	if (sandbox_reached(
		r, "running", "pending starting resuming missing", "it could not be woken", &s) < 0)
		return -1;
	return sandbox_reply(r, s, d->later);
}

static int
wake(struct request *r, const struct wake_in *in, const struct q_sandbox *s)
{
	const struct capsule_move move = { .id = s->id,
		.boot = in->memory ? "warm" : "cold",
		.timeout_sec = in->timeout,
		.wait = WAIT_LONG,
		.answer = awake };
	struct doing *d;

	if (capsule_resumes(r, &move) < 0)
		return -1;
	d = r->after_arg;
	d->until = "running error paused hibernated stopping stopped";
	d->later = 201;
	return sandbox_reply(r, s, 201);
}

/* It is on its way to sleep: waits for that, then wakes it. */
static int
wake_later(struct request *r)
{
	struct doing *d = r->after_arg;
	const struct wake_in *in = r->in;
	struct q_sandbox *s;

	if (capsule_look_on(r, d, capsule_clock() + E2B_WAIT_MS) < 0 ||
	    sandbox_again(r, &d->id, &s) < 0)
		return -1;
	if (!s->state)
		return fail(r, E_NOT_FOUND, "the sandbox is gone");
	if (strcmp(s->observed, "running") == 0)
		return sandbox_reply(r, s, 200);
	db_begin(r->work.db);
	r->after = NULL;
	if (wake(r, in, s) < 0 || db_commit(r->work.db) < 0)
		return -1;
	job_announce(&r->work, r->app->queue);
	return r->after ? r->after(r) : 0;
}

static void
look_on(struct request *r, const struct q_sandbox *s, const char *until, handler *then)
{
	struct doing *d = talloc_zero(r, struct doing);

	*d = (struct doing){ .id = *s->id, .until = until, .wait_sec = WAIT_LONG, .later = 200 };
	r->after = then;
	r->after_arg = d;
}

/* A running one lives longer, never shorter. */
static int
extend(struct request *r, const struct q_sandbox *s, int32_t seconds)
{
	return s->left_s == NULL_INT || s->left_s >= seconds ? 0 : sandbox_ends_in(r, s, seconds);
}

static int
sandbox_connect(struct request *r)
{
	const struct wake_in *in = r->in;
	struct q_sandbox *s;

	if (sandbox_find(r, in->id, &s) < 0)
		return -1;
	if (strcmp(s->observed, "paused") == 0 || strcmp(s->observed, "hibernated") == 0)
		return wake(r, in, s);
	if (strcmp(s->state, "paused") == 0)
		look_on(r, s, "running paused hibernated error stopping stopped", wake_later);
	else if (extend(r, s, in->timeout) < 0)
		return -1;
	else if (strcmp(s->observed, "running") != 0)
		look_on(r, s, "running paused hibernated error stopping stopped", awake);
	return sandbox_reply(r, s, 200);
}

static int
sandbox_resume(struct request *r)
{
	const struct wake_in *in = r->in;
	struct q_sandbox *s;

	if (sandbox_find(r, in->id, &s) < 0)
		return -1;
	if (strcmp(s->state, "running") == 0)
		return fail(r, E_BAD_STATE, "the sandbox is running");
	return sandbox_connect(r);
}
