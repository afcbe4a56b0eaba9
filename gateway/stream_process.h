/*
 * stream_process.h - a process of a capsule on a stream: its output to the client, the client's
 * input to it. Of exec, of processes, of terminals.
 *
 * Who started it slows it (nothing is consumed while the client takes nothing); a viewer never
 * does: what he is too slow for is told as a gap.
 */
#pragma once
#include "process_call.h"
#include "stream.h"

struct process;

struct process_how {
	bool starter;
	bool terminal;        /* messages of §3.4 instead of §3.2 */
	bool base64;          /* the client wants bytes; terminals always */
	bool kill_on_close;   /* it dies with the stream */
	int64_t timeout_sec;  /* then TERM, and KILL; 0: none */
	const char *user;     /* in the guest, or NULL */
	const char *activity; /* to the idle timer */
	const char *tag;      /* known already, or NULL */
	int64_t cols, rows;   /* asked for, of a terminal */
	/* The command is not there (127) or may not be run (126); true: something else was begun.
	   NULL: an exit message says so. */
	bool (*absent)(struct stream *);
};

/* path: of Start or Connect, with its message. On the stream. NULL: r->work.err. */
struct process *process_open(
    struct stream *, const char *path, const struct buf *message, const struct process_how *);
/* In the stream's encoding. -1: r->work.err. */
int process_input(struct process *, const char *data);
void process_eof(struct process *);
/* By name, as in DELETE …/processes/{sel}. -1: r->work.err. */
int process_signal(struct process *, const char *name);
void process_resize(struct process *, int64_t cols, int64_t rows);
void process_room(struct process *);
/* The stream has ended: what must be done to the process. */
void process_gone(struct process *);
