/* net.c - see net.h. */
#include "net.h"
#include "capsule.h"
#include "egress.h"
#include "posture.h"
#include "priv.h"
#include "vm.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>

enum { POLICY_MAX = 256 * 1024, PACKET_ROOM = 1 << 20, AGAIN_MS = 500 };

struct network {
	struct agent *agent;
	int fd; /* of the proxy's process; -1: it ended */
	struct watch *watch;
	struct timer *again;
};

static void network_begin(void *);

/* The proxy: one packet each change. */

static void
network_broken(void *arg, int events)
{
	struct network *n = arg;
	char c;

	(void)events;
	if (recv(n->fd, &c, 1, MSG_DONTWAIT) > 0 || errno == EAGAIN)
		return;
	log_error(NULL, "the proxy of the capsules' networks ended; another is started");
	TALLOC_FREE(n->watch);
	close(n->fd);
	n->fd = -1;
	TALLOC_FREE(n->again);
	n->again = timer_new(n, n->agent->loop, AGAIN_MS, 0, network_begin, n);
}

/* Also after the first one ended: then all VMs are told to it again. */
static void
network_begin(void *arg)
{
	struct network *n = arg;
	struct agent *a = n->agent;
	struct err e = { 0 };
	int room = PACKET_ROOM;
	struct vm *vm;

	n->fd = priv_egress(a->priv, &e);
	if (n->fd < 0) {
		log_error(NULL, "proxy: %s", e.text);
		return;
	}
	(void)setsockopt(n->fd, SOL_SOCKET, SO_SNDBUF, &room, sizeof room);
	n->watch = watch_new(n, a->loop, n->fd, UV_READABLE, network_broken, n);
	TAILQ_FOREACH(vm, &a->vms, link)
	{
		e = (struct err){ 0 };
		if (*vm->net_of && net_renew(a, vm, vm->net_of, &e) < 0)
			log_error(NULL, "vm %s: %s", vm->name, e.text);
	}
}

int
net_start(struct agent *a, struct err *e)
{
	(void)mkdirat(a->state_fd, "network", 0700);
	if (!a->posture->cage.tap)
		return 0;
	a->network = talloc_zero(a, struct network);
	a->network->agent = a;
	network_begin(a->network);
	return a->network->fd < 0 ? err_set(e, E_SYSTEM, "the proxy does not start") : 0;
}

static void
names(struct buf *b, char (*name)[NET_NAME], uint32_t n)
{
	uint32_t i;

	for (i = 0; i < n; i++)
		buf_add(b, name[i], strlen(name[i]) + 1);
}

static int
tell(struct network *n, enum egress_op op, const struct vm *vm, const struct net_policy *p,
    const int *fd, struct err *e)
{
	struct egress_record r = { .op = op };
	auto_talloc char *mem = talloc_new(NULL);
	struct buf b = BUF(mem);
	char control[CMSG_SPACE(sizeof(int) * EGRESS_FDS)] = { 0 };
	struct iovec io;
	struct msghdr m = { .msg_iov = &io, .msg_iovlen = 1 };
	struct cmsghdr *c;

	snprintf(r.key, sizeof r.key, "%s", vm->name);
	if (p) {
		r.rules = p->rules;
		r.allow_names = p->allow_names;
		r.deny_names = p->deny_names;
	}
	buf_add(&b, &r, sizeof r);
	if (p) {
		names(&b, p->allow_name, p->allow_names);
		names(&b, p->deny_name, p->deny_names);
	}
	io = (struct iovec){ b.data, b.len };
	if (fd) {
		m.msg_control = control;
		m.msg_controllen = sizeof control;
		c = CMSG_FIRSTHDR(&m);
		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = SCM_RIGHTS;
		c->cmsg_len = CMSG_LEN(sizeof(int) * EGRESS_FDS);
		memcpy(CMSG_DATA(c), fd, sizeof(int) * EGRESS_FDS);
	}
	if (n->fd < 0 || sendmsg(n->fd, &m, MSG_NOSIGNAL | MSG_DONTWAIT) != (ssize_t)b.len)
		return err_sys(e, "proxy of the capsules' networks");
	return 0;
}

/* Policies on disk. */

static void
path_of(const char *capsule, const char *suffix, char ret[80])
{
	snprintf(ret, 80, "network/%.50s%s", capsule, suffix);
}

int
net_keep(struct agent *a, const char *capsule, struct json_object *j, struct err *e)
{
	auto_talloc char *mem = talloc_new(NULL);
	const char *text = j ? json_object_to_json_string_ext(j, JSON_C_TO_STRING_PLAIN) : "{}";
	char path[80], temporary[80];
	auto_fd fd = -1;

	if (!net_policy_read(mem, j, e))
		return -1;
	path_of(capsule, "", path);
	path_of(capsule, ".new", temporary);
	fd = openat(a->state_fd, temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	if (fd < 0 || write(fd, text, strlen(text)) != (ssize_t)strlen(text) || fdatasync(fd) < 0 ||
	    renameat(a->state_fd, temporary, a->state_fd, path) < 0)
		return err_sys(e, "%s", path);
	return 0;
}

static struct net_policy *
policy_of(struct agent *a, void *mem, const char *capsule, struct err *e)
{
	char path[80], *text = talloc_size(mem, POLICY_MAX);
	auto_fd fd = -1;
	struct json_object *j;
	ssize_t n;

	path_of(capsule, "", path);
	fd = openat(a->state_fd, path, O_RDONLY | O_CLOEXEC);
	if (fd < 0) {
		log_warn(
		    NULL, "capsule %s: no network policy is kept, it reaches nothing", capsule);
		return talloc_zero(mem, struct net_policy);
	}
	n = read(fd, text, POLICY_MAX);
	if (n < 0) {
		err_sys(e, "%s", path);
		return NULL;
	}
	j = json_parse(mem, text, (size_t)n, NULL, e);
	return j ? net_policy_read(mem, j, e) : NULL;
}

int
net_open(struct agent *a, struct vm *vm, const char *capsule, struct err *e)
{
	return strcmp(vm->net_of, capsule) == 0 ? 0 : net_renew(a, vm, capsule, e);
}

int
net_renew(struct agent *a, struct vm *vm, const char *capsule, struct err *e)
{
	auto_talloc char *mem = talloc_new(NULL);
	bool fresh = !*vm->net_of && !vm_is_adopted(vm);
	struct net_policy *p;
	int fd[EGRESS_FDS], i, rc;

	if (!a->network)
		return 0;
	p = policy_of(a, mem, capsule, e);
	if (!p || priv_network(a->priv, vm->pid, vm->start, &p->rules, fresh, fd, e) < 0)
		return -1;
	snprintf(vm->net_of, sizeof vm->net_of, "%s", capsule);
	rc = tell(a->network, EGRESS_ADD, vm, p, fd, e);
	for (i = 0; i < EGRESS_FDS; i++)
		close(fd[i]);
	return rc;
}

void
net_close(struct vm *vm)
{
	struct err e = { 0 };

	if (vm->agent->network && *vm->net_of)
		(void)tell(vm->agent->network, EGRESS_DROP, vm, NULL, NULL, &e);
	*vm->net_of = '\0';
}

void
net_sweep(struct agent *a)
{
	auto_fd fd = openat(a->state_fd, "network", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *d = fd < 0 || !a->journal_complete ? NULL : fdopendir(dup(fd));
	const struct capsule *c;
	struct dirent *entry;

	while (d && (entry = readdir(d))) {
		c = capsule_find(a, entry->d_name);
		if (entry->d_name[0] != '.' && (!c || (c->state == CAP_GONE && !c->op)))
			(void)unlinkat(fd, entry->d_name, 0);
	}
	if (d)
		closedir(d);
}
