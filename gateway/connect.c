/* connect.c - see connect.h. */
#include "connect.h"

#include <string.h>

enum { HEAD = 5 };

static size_t
frame_length(const uint8_t *p)
{
	return (size_t)p[1] << 24 | (size_t)p[2] << 16 | (size_t)p[3] << 8 | p[4];
}

int
connect_feed(struct connect *c, const uint8_t *p, size_t n,
    int (*fn)(void *arg, unsigned flags, const char *json, size_t), void *arg, struct err *e)
{
	while (n) {
		size_t want = HEAD, take = 0;
		uint8_t head[HEAD];
		struct buf whole = { 0 };
		int rc = 0;

		if (c->part.len >= HEAD)
			want += frame_length((uint8_t *)c->part.data);
		take = want - c->part.len < n ? want - c->part.len : n;
		buf_add(&c->part, p, take);
		p += take;
		n -= take;
		if (c->part.len < HEAD)
			break;
		memcpy(head, c->part.data, HEAD);
		if (head[0] != 0 && head[0] != CONNECT_LAST)
			return err_set(e, E_PROTOCOL, "frame with flags %u", head[0]);
		if (frame_length(head) > c->max)
			return err_set(e, E_PROTOCOL, "frame of %zu bytes", frame_length(head));
		if (c->part.len < HEAD + frame_length(head))
			continue;
		/* fn may free c: the frame becomes the caller's until it returns. */
		whole = c->part;
		c->part = BUF(whole.mem);
		rc = fn(arg, head[0], whole.data + HEAD, whole.len - HEAD);
		if (rc)
			return rc;
		buf_clear(&whole);
		c->part = whole;
	}
	return 0;
}

void
connect_frame(struct buf *b, unsigned flags, const char *json, size_t n)
{
	uint8_t head[HEAD] = { (uint8_t)flags, (uint8_t)(n >> 24), (uint8_t)(n >> 16),
		(uint8_t)(n >> 8), (uint8_t)n };

	buf_add(b, head, sizeof head);
	buf_add(b, json, n);
}
