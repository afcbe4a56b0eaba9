/* h2_mark.c - see h2_mark.h. */
#include "h2_mark.h"

#include <string.h>

enum {
	FRAME_HEAD = 9,
	TYPE_SETTINGS = 4,
	PREFACE_SIZE = 24,
	ENTRY = 6,
	SETTINGS_MOST = 32 * ENTRY, /* what nghttp2 takes */
	KIND = 3,                   /* of a frame's head: where its type is, behind the length */
	DROP_MOST = 16 * 1024 * 1024,
};

static uint32_t
number(const uint8_t *p, size_t n)
{
	uint32_t v = 0;

	while (n--)
		v = v << 8 | *p++;
	return v;
}

static void
put(uint8_t *p, uint32_t v, size_t n)
{
	while (n--) {
		p[n] = (uint8_t)v;
		v >>= 8;
	}
}

/* Bytes of the entries of a first SETTINGS, 0: it is none. */
static size_t
settings_size(const uint8_t *p)
{
	size_t n = number(p, KIND);

	if (p[KIND] != TYPE_SETTINGS || number(p + KIND + 1, 1) || number(p + KIND + 2, 4))
		return 0;
	return n % ENTRY == 0 && n <= SETTINGS_MOST ? n : 0;
}

/* NULL: it has none. */
static const uint8_t *
entry(const uint8_t *p, size_t n, unsigned id)
{
	for (; n >= ENTRY; p += ENTRY, n -= ENTRY)
		if (number(p, 2) == id)
			return p + 2;
	return NULL;
}

struct h2_mark
h2_mark_of(const uint8_t *p, size_t n)
{
	const uint8_t *settings = p + PREFACE_SIZE + FRAME_HEAD, *v = NULL;
	size_t size = n >= PREFACE_SIZE + FRAME_HEAD ? settings_size(p + PREFACE_SIZE) : 0;
	struct h2_mark m = { { 0 } };

	if (n < PREFACE_SIZE + FRAME_HEAD + size)
		return m;
	for (unsigned i = 0; i < H2_MARK_WORDS; i++)
		if ((v = entry(settings, size, H2_MARK_SETTING + i)))
			m.word[i] = number(v, 4);
	return m;
}

static void
put_entries(uint8_t *p, const struct h2_mark *m)
{
	for (unsigned i = 0; i < H2_MARK_WORDS; i++) {
		put(p + i * ENTRY, H2_MARK_SETTING + i, 2);
		put(p + i * ENTRY + 2, m->word[i], 4);
	}
}

void
h2_mark_put(uint8_t *p, const struct h2_mark *m)
{
	put_entries(p + PREFACE_SIZE + FRAME_HEAD, m);
}

/* A server's SETTINGS with our mark, from the type on: what no earlier session can have said. */
static size_t
pattern(const struct h2_mark *m, uint8_t to[FRAME_HEAD + H2_MARK_SIZE])
{
	memset(to, 0, FRAME_HEAD);
	to[0] = TYPE_SETTINGS;
	put_entries(to + FRAME_HEAD - KIND, m);
	return FRAME_HEAD - KIND + H2_MARK_SIZE;
}

/* Whether these are the first words of a server that knows of no marks. -1: too few to say. */
static int
unmarked(const struct h2_gate *g)
{
	const uint8_t *p = (const uint8_t *)g->in.data;
	size_t size;

	if (g->dropped)
		return 0;
	if (g->in.len < FRAME_HEAD)
		return -1;
	size = settings_size(p);
	if (!size)
		return 0;
	if (g->in.len < FRAME_HEAD + size)
		return -1;
	return !entry(p + FRAME_HEAD, size, H2_MARK_SETTING);
}

int
h2_gate_feed(struct h2_gate *g, const uint8_t *p, size_t n)
{
	uint8_t want[FRAME_HEAD + H2_MARK_SIZE];
	size_t size = pattern(&g->mark, want), keep = KIND + size - 1;
	const char *at = NULL;
	int rc = 0;

	buf_add(&g->in, p, n);
	at = g->in.len > KIND ? memmem(g->in.data + KIND, g->in.len - KIND, want, size) : NULL;
	if (at) {
		buf_cut(&g->in, (size_t)(at - g->in.data) - KIND);
		return 1;
	}
	rc = unmarked(g);
	if (rc) /* which hello it answers cannot be known: the next connection says only one */
		return rc < 0 ? 0 : g->again ? -1 : 1;
	if (g->in.len > keep) {
		g->dropped += g->in.len - keep;
		buf_cut(&g->in, g->in.len - keep);
	}
	return g->dropped > DROP_MOST ? -1 : 0;
}
