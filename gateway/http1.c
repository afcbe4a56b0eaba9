/* http1.c - see http1.h. */
#include "http1.h"

#include <ctype.h>
#include <string.h>
#include <strings.h>
#include <talloc.h>

enum { SIZE_DIGITS = 15, EXTENSION_MAX = 4096, TRAILER_MAX = 16 * 1024 };

const char *const http1_hop[] = { "connection", "keep-alive", "proxy-connection",
	"transfer-encoding", "upgrade", "trailer", "content-length", "date", NULL };

bool
http1_among(const char *name, const char *const *list)
{
	for (; *list; list++)
		if (strcasecmp(name, *list) == 0)
			return true;
	return false;
}

bool
http1_token(const char *s, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (!isalnum((unsigned char)s[i]) && (!s[i] || !strchr("!#$%&'*+-.^_`|~", s[i])))
			return false;
	return n > 0;
}

void
http1_open(struct http1 *h, void *mem, bool no_body, const struct http1_events *on, void *arg)
{
	*h = (struct http1){ .on = on, .arg = arg, .no_body = no_body, .head = BUF(mem) };
}

/* ---- the head */

/* name: value, without the line's end; cut in place. */
static int
header(char *line, struct http1_header *to, struct err *e)
{
	char *colon = strchr(line, ':'), *v, *end;

	if (!colon || !http1_token(line, (size_t)(colon - line)))
		return err_set(e, E_PROTOCOL, "a line of its head is no header");
	*colon = '\0';
	v = colon + 1 + strspn(colon + 1, " \t");
	for (end = v + strlen(v); end > v && (end[-1] == ' ' || end[-1] == '\t'); end--)
		;
	*end = '\0';
	for (char *c = v; *c; c++)
		if ((unsigned char)*c < ' ' && *c != '\t')
			return err_set(e, E_PROTOCOL, "a header has a control character");
	*to = (struct http1_header){ line, v };
	return 0;
}

/* HTTP/1.1 200 OK */
static int
status_line(const char *line, int *status, bool *old, struct err *e)
{
	if (strncmp(line, "HTTP/1.", 7) != 0 || (line[7] != '0' && line[7] != '1') ||
	    line[8] != ' ' || !isdigit((unsigned char)line[9]) ||
	    !isdigit((unsigned char)line[10]) || !isdigit((unsigned char)line[11]) ||
	    (line[12] && line[12] != ' '))
		return err_set(e, E_PROTOCOL, "its first line is no HTTP/1.1");
	*old = line[7] == '0';
	*status = (line[9] - '0') * 100 + (line[10] - '0') * 10 + line[11] - '0';
	if (*status < 100 || *status > 599)
		return err_set(e, E_PROTOCOL, "its status is %d", *status);
	return 0;
}

static int
read_length(const char *v, int64_t *length, struct err *e)
{
	size_t n = strspn(v, "0123456789");
	int64_t new;

	if (n < 1 || n > 18 || v[n])
		return err_set(e, E_PROTOCOL, "Content-Length: %.20s", v);
	new = strtoll(v, NULL, 10);
	if (*length >= 0 && *length != new)
		return err_set(e, E_PROTOCOL, "two different Content-Lengths");
	*length = new;
	return 0;
}

/* What follows the head. */
static int
framing(struct http1 *h, const struct http1_header *all, int status, bool old, int64_t *length,
    struct err *e)
{
	bool chunked = false;

	*length = -1;
	for (const struct http1_header *i = all; i->name; i++) {
		if (strcasecmp(i->name, "content-length") == 0 &&
		    read_length(i->value, length, e) < 0)
			return -1;
		if (strcasecmp(i->name, "transfer-encoding") != 0)
			continue;
		if (chunked || old || strcasecmp(i->value, "chunked") != 0)
			return err_set(e, E_PROTOCOL, "Transfer-Encoding: %.40s", i->value);
		chunked = true;
	}
	if (chunked && *length >= 0)
		return err_set(e, E_PROTOCOL, "a length, and chunks");
	if (status == 101)
		h->state = HTTP1_UPGRADED;
	else if (h->no_body || status == 204 || status == 304)
		h->state = HTTP1_DONE;
	else if (chunked)
		h->state = HTTP1_SIZE;
	else if (*length >= 0)
		h->state = *length ? HTTP1_LENGTH : HTTP1_DONE;
	else
		h->state = HTTP1_CLOSE;
	h->left = *length;
	return 0;
}

/* The head is whole: lines ended by CR LF, the empty one cut off. */
static int
parse(struct http1 *h, struct err *e)
{
	struct http1_header *all =
	    talloc_zero_array(h->head.mem, struct http1_header, HTTP1_HEADERS + 1);
	struct http1_head head = { .header = all };
	char *line = h->head.data, *next;
	size_t n = 0;
	bool old = false, first = true;

	if (!all)
		abort();
	if (strlen(line) != h->head.len)
		return err_set(e, E_PROTOCOL, "its head has a NUL");
	for (; *line; line = next, first = false) {
		next = strstr(line, "\r\n");
		*next = '\0';
		next += 2;
		if (strpbrk(line, "\r\n"))
			return err_set(e, E_PROTOCOL, "a line of its head does not end in CR LF");
		if (first && status_line(line, &head.status, &old, e) < 0)
			return -1;
		if (first)
			continue;
		if (n == HTTP1_HEADERS)
			return err_set(e, E_PROTOCOL, "more than %d headers", HTTP1_HEADERS);
		if (header(line, &all[n++], e) < 0)
			return -1;
	}
	if (head.status < 200 && head.status != 101) {
		buf_clear(&h->head); /* 100, 103: the answer follows */
		return 0;
	}
	if (framing(h, all, head.status, old, &head.length, e) < 0)
		return -1;
	h->on->on_head(h->arg, &head);
	TALLOC_FREE(h->head.data);
	talloc_free(all);
	if (h->state == HTTP1_DONE)
		h->on->on_end(h->arg);
	return 0;
}

/* Takes bytes up to the empty line. */
static ssize_t
feed_head(struct http1 *h, const char *p, size_t n, struct err *e)
{
	size_t i;

	for (i = 0; i < n; i++) {
		if (h->head.len == HTTP1_HEAD_MAX)
			return err_set(
			    e, E_PROTOCOL, "its head is larger than %d bytes", HTTP1_HEAD_MAX);
		buf_chr(&h->head, p[i]);
		if (p[i] != '\n' || h->head.len < 4 ||
		    memcmp(h->head.data + h->head.len - 4, "\r\n\r\n", 4) != 0)
			continue;
		h->head.len -= 2;
		h->head.data[h->head.len] = '\0';
		return parse(h, e) < 0 ? -1 : (ssize_t)i + 1;
	}
	return (ssize_t)i;
}

/* ---- the body */

static ssize_t
feed_bytes(struct http1 *h, const char *p, size_t n)
{
	size_t take = h->state != HTTP1_CLOSE && (int64_t)n > h->left ? (size_t)h->left : n;

	h->left -= h->state != HTTP1_CLOSE ? (int64_t)take : 0;
	if (take)
		h->on->on_body(h->arg, p, take);
	if (h->state == HTTP1_CLOSE || h->left)
		return (ssize_t)take;
	if (h->state == HTTP1_CHUNK) {
		h->state = HTTP1_CHUNK_END;
		h->digits = 0;
	} else {
		h->state = HTTP1_DONE;
		h->on->on_end(h->arg);
	}
	return (ssize_t)take;
}

static int
hex(char c)
{
	return isdigit((unsigned char)c) ? c - '0'
	    : isxdigit((unsigned char)c) ? tolower((unsigned char)c) - 'a' + 10
					 : -1;
}

/* A line of a chunk's size ended. */
static void
sized(struct http1 *h)
{
	h->state = h->left ? HTTP1_CHUNK : HTTP1_TRAILER;
	h->digits = 0;
	h->line_empty = true;
	h->cr = false;
}

/* One byte between chunks. */
static int
feed_framing(struct http1 *h, char c, struct err *e)
{
	switch (h->state) {
	case HTTP1_SIZE:
		if (h->digits == 0)
			h->left = 0;
		if (hex(c) >= 0 && h->digits < SIZE_DIGITS) {
			h->left = h->left * 16 + hex(c);
			h->digits++;
			return 0;
		}
		if (!h->digits || (c != '\r' && c != ';' && c != ' ' && c != '\t'))
			break;
		h->state = HTTP1_EXTENSION;
		h->trailer = 0;
		h->cr = c == '\r';
		return 0;
	case HTTP1_EXTENSION:
		if (h->cr && c == '\n') {
			h->trailer = 0;
			sized(h);
			return 0;
		}
		if (h->cr || c == '\n' || ++h->trailer > EXTENSION_MAX)
			break;
		h->cr = c == '\r';
		return 0;
	case HTTP1_CHUNK_END:
		if (c != "\r\n"[h->digits])
			break;
		if (++h->digits == 2) {
			h->state = HTTP1_SIZE;
			h->digits = 0;
		}
		return 0;
	default: /* HTTP1_TRAILER: dropped */
		if (++h->trailer > TRAILER_MAX || (h->cr && c != '\n') || (!h->cr && c == '\n'))
			break;
		if (c == '\n' && h->line_empty) {
			h->state = HTTP1_DONE;
			h->on->on_end(h->arg);
			return 0;
		}
		h->line_empty = c == '\n' || (c == '\r' && h->line_empty);
		h->cr = c == '\r';
		return 0;
	}
	return err_set(e, E_PROTOCOL, "its chunks are broken");
}

static ssize_t
step(struct http1 *h, const char *p, size_t n, struct err *e)
{
	switch (h->state) {
	case HTTP1_HEAD:
		return feed_head(h, p, n, e);
	case HTTP1_LENGTH:
	case HTTP1_CLOSE:
	case HTTP1_CHUNK:
		return feed_bytes(h, p, n);
	default:
		return feed_framing(h, *p, e) < 0 ? -1 : 1;
	}
}

ssize_t
http1_feed(struct http1 *h, const char *p, size_t n, struct err *e)
{
	size_t used = 0;

	if (h->state == HTTP1_BROKEN)
		return err_set(e, E_PROTOCOL, "the answer is broken");
	while (used < n && h->state != HTTP1_DONE && h->state != HTTP1_UPGRADED) {
		ssize_t took = step(h, p + used, n - used, e);

		if (took < 0) {
			h->state = HTTP1_BROKEN;
			return -1;
		}
		used += (size_t)took;
	}
	return (ssize_t)used;
}

int
http1_eof(struct http1 *h, struct err *e)
{
	if (h->state == HTTP1_DONE || h->state == HTTP1_UPGRADED)
		return 0;
	if (h->state == HTTP1_CLOSE) {
		h->state = HTTP1_DONE;
		h->on->on_end(h->arg);
		return 0;
	}
	h->state = HTTP1_BROKEN;
	return err_set(e, E_PROTOCOL, "the answer broke off");
}
