/*
 * priv.h - the launcher: a small child of the agent that keeps root, and nothing else.
 *
 * It starts QEMU under a uid of its own and kills it. It reads no bytes from network or guests,
 * only fixed records of the agent on a socket pair. When the agent dies it ends; the QEMUs, in
 * sessions of their own, live on.
 */
#pragma once
#include "err.h"
#include <stdint.h>
#include <sys/types.h>
#include <uv.h>

enum { PRIV_FDS = 16, PRIV_ARGV = 16384 };

struct priv;

/* A process to start. fd[i] becomes descriptor 3 + i there; nothing else is inherited. */
struct priv_spawn {
	uid_t uid;        /* of the range given to priv_start() */
	const char *argv; /* words, each with its NUL, behind each other */
	size_t argv_len;
	int fd[PRIV_FDS];
	int fds;
	int log; /* becomes stdout and stderr */
};

/*
 * Forks the launcher; call it before threads exist. uids are the only ones it will ever use.
 * Without root every process runs as the agent does (priv_separate() is then false). user: the
 * account that the agent itself changes to, or "".
 */
struct priv *priv_start(void *mem, uid_t first, uint32_t count, const char *user, struct err *);
int priv_separate(const struct priv *);

/* Calls on_exit(arg, pid, wait status) for processes that this launcher started. */
void priv_watch(struct priv *, uv_loop_t *, void (*on_exit)(void *, pid_t, int), void *arg);

/* Starts a process: its pid; ret_pidfd is the caller's. Takes about a millisecond. */
pid_t priv_spawn(struct priv *, const struct priv_spawn *, int *ret_pidfd, struct err *);

/* SIGKILL, if pid still is the process that started then (proc_start()) under a uid of the range.
 */
int priv_kill(struct priv *, pid_t, uint64_t start, struct err *);

/* Field 22 of /proc/pid/stat: with the pid it names one process of this boot. 0: no such process.
 */
uint64_t proc_start(pid_t);
