/* kinds.c - the list of everything that workers can do; grep finds all of it here. */
#include "worker.h"

#include <string.h>

extern const struct job_kind audit_jobs[], capsule_jobs[], metrics_jobs[], host_jobs[], mail_jobs[],
    retention_jobs[], team_jobs[], user_jobs[], storage_jobs[], test_jobs[];

static const struct job_kind *const tables[] = {
	capsule_jobs,
	host_jobs,
	metrics_jobs,
	mail_jobs,
	retention_jobs,
	audit_jobs,
	team_jobs,
	user_jobs,
	storage_jobs,
#ifdef DEV_BUILD
	test_jobs,
#endif
	NULL,
};

const struct job_kind *
job_kind(const char *name)
{
	const struct job_kind *const *table, *k;

	for (table = tables; *table; table++)
		for (k = *table; k->name; k++)
			if (strcmp(k->name, name) == 0)
				return k;
	return NULL;
}
