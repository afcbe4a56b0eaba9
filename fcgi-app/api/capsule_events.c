/*
 * capsule_events.c - the activity of one capsule: what happened to it, newest first; and facts that
 * a program of its user adds, app.* (spec 02 §2.3).
 */
#include "capsules.h"
#include "cleanup.h"
#include "event.h"
#include "json.h"
#include "rfc3339.h"

#include <string.h>

static handler event_list, event_add_app;

enum { APP_DATA = 4096 };

/* The columns, with ids as others spell them. */
static const struct field activity_fields[] = {
	FIELD(q_activity, id, "id", .flags = NEEDED, .prefix = "evt-"),
	FIELD(q_activity, type, "type", .flags = NEEDED),
	FIELD(q_activity, category, "category", .flags = NEEDED),
	FIELD(q_activity, capsule_id, "capsule_id", .flags = NEEDED, .prefix = "cl-"),
	FIELD(q_activity, actor_type, "actor_type", .flags = NEEDED),
	FIELD(q_activity, actor_id, "actor_id", .flags = OMIT),
	FIELD(q_activity, actor_name, "actor_name", .flags = OMIT),
	FIELD(q_activity, data, "data", .flags = NEEDED, .format = "json"),
	FIELD(q_activity, at, "at", .flags = NEEDED, .format = "date-time"),
	FIELD(q_activity, since_ms, "since_previous_ms", .flags = OMIT,
	    .doc = "With view=timeline: since the event before it."),
	{ 0 },
};

struct event_filter {
	const struct uuid *id;
	const char *type, *category, *actor, *after, *before, *view, *cursor;
	int32_t limit;
};
static const struct field event_filter_fields[] = {
	PATH_ID(event_filter, "cl-"),
	FIELD(event_filter, type, "type", .flags = IN_QUERY, .max = 64),
	FIELD(event_filter, category, "category", .flags = IN_QUERY, .max = 64),
	FIELD(event_filter, actor, "actor", .flags = IN_QUERY, .max = 64,
	    .doc = "Its id, or user, api_key, host, guest, system."),
	FIELD(event_filter, after, "after", .flags = IN_QUERY, .format = "date-time"),
	FIELD(event_filter, before, "before", .flags = IN_QUERY, .format = "date-time"),
	FIELD(event_filter, view, "view", .flags = IN_QUERY, .one_of = "list|timeline"),
	PAGE_FIELDS(event_filter),
	{ 0 },
};

struct event_new {
	const struct uuid *id;
	const char *type, *data;
};
static const struct field event_new_fields[] = {
	PATH_ID(event_new, "cl-"),
	FIELD(event_new, type, "type", .flags = NEEDED, .min = 5, .max = 64,
	    .doc = "app.* only: app.deployed."),
	FIELD(event_new, data, "data", .text = "{}", .format = "json",
	    .doc = "An object of at most 4 KiB."),
	{ 0 },
};

/* clang-format off */
const struct route capsule_event_routes[] = {
	{ "GET", "/v1/capsules/{id}/events", POOL_API, PERM_capsules_view, event_list, "What happened to a capsule, newest first", LISTS, 200, IN(event_filter), OUT(activity) },
	{ "POST", "/v1/capsules/{id}/events", POOL_API, PERM_capsules_view, event_add_app, "Add an event app.*", CREATES, 201, IN(event_new), OUT(activity) },
	{ 0 },
};
/* clang-format on */

static int
event_list(struct request *r)
{
	const struct event_filter *in = r->in;
	int64_t after = NULL_INT, before = NULL_INT;
	struct q_capsule *capsule;
	struct q_activity *rows;
	struct page p;
	int n = q_capsule_get(r->work.db, &capsule, .id = in->id), i;

	if (n <= 0)
		return reply_row(r, n, NULL);
	if (page_read(r, in->limit, in->cursor, &p) < 0)
		return -1;
	if (in->after)
		(void)time_read(in->after, &after);
	if (in->before)
		(void)time_read(in->before, &before);
	n = q_activity_list(r->work.db, &rows, .capsule = in->id, .type = in->type,
	    .category = in->category, .actor = in->actor, .after = after, .until = before,
	    .before = p.before, .before_id = p.before_id, .limit = p.limit + 1);
	for (i = 0; i < n; i++)
		rows[i].since_ms = in->view && strcmp(in->view, "timeline") == 0 && i + 1 < n
		    ? (rows[i].at - rows[i + 1].at) / 1000
		    : NULL_INT;
	return page_reply(r, n, rows, sizeof *rows, &p, offsetof(struct q_activity, at),
	    offsetof(struct q_activity, id));
}

static bool
app_type(const char *t)
{
	static const char allowed[] = "abcdefghijklmnopqrstuvwxyz0123456789._-";

	return strncmp(t, "app.", 4) == 0 && t[4] && strspn(t, allowed) == strlen(t);
}

static int
event_add_app(struct request *r)
{
	const struct event_new *in = r->in;
	struct q_capsule *capsule;
	struct q_activity *row;
	int n = q_capsule_get(r->work.db, &capsule, .id = in->id);

	if (n <= 0)
		return reply_row(r, n, NULL);
	if (!app_type(in->type))
		return fail(r, E_BAD_INPUT,
		    "\"type\" is not app. with small letters, digits, dots, underscores and "
		    "hyphens");
	if (*in->data != '{' || strlen(in->data) > APP_DATA)
		return fail(r, E_BAD_INPUT, "\"data\" is no object of at most %d bytes", APP_DATA);
	if (event_add(&r->work,
		&(struct event){ .type = in->type,
		    .team = r->who.team,
		    .capsule = in->id,
		    .resource_type = "sandbox",
		    .resource_id = id_text(r, "cl-", in->id),
		    .data = in->data }) < 0)
		return -1;
	n = q_activity_last(r->work.db, &row, .capsule = in->id, .type = in->type);
	if (n > 0)
		row->since_ms = NULL_INT;
	return reply_row(r, n, row);
}
