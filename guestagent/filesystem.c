/* filesystem.c - the calls of filesystem.Filesystem (spec 06 §14.2), done as the user who asks. */
#include "cleanup.h"
#include "entry.h"
#include "handlers.h"
#include "remove.h"
#include "rpc.h"
#include "user.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

enum { DEPTH_MAX = 32, ENTRIES_MAX = 50000 };

/* The user and the path of a message; the member's name differs. */
static int
subject(struct call *c, struct json_object *in, const char *member, struct user **u, char **path)
{
	const char *text = "";

	if (rpc_str(in, member, &text, &c->err) < 0)
		return -1;
	*u = user_of(c, NULL);
	if (!*u)
		return -1;
	*path = user_path(c, *u, text, &c->err);
	return *path ? 0 : -1;
}

static int
put_one(struct call *c, struct buf *out, const char *path)
{
	buf_str(out, "{\"entry\":");
	if (entry_put(out, path, &c->err) < 0)
		return -1;
	buf_chr(out, '}');
	return 0;
}

int
filesystem_stat(struct call *c, struct json_object *in, struct buf *out)
{
	struct user *u = NULL;
	char *path = NULL;
	int rc = -1;

	if (subject(c, in, "path", &u, &path) < 0 || user_enter(u, &c->err) < 0)
		return -1;
	rc = put_one(c, out, path);
	user_leave();
	return rc;
}

static int
make_dir(struct call *c, const char *path, struct buf *out)
{
	struct stat st;

	if (stat(path, &st) == 0)
		return S_ISDIR(st.st_mode)
		    ? err_set(&c->err, E_CONFLICT, "directory '%.150s' exists already", path)
		    : err_set(&c->err, E_BAD_INPUT, "path '%.150s' is no directory", path);
	if (entry_parents(path, &c->err) < 0)
		return -1;
	if (mkdir(path, 0777) < 0)
		return entry_error(&c->err, path);
	return put_one(c, out, path);
}

int
filesystem_make_dir(struct call *c, struct json_object *in, struct buf *out)
{
	struct user *u = NULL;
	char *path = NULL;
	int rc = -1;

	if (subject(c, in, "path", &u, &path) < 0 || user_enter(u, &c->err) < 0)
		return -1;
	rc = make_dir(c, path, out);
	user_leave();
	return rc;
}

static int
move(struct call *c, const char *from, const char *to, bool overwrite, struct buf *out)
{
	struct stat st;

	if (lstat(from, &st) < 0)
		return entry_error(&c->err, from);
	if (entry_parents(to, &c->err) < 0)
		return -1;
	if (renameat2(AT_FDCWD, from, AT_FDCWD, to, overwrite ? 0 : RENAME_NOREPLACE) < 0)
		return entry_error(&c->err, to);
	return put_one(c, out, to);
}

int
filesystem_move(struct call *c, struct json_object *in, struct buf *out)
{
	struct user *u = NULL;
	char *from = NULL, *to = NULL;
	bool overwrite = true;
	int rc = -1;

	if (subject(c, in, "source", &u, &from) < 0 || subject(c, in, "destination", &u, &to) < 0 ||
	    rpc_bool(in, "overwrite", &overwrite, &c->err) < 0 || user_enter(u, &c->err) < 0)
		return -1;
	rc = move(c, from, to, overwrite, out);
	user_leave();
	return rc;
}

static void
removed(struct call *c)
{
	struct buf none = BUF(c);

	if (c->err.code != E_OK)
		rpc_fail(c);
	else
		rpc_reply(c, &none);
}

int
filesystem_remove(struct call *c, struct json_object *in, struct buf *out)
{
	struct user *u = NULL;
	char *path = NULL;
	struct stat st;
	bool must_exist = false;
	int rc = 0;

	(void)out;
	if (subject(c, in, "path", &u, &path) < 0 ||
	    rpc_bool(in, "must_exist", &must_exist, &c->err) < 0)
		return -1;
	if (strcmp(path, "/") == 0)
		return err_set(&c->err, E_BAD_INPUT, "the root directory cannot be removed");
	if (user_enter(u, &c->err) < 0)
		return -1;
	rc = lstat(path, &st);
	user_leave();
	if (rc < 0)
		return errno == ENOENT && !must_exist ? 0 : entry_error(&c->err, path);
	return remove_tree(c, u, path, removed) < 0 ? -1 : 1;
}

/* ---- ListDir ---- */

struct listing {
	struct call *call;
	struct buf *out;
	size_t n, max;
	bool truncates; /* the caller gave a limit: stop there, instead of failing */
	bool full;
};

static int
not_dots(const struct dirent *e)
{
	return strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0;
}

static int list(struct listing *, const char *path, int depth);

static int
list_one(struct listing *l, const char *folder, const struct dirent *e, int depth)
{
	const char *sep = strcmp(folder, "/") == 0 ? "" : "/";
	auto_talloc char *path = talloc_asprintf(NULL, "%s%s%s", folder, sep, e->d_name);
	size_t before = l->out->len;
	struct err gone = { 0 };
	struct stat st;

	if (l->n == l->max) {
		l->full = true;
		return l->truncates
		    ? 0
		    : err_set(&l->call->err, E_TOO_LARGE, "more than %zu entries", l->max);
	}
	if (l->n)
		buf_chr(l->out, ',');
	if (entry_put(l->out, path, &gone) < 0) { /* removed since it was listed */
		l->out->len = before;
		return 0;
	}
	l->n++;
	if (depth > 1 && lstat(path, &st) == 0 && S_ISDIR(st.st_mode))
		return list(l, path, depth - 1);
	return 0;
}

static int
list(struct listing *l, const char *path, int depth)
{
	struct dirent **entries = NULL;
	int n = scandir(path, &entries, not_dots, alphasort);
	int rc = 0;

	if (n < 0 && l->n > 0 && (errno == ENOENT || errno == EACCES))
		return 0; /* below the asked directory: gone, or not for this user */
	if (n < 0)
		return entry_error(&l->call->err, path);
	for (int i = 0; i < n; i++) {
		if (rc == 0 && !l->full)
			rc = list_one(l, path, entries[i], depth);
		free(entries[i]);
	}
	free(entries);
	return rc;
}

int
filesystem_list_dir(struct call *c, struct json_object *in, struct buf *out)
{
	struct user *u = NULL;
	char *path = NULL;
	int64_t depth = 1, limit = 0;
	struct listing l = { .call = c, .out = out, .max = ENTRIES_MAX };
	int rc = -1;

	if (subject(c, in, "path", &u, &path) < 0 ||
	    rpc_int(in, "depth", 0, DEPTH_MAX, &depth, &c->err) < 0 ||
	    rpc_int(in, "limit", 1, ENTRIES_MAX, &limit, &c->err) < 0)
		return -1;
	if (limit) {
		l.max = (size_t)limit;
		l.truncates = true;
	}
	if (user_enter(u, &c->err) < 0)
		return -1;
	buf_str(out, "{\"entries\":[");
	rc = list(&l, path, depth ? (int)depth : 1);
	user_leave();
	if (l.n == 0)
		buf_clear(out); /* protobuf's JSON has no empty lists */
	else
		buf_str(out, l.full ? "],\"truncated\":true}" : "]}");
	return rc;
}
