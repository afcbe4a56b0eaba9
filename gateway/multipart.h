/*
 * multipart.h - multipart/form-data (RFC 7578) as it comes in: nothing is kept but a part's head
 * and the bytes that could be the beginning of a boundary.
 */
#pragma once
#include "buf.h"
#include "err.h"
#include <stdbool.h>
#include <stddef.h>

enum {
	MULTIPART_BOUNDARY = 70, /* RFC 2046 §5.1.1 */
	MULTIPART_HEAD = 8192,   /* bytes of one part's headers */
	MULTIPART_PARTS = 32,
	MULTIPART_PREAMBLE = 65536,
};

/* What is done with the parts; each returns 0, or -1 with err, which ends the parsing. */
struct multipart_events {
	int (*on_part)(void *arg, const char *name, struct err *);
	int (*on_data)(void *arg, const char *, size_t, struct err *);
	int (*on_part_end)(void *arg, struct err *);
};

enum multipart_state { MP_PREAMBLE, MP_BOUNDARY, MP_HEAD, MP_DATA, MP_END };

struct multipart {
	enum multipart_state state;
	const struct multipart_events *on;
	void *arg;
	char mark[MULTIPART_BOUNDARY + 5]; /* CR LF -- boundary */
	size_t marklen;
	struct buf held; /* not decided yet */
	size_t parts, preamble;
};

/* content_type is the request's. -1: E_MEDIA_TYPE when it is no form, E_BAD_INPUT for its boundary.
 */
int multipart_open(struct multipart *, void *mem, const char *content_type,
    const struct multipart_events *, void *arg, struct err *);
int multipart_feed(struct multipart *, const char *, size_t, struct err *);
/* The body has ended. -1: it was not complete. */
int multipart_end(const struct multipart *, struct err *);
