/*
 * ring.h - what a process wrote: the last bytes, in order, with the stream each came from.
 *
 * Positions count all bytes the process has ever produced; old ones fall off the beginning.
 */
#pragma once
#include <stddef.h>
#include <stdint.h>

enum ring_kind { RING_STDOUT, RING_STDERR, RING_PTY };

struct ring_chunk;

struct ring {
	struct ring_chunk *first, *last;
	uint64_t begin, end; /* positions: of the oldest byte kept, behind the newest */
	size_t room;         /* memory in use */
	size_t max;          /* bytes to keep */
};

/* Before its memory goes. */
void ring_forget(struct ring *);
/* Chunks are children of mem. */
void ring_add(void *mem, struct ring *, enum ring_kind, const void *, size_t);
/* The bytes from position at (begin <= at < end) on that came from one stream; returns how many. */
size_t ring_get(const struct ring *, uint64_t at, enum ring_kind *, const char **);
