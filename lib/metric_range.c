/* metric_range.c - see metric_range.h. */
#include "metric_range.h"
#include "cleanup.h"

#include <string.h>

/* clang-format off */
static const struct metric_range ranges[] = {
	{ "5m", "10m", 300 }, { "10m", "10m", 600 }, { "1h", "2h", 3600 }, { "2h", "2h", 7200 },
	{ "6h", "24h", 21600 }, { "12h", "24h", 43200 }, { "24h", "24h", 86400 },
};
/* clang-format on */

const struct metric_range *
metric_range(const char *name)
{
	size_t i;

	for (i = 0; i < nitems(ranges); i++)
		if (strcmp(ranges[i].name, name) == 0)
			return &ranges[i];
	return NULL;
}

const char *
metric_tier(int64_t seconds)
{
	size_t i;

	for (i = 0; i < nitems(ranges) - 1 && ranges[i].seconds < seconds; i++)
		;
	return ranges[i].tier;
}
