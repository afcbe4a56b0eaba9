/* utf8.c - see utf8.h. */
#include "utf8.h"

#include "buf.h"

#include <stdint.h>

/* Bytes of the character that begins at p (n left); 0: none that is whole and right. */
static size_t
character(const uint8_t *p, size_t n)
{
	uint8_t low = 0x80, high = 0xbf;
	size_t len = 0;

	if (p[0] < 0x80)
		return 1;
	if (p[0] >= 0xc2 && p[0] <= 0xdf)
		len = 2;
	else if (p[0] >= 0xe0 && p[0] <= 0xef)
		len = 3;
	else if (p[0] >= 0xf0 && p[0] <= 0xf4)
		len = 4;
	if (!len || len > n)
		return 0;
	if (p[0] == 0xe0)
		low = 0xa0;
	else if (p[0] == 0xed)
		high = 0x9f;
	else if (p[0] == 0xf0)
		low = 0x90;
	else if (p[0] == 0xf4)
		high = 0x8f;
	if (p[1] < low || p[1] > high)
		return 0;
	for (size_t i = 2; i < len; i++)
		if ((p[i] & 0xc0) != 0x80)
			return 0;
	return len;
}

bool
utf8_ok(const char *s, size_t n)
{
	const uint8_t *p = (const uint8_t *)s;

	while (n) {
		size_t len = character(p, n);

		if (!len)
			return false;
		p += len;
		n -= len;
	}
	return true;
}

size_t
utf8_whole(const char *s, size_t n)
{
	const uint8_t *p = (const uint8_t *)s;

	for (size_t back = 1; back <= 3 && back <= n; back++) {
		uint8_t c = p[n - back];
		size_t len = c >= 0xf0 ? 4 : c >= 0xe0 ? 3 : c >= 0xc0 ? 2 : 1;

		if ((c & 0xc0) == 0x80)
			continue;
		return len > back ? n - back : n;
	}
	return n;
}

void
utf8_mend(struct buf *b, const char *s, size_t n)
{
	const uint8_t *p = (const uint8_t *)s, *from = p, *end = p + n;

	while (p < end) {
		size_t len = character(p, (size_t)(end - p));

		if (len) {
			p += len;
			continue;
		}
		buf_add(b, from, (size_t)(p - from));
		buf_str(b, "\xef\xbf\xbd");
		from = ++p;
	}
	buf_add(b, from, (size_t)(p - from));
}
