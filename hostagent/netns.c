/* netns.c - see netns.h. */
#include "netns.h"
#include "cleanup.h"
#include "netlink.h"
#include "nft.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

/* What {} means: most capsules have it, so that a new network needs no change. */
static const struct net_rules common = { .internet = 1, .open = 1 };

enum { SLOT_FIRST = 2, BACKLOG = 128, SLOT_TRIES = 4096 };

int
net_plan_read(struct net_plan *p, const char *network, uint32_t mb_per_sec, struct err *e)
{
	char address[INET_ADDRSTRLEN + 1];
	const char *slash = strchr(network, '/');
	unsigned long bits = slash ? strtoul(slash + 1, NULL, 10) : 0;
	struct in_addr a;

	*p = (struct net_plan){ .host = -1, .mb_per_sec = mb_per_sec, .bits = (uint32_t)bits };
	snprintf(address, sizeof address, "%.*s", slash ? (int)(slash - network) : 0, network);
	if (bits < 8 || bits > 24 || inet_pton(AF_INET, address, &a) != 1)
		return err_set(
		    e, E_CONFIG, "agent.network \"%.40s\" is no network of 8 to 24 bits", network);
	p->pool = ntohl(a.s_addr) & ~0U << (32 - bits);
	if (!net_never(p->pool))
		return err_set(e, E_CONFIG, "agent.network %.40s is not private", network);
	return 0;
}

static int
sysctl(const char *path, const char *value)
{
	auto_fd fd = open(path, O_WRONLY | O_CLOEXEC);

	return fd >= 0 && write(fd, value, strlen(value)) > 0 ? 0 : -1;
}

static bool
forwards(void)
{
	auto_fd fd = open("/proc/sys/net/ipv4/ip_forward", O_RDONLY | O_CLOEXEC);
	char c = '0';

	return fd >= 0 && read(fd, &c, 1) == 1 && c == '1';
}

int
net_host_prepare(const struct net_plan *p, struct err *e)
{
	auto_talloc char *tmp = talloc_new(NULL);
	struct buf b = BUF(tmp);

	/* a host that forwarded nothing goes on to forward nothing but ours */
	nft_host(&b, p->pool, p->bits, !forwards() || nft_host_closed());
	if (nft_apply(&b, e) < 0)
		return -1;
	if (sysctl("/proc/sys/net/ipv4/ip_forward", "1") < 0)
		return err_sys(e, "net.ipv4.ip_forward");
	return 0;
}

int
net_plan_open(void *mem, struct net_plan *p, struct err *e)
{
	p->host = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
	if (p->host < 0)
		return err_sys(e, "/proc/self/ns/net");
	p->link = netlink_open(mem, e);
	return p->link ? 0 : -1;
}

/* This thread has the privileges: in the wrong namespace it must not go on. */
static void
back(const struct net_plan *p)
{
	if (setns(p->host, CLONE_NEWNET) < 0)
		_exit(1);
}

static int
tap_open(struct err *e)
{
	auto_fd fd = open("/dev/net/tun", O_RDWR | O_CLOEXEC);
	/* without offloads: device state fits user-mode networking and the other way round */
	struct ifreq r = { .ifr_flags = IFF_TAP | IFF_NO_PI, .ifr_name = NET_TAP };

	if (fd < 0 || ioctl(fd, TUNSETIFF, &r) < 0 || fcntl(fd, F_SETFL, O_NONBLOCK) < 0)
		return err_sys(e, "tap device");
	return take_fd(&fd);
}

static uint32_t
address(const char *text)
{
	struct in_addr a = { 0 };

	(void)inet_pton(AF_INET, text, &a);
	return ntohl(a.s_addr);
}

/* The way out, under the first name that is free. */
static int
way_out(struct net_plan *p, struct netlink *l, struct netns *n, uint32_t *ret_addr, struct err *e)
{
	uint32_t slots = (1U << (32 - p->bits)) - SLOT_FIRST - 1, i, slot;
	struct err why;

	for (i = 0; i < slots && i < SLOT_TRIES; i++) {
		slot = (p->next + i) % slots;
		snprintf(n->host_link, sizeof n->host_link, NET_HOST_PREFIX "%u", slot);
		why = (struct err){ 0 };
		if (netlink_veth(l, NET_UP, n->host_link, p->host, &why) == 0) {
			p->next = slot + 1;
			*ret_addr = p->pool + SLOT_FIRST + slot;
			return netlink_address(l, NET_UP, *ret_addr, *ret_addr, 32, e);
		}
		if (errno != EEXIST)
			return err_set(e, why.code, "%s", why.text);
	}
	return err_set(e, E_OVERLOADED, "agent.network has no free address");
}

static int
inside(void *mem, struct net_plan *p, struct netns *n, uint32_t *ret_addr, struct err *e)
{
	struct netlink *l = netlink_open(mem, e);
	struct buf b = BUF(mem);

	n->ns = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
	if (!l || n->ns < 0)
		return n->ns < 0 ? err_sys(e, "/proc/self/ns/net") : -1;
	(void)sysctl("/proc/sys/net/ipv6/conf/all/disable_ipv6", "1");
	(void)sysctl("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1");
	nft_capsule(&b, &common, p->mb_per_sec);
	/* the rules are there before anything that could be let through */
	if (nft_apply(&b, e) < 0 || way_out(p, l, n, ret_addr, e) < 0 ||
	    (n->tap = tap_open(e)) < 0 ||
	    netlink_address(l, NET_TAP, address(NET_GATEWAY), address(NET_GATEWAY), 24, e) < 0 ||
	    netlink_address(l, NET_TAP, address(NET_RESOLVER), address(NET_RESOLVER), 24, e) < 0 ||
	    netlink_up(l, NET_TAP, NET_GATEWAY_MAC, e) < 0)
		return -1;
	if (sysctl("/proc/sys/net/ipv4/ip_forward", "1") < 0)
		return err_sys(e, "net.ipv4.ip_forward of a capsule");
	return 0;
}

int
netns_make(void *mem, struct net_plan *p, struct netns *ret, struct err *e)
{
	auto_talloc char *tmp = talloc_new(mem);
	char path[80];
	uint32_t addr = 0;
	int rc;

	*ret = (struct netns){ .ns = -1, .tap = -1 };
	if (unshare(CLONE_NEWNET) < 0)
		return err_sys(e, "a network namespace");
	rc = inside(tmp, p, ret, &addr, e);
	back(p);
	if (rc == 0) {
		snprintf(
		    path, sizeof path, "/proc/sys/net/ipv6/conf/%s/disable_ipv6", ret->host_link);
		(void)sysctl(path, "1");
		if (netlink_address(p->link, ret->host_link, p->pool + 1, addr, 32, e) == 0 &&
		    netlink_up(p->link, ret->host_link, NULL, e) == 0)
			return 0;
	}
	if (ret->ns >= 0)
		close(ret->ns);
	if (ret->tap >= 0)
		close(ret->tap);
	return -1;
}

static int
listener(int type, int port, struct err *e)
{
	struct sockaddr_in a = { .sin_family = AF_INET,
		.sin_port = htons((uint16_t)port),
		.sin_addr.s_addr = htonl(address(NET_GATEWAY)) };
	auto_fd fd = socket(AF_INET, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	int on = 1;

	/* an agent that was killed may have left one of its own for a moment */
	if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) < 0 ||
	    setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &on, sizeof on) < 0 ||
	    bind(fd, (struct sockaddr *)&a, sizeof a) < 0 ||
	    (type == SOCK_STREAM && listen(fd, BACKLOG) < 0))
		return err_sys(e, "socket of a capsule's network");
	return take_fd(&fd);
}

static int
set_inside(
    void *mem, struct net_plan *p, const struct net_rules *r, bool fresh, int fd[3], struct err *e)
{
	struct netlink *l = netlink_open(mem, e);
	struct buf b = BUF(mem);

	fresh = fresh && memcmp(r, &common, sizeof *r) == 0;
	if (!fresh)
		nft_capsule(&b, r, p->mb_per_sec);
	if (!l || (!fresh && nft_apply(&b, e) < 0) || netlink_up(l, NET_UP, NULL, e) < 0 ||
	    netlink_route(l, NET_UP, p->pool + 1, 32, 0, e) < 0 ||
	    netlink_route(l, NET_UP, 0, 0, p->pool + 1, e) < 0)
		return -1;
	if (!fd)
		return 0;
	fd[0] = fd[1] = fd[2] = -1;
	if ((fd[0] = listener(SOCK_DGRAM, NET_PORT_DNS, e)) < 0 ||
	    (fd[1] = listener(SOCK_STREAM, NET_PORT_DNS, e)) < 0 ||
	    (fd[2] = listener(SOCK_STREAM, NET_PORT_PROXY, e)) < 0) {
		for (int i = 0; i < 3; i++)
			if (fd[i] >= 0)
				close(fd[i]);
		return -1;
	}
	return 0;
}

int
netns_set(void *mem, struct net_plan *p, int ns, const struct net_rules *r, bool fresh, int fd[3],
    struct err *e)
{
	auto_talloc char *tmp = talloc_new(mem);
	int rc;

	if (setns(ns, CLONE_NEWNET) < 0)
		return err_sys(e, "enter a network namespace");
	rc = set_inside(tmp, p, r, fresh, fd, e);
	back(p);
	return rc;
}
