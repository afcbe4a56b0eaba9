/*
 * e2b_names.c - names of templates and snapshots as clients of the E2B protocol write them
 * (spec 06 §2): an id of 25 characters, namespace/alias[:tag], alias[:tag].
 */
#include "cleanup.h"
#include "e2b.h"

enum { ALIAS_MAX = 64 };

static const char platform[] = "platform";

const char *
e2b_slug(struct request *r)
{
	struct q_e2b_slug *row;
	int n = q_e2b_team(r->work.db, &row);

	if (n == 0)
		fail(r, E_NO_TEAM, "the credential has no team");
	return n <= 0 ? NULL : row->slug;
}

/* Splits in place: the name space, or NULL; the alias; the tag, or NULL. */
static void
split(char *text, const char **space, char **alias, const char **tag)
{
	char *slash = strchr(text, '/'), *colon;

	*space = NULL;
	if (slash) {
		*slash++ = '\0';
		*space = text;
		text = slash;
	}
	colon = strchr(text, ':');
	if (colon)
		*colon++ = '\0';
	*alias = text;
	*tag = colon;
}

static void
lower(char *s)
{
	for (; *s; s++)
		if (*s >= 'A' && *s <= 'Z')
			*s |= 32;
}

/* Somebody else's and none: the same words. */
static int
unknown(struct request *r)
{
	return fail(r, E_NOT_FOUND, "template not found");
}

/* By id: a snapshot of the team, or a template. */
static int
by_id(struct request *r, const struct uuid *id, struct e2b_named *ret)
{
	struct q_e2b_template *t;
	struct q_e2b_snapshot *s;
	int n = q_e2b_snapshot_find(r->work.db, &s, .id = id);

	if (n > 0)
		ret->snapshot = s;
	if (n == 0) {
		n = q_e2b_template_find(r->work.db, &t, .id = id);
		if (n > 0)
			ret->template = t;
	}
	return n < 0 ? -1 : n ? 0 : unknown(r);
}

/* team: NULL: the own one's before the platform's. */
static int
template_named(struct request *r, const char *name, const struct uuid *team, struct e2b_named *ret)
{
	struct q_e2b_template *t;
	int n = q_e2b_template_find(r->work.db, &t, .name = name, .team = team);

	if (n > 0)
		ret->template = t;
	return n;
}

/* Of another team: what it shows to all. */
static int
template_shown(struct request *r, const char *space, const char *name, struct e2b_named *ret)
{
	struct q_e2b_template *t;
	int n = q_e2b_template_shown(r->work.db, &t, .space = space, .name = name);

	if (n > 0)
		ret->template = t;
	return n < 0 ? -1 : n ? 0 : unknown(r);
}

int
e2b_resolve(struct request *r, const char *text, struct e2b_named *ret)
{
	const char *space, *tag, *slug;
	struct q_e2b_snapshot *s;
	struct uuid id;
	char *alias;
	int n = 0;

	*ret = (struct e2b_named){ 0 };
	split(talloc_strdup(r, text), &space, &alias, &tag);
	if (tag && strcmp(tag, "default") != 0)
		return unknown(r);
	if (!space && id_read(alias, "", &id))
		return by_id(r, &id, ret);
	slug = e2b_slug(r);
	if (!slug)
		return -1;
	if (space && strcmp(space, platform) == 0 && strcmp(slug, platform) != 0) {
		n = template_named(r, alias, &uuid_zero, ret);
		return n < 0 ? -1 : n ? 0 : unknown(r);
	}
	if (space && strcmp(space, slug) != 0)
		return template_shown(r, space, alias, ret);
	/* in the own name space templates and snapshots never share a name */
	n = template_named(r, alias, r->who.team, ret);
	if (n == 0) {
		lower(alias);
		n = q_e2b_snapshot_find(r->work.db, &s, .alias = alias);
		ret->snapshot = n > 0 ? s : NULL;
	}
	if (n == 0 && !space)
		n = template_named(r, alias, NULL, ret);
	ret->alias = alias;
	return n < 0 ? -1 : n ? 0 : unknown(r);
}

int
e2b_alias(struct request *r, const char *text, const char **ret)
{
	const char *space, *tag, *slug = e2b_slug(r);
	struct q_e2b_template *t;
	char *alias;
	size_t len;
	int n;

	if (!slug)
		return -1;
	split(talloc_strdup(r, text), &space, &alias, &tag);
	if (space && strcmp(space, slug) != 0)
		return fail(r, E_BAD_INPUT, "\"name\": the name space is not %s", slug);
	if (tag && strcmp(tag, "default") != 0)
		return fail(r, E_BAD_INPUT, "\"name\": the only tag is default");
	lower(alias);
	len = strlen(alias);
	if (len < 1 || len > ALIAS_MAX ||
	    strspn(alias, "abcdefghijklmnopqrstuvwxyz0123456789_-") != len)
		return fail(r, E_BAD_INPUT, "\"name\" is not 1 to 64 of a-z, 0-9, _ and -");
	n = q_e2b_template_find(r->work.db, &t, .name = alias);
	if (n != 0)
		return n < 0 ? -1 : fail(r, E_CONFLICT, "there is a template %s", alias);
	*ret = alias;
	return 0;
}
