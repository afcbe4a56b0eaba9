/*
 * sums.h - SHA-256 of a file's chunks, taken while the file is written: nobody reads it again for
 * that.
 *
 * A thread of its own does the work, beside the one that has the bytes. Everything here blocks.
 */
#pragma once
#include "artifact.h"

struct sums;

struct sums *sums_new(void *mem);
/* The file's next bytes; they are copied. Waits when the thread is behind. */
void sums_add(struct sums *, const void *p, size_t n);
/* The file's bytes from its start to its end, then sums_end(). */
int sums_read(struct sums *, int fd, struct err *);
/* That was all: from now on the sums are there. */
void sums_end(struct sums *);
/* Size, chunks and sums, owned by it; the name is the caller's. */
void sums_file(const struct sums *, struct artifact_file *ret);
/* One sum for all of it: of the chunks' sums in hex. */
void sums_whole(const struct sums *, char ret[ARTIFACT_ID]);
