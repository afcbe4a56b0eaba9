/* mustache.c - see mustache.h. One pass over the text; sections stand on a small stack. */
#include "mustache.h"

#include <ctype.h>
#include <stdbool.h>
#include <string.h>

enum { DEPTH = 8, NAME_SIZE = 64 };

struct tag {
	char kind; /* 0: escaped value, & raw value, # ^ / section, ! remark */
	char name[NAME_SIZE];
	const char *start, *end; /* of the whole tag, braces included */
};

struct section {
	char name[NAME_SIZE];
	bool shown; /* with all that are around it */
};

struct render {
	struct buf *out;
	const struct pair *vars;
	enum mustache_escape escape;
	struct section open[DEPTH];
	int depth;
	struct err *err;
};

static const char *
value_of(const struct pair *vars, const char *name)
{
	for (; vars && vars->name; vars++)
		if (strcmp(vars->name, name) == 0)
			return vars->value ? vars->value : "";
	return "";
}

/* Values are one line: control characters become blanks, in every form. */
static void
add_value(struct render *r, const char *v, bool raw)
{
	static const struct {
		char c;
		const char *as;
	} html[] = { { '&', "&amp;" }, { '<', "&lt;" }, { '>', "&gt;" }, { '"', "&quot;" },
		{ '\'', "&#39;" }, { 0 } };
	const char *as;
	int i;

	for (; *v; v++) {
		as = NULL;
		for (i = 0; html[i].as && !raw && r->escape == MUSTACHE_HTML; i++)
			if (html[i].c == *v)
				as = html[i].as;
		if (as)
			buf_str(r->out, as);
		else
			buf_chr(r->out, (unsigned char)*v < ' ' || *v == 0x7f ? ' ' : *v);
	}
}

static int
next_tag(const char *p, struct tag *t, struct err *e)
{
	const char *close;
	size_t n;

	t->start = strstr(p, "{{");
	if (!t->start)
		return 0;
	p = t->start + 2;
	t->kind = 0;
	if (*p == '{') {
		t->kind = '&';
		close = strstr(p, "}}}");
		t->end = close ? close + 3 : NULL;
		p++;
	} else {
		close = strstr(p, "}}");
		t->end = close ? close + 2 : NULL;
		if (strchr("&#^/!", *p) && *p)
			t->kind = *p++;
	}
	if (!close)
		return err_set(e, E_CONFIG, "template: a tag does not end: %.20s", t->start);
	if (t->kind == '!')
		return 1;
	while (p < close && isspace((unsigned char)*p))
		p++;
	for (n = 0; p < close && n + 1 < NAME_SIZE && (isalnum((unsigned char)*p) || *p == '_');
	     p++)
		t->name[n++] = *p;
	t->name[n] = '\0';
	while (p < close && isspace((unsigned char)*p))
		p++;
	if (p != close || !n)
		return err_set(e, E_CONFIG, "template: not understood: %.*s",
		    (int)(t->end - t->start), t->start);
	return 1;
}

static bool
shown(const struct render *r)
{
	return r->depth == 0 || r->open[r->depth - 1].shown;
}

static int
section(struct render *r, const struct tag *t)
{
	bool yes = *value_of(r->vars, t->name) != '\0';
	struct section *s;

	if (t->kind == '/') {
		if (r->depth == 0 || strcmp(r->open[r->depth - 1].name, t->name) != 0)
			return err_set(
			    r->err, E_CONFIG, "template: {{/%s}} closes nothing", t->name);
		r->depth--;
		return 0;
	}
	if (r->depth == DEPTH)
		return err_set(
		    r->err, E_CONFIG, "template: more than %d sections in each other", DEPTH);
	s = &r->open[r->depth];
	memcpy(s->name, t->name, sizeof s->name);
	s->shown = shown(r) && yes == (t->kind == '#');
	r->depth++;
	return 0;
}

/* A section tag or remark alone on its line takes the whole line with it. */
static bool
alone(const char *text, const struct tag *t, const char **line, const char **after)
{
	const char *p = t->start, *q = t->end;

	while (p > text && (p[-1] == ' ' || p[-1] == '\t'))
		p--;
	if (p > text && p[-1] != '\n')
		return false;
	while (*q == ' ' || *q == '\t' || *q == '\r')
		q++;
	if (*q && *q != '\n')
		return false;
	*line = p;
	*after = *q ? q + 1 : q;
	return true;
}

int
mustache_render(struct buf *out, const char *text, const struct pair *vars,
    enum mustache_escape escape, struct err *e)
{
	struct render r = { .out = out, .vars = vars, .escape = escape, .err = e };
	const char *p = text, *upto, *after;
	struct tag t;
	int n;

	while ((n = next_tag(p, &t, e)) == 1) {
		upto = t.start;
		after = t.end;
		if (t.kind && t.kind != '&')
			(void)alone(text, &t, &upto, &after);
		if (shown(&r) && upto > p)
			buf_add(out, p, upto - p);
		p = after;
		if (!t.kind || t.kind == '&') {
			if (shown(&r))
				add_value(&r, value_of(vars, t.name), t.kind == '&');
		} else if (t.kind != '!' && section(&r, &t) < 0) {
			return -1;
		}
	}
	if (n < 0)
		return -1;
	if (r.depth)
		return err_set(
		    e, E_CONFIG, "template: {{#%s}} is not closed", r.open[r.depth - 1].name);
	buf_str(out, p);
	return 0;
}
