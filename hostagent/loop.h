/*
 * loop.h - timers, descriptor watches and background work of the agent's loop, as talloc children.
 *
 * libuv wants a handle to stay until its close callback; here the handle is apart and the talloc
 * object may be freed at any time, from its own callback too. After that no callback comes.
 */
#pragma once
#include <stdint.h>
#include <uv.h>

struct timer;
struct watch;

/* cb(arg) after ms milliseconds, then every `repeat` (0: once). The timer stays until it is freed.
 */
struct timer *
timer_new(void *mem, uv_loop_t *, uint64_t ms, uint64_t repeat, void (*cb)(void *), void *arg);
void timer_again(struct timer *, uint64_t ms);

/* cb(arg, events) while fd is ready for `events` (UV_READABLE, UV_WRITABLE); fd stays the caller's
   and must be open until the watch is freed. */
struct watch *
watch_new(void *mem, uv_loop_t *, int fd, int events, void (*cb)(void *, int), void *arg);
void watch_events(struct watch *, int events);

/* work(arg) in a thread, then done(arg) in the loop, always. arg must live until then. */
int background_open(void); /* how many have not had their done() */
void background(uv_loop_t *, void (*work)(void *), void (*done)(void *), void *arg);

/* Milliseconds: since some start (never jumps), and since 1970. */
int64_t now_mono(void);
int64_t now_real(void);
