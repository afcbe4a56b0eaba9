/*
 * storage.c - storage connections: buckets of the person's own or of the team (spec 05 §5.4).
 *
 * A connection is tested before it is stored. Its secret goes in and never comes out. Members have
 * their own; the team's are its admins' business. Queries: sql/queries/storage.sql.  Tests:
 * tests/jobs/storage.py.
 */
#include "api.h"
#include "audit.h"
#include "cleanup.h"
#include "job.h"
#include "json.h"
#include "s3.h"
#include "storage.q.h"
#include "storage_seal.h"

#include <string.h>

static handler list, create, get, patch, remove_it;

/* The row, and whose it is. */
struct connection {
	struct q_connection row;
	const char *owner;
};
static const struct field connection_fields[] = {
	FIELD(q_connection, id, "id", .flags = NEEDED, .prefix = "cn-"),
	FIELD(connection, owner, "owner", .flags = NEEDED, .one_of = "user|team"),
	FIELD(q_connection, name, "name", .flags = NEEDED),
	FIELD(q_connection, endpoint, "endpoint", .flags = NEEDED),
	FIELD(q_connection, region, "region", .flags = NEEDED),
	FIELD(q_connection, bucket, "bucket", .flags = NEEDED),
	FIELD(q_connection, prefix, "prefix", .flags = NEEDED),
	FIELD(q_connection, path_style, "path_style", .flags = NEEDED),
	FIELD(q_connection, access_key_id, "access_key_id", .flags = NEEDED),
	FIELD(q_connection, status, "status", .flags = NEEDED, .one_of = "ok|failing|unknown"),
	FIELD(q_connection, checked_at, "checked_at", .format = "date-time"),
	FIELD(q_connection, last_error, "last_error", .flags = OMIT),
	FIELD(q_connection, created_at, "created_at", .flags = NEEDED, .format = "date-time"),
	{ 0 },
};

struct connection_page {
	int32_t limit;
	const char *cursor;
};
static const struct field connection_page_fields[] = { PAGE_FIELDS(connection_page), { 0 } };

/* One struct for POST and PATCH. */
struct wish {
	const struct uuid *id;
	const char *owner, *name, *endpoint, *region, *bucket, *prefix, *access_key_id, *secret;
	bool path_style;
};
#define SECRET_DOC "Kept encrypted; no answer ever has it."
static const struct field create_fields[] = {
	FIELD(wish, owner, "owner", .text = "user", .one_of = "user|team"),
	FIELD(wish, name, "name", .flags = NEEDED, .format = "name"),
	FIELD(wish, endpoint, "endpoint", .flags = NEEDED, .max = 255,
	    .doc = "https://HOST or https://HOST:PORT"),
	FIELD(wish, region, "region", .text = "us-east-1", .min = 1, .max = 63),
	FIELD(wish, bucket, "bucket", .flags = NEEDED, .min = 3, .max = 63),
	FIELD(wish, prefix, "prefix", .text = "", .max = 255),
	FIELD(wish, path_style, "path_style", .dflt = true,
	    .doc = "ENDPOINT/BUCKET/KEY, not BUCKET.ENDPOINT/KEY."),
	FIELD(wish, access_key_id, "access_key_id", .flags = NEEDED, .min = 1, .max = 128),
	FIELD(wish, secret, "secret_access_key", .flags = NEEDED | WRITE_ONLY, .min = 1, .max = 256,
	    .doc = SECRET_DOC),
	{ 0 },
};
static const struct field patch_fields[] = {
	PATH_ID(wish, "cn-"),
	FIELD(wish, name, "name", .format = "name"),
	FIELD(wish, endpoint, "endpoint", .max = 255),
	FIELD(wish, region, "region", .min = 1, .max = 63),
	FIELD(wish, bucket, "bucket", .min = 3, .max = 63),
	FIELD(wish, prefix, "prefix", .max = 255),
	FIELD(wish, path_style, "path_style"),
	FIELD(wish, access_key_id, "access_key_id", .min = 1, .max = 128),
	FIELD(wish, secret, "secret_access_key", .flags = WRITE_ONLY, .min = 1, .max = 256,
	    .doc = SECRET_DOC),
	{ 0 },
};

struct by_connection {
	const struct uuid *id;
	const char *objects;
};
static const struct field by_connection_fields[] = { PATH_ID(by_connection, "cn-"), { 0 } };
static const struct field remove_fields[] = {
	PATH_ID(by_connection, "cn-"),
	FIELD(by_connection, objects, "objects", .flags = IN_QUERY, .text = "keep",
	    .one_of = "keep|delete", .doc = "Whether the objects in the bucket go, too."),
	{ 0 },
};
struct removal {
	const struct uuid *job_id;
};
static const struct field removal_fields[] = {
	FIELD(removal, job_id, "job_id", .flags = NEEDED, .prefix = "job-"),
	{ 0 },
};

/* clang-format off */
const struct route storage_routes[] = {
	{ "GET", "/v1/storage/connections", POOL_API, SIGNED_IN, list, "Storage connections: one's own, and the team's for its admins", LISTS, 200, IN(connection_page), OUT(connection) },
	{ "POST", "/v1/storage/connections", POOL_OPS, SIGNED_IN, create, "Connect a bucket, after a test", CREATES, 201, .in = create_fields, .insize = sizeof(struct wish), OUT(connection) },
	{ "GET", "/v1/storage/connections/{id}", POOL_API, SIGNED_IN, get, "A storage connection", 0, 200, IN(by_connection), OUT(connection) },
	{ "PATCH", "/v1/storage/connections/{id}", POOL_OPS, SIGNED_IN, patch, "Change a storage connection, after a test", 0, 200, .in = patch_fields, .insize = sizeof(struct wish), OUT(connection) },
	{ "DELETE", "/v1/storage/connections/{id}", POOL_API, SIGNED_IN, remove_it, "Delete a storage connection, its credentials last", 0, 202, .in = remove_fields, .insize = sizeof(struct by_connection), OUT(removal) },
	{ 0 },
};
/* clang-format on */

enum { PROBE_MS = 2000 };

/* The team whose connections the caller sees, or NULL: only his own. */
static const struct uuid *
managed_team(const struct request *r)
{
	struct err ignored = { 0 };

	return principal_allowed(&r->who, PERM_storage_manage, &ignored) == ALLOW_ALL ? r->who.team
										      : NULL;
}

/* Whose own rows the transaction sees. A read opens one for it, which ends with the request. */
static int
as_person(struct request *r)
{
	if (!db_in_transaction(r->work.db))
		db_begin(r->work.db);
	return q_person_is(r->work.db, .user = r->who.user) < 0 ? -1 : 0;
}

static struct connection
shaped(const struct q_connection *row)
{
	return (struct connection){ *row, row->user_id ? "user" : "team" };
}

/* 0, or E_NOT_FOUND: nobody's, somebody else's. */
static int
find(struct request *r, const struct uuid *id, struct q_connection **c)
{
	int n;

	if (as_person(r) < 0)
		return -1;
	n = q_connection_get(r->work.db, c, .id = id, .team = managed_team(r), .user = r->who.user);
	return n < 0 ? -1 : n ? 0 : fail(r, E_NOT_FOUND, "no such object, or not yours");
}

static int
reply_one(struct request *r, const struct uuid *id)
{
	struct q_connection *row;
	struct connection c;

	if (find(r, id, &row) < 0)
		return -1;
	c = shaped(row);
	return reply_row(r, 1, &c);
}

static int
get(struct request *r)
{
	return reply_one(r, ((const struct by_connection *)r->in)->id);
}

static int
list(struct request *r)
{
	const struct connection_page *in = r->in;
	struct q_connection *rows;
	struct connection *all;
	struct page p;
	int n, i;

	if (page_read(r, in->limit, in->cursor, &p) < 0 || as_person(r) < 0)
		return -1;
	n = q_connection_list(r->work.db, &rows, .team = managed_team(r), .user = r->who.user,
	    .before = p.before, .before_id = p.before_id, .limit = p.limit + 1);
	if (n < 0)
		return -1;
	all = talloc_array(r, struct connection, n + 1);
	for (i = 0; i < n; i++)
		all[i] = shaped(&rows[i]);
	return page_reply(r, n, all, sizeof *all, &p, offsetof(struct q_connection, created_at),
	    offsetof(struct q_connection, id));
}

/* --- make and change ------------------------------------------------------------------------- */

/* Nothing is stored that did not work a moment ago. */
static int
test(struct request *r, const struct wish *w)
{
	struct s3 s = { r->app->conf, w->endpoint, w->region, w->bucket, w->prefix, w->path_style,
		w->access_key_id, w->secret, PROBE_MS };
	struct err why = { 0 };
	const char *step;

	if (s3_check(&s, &r->work.err) < 0)
		return -1;
	if (s3_probe(r, &s, &step, &why) == 0)
		return 0;
	return fail(r, E_BAD_INPUT, "the store failed the test \"%s\": %.150s", step,
	    why.code == E_HTTP && !strchr(why.text, '/') ? why.text : err_kinds[why.code].text);
}

static int
name_taken(struct request *r)
{
	if (r->work.err.code == E_CONFLICT) {
		r->work.err = (struct err){ 0 };
		fail(r, E_CONFLICT, "there is a connection of this name");
	}
	return -1;
}

static int
audit_connection(
    struct request *r, enum audit_kind kind, const struct uuid *team, const struct uuid *id)
{
	const char *text = id_text(r, "cn-", id);

	return audit_add(&r->work, kind,
	    &(struct audit){ .team = team,
		.resource_id = text,
		.subject = team ? NULL : r->who.user,
		.metadata = "{\"provider\":\"s3\"}",
		.data = talloc_asprintf(
		    r, "{\"connection_id\":\"%s\",\"providers\":[\"s3\"]}", text) });
}

static int
create(struct request *r)
{
	const struct wish *in = r->in;
	bool own = strcmp(in->owner, "user") == 0;
	const struct uuid *team = own ? NULL : r->who.team;
	struct uuid id = uuid_new();

	if (principal_allowed(&r->who, own ? PERM_capsules_create : PERM_storage_manage,
		&r->work.err) == ALLOW_NO ||
	    test(r, in) < 0 || as_person(r) < 0)
		return -1;
	if (q_connection_insert(r->work.db, .id = &id, .team = team,
		.user = own ? r->who.user : NULL, .name = in->name, .endpoint = in->endpoint,
		.region = in->region, .bucket = in->bucket, .prefix = in->prefix,
		.path_style = in->path_style, .access_key_id = in->access_key_id,
		.secret_enc = storage_seal(r, r->app->keys, &id, in->secret)) < 0)
		return name_taken(r);
	if (audit_connection(r, AUDIT_STORAGE_CREATE, team, &id) < 0)
		return -1;
	return reply_one(r, &id);
}

/* What is not given stays as it is, the secret too; a new one replaces one that cannot be opened.
 */
static int
merge(struct request *r, const struct wish *in, const struct q_connection_secret *c, struct wish *w)
{
	struct s3 now = { 0 };

	if (!in->secret && storage_open(r, r->app->conf, r->app->keys, c, &now, &r->work.err) < 0)
		return -1;
	*w = (struct wish){ .id = in->id,
		.name = in->name ? in->name : c->name,
		.endpoint = in->endpoint ? in->endpoint : c->endpoint,
		.region = in->region ? in->region : c->region,
		.bucket = in->bucket ? in->bucket : c->bucket,
		.prefix = in->prefix ? in->prefix : c->prefix,
		.access_key_id = in->access_key_id ? in->access_key_id : c->access_key_id,
		.secret = in->secret ? in->secret : now.secret,
		.path_style = json_get(r->body, "path_style") ? in->path_style : c->path_style };
	return 0;
}

static int
patch(struct request *r)
{
	const struct wish *in = r->in;
	struct q_connection_secret *c;
	struct q_connection *row;
	struct wish w;

	if (find(r, in->id, &row) < 0 || q_connection_open(r->work.db, &c, .id = in->id) <= 0 ||
	    merge(r, in, c, &w) < 0 || test(r, &w) < 0)
		return -1;
	if (q_connection_update(r->work.db, .id = in->id, .name = w.name, .endpoint = w.endpoint,
		.region = w.region, .bucket = w.bucket, .prefix = w.prefix,
		.path_style = w.path_style, .access_key_id = w.access_key_id,
		.secret_enc = storage_seal(r, r->app->keys, in->id, w.secret)) < 0)
		return name_taken(r);
	if (audit_connection(r, AUDIT_STORAGE_UPDATE, row->team_id, in->id) < 0)
		return -1;
	return reply_one(r, in->id);
}

/* From here on nobody sees it; a job deletes the objects, if wanted, and then the credentials. */
static int
remove_it(struct request *r)
{
	const struct by_connection *in = r->in;
	const char *id = id_text(r, "cn-", in->id);
	struct q_connection *row;
	struct uuid job;
	const struct removal out = { &job };

	if (find(r, in->id, &row) < 0 ||
	    q_connection_ending(
		r->work.db, .id = in->id, .objects = strcmp(in->objects, "delete") == 0) < 0 ||
	    job_add(&r->work,
		&(struct job_new){ .kind = "storage.delete",
		    .team = row->team_id,
		    .args = talloc_asprintf(r, "{\"connection\":\"%s\"}", id),
		    .unique_key = id,
		    .lock_key = id },
		&job, NULL) < 0 ||
	    audit_connection(r, AUDIT_STORAGE_DELETE, row->team_id, in->id) < 0)
		return -1;
	return reply_with(r, r->route->out, &out);
}
