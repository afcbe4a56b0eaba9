/* port_ws.c - see port_ws.h. Of RFC 6455 only §5.2: the head of a frame, which says its length. */
#include "port_ws.h"

#include <string.h>
#include <sys/random.h>
#include <talloc.h>

enum { HEAD_MAX = 14, MARK = 8, PING = 0x9, PONG = 0xa, FIN = 0x80, MASKED = 0x80 };

/* Where one direction stands: in a head (have > 0), in a payload (left > 0), or between frames. */
struct frames {
	uint8_t head[HEAD_MAX + MARK];
	size_t have;
	uint64_t left;
	bool lost; /* that was no frame: from here on nothing is known */
};

struct port_ws {
	struct frames down, up;
	uint8_t mark[MARK]; /* what our pings carry, and their answers */
};

struct port_ws *
port_ws_new(void *mem)
{
	struct port_ws *w = talloc_zero(mem, struct port_ws);

	if (!w || getrandom(w->mark, MARK, 0) != MARK)
		abort();
	return w;
}

/* How long the head is, as far as is known; 2 at first. */
static size_t
head_size(const struct frames *f)
{
	uint8_t len = f->have > 1 ? f->head[1] & 127 : 0;

	if (f->have < 2)
		return 2;
	return 2 + (len == 126 ? 2 : len == 127 ? 8 : 0) + (f->head[1] & MASKED ? 4 : 0);
}

static uint64_t
payload(const struct frames *f)
{
	uint64_t n = f->head[1] & 127;
	size_t more = n == 126 ? 2 : n == 127 ? 8 : 0;

	if (more)
		n = 0;
	for (size_t i = 0; i < more; i++)
		n = n << 8 | f->head[2 + i];
	return n;
}

/* Takes bytes until the head is there. True: it is. */
static bool
head(struct frames *f, const uint8_t **p, const uint8_t *end)
{
	while (*p < end && f->have < head_size(f))
		f->head[f->have++] = *(*p)++;
	return f->have >= 2 && f->have >= head_size(f);
}

/* The head is done with: its payload follows. */
static void
begin(struct frames *f)
{
	f->left = payload(f);
	f->lost = f->left >> 63;
	f->have = 0;
}

static size_t
pass(struct frames *f, size_t n)
{
	if (n > f->left)
		n = (size_t)f->left;
	f->left -= n;
	return n;
}

void
port_ws_down(struct port_ws *w, const void *data, size_t n)
{
	struct frames *f = &w->down;
	const uint8_t *p = data, *end = p + n;

	while (p < end && !f->lost) {
		if (f->left)
			p += pass(f, (size_t)(end - p));
		else if (head(f, &p, end))
			begin(f);
	}
}

/* An answer to one of our pings, whose payload is still to come. */
static bool
may_be_ours(const struct frames *f)
{
	return f->head[0] == (FIN | PONG) && f->head[1] == (MASKED | MARK);
}

static bool
is_ours(const struct port_ws *w)
{
	const uint8_t *mask = w->up.head + 2, *text = mask + 4;

	for (size_t i = 0; i < MARK; i++)
		if ((text[i] ^ mask[i & 3]) != w->mark[i])
			return false;
	return true;
}

void
port_ws_up(struct port_ws *w, const void *data, size_t n, struct buf *on)
{
	struct frames *f = &w->up;
	const uint8_t *p = data, *end = p + n;

	while (p < end && !f->lost) {
		if (f->left) {
			size_t some = pass(f, (size_t)(end - p));

			buf_add(on, p, some);
			p += some;
			continue;
		}
		if (!head(f, &p, end))
			break;
		if (may_be_ours(f)) { /* its payload is looked at before it may go on */
			size_t whole = head_size(f) + MARK;

			while (p < end && f->have < whole)
				f->head[f->have++] = *p++;
			if (f->have < whole)
				break;
			if (!is_ours(w))
				buf_add(on, f->head, f->have);
			f->have = 0;
			continue;
		}
		buf_add(on, f->head, f->have);
		begin(f);
	}
	if (f->lost)
		buf_add(on, p, (size_t)(end - p));
}

size_t
port_ws_ping(const struct port_ws *w, uint8_t ping[16])
{
	if (w->down.have || w->down.left || w->down.lost)
		return 0;
	ping[0] = FIN | PING;
	ping[1] = MARK;
	memcpy(ping + 2, w->mark, MARK);
	return 2 + MARK;
}
