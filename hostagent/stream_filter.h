/*
 * stream_filter.h - takes guest memory out of a QEMU migration stream.
 *
 * The stream comes from a process that a hostile guest may have taken over: everything is bounded,
 * and whatever the filter does not know makes it fail. Pages of the memory block go to a sparse
 * file; ROMs and device state stay in the (now thin) stream, which loads into a QEMU whose memory
 * maps that file. Format: QEMU's docs/devel/migration.rst and migration/ram.c of QEMU 7.2.
 */
#pragma once
#include "err.h"
#include <stdint.h>

struct stream_filter {
	int in, out; /* the stream as QEMU writes it; the thin stream */
	int memory;  /* pages of `block` are written here, at their offset; zero pages are not */
	const char *block;  /* name of the RAM block, "mem" */
	uint64_t size;      /* its size: another one in the stream is refused */
	uint64_t pages;     /* out: written to memory */
	uint64_t bytes_out; /* out: length of the thin stream */
};

/* Reads `in` to its end. Blocks: call it from a thread. */
int stream_filter(struct stream_filter *, struct err *);
