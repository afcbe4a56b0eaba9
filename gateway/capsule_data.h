/* capsule_data.h - what the gateway reads of a capsule's past from the database, off the loop. */
#pragma once
#include "metrics.q.h"
#include "request.h"

/* The stored points of a tier ("10m", "2h", "24h") of the last seconds, oldest first; they are gone
   when done returns. n is -1 when the database failed: err says why. */
typedef void
points_done(struct request *, const struct q_metric_point *, int n, const struct err *err);
void points_fetch(struct request *, const char *tier, int64_t seconds, points_done *);
