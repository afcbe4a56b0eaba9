/* timer.h - a libuv timer that ends with its talloc parent. */
#pragma once
#include <stdint.h>
#include <uv.h>

struct timer;

/* Calls fn(arg) after ms, then every `again` ms when that is not 0. Freed: it stops. fn may free
 * it. */
struct timer *
timer_start(void *mem, uv_loop_t *, uint64_t ms, uint64_t again, void (*fn)(void *), void *arg);
