/*
 * cgroup.h - one control group per VM, version 2 or 1, whichever this host has with controllers.
 *
 * The group is named by the VM's user id, below one folder per agent: hutch-<instance>/u<uid>.
 * Made and swept by the launcher.
 */
#pragma once
#include "err.h"
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

enum cgroup_part { CG_MEMORY, CG_CPU, CG_PIDS, CG__PARTS };

struct cgroups {
	int version;               /* 0: none can be used; rlimits have to do */
	char root[CG__PARTS][256]; /* our folder per controller; "" without it; v2: all equal */
};

struct cgroup_limits {
	uint64_t memory;      /* bytes */
	uint32_t cpu_percent; /* of one CPU */
	uint32_t weight;      /* 1: one vCPU's share */
	uint32_t pids;
};

/* What this host has: version and where. make: the agent's folder is made (needs root), else looked
   for only. name: "hutch-<something>". Never fails: version 0, and why. */
void cgroup_find(struct cgroups *ret, const char *name, bool make, char *why, size_t len);
/* Makes the group of this uid, with its limits. */
int cgroup_make(const struct cgroups *, uid_t, const struct cgroup_limits *, struct err *);
/* The calling process goes into it, before it gives up its rights. */
int cgroup_enter(const struct cgroups *, uid_t);
/* Whether pid is in it, with this memory limit. */
bool cgroup_holds(const struct cgroups *, uid_t, pid_t, const struct cgroup_limits *);
/* Removes groups without processes, but for those that keep(arg, uid) wants. */
void cgroup_sweep(const struct cgroups *, bool (*keep)(void *, uid_t), void *arg);
/* How many groups there are. */
int cgroup_count(const struct cgroups *);
