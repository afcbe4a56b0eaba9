/* multipart.c - see multipart.h. */
#include "multipart.h"

#include <ctype.h>
#include <string.h>
#include <strings.h>

/* Copies one parameter's value, quoted or not, and returns what follows it; NULL when it is not
   good. room 0: only skips. */
static const char *
value(const char *p, char *out, size_t room)
{
	bool quoted = *p == '"';
	size_t n = 0;

	for (p += quoted; *p && (quoted ? *p != '"' : !strchr("; \t", *p)); p++) {
		if (quoted && *p == '\\' && (p[1] == '"' || p[1] == '\\'))
			p++;
		if (room && n + 1 == room)
			return NULL;
		if (room)
			out[n++] = *p;
	}
	if (room)
		out[n] = '\0';
	if (quoted && *p != '"')
		return NULL;
	return p + quoted;
}

/* The value of a parameter in "a; name=value; name=\"value\"". False: absent, bad, or too long for
 * out. */
static bool
parameter(const char *p, const char *name, char *out, size_t room)
{
	size_t len = strlen(name);

	while (p && (p = strchr(p, ';'))) {
		bool wanted = false;

		p += 1 + strspn(p + 1, " \t");
		wanted = strncasecmp(p, name, len) == 0 && p[len] == '=';
		p += strcspn(p, "=;");
		if (*p != '=')
			continue;
		p = value(p + 1, out, wanted ? room : 0);
		if (wanted)
			return p != NULL;
	}
	return false;
}

int
multipart_open(struct multipart *m, void *mem, const char *content_type,
    const struct multipart_events *on, void *arg, struct err *e)
{
	char boundary[MULTIPART_BOUNDARY + 1];

	*m = (struct multipart){ .on = on, .arg = arg, .held = BUF(mem) };
	if (!content_type || strncasecmp(content_type, "multipart/form-data", 19) != 0)
		return err_set(e, E_MEDIA_TYPE, "the body must be multipart/form-data");
	if (!parameter(content_type, "boundary", boundary, sizeof boundary) || !*boundary)
		return err_set(e, E_BAD_INPUT, "no good boundary in the content type");
	m->marklen = (size_t)snprintf(m->mark, sizeof m->mark, "\r\n--%s", boundary);
	buf_str(&m->held, "\r\n"); /* so that the first boundary looks like the others */
	return 0;
}

/* The value of one header of a part's head, copied. False: absent. */
static bool
head_value(const char *head, const char *name, char *out, size_t room)
{
	size_t len = strlen(name);

	for (const char *p = head; p && *p; p = strstr(p, "\r\n"), p = p ? p + 2 : NULL) {
		size_t n = strcspn(p, "\r");

		if (strncasecmp(p, name, len) != 0 || p[len] != ':' || n - len > room)
			continue;
		snprintf(out, room, "%.*s", (int)(n - len - 1), p + len + 1);
		return true;
	}
	return false;
}

static int
begin_part(struct multipart *m, char *head, struct err *e)
{
	char text[1024], name[65];
	const char *kind = text;

	if (++m->parts > MULTIPART_PARTS)
		return err_set(e, E_BAD_INPUT, "more than %d parts", MULTIPART_PARTS);
	if (!head_value(head, "content-disposition", text, sizeof text))
		return err_set(e, E_BAD_INPUT, "a part has no good Content-Disposition");
	kind += strspn(kind, " \t");
	if (strncasecmp(kind, "form-data", 9) != 0 || !parameter(kind, "name", name, sizeof name))
		return err_set(e, E_BAD_INPUT, "a part has no good name");
	return m->on->on_part(m->arg, name, e);
}

/* Up to the next mark. 1: found, what was before it is dealt with and cut off. */
static int
to_mark(struct multipart *m, struct err *e)
{
	struct buf *b = &m->held;
	char *p = b->len ? memmem(b->data, b->len, m->mark, m->marklen) : NULL;
	size_t n = p ? (size_t)(p - b->data) : b->len >= m->marklen ? b->len - m->marklen + 1 : 0;

	if (m->state == MP_PREAMBLE) {
		m->preamble += n;
		if (m->preamble > MULTIPART_PREAMBLE)
			return err_set(e, E_BAD_INPUT, "the body does not begin with its boundary");
	} else if (n && m->on->on_data(m->arg, b->data, n, e) < 0) {
		return -1;
	}
	buf_cut(b, p ? n + m->marklen : n);
	return p != NULL;
}

/* Behind a mark: "--" for the end, or the end of the line. 1: decided. */
static int
after_mark(struct multipart *m, struct err *e)
{
	struct buf *b = &m->held;
	size_t n = 0;

	if (b->len < 2)
		return 0;
	if (b->data[0] == '-' && b->data[1] == '-') {
		m->state = MP_END;
		return 1;
	}
	while (n < b->len && (b->data[n] == ' ' || b->data[n] == '\t'))
		n++;
	if (n > 64 || (n < b->len && b->data[n] != '\r') ||
	    (n + 1 < b->len && b->data[n + 1] != '\n'))
		return err_set(e, E_BAD_INPUT, "something follows a boundary on its line");
	if (n + 1 >= b->len)
		return 0;
	buf_cut(b, n); /* the CR LF stays: an empty head is then CR LF CR LF like others */
	m->state = MP_HEAD;
	return 1;
}

static int
head(struct multipart *m, struct err *e)
{
	struct buf *b = &m->held;
	char *p = memmem(b->data, b->len, "\r\n\r\n", 4);

	if (!p)
		return b->len > MULTIPART_HEAD
		    ? err_set(e, E_BAD_INPUT, "a part's headers are too long")
		    : 0;
	*p = '\0';
	if (strlen(b->data) != (size_t)(p - b->data))
		return err_set(e, E_BAD_INPUT, "NUL in a part's headers");
	if (begin_part(m, p == b->data ? b->data : b->data + 2, e) < 0)
		return -1;
	buf_cut(b, (size_t)(p - b->data) + 4);
	m->state = MP_DATA;
	return 1;
}

int
multipart_feed(struct multipart *m, const char *p, size_t n, struct err *e)
{
	int rc = 1;

	if (m->state == MP_END)
		return 0;
	buf_add(&m->held, p, n);
	while (rc > 0) {
		switch (m->state) {
		case MP_PREAMBLE:
			rc = to_mark(m, e);
			if (rc > 0)
				m->state = MP_BOUNDARY;
			break;
		case MP_BOUNDARY:
			rc = after_mark(m, e);
			break;
		case MP_HEAD:
			rc = head(m, e);
			break;
		case MP_DATA:
			rc = to_mark(m, e);
			if (rc > 0) {
				m->state = MP_BOUNDARY;
				if (m->on->on_part_end(m->arg, e) < 0)
					rc = -1;
			}
			break;
		case MP_END: /* what follows does not matter */
			buf_clear(&m->held);
			return 0;
		}
	}
	return rc;
}

int
multipart_end(const struct multipart *m, struct err *e)
{
	if (m->state != MP_END)
		return err_set(e, E_BAD_INPUT, "the form is cut off");
	return 0;
}
