/*
 * audit.c - reading the audit log: pages and counts, of a team and of the platform (spec 01 §2.9).
 *
 * Which scopes a member sees is decided twice: here by his permission, and by row-level security
 * under the query. Queries: sql/queries/audit.sql.  Tests: tests/http/audit.py.
 */
#include "audit_read.h"
#include "cleanup.h"
#include "rfc3339.h"

#include <string.h>
#include <time.h>

static handler audit_list, audit_stats;

enum { PAGE = 50, PAGE_MAX = 200, DAYS_MAX = 90 };

#define TEXTS(as)                                                  \
	FIELD(audit_filter, as, #as, .flags = IN_QUERY, .max = 64, \
	    .doc = "Several: repeated, or separated by commas.")
#define WHO                                                                                 \
	TEXTS(resource_type), TEXTS(action),                                                \
	    FIELD(audit_filter, actor_id, "actor_id", .flags = IN_QUERY),                   \
	    FIELD(audit_filter, actor_type, "actor_type", .flags = IN_QUERY,                \
		.one_of = "user|api_key|system|host|scim"),                                 \
	    FIELD(audit_filter, resource_id, "resource_id", .flags = IN_QUERY),             \
	    FIELD(audit_filter, status, "status", .flags = IN_QUERY,                        \
		.one_of = "success|info|warning|error"),                                    \
	    FIELD(audit_filter, scope, "scope", .flags = IN_QUERY, .one_of = "team|admin"), \
	    FIELD(audit_filter, ip, "ip", .flags = IN_QUERY, .format = "cidr"),             \
	    FIELD(audit_filter, request_id, "request_id", .flags = IN_QUERY)
#define WHEN                                                                         \
	FIELD(audit_filter, from, "from", .flags = IN_QUERY, .format = "date-time"), \
	    FIELD(audit_filter, to, "to", .flags = IN_QUERY, .format = "date-time")
#define WHERE                                                                                 \
	FIELD(audit_filter, before, "before", .flags = IN_QUERY, .format = "date-time"),      \
	    FIELD(audit_filter, before_id, "before_id", .flags = IN_QUERY, .prefix = "log-"), \
	    FIELD(audit_filter, limit, "limit", .flags = IN_QUERY, .dflt = PAGE,              \
		.doc = "Rows in this page: 50; at most 200."),                                \
	    FIELD(audit_filter, cursor, "cursor", .flags = IN_QUERY)
#define OF_ALL                                                                        \
	FIELD(audit_filter, team, "team_id", .flags = IN_QUERY,                       \
	    .doc = "team-…, or all; default: the Platform's log."),                   \
	    FIELD(audit_filter, user, "user_id", .flags = IN_QUERY, .prefix = "usr-", \
		.doc = "Rows with this person as actor or subject.")
#define EXPORT                                                                  \
	FIELD(audit_filter, format, "format", .flags = IN_QUERY, .text = "csv", \
	    .one_of = "csv|ndjson")
#define RANGE                                                                                    \
	FIELD(audit_filter, from_seq, "from_seq", .flags = IN_QUERY, .min = 1, .max = INT64_MAX, \
	    .dflt = NULL_INT),                                                                   \
	    FIELD(audit_filter, to_seq, "to_seq", .flags = IN_QUERY, .min = 1, .max = INT64_MAX, \
		.dflt = NULL_INT, .doc = "At most 20,000 rows; default: the newest.")
static const struct field list_fields[] = { WHERE, WHO, WHEN, { 0 } };
static const struct field admin_list_fields[] = { WHERE, WHO, WHEN, OF_ALL, { 0 } };
static const struct field stats_fields[] = { WHEN, { 0 } };
static const struct field admin_stats_fields[] = { WHEN, OF_ALL, { 0 } };
static const struct field export_fields[] = { EXPORT, WHO, WHEN, { 0 } };
static const struct field admin_export_fields[] = { EXPORT, WHO, WHEN, OF_ALL, { 0 } };
static const struct field verify_fields[] = { RANGE, { 0 } };
static const struct field admin_verify_fields[] = { RANGE, OF_ALL, { 0 } };

const struct field entry_fields[] = {
	FIELD(q_audit_entry, id, "id", .flags = NEEDED, .prefix = "log-"),
	FIELD(q_audit_entry, actor_type, "actor_type", .flags = NEEDED),
	FIELD(q_audit_entry, actor_id, "actor_id", .flags = OMIT),
	FIELD(q_audit_entry, actor_name, "actor_name", .flags = NEEDED),
	FIELD(q_audit_entry, resource_type, "resource_type", .flags = NEEDED),
	FIELD(q_audit_entry, resource_id, "resource_id", .flags = OMIT),
	FIELD(q_audit_entry, action, "action", .flags = NEEDED),
	FIELD(q_audit_entry, scope, "scope", .flags = NEEDED, .one_of = "team|admin"),
	FIELD(q_audit_entry, status, "status", .flags = NEEDED,
	    .one_of = "success|info|warning|error"),
	FIELD(q_audit_entry, metadata, "metadata", .flags = NEEDED, .format = "json"),
	FIELD(q_audit_entry, created_at, "created_at", .flags = NEEDED,
	    .doc = "With six decimals: as `before`."),
	FIELD(q_audit_entry, seq, "seq", .flags = NEEDED,
	    .doc = "In its team's chain, without gaps."),
	FIELD(q_audit_entry, event, "event"),
	FIELD(q_audit_entry, ip, "ip", .flags = OMIT),
	FIELD(q_audit_entry, user_agent, "user_agent", .flags = OMIT),
	FIELD(q_audit_entry, request_id, "request_id"),
	FIELD(q_audit_entry, team_id, "team_id", .flags = NEEDED, .prefix = "team-"),
	FIELD(q_audit_entry, hash, "hash", .flags = NEEDED),
	{ 0 },
};

struct audit_page {
	struct list items;
	const char *next_before, *next_cursor;
	const struct uuid *next_before_id;
};
static const struct field audit_page_fields[] = {
	SUB(audit_page, items, "items", entry_fields, q_audit_entry, .flags = NEEDED | LIST),
	FIELD(audit_page, next_before, "next_before", .flags = OMIT),
	FIELD(audit_page, next_before_id, "next_before_id", .flags = OMIT, .prefix = "log-"),
	FIELD(audit_page, next_cursor, "next_cursor", .flags = OMIT),
	{ 0 },
};

struct count {
	const char *name;
	int64_t n;
};
#define COUNTED(table, as)                                 \
	static const struct field table[] = {              \
		FIELD(count, name, as, .flags = NEEDED),   \
		FIELD(count, n, "count", .flags = NEEDED), \
		{ 0 },                                     \
	}
COUNTED(action_fields, "action");
COUNTED(actor_fields, "actor");
COUNTED(status_count_fields, "status");
COUNTED(day_fields, "day");
struct audit_stats {
	int64_t total, last_24h;
	struct list by_action, by_actor, by_status, by_day;
};
static const struct field audit_stats_fields[] = {
	FIELD(audit_stats, total, "total", .flags = NEEDED),
	FIELD(audit_stats, last_24h, "last_24h", .flags = NEEDED),
	SUB(audit_stats, by_action, "by_action", action_fields, count, .flags = NEEDED | LIST),
	SUB(audit_stats, by_actor, "by_actor", actor_fields, count, .flags = NEEDED | LIST),
	SUB(audit_stats, by_status, "by_status", status_count_fields, count,
	    .flags = NEEDED | LIST),
	SUB(audit_stats, by_day, "by_day", day_fields, count, .flags = NEEDED | LIST),
	{ 0 },
};

#define FILTER(table) .in = table, .insize = sizeof(struct audit_filter)

/* clang-format off */
const struct route audit_routes[] = {
	{ "GET", "/v1/audit-logs", POOL_API, AUDIT_READ, audit_list, "The team's audit log, newest first", 0, 200, FILTER(list_fields), OUT(audit_page) },
	{ "GET", "/v1/audit-logs/stats", POOL_API, AUDIT_READ, audit_stats, "Counts of the team's audit log", 0, 200, FILTER(stats_fields), OUT(audit_stats) },
	{ "GET", "/v1/audit-logs/export", POOL_OPS, PERM_audit_view, audit_export, "The team's audit log as CSV or NDJSON, up to 100,000 rows", STREAMS, 200, FILTER(export_fields) },
	{ "GET", "/v1/audit-logs/verify", POOL_OPS, PERM_audit_view, audit_verify, "Whether the team's hash chain holds", 0, 200, FILTER(verify_fields), OUT(verified) },
	{ "GET", "/v1/me/activity", POOL_API, SIGNED_IN, audit_list, "What one did, and what was done to one's account, in all teams", ACROSS | BEFORE_MFA, 200, FILTER(list_fields), OUT(audit_page) },
	{ "GET", "/v1/admin/audit-logs", POOL_API, PLATFORM_READ, audit_list, "An audit log, newest first", 0, 200, FILTER(admin_list_fields), OUT(audit_page) },
	{ "GET", "/v1/admin/audit-logs/stats", POOL_API, PLATFORM_READ, audit_stats, "Counts of an audit log", 0, 200, FILTER(admin_stats_fields), OUT(audit_stats) },
	{ "GET", "/v1/admin/audit-logs/export", POOL_OPS, PLATFORM_READ, audit_export, "An audit log as CSV or NDJSON, up to 100,000 rows", STREAMS, 200, FILTER(admin_export_fields) },
	{ "GET", "/v1/admin/audit-logs/verify", POOL_OPS, PLATFORM_READ, audit_verify, "Whether a hash chain holds", 0, 200, FILTER(admin_verify_fields), OUT(verified) },
	{ 0 },
};
/* clang-format on */

static bool
of_platform(const struct request *r)
{
	return r->route->may == PLATFORM_READ;
}

int
audit_view(struct request *r, struct audit_view *v)
{
	const struct audit_filter *f = r->in;
	struct uuid *team = talloc_zero(r, struct uuid); /* the Platform team */
	struct err ignored = { 0 };

	*v = (struct audit_view){
		.f = f, .team = r->who.team, .person = f->user, .from = NULL_INT, .to = NULL_INT
	};
	v->both =
	    of_platform(r) || principal_allowed(&r->who, PERM_audit_view, &ignored) == ALLOW_ALL;
	if (of_platform(r)) {
		v->team = team;
		if (f->team && strcmp(f->team, "all") == 0)
			v->team = NULL;
		else if (f->team && !id_read(f->team, "team-", team))
			return fail(r, E_BAD_INPUT, "\"team_id\" is neither all nor an id: team-…");
	}
	if (r->route->may == SIGNED_IN) { /* one's own trail, wherever it led */
		v->team = NULL;
		v->person = r->who.user;
	}
	if (f->from)
		(void)time_read(f->from, &v->from);
	if (f->to)
		(void)time_read(f->to, &v->to);
	return 0;
}

#define FILTERS                                                                                    \
	.types = v->f->resource_type, .actions = v->f->action, .actor_id = v->f->actor_id,         \
	.actor_type = v->f->actor_type, .resource_id = v->f->resource_id, .status = v->f->status,  \
	.scope = v->f->scope, .ip = v->f->ip, .request_id = v->f->request_id, .person = v->person, \
	.from = v->from, .to = v->to

int
audit_rows(struct request *r, const struct audit_view *v, int64_t before,
    const struct uuid *before_id, int32_t limit, struct q_audit_entry **ret)
{
	if (v->team)
		return q_audit_list(r->work.db, ret, .team = v->team, .scopes_all = v->both,
		    FILTERS, .before = before, .before_id = before_id, .limit = limit);
	return q_audit_list_all(
	    r->work.db, ret, FILTERS, .before = before, .before_id = before_id, .limit = limit);
}

/* Where the page begins: a cursor, or the row that the one before ended with. */
static int
begin(struct request *r, const struct audit_filter *f, struct page *p)
{
	if (page_read(r,
		f->limit <= 0             ? PAGE
		    : f->limit > PAGE_MAX ? PAGE_MAX
					  : f->limit,
		f->cursor, p) < 0)
		return -1;
	if (f->cursor || !f->before)
		return 0;
	(void)time_read(f->before, &p->before);
	p->before_id = f->before_id ? f->before_id : &uuid_zero;
	return 0;
}

static int
audit_list(struct request *r)
{
	const struct audit_filter *f = r->in;
	struct audit_page out = { 0 };
	struct q_audit_entry *row, *last;
	struct audit_view v;
	struct page p;
	int n;

	if (audit_view(r, &v) < 0 || begin(r, f, &p) < 0)
		return -1;
	n = audit_rows(r, &v, p.before, p.before_id, p.limit, &row);
	if (n < 0)
		return -1;
	out.items = (struct list){ row, n };
	if (n > 0) {
		last = &row[n - 1];
		out.next_before = last->created_at;
		out.next_before_id = last->id;
		out.next_cursor = page_cursor(r, last->at, last->id);
	}
	return reply_row(r, 1, &out);
}

static struct list *
list_of(struct audit_stats *s, const char *kind)
{
	return strcmp(kind, "by_action") == 0 ? &s->by_action
	    : strcmp(kind, "by_actor") == 0   ? &s->by_actor
	    : strcmp(kind, "by_status") == 0  ? &s->by_status
					      : &s->by_day;
}

static int
audit_stats(struct request *r)
{
	struct audit_stats out = { 0 };
	struct q_audit_stat *row;
	struct audit_view v;
	struct list *l;
	int n, i;

	if (audit_view(r, &v) < 0)
		return -1;
	if (v.to == NULL_INT)
		v.to = (int64_t)time(NULL) * 1000000 + 1000000;
	if (v.from == NULL_INT)
		v.from = v.to - 30 * INT64_C(86400000000);
	if (v.from >= v.to || v.to - v.from > DAYS_MAX * INT64_C(86400000000) + 1000000)
		return fail(
		    r, E_BAD_INPUT, "\"from\" and \"to\" are not up to %d days apart", DAYS_MAX);
	n = q_audit_stats(
	    r->work.db, &row, .team = v.team, .scopes_all = v.both, .from = v.from, .to = v.to);
	if (n < 0)
		return -1;
	for (i = 0; i < n; i++) {
		if (strcmp(row[i].kind, "total") == 0)
			out.total = row[i].n;
		else if (strcmp(row[i].kind, "last_24h") == 0)
			out.last_24h = row[i].n;
		else {
			l = list_of(&out, row[i].kind);
			l->item = talloc_realloc(r, l->item, struct count, l->n + 1);
			((struct count *)l->item)[l->n++] = (struct count){ row[i].name, row[i].n };
		}
	}
	return reply_row(r, 1, &out);
}
