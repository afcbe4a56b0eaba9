/* priv.c - see priv.h. The agent's side; the launcher's is priv_serve.c. */
#include "conf.h"
#include "cleanup.h"
#include "loop.h"
#include "priv_wire.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <inttypes.h>
#include <pwd.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>

enum { CALL_TIMEOUT_SEC = 60 };

int
priv_send(int sock, const void *p, size_t len, const int *fd, int n)
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
	return TEMP_FAILURE_RETRY(sendmsg(sock, &m, MSG_NOSIGNAL)) == (ssize_t)len ? 0 : -1;
}

ssize_t
priv_receive(int sock, void *p, size_t len, int *fd, int *n)
{
	char control[CMSG_SPACE(sizeof(int) * (PRIV_FDS + 1))];
	struct iovec io = { .iov_base = p, .iov_len = len };
	struct msghdr m = { .msg_iov = &io,
		.msg_iovlen = 1,
		.msg_control = control,
		.msg_controllen = sizeof control };
	struct cmsghdr *c;
	ssize_t k = TEMP_FAILURE_RETRY(recvmsg(sock, &m, MSG_CMSG_CLOEXEC));

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
priv_start(void *mem, const struct conf *conf, const struct posture *posture, struct err *e)
{
	struct priv *p = talloc_zero(mem, struct priv);
	struct timeval wait = { .tv_sec = CALL_TIMEOUT_SEC };
	int calls[2], exits[2];
	pid_t pid;

	p->conf = conf;
	p->posture = posture;
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
		priv_serve(p);
	talloc_set_destructor(p, priv_free);
	(void)setsockopt(p->calls, SOL_SOCKET, SO_RCVTIMEO, &wait, sizeof wait);
	(void)fcntl(p->exits, F_SETFL, O_NONBLOCK);
	if (priv_separate(p) && *conf->agent_user && drop(conf->agent_user, e) < 0)
		return NULL;
	return p;
}

int
priv_separate(const struct priv *p)
{
	return p->posture->cage.separate;
}

static void
on_exits(void *arg, int events)
{
	struct priv *p = arg;
	struct priv_exited x;
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

/* got: room for `want` descriptors, which must come. */
static pid_t
ask(struct priv *p, struct priv_call *c, const int *fd, int *got, int want, struct err *e)
{
	struct priv_answer a;
	int all[PRIV_FDS + 1], n = 0, i;

	if (priv_send(p->calls, c, offsetof(struct priv_call, argv) + c->len, fd, (int)c->fds) < 0)
		return err_sys(e, "launcher");
	if (priv_receive(p->calls, &a, sizeof a, all, &n) != sizeof a) {
		/* what it does now nobody would know of: a new agent adopts all, removes the rest
		 */
		dprintf(2, "hutch-agent: the launcher does not answer: %s\n", strerror(errno));
		_exit(1);
	}
	if (a.pid > 0 && n == want) {
		for (i = 0; i < n; i++)
			got[i] = all[i];
		return a.pid;
	}
	for (i = 0; i < n; i++)
		close(all[i]);
	if (a.pid > 0)
		return err_set(e, E_SYSTEM, "launcher: %d descriptors instead of %d", n, want);
	a.why[sizeof a.why - 1] = '\0';
	return err_set(e, E_QEMU, "%s", a.why);
}

pid_t
priv_spawn(struct priv *p, const struct priv_spawn *s, int *ret_pidfd, struct err *e)
{
	static struct priv_call c;
	int fd[PRIV_FDS + 1];

	if (s->argv_len > sizeof c.argv || s->fds > PRIV_FDS)
		return err_set(e, E_BUG, "command line is too long");
	c = (struct priv_call){ .op = OP_SPAWN,
		.uid = s->uid,
		.size = s->size,
		.tap = s->tap,
		.fds = s->fds + 1,
		.len = s->argv_len };
	memcpy(c.argv, s->argv, s->argv_len);
	memcpy(fd, s->fd, sizeof s->fd[0] * s->fds);
	fd[s->fds] = s->log;
	return ask(p, &c, fd, ret_pidfd, 1, e);
}

int
priv_check(struct priv *p, pid_t pid, uint64_t start, uid_t uid, const struct cage_size *size,
    struct err *e)
{
	struct priv_call c = {
		.op = OP_CHECK, .pid = pid, .start = start, .uid = uid, .size = *size
	};

	return ask(p, &c, NULL, NULL, 0, e) < 0 ? -1 : 0;
}

int
priv_network(struct priv *p, pid_t pid, uint64_t start, const struct net_rules *r, bool fresh,
    int fd[PRIV_NET_FDS], struct err *e)
{
	struct priv_call c = { .op = OP_NETWORK,
		.pid = pid,
		.start = start,
		.fresh = fresh,
		.sockets = fd != NULL,
		.len = sizeof *r };

	c.rules = *r;
	return ask(p, &c, NULL, fd, fd ? PRIV_NET_FDS : 0, e) < 0 ? -1 : 0;
}

int
priv_egress(struct priv *p, struct err *e)
{
	struct priv_call c = { .op = OP_EGRESS };
	int fd = -1;

	return ask(p, &c, NULL, &fd, 1, e) < 0 ? -1 : fd;
}

void
priv_sweep(struct priv *p)
{
	struct priv_call c = { .op = OP_SWEEP };
	struct err e = { 0 };

	(void)ask(p, &c, NULL, NULL, 0, &e);
}

int
priv_kill(struct priv *p, pid_t pid, uint64_t start, struct err *e)
{
	struct priv_call c = { .op = OP_KILL, .pid = pid, .start = start };

	return ask(p, &c, NULL, NULL, 0, e) < 0 ? -1 : 0;
}
