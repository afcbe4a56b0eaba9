/* events_topic.c - see events.h: which events belong to a topic, and who may see them (spec 04
 * §1.4). */
#include "events.h"

#include "access.h"
#include "cleanup.h"
#include "principal.h"

#include <ctype.h>
#include <string.h>
#include <strings.h>

bool
topic_read(struct topic *t, const char *name, const struct viewer *v)
{
	struct uuid id;

	t->name = name;
	t->id = uuid_zero;
	if (strcmp(name, "me") == 0) {
		t->kind = TOPIC_ME;
	} else if (strcmp(name, "team") == 0) {
		t->kind = TOPIC_TEAM;
	} else if (strncmp(name, "team:", 5) == 0) {
		t->kind = TOPIC_TEAM;
		if (!id_read(name + 5, "team-", &id) || !v->has_team || !uuid_equal(&id, &v->team))
			return false;
	} else if (strncmp(name, "capsule:", 8) == 0) {
		t->kind = TOPIC_CAPSULE;
		if (!id_read(name + 8, "cl-", &t->id))
			return false;
	} else if (strncmp(name, "job:", 4) == 0) {
		t->kind = TOPIC_JOB;
		if (!id_read(name + 4, "job-", &t->id))
			return false;
	} else if (strcmp(name, "metrics") == 0) {
		t->kind = TOPIC_METRICS;
	} else {
		return false;
	}
	return true;
}

static bool
runs_team(const struct viewer *v)
{
	return !v->by_key &&
	    (strcmp(v->now.role, "owner") == 0 || strcmp(v->now.role, "admin") == 0);
}

static bool
runs_platform(const struct viewer *v)
{
	return !v->by_key &&
	    (strcmp(v->now.platform_role, "admin") == 0 ||
		strcmp(v->now.platform_role, "operator") == 0);
}

enum err_code
topic_denied(const struct topic *t, const struct viewer *v)
{
	switch (t->kind) {
	case TOPIC_ME:
		return v->has_user && !v->by_key ? E_OK : E_FORBIDDEN;
	case TOPIC_METRICS:
		return runs_platform(v) ? E_OK : E_NOT_FOUND;
	default:
		return v->has_team && v->sees_team ? E_OK : E_FORBIDDEN;
	}
}

static bool
is_subject(const struct viewer *v, const struct happening *h)
{
	if (!v->has_user || v->by_key)
		return false;
	/* a job's subject is who asked for it */
	return (h->has_user && uuid_equal(&h->user, &v->user)) ||
	    (strcmp(h->resource_type, "job") == 0 && strcmp(h->actor_id, v->user_id) == 0);
}

/* Private capsules are seen by their owners and those who run the team; of forgotten ones it is not
 * known. */
static bool
capsule_shown(const struct viewer *v, const struct happening *h)
{
	if (!h->has_capsule || (!h->private_capsule && !h->lost_capsule) || runs_team(v))
		return true;
	return h->private_capsule && v->has_user && h->has_owner && uuid_equal(&h->owner, &v->user);
}

static bool
shown(const struct viewer *v, const struct happening *h)
{
	bool own = v->has_team && v->sees_team && uuid_equal(&h->team, &v->team);

	for (const char *c = h->kind->audience; *c; c++)
		switch (*c) {
		case 'T':
			if (own && capsule_shown(v, h))
				return true;
			break;
		case 'A':
			if (own && runs_team(v))
				return true;
			break;
		case 'S':
			if (is_subject(v, h))
				return true;
			break;
		case 'P':
			if (own && runs_platform(v))
				return true;
			break;
		}
	return false;
}

bool
topic_shows(const struct topic *t, const struct viewer *v, const struct happening *h)
{
	char id[ID_SIZE];

	if (topic_denied(t, v) != E_OK || !shown(v, h))
		return false;
	switch (t->kind) {
	case TOPIC_ME:
		return is_subject(v, h);
	case TOPIC_TEAM:
		return uuid_equal(&h->team, &v->team);
	case TOPIC_CAPSULE:
		return uuid_equal(&h->team, &v->team) && h->has_capsule &&
		    uuid_equal(&h->capsule, &t->id);
	case TOPIC_JOB:
		return uuid_equal(&h->team, &v->team) && strcmp(h->resource_type, "job") == 0 &&
		    strcmp(h->resource_id, id_write(id, "job-", &t->id)) == 0;
	case TOPIC_METRICS:
		return false;
	}
	return false;
}

/* ---- filters */

bool
filter_ok(const char *filter)
{
	size_t n = strlen(filter);

	if (!n || n > 64)
		return false;
	for (const char *c = filter; *c; c++)
		if (!islower((unsigned char)*c) && !isdigit((unsigned char)*c) &&
		    !strchr("._-", *c) && !(*c == '*' && !c[1] && (c == filter || c[-1] == '.')))
			return false;
	return true;
}

/* clang-format off */
static const struct {
	const char *old, *type;
} aliases[] = {
	{ "deleted", "destroyed" }, { "stopped", "destroyed" },
	{ "resumed", "running" }, { "woken", "running" }, { "started", "running" },
};
/* clang-format on */

static bool
one_shows(const char *f, const char *type)
{
	const char *name = NULL;
	size_t n = strlen(f);

	if (strcmp(f, "*") == 0)
		return true;
	if (strncmp(f, "session.", 8) == 0 || strncmp(f, "capsule.", 8) == 0) {
		if (strncmp(type, "capsule.", 8) != 0)
			return false;
		name = f + 8;
		for (size_t i = 0; i < nitems(aliases); i++)
			if (strcmp(aliases[i].old, name) == 0)
				name = aliases[i].type;
		return strcmp(name, "*") == 0 || strcmp(name, type + 8) == 0;
	}
	if (f[n - 1] == '*')
		return strncmp(f, type, n - 1) == 0;
	return strcmp(f, type) == 0;
}

bool
filter_shows(const char *const *filters, const char *type)
{
	if (!filters || !*filters)
		return true;
	for (; *filters; filters++)
		if (one_shows(*filters, type))
			return true;
	return false;
}

bool
changes_rights(const struct viewer *v, const struct happening *h)
{
	bool me = h->has_user && v->has_user && uuid_equal(&h->user, &v->user);

	if (strncmp(h->type, "auth.", 5) == 0 || strncmp(h->type, "admin.", 6) == 0 ||
	    strncmp(h->type, "user.", 5) == 0)
		return me;
	if (!v->has_team || !uuid_equal(&h->team, &v->team))
		return false;
	return strncmp(h->type, "key.", 4) == 0
	    ? v->by_key
	    : strncmp(h->type, "team.", 5) == 0 || strncmp(h->type, "grant.", 6) == 0;
}
