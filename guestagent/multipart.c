/* multipart.c - see multipart.h. */
#include "multipart.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <talloc.h>

enum { BOUNDARY_MAX = 70, HEADERS_MAX = 8192 };

enum multipart_state { PART_PREAMBLE, PART_AFTER_BOUNDARY, PART_HEADERS, PART_DATA, PART_DONE };

struct multipart {
	enum multipart_state state;
	char delimiter[BOUNDARY_MAX + 5]; /* CR LF "--" boundary */
	size_t delimiter_len;
	struct buf hold; /* what could be the beginning of something */
	const struct multipart_events *on;
	void *arg;
};

/* The value of attribute; in a header like: form-data; name="a"; filename="b". NULL: absent. */
static char *
attribute(void *mem, const char *header, const char *name)
{
	size_t len = strlen(name);
	struct buf b = BUF(mem);
	const char *p = header;

	while ((p = strchr(p, ';'))) {
		p += 1 + strspn(p + 1, " \t");
		if (strncasecmp(p, name, len) != 0 || p[len] != '=')
			continue;
		p += len + 1;
		if (*p != '"') {
			buf_add(&b, p, strcspn(p, "; \t\r\n"));
			return b.data;
		}
		for (p++; *p && *p != '"'; p++) {
			if (*p == '\\' && (p[1] == '"' || p[1] == '\\'))
				p++;
			buf_chr(&b, *p);
		}
		buf_add(&b, "", 0);
		return b.data;
	}
	return NULL;
}

struct multipart *
multipart_new(
    void *mem, const char *type, const struct multipart_events *on, void *arg, struct err *e)
{
	struct multipart *m = talloc_zero(mem, struct multipart);
	const char *boundary = NULL;

	if (!m)
		abort();
	boundary = attribute(m, type, "boundary");
	if (!boundary || !boundary[0] || strlen(boundary) > BOUNDARY_MAX) {
		(void)err_set(e, E_BAD_INPUT, "the content type has no boundary");
		talloc_free(m);
		return NULL;
	}
	m->delimiter_len =
	    (size_t)snprintf(m->delimiter, sizeof m->delimiter, "\r\n--%s", boundary);
	m->hold = BUF(m);
	m->on = on;
	m->arg = arg;
	/* So that a boundary on the first line is found like all others. */
	buf_str(&m->hold, "\r\n");
	return m;
}

/* One step of the machine: 1 something was done, 0 more bytes are needed, -1 failed. */
static int
step_boundary(struct multipart *m)
{
	const char *p = memmem(m->hold.data, m->hold.len, m->delimiter, m->delimiter_len);

	if (!p) {
		if (m->hold.len >= m->delimiter_len)
			buf_cut(&m->hold, m->hold.len - m->delimiter_len + 1);
		return 0;
	}
	buf_cut(&m->hold, (size_t)(p - m->hold.data) + m->delimiter_len);
	m->state = PART_AFTER_BOUNDARY;
	return 1;
}

static int
step_after(struct multipart *m, struct err *e)
{
	size_t blank = 0;

	if (m->hold.len < 2)
		return 0;
	if (m->hold.data[0] == '-' && m->hold.data[1] == '-') {
		m->state = PART_DONE;
		return 1;
	}
	blank = strspn(m->hold.data, " \t");
	if (m->hold.len < blank + 2)
		return blank > 64 ? err_set(e, E_BAD_INPUT, "a boundary line is too long") : 0;
	if (m->hold.data[blank] != '\r' || m->hold.data[blank + 1] != '\n')
		return err_set(e, E_BAD_INPUT, "something follows a boundary");
	/* The line's end stays: a part without headers has its blank line right here. */
	buf_cut(&m->hold, blank);
	m->state = PART_HEADERS;
	return 1;
}

static int
step_headers(struct multipart *m, struct err *e)
{
	char *end = memmem(m->hold.data, m->hold.len, "\r\n\r\n", 4);
	char *name = NULL, *filename = NULL;
	int rc = 0;

	if (!end)
		return m->hold.len > HEADERS_MAX
		    ? err_set(e, E_BAD_INPUT, "a part's headers are too long")
		    : 0;
	*end = '\0';
	for (char *p = m->hold.data; p && p < end; p = strstr(p, "\r\n")) {
		char *next = NULL;

		p += 2;
		if (strncasecmp(p, "content-disposition:", 20) != 0)
			continue;
		next = strstr(p, "\r\n");
		if (next)
			*next = '\0';
		name = attribute(m, p, "name");
		filename = attribute(m, p, "filename");
		break;
	}
	rc = m->on->on_part(m->arg, name, filename, e);
	talloc_free(name);
	talloc_free(filename);
	buf_cut(&m->hold, (size_t)(end - m->hold.data) + 4);
	m->state = PART_DATA;
	return rc < 0 ? -1 : 1;
}

static int
step_data(struct multipart *m, struct err *e)
{
	const char *p = memmem(m->hold.data, m->hold.len, m->delimiter, m->delimiter_len);
	size_t n = 0;

	if (p)
		n = (size_t)(p - m->hold.data);
	else if (m->hold.len >= m->delimiter_len)
		n = m->hold.len - m->delimiter_len + 1;
	if (n && m->on->on_data(m->arg, (const uint8_t *)m->hold.data, n, e) < 0)
		return -1;
	buf_cut(&m->hold, n + (p ? m->delimiter_len : 0));
	if (!p)
		return 0;
	m->state = PART_AFTER_BOUNDARY;
	return m->on->on_part_end(m->arg, e) < 0 ? -1 : 1;
}

static int
step(struct multipart *m, struct err *e)
{
	if (m->hold.len == 0)
		return 0;
	switch (m->state) {
	case PART_PREAMBLE:
		return step_boundary(m);
	case PART_AFTER_BOUNDARY:
		return step_after(m, e);
	case PART_HEADERS:
		return step_headers(m, e);
	case PART_DATA:
		return step_data(m, e);
	case PART_DONE:
		buf_clear(&m->hold); /* the epilogue is nobody's */
		return 0;
	}
	return 0;
}

int
multipart_feed(struct multipart *m, const uint8_t *p, size_t n, struct err *e)
{
	int rc = 1;

	buf_add(&m->hold, p, n);
	while (rc > 0)
		rc = step(m, e);
	return rc;
}

int
multipart_end(struct multipart *m, struct err *e)
{
	return m->state == PART_DONE ? 0 : err_set(e, E_BAD_INPUT, "the body ends inside a part");
}
