/* netlink.c - see netlink.h. */
#include "netlink.h"
#include "cleanup.h"

#include <arpa/inet.h>
#include <errno.h>
#include <libmnl/libmnl.h>
#include <linux/if_link.h>
#include <linux/rtnetlink.h>
#include <linux/veth.h>
#include <net/if.h>
#include <string.h>

enum { MESSAGE = 8192 };

struct netlink {
	struct mnl_socket *socket;
	uint32_t seq;
	char data[MESSAGE];
};

static int
netlink_free(struct netlink *n)
{
	(void)mnl_socket_close(n->socket);
	return 0;
}

struct netlink *
netlink_open(void *mem, struct err *e)
{
	struct netlink *n = talloc_zero(mem, struct netlink);

	n->socket = mnl_socket_open2(NETLINK_ROUTE, SOCK_CLOEXEC);
	if (!n->socket || mnl_socket_bind(n->socket, 0, MNL_SOCKET_AUTOPID) < 0) {
		err_sys(e, "netlink");
		if (n->socket)
			(void)mnl_socket_close(n->socket);
		talloc_free(n);
		return NULL;
	}
	talloc_set_destructor(n, netlink_free);
	return n;
}

static struct nlmsghdr *
begin(struct netlink *n, uint16_t type, uint16_t flags)
{
	struct nlmsghdr *h = mnl_nlmsg_put_header(n->data);

	h->nlmsg_type = type;
	h->nlmsg_flags = NLM_F_REQUEST | flags;
	h->nlmsg_seq = ++n->seq;
	return h;
}

/* Sends, takes the kernel's answer: yes, or errno. */
static int
ask(struct netlink *n, struct nlmsghdr *h, const char *what, const char *name, struct err *e)
{
	char answer[MESSAGE];
	ssize_t k = -1;

	if (mnl_socket_sendto(n->socket, h, h->nlmsg_len) > 0 &&
	    (k = mnl_socket_recvfrom(n->socket, answer, sizeof answer)) > 0 &&
	    mnl_cb_run(answer, (size_t)k, n->seq, mnl_socket_get_portid(n->socket), NULL, NULL) >=
		0)
		return 0;
	return err_sys(e, "%s %s", what, name);
}

static int
index_of(const char *name, struct err *e)
{
	int i = (int)if_nametoindex(name);

	return i > 0 ? i : err_sys(e, "no link %s", name);
}

int
netlink_veth(struct netlink *n, const char *name, const char *peer, int peer_ns, struct err *e)
{
	struct nlmsghdr *h = begin(n, RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL | NLM_F_ACK);
	struct ifinfomsg *i = mnl_nlmsg_put_extra_header(h, sizeof *i);
	struct nlattr *info, *data, *other;

	mnl_attr_put_strz(h, IFLA_IFNAME, name);
	info = mnl_attr_nest_start(h, IFLA_LINKINFO);
	mnl_attr_put_str(h, IFLA_INFO_KIND, "veth");
	data = mnl_attr_nest_start(h, IFLA_INFO_DATA);
	other = mnl_attr_nest_start(h, VETH_INFO_PEER);
	(void)mnl_nlmsg_put_extra_header(h, sizeof *i);
	mnl_attr_put_strz(h, IFLA_IFNAME, peer);
	mnl_attr_put_u32(h, IFLA_NET_NS_FD, (uint32_t)peer_ns);
	mnl_attr_nest_end(h, other);
	mnl_attr_nest_end(h, data);
	mnl_attr_nest_end(h, info);
	return ask(n, h, "make the link", peer, e);
}

int
netlink_up(struct netlink *n, const char *name, const char *mac, struct err *e)
{
	struct nlmsghdr *h = begin(n, RTM_NEWLINK, NLM_F_ACK);
	struct ifinfomsg *i = mnl_nlmsg_put_extra_header(h, sizeof *i);

	i->ifi_index = index_of(name, e);
	i->ifi_flags = i->ifi_change = IFF_UP;
	if (mac)
		mnl_attr_put(h, IFLA_ADDRESS, 6, mac);
	return i->ifi_index < 0 ? -1 : ask(n, h, "set up", name, e);
}

int
netlink_address(struct netlink *n, const char *name, uint32_t local, uint32_t peer, uint32_t bits,
    struct err *e)
{
	struct nlmsghdr *h = begin(n, RTM_NEWADDR, NLM_F_CREATE | NLM_F_ACK);
	struct ifaddrmsg *a = mnl_nlmsg_put_extra_header(h, sizeof *a);
	int i = index_of(name, e);

	a->ifa_family = AF_INET;
	a->ifa_prefixlen = (uint8_t)bits;
	a->ifa_index = (uint32_t)i;
	mnl_attr_put_u32(h, IFA_LOCAL, htonl(local));
	mnl_attr_put_u32(h, IFA_ADDRESS, htonl(peer));
	return i < 0 ? -1 : ask(n, h, "give an address to", name, e);
}

int
netlink_route(struct netlink *n, const char *name, uint32_t net, uint32_t bits, uint32_t gateway,
    struct err *e)
{
	struct nlmsghdr *h = begin(n, RTM_NEWROUTE, NLM_F_CREATE | NLM_F_REPLACE | NLM_F_ACK);
	struct rtmsg *r = mnl_nlmsg_put_extra_header(h, sizeof *r);
	int i = index_of(name, e);

	r->rtm_family = AF_INET;
	r->rtm_dst_len = (uint8_t)bits;
	r->rtm_table = RT_TABLE_MAIN;
	r->rtm_protocol = RTPROT_STATIC;
	r->rtm_scope = gateway ? RT_SCOPE_UNIVERSE : RT_SCOPE_LINK;
	r->rtm_type = RTN_UNICAST;
	if (bits)
		mnl_attr_put_u32(h, RTA_DST, htonl(net));
	if (gateway)
		mnl_attr_put_u32(h, RTA_GATEWAY, htonl(gateway));
	mnl_attr_put_u32(h, RTA_OIF, (uint32_t)i);
	return i < 0 ? -1 : ask(n, h, "route through", name, e);
}

int
netlink_delete(struct netlink *n, const char *name, struct err *e)
{
	struct nlmsghdr *h = begin(n, RTM_DELLINK, NLM_F_ACK);
	struct ifinfomsg *i = mnl_nlmsg_put_extra_header(h, sizeof *i);

	i->ifi_index = index_of(name, e);
	return i->ifi_index < 0 ? -1 : ask(n, h, "delete", name, e);
}

bool
netlink_leaves(struct netlink *n, uint32_t addr)
{
	struct nlmsghdr *h = begin(n, RTM_GETROUTE, 0);
	struct rtmsg *r = mnl_nlmsg_put_extra_header(h, sizeof *r);
	char answer[MESSAGE];
	ssize_t k = -1;

	r->rtm_family = AF_INET;
	r->rtm_dst_len = 32;
	mnl_attr_put_u32(h, RTA_DST, htonl(addr));
	if (mnl_socket_sendto(n->socket, h, h->nlmsg_len) <= 0 ||
	    (k = mnl_socket_recvfrom(n->socket, answer, sizeof answer)) <
		(ssize_t)mnl_nlmsg_size(sizeof *r))
		return false;
	h = (struct nlmsghdr *)answer;
	if (h->nlmsg_type != RTM_NEWROUTE || h->nlmsg_seq != n->seq)
		return false;
	r = mnl_nlmsg_get_payload(h);
	return r->rtm_type == RTN_UNICAST;
}
