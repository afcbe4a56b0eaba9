/* text.c - see text.h. */
#include "text.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <talloc.h>

static int
digit64(char c)
{
	if (c >= 'A' && c <= 'Z')
		return c - 'A';
	if (c >= 'a' && c <= 'z')
		return c - 'a' + 26;
	if (c >= '0' && c <= '9')
		return c - '0' + 52;
	if (c == '+' || c == '-')
		return 62;
	return c == '/' || c == '_' ? 63 : -1;
}

int
text_base64(void *mem, const char *s, uint8_t **ret, size_t *len, struct err *e)
{
	size_t n = strlen(s), used = 0;
	uint8_t *out = NULL;
	uint32_t bits = 0;
	int have = 0;

	while (n && s[n - 1] == '=')
		n--;
	if (n % 4 == 1 || strlen(s) - n > 2)
		return err_set(e, E_BAD_INPUT, "not base64");
	out = talloc_size(mem, n / 4 * 3 + 3);
	if (!out)
		abort();
	for (size_t i = 0; i < n; i++) {
		int d = digit64(s[i]);

		if (d < 0) {
			talloc_free(out);
			return err_set(e, E_BAD_INPUT, "not base64");
		}
		bits = bits << 6 | (uint32_t)d;
		have += 6;
		if (have >= 8) {
			have -= 8;
			out[used++] = (uint8_t)(bits >> have);
		}
	}
	*ret = out;
	*len = used;
	return 0;
}

static int
hex(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	c |= 0x20;
	return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

char *
text_percent(void *mem, const char *s, size_t len)
{
	char *out = talloc_size(mem, len + 1), *o = out;

	if (!out)
		abort();
	for (size_t i = 0; i < len; i++) {
		int c = s[i];

		if (c == '+')
			c = ' ';
		else if (c == '%') {
			int a = i + 2 < len ? hex(s[i + 1]) : -1;
			int b = i + 2 < len ? hex(s[i + 2]) : -1;

			if (a < 0 || b < 0) {
				talloc_free(out);
				return NULL;
			}
			c = a << 4 | b;
			i += 2;
		}
		if (c == 0) {
			talloc_free(out);
			return NULL;
		}
		*o++ = (char)c;
	}
	*o = '\0';
	return out;
}

char *
text_query(void *mem, const char *query, const char *name)
{
	size_t len = strlen(name);

	while (query && *query) {
		size_t n = strcspn(query, "&");

		if (n > len && query[len] == '=' && strncmp(query, name, len) == 0)
			return text_percent(mem, query + len + 1, n - len - 1);
		query += n;
		query += *query == '&';
	}
	return NULL;
}

int
text_int(const char *s, int64_t min, int64_t max, int64_t *ret, struct err *e)
{
	char *end = NULL;
	int64_t n = 0;

	errno = 0;
	n = strtoll(s, &end, 10);
	if (*s == '\0' || *end != '\0' || (*s != '-' && (*s < '0' || *s > '9')) || errno ||
	    n < min || n > max)
		return err_set(
		    e, E_BAD_INPUT, "not a number between %" PRId64 " and %" PRId64, min, max);
	*ret = n;
	return 0;
}

static int
fraction(const char **p)
{
	int n = 0, scale = 100000000;

	for ((*p)++; **p >= '0' && **p <= '9'; (*p)++, scale /= 10)
		n += (**p - '0') * scale;
	return n;
}

int
text_time(const char *s, int64_t *ns, struct err *e)
{
	struct tm tm = { 0 };
	struct err ignore = { 0 };
	const char *p = NULL;
	int64_t nano = 0, offset = 0;
	int h = 0, m = 0, used = 0;

	if (text_int(s, 0, INT64_MAX, ns, &ignore) == 0)
		return 0;
	p = strptime(s, "%Y-%m-%dT%H:%M:%S", &tm);
	if (p && *p == '.')
		nano = fraction(&p);
	if (p && (*p == '+' || *p == '-') && strspn(p + 1, "0123456789:") == 5 &&
	    sscanf(p + 1, "%2d:%2d%n", &h, &m, &used) == 2 && used == 5) {
		offset = (h * 3600 + m * 60) * (*p == '-' ? -1 : 1);
		p += 6;
	} else if (p && *p == 'Z') {
		p++;
	} else {
		p = NULL;
	}
	if (!p || *p || tm.tm_year < 70 || tm.tm_year > 300)
		return err_set(e, E_BAD_INPUT, "not a time");
	*ns = ((int64_t)timegm(&tm) - offset) * 1000000000 + nano;
	return 0;
}

void
text_put_time(struct buf *b, const struct timespec *t)
{
	struct tm tm;

	if (!gmtime_r(&t->tv_sec, &tm)) {
		buf_str(b, "\"1970-01-01T00:00:00Z\"");
		return;
	}
	buf_fmt(b, "\"%04d-%02d-%02dT%02d:%02d:%02d.%09ldZ\"", tm.tm_year + 1900, tm.tm_mon + 1,
	    tm.tm_mday, tm.tm_hour, tm.tm_min, tm.tm_sec, t->tv_nsec);
}

int
text_accepts(const char *header, const char *coding)
{
	size_t len = strlen(coding);
	int any = 0;

	for (const char *p = header; p && *p; p += *p == ',') {
		const char *name = p += strspn(p, " \t,"), *q = NULL;
		size_t n = strcspn(p, " \t;,"), all = strcspn(p, ",");
		int good = 1;

		q = memmem(p, all, "q=", 2);
		if (q && strspn(q + 2, "0.") >= strcspn(q + 2, " \t;,"))
			good = -1;
		p += all;
		if (n == len && strncasecmp(name, coding, len) == 0)
			return good;
		if (n == 1 && *name == '*')
			any = good;
	}
	return any;
}

bool
text_same_secret(const char *a, const char *b)
{
	size_t n = strlen(a), m = strlen(b);
	volatile unsigned char diff = n != m;

	for (size_t i = 0; i < m; i++)
		diff |= (unsigned char)(a[n ? i % n : 0] ^ b[i]);
	return diff == 0;
}
