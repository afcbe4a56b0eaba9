/* metrics.h - what a host says a capsule used, as our routes show it. */
#pragma once
#include "buf.h"

#include <json-c/json.h>

/* Appends the points of a host's answer (or NULL) that begin at `from` or later, with commas; where
   the last one begins, or `from` - 1. */
int64_t metrics_points(struct buf *, struct json_object *said, int64_t from);
