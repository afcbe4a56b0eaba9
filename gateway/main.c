/*
 * main.c - hutch-gateway: everything that lasts or streams between clients and capsules.
 *
 * A master forks one process per core; all accept on one unix socket. TERM: the processes finish
 * what they have, at most DRAIN_SEC; WebSockets are told to come back when nothing else is left.
 * HUP: new ones start, the old ones finish without a hurry.
 */
#include "access.h"
#include "back.h"
#include "cleanup.h"
#include "front.h"
#include "gateway.h"
#include "key_count.h"
#include "log.h"
#include "port_access.h"
#include "route.h"
#include "route_print.h"
#include "tally_all.h"
#include "upgrade.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <signal.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/prctl.h>
#include <sys/wait.h>

enum {
	BACKLOG = 1024,
	DRAIN_SEC = 20,
	DRAIN_RELOAD_SEC = 3600,
	GOODBYE_MS = 1000,
	PROCESSES_MAX = 256,
	FILES = 65536
};

/* ---- one process */

struct process {
	struct gateway gw; /* first */
	uv_signal_t term, hup;
	uv_timer_t limit;
};

static void
on_idle(struct gateway *gw)
{
	key_count_end(gw->key_count);
	tally_all_end(gw->tally_all);
	exit(0);
}

static void
on_end(uv_timer_t *t)
{
	struct process *p = t->data;

	log_warn(NULL, "%zu requests did not end in time", front_requests(p->gw.front));
	key_count_end(p->gw.key_count);
	tally_all_end(p->gw.tally_all);
	exit(0);
}

/* Who is connected for good comes back to another process. */
static void
on_limit(uv_timer_t *t)
{
	struct process *p = t->data;

	uv_timer_start(&p->limit, on_end, GOODBYE_MS, 0);
	upgrade_leave(&p->gw);
}

static void
drain(struct process *p, int seconds)
{
	uv_timer_start(&p->limit, on_limit, (uint64_t)seconds * 1000, 0);
	p->gw.draining = true;
	front_drain(p->gw.front, on_idle);
}

static void
on_term(uv_signal_t *s, int signum)
{
	struct process *p = s->data;

	(void)signum;
	drain(p, DRAIN_SEC);
	front_leave(p->gw.front);
}

static void
on_hup(uv_signal_t *s, int signum)
{
	(void)signum;
	drain(s->data, DRAIN_RELOAD_SEC);
}

static int
process_run(const struct conf *conf, int fd)
{
	struct process *p = talloc_zero(NULL, struct process);
	struct err e = { 0 };

	if (!p)
		abort();
	prctl(PR_SET_PDEATHSIG, SIGTERM);
	p->gw.conf = conf;
	p->gw.loop = uv_default_loop();
	p->gw.doorman = doorman_open(p, &p->gw, &e);
	p->gw.key_count = key_count_open(p, &p->gw);
	p->gw.doors = doors_open(p, &p->gw);
	p->gw.tally_all = tally_all_open(p, &p->gw);
	p->gw.back = back_open(p, &p->gw);
	if (p->gw.doorman)
		p->gw.front = front_open(p, p->gw.loop, fd, &p->gw, route_request, &e);
	if (!p->gw.front) {
		log_error(NULL, "%s", e.text);
		return 1;
	}
	uv_signal_init(p->gw.loop, &p->term);
	uv_signal_init(p->gw.loop, &p->hup);
	uv_timer_init(p->gw.loop, &p->limit);
	p->term.data = p->hup.data = p->limit.data = p;
	uv_signal_start(&p->term, on_term, SIGTERM);
	uv_signal_start(&p->hup, on_hup, SIGHUP);
	return uv_run(p->gw.loop, UV_RUN_DEFAULT);
}

/* ---- the master */

struct master {
	const struct conf *conf;
	const char *file; /* of the configuration */
	void *mem;
	int fd;
	int want; /* processes */
	struct {
		pid_t pid; /* 0: none */
		time_t born;
	} slot[PROCESSES_MAX];
};

static sigset_t waited_for;

static void
spawn(struct master *m, int i)
{
	pid_t pid = fork();

	if (pid == 0) {
		sigprocmask(SIG_UNBLOCK, &waited_for, NULL);
		exit(process_run(m->conf, m->fd));
	}
	if (pid < 0)
		log_error(NULL, "fork: %s", strerror(errno));
	m->slot[i].pid = pid > 0 ? pid : 0;
	m->slot[i].born = time(NULL);
}

/* Dead children are replaced; one that dies at once is not replaced faster than once a second. */
static void
reap(struct master *m)
{
	int status = 0;
	pid_t pid = 0;

	while ((pid = waitpid(-1, &status, WNOHANG)) > 0)
		for (int i = 0; i < m->want; i++) {
			if (m->slot[i].pid != pid)
				continue;
			if (status)
				log_error(NULL, "process %d ended: %s %d", (int)pid,
				    WIFSIGNALED(status) ? "signal" : "exit",
				    WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status));
			m->slot[i].pid = 0;
		}
}

static void
fill(struct master *m)
{
	for (int i = 0; i < m->want; i++)
		if (!m->slot[i].pid && m->slot[i].born != time(NULL))
			spawn(m, i);
}

/* A configuration that is wrong changes nothing. */
static void
reload(struct master *m)
{
	struct err e = { 0 };
	const struct conf *conf = conf_load(m->mem, m->file, &e);

	if (!conf) {
		log_error(NULL, "not reloaded: %s", e.text);
		return;
	}
	m->conf = conf;
	for (int i = 0; i < m->want; i++) {
		pid_t old = m->slot[i].pid;

		spawn(m, i);
		if (old)
			kill(old, SIGHUP);
	}
}

static int
stop(struct master *m)
{
	close(m->fd); /* a connection that nobody will accept is refused at once */
	for (int i = 0; i < m->want; i++)
		if (m->slot[i].pid)
			kill(m->slot[i].pid, SIGTERM);
	for (int tries = 0; tries < (DRAIN_SEC + 2) * 10; tries++) {
		struct timespec tenth = { .tv_nsec = 100000000 };
		pid_t pid = 0;

		while ((pid = waitpid(-1, NULL, WNOHANG)) > 0)
			;
		if (pid < 0)
			return 0;
		nanosleep(&tenth, NULL);
	}
	return 1;
}

static int
master_run(struct master *m)
{
	struct timespec second = { .tv_sec = 1 };

	for (;;) {
		fill(m);
		switch (sigtimedwait(&waited_for, NULL, &second)) {
		case SIGCHLD:
			reap(m);
			break;
		case SIGHUP:
			log_info(NULL, "reload");
			reload(m);
			break;
		case SIGTERM:
		case SIGINT:
			return stop(m);
		}
	}
}

/* ---- start */

/* The lock, not the socket, says whether a master lives: children of a dead one still hold the
   socket. A POSIX lock is not inherited by fork(). */
static int
lock(const char *path, struct err *e)
{
	auto_free char *name = NULL;
	struct flock l = { .l_type = F_WRLCK };
	auto_fd fd = -1;

	if (asprintf(&name, "%s.lock", path) < 0)
		abort();
	fd = open(name, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (fd < 0)
		return err_sys(e, "%s", name);
	if (fcntl(fd, F_SETLK, &l) < 0)
		return err_set(e, E_CONFIG, "another gateway serves %s", path);
	(void)take_fd(&fd); /* held until the process ends */
	return 0;
}

static int
listen_on(const char *path, struct err *e)
{
	auto_fd fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	struct sockaddr_un a = { .sun_family = AF_UNIX };

	if (fd < 0)
		return err_sys(e, "socket");
	if (strlen(path) >= sizeof a.sun_path)
		return err_set(
		    e, E_CONFIG, "gateway.socket is longer than %zu bytes", sizeof a.sun_path - 1);
	snprintf(a.sun_path, sizeof a.sun_path, "%s", path);
	if (lock(path, e) < 0)
		return -1;
	(void)unlink(path);
	if (bind(fd, (struct sockaddr *)&a, sizeof a) < 0)
		return err_sys(e, "bind %s", path);
	(void)chmod(path, 0660);
	if (listen(fd, BACKLOG) < 0)
		return err_sys(e, "listen %s", path);
	return take_fd(&fd);
}

static void
usage(FILE *to)
{
	fputs("usage: hutch-gateway [-c hutch.conf] [-l socket] [-m processes] [-n] [-T TOPIC] "
	      "[-V]\n"
	      "  -c  configuration file\n"
	      "  -l  listen on this unix socket instead of gateway.socket\n"
	      "  -m  processes instead of gateway.processes\n"
	      "  -n  check the configuration and exit\n"
	      "  -T  print the routes: routes, paths, lighttpd, apache\n",
	    to);
}

static int
print_table(const char *name)
{
	if (route_print(route_tables, name))
		return 0;
	usage(stderr);
	return 2;
}

static int
start(struct master *m, const char *path, int processes)
{
	struct rlimit files = { FILES, FILES };
	struct err e = { 0 };
	long cores = sysconf(_SC_NPROCESSORS_ONLN);

	m->want = processes ? processes : (int)m->conf->gateway_processes;
	if (!m->want)
		m->want = cores > 0 && cores < PROCESSES_MAX ? (int)cores : 1;
	m->fd = listen_on(path ? path : m->conf->gateway_socket, &e);
	if (m->fd < 0) {
		log_error(NULL, "%s", e.text);
		return 1;
	}
	if (setrlimit(RLIMIT_NOFILE, &files) < 0 && getrlimit(RLIMIT_NOFILE, &files) == 0) {
		files.rlim_cur = files.rlim_max;
		(void)setrlimit(RLIMIT_NOFILE, &files);
	}
	signal(SIGPIPE, SIG_IGN);
	sigemptyset(&waited_for);
	sigaddset(&waited_for, SIGCHLD);
	sigaddset(&waited_for, SIGHUP);
	sigaddset(&waited_for, SIGTERM);
	sigaddset(&waited_for, SIGINT);
	sigprocmask(SIG_BLOCK, &waited_for, NULL);
	return master_run(m);
}

int
main(int argc, char **argv)
{
	static const struct option longs[] = { { "help", no_argument, NULL, 'h' }, { 0 } };
	static struct master m;
	const char *file = NULL, *path = NULL, *table = NULL;
	struct err e = { 0 };
	int c = 0, processes = 0;
	bool check = false;

	while ((c = getopt_long(argc, argv, "c:l:m:nT:Vh", longs, NULL)) != -1) {
		if (c == 'c')
			file = optarg;
		else if (c == 'l')
			path = optarg;
		else if (c == 'm')
			processes = (int)strtol(optarg, NULL, 10);
		else if (c == 'n')
			check = true;
		else if (c == 'T')
			table = optarg;
		else if (c == 'V')
			return printf("hutch-gateway %s\n", PACKAGE_VERSION) < 0;
		else {
			usage(c == 'h' ? stdout : stderr);
			return c == 'h' ? 0 : 2;
		}
	}
	if (optind < argc || processes < 0 || processes > PROCESSES_MAX) {
		usage(stderr);
		return 2;
	}
	log_open("gateway", LOG_LEVEL_INFO);
	if (table)
		return print_table(table);
	m.file = file;
	m.mem = talloc_new(NULL);
	m.conf = conf_load(m.mem, file, &e);
	if (!m.conf)
		log_error(NULL, "%s", e.text);
	c = !m.conf ? 1 : check ? 0 : start(&m, path, processes);
	talloc_free(m.mem);
	return c;
}
