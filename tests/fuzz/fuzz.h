/* fuzz.h - what the targets share: an input read piece by piece, and a sum of what a parser said.
 */
#pragma once
#include "err.h"
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

/* Takes bytes off the beginning of an input. */
struct fuzz {
	const uint8_t *p;
	size_t n;
};

static inline uint8_t
fuzz_byte(struct fuzz *f)
{
	if (f->n == 0)
		return 0;
	f->n--;
	return *f->p++;
}

/* The next piece, at most most bytes; what does not fit anywhere else is its length. */
static inline size_t
fuzz_piece(struct fuzz *f, size_t most, const uint8_t **p)
{
	size_t n = fuzz_byte(f);

	if (n > 200)
		n = (n - 200) * 300;
	if (n > most)
		n = most;
	if (n > f->n)
		n = f->n;
	*p = f->p;
	f->p += n;
	f->n -= n;
	return n;
}

/* The same events in the same order give the same sum, however the bytes came. */
static inline void
fuzz_sum(uint64_t *sum, const void *p, size_t n)
{
	const uint8_t *b = p;

	for (size_t i = 0; i < n; i++)
		*sum = (*sum ^ b[i]) * 0x100000001b3u;
}

static inline void
fuzz_mark(uint64_t *sum, char kind)
{
	fuzz_sum(sum, &kind, 1);
}

/* Both readings of one input agree. */
static inline void
fuzz_same(uint64_t a, uint64_t b)
{
	if (a != b)
		abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *, size_t);
