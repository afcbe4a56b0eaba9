/* entry.c - see entry.h. */
#include "entry.h"

#include "cleanup.h"
#include "text.h"
#include "user.h"

#include <errno.h>
#include <limits.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/xattr.h>

#define XATTR "user.e2b."

static const struct {
	mode_t type;
	char letters[4];  /* as Go prints a mode */
	const char *word; /* EntryInfo.type; NULL: absent */
	const char *kind; /* additive, where there is no type */
} types[] = {
	{ S_IFREG, "", "FILE_TYPE_FILE", NULL },
	{ S_IFDIR, "d", "FILE_TYPE_DIRECTORY", NULL },
	{ S_IFLNK, "L", NULL, NULL },
	{ S_IFIFO, "p", NULL, "fifo" },
	{ S_IFSOCK, "S", NULL, "socket" },
	{ S_IFCHR, "Dc", NULL, "char" },
	{ S_IFBLK, "D", NULL, "block" },
};

int
entry_error(struct err *e, const char *path)
{
	switch (errno) {
	case ENOENT:
		return err_set(e, E_NOT_FOUND, "path '%.150s' does not exist", path);
	case EACCES:
	case EPERM:
	case EROFS:
		return err_set(e, E_FORBIDDEN, "path '%.150s': permission denied", path);
	case EEXIST:
	case ENOTEMPTY:
		return err_set(e, E_CONFLICT, "path '%.150s' exists", path);
	case ENOTDIR:
		return err_set(e, E_BAD_INPUT, "path '%.150s': not a directory", path);
	case EISDIR:
		return err_set(e, E_BAD_INPUT, "path '%.150s' is a directory", path);
	case ELOOP:
	case ENAMETOOLONG:
	case EINVAL:
		return err_set(e, E_BAD_INPUT, "path '%.150s': %s", path, strerror(errno));
	default:
		return err_sys(e, "path '%.80s'", path);
	}
}

int
entry_parents(const char *path, struct err *e)
{
	char part[PATH_MAX];
	size_t n = strlen(path);

	if (n >= sizeof part) {
		errno = ENAMETOOLONG;
		return entry_error(e, path);
	}
	memcpy(part, path, n + 1);
	for (char *p = strchr(part + 1, '/'); p; p = strchr(p + 1, '/')) {
		*p = '\0';
		if (mkdir(part, 0777) < 0 && errno != EEXIST)
			return entry_error(e, part);
		*p = '/';
	}
	return 0;
}

static void
put_permissions(struct buf *b, mode_t mode)
{
	static const char rwx[] = "rwxrwxrwx";
	char text[16];
	size_t n = 0;

	for (size_t i = 0; i < nitems(types); i++)
		if ((mode & S_IFMT) == types[i].type)
			for (const char *p = types[i].letters; *p; p++)
				text[n++] = *p;
	if (mode & S_ISUID)
		text[n++] = 'u';
	if (mode & S_ISGID)
		text[n++] = 'g';
	if (mode & S_ISVTX)
		text[n++] = 't';
	if (n == 0)
		text[n++] = '-';
	buf_str(b, ",\"permissions\":\"");
	buf_add(b, text, n);
	for (int i = 0; i < 9; i++)
		buf_chr(b, mode & (0400u >> i) ? rwx[i] : '-');
	buf_chr(b, '"');
}

static void
put_type(struct buf *b, mode_t mode)
{
	for (size_t i = 0; i < nitems(types); i++) {
		if ((mode & S_IFMT) != types[i].type)
			continue;
		if (types[i].word)
			buf_fmt(b, ",\"type\":\"%s\"", types[i].word);
		if (types[i].kind)
			buf_fmt(b, ",\"kind\":\"%s\"", types[i].kind);
	}
}

/* The attributes that uploads left: x-metadata-k. */
static void
put_metadata(struct buf *b, const char *path)
{
	char names[4096], value[2048];
	ssize_t n = listxattr(path, names, sizeof names);
	bool any = false;

	for (ssize_t at = 0; at < n; at += (ssize_t)strlen(names + at) + 1) {
		const char *name = names + at;
		ssize_t len = 0;

		if (strncmp(name, XATTR, sizeof XATTR - 1) != 0)
			continue;
		len = getxattr(path, name, value, sizeof value);
		if (len < 0)
			continue;
		buf_str(b, any ? "," : ",\"metadata\":{");
		buf_json(b, name + sizeof XATTR - 1);
		buf_chr(b, ':');
		buf_jsonn(b, value, (size_t)len);
		any = true;
	}
	if (any)
		buf_chr(b, '}');
}

int
entry_put(struct buf *b, const char *path, struct err *e)
{
	const char *slash = strrchr(path, '/');
	char target[PATH_MAX];
	struct stat st, to;
	bool resolves = false;
	ssize_t n = -1;

	if (lstat(path, &st) < 0)
		return entry_error(e, path);
	to = st;
	resolves = !S_ISLNK(st.st_mode) || stat(path, &to) == 0;
	if (S_ISLNK(st.st_mode))
		n = readlink(path, target, sizeof target - 1);
	buf_str(b, "{\"name\":");
	buf_json(b, slash && slash[1] ? slash + 1 : path);
	if (resolves)
		put_type(b, to.st_mode);
	buf_str(b, ",\"path\":");
	buf_json(b, path);
	if (st.st_size)
		buf_fmt(b, ",\"size\":\"%lld\"", (long long)st.st_size);
	if (resolves && (to.st_mode & 07777))
		buf_fmt(b, ",\"mode\":%u", to.st_mode & 07777u);
	put_permissions(b, st.st_mode);
	buf_str(b, ",\"owner\":");
	buf_json(b, user_name(st.st_uid));
	buf_str(b, ",\"group\":");
	buf_json(b, user_group(st.st_gid));
	buf_str(b, ",\"modifiedTime\":");
	text_put_time(b, &st.st_mtim);
	if (n >= 0) {
		buf_str(b, ",\"symlinkTarget\":");
		buf_jsonn(b, target, (size_t)n);
	}
	if (S_ISREG(st.st_mode))
		put_metadata(b, path);
	buf_chr(b, '}');
	return 0;
}
