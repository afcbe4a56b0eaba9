/*
 * placement.h - on which host a capsule starts (spec 02 §5.5).
 *
 * Filter, score, reserve: hosts that can take it are ordered by the policy (host.policy); the best
 * three are locked in turn and their sums computed again, so that parallel reservations never
 * exceed a host. Queries: sql/queries/placement.sql.
 */
#pragma once
#include "conf.h"
#include "db.h"
#include "work.h"

struct place_ask {
	const struct conf *conf;
	const struct uuid *team; /* whose: a BYOC team's capsules run on its hosts only */
	int32_t vcpus, memory_mb, disk_mb;
	const char *template;    /* its name: hosts that have it (warm) are preferred; or NULL */
	const char *const *tags; /* all must be on the host; NULL: none */
	const char *arch;        /* NULL: any */
	const char *cpu_class;   /* of memory that must be loaded; NULL: any */
	struct bytes memory,
	    disk; /* artifacts it starts from: hosts that have them are preferred */
	const struct uuid *only, *avoid; /* this host and no other; not this one; NULL: any */
};

struct place {
	const struct uuid *host; /* on the unit */
	const char *address, *accel;
	bool has_copy; /* of the artifacts asked for; else they are pulled first */
};

/*
 * 0: *ret is the host; its row is locked until the commit, in which the caller's row names the host
 * and a state that counts (starting, resuming). Inside a transaction. -1: E_NO_HOSTS, E_NO_SPACE
 * (every host that fits lacks disk), E_DB.
 */
int host_place(struct work *, const struct place_ask *, struct place *ret);

/* Whether the host that has the capsule, if one has it, takes so much more of its disk; its row is
 * locked until the commit. -1: E_NO_SPACE. */
int host_disk(struct work *, const struct conf *, const struct uuid *capsule, int32_t more_mb);

/* A row of the table of policies; `host` is what placement.sql tells of one. */
struct q_place_host;
struct sched_policy {
	const char *name;
	bool (*filter)(const struct place_ask *, const struct q_place_host *);
	double (*score)(const struct place_ask *, const struct q_place_host *); /* more is better */
};
extern const struct sched_policy sched_policies[]; /* ends with a NULL name */
