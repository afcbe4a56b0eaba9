/*
 * confine.h - the cage of a VM's process: what the launcher's child gives up between fork and exec,
 * and whether a running process really has given it up.
 */
#pragma once
#include "cgroup.h"
#include "err.h"
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

/* What this host can give; found once, by posture.c. */
struct cage {
	bool separate;    /* a user id per VM: the launcher is root */
	bool tap;         /* a network namespace with a way out per VM */
	bool own_network; /* at least an empty network namespace */
	bool own_mounts;
	bool user_ns; /* without root: the namespaces come from a user namespace */
	int landlock; /* its ABI; 0: none */
	gid_t kvm;    /* the group that may use /dev/kvm; 0: none needed */
	struct cgroups groups;
	const char *program; /* QEMU */
};

/* One VM's. */
struct cage_size {
	uint32_t memory_mb, vcpus;
	bool kvm;
};

/* The limits of its control group. */
void confine_limits(const struct cage_size *, struct cgroup_limits *ret);
/*
 * In the child: everything but exec. netns: to enter, or -1. fd: the files that it may open again.
 * 0, or -1 with errno and what failed; then the process must end.
 */
int confine_self(const struct cage *, uid_t, const struct cage_size *, int netns, const int *fd,
    int fds, const char **ret_what);
/* Looks at /proc: -1 and what a process does not have that this host can give. */
int confine_check(const struct cage *, pid_t, uid_t, const struct cage_size *, struct err *);
/* Changes the identity for good. groups: at most one. */
int confine_user(uid_t, gid_t, gid_t extra);

/* For posture.c: whether the calling process, a forked one, can do it. */
bool confine_can_mounts(const char *program);
bool confine_can_user_ns(void);
gid_t confine_kvm_group(void);
