/*
 * cron.h - times that come again: "minute hour day month weekday", in UTC.
 *
 * A part is a star, numbers, ranges a-b, steps of either (star/5, 1-9/2), or a list of them with
 * commas. Sunday is 0 or 7. When day and weekday are both given, either will do, as in cron(5).
 */
#pragma once
#include "err.h"

#include <stdint.h>

/* The first time behind `after`, in seconds since 1970. -1: E_BAD_INPUT says which part is wrong,
 * or that it never comes. */
int cron_next(const char *text, int64_t after, int64_t *next, struct err *);
