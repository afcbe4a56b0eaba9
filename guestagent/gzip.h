/* gzip.h - bytes packed and unpacked as they come; the memory of either does not grow. */
#pragma once
#include "err.h"
#include <stddef.h>
#include <stdint.h>

struct gzip;

/* What comes out; -1 with the error ends it. */
typedef int gzip_out(void *arg, const uint8_t *, size_t, struct err *);

struct gzip *gzip_pack(void *mem, gzip_out *, void *arg);
struct gzip *gzip_unpack(void *mem, gzip_out *, void *arg);
/* -1: E_BAD_INPUT, it is no gzip; or out's error. */
int gzip_feed(struct gzip *, const uint8_t *, size_t, struct err *);
/* No more comes. -1: unpacked it is not complete. */
int gzip_end(struct gzip *, struct err *);
