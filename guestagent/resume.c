/* resume.c - see resume.h. */
#include "resume.h"

#include "cleanup.h"
#include "identity.h"
#include "spawn.h"

#include <dirent.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>

#define FOLDER "/etc/hutch/resume.d"

enum { LIMIT_MS = 2000 };

static struct {
	pid_t pid; /* 0: none runs */
	struct call *call;
	void (*done)(struct call *);
	struct timer limit;
} run;

static int
is_program(const struct dirent *e)
{
	char path[sizeof FOLDER + sizeof e->d_name + 1];
	struct stat st;

	(void)snprintf(path, sizeof path, FOLDER "/%s", e->d_name);
	return e->d_name[0] != '.' && stat(path, &st) == 0 && S_ISREG(st.st_mode) &&
	    st.st_mode & 0100;
}

/* They have the capsule's variables. */
static void
set_variables(void)
{
	struct json_object *vars = identity_variables();

	if (!vars)
		return;
	json_object_object_foreach(vars, key, value)
	{
		(void)setenv(key, json_object_get_string(value), 1);
	}
}

/* The child: one program after the other, by name. */
static void
run_all(struct dirent **list, int n)
{
	char path[sizeof FOLDER + sizeof list[0]->d_name + 1];

	(void)close_range(3, ~0u, 0);
	spawn_child_defaults();
	(void)setsid();
	set_variables();
	for (int i = 0; i < n; i++) {
		pid_t pid = fork();

		(void)snprintf(path, sizeof path, FOLDER "/%s", list[i]->d_name);
		if (pid == 0) {
			(void)execl(path, path, (char *)NULL);
			_exit(127);
		}
		if (pid > 0)
			(void)waitpid(pid, NULL, 0);
	}
	_exit(0);
}

static void
finish(void)
{
	struct call *c = run.call;
	void (*done)(struct call *) = run.done;

	timer_stop(&run.limit);
	run.call = NULL;
	run.done = NULL;
	if (c)
		c->on_gone = NULL;
	if (done)
		done(c);
}

static void
too_long(void *arg)
{
	(void)arg;
	if (run.pid > 0)
		(void)kill(-run.pid, SIGKILL);
	finish();
}

static void
caller_gone(struct call *c)
{
	(void)c;
	run.call = NULL;
}

bool
resume_died(int pid)
{
	if (pid != run.pid)
		return false;
	run.pid = 0;
	finish();
	return true;
}

void
resume_run(struct call *c, void (*done)(struct call *))
{
	struct dirent **list = NULL;
	int n = getpid() == 1 ? scandir(FOLDER, &list, is_program, alphasort) : 0;

	if (n > 0) {
		run.pid = fork();
		if (run.pid == 0)
			run_all(list, n);
	}
	for (int i = 0; i < n; i++)
		free(list[i]);
	free(list);
	if (n <= 0 || run.pid < 0) {
		run.pid = 0;
		done(c);
		return;
	}
	run.call = c;
	run.done = done;
	if (c)
		c->on_gone = caller_gone;
	run.limit = (struct timer){ .fn = too_long };
	timer_set(&run.limit, LIMIT_MS);
}
