/*
 * fuzz.h - what the targets share: an input read piece by piece, readers of which its first byte
 * chooses one, and a sum of what a parser said.
 */
#pragma once
#include "err.h"
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <talloc.h>

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

/* What a parser gets next that takes bytes as they come: all, or one of so many parts of the rest.
 */
static inline size_t
fuzz_next(struct fuzz *f, bool whole, size_t parts, const uint8_t **p)
{
	size_t n = whole ? f->n : 1 + f->n / parts;

	*p = f->p;
	f->p += n;
	f->n -= n;
	return n;
}

/* The same as recv() gives it, of which nothing is the end. */
static inline ssize_t
fuzz_recv(struct fuzz *f, bool whole, void *to, size_t room)
{
	const uint8_t *p = NULL;
	size_t n = f->n ? fuzz_next(f, whole, 4, &p) : 0;

	if (n > room) {
		f->p -= n - room;
		f->n += n - room;
		n = room;
	}
	if (n)
		memcpy(to, p, n);
	return (ssize_t)n;
}

/* The rest, as a text. */
static inline char *
fuzz_text(void *mem, const struct fuzz *f)
{
	return talloc_strndup(mem, f->n ? (const char *)f->p : "", f->n);
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

/* Reads an input, whole or in pieces, and sums up what it was told. */
typedef void fuzz_reader(void *mem, struct fuzz, bool whole);

/* The first byte chooses the reader, which reads the rest in both ways and must be told the same.
 */
static inline int
fuzz_read(fuzz_reader *const *readers, size_t count, uint64_t *sum, const uint8_t *p, size_t n)
{
	struct fuzz f = { p, n };
	fuzz_reader *reader = readers[fuzz_byte(&f) % count];
	void *mem = talloc_new(NULL);
	uint64_t first;

	*sum = 1;
	reader(mem, f, true);
	first = *sum;
	*sum = 1;
	reader(mem, f, false);
	fuzz_same(first, *sum);
	talloc_free(mem);
	return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *, size_t);
