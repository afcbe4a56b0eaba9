/*
 * capsules.c - capsules: create, list, get, destroy (spec 02 §2.1-2.3).
 *
 * A create is one transaction (quota, host, row, audit, event, job claimed by this process), then
 * one call to the host; what is not reached within api.create_wait a worker finishes. Queries:
 * sql/queries/capsules.sql.  Tests: tests/http/capsules.t.
 */
#include "api.h"
#include "audit.h"
#include "capsule_op.h"
#include "capsules.q.h"
#include "cleanup.h"
#include "crash.h"
#include "job.h"
#include "teams.q.h"

#include <inttypes.h>
#include <string.h>

static handler capsule_create, capsule_list, capsule_get, capsule_destroy, list_ahead, get_ahead;

struct capsule_create {
	const char *template, *name, *user, *workdir, *boot;
	int32_t vcpus, memory_mb, disk_size_mb;
	const struct pair *envs, *metadata;
	const char *const *tags;
};
static const struct field capsule_create_fields[] = {
	FIELD(capsule_create, template, "template", .text = "minimal", .max = 200,
	    .doc = "Name, name@N, or tpl-…"),
	FIELD(capsule_create, name, "name", .format = "name",
	    .doc = "Unique among the team's live capsules."),
	FIELD(capsule_create, vcpus, "vcpus", .max = 16, .min = INT32_MIN, .dflt = 1,
	    .doc = "0 and below: the default."),
	FIELD(capsule_create, memory_mb, "memory_mb", .max = 65536, .min = INT32_MIN, .dflt = 512,
	    .doc = "128 to 65536; 0 and below: the default."),
	FIELD(capsule_create, disk_size_mb, "disk_size_mb", .max = 262144, .min = INT32_MIN,
	    .dflt = 5120, .doc = "1024 to 262144; 0 and below: the default."),
	FIELD(capsule_create, envs, "envs", .max = 128, .format = "env-name",
	    .doc = "Variables of every process; HUTCH_* is reserved."),
	FIELD(capsule_create, metadata, "metadata", .max = 64, .format = "meta-key"),
	FIELD(capsule_create, tags, "tags", .max = 32, .format = "tag"),
	FIELD(capsule_create, user, "user", .min = 1, .max = 32,
	    .doc = "In the guest; by default the template's."),
	FIELD(capsule_create, workdir, "workdir", .min = 1, .max = 4096,
	    .doc = "In the guest; by default the template's."),
	FIELD(capsule_create, boot, "boot", .text = "warm", .one_of = "warm|cold"),
	{ 0 },
};

struct owner {
	const struct uuid *id;
	const char *name;
};
static const struct field owner_fields[] = {
	FIELD(owner, id, "id", .flags = NEEDED, .prefix = "usr-"),
	FIELD(owner, name, "name", .flags = NEEDED),
	{ 0 },
};

/* The row, and what the row does not have in the shape of the answer. */
struct capsule {
	struct q_capsule row;
	struct owner *owner;
	const char *domain;
};
static const struct field capsule_fields[] = {
	FIELD(q_capsule, id, "id", .flags = NEEDED, .prefix = "cl-"),
	FIELD(q_capsule, status, "status", .flags = NEEDED,
	    .one_of = "pending|starting|running|paused|hibernated|stopped|missing|error"),
	FIELD(q_capsule, template, "template", .flags = NEEDED),
	FIELD(q_capsule, vcpus, "vcpus", .flags = NEEDED),
	FIELD(q_capsule, memory_mb, "memory_mb", .flags = NEEDED),
	FIELD(q_capsule, timeout_sec, "timeout_sec", .flags = NEEDED, .doc = "0: no idle timeout."),
	FIELD(q_capsule, created_at, "created_at", .flags = NEEDED, .format = "date-time"),
	FIELD(q_capsule, started_at, "started_at", .flags = OMIT, .format = "date-time"),
	FIELD(q_capsule, last_active_at, "last_active_at", .flags = OMIT, .format = "date-time"),
	FIELD(q_capsule, last_updated, "last_updated", .flags = NEEDED, .format = "date-time"),
	FIELD(q_capsule, metadata, "metadata", .flags = NEEDED, .format = "json"),
	FIELD(q_capsule, state, "state", .flags = NEEDED),
	FIELD(q_capsule, desired_state, "desired_state", .flags = NEEDED),
	FIELD(q_capsule, generation, "generation", .flags = NEEDED),
	FIELD(q_capsule, name, "name"),
	FIELD(q_capsule, team_id, "team_id", .flags = NEEDED, .prefix = "team-"),
	SUB(capsule, owner, "owner", owner_fields, owner),
	FIELD(q_capsule, template_id, "template_id", .flags = NEEDED, .prefix = "tpl-"),
	FIELD(q_capsule, template_version, "template_version", .flags = NEEDED),
	FIELD(q_capsule, disk_size_mb, "disk_size_mb", .flags = NEEDED),
	FIELD(q_capsule, tags, "tags", .flags = NEEDED),
	FIELD(q_capsule, env_names, "env_names", .flags = NEEDED),
	FIELD(q_capsule, error, "error", .format = "json"),
	FIELD(q_capsule, start_mode, "start_mode", .flags = OMIT),
	FIELD(q_capsule, accel, "accel", .flags = OMIT, .one_of = "kvm|tcg"),
	FIELD(capsule, domain, "domain", .flags = NEEDED),
	{ 0 },
};

struct by_capsule {
	const struct uuid *id;
};
static const struct field by_capsule_fields[] = { PATH_ID(by_capsule, "cl-"), { 0 } };

struct capsule_filter {
	const char *state, *template, *tag, *name, *owner, *cursor;
	int32_t limit;
};
static const struct field capsule_filter_fields[] = {
	FIELD(capsule_filter, state, "state", .flags = IN_QUERY,
	    .one_of = "pending|starting|running|pausing|paused|resuming|hibernating|hibernated|"
		      "stopping|stopped|missing|error",
	    .doc = "Absent: all but stopped."),
	FIELD(capsule_filter, template, "template", .flags = IN_QUERY),
	FIELD(capsule_filter, tag, "tag", .flags = IN_QUERY, .format = "tag"),
	FIELD(capsule_filter, name, "name", .flags = IN_QUERY, .max = 64, .doc = "Prefix."),
	FIELD(capsule_filter, owner, "owner", .flags = IN_QUERY, .doc = "usr-…, or me."),
	PAGE_FIELDS(capsule_filter),
	{ 0 },
};

/* clang-format off */
const struct route capsule_routes[] = {
	{ "POST", "/v1/capsules", POOL_OPS, PERM_capsules_create, capsule_create, "Create a capsule", CREATES, 201, IN(capsule_create), OUT(capsule) },
	{ "GET", "/v1/capsules", POOL_API, PERM_capsules_view, capsule_list, "The team's capsules, newest first", LISTS, 200, IN(capsule_filter), OUT(capsule), .ahead = list_ahead },
	{ "GET", "/v1/capsules/{id}", POOL_API, PERM_capsules_view, capsule_get, "One capsule", 0, 200, IN(by_capsule), OUT(capsule), .ahead = get_ahead },
	{ "DELETE", "/v1/capsules/{id}", POOL_OPS, PERM_capsules_delete, capsule_destroy, "Destroy a capsule", 0, 204, IN(by_capsule) },
	{ 0 },
};
/* clang-format on */

/* --- read ---------------------------------------------------------------------------------- */

static void
complete(struct request *r, const struct q_capsule *row, struct capsule *c)
{
	*c = (struct capsule){ .row = *row, .domain = r->app->conf->proxy_domain };
	if (!row->owner_id)
		return;
	c->owner = talloc(r, struct owner);
	*c->owner = (struct owner){ row->owner_id, row->owner_name ? row->owner_name : "" };
}

static int
get_ahead(struct request *r)
{
	const struct by_capsule *in = r->in;

	return db_send(r->work.db, &Q_capsule_get, &(struct q_capsule_get){ .id = in->id });
}

static int
capsule_get(struct request *r)
{
	struct q_capsule *row;
	struct capsule c;
	int n = db_take(r->work.db, &Q_capsule_get, (void **)&row);

	if (n > 0)
		complete(r, row, &c);
	return reply_row(r, n, &c);
}

static const char *
pairs_json(struct request *r, const struct pair *p)
{
	static const struct pair none[] = { { 0 } };
	struct field f[] = { { .name = "x", .type = F_PAIRS }, { 0 } };
	struct buf b = BUF(r);
	const struct pair *list = p ? p : none;

	fields_write(f, &list, &b);
	return talloc_strndup(r, b.data + 5, b.len - 6); /* without {"x": and } */
}

static int
list_query(struct request *r, struct page *p, struct q_capsule_list *q)
{
	const struct capsule_filter *in = r->in;
	struct uuid *owner = talloc(r, struct uuid);
	const struct pair *metadata = query_pairs(r, "metadata.");

	if (!metadata)
		return -1;
	if (page_read(r, in->limit, in->cursor, p) < 0)
		return -1;
	*q = (struct q_capsule_list){ .state = in->state,
		.template = in->template,
		.tag = in->tag,
		.name = in->name,
		.before = p->before,
		.before_id = p->before_id,
		.limit = p->limit + 1,
		.metadata = metadata->name ? pairs_json(r, metadata) : NULL };
	if (in->owner && strcmp(in->owner, "me") == 0)
		q->owner = r->who.user;
	else if (in->owner) {
		if (!id_read(in->owner, "usr-", owner))
			return fail(r, E_BAD_INPUT, "\"owner\" is neither me nor a user's id");
		q->owner = owner;
	}
	return 0;
}

/* "owner=me" is not known before the caller is: such a list goes the ordinary way. */
static int
list_ahead(struct request *r)
{
	const struct capsule_filter *in = r->in;
	struct q_capsule_list q;
	struct page p;

	if (in->owner)
		return 0;
	if (list_query(r, &p, &q) < 0) {
		r->work.err = (struct err){ 0 }; /* told after the caller is known */
		return 0;
	}
	r->after_arg = r; /* the query is on its way */
	return db_send(r->work.db, &Q_capsule_list, &q);
}

static int
capsule_list(struct request *r)
{
	struct q_capsule *rows;
	struct q_capsule_list q;
	struct capsule *all;
	struct page p;
	int n, i;

	if (list_query(r, &p, &q) < 0)
		return -1;
	if (!r->after_arg && db_send(r->work.db, &Q_capsule_list, &q) < 0)
		return -1;
	n = db_take(r->work.db, &Q_capsule_list, (void **)&rows);
	if (n < 0)
		return -1;
	all = talloc_array(r, struct capsule, n + 1);
	for (i = 0; i < n; i++)
		complete(r, &rows[i], &all[i]);
	return page_reply(r, n, all, sizeof *all, &p, offsetof(struct q_capsule, created_at),
	    offsetof(struct q_capsule, id));
}

/* --- create -------------------------------------------------------------------------------- */

enum { ENV_VALUE = 32768, ENV_ALL = 131072, META_VALUE = 512, META_ALL = 16384 };

static int
check_pairs(struct request *r, const char *what, const struct pair *p, size_t most, size_t most_all)
{
	size_t all = 0;

	for (; p && p->name; p++) {
		if (strlen(p->value) > most)
			return fail(r, E_BAD_INPUT, "\"%s.%.40s\" is longer than %zu bytes", what,
			    p->name, most);
		all += strlen(p->name) + strlen(p->value);
	}
	return all > most_all
	    ? fail(r, E_BAD_INPUT, "\"%s\" has more than %zu bytes", what, most_all)
	    : 0;
}

static int
size_or_default(struct request *r, const char *name, int32_t *n, int32_t least, int32_t dflt)
{
	if (*n <= 0)
		*n = dflt;
	return *n < least ? fail(r, E_BAD_INPUT, "\"%s\" is less than %d", name, least) : 0;
}

/* The checked and completed input. */
static int
read_create(struct request *r, struct capsule_create *in)
{
	static const char *const reserved[] = { "kernel_version", "vmm_version", "agent_version",
		"envd_version" };
	const struct pair *p;
	size_t i;

	*in = *(const struct capsule_create *)r->in;
	if (size_or_default(r, "vcpus", &in->vcpus, 1, 1) < 0 ||
	    size_or_default(r, "memory_mb", &in->memory_mb, 128, 512) < 0 ||
	    size_or_default(r, "disk_size_mb", &in->disk_size_mb, 1024, 5120) < 0)
		return -1;
	if (check_pairs(r, "envs", in->envs, ENV_VALUE, ENV_ALL) < 0 ||
	    check_pairs(r, "metadata", in->metadata, META_VALUE, META_ALL) < 0)
		return -1;
	for (p = in->envs; p && p->name; p++)
		if (strncmp(p->name, "HUTCH_", 6) == 0)
			return fail(r, E_BAD_INPUT,
			    "\"envs.%.40s\" is reserved: names that begin with HUTCH_", p->name);
	for (p = in->metadata; p && p->name; p++)
		for (i = 0; i < nitems(reserved); i++)
			if (strcmp(p->name, reserved[i]) == 0)
				return fail(r, E_BAD_INPUT, "\"metadata.%s\" is reserved", p->name);
	return 0;
}

/* name, name@N, tpl-…: no name can be mistaken for an id (spec 03 §2). */
static int
find_template(struct request *r, const char *text, struct q_template_found **ret)
{
	char *name = talloc_strdup(r, text), *at = strchr(name, '@'), *end;
	struct uuid *id = talloc(r, struct uuid);
	int32_t version = NULL_INT4;
	bool is_id;
	int n;

	if (at) {
		*at++ = '\0';
		version = strtol(at, &end, 10);
		if (!*at || *end || version < 1)
			return fail(r, E_NOT_FOUND, "no template %.80s", text);
	}
	is_id = id_read(name, "tpl-", id);
	n = q_template_resolve(r->work.db, ret, .team = r->who.team, .id = is_id ? id : NULL,
	    .name = is_id ? NULL : name, .version = version);
	return n < 0 ? -1 : n ? 0 : fail(r, E_NOT_FOUND, "no template %.80s", text);
}

static int
over(struct request *r, const char *what, int64_t used, int64_t more, int64_t most)
{
	if (used + more <= most)
		return 0;
	return fail(r, E_QUOTA,
	    "the quota of %s is used up: %" PRId64 " in use, %" PRId64 " asked, %" PRId64
	    " allowed",
	    what, used, more, most);
}

static int
reserve_quota(struct request *r, const struct capsule_create *in)
{
	struct q_locked *locked;
	struct q_quota *q;

	if (q_team_quota_lock(r->work.db, &locked, .team = r->who.team) < 0)
		return -1;
	if (locked->frozen)
		return fail(
		    r, E_TEAM_FROZEN, "the team has no active owner: nothing can be made there");
	if (q_team_quota(r->work.db, &q, .team = r->who.team) <= 0)
		return r->work.err.code
		    ? -1
		    : fail(r, E_CONFIG, "there is no default quota: run hutchctl migrate");
	if (over(r, "capsules", q->used_capsules, 1, q->capsules) < 0 ||
	    over(r, "vcpus", q->used_vcpus, in->vcpus, q->vcpus) < 0 ||
	    over(r, "memory_mb", q->used_memory_mb, in->memory_mb, q->memory_mb) < 0)
		return -1;
	return over(r, "disk_mb", q->used_disk_mb, in->disk_size_mb, q->disk_mb);
}

/* The least loaded of the hosts that fit; its row stays locked until the commit. */
static int
reserve_host(struct request *r, const struct capsule_create *in, const struct uuid **host)
{
	const struct conf *c = r->app->conf;
	struct q_host_choice *h;
	struct q_fits *fits;
	int n, i;

	n = q_host_candidates(r->work.db, &h, .suspect = c->host_suspect_sec,
	    .memory_mb = in->memory_mb, .vcpus = in->vcpus,
	    .mem_percent = c->host_overcommit_memory_percent,
	    .cpu_percent = c->host_overcommit_cpu_percent);
	for (i = 0; i < n; i++) {
		if (q_host_lock(r->work.db, .id = h[i].id) < 0)
			return -1;
		if (q_host_fits(r->work.db, &fits, .id = h[i].id, .memory_mb = in->memory_mb,
			.vcpus = in->vcpus, .mem_percent = c->host_overcommit_memory_percent,
			.cpu_percent = c->host_overcommit_cpu_percent) < 0)
			return -1;
		if (fits->ok) {
			*host = h[i].id;
			return 0;
		}
	}
	if (n < 0)
		return -1;
	reply_header(r, "Retry-After", "5");
	return fail(
	    r, E_NO_HOSTS, "no host has room for %d vcpus and %d MiB", in->vcpus, in->memory_mb);
}

static const char *const *
env_names(struct request *r, const struct pair *p)
{
	size_t n = 0, i;
	const char **list;

	for (; p && p[n].name; n++)
		;
	list = talloc_zero_array(r, const char *, n + 1);
	for (i = 0; i < n; i++)
		list[i] = p[i].name;
	return list;
}

/* What happens after the commit needs to know. */
struct making {
	struct uuid id;
	struct job_ref job;
	bool claimed;
};

static int
insert(struct request *r, const struct capsule_create *in, const struct q_template_found *t,
    const struct uuid *host, struct making *m)
{
	static const char *const none[] = { NULL };
	const char *envs = pairs_json(r, in->envs);
	struct bytes sealed = in->envs && in->envs->name
	    ? capsule_envs_seal(r, r->app->keys, &m->id, envs)
	    : (struct bytes){ 0 };
	int n =
	    q_capsule_insert(r->work.db, .id = &m->id, .team = r->who.team, .owner = r->who.user,
		.key = r->who.key, .name = in->name, .template = t->id, .template_name = t->name,
		.version = t->version, .host = host, .vcpus = in->vcpus, .memory_mb = in->memory_mb,
		.disk_size_mb = in->disk_size_mb, .user = in->user, .workdir = in->workdir,
		.boot = in->boot, .envs_enc = sealed, .env_names = env_names(r, in->envs),
		.metadata = pairs_json(r, in->metadata), .tags = in->tags ? in->tags : none);

	if (n < 0 && r->work.err.code == E_CONFLICT &&
	    strcmp(r->work.db->constraint, "capsules_name") == 0)
		snprintf(r->work.err.text, sizeof r->work.err.text,
		    "a live capsule of the team has the name %s", in->name);
	return n;
}

/* After the commit: this process does the job that it committed, and hands it back when time is up.
 */
static int
start_now(struct request *r)
{
	struct making *m = r->after_arg;
	struct op_env env = { r->app->conf, r->app->keys, r->app->queue };
	struct err failed = { 0 };
	struct q_capsule *row;
	struct capsule c;

	crash_point("create.1");
	if (m->claimed) {
		if (capsule_op_start(&r->work, &env, &m->job, &m->id, 1,
			r->app->conf->api_create_wait * 1000, false) < 0) {
			failed = r->work.err;
			db_rollback(r->work.db);
			r->work.err = (struct err){ 0 };
			if (job_hand_back(&r->work, r->app->queue, &m->job) < 0)
				r->work.err = (struct err){ 0 }; /* the lease ends by itself */
		} else if (job_end_claimed(&r->work, r->app->queue, &m->job, NULL) < 0)
			r->work.err = (struct err){ 0 };
	}
	if (failed.code == E_FENCED)
		return fail(r, E_CONFLICT, "another process finishes the start");
	if (q_capsule_get(r->work.db, &row, .id = &m->id) <= 0)
		return -1;
	complete(r, row, &c);
	return reply_row(r, 1, &c);
}

static int
capsule_create(struct request *r)
{
	struct making *m = talloc_zero(r, struct making);
	const struct uuid *host = NULL;
	struct capsule_create in;
	struct q_template_found *t;
	struct q_capsule *row;
	struct capsule c;
	struct job_new job = { .kind = "capsule.start",
		.team = r->who.team,
		.claimed = true,
		.worker = r->app->pool };

	if (read_create(r, &in) < 0 || find_template(r, in.template, &t) < 0)
		return -1;
	if (in.disk_size_mb < t->disk_size_mb)
		return fail(r, E_BAD_INPUT, "\"disk_size_mb\" is less than the template's %d",
		    t->disk_size_mb);
	if (reserve_quota(r, &in) < 0 || reserve_host(r, &in, &host) < 0)
		return -1;
	m->id = uuid_new();
	if (insert(r, &in, t, host, m) < 0)
		return -1;
	job.args = capsule_args(r, &m->id, 1);
	job.unique_key = job.lock_key = id_text(r, "cl-", &m->id);
	if (job_add(&r->work, &job, &m->job.id, &m->claimed) < 0)
		return -1;
	m->job.epoch = 1;
	if (q_capsule_get(r->work.db, &row, .id = &m->id) <= 0)
		return -1;
	complete(r, row, &c);
	if (audit_add(&r->work, AUDIT_SANDBOX_CREATE,
		&(struct audit){ .team = r->who.team,
		    .capsule = &m->id,
		    .resource_id = id_text(r, "cl-", &m->id),
		    .metadata = talloc_asprintf(r, "{\"template\":\"%s\"}", t->name),
		    .data = talloc_asprintf(r,
			"{\"template\":\"%s\",\"vcpus\":%d,\"memory_mb\":%d,\"disk_mb\":%d}",
			t->name, in.vcpus, in.memory_mb, in.disk_size_mb) }) < 0)
		return -1;
	r->after = start_now;
	r->after_arg = m;
	return reply_row(r, 1, &c);
}

/* --- destroy ------------------------------------------------------------------------------- */

static int
destroy_now(struct request *r)
{
	struct making *m = r->after_arg;
	struct op_env env = { r->app->conf, r->app->keys, r->app->queue };
	int rc = 0;

	crash_point("destroy.1");
	if (m->claimed)
		rc = capsule_op_destroy(&r->work, &env, &m->job, &m->id, 4000);
	if (rc < 0)
		db_rollback(r->work.db);
	r->work.err =
	    (struct err){ 0 }; /* accepted all the same: a worker goes on (spec 02: never 5xx) */
	if (m->claimed)
		rc = rc < 0 ? job_hand_back(&r->work, r->app->queue, &m->job)
			    : job_end_claimed(&r->work, r->app->queue, &m->job, NULL);
	r->work.err = (struct err){ 0 };
	return 0;
}

static int
capsule_destroy(struct request *r)
{
	const struct by_capsule *in = r->in;
	struct making *m = talloc_zero(r, struct making);
	struct job_new job = { .kind = "capsule.destroy",
		.team = r->who.team,
		.claimed = true,
		.worker = r->app->pool };
	struct q_capsule *row;
	int n = q_capsule_get(r->work.db, &row, .id = in->id);

	if (n <= 0)
		return reply_done(r, n);
	if (r->own_only &&
	    !(row->owner_id && r->who.user && uuid_equal(row->owner_id, r->who.user)))
		return fail(r, E_FORBIDDEN, "only admins destroy capsules that somebody else made");
	n = q_capsule_stop_wanted(r->work.db, .id = in->id, .reason = "user");
	if (n <= 0)
		return n < 0 ? -1 : reply_done(r, 1); /* a second call: nothing more to say */
	m->id = *in->id;
	job.args = capsule_args(r, in->id, row->epoch);
	job.unique_key = job.lock_key = id_text(r, "cl-", in->id);
	if (job_add(&r->work, &job, &m->job.id, &m->claimed) < 0)
		return -1;
	m->job.epoch = 1;
	if (audit_add(&r->work, AUDIT_SANDBOX_DESTROY,
		&(struct audit){ .team = r->who.team,
		    .capsule = in->id,
		    .resource_id = id_text(r, "cl-", in->id),
		    .metadata = "{\"cause\":\"user\"}",
		    .data = "{\"reason\":\"user\"}" }) < 0)
		return -1;
	r->after = destroy_now;
	r->after_arg = m;
	return reply_done(r, 1);
}
