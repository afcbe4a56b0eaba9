/* freeze.c - see freeze.h. */
#include "freeze.h"

#include "cleanup.h"
#include "json.h"

#include <dirent.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

#define GROUPS "/sys/fs/cgroup"

enum { WAIT_MS = 200, LOOK_US = 500 };

void
freeze_init(void)
{
	(void)mkdir(GROUPS "/user", 0755);
}

void
freeze_join(void)
{
	auto_fd fd = open(GROUPS "/user/cgroup.procs", O_WRONLY | O_CLOEXEC);

	/* a machine without control groups cannot freeze; its programs run all the same */
	if (fd >= 0)
		(void)!write(fd, "0", 1);
}

static bool
is_frozen(const char *group)
{
	char path[sizeof GROUPS + 300], text[128] = "";
	ssize_t n = 0;

	(void)snprintf(path, sizeof path, GROUPS "/%s/cgroup.events", group);
	auto_fd fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0 || (n = read(fd, text, sizeof text - 1)) <= 0)
		return true;
	return strstr(text, "frozen 1") != NULL;
}

static void
group_set(const char *group, const char *value)
{
	char path[sizeof GROUPS + 300];

	(void)snprintf(path, sizeof path, GROUPS "/%s/cgroup.freeze", group);
	auto_fd fd = open(path, O_WRONLY | O_CLOEXEC);
	if (fd >= 0)
		(void)!write(fd, value, 1);
}

/* Sets every group of the top level; returns whether all of them stand still. */
static bool
groups_each(const char *value)
{
	DIR *d = opendir(GROUPS);
	struct dirent *e = NULL;
	bool all = true;

	while (d && (e = readdir(d))) {
		if (e->d_type != DT_DIR || e->d_name[0] == '.')
			continue;
		if (value)
			group_set(e->d_name, value);
		else
			all = all && is_frozen(e->d_name);
	}
	if (d)
		(void)closedir(d);
	return all;
}

void
freeze_thaw(void)
{
	if (getpid() == 1)
		(void)groups_each("0");
}

void
freeze_call(struct call *c)
{
	struct err ignore = { 0 };
	struct json_object *in =
	    c->body.len ? json_parse(c, c->body.data, c->body.len, NULL, &ignore) : NULL;

	if (getpid() == 1) {
		(void)groups_each("1");
		for (int us = 0; us < WAIT_MS * 1000 && !groups_each(NULL); us += LOOK_US)
			(void)usleep(LOOK_US);
		if (in && json_flag(in, "sync", false))
			sync();
	}
	call_reply(c, 204, NULL, NULL, 0);
}

void
freeze_undo_call(struct call *c)
{
	freeze_thaw();
	call_reply(c, 204, NULL, NULL, 0);
}
