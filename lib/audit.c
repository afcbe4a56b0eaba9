/* audit.c - see audit.h. */
#include "audit.h"
#include "audit.q.h"
#include "event.h"
#include "job.h"

#include <talloc.h>

enum { EVERY_ROWS = 1000 }; /* of one chain: a checkpoint besides the one of each minute */

static const struct audit_row {
	const char *resource, *action, *event, *scope, *status;
} rows[AUDIT__MAX] = {
#define A(kind, resource, action, event, scope, status) \
	[AUDIT_##kind] = { resource, action, event, scope, status },
#include "proto/audit.def"
#undef A
};

int
audit_add(struct work *w, enum audit_kind kind, const struct audit *a)
{
	const struct audit_row *row = &rows[kind];
	const struct actor *who = &w->actor;
	const struct uuid *team = a->team ? a->team : &uuid_zero;
	struct uuid id = uuid_new();
	struct q_audit_seq *seq;
	struct event ev = { .type = row->event,
		.team = team,
		.user = a->subject,
		.capsule = a->capsule,
		.resource_type = row->resource,
		.resource_id = a->resource_id,
		.data = a->data };

	if (row->event && event_add(w, &ev) < 0)
		return -1;
	if (q_audit_append(w->db, &seq, .id = &id, .team = team,
		.actor_type = who->type ? who->type : "system", .actor_id = who->id,
		.actor_name = who->name ? who->name : "", .actor_user = who->user,
		.subject = a->subject, .resource_type = row->resource,
		.resource_id = a->resource_id, .action = row->action, .event = row->event,
		.scope = row->scope, .status = row->status,
		.metadata = a->metadata ? a->metadata : "{}", .ip = who->ip,
		.user_agent = who->user_agent, .request_id = w->id) < 0)
		return -1;
	if (seq->seq % EVERY_ROWS)
		return 0;
	return job_add(w,
		   &(struct job_new){
		       .kind = "audit.checkpoint", .unique_key = "audit.checkpoint" },
		   NULL, NULL) < 0
	    ? -1
	    : 0;
}
