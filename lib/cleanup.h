/* cleanup.h - what talloc does not own is released when its variable goes out of scope. */
#pragma once
#include <stdio.h>
#include <stdlib.h>
#include <talloc.h>
#include <unistd.h>

static inline void
cleanup_fd(int *fd)
{
	if (*fd >= 0)
		close(*fd);
}

static inline void
cleanup_talloc(void *p)
{
	talloc_free(*(void **)p);
}

static inline void
cleanup_malloc(void *p)
{
	free(*(void **)p);
}

static inline void
cleanup_file(FILE **f)
{
	if (*f)
		fclose(*f);
}

#define auto_fd     __attribute__((cleanup(cleanup_fd))) int
#define auto_talloc __attribute__((cleanup(cleanup_talloc)))
#define auto_free   __attribute__((cleanup(cleanup_malloc)))
#define auto_file   __attribute__((cleanup(cleanup_file))) FILE

/* Hands the descriptor over to the caller: return take_fd(&fd); */
static inline int
take_fd(int *fd)
{
	int n = *fd;

	*fd = -1;
	return n;
}

#define nitems(a) (sizeof(a) / sizeof((a)[0]))
