/*
 * connect.h - the frames of a Connect stream (spec 06 §14): 1 byte flags, 4 bytes length, JSON.
 *
 * The guest is hostile: a frame is at most max bytes, anything odd ends the stream.
 */
#pragma once
#include "buf.h"
#include "err.h"
#include <stddef.h>
#include <stdint.h>

enum { CONNECT_LAST = 2 }; /* flags of the last frame */

struct connect {
	struct buf part; /* of a frame that is not complete */
	size_t max;
};

/* Calls fn for each complete frame. fn returns 0 to go on; else its value is returned at once (it
   may have freed c). -1 with err: not a frame we take. */
int connect_feed(struct connect *, const uint8_t *, size_t,
    int (*fn)(void *arg, unsigned flags, const char *json, size_t), void *arg, struct err *);
/* Appends one frame. */
void connect_frame(struct buf *, unsigned flags, const char *json, size_t);
