/* pool.c - see pool.h. */
#include "pool.h"
#include "cleanup.h"
#include "log.h"

#include <errno.h>
#include <signal.h>
#include <stdbool.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>

enum { PROCESSES = 1024, BACKLOG = 1024 };

enum state { FREE, SERVING, RETIRING };

static struct {
	struct process {
		enum state state;
		pid_t pid;
		time_t born;
	} process[PROCESSES];
	int wanted, quick_deaths;
	char **argv, **check_argv;
	sigset_t old_mask;
} master;

int
pool_listen(const char *path, struct err *e)
{
	struct sockaddr_un a = { .sun_family = AF_UNIX };
	auto_fd fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	auto_fd probe = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (strlen(path) >= sizeof a.sun_path)
		return err_set(e, E_CONFIG, "socket path %s is longer than %zu bytes", path,
		    sizeof a.sun_path - 1);
	memcpy(a.sun_path, path, strlen(path));
	if (connect(probe, (struct sockaddr *)&a, sizeof a) == 0)
		return err_set(e, E_CONFIG, "%s: another process serves it already", path);
	(void)unlink(path);
	if (bind(fd, (struct sockaddr *)&a, sizeof a) < 0 || chmod(path, 0660) < 0 ||
	    listen(fd, BACKLOG) < 0)
		return err_sys(e, "%s", path);
	return take_fd(&fd);
}

static void
spawn(struct process *p)
{
	pid_t parent = getpid();

	p->pid = fork();
	if (p->pid == 0) {
		sigprocmask(SIG_SETMASK, &master.old_mask, NULL);
		prctl(PR_SET_PDEATHSIG,
		    SIGTERM); /* without a master nobody would reload or replace it */
		if (getppid() != parent)
			_exit(0);
		execv(master.argv[0], master.argv);
		_exit(127);
	}
	p->state = p->pid < 0 ? FREE : SERVING;
	p->born = time(NULL);
}

static int
count(enum state s)
{
	int i, n = 0;

	for (i = 0; i < PROCESSES; i++)
		n += master.process[i].state == s;
	return n;
}

static void
fill(void)
{
	int i, missing = master.wanted - count(SERVING);

	for (i = 0; i < PROCESSES && missing > 0; i++)
		if (master.process[i].state == FREE) {
			spawn(&master.process[i]);
			missing--;
		}
}

static void
retire_all(void)
{
	int i;

	for (i = 0; i < PROCESSES; i++)
		if (master.process[i].state == SERVING) {
			master.process[i].state = RETIRING;
			kill(master.process[i].pid, SIGTERM);
		}
}

/* The new configuration must load before anybody is replaced. */
static bool
config_is_good(void)
{
	pid_t pid = fork();
	int status;

	if (pid == 0) {
		sigprocmask(SIG_SETMASK, &master.old_mask, NULL);
		execv(master.check_argv[0], master.check_argv);
		_exit(127);
	}
	return pid > 0 && waitpid(pid, &status, 0) == pid && WIFEXITED(status) &&
	    WEXITSTATUS(status) == 0;
}

static void
reload(void)
{
	struct process *old = master.process;
	pid_t going[PROCESSES];
	int i, n = 0;

	if (!config_is_good()) {
		log_error(NULL,
		    "reload refused: the configuration is not good; the pool runs on as it was");
		return;
	}
	for (i = 0; i < PROCESSES; i++)
		if (old[i].state == SERVING) {
			old[i].state = RETIRING;
			going[n++] = old[i].pid;
		}
	fill(); /* the new ones wait on the same socket before the old ones leave it */
	usleep(100000);
	for (i = 0; i < n; i++)
		kill(going[i], SIGTERM);
	log_info(NULL, "reloaded: %d processes", master.wanted);
}

static void
reap(void)
{
	int status, i;
	pid_t pid;

	while ((pid = waitpid(-1, &status, WNOHANG)) > 0)
		for (i = 0; i < PROCESSES; i++) {
			struct process *p = &master.process[i];

			if (p->state == FREE || p->pid != pid)
				continue;
			if (WIFSIGNALED(status))
				log_error(NULL, "process %d died of signal %d", (int)pid,
				    WTERMSIG(status));
			else if (WEXITSTATUS(status))
				log_error(NULL, "process %d ended with status %d", (int)pid,
				    WEXITSTATUS(status));
			master.quick_deaths =
			    (WIFSIGNALED(status) || WEXITSTATUS(status)) && time(NULL) - p->born < 2
			    ? master.quick_deaths + 1
			    : 0;
			p->state = FREE;
		}
}

int
master_run(int n, char **argv, char **check_argv)
{
	struct signalfd_siginfo si;
	sigset_t mask;
	bool ending = false;
	auto_fd fd = -1;

	master.wanted = n;
	master.argv = argv;
	master.check_argv = check_argv;
	sigemptyset(&mask);
	sigaddset(&mask, SIGHUP);
	sigaddset(&mask, SIGTERM);
	sigaddset(&mask, SIGINT);
	sigaddset(&mask, SIGCHLD);
	sigprocmask(SIG_BLOCK, &mask, &master.old_mask);
	fd = signalfd(-1, &mask, SFD_CLOEXEC);
	fill();
	log_info(NULL, "%d processes serve", n);
	for (;;) {
		if (read(fd, &si, sizeof si) != sizeof si)
			continue;
		if (si.ssi_signo == SIGHUP && !ending)
			reload();
		if (si.ssi_signo == SIGTERM || si.ssi_signo == SIGINT) {
			ending = true;
			retire_all();
		}
		reap();
		if (ending && !count(SERVING) && !count(RETIRING))
			return 0;
		if (ending)
			continue;
		if (master.quick_deaths > n)
			usleep(master.quick_deaths > 20 * n ? 2000000 : 200000);
		fill();
	}
}
