/* priv.c - see priv.h. */
#include "priv.h"
#include "cleanup.h"
#include "loop.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <inttypes.h>
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

enum op { OP_SPAWN = 1, OP_KILL };
enum { CALL_TIMEOUT_SEC = 10, MAX_ARGS = 160 };

struct call {
	enum op op;
	uid_t uid;
	pid_t pid;
	uint64_t start;
	uint32_t fds, len; /* descriptors beside the record, the log last; bytes of argv */
	char argv[PRIV_ARGV];
};

struct answer {
	pid_t pid; /* or -1 */
	int error; /* errno */
};

struct exited {
	pid_t pid;
	int status;
};

struct priv {
	int calls, exits;
	int separate;
	uid_t first;
	uint32_t count;
	void (*on_exit)(void *, pid_t, int);
	void *arg;
};

/* Bytes and up to `n` descriptors as one packet. */
static int
packet_send(int sock, const void *p, size_t len, const int *fd, int n)
{
	char control[CMSG_SPACE(sizeof(int) * (PRIV_FDS + 1))] = { 0 };
	struct iovec io = { .iov_base = (void *)p, .iov_len = len };
	struct msghdr m = { .msg_iov = &io, .msg_iovlen = 1 };
	struct cmsghdr *c;

	if (n) {
		m.msg_control = control;
		m.msg_controllen = CMSG_SPACE(sizeof(int) * n);
		c = CMSG_FIRSTHDR(&m);
		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = SCM_RIGHTS;
		c->cmsg_len = CMSG_LEN(sizeof(int) * n);
		memcpy(CMSG_DATA(c), fd, sizeof(int) * n);
	}
	return sendmsg(sock, &m, MSG_NOSIGNAL) == (ssize_t)len ? 0 : -1;
}

/* One packet; *n: how many descriptors came. 0: the peer is gone. */
static ssize_t
packet_receive(int sock, void *p, size_t len, int *fd, int *n)
{
	char control[CMSG_SPACE(sizeof(int) * (PRIV_FDS + 1))];
	struct iovec io = { .iov_base = p, .iov_len = len };
	struct msghdr m = { .msg_iov = &io,
		.msg_iovlen = 1,
		.msg_control = control,
		.msg_controllen = sizeof control };
	struct cmsghdr *c;
	ssize_t k = recvmsg(sock, &m, MSG_CMSG_CLOEXEC);

	*n = 0;
	if (k <= 0)
		return k;
	c = CMSG_FIRSTHDR(&m);
	if (c && c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_RIGHTS) {
		*n = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
		memcpy(fd, CMSG_DATA(c), sizeof(int) * *n);
	}
	return k;
}

uint64_t
proc_start(pid_t pid)
{
	char path[64], text[1024], *p;
	uint64_t start = 0;
	ssize_t n;
	int i;

	snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
	auto_fd fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0 || (n = read(fd, text, sizeof text - 1)) <= 0)
		return 0;
	text[n] = '\0';
	/* behind the name, which may hold blanks and brackets, comes field 3 */
	p = strrchr(text, ')');
	for (i = 2; p && i < 22; i++)
		p = strchr(p + 1, ' ');
	if (!p || sscanf(p, " %" SCNu64, &start) != 1)
		return 0;
	return start;
}

/* The group that may use /dev/kvm, when the device is made that way. */
static gid_t
kvm_group(void)
{
	struct stat s;

	return stat("/dev/kvm", &s) == 0 && s.st_gid != 0 && (s.st_mode & 060) == 060 ? s.st_gid
										      : 0;
}

static void
limit(int what, rlim_t n)
{
	struct rlimit r = { .rlim_cur = n, .rlim_max = n };

	(void)setrlimit(what, &r);
}

static int
change_user(uid_t uid)
{
	gid_t kvm = kvm_group();

	if (setgroups(kvm ? 1 : 0, &kvm) < 0 || setresgid(uid, uid, uid) < 0 ||
	    setresuid(uid, uid, uid) < 0)
		return -1;
	/* it must not be possible to go back */
	return setuid(0) == 0 ? -1 : 0;
}

/* In the child, between fork and exec: descriptors, limits, identity. Never returns. */
static void
become(const struct priv *p, const struct call *c, char **argv, const int *fd)
{
	static char *const env[] = { "PATH=/usr/bin:/bin", "LC_ALL=C", NULL };
	int high[PRIV_FDS + 1], i, n = c->fds;
	int null = open("/dev/null", O_RDWR);

	/* out of the way first, so that no dup2 hits a descriptor that is still needed */
	for (i = 0; i < n; i++)
		high[i] = fcntl(fd[i], F_DUPFD, 100);
	if (null < 0 || dup2(null, 0) < 0 || dup2(high[n - 1], 1) < 0 || dup2(high[n - 1], 2) < 0)
		_exit(126);
	for (i = 0; i < n - 1; i++)
		if (dup2(high[i], 3 + i) < 0)
			_exit(126);
	(void)syscall(SYS_close_range, 3 + n - 1, ~0U, 0);
	sigset_t none;
	sigemptyset(&none);
	(void)sigprocmask(SIG_SETMASK, &none, NULL);
	(void)signal(SIGPIPE, SIG_DFL);
	(void)setsid();
	(void)umask(077);
	limit(RLIMIT_CORE, 0);
	limit(RLIMIT_NOFILE, 512);
	if (p->separate) {
		limit(RLIMIT_NPROC, 128);
		if (change_user(c->uid) < 0)
			_exit(125);
	}
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 || chdir("/") < 0)
		_exit(125);
	execve(argv[0], argv, env);
	dprintf(2, "hutch: exec %s: %s\n", argv[0], strerror(errno));
	_exit(127);
}

/* A record of ours, but checked all the same: this is the process with the privileges. */
static pid_t
spawn(const struct priv *p, struct call *c, const int *fd)
{
	char *argv[MAX_ARGS + 1] = { 0 };
	size_t at = 0;
	pid_t pid;
	int n = 0;

	if (!c->fds || !c->len || c->len > sizeof c->argv || c->argv[c->len - 1] ||
	    (p->separate && (c->uid < p->first || c->uid - p->first >= p->count))) {
		errno = EINVAL;
		return -1;
	}
	for (; at < c->len && n < MAX_ARGS; at += strlen(c->argv + at) + 1)
		argv[n++] = c->argv + at;
	if (at < c->len) {
		errno = E2BIG;
		return -1;
	}
	pid = fork();
	if (pid == 0)
		become(p, c, argv, fd);
	return pid;
}

static int
kill_checked(const struct priv *p, const struct call *c)
{
	char path[64];
	struct stat s;

	snprintf(path, sizeof path, "/proc/%d", (int)c->pid);
	if (c->pid <= 1 || stat(path, &s) < 0 || proc_start(c->pid) != c->start) {
		errno = ESRCH;
		return -1;
	}
	if (p->separate && (s.st_uid < p->first || s.st_uid - p->first >= p->count)) {
		errno = EPERM;
		return -1;
	}
	return kill(c->pid, SIGKILL);
}

static void
serve_call(const struct priv *p)
{
	static struct call c;
	struct answer a = { .pid = -1 };
	int fd[PRIV_FDS + 1], n, i;
	ssize_t k = packet_receive(p->calls, &c, sizeof c, fd, &n);
	auto_fd pidfd = -1;

	if (k <= 0)
		_exit(0); /* the agent is gone */
	errno = EINVAL;
	if (k >= (ssize_t)offsetof(struct call, argv) && (uint32_t)n == c.fds &&
	    (size_t)k == offsetof(struct call, argv) + c.len) {
		if (c.op == OP_SPAWN && (a.pid = spawn(p, &c, fd)) > 0)
			pidfd = (int)syscall(SYS_pidfd_open, a.pid, 0);
		else if (c.op == OP_KILL && kill_checked(p, &c) == 0)
			a.pid = c.pid;
	}
	a.error = errno;
	for (i = 0; i < n; i++)
		close(fd[i]);
	(void)packet_send(p->calls, &a, sizeof a, &pidfd, pidfd >= 0);
}

static void
reap(const struct priv *p, int signals)
{
	struct signalfd_siginfo info;
	struct exited x;

	(void)!read(signals, &info, sizeof info);
	while ((x.pid = waitpid(-1, &x.status, WNOHANG)) > 0)
		(void)packet_send(p->exits, &x, sizeof x, NULL, 0);
}

static void
serve(const struct priv *p)
{
	struct pollfd pfd[2] = { { .fd = p->calls, .events = POLLIN }, { .events = POLLIN } };
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGCHLD);
	(void)sigprocmask(SIG_BLOCK, &set, NULL);
	pfd[1].fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	/* stopping is the agent's decision: it closes the socket */
	(void)signal(SIGINT, SIG_IGN);
	(void)signal(SIGTERM, SIG_IGN);
	(void)signal(SIGHUP, SIG_IGN);
	(void)prctl(PR_SET_NAME, "hutch-priv", 0, 0, 0);
	for (;;) {
		if (poll(pfd, 2, -1) < 0 && errno != EINTR)
			_exit(1);
		if (pfd[1].revents)
			reap(p, pfd[1].fd);
		if (pfd[0].revents)
			serve_call(p);
	}
}

static int
priv_free(struct priv *p)
{
	close(p->calls);
	close(p->exits);
	return 0;
}

/* The agent's own account, once the launcher has been forked. */
static int
drop(const char *user, struct err *e)
{
	const struct passwd *pw = getpwnam(user);

	if (!pw)
		return err_set(e, E_CONFIG, "agent.user: no account %s", user);
	if (initgroups(user, pw->pw_gid) < 0 || setresgid(pw->pw_gid, pw->pw_gid, pw->pw_gid) < 0 ||
	    setresuid(pw->pw_uid, pw->pw_uid, pw->pw_uid) < 0)
		return err_sys(e, "become %s", user);
	(void)prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
	return 0;
}

struct priv *
priv_start(void *mem, uid_t first, uint32_t count, const char *user, struct err *e)
{
	struct priv *p = talloc_zero(mem, struct priv);
	struct timeval wait = { .tv_sec = CALL_TIMEOUT_SEC };
	int calls[2], exits[2];
	pid_t pid;

	p->first = first;
	p->count = count;
	p->separate = geteuid() == 0;
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, calls) < 0 ||
	    socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, exits) < 0) {
		err_sys(e, "socketpair");
		return NULL;
	}
	pid = fork();
	if (pid < 0) {
		err_sys(e, "fork");
		return NULL;
	}
	p->calls = calls[pid != 0];
	p->exits = exits[pid != 0];
	close(calls[pid == 0]);
	close(exits[pid == 0]);
	if (pid == 0)
		serve(p);
	talloc_set_destructor(p, priv_free);
	(void)setsockopt(p->calls, SOL_SOCKET, SO_RCVTIMEO, &wait, sizeof wait);
	(void)fcntl(p->exits, F_SETFL, O_NONBLOCK);
	if (p->separate && *user && drop(user, e) < 0)
		return NULL;
	return p;
}

int
priv_separate(const struct priv *p)
{
	return p->separate;
}

static void
on_exits(void *arg, int events)
{
	struct priv *p = arg;
	struct exited x;
	ssize_t k;

	(void)events;
	while ((k = recv(p->exits, &x, sizeof x, 0)) == sizeof x)
		p->on_exit(p->arg, x.pid, x.status);
	if (k == 0) {
		/* without the launcher nothing can be started or killed: a new agent adopts all */
		dprintf(2, "hutch-agent: the launcher is gone\n");
		_exit(1);
	}
}

void
priv_watch(struct priv *p, uv_loop_t *loop, void (*on_exit)(void *, pid_t, int), void *arg)
{
	p->on_exit = on_exit;
	p->arg = arg;
	(void)watch_new(p, loop, p->exits, UV_READABLE, on_exits, p);
}

static pid_t
ask(struct priv *p, struct call *c, const int *fd, int *ret_pidfd, struct err *e)
{
	struct answer a;
	int got[PRIV_FDS + 1], n;

	if (packet_send(p->calls, c, offsetof(struct call, argv) + c->len, fd, (int)c->fds) < 0 ||
	    packet_receive(p->calls, &a, sizeof a, got, &n) != sizeof a)
		return err_sys(e, "launcher");
	if (a.pid <= 0) {
		errno = a.error;
		return err_sys(e, "launcher");
	}
	if (ret_pidfd && n == 1)
		*ret_pidfd = got[0];
	else if (ret_pidfd)
		return err_set(e, E_SYSTEM, "launcher: no pidfd");
	return a.pid;
}

pid_t
priv_spawn(struct priv *p, const struct priv_spawn *s, int *ret_pidfd, struct err *e)
{
	static struct call c;
	int fd[PRIV_FDS + 1];

	if (s->argv_len > sizeof c.argv || s->fds > PRIV_FDS)
		return err_set(e, E_BUG, "command line is too long");
	c = (struct call){ .op = OP_SPAWN, .uid = s->uid, .fds = s->fds + 1, .len = s->argv_len };
	memcpy(c.argv, s->argv, s->argv_len);
	memcpy(fd, s->fd, sizeof s->fd[0] * s->fds);
	fd[s->fds] = s->log;
	return ask(p, &c, fd, ret_pidfd, e);
}

int
priv_kill(struct priv *p, pid_t pid, uint64_t start, struct err *e)
{
	struct call c = { .op = OP_KILL, .pid = pid, .start = start };

	return ask(p, &c, NULL, NULL, e) < 0 ? -1 : 0;
}
