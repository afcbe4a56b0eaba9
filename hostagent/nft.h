/*
 * nft.h - the packet filter rules, as text made of nothing but numbers. Used by the launcher.
 */
#pragma once
#include "buf.h"
#include "net_policy.h"

/* What a capsule's network looks like from inside; slirp's plan, so that every guest fits. */
#define NET_GUEST       "10.0.2.15"
#define NET_GATEWAY     "10.0.2.2"
#define NET_RESOLVER    "10.0.2.3"
#define NET_TAP         "tap0"
#define NET_UP          "up0"   /* the capsule's end of the way out */
#define NET_HOST_PREFIX "hutch" /* the host's ends: hutch0, hutch1 … */
#define NET_GATEWAY_MAC "\x52\x55\x0a\x00\x02\x02"

enum { NET_PORT_DNS = 1053, NET_PORT_PROXY = 1080 };

/* The rules inside one capsule's network namespace; replaces those that are there, at once. */
void nft_capsule(struct buf *, const struct net_rules *, uint32_t mb_per_sec);
/* The host's own: no packet of a capsule reaches it, or another capsule. pool, bits: the addresses
 * of the ways out. closed: forwarding was off before us, so that nothing else is forwarded. */
void nft_host(struct buf *, uint32_t pool, uint32_t bits, bool closed);
/* Hands it to the kernel, in the network namespace of this thread, as one change. */
int nft_apply(const struct buf *, struct err *);
/* Whether the host's table has the mark that forwarding was off before us. */
bool nft_host_closed(void);
