/*
 * ctl_hostcheck.c - hutchctl hostcheck: what this machine gives to keep capsules apart.
 *
 * The table is the agent's, which decides by it: its program prints it (hutch-agent -H, -J).
 */
#include "cleanup.h"
#include "ctl.h"

#include <string.h>

/* Beside us when installed, in its own folder of a build. */
static const char *const places[] = { "", "../hostagent/", NULL };

int
ctl_hostcheck(struct ctl *c)
{
	const char *json = ctl_option(c, "json"), *file = c->file;
	char own[400], path[512], *slash;
	ssize_t n = readlink("/proc/self/exe", own, sizeof own - 1);
	int i;

	if (ctl_done(c) < 0)
		return -1;
	own[n > 0 ? n : 0] = '\0';
	slash = strrchr(own, '/');
	for (i = 0; slash && places[i]; i++) {
		snprintf(
		    path, sizeof path, "%.*s%shutch-agent", (int)(slash - own + 1), own, places[i]);
		if (access(path, X_OK) == 0)
			(void)execl(path, path, "-c", file, json ? "-J" : "-H", (char *)NULL);
	}
	return err_set(&c->work.err, E_NOT_FOUND,
	    "there is no hutch-agent beside %s: run this on a host", own);
}
