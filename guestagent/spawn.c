/* spawn.c - see spawn.h. */
#include "spawn.h"

#include "cleanup.h"
#include "freeze.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <signal.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/stat.h>

void
spawn_child_defaults(void)
{
	struct rlimit files = { 1024, 524288 };
	struct sigaction dfl = { .sa_handler = SIG_DFL };
	sigset_t none;
	int fd = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);

	if (fd >= 0) {
		(void)!write(fd, "100", 3);
		(void)close(fd);
	}
	for (int s = 1; s < NSIG; s++)
		(void)sigaction(s, &dfl, NULL);
	(void)sigemptyset(&none);
	(void)sigprocmask(SIG_SETMASK, &none, NULL);
	(void)umask(022);
	if (getpid() != 1 && geteuid() == 0)
		(void)setrlimit(RLIMIT_NOFILE, &files);
}

static int
become(const struct user *u)
{
	if (geteuid() != 0) {
		errno = EPERM;
		return u->uid == geteuid() ? 0 : -1;
	}
	return setgroups(u->ngroups, u->groups) < 0 || setgid(u->gid) < 0 || setuid(u->uid) < 0 ? -1
												: 0;
}

static int
enter(const struct spawn *s)
{
	if (chdir(s->cwd) == 0)
		return 0;
	if (!s->cwd_is_default || errno != EACCES)
		return -1;
	return chdir(s->user->home) == 0 || chdir("/") == 0 ? 0 : -1;
}

/* The three may be each other's numbers already: move them away first. */
static void
redirect(const struct spawn *s)
{
	int fd[3] = { s->in, s->out, s->err };

	for (int i = 0; i < 3; i++)
		fd[i] = fcntl(fd[i], F_DUPFD_CLOEXEC, 3);
	for (int i = 0; i < 3; i++)
		(void)dup2(fd[i], i);
}

static void __attribute__((noreturn)) child(const struct spawn *s)
{
	struct spawn_report r = { SPAWN_IDENTITY, 0 };

	(void)setsid();
	freeze_join();
	redirect(s);
	if (s->terminal)
		(void)ioctl(0, TIOCSCTTY, 0);
	spawn_child_defaults();
	if (become(s->user) == 0) {
		r.step = SPAWN_CWD;
		if (enter(s) == 0) {
			r.step = SPAWN_EXEC;
			environ = (char **)s->envp; /* execvp looks for PATH here */
			(void)execvp(s->cmd, s->argv);
		}
	}
	r.error = errno;
	(void)!write(s->report, &r, sizeof r);
	_exit(127);
}

pid_t
spawn(const struct spawn *s, struct err *e)
{
	pid_t pid = fork();

	if (pid == 0)
		child(s);
	return pid < 0 ? err_sys(e, "fork") : pid;
}

void
spawn_explain(const struct spawn_report *r, const char *cmd, const char *cwd, struct err *e)
{
	const char *why = strerror(r->error);

	if (r->step == SPAWN_IDENTITY)
		(void)err_set(e, E_FORBIDDEN, "the agent may not act for this user: %s", why);
	else if (r->step == SPAWN_CWD && r->error == EACCES)
		(void)err_set(e, E_FORBIDDEN, "cwd '%s': %s", cwd, why);
	else if (r->step == SPAWN_CWD)
		(void)err_set(e, E_BAD_INPUT, "cwd '%s' does not exist", cwd);
	else if (r->error == ENOENT && strchr(cmd, '/'))
		(void)err_set(e, E_NOT_FOUND, "fork/exec %s: no such file or directory", cmd);
	else if (r->error == ENOENT)
		(void)err_set(
		    e, E_NOT_FOUND, "exec: \"%s\": executable file not found in $PATH", cmd);
	else if (r->error == EACCES)
		(void)err_set(e, E_FORBIDDEN, "fork/exec %s: permission denied", cmd);
	else
		(void)err_set(e, E_BAD_INPUT, "fork/exec %s: %s", cmd, why);
}
