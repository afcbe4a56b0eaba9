/*
 * key_change.c - API keys: narrowing, rotation, use (spec 01 §2.7).
 *
 * Queries: sql/queries/keys.sql.  Tests: tests/http/keys.t, teams.py.
 */
#include "keys.h"
#include "cleanup.h"
#include "rfc3339.h"
#include "cidr.h"

#include <string.h>
#include <time.h>

static handler key_patch, key_rotate, key_usage;

enum { OVERLAP_MAX = 604800, DAYS_MAX = 90 };

struct key_patch {
	const struct uuid *id;
	const char *name, *description, *expires_at;
	const char *const *scopes, *const *allowed_ips;
	int32_t rate_limit;
};
static const struct field key_patch_fields[] = {
	PATH_ID(key_patch, "key-"),
	FIELD(key_patch, name, "name", .min = 1, .max = 100, .format = "person"),
	FIELD(key_patch, description, "description", .max = 500),
	FIELD(key_patch, scopes, "scopes", .min = 1, .max = 64, .doc = "Only fewer than it has."),
	FIELD(key_patch, expires_at, "expires_at", .format = "date-time", .doc = "Only earlier."),
	FIELD(key_patch, rate_limit, "rate_limit", .min = 1, .max = 10000000, .dflt = NULL_INT4),
	FIELD(key_patch, allowed_ips, "allowed_ips", .max = 32, .format = "cidr"),
	{ 0 },
};

struct key_rotate {
	const struct uuid *id;
	int64_t overlap;
};
static const struct field key_rotate_fields[] = {
	PATH_ID(key_rotate, "key-"),
	FIELD(key_rotate, overlap, "overlap", .min = 0, .max = OVERLAP_MAX,
	    .doc = "Seconds that the old one still works."),
	{ 0 },
};

struct key_usage {
	const struct uuid *id;
	const char *from, *to;
};
static const struct field key_usage_fields[] = {
	PATH_ID(key_usage, "key-"),
	FIELD(key_usage, from, "from", .flags = IN_QUERY, .format = "date-time",
	    .doc = "Default: 30 days ago; at most 90 days in all."),
	FIELD(key_usage, to, "to", .flags = IN_QUERY, .format = "date-time"),
	{ 0 },
};
struct named {
	const char *name;
	int64_t n;
};
static const struct field route_fields[] = {
	FIELD(named, name, "route", .flags = NEEDED),
	FIELD(named, n, "requests", .flags = NEEDED),
	{ 0 },
};
static const struct field status_fields[] = {
	FIELD(named, name, "status", .flags = NEEDED),
	FIELD(named, n, "requests", .flags = NEEDED),
	{ 0 },
};
static const struct field point_fields[] = {
	FIELD(named, name, "hour", .flags = NEEDED, .format = "date-time"),
	FIELD(named, n, "requests", .flags = NEEDED),
	{ 0 },
};
struct usage {
	int64_t total, last_24h;
	struct list by_route, by_status, points;
};
static const struct field usage_fields[] = {
	FIELD(usage, total, "total", .flags = NEEDED),
	FIELD(usage, last_24h, "last_24h", .flags = NEEDED),
	SUB(usage, by_route, "by_route", route_fields, named, .flags = NEEDED | LIST),
	SUB(usage, by_status, "by_status", status_fields, named, .flags = NEEDED | LIST),
	SUB(usage, points, "points", point_fields, named, .flags = NEEDED | LIST),
	{ 0 },
};

/* clang-format off */
const struct route key_change_routes[] = {
	{ "PATCH", "/v1/api-keys/{id}", POOL_API, PERM_keys_own, key_patch, "Rename or narrow an API key", 0, 200, IN(key_patch), OUT(key) },
	{ "POST", "/v1/api-keys/{id}/rotate", POOL_API, PERM_keys_own, key_rotate, "Replace an API key by a new one", CREATES | MAY_BE_EMPTY, 201, IN(key_rotate), OUT(key_made) },
	{ "GET", "/v1/api-keys/{id}/usage", POOL_API, PERM_keys_own, key_usage, "What an API key was used for", 0, 200, IN(key_usage), OUT(usage) },
	{ 0 },
};
/* clang-format on */

static bool
among(const char *const *list, const char *word)
{
	for (; *list; list++)
		if (strcmp(*list, word) == 0)
			return true;
	return false;
}

/* Each new network lies in an old one: "10.1.0.0/16" in "10.0.0.0/8". */
static bool
network_within(const char *inner, const char *const *outer)
{
	struct in6_addr a;
	char text[64], *slash;
	int bits, most;

	snprintf(text, sizeof text, "%s", inner);
	slash = strchr(text, '/');
	if (slash)
		*slash = '\0';
	bits = slash ? (int)strtol(slash + 1, NULL, 10) : strchr(text, ':') ? 128 : 32;
	if (!cidr_address(text, &a))
		return false;
	for (; *outer; outer++) {
		slash = strchr(*outer, '/');
		most = slash ? (int)strtol(slash + 1, NULL, 10) : strchr(*outer, ':') ? 128 : 32;
		if (bits >= most && !strchr(*outer, ':') == !strchr(text, ':') &&
		    cidr_list_has(*outer, &a))
			return true;
	}
	return false;
}

/* A key is never widened: who holds its digits must not gain by another's edit. */
static int
only_narrower(struct request *r, const struct key_patch *in, const struct q_key *k, int64_t *end)
{
	const char *const *t;

	for (t = in->scopes; t && *t; t++)
		if (!among(k->scopes, *t))
			return fail(
			    r, E_BAD_INPUT, "\"scopes\" can only be fewer: it has no %.60s", *t);
	if (in->expires_at &&
	    (!time_read(in->expires_at, end) ||
		(k->expires_at != NULL_INT && *end > k->expires_at)))
		return fail(r, E_BAD_INPUT, "\"expires_at\" can only be earlier");
	if (!in->allowed_ips || !*k->allowed_ips)
		return 0;
	if (!*in->allowed_ips)
		return fail(r, E_BAD_INPUT, "\"allowed_ips\" can only be narrower");
	for (t = in->allowed_ips; *t; t++)
		if (!network_within(*t, k->allowed_ips))
			return fail(
			    r, E_BAD_INPUT, "\"allowed_ips\" can only be narrower: %.60s", *t);
	return 0;
}

/* The names of what was given, for audit row and event. */
static const char *
changed(struct request *r, const struct key_patch *in)
{
	const char *list[8] = { 0 };
	int n = 0;

	if (in->name)
		list[n++] = "name";
	if (in->description)
		list[n++] = "description";
	if (in->scopes)
		list[n++] = "scopes";
	if (in->expires_at)
		list[n++] = "expires_at";
	if (in->rate_limit != NULL_INT4)
		list[n++] = "rate_limit";
	if (in->allowed_ips)
		list[n++] = "allowed_ips";
	return n ? key_texts(r, "changed", list) : NULL;
}

static int
key_patch(struct request *r)
{
	const struct key_patch *in = r->in;
	const char *what = changed(r, in);
	int64_t end = NULL_INT;
	struct q_key *k;
	int n;

	if (key_find(r, &k) < 0 || only_narrower(r, in, k, &end) < 0)
		return -1;
	if (k->revoked_at != NULL_INT)
		return fail(r, E_BAD_STATE, "the key was revoked");
	if (!what)
		return reply_row(r, 1, k);
	n = q_key_change(r->work.db, .id = in->id, .team = r->who.team, .name = in->name,
	    .description = in->description, .scopes = in->scopes, .rate_limit = in->rate_limit,
	    .expires_at = end, .allowed_ips = in->allowed_ips);
	if (n < 0)
		return -1;
	if (n == 0)
		return fail(r, E_BAD_STATE, "the key was revoked");
	if (key_audit(r, AUDIT_API_KEY_UPDATE, k, what) < 0 || key_find(r, &k) < 0)
		return -1;
	return reply_row(r, 1, k);
}

static int
key_rotate(struct request *r)
{
	const struct key_rotate *in = r->in;
	struct key_made made;
	struct q_key *old;
	const char *word;
	int n;

	if (key_find(r, &old) < 0)
		return -1;
	if (strcmp(old->state, "active") != 0 || old->rotated_to)
		return fail(r, E_BAD_STATE, "the key is %s",
		    old->rotated_to ? "rotated already" : old->state);
	if (strcmp(old->kind, "cli") == 0)
		return fail(r, E_BAD_STATE, "a key of a command line login lives with it");
	if (strcmp(old->kind, "team") == 0 && !key_sees_all(r))
		return fail(r, E_FORBIDDEN, "a key of kind team needs the permission keys.manage");
	if (key_check_scopes(r, old->scopes) < 0 || key_within_count(r) < 0)
		return -1;
	word = talloc_strndup(r, old->key_prefix, strcspn(old->key_prefix, "_"));
	if (key_make(r, old, word, &made) < 0)
		return -1;
	n = q_key_rotated(r->work.db, .id = old->id, .team = r->who.team, .to = made.row.id,
	    .overlap = in->overlap);
	if (n <= 0)
		return n < 0 ? -1 : fail(r, E_BAD_STATE, "the key is rotated already");
	if (key_audit(r, AUDIT_API_KEY_ROTATE, old,
		talloc_asprintf(r, ",\"successor\":\"%s\"", id_text(r, "key-", made.row.id))) < 0)
		return -1;
	return reply_row(r, 1, &made);
}

/* --- use ---------------------------------------------------------------------------------------
 */

static int
span(struct request *r, const struct key_usage *in, int64_t *from, int64_t *to)
{
	*to = (int64_t)time(NULL) * 1000000 + 1000000;
	if (in->to)
		(void)time_read(in->to, to);
	*from = *to - 30 * INT64_C(86400000000);
	if (in->from)
		(void)time_read(in->from, from);
	if (*from >= *to || *to - *from > DAYS_MAX * INT64_C(86400000000) + 1000000)
		return fail(
		    r, E_BAD_INPUT, "\"from\" and \"to\" are not up to %d days apart", DAYS_MAX);
	return 0;
}

static int
key_usage(struct request *r)
{
	const struct key_usage *in = r->in;
	struct usage u = { 0 };
	struct q_key_stat *row;
	int64_t from, to;
	struct q_key *k;
	int n, i;

	if (key_find(r, &k) < 0 || span(r, in, &from, &to) < 0)
		return -1;
	n = q_key_stats(r->work.db, &row, .id = in->id, .from = from, .to = to);
	if (n < 0)
		return -1;
	for (i = 0; i < n; i++) {
		struct list *l = strcmp(row[i].kind, "by_route") == 0 ? &u.by_route
		    : strcmp(row[i].kind, "by_status") == 0           ? &u.by_status
								      : &u.points;
		struct named *item;

		if (strcmp(row[i].kind, "total") == 0)
			u.total = row[i].n;
		else if (strcmp(row[i].kind, "last_24h") == 0)
			u.last_24h = row[i].n;
		else {
			l->item = talloc_realloc(r, l->item, struct named, l->n + 1);
			item = (struct named *)l->item + l->n++;
			*item = (struct named){ row[i].name, row[i].n };
		}
	}
	return reply_row(r, 1, &u);
}
