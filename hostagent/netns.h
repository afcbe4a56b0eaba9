/*
 * netns.h - one network namespace per VM, made by the launcher.
 *
 * Inside: tap0 (the guest's cable, 10.0.2.2 and 10.0.2.3) and up0, whose other end, hutchN, is on
 * the host. Nothing but the VM's process holds it: when the last process in it and the last
 * descriptor are gone, the kernel removes links, addresses, rules and all. Names and addresses are
 * leased by making hutchN: who can make it has it.
 */
#pragma once
#include "err.h"
#include "net_policy.h"

struct net_plan {
	uint32_t pool, bits;  /* addresses of the ways out; the first one is the host's */
	uint32_t mb_per_sec;  /* each way */
	int host;             /* the host's network namespace */
	uint32_t next;        /* slot to try first */
	struct netlink *link; /* in the host's */
};

struct netns {
	int ns, tap;
	char host_link[16];
};

/* "100.127.0.0/16" and so on: what all of them share. -1: err. */
int net_plan_read(struct net_plan *, const char *network, uint32_t mb_per_sec, struct err *);
/* Rules and forwarding of the host. Call it before the first. */
int net_host_prepare(const struct net_plan *, struct err *);
/* This thread's namespace is the host's: what the calls below need, for good. */
int net_plan_open(void *mem, struct net_plan *, struct err *);
/* A new one, with the rules of {} and its way out shut. Leaves the thread in the host's namespace
 * or ends it. */
int netns_make(void *mem, struct net_plan *, struct netns *ret, struct err *);
/*
 * Gives the namespace these rules and opens the way out. fresh: it has only been made; then the
 * rules of {} are there. fd: NULL, or three sockets that listen
 * inside: DNS over UDP and TCP, the proxy's.
 */
int netns_set(void *mem, struct net_plan *, int ns, const struct net_rules *, bool fresh, int fd[3],
    struct err *);
