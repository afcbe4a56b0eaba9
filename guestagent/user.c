/* user.c - see user.h. */
#include "user.h"

#include "cleanup.h"
#include "identity.h"
#include "text.h"

#include <errno.h>
#include <grp.h>
#include <limits.h>
#include <string.h>
#include <sys/fsuid.h>

enum { LINE = 4096, GROUPS_MAX = 256, FIELDS = 7 };

/* One line of passwd or group, cut at its colons. False at the end of the file. */
static bool
line_read(FILE *f, char *line, char *field[FIELDS], int want)
{
	while (f && fgets(line, LINE, f)) {
		int n = 0;

		line[strcspn(line, "\n")] = '\0';
		for (char *p = line; n < FIELDS; n++) {
			field[n] = p;
			p = strchr(p, ':');
			if (!p)
				break;
			*p++ = '\0';
		}
		if (n + 1 >= want)
			return true;
	}
	return false;
}

static bool
in_list(const char *list, const char *name)
{
	size_t n = strlen(name);

	while (*list) {
		size_t len = strcspn(list, ",");

		if (len == n && strncmp(list, name, n) == 0)
			return true;
		list += len;
		list += *list == ',';
	}
	return false;
}

static void
groups_read(struct user *u)
{
	auto_file *f = fopen("/etc/group", "re");
	char line[LINE], *field[FIELDS];

	u->groups = talloc_array(u, gid_t, GROUPS_MAX);
	if (!u->groups)
		abort();
	u->groups[u->ngroups++] = u->gid;
	while (u->ngroups < GROUPS_MAX && line_read(f, line, field, 4)) {
		gid_t gid = (gid_t)strtoul(field[2], NULL, 10);

		if (gid != u->gid && in_list(field[3], u->name))
			u->groups[u->ngroups++] = gid;
	}
}

struct user *
user_find(void *mem, const char *name, struct err *e)
{
	auto_file *f = fopen("/etc/passwd", "re");
	char line[LINE], *field[FIELDS];
	struct user *u = NULL;

	while (line_read(f, line, field, FIELDS)) {
		if (strcmp(field[0], name) != 0)
			continue;
		u = talloc_zero(mem, struct user);
		if (!u)
			abort();
		u->name = talloc_strdup(u, field[0]);
		u->uid = (uid_t)strtoul(field[2], NULL, 10);
		u->gid = (gid_t)strtoul(field[3], NULL, 10);
		u->home = talloc_strdup(u, field[5][0] ? field[5] : "/");
		u->shell = talloc_strdup(u, field[6][0] ? field[6] : "/bin/sh");
		groups_read(u);
		return u;
	}
	(void)err_set(e, E_UNAUTHORIZED, "invalid username: '%s'", name);
	return NULL;
}

/* The name in "Basic base64(name:password)"; NULL: another scheme, or broken. */
static const char *
basic_name(struct call *c, const char *value)
{
	struct err ignore = { 0 };
	uint8_t *text = NULL;
	size_t n = 0, len = 0;

	if (strncasecmp(value, "Basic ", 6) != 0)
		return NULL;
	value += 6;
	value += strspn(value, " ");
	if (text_base64(c, value, &text, &len, &ignore) < 0)
		return NULL;
	while (n < len && text[n] != ':' && text[n] != '\0')
		n++;
	return talloc_strndup(c, (const char *)text, n);
}

struct user *
user_of(struct call *c, const char *name)
{
	const char *auth = call_header(c, "authorization");

	if ((!name || !name[0]) && auth) {
		name = basic_name(c, auth);
		if (!name) {
			(void)err_set(
			    &c->err, E_UNAUTHORIZED, "the authorization header is not Basic");
			return NULL;
		}
	}
	return user_find(c, name && name[0] ? name : identity_user(), &c->err);
}

static const char *
name_of(const char *path, uint32_t id, char *name, size_t room)
{
	auto_file *f = fopen(path, "re");
	char line[LINE], *field[FIELDS];

	while (line_read(f, line, field, 3))
		if (strtoul(field[2], NULL, 10) == id) {
			(void)snprintf(name, room, "%s", field[0]);
			return name;
		}
	(void)snprintf(name, room, "%u", id);
	return name;
}

const char *
user_name(uid_t uid)
{
	static char name[64];
	static uid_t last = (uid_t)-1;
	static uint64_t asked;

	/* A listing asks for the same few thousands of times. */
	if (uid != last || loop_now() - asked > 100)
		(void)name_of("/etc/passwd", uid, name, sizeof name);
	last = uid;
	asked = loop_now();
	return name;
}

const char *
user_group(gid_t gid)
{
	static char name[64];
	static gid_t last = (gid_t)-1;
	static uint64_t asked;

	if (gid != last || loop_now() - asked > 100)
		(void)name_of("/etc/group", gid, name, sizeof name);
	last = gid;
	asked = loop_now();
	return name;
}

/* Resolves "." and ".." and doubled slashes by text. */
static char *
path_clean(void *mem, const char *path)
{
	char *out = talloc_size(mem, strlen(path) + 2), *o = out;

	if (!out)
		abort();
	*o = '\0';
	while (*path) {
		size_t n = strcspn(path, "/");

		if (n == 2 && path[0] == '.' && path[1] == '.') {
			while (o > out && *--o != '/')
				;
			*o = '\0';
		} else if (n > 0 && !(n == 1 && path[0] == '.')) {
			*o++ = '/';
			memcpy(o, path, n);
			o += n;
			*o = '\0';
		}
		path += n;
		path += *path == '/';
	}
	if (o == out) {
		*o++ = '/';
		*o = '\0';
	}
	return out;
}

char *
user_path(void *mem, const struct user *u, const char *path, struct err *e)
{
	const char *base = u->home;
	char *out = NULL;

	if (path[0] == '\0') {
		base = identity_workdir() ? identity_workdir() : u->home;
	} else if (path[0] == '~') {
		if (path[1] != '\0' && path[1] != '/') {
			(void)err_set(
			    e, E_BAD_INPUT, "the path '%s' names another user's home", path);
			return NULL;
		}
		path++;
	} else if (path[0] == '/') {
		base = "";
	}
	out = path_clean(mem, talloc_asprintf(mem, "%s/%s", base, path));
	if (strlen(out) >= PATH_MAX) {
		(void)err_set(e, E_BAD_INPUT, "the path is too long");
		return NULL;
	}
	return out;
}

int
user_enter(const struct user *u, struct err *e)
{
	if (geteuid() != 0)
		return u->uid == geteuid()
		    ? 0
		    : err_set(e, E_FORBIDDEN, "the agent may not act for '%s'", u->name);
	if (setgroups(u->ngroups, u->groups) < 0)
		return err_sys(e, "groups of '%s'", u->name);
	(void)setfsgid(u->gid);
	(void)setfsuid(u->uid);
	return 0;
}

void
user_leave(void)
{
	if (geteuid() != 0)
		return;
	(void)setfsuid(0);
	(void)setfsgid(0);
	(void)setgroups(0, NULL);
}
