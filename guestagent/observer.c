/* observer.c - see observer.h. */
#include "observer.h"

#include "cleanup.h"
#include "entry.h"
#include "loop.h"
#include "upload.h"
#include "user.h"

#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/inotify.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <talloc.h>

enum {
	OBSERVERS_MAX = 128,
	FOLDERS_MAX = 16384, /* of one observer */
	READ = 8 * 1024,     /* some 250 events at a time */
	SEEN_MAX = 4096,
	DEPTH_MAX = 256,
};

/* clang-format off */
/* The first row that the event has. */
static const struct {
	uint32_t mask;
	const char *type;
} types[] = {
	{ IN_CREATE | IN_MOVED_TO,      "EVENT_TYPE_CREATE" },
	{ IN_DELETE | IN_DELETE_SELF,   "EVENT_TYPE_REMOVE" },
	{ IN_MOVED_FROM | IN_MOVE_SELF, "EVENT_TYPE_RENAME" },
	{ IN_MODIFY,                    "EVENT_TYPE_WRITE" },
	{ IN_ATTRIB,                    "EVENT_TYPE_CHMOD" },
};

/* File systems that others change without our kernel's knowing, and that may not answer. */
static const uint32_t network_types[] = {
	0x6969 /* NFS */, 0x517B /* SMB */, 0xFF534D42 /* CIFS */, 0xFE534D42 /* SMB2 */, 0x01021997 /* 9P */,
	0x65735546 /* FUSE */, 0x00C36400 /* Ceph */, 0x5346414F /* AFS */, 0x73757245 /* Coda */,
};
/* clang-format on */

struct folder {
	int wd;
	char *path; /* below the asked one; "" is itself */
};

struct observer {
	struct observed want;
	struct watch watch;
	struct folder *folder; /* by wd, which only grow */
	size_t folders;
	/* Entries told when their directory was found: their own events are still to come. */
	uint64_t *seen;
	size_t nseen;
	uint32_t cookie; /* of an upload's rename; 0: none */
	bool replaces;   /* its target was there */
};

static int observers;

/* ---- the table of directories */

static struct folder *
folder_find(struct observer *o, int wd)
{
	size_t low = 0, high = o->folders;

	while (low < high) {
		size_t middle = (low + high) / 2;

		if (o->folder[middle].wd < wd)
			low = middle + 1;
		else
			high = middle;
	}
	return low < o->folders && o->folder[low].wd == wd ? &o->folder[low] : NULL;
}

static void
folder_drop(struct observer *o, struct folder *f)
{
	size_t i = (size_t)(f - o->folder);

	talloc_free(f->path);
	memmove(f, f + 1, (--o->folders - i) * sizeof *f);
}

/* A directory that is not there any more, and all below it. */
static void
folders_drop(struct observer *o, const char *path)
{
	size_t n = strlen(path);

	for (size_t i = o->folders; i-- > 0;) {
		const char *p = o->folder[i].path;

		if (strncmp(p, path, n) != 0 || (p[n] != '/' && p[n] != '\0'))
			continue;
		(void)inotify_rm_watch(o->watch.fd, o->folder[i].wd);
		folder_drop(o, &o->folder[i]);
	}
}

static char *
join(void *mem, const char *folder, const char *name)
{
	return talloc_asprintf(mem, "%s%s%s", folder, *folder && *name ? "/" : "", name);
}

static char *
absolute(void *mem, const struct observer *o, const char *below)
{
	const char *root = strcmp(o->want.path, "/") == 0 ? "" : o->want.path;

	return *below ? talloc_asprintf(mem, "%s/%s", root, below)
		      : talloc_strdup(mem, o->want.path);
}

static bool
is_network(const char *path)
{
	struct statfs fs;

	if (statfs(path, &fs) < 0)
		return false;
	for (size_t i = 0; i < nitems(network_types); i++)
		if ((uint32_t)fs.f_type == network_types[i])
			return true;
	return false;
}

/* -1 and the error; -1 without one: it went away or is not for this user. */
static int
folder_add(struct observer *o, const char *below, struct err *e)
{
	auto_talloc char *path = absolute(NULL, o, below);
	uint32_t mask = IN_CREATE | IN_MOVED_TO | IN_DELETE | IN_MOVED_FROM | IN_MODIFY |
	    IN_ATTRIB | IN_ONLYDIR | (*below ? IN_DONT_FOLLOW : IN_DELETE_SELF | IN_MOVE_SELF);
	int wd;

	if (o->folders == FOLDERS_MAX)
		return err_set(e, E_TOO_LARGE, "more than %d directories", FOLDERS_MAX);
	if (!o->want.network && is_network(path))
		return *below
		    ? -1
		    : err_set(e, E_BAD_STATE,
			  "path '%.150s' is on a network mount: allowNetworkMounts", path);
	wd = inotify_add_watch(o->watch.fd, path, mask);
	if (wd < 0 && errno == ENOSPC)
		return err_set(e, E_TOO_LARGE, "the machine cannot watch more directories");
	if (wd < 0)
		return *below ? -1 : entry_error(e, path);
	if (folder_find(o, wd))
		return -1; /* the same directory by another mount */
	o->folder = talloc_realloc(o, o->folder, struct folder, o->folders + 1);
	if (!o->folder)
		abort();
	o->folder[o->folders++] = (struct folder){ wd, talloc_strdup(o->folder, below) };
	return 0;
}

/* ---- telling */

static void
tell(struct observer *o, const char *type, const char *below)
{
	auto_talloc char *mem = talloc_new(NULL);
	struct err gone = { 0 };
	struct buf b = BUF(mem);
	size_t n;

	buf_str(&b, "{\"name\":");
	buf_json(&b, *below ? below : ".");
	buf_fmt(&b, ",\"type\":\"%s\"", type);
	n = b.len;
	if (o->want.entries) {
		buf_str(&b, ",\"entry\":");
		if (entry_put(&b, absolute(mem, o, below), &gone) < 0)
			b.len = n;
	}
	buf_chr(&b, '}');
	o->want.on_event(o->want.arg, &b);
}

static uint64_t
mark_of(int wd, const char *name)
{
	uint64_t h = (0xcbf29ce484222325u ^ (uint64_t)wd) * 0x9e3779b97f4a7c15u;

	for (h ^= h >> 29; *name; name++)
		h = (h ^ (unsigned char)*name) * 0x100000001b3u;
	return h;
}

static bool
was_seen(struct observer *o, int wd, const char *name)
{
	uint64_t mark = mark_of(wd, name);

	for (size_t i = 0; i < o->nseen; i++)
		if (o->seen[i] == mark) {
			o->seen[i] = o->seen[--o->nseen];
			return true;
		}
	return false;
}

static int found(struct observer *, const char *below, bool tells, int depth, struct err *);

static int
look_inside(struct observer *o, const char *below, bool tells, int depth, struct err *e)
{
	auto_talloc char *path = absolute(NULL, o, below);
	int wd = o->folder[o->folders - 1].wd, rc = 0;
	DIR *d = opendir(path);
	struct dirent *i;

	while (d && rc == 0 && (i = readdir(d))) {
		auto_talloc char *name = NULL;

		if (strcmp(i->d_name, ".") == 0 || strcmp(i->d_name, "..") == 0 ||
		    strncmp(i->d_name, UPLOAD_PREFIX, strlen(UPLOAD_PREFIX)) == 0)
			continue;
		name = join(NULL, below, i->d_name);
		if (tells && !o->seen)
			o->seen = talloc_array(o, uint64_t, SEEN_MAX);
		if (tells && o->seen && o->nseen < SEEN_MAX)
			o->seen[o->nseen++] = mark_of(wd, i->d_name);
		if (tells)
			tell(o, types[0].type, name);
		if (i->d_type == DT_DIR || i->d_type == DT_UNKNOWN)
			rc = found(o, name, tells, depth + 1, e);
	}
	if (d)
		(void)closedir(d);
	return rc;
}

/* A directory: it is observed, then what is in it already is looked at. */
static int
found(struct observer *o, const char *below, bool tells, int depth, struct err *e)
{
	if (depth > DEPTH_MAX)
		return 0;
	if (folder_add(o, below, e) < 0)
		return e->code == E_OK ? 0 : -1;
	return o->want.recursive ? look_inside(o, below, tells, depth, e) : 0;
}

/* ---- events */

/* Uploads write beside their target and rename: what is told is that the target was written. */
static bool
is_upload(struct observer *o, const struct inotify_event *i, const char *below)
{
	const char *name = i->len ? i->name : "";

	if (strncmp(name, UPLOAD_PREFIX, strlen(UPLOAD_PREFIX)) == 0 &&
	    strlen(name) == UPLOAD_NAME) {
		if (i->mask & IN_MOVED_FROM) {
			o->cookie = i->cookie;
			o->replaces = name[UPLOAD_NAME - 1] == 'r';
		}
		return true;
	}
	if (!(i->mask & IN_MOVED_TO) || i->cookie != o->cookie)
		return false;
	o->cookie = 0;
	if (!o->replaces)
		tell(o, "EVENT_TYPE_CREATE", below);
	tell(o, "EVENT_TYPE_WRITE", below);
	return true;
}

/* -1: from here on events are lost. */
static int
handle(struct observer *o, const struct inotify_event *i)
{
	const char *type = NULL, *name = i->len ? i->name : "";
	struct folder *f = folder_find(o, i->wd);
	auto_talloc char *below = NULL;
	struct err e = { 0 };

	if (i->mask & IN_Q_OVERFLOW)
		return -1;
	if (f && i->mask & IN_IGNORED)
		folder_drop(o, f);
	/* What happens to a directory itself is told by the one above; the top has none. */
	if (!f || i->mask & IN_IGNORED || (!*name && *f->path))
		return 0;
	for (size_t n = 0; n < nitems(types) && !type; n++)
		if (i->mask & types[n].mask)
			type = types[n].type;
	if (!type || (was_seen(o, i->wd, name) && type == types[0].type))
		return 0;
	below = join(NULL, f->path, name);
	if (is_upload(o, i, below))
		return 0;
	if (i->mask & IN_MOVED_FROM && i->mask & IN_ISDIR)
		folders_drop(o, below);
	tell(o, type, below);
	if (o->want.recursive && type == types[0].type && i->mask & IN_ISDIR)
		return found(o, below, true, 0, &e);
	return 0;
}

static void
events_ready(void *arg, uint32_t events)
{
	_Alignas(struct inotify_event) char data[READ];
	struct observer *o = arg;
	struct err e = { 0 };
	ssize_t n = read(o->watch.fd, data, sizeof data);
	int rc = user_enter(o->want.user, &e), more = 0;

	(void)events;
	for (ssize_t at = 0; at < n && rc == 0;) {
		const struct inotify_event *i = (const struct inotify_event *)(data + at);

		at += (ssize_t)(sizeof *i + i->len);
		rc = handle(o, i);
	}
	user_leave();
	if (rc < 0) {
		watch_stop(&o->watch);
		o->want.on_event(o->want.arg, NULL);
	} else if (ioctl(o->watch.fd, FIONREAD, &more) == 0 && more == 0) {
		o->nseen = 0;
	}
}

static int
observer_free(struct observer *o)
{
	watch_stop(&o->watch);
	cleanup_fd(&o->watch.fd);
	observers--;
	return 0;
}

struct observer *
observer_new(void *mem, const struct observed *want, struct err *e)
{
	struct observer *o = NULL;
	int fd = -1, rc = -1;

	if (observers < OBSERVERS_MAX)
		fd = inotify_init1(IN_NONBLOCK | IN_CLOEXEC);
	if (fd < 0) {
		(void)err_set(e, E_TOO_LARGE, "too many watchers");
		return NULL;
	}
	o = talloc_zero(mem, struct observer);
	if (!o)
		abort();
	observers++;
	o->want = *want;
	o->want.path = talloc_strdup(o, want->path);
	o->watch = (struct watch){ .fd = fd, .fn = events_ready, .arg = o };
	talloc_set_destructor(o, observer_free);
	if (user_enter(want->user, e) == 0)
		rc = found(o, "", false, 0, e);
	user_leave();
	if (rc < 0) {
		talloc_free(o);
		return NULL;
	}
	(void)talloc_steal(o, want->user);
	observer_go(o, true);
	return o;
}

void
observer_go(struct observer *o, bool go)
{
	watch_set(&o->watch, go ? EPOLLIN : 0);
}
