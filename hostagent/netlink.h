/*
 * netlink.h - links, addresses and routes of one network namespace, by name of the link.
 */
#pragma once
#include "err.h"
#include <stdbool.h>
#include <stdint.h>

struct netlink;

/* Of this thread's network namespace, for ever. NULL: err. */
struct netlink *netlink_open(void *mem, struct err *);
/* A pair: `name` here, `peer` in the network namespace peer_ns. -1 with errno EEXIST: taken. */
int netlink_veth(struct netlink *, const char *name, const char *peer, int peer_ns, struct err *);
/* mac: 6 bytes, or NULL: as it is. */
int netlink_up(struct netlink *, const char *name, const char *mac, struct err *);
/* peer: the other end of a point-to-point link, or the address itself. Host byte order. */
int netlink_address(
    struct netlink *, const char *name, uint32_t local, uint32_t peer, uint32_t bits, struct err *);
/* gateway 0: the network is on the link. One that exists already is fine. */
int netlink_route(struct netlink *, const char *name, uint32_t net, uint32_t bits, uint32_t gateway,
    struct err *);
int netlink_delete(struct netlink *, const char *name, struct err *);
/* Whether packets to addr would leave this machine. */
bool netlink_leaves(struct netlink *, uint32_t addr);
