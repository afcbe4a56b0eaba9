/*
 * quota.h - what a team may still take, decided under the team's lock (spec 05 §2).
 */
#pragma once
#include "id.h"
#include "work.h"
#include <stdint.h>

struct quota_ask {
	const struct uuid *team;
	int64_t capsules, vcpus, memory_mb, disk_mb;
};
/* 0: it may; the lock is held until the commit. -1: E_QUOTA names limit, used and maximum;
 * E_TEAM_FROZEN. */
int quota_take(struct work *, const struct quota_ask *);
