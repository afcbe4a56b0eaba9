/*
 * logs.h - what a capsule's console said, and what the agent did with it (spec 02 §6.11).
 *
 * state_dir/log/<capsule>/: serial.0 and serial.1 (the newer and the older MiB), boot (the first 64
 * KiB since the start), agent. They outlive VM and agent and go with the capsule. A guest that
 * floods its console is read at a bounded rate: it slows itself.
 */
#pragma once
#include "agent.h"

struct serial;
enum log_source { LOG_SERIAL, LOG_BOOT, LOG_AGENT, LOG_SOURCES };

/* "serial", …; -1: no such source. */
int logs_source(const char *name);
/* Connects to the VM's console; what it says is kept in memory until it is a capsule's. Called when
   the process was started, and when one is adopted. */
void logs_open(struct vm *);
/* From now on (and what was kept) it goes to this capsule's files. fresh: a start, not an adoption.
 */
void logs_bind(struct capsule *, struct vm *, bool fresh);
/* One line of the agent log. */
void logs_note(struct capsule *, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* The last `tail` lines, at most, from byte `from` of all that was ever said (-1: just the tail).
   Returns the place behind them: ask again from there. -1: none is kept. */
int64_t logs_read(struct capsule *, enum log_source, int tail, int64_t from, struct buf *);
/* The capsule is gone. */
void logs_remove(struct capsule *);
