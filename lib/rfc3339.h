/* rfc3339.h - times as text: 2026-11-21T09:00:00.123456Z (RFC 3339), microseconds since 1970
 * inside. */
#pragma once
#include "buf.h"
#include <stdbool.h>
#include <stdint.h>

/* In UTC; the fraction only when there is one. */
void time_write(struct buf *, int64_t us);
/* Any offset is taken; false: not a time, or one that does not exist. */
bool time_read(const char *text, int64_t *us);
