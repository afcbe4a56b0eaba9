/*
 * files.c - POST …/files/list, stat, mkdir, move, remove: what is on a capsule's disk (spec 02
 * §2.6).
 *
 * File contents go through transfer.c.
 */
#include "back.h"
#include "files.h"
#include "cleanup.h"
#include "crypto.h"
#include "json.h"
#include "route.h"
#include "transfer.h"

#include <inttypes.h>
#include <string.h>

static handler file_list, file_stat, file_mkdir, file_move, file_remove;

enum { PATH_CHARS = 4096, LIST_MAX = 10000, DEPTH_MAX = 32 };

struct list_in {
	const char *path, *cursor;
	int64_t depth, limit;
};
struct move_in {
	const char *source, *destination;
	bool overwrite;
};
/* clang-format off */
#define PATH_DOC "Absolute, ~, ~/x, or relative to the user's home."

static const struct field by_path_fields[] = {
	FIELD(by_path, path, "path", .flags = NEEDED, .min = 1, .max = PATH_CHARS, .doc = PATH_DOC),
	{ 0 },
};
static const struct field list_in_fields[] = {
	FIELD(list_in, path, "path", .flags = NEEDED, .min = 1, .max = PATH_CHARS, .doc = PATH_DOC),
	FIELD(list_in, depth, "depth", .max = DEPTH_MAX, .dflt = 1, .doc = "How deep to go; 0 is 1."),
	FIELD(list_in, limit, "limit", .min = 1, .max = LIST_MAX, .dflt = LIST_MAX),
	FIELD(list_in, cursor, "cursor", .max = 3 * PATH_CHARS, .doc = "next of the page before."),
	{ 0 },
};
static const struct field move_in_fields[] = {
	FIELD(move_in, source, "source", .flags = NEEDED, .min = 1, .max = PATH_CHARS, .doc = PATH_DOC),
	FIELD(move_in, destination, "destination", .flags = NEEDED, .min = 1, .max = PATH_CHARS, .doc = "Parents are made."),
	FIELD(move_in, overwrite, "overwrite", .doc = "Replace what is at the destination."),
	{ 0 },
};

struct entry {
	const char *name, *path, *type, *kind, *permissions, *owner, *group, *modified_at, *symlink_target;
	int64_t size, mode;
};
static const struct field entry_fields[] = {
	FIELD(entry, name, "name"),
	FIELD(entry, path, "path"),
	FIELD(entry, type, "type", .flags = OMIT, .one_of = "file|directory|symlink", .doc = "A link that resolves shows its target's."),
	FIELD(entry, kind, "kind", .flags = OMIT, .one_of = "fifo|socket|char|block", .doc = "Where type is absent."),
	FIELD(entry, size, "size"),
	FIELD(entry, mode, "mode", .doc = "The bits 07777."),
	FIELD(entry, permissions, "permissions"),
	FIELD(entry, owner, "owner"),
	FIELD(entry, group, "group"),
	FIELD(entry, modified_at, "modified_at", .format = "date-time"),
	FIELD(entry, symlink_target, "symlink_target", .flags = OMIT),
	{ 0 },
};

struct entry_out {
	struct entry *entry;
};
static const struct field entry_out_fields[] = {
	SUB(entry_out, entry, "entry", entry_fields, entry),
	{ 0 },
};
struct list_out {
	struct list entries;
	const char *next;
};
static const struct field list_out_fields[] = {
	SUB(list_out, entries, "entries", entry_fields, entry, .flags = LIST),
	FIELD(list_out, next, "next", .flags = OMIT, .doc = "cursor of the next page."),
	{ 0 },
};

static const struct field content_fields[] = {
	FIELD(content, path, "path", .flags = IN_QUERY | NEEDED, .min = 1, .max = 4096),
	FIELD(content, download, "download", .flags = IN_QUERY, .doc = "Saved, not shown; true, or the name it is saved as."),
	{ 0 },
};

#define ROWS(verb, ...) CAPSULE_ROUTES("POST", "files/" verb, PERM_capsules_connect, __VA_ARGS__)

const struct route file_routes[] = {
	ROWS("list", file_list, "List a directory", 0, 200, IN(list_in), OUT(list_out)),
	ROWS("stat", file_stat, "One entry", 0, 200, IN(by_path), OUT(entry_out)),
	ROWS("mkdir", file_mkdir, "Make a directory and its parents", 0, 200, IN(by_path), OUT(entry_out)),
	ROWS("move", file_move, "Move or rename", 0, 200, IN(move_in), OUT(entry_out)),
	ROWS("remove", file_remove, "Remove, recursively", 0, 204, IN(by_path)),
	ROWS("read", transfer_read, "Read a file, or a range of it", STREAMS, 200, .also = 206, IN(by_path)),
	{ "GET", "/v1/capsules/{id}/files/content", POOL_GATEWAY, PERM_capsules_connect, transfer_content,
	    "A file for a browser; a ticket of the purpose files opens it", STREAMS, 200, .also = 206, .in = content_fields, .insize = sizeof(struct content), .ticket = "files" },
	{ "GET", "/v1/admin/capsules/{id}/files/content", POOL_GATEWAY, PLATFORM_ADMIN, transfer_content,
	    "A file for a browser; the Platform's capsules", STREAMS | OF_PLATFORM, 200, .also = 206, .in = content_fields, .insize = sizeof(struct content) },
	ROWS("write", transfer_write, "Write a file (multipart: path, file; mode, owner, mtime, if_absent)", STREAMS, 204),
	ROWS("stream/read", transfer_read, "Read a file as a stream", STREAMS, 200, .also = 206, IN(by_path)),
	ROWS("stream/write", transfer_write_stream, "Write a file as a stream (multipart, path first)", STREAMS, 204),
	{ 0 },
};

static const struct {
	const char *theirs, *ours;
} types[] = {
	{ "FILE_TYPE_FILE", "file" }, { "FILE_TYPE_DIRECTORY", "directory" }, { "FILE_TYPE_SYMLINK", "symlink" },
};
/* clang-format on */

static void
put_text(struct buf *b, const char *name, const char *value)
{
	if (!value)
		return;
	buf_fmt(b, "%s\"%s\":", b->data[b->len - 1] == '{' ? "" : ",", name);
	buf_json(b, value);
}

/* int64 comes as text. */
void
file_entry_put(struct buf *b, struct json_object *e)
{
	const char *type = json_str(e, "type", "");
	const char *size = json_str(e, "size", NULL);

	buf_chr(b, '{');
	put_text(b, "name", json_str(e, "name", ""));
	put_text(b, "path", json_str(e, "path", ""));
	for (size_t i = 0; i < nitems(types); i++)
		if (strcmp(types[i].theirs, type) == 0)
			put_text(b, "type", types[i].ours);
	put_text(b, "kind", json_str(e, "kind", NULL));
	buf_str(b, ",\"size\":");
	buf_int(b, size ? strtoll(size, NULL, 10) : json_int(e, "size", 0));
	buf_fmt(b, ",\"mode\":%" PRId64, json_int(e, "mode", 0) & 07777);
	put_text(b, "permissions", json_str(e, "permissions", ""));
	put_text(b, "owner", json_str(e, "owner", ""));
	put_text(b, "group", json_str(e, "group", ""));
	put_text(b, "modified_at", json_str(e, "modifiedTime", NULL));
	put_text(b, "symlink_target", json_str(e, "symlinkTarget", NULL));
	buf_chr(b, '}');
}

static bool
good(struct request *r, int status, struct json_object *json)
{
	if (status == 200 && json)
		return true;
	guest_refused(r, status == 200 ? 502 : status, json);
	reply_error(r);
	return false;
}

/* {"entry":…} becomes {"entry":…}; a call without one becomes 204. */
static void
answered(struct request *r, void *arg, int status, struct json_object *json)
{
	struct json_object *entry = json ? json_get(json, "entry") : NULL;
	struct buf b = BUF(r);

	(void)arg;
	if (!good(r, status, json))
		return;
	if (r->route->status == 204) {
		reply_empty(r, 204);
		return;
	}
	buf_str(&b, "{\"entry\":");
	file_entry_put(&b, entry);
	buf_chr(&b, '}');
	reply_json(r, 200, &b);
}

static int
ask_path(struct request *r, const char *method, const char *more)
{
	const struct by_path *in = r->in;
	struct buf b = BUF(r);

	buf_str(&b, "{\"path\":");
	buf_json(&b, in->path);
	buf_str(&b, more);
	buf_chr(&b, '}');
	guest_ask(r, r, method, NULL, &b, GUEST_MS, answered, NULL);
	return 0;
}

static int
file_stat(struct request *r)
{
	return ask_path(r, "/filesystem.Filesystem/Stat", "");
}

static int
file_mkdir(struct request *r)
{
	return ask_path(r, "/filesystem.Filesystem/MakeDir", "");
}

static int
file_remove(struct request *r)
{
	return ask_path(r, "/filesystem.Filesystem/Remove", ",\"must_exist\":true");
}

static int
file_move(struct request *r)
{
	const struct move_in *in = r->in;
	struct buf b = BUF(r);

	buf_str(&b, "{\"source\":");
	buf_json(&b, in->source);
	buf_str(&b, ",\"destination\":");
	buf_json(&b, in->destination);
	buf_fmt(&b, ",\"overwrite\":%s}", in->overwrite ? "true" : "false");
	guest_ask(r, r, "/filesystem.Filesystem/Move", NULL, &b, GUEST_MS, answered, NULL);
	return 0;
}

/* ---- list: the guest gives the whole directory, we give pages of it, ordered by path */

static const char *
entry_path(struct json_object *e)
{
	return json_str(e, "path", "");
}

static int
by_entry_path(const void *a, const void *b)
{
	return strcmp(entry_path(*(struct json_object *const *)a),
	    entry_path(*(struct json_object *const *)b));
}

/* The cursor is the last path of the page before, in base64url. NULL: bad. */
static const char *
cursor_path(struct request *r, const char *cursor)
{
	struct bytes b = { 0 };

	if (!cursor || !*cursor)
		return "";
	b = base64url_read(r, cursor);
	return b.p ? talloc_strndup(r, (const char *)b.p, b.n) : NULL;
}

static void
listed(struct request *r, void *arg, int status, struct json_object *json)
{
	const struct list_in *in = r->in;
	const char *after = arg;
	struct json_object *list = json ? json_get(json, "entries") : NULL;
	size_t n = 0, i = 0, given = 0;
	struct buf b = BUF(r);

	if (!good(r, status, json))
		return;
	buf_str(&b, "{\"entries\":[");
	if (list && json_object_is_type(list, json_type_array)) {
		json_object_array_sort(list, by_entry_path);
		n = json_object_array_length(list);
	}
	while (i < n && strcmp(entry_path(json_object_array_get_idx(list, i)), after) <= 0)
		i++;
	for (; i < n && given < (size_t)in->limit; i++, given++) {
		if (given)
			buf_chr(&b, ',');
		file_entry_put(&b, json_object_array_get_idx(list, i));
	}
	buf_chr(&b, ']');
	if (i < n) {
		const char *last = entry_path(json_object_array_get_idx(list, i - 1));

		buf_str(&b, ",\"next\":");
		buf_json(&b, base64url_write(r, last, strlen(last)));
	}
	buf_chr(&b, '}');
	reply_json(r, 200, &b);
}

static int
file_list(struct request *r)
{
	const struct list_in *in = r->in;
	const char *after = cursor_path(r, in->cursor);
	struct buf b = BUF(r);

	if (!after)
		return err_set(&r->work.err, E_BAD_INPUT, "\"cursor\" is not one of ours");
	buf_str(&b, "{\"path\":");
	buf_json(&b, in->path);
	buf_fmt(&b, ",\"depth\":%" PRId64 "}", in->depth > 0 ? in->depth : 1);
	guest_ask(
	    r, r, "/filesystem.Filesystem/ListDir", NULL, &b, GUEST_MS, listed, (void *)after);
	return 0;
}
