/*
 * process.h - processes that callers started, their output and their input.
 *
 * process.c starts, reaps and forgets them; reader.c carries their output to streams; input.c
 * carries input to them; process_rpc.c are the calls.
 */
#pragma once
#include "call.h"
#include "ring.h"
#include "spawn.h"
#include <sys/types.h>
#include <time.h>

enum process_state {
	PROCESS_STARTING, /* forked, exec not yet seen */
	PROCESS_RUNNING,
	PROCESS_DEAD,  /* reaped; its pipes may still be open */
	PROCESS_ENDED, /* output complete; kept for callers that ask for replay */
};

struct reader;
struct waiter;

struct process {
	struct process *next, **back;
	enum process_state state;
	pid_t pid;
	char *tag;          /* NULL: none */
	const char *config; /* JSON, as it was asked for */
	const char *cmd, *cwd;
	bool terminal;
	int status; /* of waitpid() */
	struct timespec started;
	uint64_t ended; /* loop_now() */
	struct watch report, out[2], in;
	struct timer linger, deadline, forget;
	struct ring ring;
	struct reader *readers, *starter;
	/* Input that the process has not taken yet. */
	struct buf input;
	size_t input_at;      /* of input, written already */
	uint64_t input_taken; /* since its start */
	bool input_ends;
	struct waiter *waiters;
};

/* What Start asks for, checked. Everything belongs to the call. */
struct process_plan {
	const char *cmd, *cwd, *tag;
	char **argv, **envp;
	const char *config;
	bool cwd_is_default, terminal, no_stdin;
	unsigned short cols, rows;
	struct user *user;
};

enum { PROCESS_OUT = 32 * 1024, PROCESS_PTY_OUT = 16 * 1024 };

extern struct process *process_list;

/* ---- process.c ---- */

struct process *process_start(const struct process_plan *, struct err *);
bool process_alive(const struct process *);
/* A child was reaped. */
void process_died(pid_t pid, int status);
/* To its process group; nothing when it is dead. */
void process_signal(struct process *, int sig);
/* Starts or stops reading its output, as its starter keeps up or not. */
void process_flow(struct process *);
/* Drops processes that ended: this is a new machine (a clone). */
void process_forget_ended(void);

/* ---- reader.c ---- */

/* A call gets the output from position at on. */
enum {
	READER_SEQ = 1,     /* with the additive fields */
	READER_STARTER = 2, /* it slows the process */
	READER_ONCE = 4,    /* what there is, then its stream ends */
};
void reader_add(struct process *, struct call *, uint64_t at, unsigned how);
/* Sends to every reader what it can take; the end too. */
void readers_pump(struct process *);
/* exec succeeded or not (c->err of the starter is set): tells the starter. */
void readers_started(struct process *, const struct err *);
void readers_drop(struct process *);
/* Its starter has more queued than it should. */
bool reader_is_behind(const struct process *);

/* ---- process_rpc.c, for input_stream.c ---- */

/* The process that the message's "process" names. ended: also one that is over, when nothing alive
 * matches. */
struct process *process_find(struct json_object *, bool ended, struct err *);
/* The bytes in the message's "input". */
int
process_input(struct call *, struct json_object *, const struct process *, uint8_t **, size_t *);

/* ---- input.c ---- */

/* Queues bytes; done(call) when the process took them, or with c->err when it never will. done may
   be called before this returns. -1: c->err, nothing was queued. */
int input_add(struct process *, struct call *, const void *, size_t, call_fn *done);
/* Closes the process's standard input behind what is queued. */
void input_end(struct process *);
void input_close(struct process *); /* at once; callers that wait get an error */
void input_ready(void *process, uint32_t events);
/* Bytes that wait. */
size_t input_queued(const struct process *);
