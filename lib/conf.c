/* conf.c - see conf.h. */
#include "conf.h"
#include "cleanup.h"

#include <confuse.h>
#include <inttypes.h>
#include <stddef.h>
#include <string.h>

enum type { SECTION_ROW, STR_ROW, INT_ROW, BOOL_ROW };

static const struct row {
	enum type type;
	const char *section, *name, *text; /* text: the default of a string */
	int64_t number, least, most;
	size_t offset;
	const char *doc;
} rows[] = {
/* clang-format off */
#define SECTION(section, doc) { SECTION_ROW, #section, NULL, NULL, 0, 0, 0, 0, doc },
#define STR(section, name, dflt, doc) { STR_ROW, #section, #name, dflt, 0, 0, 0, offsetof(struct conf, section##_##name), doc },
#define INT(section, name, dflt, least, most, doc) { INT_ROW, #section, #name, NULL, dflt, least, most, offsetof(struct conf, section##_##name), doc },
#define BOOL(section, name, dflt, doc) { BOOL_ROW, #section, #name, NULL, dflt, 0, 1, offsetof(struct conf, section##_##name), doc },
#include "conf.def"
	/* clang-format on */
};

/* What libconfuse's callback, which has no argument of ours, needs to know. */
static struct err *parse_err;
static const char *parse_path;

/* How many letters differ: enough to find what was meant. */
static unsigned
distance(const char *a, const char *b)
{
	unsigned row[64], prev, left, i, j, n = strlen(b);

	if (n > 62)
		return 99;
	for (j = 0; j <= n; j++)
		row[j] = j;
	for (i = 0; a[i]; i++) {
		prev = row[0];
		row[0] = i + 1;
		for (j = 0; j < n; j++) {
			left = prev + (a[i] != b[j]);
			prev = row[j + 1];
			row[j + 1] = left < row[j] + 1 ? left : row[j] + 1;
			if (prev + 1 < row[j + 1])
				row[j + 1] = prev + 1;
		}
	}
	return row[n];
}

static const char *
nearest(const char *name)
{
	const char *best = NULL;
	unsigned d, least = 99;
	size_t i;

	for (i = 0; i < nitems(rows); i++) {
		d = distance(name, rows[i].name ? rows[i].name : rows[i].section);
		if (d < least) {
			least = d;
			best = rows[i].name ? rows[i].name : rows[i].section;
		}
	}
	return best;
}

static void
on_error(cfg_t *cfg, const char *fmt, va_list ap)
{
	char text[160], name[64];

	vsnprintf(text, sizeof text, fmt, ap);
	if (sscanf(text, "no such option '%63[^']'", name) == 1)
		err_set(parse_err, E_CONFIG, "%s:%d: no setting \"%s\"; did you mean \"%s\"?",
		    parse_path, cfg->line, name, nearest(name));
	else
		err_set(parse_err, E_CONFIG, "%s:%d: %s", parse_path, cfg->line, text);
}

/* The options of one section, ended by CFG_END; rows[first] is the section's own row. */
static cfg_opt_t *
section_options(void *mem, size_t first)
{
	cfg_opt_t *opt = talloc_zero_array(mem, cfg_opt_t, nitems(rows) + 1);
	size_t i, n = 0;

	for (i = first + 1; i < nitems(rows) && rows[i].type != SECTION_ROW; i++) {
		const struct row *r = &rows[i];
		cfg_opt_t str = CFG_STR(r->name, r->text, CFGF_NONE);
		cfg_opt_t num = CFG_INT(r->name, r->number, CFGF_NONE);
		cfg_opt_t yes = CFG_BOOL(r->name, r->number, CFGF_NONE);

		opt[n++] = r->type == STR_ROW ? str : r->type == INT_ROW ? num : yes;
	}
	opt[n] = (cfg_opt_t)CFG_END();
	return opt;
}

static int
take(void *mem, cfg_t *cfg, const struct row *r, struct conf *c, struct err *e)
{
	cfg_t *sec = cfg_getsec(cfg, r->section);
	void *to = (char *)c + r->offset;
	int64_t n;

	switch (r->type) {
	case STR_ROW:
		*(const char **)to = talloc_strdup(mem, cfg_getstr(sec, r->name));
		return 0;
	case BOOL_ROW:
		*(bool *)to = cfg_getbool(sec, r->name);
		return 0;
	case INT_ROW:
		n = cfg_getint(sec, r->name);
		if (n < r->least || n > r->most)
			return err_set(e, E_CONFIG,
			    "%s.%s = %" PRId64 " is not between %" PRId64 " and %" PRId64,
			    r->section, r->name, n, r->least, r->most);
		*(int64_t *)to = n;
		return 0;
	default:
		return 0;
	}
}

static int
skip_line(FILE *f)
{
	int c;

	do
		c = getc(f);
	while (c != EOF && c != '\n');
	return c;
}

/* libconfuse takes the end of the file for a closing brace: a file that was cut off would pass. */
static bool
is_cut_off(const char *path)
{
	auto_file *f = fopen(path, "re");
	int c = 0, depth = 0, quote = 0;

	while (f && c != EOF) {
		c = getc(f);
		if (quote && c == '\\')
			(void)getc(f);
		else if (quote)
			quote = c == quote ? 0 : quote;
		else if (c == '"' || c == '\'')
			quote = c;
		else if (c == '#')
			c = skip_line(f);
		else
			depth += (c == '{') - (c == '}');
	}
	return depth > 0;
}

const struct conf *
conf_load(void *mem, const char *path, struct err *e)
{
	struct conf *c = talloc_zero(mem, struct conf);
	auto_talloc char *tmp = talloc_new(NULL);
	cfg_opt_t *top = talloc_zero_array(tmp, cfg_opt_t, nitems(rows) + 1);
	size_t i, n = 0;
	cfg_t *cfg;
	int rc;

	for (i = 0; i < nitems(rows); i++)
		if (rows[i].type == SECTION_ROW) {
			cfg_opt_t sec =
			    CFG_SEC(rows[i].section, section_options(tmp, i), CFGF_NONE);

			top[n++] = sec;
		}
	top[n] = (cfg_opt_t)CFG_END();
	cfg = cfg_init(top, CFGF_NONE);
	parse_err = e;
	parse_path = path ? path : "defaults";
	cfg_set_error_function(cfg, on_error);
	rc = path ? cfg_parse(cfg, path) : cfg_parse_buf(cfg, "");
	if (rc == CFG_FILE_ERROR)
		err_sys(e, "%s", path);
	else if (rc != CFG_SUCCESS)
		err_set(e, E_CONFIG, "%s: cannot be read", path);
	else if (path && is_cut_off(path))
		err_set(e, E_CONFIG, "%s: the last section does not end: } is missing", path);
	for (i = 0; i < nitems(rows) && e->code == E_OK; i++)
		(void)take(c, cfg, &rows[i], c, e);
	cfg_free(cfg);
	return e->code == E_OK ? c : NULL;
}

void
conf_print_sample(void)
{
	const struct row *r;

	puts("# hutch.conf - every setting with its default; see hutch.conf(5).");
	for (r = rows; r < rows + nitems(rows); r++) {
		if (r->type == SECTION_ROW)
			printf("%s\n# %s\n%s {\n", r > rows ? "}\n" : "", r->doc, r->section);
		else if (r->type == STR_ROW)
			printf("\t# %s\n\t# %s = \"%s\"\n", r->doc, r->name, r->text);
		else if (r->type == INT_ROW)
			printf("\t# %s %" PRId64 " to %" PRId64 ".\n\t# %s = %" PRId64 "\n", r->doc,
			    r->least, r->most, r->name, r->number);
		else
			printf(
			    "\t# %s\n\t# %s = %s\n", r->doc, r->name, r->number ? "true" : "false");
	}
	puts("}");
}

void
conf_print_man(void)
{
	const struct row *r;

	for (r = rows; r < rows + nitems(rows); r++) {
		if (r->type == SECTION_ROW)
			printf("## %s\n\n%s.\n\n", r->section, r->doc);
		else if (r->type == STR_ROW)
			printf("*%s*\n\t%s Default: \"%s\".\n\n", r->name, r->doc, r->text);
		else if (r->type == INT_ROW)
			printf("*%s*\n\t%s From %" PRId64 " to %" PRId64 ", default %" PRId64
			       ".\n\n",
			    r->name, r->doc, r->least, r->most, r->number);
		else
			printf("*%s*\n\t%s Default: %s.\n\n", r->name, r->doc,
			    r->number ? "true" : "false");
	}
}
