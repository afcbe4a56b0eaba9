/* rfc3339.c - see rfc3339.h. */
#include "rfc3339.h"

#include <ctype.h>
#include <string.h>
#include <time.h>

void
time_write(struct buf *b, int64_t us)
{
	time_t sec = us >= 0 ? us / 1000000 : -((999999 - us) / 1000000);
	int64_t frac = us - (int64_t)sec * 1000000;
	struct tm tm;

	gmtime_r(&sec, &tm);
	buf_fmt(b, "%04d-%02d-%02dT%02d:%02d:%02d", tm.tm_year + 1900, tm.tm_mon + 1, tm.tm_mday,
	    tm.tm_hour, tm.tm_min, tm.tm_sec);
	if (frac)
		buf_fmt(b, ".%06d", (int)frac);
	buf_chr(b, 'Z');
}

/* Exactly n digits at *s, which moves behind them; -1: there are others. */
static int
digits(const char **s, int n)
{
	int v = 0;

	for (; n; n--, (*s)++) {
		if (!isdigit((unsigned char)**s))
			return -1;
		v = v * 10 + (**s - '0');
	}
	return v;
}

static bool
one_char(const char **s, const char *of)
{
	return **s && strchr(of, *(*s)++);
}

static bool
read_clock(const char **s, struct tm *tm)
{
	static const int last[] = { 31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31 };
	bool leap;

	if ((tm->tm_year = digits(s, 4)) < 0 || !one_char(s, "-") ||
	    (tm->tm_mon = digits(s, 2)) < 1 || !one_char(s, "-") ||
	    (tm->tm_mday = digits(s, 2)) < 1 || !one_char(s, "Tt") ||
	    (tm->tm_hour = digits(s, 2)) < 0 || !one_char(s, ":") ||
	    (tm->tm_min = digits(s, 2)) < 0 || !one_char(s, ":") || (tm->tm_sec = digits(s, 2)) < 0)
		return false;
	leap = tm->tm_year % 4 == 0 && (tm->tm_year % 100 != 0 || tm->tm_year % 400 == 0);
	if (tm->tm_mon > 12 || tm->tm_mday > last[tm->tm_mon - 1] + (leap && tm->tm_mon == 2) ||
	    tm->tm_hour > 23 || tm->tm_min > 59 || tm->tm_sec > 60)
		return false;
	tm->tm_year -= 1900;
	tm->tm_mon--;
	return true;
}

/* Z, or +01:30: seconds east of Greenwich. */
static bool
read_zone(const char **s, int64_t *zone)
{
	int sign = **s == '-' ? -60 : 60, h, m;

	*zone = 0;
	if (**s == 'Z' || **s == 'z') {
		(*s)++;
		return true;
	}
	if (!one_char(s, "+-") || (h = digits(s, 2)) < 0 || !one_char(s, ":") ||
	    (m = digits(s, 2)) < 0 || h > 23 || m > 59)
		return false;
	*zone = sign * (h * 60 + m);
	return true;
}

bool
time_read(const char *s, int64_t *us)
{
	int64_t frac = 0, zone;
	struct tm tm = { 0 };
	int i;

	if (!read_clock(&s, &tm))
		return false;
	if (*s == '.') {
		for (i = 0, s++; isdigit((unsigned char)*s); s++, i++)
			if (i < 6)
				frac = frac * 10 + (*s - '0');
		if (!i)
			return false;
		for (; i < 6; i++)
			frac *= 10;
	}
	if (!read_zone(&s, &zone) || *s)
		return false;
	*us = ((int64_t)timegm(&tm) - zone) * 1000000 + frac;
	return true;
}
