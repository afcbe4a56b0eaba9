/*
 * priv.h - the launcher: a small child of the agent that keeps root, and nothing else.
 *
 * It starts QEMU in its cage (confine.h) and kills it, makes the VMs' networks (netns.h), looks
 * after control groups, and starts the proxy (egress.h). It reads no bytes from network or guests,
 * only fixed records of the agent on a socket pair. When the agent dies it ends; the QEMUs, in
 * sessions of their own, live on.
 */
#pragma once
#include "confine.h"
#include "err.h"
#include "net_policy.h"
#include <stdint.h>
#include <sys/types.h>
#include <uv.h>

enum { PRIV_FDS = 24, PRIV_ARGV = 16384, PRIV_NET_FDS = 3 };

struct conf;
struct posture;
struct priv;

/* A process to start. fd[i] becomes descriptor 3 + i there; nothing else is inherited. */
struct priv_spawn {
	uid_t uid;        /* of the configured range */
	const char *argv; /* words, each with its NUL, behind each other */
	size_t argv_len;
	int fd[PRIV_FDS];
	int fds;
	int log;  /* becomes stdout and stderr */
	bool tap; /* a network of its own: descriptor 3 + fds is its tap device */
	struct cage_size size;
};

/*
 * Forks the launcher; call it before threads exist, with the posture that posture_look() found
 * (it stays the caller's). Without root every process runs as the agent does (priv_separate() is
 * then false). The agent itself changes to the account agent.user.
 */
struct priv *priv_start(void *mem, const struct conf *, const struct posture *, struct err *);
int priv_separate(const struct priv *);

/* Calls on_exit(arg, pid, wait status) for processes that this launcher started. */
void priv_watch(struct priv *, uv_loop_t *, void (*on_exit)(void *, pid_t, int), void *arg);

/* Starts a process: its pid, once it is in its cage; ret_pidfd is the caller's. Takes a few
 * milliseconds. */
pid_t priv_spawn(struct priv *, const struct priv_spawn *, int *ret_pidfd, struct err *);

/* Whether the process has everything of its cage; -1 says what is missing. */
int priv_check(struct priv *, pid_t, uint64_t start, uid_t, const struct cage_size *, struct err *);

/*
 * The network of a process with a tap: what it may reach; its way out is opened. fresh: it has the
 * rules of {} still, as after priv_spawn(). fd: NULL, or three sockets inside (netns_set()).
 */
int priv_network(struct priv *, pid_t, uint64_t start, const struct net_rules *, bool fresh,
    int fd[PRIV_NET_FDS], struct err *);

/* A new proxy and resolver; the socket to it, the caller's. */
int priv_egress(struct priv *, struct err *);

/* Control groups without processes go. */
void priv_sweep(struct priv *);

/* SIGKILL, if pid still is the process that started then (proc_start()) under a uid of the range.
 */
int priv_kill(struct priv *, pid_t, uint64_t start, struct err *);

/* Field 22 of /proc/pid/stat: with the pid it names one process of this boot. 0: no such process.
 */
uint64_t proc_start(pid_t);
