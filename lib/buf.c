/* buf.c - see buf.h. */
#include "buf.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <talloc.h>

void
buf_need(struct buf *b, size_t more)
{
	size_t want = b->len + more + 1;

	if (want <= b->room)
		return;
	if (want < 2 * b->room)
		want = 2 * b->room;
	if (want < 256)
		want = 256;
	b->data = talloc_realloc_size(b->mem, b->data, want);
	if (!b->data)
		abort();
	b->room = want;
}

void
buf_add(struct buf *b, const void *p, size_t n)
{
	buf_need(b, n);
	if (n)
		memcpy(b->data + b->len, p, n);
	b->len += n;
	b->data[b->len] = '\0';
}

void
buf_str(struct buf *b, const char *s)
{
	buf_add(b, s, strlen(s));
}

void
buf_chr(struct buf *b, char c)
{
	buf_add(b, &c, 1);
}

void
buf_int(struct buf *b, int64_t n)
{
	char t[24];
	char *p = t + sizeof t;
	uint64_t u = n < 0 ? -(uint64_t)n : (uint64_t)n;

	do
		*--p = '0' + u % 10;
	while (u /= 10);
	if (n < 0)
		*--p = '-';
	buf_add(b, p, t + sizeof t - p);
}

void
buf_fmt(struct buf *b, const char *fmt, ...)
{
	va_list ap;
	int n;

	va_start(ap, fmt);
	n = vsnprintf(NULL, 0, fmt, ap);
	va_end(ap);
	if (n < 0)
		return;
	buf_need(b, n);
	va_start(ap, fmt);
	vsnprintf(b->data + b->len, n + 1, fmt, ap);
	va_end(ap);
	b->len += n;
}

void
buf_cut(struct buf *b, size_t n)
{
	if (n >= b->len) {
		buf_clear(b);
		return;
	}
	memmove(b->data, b->data + n, b->len - n + 1);
	b->len -= n;
}

void
buf_clear(struct buf *b)
{
	b->len = 0;
	if (b->data)
		b->data[0] = '\0';
}

void
buf_json(struct buf *b, const char *s)
{
	if (s)
		buf_jsonn(b, s, strlen(s));
	else
		buf_add(b, "null", 4);
}

void
buf_jsonn(struct buf *b, const char *s, size_t n)
{
	static const char escape[128] = { ['"'] = '"',
		['\\'] = '\\',
		['\b'] = 'b',
		['\f'] = 'f',
		['\n'] = 'n',
		['\r'] = 'r',
		['\t'] = 't' };
	size_t i, from = 0;
	unsigned char c;

	buf_need(b, n + 2);
	buf_chr(b, '"');
	for (i = 0; i < n; i++) {
		c = s[i];
		if (c >= 0x20 && c != '"' && c != '\\' && c != 0x7f)
			continue;
		buf_add(b, s + from, i - from);
		from = i + 1;
		if (c < 128 && escape[c]) {
			buf_chr(b, '\\');
			buf_chr(b, escape[c]);
		} else
			buf_fmt(b, "\\u%04x", c);
	}
	buf_add(b, s + from, n - from);
	buf_chr(b, '"');
}

void
buf_base64(struct buf *b, const void *p, size_t n)
{
	static const char digit[] =
	    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
	const unsigned char *s = p;
	char *o;
	size_t i;

	buf_need(b, (n + 2) / 3 * 4);
	o = b->data + b->len;
	for (i = 0; i + 2 < n; i += 3) {
		*o++ = digit[s[i] >> 2];
		*o++ = digit[(s[i] & 3) << 4 | s[i + 1] >> 4];
		*o++ = digit[(s[i + 1] & 15) << 2 | s[i + 2] >> 6];
		*o++ = digit[s[i + 2] & 63];
	}
	if (i < n) {
		*o++ = digit[s[i] >> 2];
		*o++ = digit[(s[i] & 3) << 4 | (i + 1 < n ? s[i + 1] >> 4 : 0)];
		*o++ = i + 1 < n ? digit[(s[i + 1] & 15) << 2] : '=';
		*o++ = '=';
	}
	b->len = o - b->data;
	*o = '\0';
}
