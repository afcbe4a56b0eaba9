/*
 * main.c - hutch-guest: the first program in every capsule, and its only way to the outside.
 *
 * As pid 1 it brings the machine up, then serves the virtio-serial port "hutch.0". With
 * --listen-unix it serves a socket instead, for tests without a machine.
 */
#include "cleanup.h"
#include "err.h"
#include "front.h"
#include "init.h"
#include "link.h"
#include "log.h"
#include "loop.h"
#include "process.h"
#include "resume.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <sys/wait.h>

#define PORT "hutch.0"

/* How process 1 ends: as SIGUSR1, SIGUSR2 (halt, poweroff) or SIGTERM, SIGINT (reboot) said. */
static bool power_off;

static void
reap(void)
{
	int status = 0;
	pid_t pid = 0;

	while ((pid = waitpid(-1, &status, WNOHANG)) > 0)
		if (!resume_died(pid))
			process_died(pid, status);
}

static void
signal_ready(void *arg, uint32_t events)
{
	struct watch *w = arg;
	struct signalfd_siginfo s;

	(void)events;
	while (read(w->fd, &s, sizeof s) == (ssize_t)sizeof s) {
		if (s.ssi_signo == SIGCHLD)
			reap();
		else {
			power_off = s.ssi_signo == SIGUSR1 || s.ssi_signo == SIGUSR2;
			loop_end();
		}
	}
}

static int
signals_watch(struct err *e)
{
	static struct watch w;
	sigset_t set;
	int fd = -1;

	(void)sigemptyset(&set);
	(void)sigaddset(&set, SIGCHLD);
	(void)sigaddset(&set, SIGTERM);
	(void)sigaddset(&set, SIGINT);
	(void)sigaddset(&set, SIGUSR1);
	(void)sigaddset(&set, SIGUSR2);
	(void)signal(SIGPIPE, SIG_IGN);
	(void)sigprocmask(SIG_BLOCK, &set, NULL);
	fd = signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC);
	if (fd < 0)
		return err_sys(e, "signalfd");
	w = (struct watch){ .fd = fd, .fn = signal_ready, .arg = &w };
	watch_set(&w, EPOLLIN);
	return 0;
}

/* Without these a first open() would get one of the numbers that programs write to. */
static void
standard_files(void)
{
	int fd = -1;

	do
		fd = open("/dev/null", O_RDWR | O_CLOEXEC);
	while (fd >= 0 && fd < 3);
	cleanup_fd(&fd);
}

/* Of the test program: HTTP/1.1 on this TCP port (0: not), and the token it adds. */
static int tcp_port;
static const char *tcp_token;

static void
flush_all(void)
{
	link_flush_all();
#ifdef GUEST_FRONT
	front_flush_all();
#endif
}

static int
serve(const char *socket_path)
{
	struct err e = { 0 };
	int rc = signals_watch(&e);

	(void)umask(022);
#ifdef GUEST_FRONT
	if (rc == 0 && tcp_port)
		rc = front_listen(tcp_port, tcp_token, &e);
#endif
	if (rc == 0 && (socket_path || !tcp_port))
		rc = socket_path ? link_listen_unix(socket_path, &e) : link_open_port(PORT, &e);
	if (rc < 0) {
		log_error(NULL, "%s", e.text);
		return -1;
	}
	log_info(NULL, "version %s serves %s", PACKAGE_VERSION, socket_path ? socket_path : PORT);
	loop_run(flush_all);
	return 0;
}

static int
usage(FILE *f)
{
	(void)fputs(
	    "usage: hutch-guest [--listen-unix PATH]\n"
	    "The agent inside a capsule. Started as process 1 it brings the machine up and\n"
	    "serves the virtio-serial port " PORT "; with --listen-unix a socket, for tests.\n"
#ifdef GUEST_FRONT
	    "  --listen-tcp PORT   HTTP/1.1 on 127.0.0.1, for clients without a machine\n"
	    "  --token TEXT        added to requests there that have none\n"
#endif
	    "  -V, --version   the version\n"
	    "  -h, --help      this text\n",
	    f);
	return f == stdout ? 0 : 2;
}

int
main(int argc, char **argv)
{
	static const struct option options[] = {
		{ "listen-unix", required_argument, NULL, 'l' },
#ifdef GUEST_FRONT
		{ "listen-tcp", required_argument, NULL, 't' },
		{ "token", required_argument, NULL, 'k' },
#endif
		{ "version", no_argument, NULL, 'V' },
		{ "help", no_argument, NULL, 'h' },
		{ 0 },
	};
	const char *path = NULL;
	int o = 0;

	log_open("guest", LOG_LEVEL_INFO);
	if (getpid() == 1) {
		init_root();
		standard_files();
		init_system();
		(void)serve(NULL);
		init_end(power_off);
	}
	while ((o = getopt_long(argc, argv, "hV", options, NULL)) != -1) {
		if (o == 'l')
			path = optarg;
		else if (o == 't')
			tcp_port = (int)strtol(optarg, NULL, 10);
		else if (o == 'k')
			tcp_token = optarg;
		else if (o == 'V')
			return puts("hutch-guest " PACKAGE_VERSION) < 0;
		else
			return usage(o == 'h' ? stdout : stderr);
	}
	standard_files();
	return serve(path) < 0;
}
