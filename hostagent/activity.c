/* activity.c - see activity.h. */
#include "activity.h"
#include "capsule.h"
#include "idle.h"

#include <string.h>

enum kind {
	NONE,
	TOUCH, /* start and end count */
	HOLD,  /* and all that is between */
};

/* The first row that begins the path. */
static const struct rule {
	/* clang-format off */
	const char *path;
	enum kind kind;
	unsigned signal; /* of the hold; start and end count as api, too */
	bool input;      /* what goes in counts, as input */
} rules[] = {
	{ "/health",				NONE,	0,		false },
	{ "/metrics",				NONE,	0,		false },
	{ "/envs",				NONE,	0,		false },
	{ "/process.Process/List",		NONE,	0,		false },
	{ "/process.Process/Start",		HOLD,	IDLE_EXEC,	false },
	{ "/process.Process/Connect",		HOLD,	IDLE_EXEC,	false },
	{ "/process.Process/SendInput",		TOUCH,	0,		true },
	{ "/process.Process/StreamInput",	TOUCH,	0,		true },
	{ "/filesystem.Filesystem/WatchDir",	TOUCH,	0,		false },
	{ "/filesystem.Filesystem/GetWatcherEvents", NONE, 0,		false },
	{ "/files",				HOLD,	IDLE_API,	false },
	{ "/",					TOUCH,	0,		false },
	/* clang-format on */
};

struct activity {
	struct capsule *capsule; /* outlives its calls: a record is kept for a day */
	const struct rule *rule;
	bool port; /* bytes count both ways */
};

static int
activity_free(struct activity *a)
{
	idle_touch(a->capsule, a->port ? IDLE_PORT : IDLE_API);
	return 0;
}

struct activity *
activity_begin(void *mem, struct capsule *c, const char *method, const char *path, const char *said)
{
	const struct rule *r = rules;
	struct activity *a;
	enum kind kind;
	bool port = strcmp(method, "CONNECT") == 0;

	while (r < rules + nitems(rules) - 1 && strncmp(path, r->path, strlen(r->path)) != 0)
		r++;
	kind = r->kind;
	if (said)
		kind = strcmp(said, "hold") == 0 ? HOLD : strcmp(said, "none") == 0 ? NONE : TOUCH;
	if (kind == NONE)
		return NULL;
	a = talloc_zero(mem, struct activity);
	a->capsule = c;
	a->rule = r;
	a->port = port;
	if (kind == HOLD)
		(void)idle_hold(a, c, r->signal ? r->signal : port ? IDLE_PORT : IDLE_API);
	idle_touch(c, port ? IDLE_PORT : IDLE_API);
	talloc_set_destructor(a, activity_free);
	return a;
}

void
activity_in(struct activity *a)
{
	if (a && (a->port || a->rule->input))
		idle_touch(a->capsule, a->port ? IDLE_PORT : IDLE_INPUT);
}

void
activity_out(struct activity *a)
{
	if (a && a->port)
		idle_touch(a->capsule, IDLE_PORT);
}
