/* priv_wire.h - the records between agent and launcher; nobody else includes it. */
#pragma once
#include "posture.h"
#include "priv.h"

enum priv_op { OP_SPAWN = 1, OP_KILL, OP_CHECK, OP_NETWORK, OP_EGRESS, OP_SWEEP };

struct priv_call {
	uint32_t op;
	uid_t uid;
	pid_t pid;
	uint64_t start;
	struct cage_size size;
	uint32_t tap, fresh, sockets; /* flags */
	uint32_t fds, len; /* descriptors beside the record, the log last; bytes that follow */
	union {
		char argv[PRIV_ARGV];   /* OP_SPAWN */
		struct net_rules rules; /* OP_NETWORK */
	};
};

struct priv_answer {
	pid_t pid; /* or -1, and why */
	char why[200];
};

struct priv_exited {
	pid_t pid;
	int status;
};

struct priv {
	int calls, exits;
	const struct conf *conf;
	const struct posture *posture;
	void (*on_exit)(void *, pid_t, int);
	void *arg;
};

/* Bytes and up to PRIV_FDS + 1 descriptors as one packet. */
int priv_send(int sock, const void *, size_t, const int *fd, int n);
/* One packet; *n: how many descriptors came. 0: the peer is gone. */
ssize_t priv_receive(int sock, void *, size_t, int *fd, int *n);
/* The launcher's life; never returns. */
void priv_serve(struct priv *) __attribute__((noreturn));
