/* json.c - see json.h. */
#include "json.h"
#include "buf.h"
#include "cleanup.h"

#include <errno.h>
#include <math.h>
#include <stdbool.h>
#include <string.h>

struct scan {
	const char *text, *p, *end;
	struct json_limits limit;
	struct err *err;
	struct buf keys; /* decoded keys of all open objects, each NUL-terminated */
	int nkeys;       /* in the whole document */
	int depth;
};

static int value(struct scan *);

static int
refuse(struct scan *s, const char *why)
{
	return err_set(
	    s->err, E_BAD_INPUT, "the body is not valid JSON: %s at byte %td", why, s->p - s->text);
}

static void
space(struct scan *s)
{
	while (s->p < s->end && (*s->p == ' ' || *s->p == '\t' || *s->p == '\n' || *s->p == '\r'))
		s->p++;
}

/* One UTF-8 sequence of two to four bytes (RFC 3629: shortest form, no surrogates, <= U+10FFFF). */
static int
utf8(struct scan *s)
{
	const unsigned char *p = (const unsigned char *)s->p;
	int more = *p >= 0xf0 ? 3 : *p >= 0xe0 ? 2 : 1;
	int i;

	if (*p < 0xc2 || *p > 0xf4 || s->end - s->p <= more)
		return refuse(s, "invalid UTF-8");
	for (i = 1; i <= more; i++)
		if ((p[i] & 0xc0) != 0x80)
			return refuse(s, "invalid UTF-8");
	if ((*p == 0xe0 && p[1] < 0xa0) || (*p == 0xed && p[1] > 0x9f) ||
	    (*p == 0xf0 && p[1] < 0x90) || (*p == 0xf4 && p[1] > 0x8f))
		return refuse(s, "invalid UTF-8");
	s->p += more + 1;
	return 0;
}

static int
hex4(struct scan *s)
{
	int i, n = 0;

	for (i = 0; i < 4; i++, s->p++) {
		if (s->p >= s->end)
			return refuse(s, "unfinished escape");
		if (*s->p >= '0' && *s->p <= '9')
			n = n << 4 | (*s->p - '0');
		else if ((*s->p | 32) >= 'a' && (*s->p | 32) <= 'f')
			n = n << 4 | ((*s->p | 32) - 'a' + 10);
		else
			return refuse(s, "bad \\u escape");
	}
	return n;
}

static void
put_utf8(struct buf *b, unsigned c)
{
	if (c < 0x80)
		buf_chr(b, c);
	else if (c < 0x800)
		buf_add(b, (char[]){ 0xc0 | c >> 6, 0x80 | (c & 63) }, 2);
	else if (c < 0x10000)
		buf_add(b, (char[]){ 0xe0 | c >> 12, 0x80 | (c >> 6 & 63), 0x80 | (c & 63) }, 3);
	else
		buf_add(b,
		    (char[]){ 0xf0 | c >> 18, 0x80 | (c >> 12 & 63), 0x80 | (c >> 6 & 63),
			0x80 | (c & 63) },
		    4);
}

static int
escape(struct scan *s, struct buf *out)
{
	static const char from[] = "\"\\/bfnrt", to[] = "\"\\/\b\f\n\r\t";
	const char *known;
	int c, low;

	if (++s->p >= s->end)
		return refuse(s, "unfinished string");
	if (*s->p != 'u') {
		known = *s->p ? strchr(from, *s->p) : NULL;
		if (!known)
			return refuse(s, "bad escape");
		s->p++;
		if (out)
			buf_chr(out, to[known - from]);
		return 0;
	}
	s->p++;
	c = hex4(s);
	if (c < 0)
		return -1;
	if (c == 0)
		return refuse(s, "\\u0000 in a string");
	if (c >= 0xdc00 && c <= 0xdfff)
		return refuse(s, "lone surrogate");
	if (c >= 0xd800 && c <= 0xdbff) {
		if (s->end - s->p < 6 || s->p[0] != '\\' || s->p[1] != 'u')
			return refuse(s, "lone surrogate");
		s->p += 2;
		low = hex4(s);
		if (low < 0)
			return -1;
		if (low < 0xdc00 || low > 0xdfff)
			return refuse(s, "lone surrogate");
		c = 0x10000 + ((c - 0xd800) << 10) + (low - 0xdc00);
	}
	if (out)
		put_utf8(out, c);
	return 0;
}

/* A string; its decoded bytes go to out unless that is NULL. */
static int
string(struct scan *s, struct buf *out)
{
	const char *from;

	if (s->p >= s->end || *s->p != '"')
		return refuse(s, "a string was expected");
	for (s->p++;;) {
		if (s->p >= s->end)
			return refuse(s, "unfinished string");
		if (*s->p == '"')
			break;
		from = s->p;
		if ((unsigned char)*s->p < 0x20)
			return refuse(s, "control character in a string");
		if (*s->p == '\\') {
			if (escape(s, out) < 0)
				return -1;
			continue;
		}
		if ((unsigned char)*s->p < 0x80)
			s->p++;
		else if (utf8(s) < 0)
			return -1;
		if (out)
			buf_add(out, from, s->p - from);
	}
	s->p++;
	return 0;
}

static bool
digits(struct scan *s)
{
	const char *from = s->p;

	while (s->p < s->end && *s->p >= '0' && *s->p <= '9')
		s->p++;
	return s->p > from;
}

static int
number(struct scan *s)
{
	const char *from = s->p;
	bool whole = true;
	char copy[64];

	if (*s->p == '-')
		s->p++;
	if (s->p < s->end && *s->p == '0')
		s->p++;
	else if (!digits(s))
		return refuse(s, "bad number");
	if (s->p < s->end && *s->p == '.') {
		whole = false;
		s->p++;
		if (!digits(s))
			return refuse(s, "bad number");
	}
	if (s->p < s->end && (*s->p | 32) == 'e') {
		whole = false;
		s->p++;
		if (s->p < s->end && (*s->p == '+' || *s->p == '-'))
			s->p++;
		if (!digits(s))
			return refuse(s, "bad number");
	}
	if ((size_t)(s->p - from) >= sizeof copy)
		return refuse(s, "number too long");
	memcpy(copy, from, s->p - from);
	copy[s->p - from] = '\0';
	errno = 0;
	if (whole)
		(void)strtoll(copy, NULL, 10);
	if ((whole && errno == ERANGE) || !isfinite(strtod(copy, NULL)))
		return refuse(s, "number out of range");
	return 0;
}

static int
literal(struct scan *s, const char *word)
{
	size_t n = strlen(word);

	if ((size_t)(s->end - s->p) < n || memcmp(s->p, word, n) != 0)
		return refuse(s, "unknown word");
	s->p += n;
	return 0;
}

/* The key just decoded at `at` against its elder sisters, which begin at `first`. */
static int
unique(struct scan *s, size_t first, size_t at)
{
	const char *key = s->keys.data + at, *k;

	for (k = s->keys.data + first; k < key; k += strlen(k) + 1)
		if (strcmp(k, key) == 0)
			return refuse(s, "duplicate key");
	return 0;
}

static int
object(struct scan *s)
{
	size_t first = s->keys.len, at;

	s->p++;
	space(s);
	if (s->p < s->end && *s->p == '}') {
		s->p++;
		return 0;
	}
	for (;;) {
		if (++s->nkeys > s->limit.keys)
			return refuse(s, "too many keys");
		at = s->keys.len;
		space(s);
		if (string(s, &s->keys) < 0)
			return -1;
		buf_chr(&s->keys, '\0');
		if (unique(s, first, at) < 0)
			return -1;
		space(s);
		if (s->p >= s->end || *s->p++ != ':')
			return refuse(s, "a colon was expected");
		if (value(s) < 0)
			return -1;
		space(s);
		if (s->p < s->end && *s->p == ',') {
			s->p++;
			continue;
		}
		if (s->p >= s->end || *s->p++ != '}')
			return refuse(s, "a comma or } was expected");
		s->keys.len = first;
		return 0;
	}
}

static int
array(struct scan *s)
{
	s->p++;
	space(s);
	if (s->p < s->end && *s->p == ']') {
		s->p++;
		return 0;
	}
	for (;;) {
		if (value(s) < 0)
			return -1;
		space(s);
		if (s->p < s->end && *s->p == ',') {
			s->p++;
			continue;
		}
		if (s->p >= s->end || *s->p++ != ']')
			return refuse(s, "a comma or ] was expected");
		return 0;
	}
}

static int
value(struct scan *s)
{
	int r;

	space(s);
	if (s->p >= s->end)
		return refuse(s, "it ends early");
	if (*s->p == '{' || *s->p == '[') {
		if (++s->depth > s->limit.depth)
			return refuse(s, "nested too deep");
		r = *s->p == '{' ? object(s) : array(s);
		s->depth--;
		return r;
	}
	switch (*s->p) {
	case '"':
		return string(s, NULL);
	case 't':
		return literal(s, "true");
	case 'f':
		return literal(s, "false");
	case 'n':
		return literal(s, "null");
	default:
		if (*s->p != '-' && (*s->p < '0' || *s->p > '9'))
			return refuse(s, "unexpected character");
		return number(s);
	}
}

struct held {
	struct json_object *doc;
};

static int
release(struct held *h)
{
	json_object_put(h->doc);
	return 0;
}

struct json_object *
json_parse(void *mem, const char *text, size_t len, const struct json_limits *limits, struct err *e)
{
	struct scan s = { .text = text, .p = text, .end = text + len, .err = e };
	auto_talloc char *tmp = talloc_new(mem);
	struct json_tokener *tok;
	struct held *held;

	s.keys = BUF(tmp);
	s.limit.depth = limits && limits->depth ? limits->depth : 32;
	s.limit.keys = limits && limits->keys ? limits->keys : 1000;
	if (value(&s) < 0)
		return NULL;
	space(&s);
	if (s.p != s.end) {
		refuse(&s, "something follows the value");
		return NULL;
	}
	held = talloc_zero(mem, struct held);
	talloc_set_destructor(held, release);
	tok = json_tokener_new_ex(s.limit.depth + 1);
	/* a bare number ends only with the text's end: the NUL behind it tells json-c */
	held->doc = json_tokener_parse_ex(tok, talloc_strndup(tmp, text, len), len + 1);
	if (json_tokener_get_error(tok) != json_tokener_success)
		err_set(e, E_BAD_INPUT, "the body is not valid JSON");
	else if (!held->doc) /* json-c's null is no object: NULL must mean an error here */
		err_set(e, E_BAD_INPUT, "the body is null");
	json_tokener_free(tok);
	if (e->code != E_OK)
		return NULL;
	return held->doc;
}

struct json_object *
json_get(struct json_object *o, const char *name)
{
	struct json_object *v = NULL;

	if (!json_object_is_type(o, json_type_object))
		return NULL;
	json_object_object_get_ex(o, name, &v);
	return v;
}

const char *
json_str(struct json_object *o, const char *name, const char *fallback)
{
	struct json_object *v = json_get(o, name);

	return json_object_is_type(v, json_type_string) ? json_object_get_string(v) : fallback;
}

int64_t
json_int(struct json_object *o, const char *name, int64_t fallback)
{
	struct json_object *v = json_get(o, name);

	return json_object_is_type(v, json_type_int) ? json_object_get_int64(v) : fallback;
}

bool
json_flag(struct json_object *o, const char *name, bool fallback)
{
	struct json_object *v = json_get(o, name);

	return json_object_is_type(v, json_type_boolean) ? json_object_get_boolean(v) : fallback;
}
