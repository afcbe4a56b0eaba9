/* quota.c - see quota.h. */
#include "quota.h"
#include "cleanup.h"
#include "teams.q.h"

#include <inttypes.h>

int
quota_take(struct work *w, const struct quota_ask *a)
{
	struct q_locked *locked;
	struct q_quota *q;
	size_t i;

	if (q_team_quota_lock(w->db, &locked, .team = a->team) < 0)
		return -1;
	if (locked->frozen)
		return err_set(&w->err, E_TEAM_FROZEN,
		    "the team has no active owner: nothing can be made there");
	if (q_team_quota(w->db, &q, .team = a->team) <= 0)
		return err_set(
		    &w->err, E_CONFIG, "there is no default quota: run hutchctl migrate");
	const struct {
		const char *what;
		int64_t used, more, most;
	} rows[] = {
		{ "capsules", q->used_capsules, a->capsules, q->capsules },
		{ "vcpus", q->used_vcpus, a->vcpus, q->vcpus },
		{ "memory_mb", q->used_memory_mb, a->memory_mb, q->memory_mb },
		{ "disk_mb", q->used_disk_mb, a->disk_mb, q->disk_mb },
	};
	for (i = 0; i < nitems(rows); i++)
		if (rows[i].more > 0 && rows[i].used + rows[i].more > rows[i].most)
			return err_set(&w->err, E_QUOTA,
			    "the quota of %s is used up: %" PRId64 " in use, %" PRId64
			    " asked, %" PRId64 " allowed",
			    rows[i].what, rows[i].used, rows[i].more, rows[i].most);
	return 0;
}
