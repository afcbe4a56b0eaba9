/*
 * grow.h - the writable file system takes the size that the host gave its disk.
 *
 * The host makes the disk larger first; the kernel hears of it a moment later, by an interrupt.
 */
#pragma once
#include "call.h"

/* Waits until the disk has `least` bytes (ten seconds at most; 0: not at all), grows the file
   system to all of it, then calls done(c, why): at once, or later. why: NULL, or the reason that it
   is not so large; c is NULL when the caller went away meanwhile. */
void grow_run(struct call *c, uint64_t least, void (*done)(struct call *, const struct err *why));

/* POST /grow {"bytes":N}: 204 when the file system has them. Only for the host. */
call_fn grow_call;
