/* api_patch.c - PATCH /capsules/{id}: what changes while a capsule lives. A member is a row of
 * parts[]. */
#include "api_call.h"
#include "host.h"
#include "net.h"
#include "net_policy.h"
#include "vm.h"
#include "journal.h"
#include "idle.h"

/* look: whether the value is good; then set, of all members that are there. */
static int
network_look(struct capsule *k, void *mem, struct json_object *v, struct err *e)
{
	(void)k;
	return net_policy_read(mem, v, e) ? 0 : -1;
}

/* Open connections that the new policy does not allow end at once. */
int
capsule_network(struct capsule *k, struct json_object *v, struct err *e)
{
	if (net_keep(k->agent, k->id, v, e) < 0)
		return -1;
	return k->vm && *k->vm->net_of ? net_renew(k->agent, k->vm, k->id, e) : 0;
}

/* A disk that is larger already is as asked: it only grows. */
static int
disk_look(struct capsule *k, void *mem, struct json_object *v, struct err *e)
{
	int64_t mb = json_object_get_int64(v);

	(void)mem;
	if (!json_object_is_type(v, json_type_int) || mb < 0 || mb > DISK_MAX_MB)
		return err_set(
		    e, E_BAD_INPUT, "\"disk_size_mb\" is not between 0 and %d", DISK_MAX_MB);
	return (uint64_t)mb << 20 > k->disk_size ? host_disk_room(k->agent, 0, e) : 0;
}

static const struct part {
	const char *name;
	int (*look)(struct capsule *, void *mem, struct json_object *, struct err *);
	int (*set)(struct capsule *, struct json_object *, struct err *);
} parts[] = {
	/* clang-format off */
	{ "network", network_look, capsule_network },
	{ "disk_size_mb", disk_look, NULL }, /* capsule_grow(): it takes a while */
	/* clang-format on */
};

static void
answer(void *arg, const struct err *e)
{
	struct call *c = arg;
	const struct capsule *k;
	struct buf b = BUF(c);

	if (!c->stream)
		return;
	k = e ? NULL : api_capsule(c);
	if (e)
		api_error(c->stream, e);
	if (!k)
		return;
	buf_fmt(&b, "{\"id\":\"%s\",\"epoch\":%lld,\"state\":\"%s\"}", k->id, (long long)k->epoch,
	    capsule_state_name(k->state));
	api_reply(c->stream, 200, &b);
}

/* The next agent knows it, too, before it is answered. */
static void
write_down(struct call *c, struct capsule *k)
{
	journal_append(k->agent->journal, c, capsule_say_set(k), answer, c);
}

static void
on_grown(void *arg, struct capsule *k, const struct err *e)
{
	(void)k;
	answer(arg, e);
}

void
capsule_patch(struct call *c)
{
	struct capsule *k = api_capsule(c);
	struct json_object *j, *v;
	struct idle_settings times;
	struct err e = { 0 };
	size_t i;

	if (!k)
		return;
	if (c->epoch < k->epoch) {
		(void)err_set(
		    &e, E_STALE_EPOCH, "the capsule is at epoch %lld", (long long)k->epoch);
		api_error(c->stream, &e);
		return;
	}
	j = api_body(c, c);
	if (!j)
		e = c->err;
	times = *idle_get(k);
	if (j)
		(void)idle_read(j, &times, &e);
	for (i = 0; j && i < nitems(parts) && e.code == E_OK; i++)
		if ((v = json_get(j, parts[i].name)))
			(void)parts[i].look(k, c, v, &e);
	for (i = 0; j && i < nitems(parts) && e.code == E_OK; i++)
		if (parts[i].set && (v = json_get(j, parts[i].name)))
			(void)parts[i].set(k, v, &e);
	if (e.code != E_OK) {
		api_error(c->stream, &e);
		return;
	}
	if (idle_named(j))
		idle_set(k, &times);
	if (capsule_grow(k, (uint64_t)json_int(j, "disk_size_mb", 0) << 20, c, on_grown, c))
		return; /* its records have all of it */
	if (idle_named(j) || k->grows)
		write_down(c, k);
	else
		answer(c, NULL);
}
