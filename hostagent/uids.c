/* uids.c - which user ids of the range are in use: one per VM (vm.h). */
#include "priv.h"
#include "vm.h"

struct uids {
	uint32_t count, next, used;
	bool *taken;
};

static struct uids *
uids(struct agent *a)
{
	if (!a->uids) {
		a->uids = talloc_zero(a, struct uids);
		a->uids->count = a->conf->agent_uid_count;
		a->uids->taken = talloc_zero_array(a->uids, bool, a->uids->count);
		/* two agents of one machine with the same range should seldom meet */
		a->uids->next = (uint32_t)(strtoull(a->instance, NULL, 16) % a->uids->count);
	}
	return a->uids;
}

int
uid_lease(struct agent *a, uid_t *ret, struct err *e)
{
	struct uids *u = uids(a);
	uint32_t i, n;

	/* round and round: an id that was just given back rests as long as possible */
	for (i = 0; i < u->count; i++) {
		n = (u->next + i) % u->count;
		if (u->taken[n])
			continue;
		u->taken[n] = true;
		u->used++;
		u->next = n + 1;
		*ret = a->conf->agent_uid_first + n;
		return 0;
	}
	return err_set(e, E_OVERLOADED, "all %u user ids are in use", u->count);
}

int
uid_take(struct agent *a, uid_t uid, struct err *e)
{
	struct uids *u = uids(a);
	uint32_t n = uid - a->conf->agent_uid_first;

	if (n >= u->count || u->taken[n])
		return err_set(e, E_CONFLICT, "user id %u is not ours or taken", (unsigned)uid);
	u->taken[n] = true;
	u->used++;
	return 0;
}

void
uid_return(struct agent *a, uid_t uid)
{
	struct uids *u = uids(a);
	uint32_t n = uid - a->conf->agent_uid_first;

	if (n < u->count && u->taken[n]) {
		u->taken[n] = false;
		u->used--;
	}
}

int
uid_free(const struct agent *a)
{
	struct uids *u = uids((struct agent *)a);

	return (int)(u->count - u->used);
}
