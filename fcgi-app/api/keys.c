/*
 * keys.c - API keys: how programs prove who they are (spec 01 §2.7).
 *
 * Queries: sql/queries/keys.sql.  Tests: tests/http/keys.t.
 */
#include "api.h"
#include "audit.h"
#include "cleanup.h"
#include "keys.q.h"

#include <string.h>
#include <time.h>

static handler key_create, key_list, key_get, key_delete, key_revoke;

enum { TEAM_KEYS = 100, USER_KEYS = 25 };

struct key_create {
	const char *name, *description, *kind, *prefix;
	const char *const *scopes;
	int64_t expires_in;
};
static const struct field key_create_fields[] = {
	FIELD(key_create, name, "name", .max = 100, .format = "person"),
	FIELD(key_create, description, "description", .max = 500, .text = ""),
	FIELD(key_create, kind, "kind", .text = "personal", .one_of = "personal|team"),
	FIELD(key_create, scopes, "scopes", .min = 1, .max = 64,
	    .doc = "Default: the whole data plane that the caller may use."),
	FIELD(key_create, expires_in, "expires_in", .max = 315360000,
	    .doc = "Seconds; absent or 0: never."),
	FIELD(key_create, prefix, "prefix", .text = "htc", .one_of = "htc|e2b|wrn",
	    .doc = "Decoration: only the digits count."),
	{ 0 },
};

struct key_page {
	int32_t limit;
	const char *cursor;
};
static const struct field key_page_fields[] = { PAGE_FIELDS(key_page), { 0 } };

struct by_key {
	const struct uuid *id;
};
static const struct field by_key_fields[] = { PATH_ID(by_key, "key-"), { 0 } };

#define KEY_COMMON(st)                                                                   \
	FIELD(st, id, "id", .flags = NEEDED, .prefix = "key-"),                          \
	    FIELD(st, team_id, "team_id", .flags = NEEDED, .prefix = "team-"),           \
	    FIELD(st, name, "name", .flags = NEEDED),                                    \
	    FIELD(st, key_prefix, "key_prefix", .flags = NEEDED),                        \
	    FIELD(st, created_by, "created_by", .flags = NEEDED, .prefix = "usr-"),      \
	    FIELD(st, creator_email, "creator_email", .flags = OMIT),                    \
	    FIELD(st, created_at, "created_at", .flags = NEEDED, .format = "date-time"), \
	    FIELD(st, last_used_at, "last_used", .flags = OMIT, .format = "date-time"),  \
	    FIELD(st, kind, "kind", .flags = NEEDED),                                    \
	    FIELD(st, description, "description", .flags = NEEDED),                      \
	    FIELD(st, scopes, "scopes", .flags = NEEDED),                                \
	    FIELD(st, expires_at, "expires_at", .format = "date-time"),                  \
	    FIELD(st, revoked_at, "revoked_at", .format = "date-time"),                  \
	    FIELD(st, state, "state", .flags = NEEDED, .one_of = "active|expired|revoked")

static const struct field key_fields[] = { KEY_COMMON(q_key), { 0 } };

struct key_made {
	struct q_key row;
	const char *key;
};
static const struct field key_made_fields[] = {
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

static bool
sees_all(const struct request *r)
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
		if (perm_kinds[perm_find(*all)].scope)
			list[n++] = *all;
	return list;
}

static int
check_scopes(struct request *r, const char *const *scopes)
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

static int
within_count(struct request *r)
{
	struct q_key_counts *n;

	if (q_key_count(r->work.db, &n, .team = r->who.team, .user = r->who.user) < 0)
		return -1;
	if (n->team >= TEAM_KEYS)
		return fail(r, E_QUOTA, "the team has %d live keys, at most %d are allowed",
		    (int)n->team, TEAM_KEYS);
	if (n->mine >= USER_KEYS)
		return fail(r, E_QUOTA,
		    "you have %d live keys in this team, at most %d are allowed", (int)n->mine,
		    USER_KEYS);
	return 0;
}

static int
audit_key(struct request *r, enum audit_kind kind, const struct uuid *id, const char *name,
    const char *extra)
{
	struct buf b = BUF(r);

	buf_str(&b, "{\"name\":");
	buf_json(&b, name);
	buf_str(&b, extra);
	buf_chr(&b, '}');
	return audit_add(&r->work, kind,
	    &(struct audit){
		.team = r->who.team, .resource_id = id_text(r, "key-", id), .metadata = b.data });
}

static int
key_create(struct request *r)
{
	const struct key_create *in = r->in;
	const char *const *scopes = in->scopes ? in->scopes : default_scopes(r);
	const char *name =
	    in->name && strspn(in->name, " ") < strlen(in->name) ? in->name : "Unnamed API Key";
	struct uuid id = uuid_new();
	struct key_made made;
	uint8_t hash[HASH_SIZE];
	struct q_key *row;
	int n;

	if (strcmp(in->kind, "team") == 0 && !sees_all(r))
		return fail(r, E_FORBIDDEN, "a key of kind team needs the permission keys.manage");
	if (check_scopes(r, scopes) < 0 || within_count(r) < 0)
		return -1;
	made.key = apikey_new(r, in->prefix);
	(void)apikey_hash(made.key, hash);
	if (q_key_insert(r->work.db, .id = &id, .team = r->who.team, .kind = in->kind,
		.user = r->who.user, .name = name, .description = in->description,
		.hash = { hash, sizeof hash },
		.prefix = talloc_strndup(r, made.key, strlen(in->prefix) + 7), .scopes = scopes,
		.expires_at = in->expires_in
		    ? (int64_t)time(NULL) * 1000000 + in->expires_in * 1000000
		    : NULL_INT) < 0)
		return -1;
	n = q_key_get(r->work.db, &row, .id = &id, .team = r->who.team, .everybody = true,
	    .user = r->who.user);
	if (n <= 0)
		return -1;
	made.row = *row;
	if (audit_key(r, AUDIT_API_KEY_CREATE, &id, name, "") < 0)
		return -1;
	return reply_row(r, 1, &made);
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
	n = q_key_list(r->work.db, &keys, .team = r->who.team, .everybody = sees_all(r),
	    .user = r->who.user, .before = p.before, .before_id = p.before_id,
	    .limit = p.limit + 1);
	return page_reply(r, n, keys, sizeof *keys, &p, offsetof(struct q_key, created_at),
	    offsetof(struct q_key, id));
}

static int
find(struct request *r, struct q_key **row)
{
	const struct by_key *in = r->in;
	int n = q_key_get(r->work.db, row, .id = in->id, .team = r->who.team,
	    .everybody = sees_all(r), .user = r->who.user);

	return n < 0 ? -1 : n ? 0 : fail(r, E_NOT_FOUND, "no such object, or not yours");
}

static int
key_get(struct request *r)
{
	struct q_key *row;

	return find(r, &row) < 0 ? -1 : reply_row(r, 1, row);
}

static int
key_delete(struct request *r)
{
	struct q_key *row;
	int n;

	if (find(r, &row) < 0)
		return -1;
	n = q_key_delete(r->work.db, .id = row->id, .team = r->who.team);
	if (n > 0 &&
	    audit_key(r, AUDIT_API_KEY_REVOKE, row->id, row->name, ",\"reason\":\"delete\"") < 0)
		return -1;
	return reply_done(r, n);
}

static int
key_revoke(struct request *r)
{
	struct q_key *row;
	int n;

	if (find(r, &row) < 0)
		return -1;
	n = q_key_revoke(r->work.db, .id = row->id, .team = r->who.team);
	if (n < 0)
		return -1;
	if (n == 0)
		return fail(r, E_BAD_STATE, "the key was revoked before");
	if (audit_key(r, AUDIT_API_KEY_REVOKE, row->id, row->name, ",\"reason\":\"revoke\"") < 0)
		return -1;
	return key_get(r);
}
