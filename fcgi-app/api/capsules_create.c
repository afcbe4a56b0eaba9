/*
 * capsules_create.c - new capsules: from a template or from a snapshot (spec 02 §2.2).
 *
 * A create is one transaction (quota, host, row, audit, event, job claimed by this process), then
 * one call to the host; what is not reached within api.create_wait a worker finishes.
 */
#include "audit.h"
#include "capsules.h"
#include "cleanup.h"
#include "e2b.q.h"
#include "json.h"
#include "placement.h"
#include "ports.q.h"
#include "quota.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

static handler capsule_create;

static const struct field capsule_create_fields[] = {
	FIELD(capsule_create, template, "template", .max = 200,
	    .doc = "Name, slug/name, either with @N, or tpl-…; by default minimal."),
	FIELD(capsule_create, snapshot, "snapshot", .max = 64,
	    .doc = "snp-…, instead of a template."),
	FIELD(capsule_create, name, "name", .format = "name",
	    .doc = "Unique among the team's live capsules."),
	FIELD(capsule_create, vcpus, "vcpus", .max = 16, .min = INT32_MIN,
	    .doc = "0 and below: 1. A snapshot with memory has its own."),
	FIELD(capsule_create, memory_mb, "memory_mb", .max = 65536, .min = INT32_MIN,
	    .doc = "128 to 65536; 0 and below: 512."),
	FIELD(capsule_create, boot, "boot", .one_of = "warm|cold"),
	NEW_FIELDS_OF(capsule_create, ),
	{ 0 },
};

/* clang-format off */
const struct route capsule_create_routes[] = {
	{ "POST", "/v1/capsules", POOL_OPS, PERM_capsules_create, capsule_create, "Create a capsule", CREATES, 201, IN(capsule_create), OUT(capsule) },
	{ "POST", "/v1/admin/capsules", POOL_OPS, PLATFORM_ADMIN, capsule_create, "Create a capsule of the Platform's team", CREATES | OF_PLATFORM, 201, IN(capsule_create), OUT(capsule) },
	{ 0 },
};
/* clang-format on */

static int
size_or_default(struct request *r, const char *name, int32_t *n, int32_t least, int32_t dflt)
{
	if (*n <= 0)
		*n = dflt;
	return *n < least ? fail(r, E_BAD_INPUT, "\"%s\" is less than %d", name, least) : 0;
}

static int
check(struct request *r, struct capsule_create *in)
{
	if (!in->checked && (check_envs(r, in->envs) < 0 || check_metadata(r, in->metadata) < 0))
		return -1;
	if (ports_check(r, &in->ports) < 0)
		return -1;
	return times_check(r, &in->t);
}

/* name, slug/name, either with @N, tpl-…: no name can be mistaken for an id (spec 03 §2). */
static int
find_template(struct request *r, const char *text, struct q_template_found **ret)
{
	char *name = talloc_strdup(r, text), *at = strchr(name, '@'), *slash, *end;
	const char *space = NULL;
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
	slash = strchr(name, '/');
	if (slash) {
		*slash++ = '\0';
		space = name;
		name = slash;
	}
	is_id = !space && id_read(name, "tpl-", id);
	n = q_template_resolve(r->work.db, ret, .team = r->who.team, .id = is_id ? id : NULL,
	    .space = space, .name = is_id ? NULL : name, .version = version);
	return n < 0 ? -1 : n ? 0 : fail(r, E_NOT_FOUND, "no template %.80s", text);
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

/* --- one row -------------------------------------------------------------------------------- */

static const char * or (const char *said, const char *otherwise)
{
	return said ? said : otherwise;
}

static int
insert(struct request *r, const struct capsule_create *in, const struct origin *from,
    const struct uuid *host, const struct uuid *id)
{
	static const char *const none[] = { NULL };
	static const char *const four[] = { "api", "exec", "input", "port", NULL };
	const struct times *t = &in->t;
	const char *const *names =
	    in->envs || !from->env_names ? env_names(r, in->envs) : from->env_names;
	const char *envs = in->envs ? pairs_json(r, in->envs) : from->envs;
	struct bytes sealed =
	    names[0] ? capsule_envs_seal(r, r->app->keys, id, envs) : (struct bytes){ 0 };
	const char *const *signals = t->idle_signals ? t->idle_signals
	    : from->idle_signals                     ? from->idle_signals
						     : four;
	int n = q_capsule_insert(r->work.db, .id = id, .team = r->who.team, .owner = r->who.user,
	    .key = r->who.key, .name = in->name, .template = from->template,
	    .template_name = from->template_name, .version = from->version, .host = host,
	    .vcpus = in->vcpus, .memory_mb = in->memory_mb, .disk_size_mb = in->disk_size_mb,
	    .user = in->user, .workdir = in->workdir, .boot = or (in->boot, "warm"),
	    .envs_enc = sealed, .env_names = names,
	    .metadata =
		in->metadata || !from->metadata ? pairs_json(r, in->metadata) : from->metadata,
	    .tags = in->tags ? in->tags
		: from->tags ? from->tags
			     : none,
	    .timeout_sec = t->timeout_sec == NULL_INT4 ? 0 : t->timeout_sec,
	    .timeout_mode = or (t->timeout_mode, "idle"),
	    .idle_action = or (t->idle_action, "pause"), .idle_signals = signals,
	    .auto_resume = or (t->auto_resume, "all"),
	    .max_lifetime_sec = t->max_lifetime_sec == NULL_INT4 ? 0 : t->max_lifetime_sec,
	    .on_max_lifetime = or (t->on_max_lifetime, "hibernate"),
	    .restart_policy = or (t->restart_policy, "never"),
	    .network = or (network_json(r, t->network), or (from->network, "{\"internet\":true}")),
	    .host_tags = in->host_tags ? in->host_tags : none, .parent = from->parent,
	    .snapshot = from->snapshot, .epoch = from->epoch, .wake_from = from->wake_from,
	    .wake_cold = in->boot && strcmp(in->boot, "cold") == 0 && from->wake_from);

	if (n < 0 && r->work.err.code == E_CONFLICT &&
	    strcmp(r->work.db->constraint, "capsules_name") == 0)
		snprintf(r->work.err.text, sizeof r->work.err.text,
		    "a live capsule of the team has the name %s", in->name);
	return n;
}

/* Who reaches its ports: as was asked, else a copy's are as open as those of its parent. */
static int
add_ports(struct request *r, const struct capsule_create *in, const struct origin *from,
    const struct uuid *id)
{
	if (from->parent && q_e2b_door_of(r->work.db, .id = id, .parent = from->parent) < 0)
		return -1;
	if (in->ports.item)
		return ports_declare(r, id, &in->ports);
	return from->parent && q_port_copy(r->work.db, .capsule = id, .parent = from->parent) < 0
	    ? -1
	    : 0;
}

int
capsule_add(struct request *r, const struct capsule_create *in, const struct origin *from,
    const struct uuid *host, struct uuid *ret)
{
	*ret = uuid_new();
	if (insert(r, in, from, host, ret) < 0)
		return -1;
	if (audit_add(&r->work, AUDIT_SANDBOX_CREATE,
		&(struct audit){ .team = r->who.team,
		    .capsule = ret,
		    .resource_id = id_text(r, "cl-", ret),
		    .metadata = talloc_asprintf(r, "{\"template\":\"%s\"}", from->template_name),
		    .data = talloc_asprintf(r,
			"{\"template\":\"%s\",\"vcpus\":%d,\"memory_mb\":%d,\"disk_mb\":%d}",
			from->template_name, in->vcpus, in->memory_mb, in->disk_size_mb) }) < 0)
		return -1;
	return add_ports(r, in, from, ret);
}

static int
take_quota(struct request *r, const struct capsule_create *in)
{
	return quota_take(&r->work,
	    &(struct quota_ask){ .team = r->who.team,
		.capsules = 1,
		.vcpus = in->vcpus,
		.memory_mb = in->memory_mb,
		.disk_mb = in->disk_size_mb });
}

/* Its row stays locked until the commit. */
static int
find_host(
    struct request *r, struct place_ask *ask, const struct capsule_create *in, struct place *place)
{
	ask->conf = r->app->conf;
	ask->team = r->who.team;
	ask->vcpus = in->vcpus;
	ask->memory_mb = in->memory_mb;
	ask->disk_mb = in->disk_size_mb;
	ask->tags = in->host_tags;
	if (host_place(&r->work, ask, place) == 0)
		return 0;
	if (r->work.err.code == E_NO_HOSTS)
		reply_header(r, "Retry-After", "5");
	return -1;
}

static int
begin_start(
    struct request *r, const struct capsule_create *in, const struct uuid *id, int64_t epoch)
{
	struct doing *d = talloc_zero(r, struct doing);

	*d = (struct doing){ .id = *id,
		.kind = "capsule.start",
		.wait_sec = wait_or(in->wait, r->app->conf->api_create_wait),
		.until = "running error hibernated stopping stopped paused",
		.answer = in->answer,
		.arg = in->arg };
	d->args = (struct op_args){ .capsule = &d->id, .epoch = epoch };
	return capsule_begin(r, d);
}

/* --- from a template ------------------------------------------------------------------------ */

int
capsule_new(struct request *r, struct capsule_create *in, struct uuid *ret)
{
	struct place_ask ask = { 0 };
	struct origin from = { 0 };
	struct q_template_found *t;
	struct q_snapshot *s;
	struct place place;
	struct uuid id;
	int n;

	if (check(r, in) < 0)
		return -1;
	if (in->snapshot) {
		if (in->template)
			return fail(
			    r, E_BAD_INPUT, "\"template\" and \"snapshot\" exclude each other");
		if (!id_read(in->snapshot, "snp-", &id))
			return fail(r, E_BAD_INPUT, "\"snapshot\" is no snapshot's id");
		n = q_snapshot_get(r->work.db, &s, .id = &id);
		if (n <= 0)
			return n < 0 ? -1 : fail(r, E_NOT_FOUND, "no such snapshot");
		return capsule_from_snapshot(r, in, s, ret);
	}
	if (size_or_default(r, "vcpus", &in->vcpus, 1, 1) < 0 ||
	    size_or_default(r, "memory_mb", &in->memory_mb, 128, 512) < 0 ||
	    size_or_default(r, "disk_size_mb", &in->disk_size_mb, 1024, 5120) < 0 ||
	    find_template(r, in->template ? in->template : "minimal", &t) < 0)
		return -1;
	if (in->disk_size_mb < t->disk_size_mb)
		return fail(r, E_BAD_INPUT, "\"disk_size_mb\" is less than the template's %d",
		    t->disk_size_mb);
	ask.template = t->name;
	if (take_quota(r, in) < 0 || find_host(r, &ask, in, &place) < 0)
		return -1;
	from = (struct origin){
		.template = t->id, .template_name = t->name, .version = t->version, .epoch = 1
	};
	if (capsule_add(r, in, &from, place.host, ret) < 0)
		return -1;
	return begin_start(r, in, ret, from.epoch);
}

static int
capsule_create(struct request *r)
{
	struct capsule_create in = *(const struct capsule_create *)r->in;
	struct uuid id;

	return capsule_new(r, &in, &id);
}

/* --- from a snapshot ------------------------------------------------------------------------ */

static const char *const *
texts(struct request *r, struct json_object *list)
{
	size_t n = json_object_is_type(list, json_type_array) ? json_object_array_length(list) : 0;
	const char **all = talloc_zero_array(r, const char *, n + 1);
	size_t i;

	for (i = 0; i < n; i++)
		all[i] = json_object_get_string(json_object_array_get_idx(list, i));
	return all;
}

/* What the snapshot remembers of its capsule, as defaults of the new one. */
static int
remembered(
    struct request *r, const struct q_snapshot *s, struct capsule_create *in, struct origin *from)
{
	struct json_object *spec = json_parse(
	    r, s->spec, strlen(s->spec), &(struct json_limits){ .keys = 10000 }, &r->work.err);
	struct uuid *template = talloc(r, struct uuid);
	struct bytes envs;

	if (!spec)
		return -1;
	envs = capsule_envs_open(r, r->app->keys, s->id, s->envs_enc, &r->work.err);
	if (!envs.p || !id_read(json_str(spec, "template_id", ""), "tpl-", template))
		return fail(r, E_BUG, "the snapshot's description is broken");
	*from = (struct origin){ .template = template,
		.template_name = json_str(spec, "template", ""),
		.version = json_int(spec, "template_version", 1),
		.snapshot = s->id,
		.wake_from = "image",
		.epoch = json_int(spec, "epoch", 0) + 1,
		.network = json_object_to_json_string_ext(
		    json_get(spec, "network"), JSON_C_TO_STRING_PLAIN),
		.tags = texts(r, json_get(spec, "tags")),
		.env_names = texts(r, json_get(spec, "env_names")),
		.envs = talloc_strndup(r, (const char *)envs.p, envs.n) };
	in->user = or (in->user, json_str(spec, "user", NULL));
	in->workdir = or (in->workdir, json_str(spec, "workdir", NULL));
	if (s->memory || in->vcpus <= 0)
		in->vcpus = json_int(spec, "vcpus", 1);
	if (s->memory || in->memory_mb <= 0)
		in->memory_mb = json_int(spec, "memory_mb", 512);
	if (in->disk_size_mb <= 0)
		in->disk_size_mb = json_int(spec, "disk_size_mb", 5120);
	if (in->disk_size_mb < json_int(spec, "disk_size_mb", 0))
		return fail(r, E_BAD_INPUT, "\"disk_size_mb\" is less than the snapshot's %d",
		    (int)json_int(spec, "disk_size_mb", 0));
	if (in->memory_mb < 128)
		return fail(r, E_BAD_INPUT, "\"memory_mb\" is less than 128");
	return 0;
}

int
capsule_from_snapshot(
    struct request *r, struct capsule_create *in, const struct q_snapshot *s, struct uuid *ret)
{
	bool cold = !s->memory_artifact.p || (in->boot && strcmp(in->boot, "cold") == 0);
	struct place_ask ask = { .disk = s->disk_artifact };
	struct origin from;
	struct place place = { 0 };

	if (check(r, in) < 0)
		return -1;
	if (strcmp(s->state, "ready") != 0)
		return fail(r, E_BAD_STATE, "the snapshot is %s, not ready", s->state);
	if (remembered(r, s, in, &from) < 0 || take_quota(r, in) < 0)
		return -1;
	ask.template = from.template_name;
	if (!cold) {
		ask.memory = s->memory_artifact;
		ask.cpu_class = s->cpu_class && *s->cpu_class ? s->cpu_class : NULL;
	}
	if (find_host(r, &ask, in, &place) < 0) {
		/* it waits for a host (spec 02 §1.3): nobody has to ask again */
		if (r->work.err.code != E_NO_HOSTS)
			return -1;
		r->work.err = (struct err){ 0 };
		place.host = NULL;
	}
	if (cold)
		in->boot = "cold";
	if (capsule_add(r, in, &from, place.host, ret) < 0 ||
	    q_life_image_add(r->work.db, .id = ret, .epoch = from.epoch, .team = r->who.team,
		.memory = s->memory_artifact, .disk = s->disk_artifact,
		.cpu_class = s->cpu_class ? s->cpu_class : "", .bytes = s->bytes_unique) < 0)
		return -1;
	return begin_start(r, in, ret, from.epoch);
}
