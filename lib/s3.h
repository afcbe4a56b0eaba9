/*
 * s3.h - a bucket of somebody else, by the S3 protocol: signed (SigV4, by libcurl), https only,
 * never inside unless the operator allows it (spec 05 §5.4, spec 04 §4.4).
 */
#pragma once
#include "conf.h"
#include "err.h"
#include "id.h"
#include <stdbool.h>
#include <stdint.h>

struct s3 {
	const struct conf *conf;
	const char *endpoint; /* "https://s3.example" */
	const char *region, *bucket;
	const char *prefix; /* of keys, without slashes at its ends; "" */
	bool path_style;    /* endpoint/bucket/key, not bucket.endpoint/key */
	const char *access_key_id, *secret;
	int64_t try_ms; /* for one call; 0: 10 s */
};

enum { S3_TRY_MS = 10000, S3_TRIES = 3 };

/* Are endpoint, bucket, prefix and region of a shape that can be asked? E_BAD_INPUT names the
 * field. */
int s3_check(const struct s3 *, struct err *);

/* The key of an object: prefix/team/id; on mem. */
const char *
s3_key(void *mem, const struct s3 *, const struct uuid *team, const struct uuid *object);

/* One call. The status goes to *status; -1: no answer. */
int s3_call(void *mem, const struct s3 *, const char *method, const char *key, const char *body,
    int *status, struct err *);

/* Deletes an object, in up to three tries. A missing one is deleted. */
int s3_delete(void *mem, const struct s3 *, const char *key, struct err *);

/* Puts, looks at, gets and deletes a probe. -1: *step is the one that failed: "put", "head", "get",
 * "delete". */
int s3_probe(void *mem, const struct s3 *, const char **step, struct err *);
