/* egress_head.c - the name in a TLS ClientHello (RFC 6066 §3) or an HTTP/1 request (RFC 9112 §3.2).
 */
#include "egress_own.h"

#include <string.h>
#include <strings.h>

enum { HELLO_MAX = 16384, RECORD_HEAD = 5, HANDSHAKE = 22, CLIENT_HELLO = 1, EXT_NAME = 0 };

/* A reader that never leaves its bytes. */
struct bytes {
	const uint8_t *p;
	size_t n;
	bool bad;
};

static size_t
number(struct bytes *b, int width)
{
	size_t v = 0;

	if (b->n < (size_t)width) {
		b->bad = true;
		b->n = 0;
		return 0;
	}
	for (; width; width--, b->n--)
		v = v << 8 | *b->p++;
	return v;
}

static struct bytes
part(struct bytes *b, int width)
{
	size_t n = number(b, width);
	struct bytes r = { b->p, n, false };

	if (b->bad || n > b->n) {
		b->bad = true;
		return (struct bytes){ .bad = true };
	}
	b->p += n;
	b->n -= n;
	return r;
}

static int
server_name(struct bytes hello, char ret[NET_NAME])
{
	struct bytes list, ext, names, name;
	size_t type;

	(void)number(&hello, 2); /* version */
	if (hello.n < 32)
		return -1;
	hello.p += 32;
	hello.n -= 32;
	(void)part(&hello, 1); /* session */
	(void)part(&hello, 2); /* ciphers */
	(void)part(&hello, 1); /* compression */
	list = part(&hello, 2);
	while (!hello.bad && !list.bad && list.n) {
		type = number(&list, 2);
		ext = part(&list, 2);
		if (type != EXT_NAME || list.bad)
			continue;
		names = part(&ext, 2);
		if (number(&names, 1) != 0)
			return -1;
		name = part(&names, 2);
		return !names.bad && net_name_read((const char *)name.p, name.n, ret) ? 1 : -1;
	}
	return -1;
}

/* The hello may come in more than one record. */
static int
tls_name(const uint8_t *p, size_t n, char ret[NET_NAME])
{
	uint8_t hello[HELLO_MAX];
	size_t len = 0, k, whole;

	while (n >= RECORD_HEAD) {
		k = (size_t)p[3] << 8 | p[4];
		if (p[0] != HANDSHAKE || k == 0 || len + k > sizeof hello)
			return -1;
		if (n < RECORD_HEAD + k)
			break;
		memcpy(hello + len, p + RECORD_HEAD, k);
		len += k;
		p += RECORD_HEAD + k;
		n -= RECORD_HEAD + k;
		if (len < 4)
			continue;
		whole = (size_t)hello[1] << 16 | (size_t)hello[2] << 8 | hello[3];
		if (hello[0] != CLIENT_HELLO || whole > sizeof hello - 4)
			return -1;
		if (len >= whole + 4)
			return server_name((struct bytes){ hello + 4, whole, false }, ret);
	}
	return 0;
}

static int
host_value(const char *p, size_t n, char ret[NET_NAME])
{
	const char *colon;

	for (; n && (*p == ' ' || *p == '\t'); p++, n--)
		;
	for (; n && (p[n - 1] == ' ' || p[n - 1] == '\t' || p[n - 1] == '\r'); n--)
		;
	colon = memchr(p, ':', n);
	return net_name_read(p, colon ? (size_t)(colon - p) : n, ret) ? 1 : -1;
}

static int
http_name(const char *p, size_t n, char ret[NET_NAME])
{
	const char *end;
	size_t line;

	for (;; p = end + 1, n -= line + 1) {
		end = memchr(p, '\n', n);
		if (!end)
			return 0;
		line = (size_t)(end - p);
		if (line == 0 || (line == 1 && *p == '\r'))
			return -1;
		if (line > 5 && strncasecmp(p, "host:", 5) == 0)
			return host_value(p + 5, line - 5, ret);
	}
}

int
head_name(const uint8_t *p, size_t n, char ret[NET_NAME])
{
	if (n == 0)
		return 0;
	if (p[0] == HANDSHAKE)
		return tls_name(p, n, ret);
	/* a method's first letter; anything else is no HTTP/1 */
	return p[0] >= 'A' && p[0] <= 'Z' ? http_name((const char *)p, n, ret) : -1;
}
