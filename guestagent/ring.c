/* ring.c - see ring.h. */
#include "ring.h"

#include <stdlib.h>
#include <string.h>
#include <talloc.h>

/* Small writes share a chunk; a large one gets one of its own. */
enum { CHUNK = 4096 };

/* Of all rings together; beyond it each keeps only so much. */
enum { ALL = 64 * 1024 * 1024, LITTLE = 128 * 1024 };

static size_t all;

struct ring_chunk {
	struct ring_chunk *next;
	uint64_t at;
	size_t len, room;
	enum ring_kind kind;
	char data[];
};

static void
chunk_new(void *mem, struct ring *r, enum ring_kind kind, size_t n)
{
	size_t room = n > CHUNK ? n : CHUNK;
	struct ring_chunk *c = talloc_size(mem, sizeof *c + room);

	if (!c)
		abort();
	*c = (struct ring_chunk){ .at = r->end, .room = room, .kind = kind };
	if (r->last)
		r->last->next = c;
	else
		r->first = c;
	r->last = c;
	r->room += room;
	all += room;
}

static void
drop_first(struct ring *r)
{
	struct ring_chunk *c = r->first;

	r->first = c->next;
	r->begin = r->first->at;
	r->room -= c->room;
	all -= c->room;
	talloc_free(c);
}

static size_t
most(const struct ring *r)
{
	return all > ALL && r->max > LITTLE ? LITTLE : r->max;
}

void
ring_forget(struct ring *r)
{
	all -= r->room;
	r->room = 0;
}

void
ring_add(void *mem, struct ring *r, enum ring_kind kind, const void *p, size_t n)
{
	if (!r->last || r->last->kind != kind || r->last->room - r->last->len < n)
		chunk_new(mem, r, kind, n);
	memcpy(r->last->data + r->last->len, p, n);
	r->last->len += n;
	r->end += n;
	/* Two streams that alternate byte by byte fill chunks badly: memory counts too. */
	while (r->first != r->last &&
	    (r->end - r->first->next->at >= most(r) || r->room > 2 * most(r)))
		drop_first(r);
}

size_t
ring_get(const struct ring *r, uint64_t at, enum ring_kind *kind, const char **p)
{
	const struct ring_chunk *c = r->first;

	while (c && at >= c->at + c->len)
		c = c->next;
	if (!c || at < c->at)
		return 0;
	*kind = c->kind;
	*p = c->data + (at - c->at);
	return c->len - (size_t)(at - c->at);
}
