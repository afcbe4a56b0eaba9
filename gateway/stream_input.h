/*
 * stream_input.h - what a client sends to a process: bytes in order, at most 64 KiB waiting, then
 * its socket is not read; signals and sizes overtake them.
 */
#pragma once
#include "stream.h"

struct stream_input;

struct stream_input *stream_input_new(void *mem, struct stream *, int64_t pid, bool terminal);
/* Bytes in base64. -1: r->work.err. */
int stream_input_add(struct stream_input *, const char *base64);
void stream_input_bytes(struct stream_input *, const void *, size_t);
/* The end of its standard input, behind what waits. */
void stream_input_end(struct stream_input *);
void stream_signal(struct stream_input *, const char *name); /* SIGNAL_SIGTERM */
void stream_resize(struct stream_input *, int64_t cols, int64_t rows);
/* SIGKILL to a process whose stream is over: outlives the request. */
void stream_kill(struct request *, int64_t pid);
