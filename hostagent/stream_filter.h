/*
 * stream_filter.h - takes guest memory out of a QEMU migration stream.
 *
 * The stream comes from a process that a hostile guest may have taken over: everything is bounded,
 * and whatever the filter does not know makes it fail. Two modes. Flat: pages of the memory block
 * go to a sparse file; ROMs and device state stay in the (now thin) stream, which loads into a QEMU
 * whose memory maps that file. Difference: pages that the parent has, too, are dropped, the others
 * stay; the stream loads into a QEMU whose memory maps the parent. Format: QEMU's
 * docs/devel/migration.rst and migration/ram.c of QEMU 7.2.
 */
#pragma once
#include "err.h"
#include <stdbool.h>
#include <stdint.h>

struct stream_filter {
	int in, out; /* the stream as QEMU writes it; the thin stream */
	int memory;  /* flat: pages of `block` are written here, at their offset; zero pages are not
	              */
	/* memory is -1: pages that differ from this memory file stay in the stream; -1: from zeros
	 */
	int parent;
	/* flat, and `memory` has the parent's pages already: the stream is a difference, and what
	   is not in it stays */
	bool over;
	const char *block; /* name of the RAM block, "mem" */
	/* hears of all bytes of the thin stream, in order, when they are in `out`; NULL: nobody */
	void (*wrote)(void *arg, const void *, size_t);
	void *arg;
	uint64_t size;      /* its size: another one in the stream is refused */
	uint64_t pages;     /* out: written to memory, or kept in the stream */
	uint64_t bytes_out; /* out: length of the thin stream */
};

/* Reads `in` to its end. Blocks: call it from a thread. */
int stream_filter(struct stream_filter *, struct err *);
