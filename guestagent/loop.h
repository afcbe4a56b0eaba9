/*
 * loop.h - the agent's event loop: epoll, timers, and nothing of libuv (it has no static library).
 *
 * One loop per process. Callbacks may watch, unwatch and free anything, their own watch too.
 */
#pragma once
#include <stdbool.h>
#include <stdint.h>

struct watch {
	int fd;
	uint32_t events; /* as asked for; 0: not watched */
	void (*fn)(void *arg, uint32_t events);
	void *arg;
};

struct timer {
	uint64_t due; /* 0: not set */
	void (*fn)(void *arg);
	void *arg;
	struct timer *next, **back;
};

/* Calls w->fn(w->arg, events) when fd is ready (EPOLLIN …; level-triggered unless EPOLLET). Again:
   changes events. 0 events: stops. An fd that epoll cannot watch (a regular file) aborts. */
void watch_set(struct watch *, uint32_t events);
/* Before closing the fd or freeing the watch. */
void watch_stop(struct watch *);

/* Calls t->fn(t->arg) once, ms from now; replaces an earlier setting. */
void timer_set(struct timer *, uint64_t ms);
void timer_stop(struct timer *);

uint64_t loop_now(void); /* milliseconds, CLOCK_MONOTONIC */
/* Runs until loop_end(); after every round of events it calls after(). */
void loop_run(void (*after)(void));
void loop_end(void);
