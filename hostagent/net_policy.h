/*
 * net_policy.h - what one capsule may reach: networks by address, hosts by name.
 *
 * The numbers (struct net_rules) go to the launcher, which makes packet filter rules of them; the
 * names stay outside of it, with the proxy and the resolver (egress.h).
 */
#pragma once
#include "err.h"
#include "json.h"
#include <stdbool.h>
#include <stdint.h>

enum { NET_ENTRIES = 256, NET_NAME = 254 };

struct net_prefix {
	uint32_t addr; /* host byte order, the bits behind the prefix are zero */
	uint32_t bits;
};

struct net_rules {
	uint8_t internet, smtp;
	uint8_t names; /* there are names: 80 and 443 go through the proxy */
	uint8_t open;  /* 0: nothing at all gets out */
	uint32_t allows, denies;
	struct net_prefix allow[NET_ENTRIES], deny[NET_ENTRIES];
};

struct net_policy {
	struct net_rules rules;
	uint32_t allow_names, deny_names;
	char (*allow_name)[NET_NAME]; /* "name" or "*.name", lower case */
	char (*deny_name)[NET_NAME];
};

/* The policy of {"internet":…,"allow":[…],"deny":[…],"smtp":…}; NULL stands for {}. NULL: err. */
struct net_policy *net_policy_read(void *mem, struct json_object *, struct err *);

/* Nobody may reach these, whatever is allowed: private, local, metadata, multicast, reserved. */
bool net_never(uint32_t addr);
extern const struct net_prefix net_nevers[];
extern const uint32_t net_nevers_count;

enum net_verdict { NET_DENIED, NET_ALLOWED, NET_BY_ADDRESS };

/* Allow beats deny; without a word about the name: by address with internet, else denied. */
enum net_verdict net_name_verdict(const struct net_policy *, const char *name);
/* The same for an address; never-ranges are denied first. */
bool net_address_allowed(const struct net_policy *, uint32_t addr);
/* The name as it is compared: lower case, no dot at its end. False: it is none. */
bool net_name_read(const char *text, size_t len, char ret[NET_NAME]);
