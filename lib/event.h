/*
 * event.h - events: facts that happened, written to the outbox in the transaction of the change
 * (spec 04 §1).
 *
 * The dictionary is proto/events.def. The relay (workers/) numbers the rows and tells the streams.
 */
#pragma once
#include "buf.h"
#include "id.h"
#include "work.h"
#include <stddef.h>

struct event {
	const char *type;        /* of the dictionary: "capsule.created" */
	const struct uuid *team; /* NULL: the Platform team */
	const struct uuid *user; /* the subject, or NULL */
	const struct uuid *capsule;
	const char *resource_type; /* "sandbox" is the wire word for capsules */
	const char *resource_id;
	const char *data; /* text of a JSON object with fields of the dictionary; NULL: {} */
};

/*
 * Writes an event in the caller's transaction: after the changed row was locked, so that cause
 * comes before effect. Actor and request id are the unit's. E_BUG: the dictionary knows no such
 * type or data field. job_announce() after the commit wakes the relay.
 */
int event_add(struct work *, const struct event *);

struct event_kind {
	const char *type, *category;
	const char *fields;   /* names of data, separated by blanks; "*": as sent */
	const char *audience; /* letters of spec 04 §1.4: T A S G P */
	const char *doc;
};
extern const struct event_kind event_kinds[]; /* ends with a NULL type */

const struct event_kind *event_kind(const char *type); /* NULL: no such type */

/* An event as everybody outside sees it: the envelope of spec 04 §1.3. Numbers and times as in the
 * row. */
struct event_row {
	const struct uuid *id, *team, *capsule;
	int64_t at, seq;
	int v;
	const char *type, *category, *actor_type, *actor_id, *actor_name, *resource_type,
	    *resource_id;
	const char *data, *request_id;
};
void event_envelope(struct buf *, const struct event_row *);
/* Of a row that a query has found, whichever has these columns. */
/* clang-format off */
#define EVENT_ROW(r) (&(struct event_row){ .id = (r)->id, .team = (r)->team_id, .capsule = (r)->capsule_id, \
	.at = (r)->at, .seq = (r)->seq, .v = (r)->v, .type = (r)->type, .category = (r)->category, \
	.actor_type = (r)->actor_type, .actor_id = (r)->actor_id, .actor_name = (r)->actor_name, \
	.resource_type = (r)->resource_type, .resource_id = (r)->resource_id, .data = (r)->data, .request_id = (r)->request_id })
/* clang-format on */
