/*
 * snapshot.h - a snapshot begins: its row, with what a capsule made of it has unless it is told
 * otherwise; for the API and for the clock (spec 02 §2.4).
 */
#pragma once
#include "capsule_op.h"
#include "capsules.q.h"

struct snapshot_ask {
	const char *kind;        /* manual, scheduled, pre_op, last */
	const char *name;        /* NULL: made of its id */
	const char *description; /* NULL: none */
	const char *metadata;    /* JSON object text; NULL: {} */
	int64_t expires_in_sec;  /* NULL_INT: never */
	const struct uuid *user; /* NULL: nobody */
	bool memory;
};
/* Adds the row (creating), in the caller's transaction; *ret is its id. E_CONFLICT: the name. */
int snapshot_add(struct work *, const struct keys *, const struct q_capsule_op *,
    const struct snapshot_ask *, struct uuid *ret);
/* A sleeping capsule's image is its snapshot: nothing has to be copied. */
int
snapshot_of_image(struct work *, const struct q_capsule_op *, const struct uuid *id, bool memory);

/* Those whose time has come are taken, those that are too many or too old go. Role hutch_work. */
int snapshot_clock(struct work *, const struct op_env *);
