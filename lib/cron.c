/* cron.c - see cron.h. */
#include "cron.h"
#include "cleanup.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { PARTS = 5, DAYS_AHEAD = 366 * 8 + 2 }; /* 29 February comes within eight years */

static const struct part {
	const char *name;
	int least, most;
} parts[PARTS] = {
	{ "minute", 0, 59 },
	{ "hour", 0, 23 },
	{ "day", 1, 31 },
	{ "month", 1, 12 },
	{ "weekday", 0, 7 },
};

struct cron {
	uint64_t set[PARTS]; /* a bit for each value */
	bool any_day, any_weekday;
};

static bool
number(const char **p, int *ret)
{
	char *end;

	if (**p < '0' || **p > '9')
		return false;
	*ret = (int)strtol(*p, &end, 10);
	if (end - *p > 2)
		return false;
	*p = end;
	return true;
}

/* star, a, a-b, and /step behind them. */
static bool
one(const struct part *k, const char **p, uint64_t *set)
{
	int from = k->least, to = k->most, step = 1, i;

	if (**p == '*')
		++*p;
	else {
		if (!number(p, &from))
			return false;
		to = from;
		if (**p == '-') {
			++*p;
			if (!number(p, &to))
				return false;
		}
	}
	if (**p == '/') {
		++*p;
		if (!number(p, &step) || step < 1)
			return false;
	}
	if (from < k->least || to > k->most || from > to)
		return false;
	for (i = from; i <= to; i += step)
		*set |= 1ULL << i;
	return true;
}

/* A list; behind it is a space or the end. */
static bool
list(const struct part *k, const char **p, uint64_t *set)
{
	while (one(k, p, set)) {
		if (**p != ',')
			return !**p || **p == ' ';
		++*p;
	}
	return false;
}

static int
cron_read(const char *text, struct cron *c, struct err *e)
{
	const char *p = text, *from;
	int i;

	*c = (struct cron){ 0 };
	for (i = 0; i < PARTS; i++) {
		p += strspn(p, " ");
		if (i == 2)
			c->any_day = *p == '*';
		if (i == 4)
			c->any_weekday = *p == '*';
		from = p;
		if (!list(&parts[i], &p, &c->set[i]))
			return err_set(e, E_BAD_INPUT,
			    "\"cron\": the %s is not understood: \"%.20s\"", parts[i].name, from);
	}
	p += strspn(p, " ");
	if (*p)
		return err_set(e, E_BAD_INPUT, "\"cron\" has more than five parts");
	if (c->set[4] & 1ULL << 7)
		c->set[4] |= 1;
	return 0;
}

static bool
day_fits(const struct cron *c, const struct tm *t)
{
	bool day = c->set[2] >> t->tm_mday & 1, weekday = c->set[4] >> t->tm_wday & 1;

	if (!(c->set[3] >> (t->tm_mon + 1) & 1))
		return false;
	if (c->any_day || c->any_weekday)
		return day && weekday;
	return day || weekday;
}

int
cron_next(const char *text, int64_t after, int64_t *next, struct err *e)
{
	time_t at = after - after % 60 + 60;
	struct cron c;
	struct tm t;
	int day;

	if (cron_read(text, &c, e) < 0)
		return -1;
	for (day = 0; day < DAYS_AHEAD; day++) {
		gmtime_r(&at, &t);
		for (; day_fits(&c, &t); at += 60) {
			gmtime_r(&at, &t);
			if (c.set[1] >> t.tm_hour & 1 && c.set[0] >> t.tm_min & 1) {
				*next = at;
				return 0;
			}
			if (at % 86400 == 86340)
				break; /* the last minute of its day */
		}
		at += 86400 - at % 86400;
	}
	return err_set(e, E_BAD_INPUT, "\"cron\": such a time never comes");
}
