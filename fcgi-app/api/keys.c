/*
 * keys.c - API keys: how programs prove who they are (spec 01 §2.7).
 *
 * Queries: sql/queries/keys.sql.  Tests: tests/http/keys.t, teams.py.
 */
#include "keys.h"
#include "teams.h"
#include "audit.h"
#include "cleanup.h"
#include "rfc3339.h"

#include <string.h>
#include <time.h>

static handler key_create, key_list, key_get, key_delete, key_revoke;

enum { TEAM_KEYS = 100, USER_KEYS = 25 };

struct key_create {
	const char *name, *description, *kind, *prefix;
	const char *const *scopes, *const *allowed_ips;
	int64_t expires_in;
	int32_t rate_limit;
	const char *expires_at;
};
static const struct field key_create_fields[] = {
	FIELD(key_create, name, "name", .max = 100, .format = "person"),
	FIELD(key_create, description, "description", .max = 500, .text = ""),
	FIELD(key_create, kind, "kind", .text = "personal", .one_of = "personal|team"),
	FIELD(key_create, scopes, "scopes", .min = 1, .max = 64,
	    .doc = "Default: the whole data plane that the caller may use."),
	FIELD(key_create, expires_in, "expires_in", .max = 315360000,
	    .doc = "Seconds; absent or 0: never."),
	FIELD(key_create, expires_at, "expires_at", .format = "date-time",
	    .doc = "Or the time itself."),
	FIELD(key_create, rate_limit, "rate_limit", .min = 1, .max = 10000000, .dflt = 36000,
	    .doc = "Requests an hour."),
	FIELD(key_create, allowed_ips, "allowed_ips", .max = 32, .format = "cidr",
	    .doc = "Networks (CIDR) that it may be used from; absent or empty: any."),
	FIELD(key_create, prefix, "prefix", .text = "htc", .one_of = "htc|e2b|wrn",
	    .doc = "Decoration: only the digits count."),
	{ 0 },
};

struct key_page {
	int32_t limit;
	const char *cursor, *state, *kind;
	const struct uuid *creator;
};
static const struct field key_page_fields[] = {
	PAGE_FIELDS(key_page),
	FIELD(key_page, state, "state", .flags = IN_QUERY, .one_of = "active|expired|revoked"),
	FIELD(key_page, kind, "kind", .flags = IN_QUERY, .one_of = "personal|team|cli"),
	FIELD(key_page, creator, "creator", .flags = IN_QUERY, .prefix = "usr-"),
	{ 0 },
};

const struct field by_key_fields[] = { PATH_ID(by_key, "key-"), { 0 } };

const struct field key_fields[] = { KEY_COMMON(q_key), { 0 } };

const struct field key_made_fields[] = {
	KEY_COMMON(q_key),
	FIELD(key_made, key, "key", .flags = NEEDED, .doc = "Shown once, here."),
	{ 0 },
};

/* clang-format off */
const struct route key_routes[] = {
	{ "POST", "/v1/api-keys", POOL_API, PERM_keys_own, key_create, "Make an API key", CREATES, 201, IN(key_create), OUT(key_made) },
	{ "GET", "/v1/api-keys", POOL_API, PERM_keys_own, key_list, "The API keys of the team", LISTS, 200, IN(key_page), OUT(key) },
	{ "GET", "/v1/api-keys/{id}", POOL_API, PERM_keys_own, key_get, "One API key", 0, 200, IN(by_key), OUT(key) },
	{ "DELETE", "/v1/api-keys/{id}", POOL_API, PERM_keys_own, key_delete, "Remove an API key", 0, 204, IN(by_key) },
	{ "POST", "/v1/api-keys/{id}/revoke", POOL_API, PERM_keys_own, key_revoke, "End an API key, keep its row", NO_BODY, 200, IN(by_key), OUT(key) },
	{ 0 },
};
/* clang-format on */

bool
key_sees_all(const struct request *r)
{
	struct err ignored = { 0 };

	return principal_allowed(&r->who, PERM_keys_manage, &ignored) == ALLOW_ALL;
}

/* Everything of the data plane that the caller's role holds. */
static const char *const *
default_scopes(struct request *r)
{
	const char *const *all = principal_permissions(r, &r->who);
	const char **list = talloc_zero_array(r, const char *, PERM__MAX);
	int n = 0;

	for (; *all; all++)
		if (perm_kinds[perm_find(*all)].scope == KEY_DATA)
			list[n++] = *all;
	return list;
}

int
key_check_scopes(struct request *r, const char *const *scopes)
{
	enum perm p;
	bool own;

	for (; *scopes; scopes++) {
		p = perm_find(*scopes);
		if (p == PERM__MAX || !perm_kinds[p].scope)
			return fail(r, E_BAD_INPUT, "\"scopes\" has none of the known ones: %.60s",
			    *scopes);
		if (!role_holds(r->who.role, p, &own))
			return fail(r, E_FORBIDDEN, "the role %s does not include %.60s",
			    r->who.role, *scopes);
	}
	return 0;
}

int
key_within_count(struct request *r)
{
	struct q_key_counts *n;

	if (one_at_a_time(r, "keys of", r->who.team) < 0 ||
	    one_at_a_time(r, "keys of", r->who.user) < 0 ||
	    q_key_count(r->work.db, &n, .team = r->who.team, .user = r->who.user) < 0)
		return -1;
	if (n->team >= TEAM_KEYS)
		return fail(r, E_QUOTA, "the team has %d live keys, at most %d are allowed",
		    (int)n->team, TEAM_KEYS);
	if (n->mine >= USER_KEYS)
		return fail(r, E_QUOTA,
		    "you have %d live keys in all teams, at most %d are allowed", (int)n->mine,
		    USER_KEYS);
	return 0;
}

int
key_audit(struct request *r, enum audit_kind kind, const struct q_key *k, const char *extra)
{
	struct buf b = BUF(r), data = BUF(r);
	const char *id = id_text(r, "key-", k->id);

	buf_str(&b, "{\"name\":");
	buf_json(&b, k->name);
	buf_fmt(&b, "%s}", extra);
	buf_fmt(&data, "{\"key_id\":\"%s\",\"name\":", id);
	buf_json(&data, k->name);
	buf_chr(&data, '}');
	return audit_add(&r->work, kind,
	    &(struct audit){ .team = r->who.team,
		.resource_id = id,
		.subject = k->created_by,
		.metadata = b.data,
		.data = data.data });
}

const char *
key_texts(struct request *r, const char *name, const char *const *list)
{
	struct buf b = BUF(r);
	const char *const *t;

	buf_fmt(&b, ",\"%s\":[", name);
	for (t = list; *t; t++) {
		if (t > list)
			buf_chr(&b, ',');
		buf_json(&b, *t);
	}
	buf_chr(&b, ']');
	return b.data;
}

/* When a new key ends: as asked, and not after keys.max_age. NULL_INT: never. -1: not possible. */
static int64_t
end_of(struct request *r, const struct key_create *in)
{
	int64_t now = (int64_t)time(NULL) * 1000000, end = NULL_INT,
		most = r->app->conf->keys_max_age;

	if (in->expires_at && in->expires_in)
		return fail(r, E_BAD_INPUT, "\"expires_in\" and \"expires_at\" exclude each other");
	if (in->expires_in)
		end = now + in->expires_in * 1000000;
	if (in->expires_at && (!time_read(in->expires_at, &end) || end <= now))
		return fail(r, E_BAD_INPUT, "\"expires_at\" is not in the future");
	if (most && (end == NULL_INT || end > now + most * 1000000))
		end = now + most * 1000000;
	return end;
}

static int
key_create(struct request *r)
{
	const struct key_create *in = r->in;
	const char *const *scopes = in->scopes ? in->scopes : default_scopes(r);
	struct q_key k = { .kind = in->kind,
		.name = in->name && strspn(in->name, " ") < strlen(in->name) ? in->name
									     : "Unnamed API Key",
		.description = in->description,
		.scopes = scopes,
		.allowed_ips = in->allowed_ips,
		.rate_limit = in->rate_limit,
		.expires_at = end_of(r, in) };
	struct key_made made;

	if (k.expires_at == -1)
		return -1;
	if (strcmp(in->kind, "team") == 0 && !key_sees_all(r))
		return fail(r, E_FORBIDDEN, "a key of kind team needs the permission keys.manage");
	if (key_check_scopes(r, scopes) < 0 || key_within_count(r) < 0 ||
	    key_make(r, &k, in->prefix, &made) < 0)
		return -1;
	if (key_audit(r, AUDIT_API_KEY_CREATE, &made.row,
		talloc_asprintf(
		    r, ",\"kind\":\"%s\"%s", in->kind, key_texts(r, "scopes", scopes))) < 0)
		return -1;
	return reply_row(r, 1, &made);
}

int
key_make(struct request *r, const struct q_key *k, const char *word, struct key_made *made)
{
	struct uuid id = uuid_new();
	uint8_t hash[HASH_SIZE];
	struct q_key *row;

	made->key = apikey_new(r, word);
	(void)apikey_hash(made->key, hash);
	if (q_key_insert(r->work.db, .id = &id, .team = r->who.team, .kind = k->kind,
		.user = r->who.user, .name = k->name, .description = k->description,
		.hash = { hash, sizeof hash },
		.prefix = talloc_strndup(r, made->key, strlen(word) + 7), .scopes = k->scopes,
		.expires_at = k->expires_at, .rate_limit = k->rate_limit,
		.allowed_ips = k->allowed_ips) < 0)
		return -1;
	if (q_key_get(r->work.db, &row, .id = &id, .team = r->who.team, .everybody = true,
		.user = r->who.user) <= 0)
		return -1;
	made->row = *row;
	return 0;
}

static int
key_list(struct request *r)
{
	const struct key_page *in = r->in;
	struct q_key *keys;
	struct page p;
	int n;

	if (page_read(r, in->limit, in->cursor, &p) < 0)
		return -1;
	n = q_key_list(r->work.db, &keys, .team = r->who.team, .everybody = key_sees_all(r),
	    .user = r->who.user, .kind = in->kind, .state = in->state, .creator = in->creator,
	    .before = p.before, .before_id = p.before_id, .limit = p.limit + 1);
	return page_reply(r, n, keys, sizeof *keys, &p, offsetof(struct q_key, created_at),
	    offsetof(struct q_key, id));
}

int
key_find(struct request *r, struct q_key **row)
{
	const struct by_key *in = r->in; /* each input of a path with {id} begins with it */
	int n = q_key_get(r->work.db, row, .id = in->id, .team = r->who.team,
	    .everybody = key_sees_all(r), .user = r->who.user);

	return n < 0 ? -1 : n ? 0 : fail(r, E_NOT_FOUND, "no such object, or not yours");
}

static int
key_get(struct request *r)
{
	struct q_key *row;

	return key_find(r, &row) < 0 ? -1 : reply_row(r, 1, row);
}

static int
key_delete(struct request *r)
{
	struct q_key *row;
	int n;

	if (key_find(r, &row) < 0)
		return -1;
	/* a CLI's key would come back with its next question: its row says that it is over */
	n = strcmp(row->kind, "cli") == 0
	    ? q_key_revoke(r->work.db, .id = row->id, .team = r->who.team)
	    : q_key_delete(r->work.db, .id = row->id, .team = r->who.team);
	if (n > 0 && key_audit(r, AUDIT_API_KEY_REVOKE, row, ",\"reason\":\"delete\"") < 0)
		return -1;
	return reply_done(r, n);
}

static int
key_revoke(struct request *r)
{
	struct q_key *row;
	int n;

	if (key_find(r, &row) < 0)
		return -1;
	n = q_key_revoke(r->work.db, .id = row->id, .team = r->who.team);
	if (n < 0)
		return -1;
	if (n == 0)
		return fail(r, E_BAD_STATE, "the key was revoked before");
	if (key_audit(r, AUDIT_API_KEY_REVOKE, row, ",\"reason\":\"revoke\"") < 0)
		return -1;
	return key_get(r);
}
