/* egress.c - see egress.h. */
#include "confine.h"
#include "egress_own.h"
#include "landlock.h"
#include "priv_wire.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>

enum { FILES = 32768, RESOLV_MAX = 4096 };

/* "nameserver 192.0.2.1" lines, or addresses of agent.resolver; IPv4 only, as the capsules are. */
static void
servers_read(struct egress *g, const char *configured)
{
	char text[RESOLV_MAX] = "", *word, *rest = text;
	bool named = *configured != '\0';

	if (named)
		snprintf(text, sizeof text, "%s", configured);
	else {
		auto_fd fd = open("/etc/resolv.conf", O_RDONLY | O_CLOEXEC);
		ssize_t n = fd < 0 ? -1 : read(fd, text, sizeof text - 1);

		text[n > 0 ? n : 0] = '\0';
	}
	while ((word = strsep(&rest, " \t\n,")) && g->servers < SERVERS_MAX) {
		if (strcmp(word, "nameserver") == 0)
			named = true;
		else if (named && inet_pton(AF_INET, word, &g->server[g->servers]) == 1)
			g->servers++;
	}
}

static int
outlet_free(struct outlet *o)
{
	int i;

	TAILQ_REMOVE(&o->egress->outlets, o, link);
	for (i = 0; i < EGRESS_FDS; i++) {
		TALLOC_FREE(o->watch[i]);
		close(o->fd[i]);
	}
	return 0;
}

static struct outlet *
outlet_find(struct egress *g, const char *key)
{
	struct outlet *o;

	TAILQ_FOREACH(o, &g->outlets, link)
	if (strcmp(o->key, key) == 0)
		return o;
	return NULL;
}

static struct outlet *
outlet_add(struct egress *g, const char *key, const int fd[EGRESS_FDS])
{
	static void (*const ready[EGRESS_FDS])(
	    void *, int) = { dns_packet, dns_accept, proxy_accept };
	struct outlet *o = talloc_zero(g, struct outlet);
	int i;

	o->egress = g;
	snprintf(o->key, sizeof o->key, "%s", key);
	TAILQ_INIT(&o->conns);
	TAILQ_INSERT_TAIL(&g->outlets, o, link);
	for (i = 0; i < EGRESS_FDS; i++) {
		o->fd[i] = fd[i];
		o->watch[i] = watch_new(o, g->loop, fd[i], UV_READABLE, ready[i], o);
	}
	talloc_set_destructor(o, outlet_free);
	return o;
}

/* Names behind the record; they were checked by the agent, and are bounded all the same. */
static void
names_read(struct outlet *o, char (**list)[NET_NAME], uint32_t *count, uint32_t want,
    const char **p, const char *end)
{
	size_t n;

	TALLOC_FREE(*list);
	*count = 0;
	*list = talloc_zero_size(o, sizeof **list * NET_ENTRIES);
	while (*count < want && *count < NET_ENTRIES && *p < end) {
		n = strnlen(*p, (size_t)(end - *p));
		snprintf((*list)[(*count)++], NET_NAME, "%.*s", (int)n, *p);
		*p += n + 1;
	}
}

static void
record(struct egress *g, const struct egress_record *r, const char *names, const char *end,
    const int *fd, int fds)
{
	struct outlet *o = outlet_find(g, r->key);
	int i;

	if (r->op == EGRESS_ADD && fds == EGRESS_FDS) {
		talloc_free(o);
		o = outlet_add(g, r->key, fd);
	} else
		for (i = 0; i < fds; i++)
			close(fd[i]);
	if (!o)
		return;
	if (r->op == EGRESS_DROP) {
		talloc_free(o);
		return;
	}
	o->policy.rules = r->rules;
	names_read(o, &o->policy.allow_name, &o->policy.allow_names, r->allow_names, &names, end);
	names_read(o, &o->policy.deny_name, &o->policy.deny_names, r->deny_names, &names, end);
	proxy_review(o);
}

static void
on_control(void *arg, int events)
{
	static struct {
		struct egress_record r;
		char names[2 * NET_ENTRIES * NET_NAME];
	} packet;
	struct egress *g = arg;
	int fd[PRIV_FDS + 1], n = 0;
	ssize_t k = priv_receive(g->control, &packet, sizeof packet, fd, &n);

	(void)events;
	if (k == 0 || (k < 0 && errno != EAGAIN && errno != EINTR))
		_exit(0); /* the agent is gone; the next one starts another */
	if (k < (ssize_t)sizeof packet.r || packet.r.rules.allows > NET_ENTRIES ||
	    packet.r.rules.denies > NET_ENTRIES)
		return;
	packet.r.key[EGRESS_KEY - 1] = '\0';
	record(g, &packet.r, packet.names, (const char *)&packet + k, fd, n);
}

void
egress_main(const struct conf *conf, int control, int landlock)
{
	static const char *const read[] = { "/etc", NULL }, *const devices[] = { NULL };
	struct egress *g = talloc_zero(NULL, struct egress);
	struct rlimit files = { FILES, FILES };
	struct err e = { 0 };
	sigset_t none;

	sigemptyset(&none);
	(void)sigprocmask(SIG_SETMASK, &none, NULL);
	(void)signal(SIGPIPE, SIG_IGN);
	/* the agent ends it by closing the socket */
	(void)signal(SIGINT, SIG_IGN);
	(void)signal(SIGTERM, SIG_IGN);
	(void)prctl(PR_SET_NAME, "hutch-egress", 0, 0, 0);
	if (setrlimit(RLIMIT_NOFILE, &files) < 0) {
		(void)getrlimit(RLIMIT_NOFILE, &files);
		files.rlim_cur = files.rlim_max;
		(void)setrlimit(RLIMIT_NOFILE, &files);
	}
	TAILQ_INIT(&g->outlets);
	g->control = control;
	g->loop = uv_loop_new();
	g->link = netlink_open(g, &e);
	servers_read(g, conf->agent_resolver);
	if (!g->link || (landlock && landlock_enter(landlock, true, read, devices, NULL, 0) < 0)) {
		dprintf(2, "hutch-egress: cannot start: %s\n", e.text);
		_exit(1);
	}
	(void)fcntl(control, F_SETFL, O_NONBLOCK);
	(void)watch_new(g, g->loop, control, UV_READABLE, on_control, g);
	(void)uv_run(g->loop, UV_RUN_DEFAULT);
	_exit(0);
}
