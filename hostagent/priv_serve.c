/*
 * priv_serve.c - the launcher's side of priv.h: the process with the privileges.
 *
 * Its records come from the agent, but are checked all the same: lengths, the range of user ids,
 * and that a pid is still the process it was, under one of those ids.
 */
#include "cleanup.h"
#include "conf.h"
#include "egress.h"
#include "priv_wire.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pwd.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>

enum { MAX_ARGS = 160, READY_MAX = 8, REFILL_MS = 30, NOBODY = 65534, FD_ABOVE = 100 };
enum { CLOSE_ON_EXEC = 4 }; /* CLOSE_RANGE_CLOEXEC */

struct child {
	pid_t pid;
	uid_t uid;
	uint32_t memory_mb;
};

static struct child *children;
static size_t child_count;

/* Networks made ahead: making one takes longer than starting QEMU. */
static struct {
	struct netns net[READY_MAX];
	int count, want;
	bool failed;
} ready;

static bool
in_range(const struct priv *p, uid_t uid)
{
	uid_t first = (uid_t)p->conf->agent_uid_first;

	return uid >= first && uid - first < (uid_t)p->conf->agent_uid_count;
}

static struct net_plan *
plan(const struct priv *p)
{
	return (struct net_plan *)&p->posture->plan;
}

/* What a child that could not become QEMU says through its pipe. */
struct failure {
	int error;
	char what[48];
};

static void __attribute__((noreturn)) give_up(int pipe, const char *what)
{
	struct failure f = { .error = errno };

	snprintf(f.what, sizeof f.what, "%s", what);
	(void)!write(pipe, &f, sizeof f);
	_exit(126);
}

/* In the child, between fork and exec: descriptors, cage, exec. */
static void __attribute__((noreturn)) become(const struct priv *p, const struct priv_call *c,
    char **argv, const int *fd, int fds, int log, int netns, int pipe)
{
	static char *const env[] = { "PATH=/usr/bin:/bin", "LC_ALL=C", NULL };
	int high[PRIV_FDS + 2], i, null = open("/dev/null", O_RDWR);
	const char *what = "";

	/* out of the way first, so that no dup2 hits a descriptor that is still needed */
	pipe = fcntl(pipe, F_DUPFD_CLOEXEC, FD_ABOVE);
	log = fcntl(log, F_DUPFD, FD_ABOVE);
	netns = netns >= 0 ? fcntl(netns, F_DUPFD, FD_ABOVE) : -1;
	for (i = 0; i < fds; i++)
		high[i] = fcntl(fd[i], F_DUPFD, FD_ABOVE);
	if (null < 0 || dup2(null, 0) < 0 || dup2(log, 1) < 0 || dup2(log, 2) < 0)
		give_up(pipe, "have its descriptors");
	for (i = 0; i < fds; i++)
		if (dup2(high[i], 3 + i) < 0)
			give_up(pipe, "have its descriptors");
	for (i = 0; i < fds; i++)
		high[i] = 3 + i;
	(void)syscall(SYS_close_range, 3 + fds, ~0U, CLOSE_ON_EXEC);
	sigset_t none;
	sigemptyset(&none);
	(void)sigprocmask(SIG_SETMASK, &none, NULL);
	(void)signal(SIGPIPE, SIG_DFL);
	(void)setsid();
	(void)umask(077);
	if (confine_self(&p->posture->cage, c->uid, &c->size, netns, high, fds, &what) < 0)
		give_up(pipe, what);
	execve(argv[0], argv, env);
	give_up(pipe, "run QEMU");
}

/* Waits until the child has become QEMU or said why it could not. */
static int
wait_exec(pid_t pid, int pipe, struct err *e)
{
	struct failure f = { 0 };
	ssize_t n = read(pipe, &f, sizeof f);

	if (n == 0)
		return 0;
	(void)waitpid(pid, NULL, 0);
	f.what[sizeof f.what - 1] = '\0';
	return err_set(e, E_QEMU, "QEMU's process cannot %s: %s", n > 0 ? f.what : "start",
	    strerror(n > 0 ? f.error : EIO));
}

static int
argv_read(const struct priv *p, struct priv_call *c, char *argv[MAX_ARGS + 1], struct err *e)
{
	size_t at = 0;
	int n = 0;

	if (!c->fds || !c->len || c->len > sizeof c->argv || c->argv[c->len - 1] ||
	    (p->posture->cage.separate && !in_range(p, c->uid)))
		return err_set(e, E_BUG, "launcher: bad record");
	for (; at < c->len && n < MAX_ARGS; at += strlen(c->argv + at) + 1)
		argv[n++] = c->argv + at;
	return at < c->len ? err_set(e, E_BUG, "launcher: too many words") : 0;
}

static void
child_add(const struct priv_call *c, pid_t pid)
{
	children = realloc(children, sizeof *children * (child_count + 1));
	if (!children)
		abort();
	children[child_count++] =
	    (struct child){ .pid = pid, .uid = c->uid, .memory_mb = c->size.memory_mb };
}

static int
network_take(const struct priv *p, struct netns *ret, struct err *e)
{
	if (ready.count) {
		*ret = ready.net[--ready.count];
		return 0;
	}
	return netns_make(NULL, plan(p), ret, e);
}

static pid_t
spawn(const struct priv *p, struct priv_call *c, const int *fd, struct err *e)
{
	char *argv[MAX_ARGS + 1] = { 0 };
	int all[PRIV_FDS + 1], fds = (int)c->fds - 1, ends[2];
	struct netns net = { .ns = -1, .tap = -1 };
	struct cgroup_limits limits;
	pid_t pid = -1;

	if (argv_read(p, c, argv, e) < 0)
		return -1;
	confine_limits(&c->size, &limits);
	if (cgroup_make(&p->posture->cage.groups, c->uid, &limits, e) < 0)
		return -1;
	memcpy(all, fd, sizeof *fd * fds);
	if (c->tap) {
		if (!p->posture->cage.tap || network_take(p, &net, e) < 0)
			return err_set(e, E_QEMU, "no network can be made");
		all[fds++] = net.tap;
	}
	if (pipe2(ends, O_CLOEXEC) < 0)
		err_sys(e, "pipe");
	else {
		pid = fork();
		if (pid == 0)
			become(p, c, argv, all, fds, fd[c->fds - 1], net.ns, ends[1]);
		close(ends[1]);
		if (pid < 0)
			err_sys(e, "fork");
		else if (wait_exec(pid, ends[0], e) < 0)
			pid = -1;
		close(ends[0]);
	}
	/* from here on the process alone keeps its network */
	if (net.ns >= 0)
		close(net.ns);
	if (net.tap >= 0)
		close(net.tap);
	if (pid > 0)
		child_add(c, pid);
	return pid;
}

/* It is the process that the agent means, and one of ours. */
static int
known(const struct priv *p, const struct priv_call *c, struct err *e)
{
	char path[64];
	struct stat s;

	snprintf(path, sizeof path, "/proc/%d", (int)c->pid);
	if (c->pid <= 1 || stat(path, &s) < 0 || proc_start(c->pid) != c->start)
		return err_set(e, E_NOT_FOUND, "process %d has ended", (int)c->pid);
	if (p->posture->cage.separate && !in_range(p, s.st_uid))
		return err_set(e, E_BUG, "process %d is not a capsule's", (int)c->pid);
	return 0;
}

static int
network(const struct priv *p, const struct priv_call *c, int fd[PRIV_NET_FDS], struct err *e)
{
	const struct net_rules *r = &c->rules;
	char path[64];
	auto_fd ns = -1;

	if (c->len != sizeof *r || r->allows > NET_ENTRIES || r->denies > NET_ENTRIES ||
	    !p->posture->cage.tap)
		return err_set(e, E_BUG, "launcher: bad record");
	if (known(p, c, e) < 0)
		return -1;
	snprintf(path, sizeof path, "/proc/%d/ns/net", (int)c->pid);
	ns = open(path, O_RDONLY | O_CLOEXEC);
	if (ns < 0)
		return err_sys(e, "%s", path);
	return netns_set(NULL, plan(p), ns, r, c->fresh, c->sockets ? fd : NULL, e);
}

/* The proxy's process: an account without rights, and one socket. Never returns in the child. */
static int
egress(const struct priv *p, struct err *e)
{
	const struct passwd *pw = *p->conf->agent_user ? getpwnam(p->conf->agent_user) : NULL;
	const struct conf *conf = p->conf;
	int landlock = p->posture->cage.landlock, pair[2];
	pid_t pid;

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
		return err_sys(e, "socketpair");
	pid = fork();
	if (pid == 0) {
		int fd = dup2(pair[0], 3);

		(void)syscall(SYS_close_range, 4, ~0U, 0);
		if (fd < 0 ||
		    confine_user(pw ? pw->pw_uid : NOBODY, pw ? pw->pw_gid : NOBODY, 0) < 0 ||
		    prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
			_exit(126);
		egress_main(conf, fd, landlock);
	}
	close(pair[0]);
	if (pid < 0) {
		close(pair[1]);
		return err_sys(e, "fork");
	}
	return pair[1];
}

static bool
is_child(void *arg, uid_t uid)
{
	size_t i;

	(void)arg;
	for (i = 0; i < child_count; i++)
		if (children[i].uid == uid)
			return true;
	return false;
}

static void
serve_call(const struct priv *p)
{
	static struct priv_call c;
	struct priv_answer a = { .pid = -1 };
	int fd[PRIV_FDS + 1], back[PRIV_NET_FDS], n, i, backs = 0;
	ssize_t k = priv_receive(p->calls, &c, sizeof c, fd, &n);
	struct err e = { 0 };

	if (k <= 0)
		_exit(0); /* the agent is gone */
	if (k < (ssize_t)offsetof(struct priv_call, argv) || (uint32_t)n != c.fds ||
	    (size_t)k != offsetof(struct priv_call, argv) + c.len)
		(void)err_set(&e, E_BUG, "launcher: bad record");
	else if (c.op == OP_SPAWN && (a.pid = spawn(p, &c, fd, &e)) > 0) {
		back[0] = (int)syscall(SYS_pidfd_open, a.pid, 0);
		backs = back[0] >= 0;
	} else if (c.op == OP_KILL && known(p, &c, &e) == 0)
		a.pid = kill(c.pid, SIGKILL) == 0 ? c.pid : -1;
	else if (c.op == OP_CHECK && known(p, &c, &e) == 0)
		a.pid =
		    confine_check(&p->posture->cage, c.pid, c.uid, &c.size, &e) < 0 ? -1 : c.pid;
	else if (c.op == OP_NETWORK && network(p, &c, back, &e) == 0) {
		a.pid = c.pid;
		backs = c.sockets ? PRIV_NET_FDS : 0;
	} else if (c.op == OP_EGRESS && (back[0] = egress(p, &e)) >= 0) {
		a.pid = getpid();
		backs = 1;
	} else if (c.op == OP_SWEEP) {
		cgroup_sweep(&p->posture->cage.groups, is_child, NULL);
		a.pid = getpid();
	}
	snprintf(a.why, sizeof a.why, "%.199s", *e.text ? e.text : "launcher: refused");
	for (i = 0; i < n; i++)
		close(fd[i]);
	(void)priv_send(p->calls, &a, sizeof a, back, backs);
	for (i = 0; i < backs; i++)
		close(back[i]);
}

static void
reap(const struct priv *p, int signals)
{
	struct signalfd_siginfo info;
	struct priv_exited x;
	bool swept = false;
	size_t i;

	(void)!read(signals, &info, sizeof info);
	while ((x.pid = waitpid(-1, &x.status, WNOHANG)) > 0) {
		for (i = 0; i < child_count; i++)
			if (children[i].pid == x.pid) {
				children[i] = children[--child_count];
				swept = true;
				break;
			}
		(void)priv_send(p->exits, &x, sizeof x, NULL, 0);
	}
	if (swept)
		cgroup_sweep(&p->posture->cage.groups, is_child, NULL);
}

static void
refill(const struct priv *p)
{
	struct err e = { 0 };

	if (ready.count < ready.want && !ready.failed) {
		if (netns_make(NULL, plan(p), &ready.net[ready.count], &e) == 0)
			ready.count++;
		else
			ready.failed = true; /* the next start tells why */
	}
}

void
priv_serve(struct priv *p)
{
	struct pollfd pfd[2] = { { .fd = p->calls, .events = POLLIN }, { .events = POLLIN } };
	struct err e = { 0 };
	sigset_t set;
	int k;

	sigemptyset(&set);
	sigaddset(&set, SIGCHLD);
	(void)sigprocmask(SIG_BLOCK, &set, NULL);
	pfd[1].fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	/* stopping is the agent's decision: it closes the socket */
	(void)signal(SIGINT, SIG_IGN);
	(void)signal(SIGTERM, SIG_IGN);
	(void)signal(SIGHUP, SIG_IGN);
	(void)prctl(PR_SET_NAME, "hutch-priv", 0, 0, 0);
	if (p->posture->cage.tap && net_plan_open(p, plan(p), &e) < 0) {
		dprintf(2, "hutch-agent: %s\n", e.text);
		_exit(1);
	}
	ready.want = !p->posture->cage.tap             ? 0
	    : p->conf->agent_pool_size + 1 < READY_MAX ? (int)p->conf->agent_pool_size + 1
						       : READY_MAX;
	for (;;) {
		/* networks are made when nobody asks for anything */
		k = poll(pfd, 2, ready.count < ready.want && !ready.failed ? REFILL_MS : -1);
		if (k < 0 && errno != EINTR)
			_exit(1);
		if (k == 0)
			refill(p);
		if (k > 0 && pfd[1].revents)
			reap(p, pfd[1].fd);
		if (k > 0 && pfd[0].revents)
			serve_call(p);
	}
}
