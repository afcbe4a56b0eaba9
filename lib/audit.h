/*
 * audit.h - what happened, for ever: one row in the team's hash chain and its event, in the
 * transaction of the change (spec 01 §7, spec 04 §1).
 */
#pragma once
#include "id.h"
#include "work.h"

enum audit_kind {
#define A(kind, resource, action, event, scope, status) AUDIT_##kind,
#include "proto/audit.def"
#undef A
	AUDIT__MAX
};

struct audit {
	const struct uuid *team;    /* NULL: the Platform team */
	const char *resource_id;    /* wire id, or a name */
	const struct uuid *subject; /* the person it is about */
	const struct uuid *capsule; /* for the event */
	const char *metadata;       /* JSON object; NULL: {} */
	const char *data; /* of the event, with the fields that its dictionary names; NULL: {} */
};

/*
 * Call it last in the transaction: it locks the head of the team's chain. -1 when the row cannot be
 * written; the change must then not be committed.
 */
int audit_add(struct work *, enum audit_kind, const struct audit *);
