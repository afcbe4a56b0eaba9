/* id.c - see id.h. */
#include "id.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <talloc.h>
#include <time.h>
#include <unistd.h>
#include <uuid/uuid.h>

const struct uuid uuid_zero;

/*
 * Random bytes come from a buffer of 4 KiB: a getrandom() a request would be the dearest call of a
 * read. A forked child must not repeat its parent's: the pid guards that.
 */
static void
random_bytes(void *to, size_t n)
{
	static unsigned char pool[4096];
	static size_t left;
	static pid_t owner;

	if (left < n || owner != getpid()) {
		if (getrandom(pool, sizeof pool, 0) != sizeof pool)
			abort();
		left = sizeof pool;
		owner = getpid();
	}
	left -= n;
	memcpy(to, pool + left, n);
	explicit_bzero(pool + left, n);
}

struct uuid
uuid_new(void)
{
	static uint64_t last;
	struct timespec now;
	struct uuid u;
	uint64_t stamp;
	int i;

	clock_gettime(CLOCK_REALTIME, &now);
	/* milliseconds in the upper 48 bits, 12 bits of their fraction below */
	stamp = ((uint64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000) << 12 |
	    (uint64_t)(now.tv_nsec % 1000000) * 4096 / 1000000;
	if (stamp <= last)
		stamp = last + 1;
	last = stamp;
	random_bytes(u.b, sizeof u.b);
	for (i = 0; i < 6; i++)
		u.b[i] = stamp >> (52 - 8 * i);
	u.b[6] = 0x70 | (stamp >> 8 & 15);
	u.b[7] = stamp;
	u.b[8] = 0x80 | (u.b[8] & 0x3f);
	return u;
}

bool
uuid_equal(const struct uuid *a, const struct uuid *b)
{
	return memcmp(a, b, sizeof *a) == 0;
}

char *
id_write(char *out, const char *prefix, const struct uuid *u)
{
	size_t np = strlen(prefix);
	unsigned __int128 n = 0;
	int i;

	for (i = 0; i < 16; i++)
		n = n << 8 | u->b[i];
	memcpy(out, prefix, np);
	for (i = ID_DIGITS - 1; i >= 0; i--, n /= 36)
		out[np + i] = "0123456789abcdefghijklmnopqrstuvwxyz"[n % 36];
	out[np + ID_DIGITS] = '\0';
	return out;
}

const char *
id_text(void *mem, const char *prefix, const struct uuid *u)
{
	return id_write(talloc_array(mem, char, strlen(prefix) + ID_DIGITS + 1), prefix, u);
}

bool
id_read(const char *text, const char *prefix, struct uuid *ret)
{
	const unsigned __int128 max = ~(unsigned __int128)0;
	unsigned __int128 n = 0;
	size_t np = strlen(prefix);
	int i, digit;
	char c;

	if (strncmp(text, prefix, np) != 0)
		return false;
	for (i = 0; i < ID_DIGITS; i++) {
		c = text[np + i];
		if (c >= '0' && c <= '9')
			digit = c - '0';
		else if (c >= 'a' && c <= 'z')
			digit = c - 'a' + 10;
		else
			return false; /* the end of a short text too */
		if (n > (max - digit) / 36)
			return false;
		n = n * 36 + digit;
	}
	if (text[np + ID_DIGITS])
		return false;
	for (i = 15; i >= 0; i--, n >>= 8)
		ret->b[i] = n;
	return true;
}

char *
uuid_write(char out[37], const struct uuid *u)
{
	uuid_unparse_lower(u->b, out);
	return out;
}

bool
uuid_read(const char *text, struct uuid *ret)
{
	return uuid_parse(text, ret->b) == 0;
}
