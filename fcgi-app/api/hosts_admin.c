/*
 * hosts_admin.c - what operators, and owners of a team's own, do with hosts: change, cordon, drain,
 * tags, removal (spec 02 §5.1, §5.4).
 *
 * Queries: sql/queries/hosts.sql.  Tests: tests/vm/hosts_test.py.
 */
#include "api.h"
#include "audit.h"
#include "cleanup.h"
#include "event.h"
#include "host_shape.h"
#include "job.h"
#include "json.h"

#include <string.h>

static handler host_change, host_drain, host_preview, host_remove, host_tags, host_tag_add,
    host_tag_remove, host_capsules;

struct host_change {
	const struct uuid *id;
	const char *name, *provider, *availability_zone;
	bool schedulable;
	double weight;
	const char *overcommit_cpu, *overcommit_memory;
	int32_t reserve_memory_mb, reserve_disk_mb;
};
static const struct field host_change_fields[] = {
	PATH_ID(host_change, "host-"),
	FIELD(host_change, name, "name", .max = 64),
	FIELD(host_change, provider, "provider", .max = 64),
	FIELD(host_change, availability_zone, "availability_zone", .max = 64),
	FIELD(host_change, schedulable, "schedulable", .doc = "false: cordoned."),
	FIELD(host_change, weight, "weight", .doc = "0 to 10; more gets more."),
	FIELD(host_change, overcommit_cpu, "overcommit_cpu", .format = "json",
	    .doc = "0.1 to 64; null: the platform's."),
	FIELD(host_change, overcommit_memory, "overcommit_memory", .format = "json",
	    .doc = "0.1 to 10; null: the platform's."),
	FIELD(host_change, reserve_memory_mb, "reserve_memory_mb", .max = 100000000),
	FIELD(host_change, reserve_disk_mb, "reserve_disk_mb", .max = 1000000000),
	{ 0 },
};

struct host_drain {
	const struct uuid *id;
	const char *mode;
	int32_t deadline_sec;
};
static const struct field host_drain_fields[] = {
	PATH_ID(host_drain, "host-"),
	FIELD(host_drain, mode, "mode", .text = "move", .one_of = "move|hibernate|pause",
	    .doc = "move: hibernated, then resumed on another host."),
	FIELD(host_drain, deadline_sec, "deadline_sec", .dflt = 3600, .min = 1, .max = 86400),
	{ 0 },
};

struct job_made {
	const struct uuid *job_id;
};
static const struct field job_made_fields[] = {
	FIELD(job_made, job_id, "job_id", .flags = NEEDED, .prefix = "job-"),
	{ 0 },
};

struct host_delete {
	const struct uuid *id;
	bool force;
};
static const struct field host_delete_fields[] = {
	PATH_ID(host_delete, "host-"),
	FIELD(host_delete, force, "force", .flags = IN_QUERY,
	    .doc = "Also what has its only copy there ends."),
	{ 0 },
};

struct host_preview {
	struct q_host *host;
	const char *const *sandbox_ids,
	    *const *capsule_ids, *const *volume_ids, *const *snapshot_ids, *const *template_names;
};
static const struct field host_preview_fields[] = {
	SUB(host_preview, host, "host", host_fields, q_host, .flags = NEEDED),
	FIELD(host_preview, sandbox_ids, "sandbox_ids", .flags = NEEDED),
	FIELD(host_preview, capsule_ids, "capsule_ids", .flags = NEEDED),
	FIELD(host_preview, volume_ids, "volume_ids", .flags = NEEDED),
	FIELD(host_preview, snapshot_ids, "snapshot_ids", .flags = NEEDED),
	FIELD(host_preview, template_names, "template_names", .flags = NEEDED),
	{ 0 },
};

struct one_host {
	const struct uuid *id;
};
static const struct field one_host_fields[] = { PATH_ID(one_host, "host-"), { 0 } };

struct host_tag {
	const struct uuid *id;
	const char *tag;
};
static const struct field host_tag_fields[] = {
	PATH_ID(host_tag, "host-"),
	FIELD(host_tag, tag, "tag", .flags = NEEDED, .format = "host-tag"),
	{ 0 },
};
static const struct field host_tag_path_fields[] = {
	PATH_ID(host_tag, "host-"),
	FIELD(host_tag, tag, "tag", .flags = NEEDED | IN_PATH, .format = "host-tag"),
	{ 0 },
};

struct tag_list {
	const char *const *tags;
};
static const struct field tag_list_fields[] = { FIELD(tag_list, tags, "", .flags = NEEDED), { 0 } };

struct host_capsule_page {
	const struct uuid *id;
	int32_t limit;
	const char *cursor;
};
static const struct field host_capsule_page_fields[] = { PATH_ID(host_capsule_page, "host-"),
	PAGE_FIELDS(host_capsule_page), { 0 } };
static const struct field host_capsule_fields[] = {
	FIELD(q_host_capsule, id, "id", .flags = NEEDED, .prefix = "cl-"),
	FIELD(q_host_capsule, team_id, "team_id", .flags = NEEDED, .prefix = "team-"),
	FIELD(q_host_capsule, name, "name"),
	FIELD(q_host_capsule, state, "state", .flags = NEEDED),
	FIELD(q_host_capsule, template, "template", .flags = NEEDED),
	FIELD(q_host_capsule, vcpus, "vcpus", .flags = NEEDED),
	FIELD(q_host_capsule, memory_mb, "memory_mb", .flags = NEEDED),
	FIELD(q_host_capsule, disk_size_mb, "disk_size_mb", .flags = NEEDED),
	FIELD(q_host_capsule, created_at, "created_at", .flags = NEEDED, .format = "date-time"),
	{ 0 },
};

/* clang-format off */
const struct route host_admin_routes[] = {
	{ "PATCH", "/v1/hosts/{id}", POOL_API, HOSTS_OPERATE, host_change, "Change a host; cordon it, take it back: all that an operator may", 0, 200, IN(host_change), OUT(host) },
	{ "POST", "/v1/hosts/{id}/drain", POOL_API, HOSTS_OPERATE, host_drain, "Move what runs there elsewhere", MAY_BE_EMPTY, 202, IN(host_drain), OUT(job_made) },
	{ "GET", "/v1/hosts/{id}/delete-preview", POOL_API, HOSTS_OPERATE, host_preview, "Everything whose only copy is there", 0, 200, IN(one_host), OUT(host_preview) },
	{ "DELETE", "/v1/hosts/{id}", POOL_API, HOSTS_ADMIN, host_remove, "Remove a host", 0, 204, IN(host_delete) },
	{ "GET", "/v1/hosts/{id}/tags", POOL_API, HOSTS_OPERATE, host_tags, "Tags, sorted", 0, 200, IN(one_host), OUT(tag_list) },
	{ "POST", "/v1/hosts/{id}/tags", POOL_API, HOSTS_ADMIN, host_tag_add, "Add a tag", 0, 204, IN(host_tag) },
	{ "DELETE", "/v1/hosts/{id}/tags/{tag}", POOL_API, HOSTS_ADMIN, host_tag_remove, "Remove a tag", 0, 204, .in = host_tag_path_fields, .insize = sizeof(struct host_tag) },
	{ "GET", "/v1/hosts/{id}/capsules", POOL_API, HOSTS_OPERATE, host_capsules, "What the host holds", LISTS, 200, IN(host_capsule_page), OUT(host_capsule) },
	{ 0 },
};
/* clang-format on */

enum { TAGS_MAX = 32 };

/* ---- change */

static bool
given(const struct request *r, const char *name)
{
	return json_object_object_get_ex(r->body, name, NULL);
}

static int
check_ratio(struct request *r, const char *name, const char *text, double most)
{
	double n = text ? strtod(text, NULL) : 1;

	if (!text || strcmp(text, "null") == 0 || (n >= 0.1 && n <= most))
		return 0;
	return fail(r, E_BAD_INPUT, "\"%s\" is neither null nor between 0.1 and %g", name, most);
}

static const char *
ratio(const struct request *r, const char *name, const char *now, const char *new)
{
	if (!given(r, name))
		return now;
	return new &&strcmp(new, "null") != 0 ? new : NULL;
}

/* An operator of the platform cordons hosts, of his own team's changes all (spec 02 §5.1). */
static int
operator_keeps_to_cordon(struct request *r, const struct q_host *h)
{
	const struct field *f;
	bool own;

	if (r->own_only || strcmp(r->who.platform_role, "operator") != 0 ||
	    (h->team_id && r->who.team && uuid_equal(h->team_id, r->who.team) &&
		role_holds(r->who.role, PERM_hosts_manage, &own)))
		return 0;
	for (f = host_change_fields; f->name; f++)
		if (!(f->flags & IN_PATH) && strcmp(f->name, "schedulable") != 0 &&
		    given(r, f->name))
			return fail(r, E_FORBIDDEN, "\"%s\" is for administrators of the platform",
			    f->name);
	return 0;
}

static int
host_change(struct request *r)
{
	const struct host_change *in = r->in;
	struct q_host_locked *locked;
	struct q_host *h;
	bool schedulable;
	enum audit_kind kind = AUDIT_HOST_UPDATE;
	int n = q_host_lock_get(r->work.db, &locked, .owner = host_owner(r), .id = in->id);

	if (n > 0)
		n = q_host_get(r->work.db, &h, HOST_PERCENTS(r), .id = in->id);
	if (n <= 0)
		return reply_done(r, n);
	if (operator_keeps_to_cordon(r, h) < 0)
		return -1;
	if (given(r, "weight") && !(in->weight >= 0 && in->weight <= 10))
		return fail(r, E_BAD_INPUT, "\"weight\" is not between 0 and 10");
	if (check_ratio(r, "overcommit_cpu", in->overcommit_cpu, 64) < 0 ||
	    check_ratio(r, "overcommit_memory", in->overcommit_memory, 10) < 0)
		return -1;
	schedulable = given(r, "schedulable") ? in->schedulable : h->schedulable;
	if (schedulable != h->schedulable)
		kind = schedulable ? AUDIT_HOST_UNCORDON : AUDIT_HOST_CORDON;
	if (q_host_update(r->work.db, .id = in->id, .name = in->name ? in->name : h->name,
		.schedulable = schedulable, .weight = given(r, "weight") ? in->weight : h->weight,
		.overcommit_cpu = ratio(r, "overcommit_cpu", h->overcommit_cpu, in->overcommit_cpu),
		.overcommit_memory =
		    ratio(r, "overcommit_memory", h->overcommit_memory, in->overcommit_memory),
		.reserve_memory_mb =
		    given(r, "reserve_memory_mb") ? in->reserve_memory_mb : h->reserve_memory_mb,
		.reserve_disk_mb =
		    given(r, "reserve_disk_mb") ? in->reserve_disk_mb : h->reserve_disk_mb,
		.provider = in->provider ? in->provider : h->provider,
		.zone = in->availability_zone ? in->availability_zone : h->availability_zone) < 0 ||
	    q_host_get(r->work.db, &h, HOST_PERCENTS(r), .id = in->id) < 0)
		return -1;
	if (audit_add(&r->work, kind,
		&(struct audit){ .team = h->team_id,
		    .resource_id = id_text(r, "host-", in->id),
		    .data = kind == AUDIT_HOST_CORDON ? "{\"reason\":\"cordon\"}" : NULL }) < 0)
		return -1;
	return reply_row(r, 1, h);
}

/* ---- drain */

static int
host_drain(struct request *r)
{
	const struct host_drain *in = r->in;
	const char *id = id_text(r, "host-", in->id);
	struct job_new job = { .kind = "host.drain",
		.args = talloc_asprintf(r, "{\"host\":\"%s\",\"mode\":\"%s\",\"seconds\":%d}", id,
		    in->mode, in->deadline_sec),
		.unique_key = id,
		.lock_key = id };
	struct job_made made;
	struct uuid made_id;
	struct q_host_locked *h;
	int n = q_host_lock_get(r->work.db, &h, .owner = host_owner(r), .id = in->id);

	if (n <= 0)
		return reply_done(r, n);
	if (strcmp(h->status, "pending") == 0)
		return fail(r, E_BAD_STATE, "the host has not registered");
	job.team = h->team_id;
	if (q_host_draining(r->work.db, .id = in->id) < 0 ||
	    job_add(&r->work, &job, &made_id, NULL) < 0 ||
	    audit_add(&r->work, AUDIT_HOST_DRAIN,
		&(struct audit){ .team = h->team_id,
		    .resource_id = id,
		    .metadata = talloc_asprintf(r, "{\"mode\":\"%s\"}", in->mode),
		    .data = talloc_asprintf(r, "{\"reason\":\"%s\"}", in->mode) }) < 0)
		return -1;
	made.job_id = &made_id;
	return reply_row(r, 1, &made);
}

/* ---- removal */

static const char *const *
ids(struct request *r, const struct q_host_only *rows, int n, const char *prefix)
{
	const char **list = talloc_zero_array(r, const char *, n + 1);
	int i;

	for (i = 0; i < n; i++)
		list[i] = id_text(r, prefix, rows[i].id);
	return list;
}

/* Everything whose only copy is on the host. The number of capsules; -1. */
static int
preview(struct request *r, const struct uuid *host, struct host_preview *p,
    struct q_host_only **capsules)
{
	static const char *const none[] = { NULL };
	struct q_host_only *snapshots;
	struct q_host_template *t;
	const char **names;
	int n, s, k, i;

	n = q_host_only_capsules(r->work.db, capsules, .host = host);
	s = n < 0 ? -1 : q_host_only_snapshots(r->work.db, &snapshots, .host = host);
	k = s < 0 ? -1 : q_host_only_templates(r->work.db, &t, .host = host);
	if (k < 0)
		return -1;
	names = talloc_zero_array(r, const char *, k + 1);
	for (i = 0; i < k; i++)
		names[i] = t[i].name;
	p->capsule_ids = p->sandbox_ids = ids(r, *capsules, n, "cl-");
	p->snapshot_ids = ids(r, snapshots, s, "snp-");
	p->volume_ids = none;
	p->template_names = names;
	return n;
}

static int
host_preview(struct request *r)
{
	const struct one_host *in = r->in;
	struct host_preview p;
	struct q_host_only *capsules;
	int n = q_host_get(r->work.db, &p.host, HOST_PERCENTS(r), .id = in->id);

	if (n > 0 && preview(r, in->id, &p, &capsules) < 0)
		n = -1;
	return reply_row(r, n, &p);
}

/* The refusal names the capsules twice: in the error, and beside it for clients that look there. */
static int
has_capsules(struct request *r, const struct host_preview *p)
{
	struct buf list = BUF(r);
	const char *const *i;

	buf_str(&list, "\"sandbox_ids\":[");
	for (i = p->capsule_ids; *i; i++) {
		buf_str(&list, i > p->capsule_ids ? "," : "");
		buf_json(&list, *i);
	}
	buf_str(&list, "],\"capsule_ids\":[");
	for (i = p->capsule_ids; *i; i++) {
		buf_str(&list, i > p->capsule_ids ? "," : "");
		buf_json(&list, *i);
	}
	buf_chr(&list, ']');
	r->status = err_kinds[E_HAS_CAPSULES].http;
	buf_clear(&r->out);
	buf_fmt(&r->out,
	    "{\"error\":{\"code\":\"%s\",\"message\":\"%s\",\"request_id\":\"%s\",%s},%s}",
	    err_kinds[E_HAS_CAPSULES].slug, err_kinds[E_HAS_CAPSULES].text, r->work.id, list.data,
	    list.data);
	return 0;
}

static int
ends(struct request *r, const struct q_host_only *c)
{
	int n = q_host_capsule_ends(r->work.db, .id = c->id);

	if (n <= 0)
		return n;
	return audit_add(&r->work, AUDIT_SANDBOX_DESTROY,
	    &(struct audit){ .team = c->team_id,
		.capsule = c->id,
		.resource_id = id_text(r, "cl-", c->id),
		.metadata = "{\"cause\":\"host_deleted\"}",
		.data = "{\"reason\":\"host_deleted\"}" });
}

static int
removed(struct request *r, const struct q_host_locked *h, int capsules)
{
	const char *id = id_text(r, "host-", h->id);
	struct job_new job = { .kind = "host.decommission",
		.args = talloc_asprintf(r, "{\"host\":\"%s\"}", id),
		.unique_key = id };
	struct uuid made;

	if (q_host_snapshots_end(r->work.db, .host = h->id) < 0 ||
	    q_host_delete(r->work.db, .id = h->id) < 0)
		return -1;
	if (strcmp(h->status, "pending") != 0 && job_add(&r->work, &job, &made, NULL) < 0)
		return -1;
	if (audit_add(&r->work, AUDIT_HOST_DELETE,
		&(struct audit){ .team = h->team_id,
		    .resource_id = id,
		    .metadata = talloc_asprintf(r, "{\"capsules\":%d}", capsules),
		    .data = talloc_asprintf(
			r, "{\"reason\":\"deleted\",\"capsules\":%d}", capsules) }) < 0)
		return -1;
	return reply_done(r, 1);
}

static int
host_remove(struct request *r)
{
	const struct host_delete *in = r->in;
	struct host_preview p = { 0 };
	struct q_host_only *capsules;
	struct q_host_locked *h;
	int n = q_host_lock_get(r->work.db, &h, .owner = host_owner(r), .id = in->id), i;

	if (n <= 0)
		return reply_done(r, n);
	n = preview(r, in->id, &p, &capsules);
	if (n < 0)
		return -1;
	if (!in->force && (n > 0 || *p.snapshot_ids))
		return has_capsules(r, &p);
	for (i = 0; i < n; i++)
		if (ends(r, &capsules[i]) < 0)
			return -1;
	return removed(r, h, n);
}

/* ---- tags, capsules */

static int
host_tags(struct request *r)
{
	const struct one_host *in = r->in;
	struct q_host *h;
	int n = q_host_get(r->work.db, &h, HOST_PERCENTS(r), .id = in->id), i;

	if (n <= 0)
		return reply_done(r, n);
	r->status = 200;
	buf_clear(&r->out);
	buf_chr(&r->out, '[');
	for (i = 0; h->tags[i]; i++) {
		buf_str(&r->out, i ? "," : "");
		buf_json(&r->out, h->tags[i]);
	}
	buf_chr(&r->out, ']');
	return 0;
}

static int
tagged(struct request *r, const struct q_host *h, const char *tag)
{
	struct buf b = BUF(r);

	buf_str(&b, "{\"tag\":");
	buf_json(&b, tag);
	buf_chr(&b, '}');
	if (audit_add(&r->work, AUDIT_HOST_TAG,
		&(struct audit){ .team = h->team_id,
		    .resource_id = id_text(r, "host-", h->id),
		    .metadata = b.data }) < 0)
		return -1;
	return reply_done(r, 1);
}

static int
host_tag_add(struct request *r)
{
	const struct host_tag *in = r->in;
	struct q_host_locked *locked;
	struct q_host *h;
	int n = q_host_lock_get(r->work.db, &locked, .owner = host_owner(r), .id = in->id), have;

	if (n > 0)
		n = q_host_get(r->work.db, &h, HOST_PERCENTS(r), .id = in->id);
	if (n <= 0)
		return reply_done(r, n);
	for (have = 0; h->tags[have]; have++)
		;
	if (have >= TAGS_MAX)
		return fail(r, E_BAD_INPUT, "a host has at most %d tags", TAGS_MAX);
	n = q_host_tag_add(r->work.db, .host = in->id, .tag = in->tag);
	return n < 0 ? -1 : n ? tagged(r, h, in->tag) : reply_done(r, 1);
}

static int
host_tag_remove(struct request *r)
{
	const struct host_tag *in = r->in;
	struct q_host *h;
	int n = q_host_get(r->work.db, &h, HOST_PERCENTS(r), .id = in->id);

	if (n > 0)
		n = q_host_tag_remove(r->work.db, .host = in->id, .tag = in->tag);
	return n <= 0 ? reply_done(r, n) : tagged(r, h, in->tag);
}

static int
host_capsules(struct request *r)
{
	const struct host_capsule_page *in = r->in;
	struct q_host_capsule *rows;
	struct q_host *h;
	struct page p;
	int n = q_host_get(r->work.db, &h, HOST_PERCENTS(r), .id = in->id);

	if (n <= 0)
		return reply_done(r, n);
	if (page_read(r, in->limit, in->cursor, &p) < 0)
		return -1;
	n = q_host_capsule_list(r->work.db, &rows, .host = in->id, .before = p.before,
	    .before_id = p.before_id, .limit = p.limit + 1);
	return page_reply(r, n, rows, sizeof *rows, &p, offsetof(struct q_host_capsule, created_at),
	    offsetof(struct q_host_capsule, id));
}
