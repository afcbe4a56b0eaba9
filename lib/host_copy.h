/*
 * host_copy.h - templates, images and snapshots on more than one host (spec 02 §5.6).
 */
#pragma once
#include "capsule_op.h"
#include "work.h"

struct q_capsule_op;

/* Has the host pull the template from one that has it, unless it is there or nobody has it (then
 * the host itself says so). waits: a capsule that starts when it is there: its row says so
 * meanwhile; NULL: none. 1: it was pulled; 0; -1: E_TIMEOUT, it goes on; call again. */
int host_bring_template(struct work *, const struct uuid *host, const char *address,
    const char *name, const struct q_capsule_op *waits, int64_t wait_ms);

/* Brings templates, sleeping capsules and snapshots to a second host where there is one (timer
 * artifact.copy). Role hutch_work. */
int host_copies(struct work *, const struct op_env *);
