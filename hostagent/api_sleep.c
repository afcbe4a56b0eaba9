/* api_sleep.c - see api_sleep.h. */
#include "api_sleep.h"
#include "artifact.h"
#include "capsule_in.h"
#include "host.h"
#include "id.h"

#include <string.h>

enum { CHILDREN_MAX = 100 };

/* Members of artifacts, and of what they lie on. */
static void
sealed_json(const struct capsule *k, const char *memory, const char *memory_parent,
    const char *disk, const char *disk_parent, struct buf *b)
{
	const struct {
		const char *name, *id;
	} ids[] = { { "memory", memory }, { "memory_parent", memory_parent }, { "disk", disk },
		{ "disk_parent", disk_parent } };
	size_t i;

	for (i = 0; i < nitems(ids); i++) {
		buf_fmt(b, ",\"%s\":", ids[i].name);
		buf_json(b, *ids[i].id ? ids[i].id : NULL);
	}
	buf_fmt(b, ",\"cpu_class\":\"%s\"", host_cpu_class(k->agent));
}

void
sleep_json(const struct capsule *k, struct buf *b)
{
	if (k->state == CAP_PAUSED)
		buf_fmt(b, ",\"residency\":\"%s\"", k->vm ? "ram" : "disk");
	if (*k->paused_by)
		buf_fmt(b, ",\"paused_by\":\"%s\"", k->paused_by);
	if (k->reboots)
		buf_fmt(b, ",\"reboots\":%u", k->reboots);
	if (k->state == CAP_HIBERNATED) {
		sealed_json(
		    k, k->memory_artifact, k->memory_parent, k->disk_artifact, k->disk_parent, b);
		buf_fmt(b, ",\"bytes\":%llu", (unsigned long long)k->sealed_bytes);
	}
}

static void
head(const struct capsule *k, struct buf *b)
{
	buf_fmt(b, "{\"id\":\"%s\",\"epoch\":%lld,\"state\":\"%s\",\"took_ms\":%d", k->id,
	    (long long)k->epoch, capsule_state_name(k->state), k->took_ms);
}

static void
slept(void *arg, struct capsule *k, const struct err *e)
{
	struct call *c = arg;
	struct buf b = BUF(c);

	if (!c->stream)
		return;
	if (e) {
		api_error(c->stream, e);
		return;
	}
	head(k, &b);
	sleep_json(k, &b);
	buf_chr(&b, '}');
	api_reply(c->stream, 200, &b);
}

/* The body, which may be absent. NULL: it was answered. */
static struct json_object *
body(struct call *c)
{
	struct json_object *j;

	if (!c->body.len)
		buf_str(&c->body, "{}");
	j = api_body(c, c);
	if (!j)
		api_error(c->stream, &c->err);
	return j;
}

static const char *
who(struct json_object *j)
{
	const char *by = json_str(j, "by", "user");

	return strspn(by, "abcdefghijklmnopqrstuvwxyz_") == strlen(by) && strlen(by) < 16 ? by
											  : NULL;
}

void
sleep_pause(struct call *c)
{
	struct json_object *j = body(c);

	if (!j)
		return;
	if (!who(j))
		api_fail(c, E_BAD_INPUT, "\"by\" is no word");
	else
		capsule_pause(c->agent, c->id, c->epoch, who(j), c, slept, c);
}

void
sleep_hibernate(struct call *c)
{
	struct json_object *j = body(c);

	if (!j)
		return;
	if (!who(j))
		api_fail(c, E_BAD_INPUT, "\"by\" is no word");
	else
		capsule_hibernate_as(
		    c->agent, c->id, c->epoch, who(j), json_flag(j, "memory", true), c, slept, c);
}

/* The body is that of a PUT; sizes that it does not name stay. */
static void
resume_cold(struct call *c, const struct capsule *k)
{
	char *mem = talloc_new(c);
	struct json_object *j = api_body(c, mem);
	struct capsule_spec *spec = talloc_zero(mem, struct capsule_spec);

	if (!j || api_spec(c, mem, j, c->epoch, spec) < 0) {
		api_error(c->stream, &c->err);
		return;
	}
	if (k && !json_get(j, "vcpus"))
		spec->vcpus = k->vcpus;
	if (k && !json_get(j, "memory_mb"))
		spec->memory_mb = k->memory_mb;
	capsule_resume_cold(c->agent, c->id, spec, mem, c, api_started, c);
}

void
sleep_resume(struct call *c)
{
	struct json_object *j = body(c);
	struct capsule *k = capsule_find(c->agent, c->id);
	struct idle_settings idle;
	int64_t disk_mb;

	if (!j)
		return;
	if (strcmp(json_str(j, "boot", "warm"), "cold") == 0) {
		resume_cold(c, k);
		return;
	}
	if (k && k->state == CAP_PAUSED) {
		idle = *idle_get(k);
		/* what it may reach was told already, unless all of it has another name now */
		if (idle_read(j, &idle, &c->err) < 0 ||
		    (json_get(j, "network") && strcmp(idle.told, idle_get(k)->told) != 0 &&
			capsule_network(k, json_get(j, "network"), &c->err) < 0)) {
			api_error(c->stream, &c->err);
			return;
		}
		idle_set(k, &idle);
		disk_mb = json_int(j, "disk_size_mb", 0);
		if (disk_mb > 0 && disk_mb <= DISK_MAX_MB)
			capsule_want_disk(k, (uint64_t)disk_mb << 20);
	}
	capsule_resume(c->agent, c->id, c->epoch, c, api_started, c);
}

static void
snapped(void *arg, struct capsule *k, const struct err *e)
{
	struct call *c = arg;
	struct buf b = BUF(c);

	if (!c->stream)
		return;
	if (e) {
		api_error(c->stream, e);
		return;
	}
	head(k, &b);
	sealed_json(
	    k, k->made->memory, k->made->memory_parent, k->made->disk, k->made->disk_parent, &b);
	buf_fmt(&b, ",\"bytes_unique\":%llu,\"bytes_logical\":%llu,\"down_ms\":%d}",
	    (unsigned long long)k->made->bytes, (unsigned long long)k->made->logical, k->down_ms);
	api_reply(c->stream, 200, &b);
}

void
sleep_snapshot(struct call *c)
{
	struct json_object *j = body(c);

	if (j)
		capsule_snapshot(
		    c->agent, c->id, c->epoch, c->op, json_flag(j, "memory", true), c, snapped, c);
}

/* The body is that of a PUT; memory and disk may stand at its top. */
void
sleep_rollback(struct call *c)
{
	char *mem = talloc_new(c);
	struct json_object *j = api_body(c, mem);
	struct capsule_spec spec;

	if (!j || api_spec(c, mem, j, c->epoch, &spec) < 0) {
		api_error(c->stream, &c->err);
		return;
	}
	if (!spec.disk) {
		spec.disk = json_str(j, "disk", NULL);
		spec.memory = spec.cold ? NULL : json_str(j, "memory", NULL);
	}
	if (!artifact_id_ok(spec.disk) || (spec.memory && !artifact_id_ok(spec.memory)))
		api_fail(c, E_BAD_INPUT, "\"disk\" or \"memory\" is no artifact");
	else
		capsule_rollback(c->agent, c->id, &spec, mem, c, api_started, c);
}

/* Fork: a snapshot, then each child starts from it. */

struct child {
	struct fork *fork;
	char id[CAPSULE_ID];
	struct capsule_spec spec;
	char *mem;
	bool ended;
	struct buf text;
};

struct fork {
	struct call *call;
	size_t n, open;
	struct child *child;
};

static void
fork_answer(struct fork *f)
{
	struct call *c = f->call;
	struct buf b = BUF(c);
	size_t i;

	if (!c->stream)
		return;
	buf_str(&b, "{\"children\":[");
	for (i = 0; i < f->n; i++) {
		buf_str(&b, i ? "," : "");
		buf_add(&b, f->child[i].text.data, f->child[i].text.len);
	}
	buf_str(&b, "]}");
	api_reply(c->stream, 200, &b);
}

static void
child_done(void *arg, struct capsule *k, const struct err *e)
{
	struct child *ch = arg;
	struct fork *f = ch->fork;

	if (e) {
		buf_fmt(&ch->text, "{\"id\":\"%s\",\"error\":{\"code\":\"%s\",\"message\":", ch->id,
		    err_kinds[e->code].slug);
		buf_json(&ch->text, e->text);
		buf_str(&ch->text, "}}");
	} else {
		head(k, &ch->text);
		buf_fmt(&ch->text, ",\"start_mode\":\"%s\",\"accel\":\"%s\"}",
		    capsule_start_mode(k), accel_name(k->accel));
	}
	if (--f->open == 0)
		fork_answer(f);
}

static void
fork_snapped(void *arg, struct capsule *k, const struct err *e)
{
	struct fork *f = arg;
	struct call *c = f->call;
	struct capsule_made made;
	const char *template = k ? k->template : NULL;
	int vcpus, memory_mb;
	size_t i;

	if (e || !template) {
		if (c->stream && e)
			api_error(c->stream, e);
		return;
	}
	crash_point("fork.4");
	made = *k->made;
	vcpus = k->vcpus;
	memory_mb = k->memory_mb;
	for (i = 0; i < f->n; i++) {
		struct child *ch = &f->child[i];

		ch->spec.template = talloc_strdup(ch->mem, template);
		ch->spec.vcpus = vcpus;
		ch->spec.memory_mb = memory_mb;
		ch->spec.disk = talloc_strdup(ch->mem, made.disk);
		ch->spec.memory = *made.memory ? talloc_strdup(ch->mem, made.memory) : NULL;
		ch->spec.new_identity = true;
		crash_point("fork.5");
		capsule_start(c->agent, ch->id, &ch->spec, ch->mem, c, child_done, ch);
	}
}

static int
child_read(struct call *c, struct json_object *j, struct child *ch)
{
	struct uuid uuid;
	int64_t epoch = json_int(j, "epoch", -1);

	snprintf(ch->id, sizeof ch->id, "%s", json_str(j, "id", ""));
	ch->mem = talloc_new(c);
	ch->text = BUF(c);
	if (!id_read(ch->id, "cl-", &uuid) || strcmp(ch->id, c->id) == 0)
		return err_set(&c->err, E_BAD_INPUT, "a child's \"id\" is no capsule's");
	if (epoch < 0)
		return err_set(&c->err, E_BAD_INPUT, "a child has no \"epoch\"");
	return api_spec(c, ch->mem, j, epoch, &ch->spec);
}

/* All children are there already: the call is a repetition, and joins them. */
static bool
all_there(struct fork *f)
{
	size_t i;

	for (i = 0; i < f->n; i++) {
		struct capsule *k = capsule_find(f->call->agent, f->child[i].id);

		if (!k || k->epoch != f->child[i].spec.epoch || k->state == CAP_ERROR)
			return false;
	}
	return true;
}

void
sleep_fork(struct call *c)
{
	struct json_object *j = api_body(c, c), *list = json_get(j, "children");
	struct fork *f = talloc_zero(c, struct fork);
	size_t i;

	if (!j) {
		api_error(c->stream, &c->err);
		return;
	}
	f->call = c;
	f->n = f->open =
	    json_object_is_type(list, json_type_array) ? json_object_array_length(list) : 0;
	if (f->n == 0 || f->n > CHILDREN_MAX) {
		api_fail(c, E_BAD_INPUT, "\"children\" is not a list of 1 to 100");
		return;
	}
	f->child = talloc_zero_array(f, struct child, f->n);
	for (i = 0; i < f->n; i++) {
		f->child[i].fork = f;
		if (child_read(c, json_object_array_get_idx(list, i), &f->child[i]) < 0) {
			api_error(c->stream, &c->err);
			return;
		}
	}
	if (all_there(f)) {
		for (i = 0; i < f->n; i++)
			capsule_start(c->agent, f->child[i].id, &f->child[i].spec, f->child[i].mem,
			    c, child_done, &f->child[i]);
		return;
	}
	crash_point("fork.3");
	capsule_snapshot(
	    c->agent, c->id, c->epoch, c->op, json_flag(j, "memory", true), c, fork_snapped, f);
}

static void
discarded(void *arg, struct capsule *k, const struct err *e)
{
	struct call *c = arg;

	(void)k;
	if (!c->stream)
		return;
	if (e && e->code != E_NOT_FOUND)
		api_error(c->stream, e);
	else
		h2_respond(c->stream, 204, NULL, true);
}

void
sleep_discard(struct call *c)
{
	capsule_discard(c->agent, c->id, c->epoch, c, discarded, c);
}
