/*
 * metric_range.h - how far back metrics are asked for, and which tier of samples reaches so far.
 *
 * Hosts keep three tiers (spec 02 §6.10): a step of a second or of few for 10 minutes, of 30 s for
 * 2 hours, of 5 minutes for a day.
 */
#pragma once
#include <stdint.h>

/* As a field's .one_of; the first is the shortest. */
#define METRIC_RANGES      "5m|10m|1h|2h|6h|12h|24h"
#define METRIC_RANGE_USUAL "10m"

struct metric_range {
	const char *name, *tier;
	int64_t seconds;
};
/* NULL: not one of METRIC_RANGES. */
const struct metric_range *metric_range(const char *name);
/* The finest tier that reaches so far back; of a day and more the coarsest. */
const char *metric_tier(int64_t seconds);
