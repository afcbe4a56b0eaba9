/*
 * crash.h - named places where a test kills the process: HUTCH_CRASH_AT=create.3, or several of
 * them with blanks between (builds with --enable-dev only; elsewhere it is nothing).
 */
#pragma once
#ifdef DEV_BUILD
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static inline void
crash_point(const char *name)
{
	const char *at = getenv("HUTCH_CRASH_AT"), *p;
	size_t n = strlen(name);

	for (p = at; p && (p = strstr(p, name)) != NULL; p += n)
		if ((p == at || p[-1] == ' ') && (p[n] == ' ' || p[n] == '\0'))
			kill(getpid(), SIGKILL);
}
#else
#define crash_point(name) ((void)0)
#endif
