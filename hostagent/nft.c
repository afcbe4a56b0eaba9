/* nft.c - see nft.h. */
#include "nft.h"
#include "cleanup.h"

#include <errno.h>
#include <spawn.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>

enum { BURST_PER_SEC = 8, NEW_PER_SEC = 1000, FLOWS = 16384 };

static void
address(struct buf *b, const struct net_prefix *p)
{
	buf_fmt(b, "%u.%u.%u.%u/%u", p->addr >> 24, p->addr >> 16 & 255, p->addr >> 8 & 255,
	    p->addr & 255, p->bits);
}

static void
set(struct buf *b, const char *name, const struct net_prefix *p, uint32_t n)
{
	uint32_t i;

	buf_fmt(b, "set %s {\ntype ipv4_addr\nflags interval\nauto-merge\n", name);
	for (i = 0; i < n; i++) {
		buf_str(b, i ? ", " : "elements = { ");
		address(b, &p[i]);
	}
	buf_str(b, n ? " }\n}\n" : "}\n");
}

/* The verdict on one packet by the other end's address (a: daddr, saddr) and port. Each packet is
   looked at, in both directions: what is open when the rules change ends with them. */
static void
verdict(
    struct buf *b, const char *chain, const char *a, const char *port, const struct net_rules *r)
{
	buf_fmt(b, "chain %s {\nip %s @never counter drop\n", chain, a);
	if (!r->smtp)
		buf_fmt(b, "tcp %s 25 counter drop\n", port);
	buf_fmt(b, "ip %s @allow accept\nip %s @deny drop\n", a, a);
	if (r->names)
		/* what has no name on the wire, or is older than the names, would go around the
		   proxy */
		buf_fmt(b, "udp %s { 80, 443 } drop\ntcp %s { 80, 443 } drop\n", port, port);
	if (r->internet)
		buf_str(b, "accept\n");
	buf_str(b, "drop\n}\n");
}

void
nft_capsule(struct buf *b, const struct net_rules *r, uint32_t rate)
{
	uint32_t burst = rate / BURST_PER_SEC ? rate / BURST_PER_SEC : 1;

	buf_str(b, "table inet hutch\ndelete table inet hutch\ntable inet hutch {\n");
	set(b, "never", net_nevers, net_nevers_count);
	set(b, "allow", r->allow, r->allows);
	set(b, "deny", r->deny, r->denies);
	buf_fmt(b,
	    "chain from_guest {\ntype filter hook prerouting priority -300\n"
	    "iifname \"" NET_TAP "\" ip saddr != " NET_GUEST " counter drop\n"
	    "iifname \"" NET_TAP "\" meta nfproto ipv6 drop\n"
	    "iifname \"" NET_TAP "\" limit rate over %u mbytes/second burst %u mbytes drop\n}\n"
	    "chain to_guest {\ntype filter hook postrouting priority 300\n"
	    "oifname \"" NET_TAP "\" limit rate over %u mbytes/second burst %u mbytes drop\n}\n",
	    rate, burst, rate, burst);
	buf_str(b, "chain names {\ntype nat hook prerouting priority -100\n");
	if (r->open) {
		buf_fmt(b,
		    "iifname \"" NET_TAP "\" ip daddr " NET_RESOLVER
		    " udp dport 53 redirect to :%d\n"
		    "iifname \"" NET_TAP "\" ip daddr " NET_RESOLVER
		    " tcp dport 53 redirect to :%d\n",
		    NET_PORT_DNS, NET_PORT_DNS);
		if (r->names)
			buf_fmt(b,
			    "iifname \"" NET_TAP "\" ip daddr != @allow ip daddr != @never "
			    "tcp dport { 80, 443 } redirect to :%d\n",
			    NET_PORT_PROXY);
	}
	buf_fmt(b,
	    "}\nchain input {\ntype filter hook input priority 0\npolicy drop\n"
	    "iifname \"" NET_TAP "\" ct status dnat udp dport %d accept\n"
	    "iifname \"" NET_TAP "\" ct status dnat tcp dport { %d, %d } accept\n}\n"
	    "chain output {\ntype filter hook output priority 0\npolicy drop\n"
	    "oifname \"" NET_TAP "\" ct direction reply ct status dnat accept\n}\n",
	    NET_PORT_DNS, NET_PORT_DNS, NET_PORT_PROXY);
	verdict(b, "going", "daddr", "dport", r);
	verdict(b, "coming", "saddr", "sport", r);
	buf_fmt(b,
	    "chain forward {\ntype filter hook forward priority 0\npolicy drop\n"
	    "meta nfproto ipv6 drop\n"
	    "ct state new limit rate over %d/second burst %d packets drop\n"
	    "ct state new ct count over %d drop\n"
	    "ct state related accept\n"
	    "iifname \"" NET_TAP "\" oifname \"" NET_UP "\" jump going\n"
	    "iifname \"" NET_UP "\" oifname \"" NET_TAP "\" ct state established jump coming\n}\n"
	    "chain out {\ntype nat hook postrouting priority 100\n"
	    "oifname \"" NET_UP "\" masquerade\n}\n}\n",
	    NEW_PER_SEC, NEW_PER_SEC, FLOWS);
}

void
nft_host(struct buf *b, uint32_t pool, uint32_t bits, bool closed)
{
	struct net_prefix p = { pool, bits };

	buf_str(b, "table inet hutch\ndelete table inet hutch\ntable inet hutch {\n");
	set(b, "never", net_nevers, net_nevers_count);
	set(b, "pool", &p, 1);
	if (closed)
		buf_str(b, "chain was_closed {\n}\n");
	buf_str(b,
	    "chain guard {\ntype filter hook prerouting priority -300\n"
	    "iifname \"" NET_HOST_PREFIX "*\" meta nfproto ipv6 counter drop\n"
	    "iifname \"" NET_HOST_PREFIX "*\" ip saddr != @pool counter drop\n"
	    "iifname \"" NET_HOST_PREFIX "*\" fib daddr type != unicast counter drop\n}\n"
	    "chain input {\ntype filter hook input priority -10\n"
	    "iifname \"" NET_HOST_PREFIX "*\" counter drop\n}\n"
	    "chain forward {\ntype filter hook forward priority -10\n");
	if (closed)
		buf_str(b, "policy drop\n");
	buf_str(b,
	    "iifname \"" NET_HOST_PREFIX "*\" oifname \"" NET_HOST_PREFIX "*\" counter drop\n"
	    "iifname \"" NET_HOST_PREFIX "*\" ip daddr @never counter drop\n"
	    "oifname \"" NET_HOST_PREFIX "*\" ct state != { established, related } drop\n"
	    "iifname \"" NET_HOST_PREFIX
	    "*\" tcp flags & (syn | rst) == syn tcp option maxseg size set rt mtu\n"
	    "iifname \"" NET_HOST_PREFIX "*\" accept\n"
	    "oifname \"" NET_HOST_PREFIX "*\" accept\n}\n"
	    "chain out {\ntype nat hook postrouting priority 100\n"
	    "ip saddr @pool oifname != \"" NET_HOST_PREFIX "*\" masquerade\n}\n}\n");
}

/* The nft program does it: libnftables' licence (GPL-2) is not one to link with. */
static const char *const program[] = { "/usr/sbin/nft", "/sbin/nft", "/usr/bin/nft" };

static pid_t
spawn(int in, int out)
{
	char *argv[] = { "nft", "-f", "-", NULL }, *env[] = { "LC_ALL=C", NULL };
	posix_spawn_file_actions_t fa;
	pid_t pid = -1;
	size_t i;

	posix_spawn_file_actions_init(&fa);
	posix_spawn_file_actions_adddup2(&fa, in, STDIN_FILENO);
	posix_spawn_file_actions_adddup2(&fa, out, STDOUT_FILENO);
	posix_spawn_file_actions_adddup2(&fa, out, STDERR_FILENO);
	for (i = 0; i < nitems(program); i++)
		if (posix_spawn(&pid, program[i], &fa, NULL, argv, env) == 0)
			break;
	posix_spawn_file_actions_destroy(&fa);
	return pid;
}

static int
run(const char *text, struct err *e)
{
	auto_fd in = memfd_create("rules", MFD_CLOEXEC), out = memfd_create("said", MFD_CLOEXEC);
	char said[181] = "";
	int status = 0;
	pid_t pid;

	if (in < 0 || out < 0 || write(in, text, strlen(text)) != (ssize_t)strlen(text) ||
	    lseek(in, 0, SEEK_SET) < 0)
		return err_sys(e, "packet filter: handing over its rules");
	pid = spawn(in, out);
	if (pid < 0)
		return err_set(
		    e, E_SYSTEM, "packet filter: there is no nft (Debian package nftables)");
	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	if (status == 0)
		return 0;
	(void)!pread(out, said, sizeof said - 1, 0);
	said[strcspn(said, "\n")] = '\0';
	return err_set(e, E_SYSTEM, "packet filter: %s", *said ? said : "refused");
}

int
nft_apply(const struct buf *b, struct err *e)
{
	return run(b->data, e);
}

bool
nft_host_closed(void)
{
	struct err e = { 0 };

	return run("list chain inet hutch was_closed", &e) == 0;
}
