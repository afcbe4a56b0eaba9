/*
 * multipart.h - reads multipart/form-data (RFC 7578) as it comes, without holding it.
 */
#pragma once
#include "buf.h"
#include "err.h"
#include <stdbool.h>
#include <stdint.h>

struct multipart_events {
	/* A part begins; either name may be NULL. -1 ends the reading, as in the others. */
	int (*on_part)(void *arg, const char *name, const char *filename, struct err *);
	int (*on_data)(void *arg, const uint8_t *, size_t, struct err *);
	int (*on_part_end)(void *arg, struct err *);
};

struct multipart;

/* NULL when the content type names no usable boundary. A child of mem. */
struct multipart *multipart_new(
    void *mem, const char *content_type, const struct multipart_events *, void *arg, struct err *);
int multipart_feed(struct multipart *, const uint8_t *, size_t, struct err *);
/* The body is over: -1 when the last boundary has not come. */
int multipart_end(struct multipart *, struct err *);
