/*
 * crash.h - named places where a test kills the process: HUTCH_CRASH_AT=create.3 (builds with
 * --enable-dev only; elsewhere it is nothing).
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
	const char *at = getenv("HUTCH_CRASH_AT");

	if (at && strcmp(at, name) == 0)
		kill(getpid(), SIGKILL);
}
#else
#define crash_point(name) ((void)0)
#endif
