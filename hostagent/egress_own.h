/* egress_own.h - what egress.c, egress_dns.c and egress_proxy.c share; nobody else includes it. */
#pragma once
#include "agent.h"
#include "egress.h"
#include "netlink.h"

#include <netinet/in.h>

enum { DNS_MAX = 4096, SERVERS_MAX = 3 };

struct egress;
struct lookup;
struct conn;

/* One capsule's. */
struct outlet {
	TAILQ_ENTRY(outlet) link;
	struct egress *egress;
	char key[EGRESS_KEY];
	struct net_policy policy;
	int fd[EGRESS_FDS];
	struct watch *watch[EGRESS_FDS];
	size_t lookups;
	TAILQ_HEAD(, conn) conns;
	size_t conn_count;
};

struct egress {
	uv_loop_t *loop;
	struct netlink *link;
	int control;
	struct in_addr server[SERVERS_MAX];
	int servers;
	TAILQ_HEAD(, outlet) outlets;
};

/* A packet to the name servers; done(arg, NULL, 0) without an answer in time. Freed: nobody waits.
 */
struct lookup *lookup_new(void *mem, struct egress *, const uint8_t *query, size_t len, bool tcp,
    void (*done)(void *, const uint8_t *, size_t), void *arg);
/* The addresses of a name: done(arg, address, count). */
enum { RESOLVED_MAX = 8 };
typedef void resolved(void *arg, const uint32_t *, size_t);
struct lookup *resolve(void *mem, struct egress *, const char *name, resolved *, void *arg);

/* Readable: the resolver's packets and connections, the proxy's connections. */
void dns_packet(void *outlet, int events), dns_accept(void *outlet, int events);
void proxy_accept(void *outlet, int events);
/* The policy changed: connections that it does not allow any more end. */
void proxy_review(struct outlet *);

/* egress_head.c: the name that a client wants, of its first bytes. 1: here it is; 0: more bytes are
   needed; -1: there is none. */
int head_name(const uint8_t *, size_t, char ret[NET_NAME]);
