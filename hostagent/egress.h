/*
 * egress.h - the process between capsules and names: their resolver, and a proxy for 80 and 443
 * where a policy has names. It has an account without rights, sockets inside the capsules' network
 * namespaces that the launcher made, and reads what guests send: nothing here is trusted.
 */
#pragma once
#include "conf.h"
#include "net_policy.h"

enum { EGRESS_KEY = 32, EGRESS_FDS = 3 };
enum egress_op { EGRESS_ADD = 1, EGRESS_SET, EGRESS_DROP };

/* A packet of the agent: this, then the allowed names and the denied ones, each with its NUL. With
   EGRESS_ADD three descriptors: DNS over UDP and TCP, the proxy's listener. */
struct egress_record {
	uint32_t op;
	char key[EGRESS_KEY]; /* the VM's name */
	struct net_rules rules;
	uint32_t allow_names, deny_names;
};

/* Its life: control is the agent's socket, landlock the kernel's ABI. */
void egress_main(const struct conf *, int control, int landlock) __attribute__((noreturn));
