/* tally.c - see tally.h. A list: only what is busy just now is in it. */
#include "tally.h"

#include <stdlib.h>
#include <string.h>
#include <talloc.h>

struct tally {
	struct tally *next;
	size_t n;
	char key[];
};

struct share {
	struct tally **list, *of;
};

static int
share_destroy(struct share *s)
{
	struct tally **at = s->list;

	if (--s->of->n)
		return 0;
	while (*at != s->of)
		at = &(*at)->next;
	*at = s->of->next;
	free(s->of);
	return 0;
}

static struct tally *
find(struct tally *t, const char *key)
{
	while (t && strcmp(t->key, key) != 0)
		t = t->next;
	return t;
}

size_t
tally_count(const struct tally *list, const char *key)
{
	const struct tally *t = find((struct tally *)list, key);

	return t ? t->n : 0;
}

void
tally_each(const struct tally *t, void (*fn)(void *, const char *, size_t), void *arg)
{
	for (; t; t = t->next)
		fn(arg, t->key, t->n);
}

bool
tally_take(struct tally **list, void *mem, const char *key, size_t max)
{
	struct tally *t = *list;
	struct share *s = NULL;

	t = find(t, key);
	if (t && t->n >= max)
		return false;
	if (!t) {
		size_t len = strlen(key) + 1;

		t = calloc(1, sizeof *t + len);
		if (!t)
			abort();
		memcpy(t->key, key, len);
		t->next = *list;
		*list = t;
	}
	s = talloc_zero(mem, struct share);
	if (!s)
		abort();
	*s = (struct share){ .list = list, .of = t };
	t->n++;
	talloc_set_destructor(s, share_destroy);
	return true;
}
