/* field.c - see field.h. */
#include "field.h"
#include "cidr.h"
#include "cleanup.h"

#include <ctype.h>
#include <inttypes.h>
#include <math.h>
#include <string.h>

static bool
all_of(const char *s, const char *extra)
{
	for (; *s; s++)
		if (!isalnum((unsigned char)*s) && !strchr(extra, *s))
			return false;
	return true;
}

/* spec 00 §2: ^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$ */
static bool
is_name(const char *s)
{
	return isalnum((unsigned char)*s) && strlen(s) <= 64 && all_of(s, "._-");
}

static bool
is_team_name(const char *s)
{
	return *s && strlen(s) <= 128 && all_of(s, " _-@'");
}

static bool
is_person(const char *s)
{
	for (; *s; s++)
		if ((unsigned char)*s < 0x20 || *s == 0x7f || strchr("<>&\"", *s))
			return false;
	return true;
}

/* spec 01 §1.2, after trimming and lower-casing */
static bool
is_email(const char *s)
{
	const char *at = strchr(s, '@');
	size_t n = strlen(s);

	if (n < 3 || n > 254 || !at || at == s || !at[1] || strchr(at + 1, '@'))
		return false;
	for (; *s; s++)
		if (*s <= 0x20 || *s >= 0x7f || strchr("<>&\"\\,;:()[]", *s))
			return false;
	return true;
}

static bool
is_env_name(const char *s)
{
	return *s && !isdigit((unsigned char)*s) && strlen(s) <= 256 && all_of(s, "_");
}

static bool
is_meta_key(const char *s)
{
	return *s && strlen(s) <= 64 && all_of(s, "._/-");
}

static bool
is_tag(const char *s)
{
	const char *p;

	for (p = s; *p; p++)
		if (!(*p >= 'a' && *p <= 'z') && !isdigit((unsigned char)*p) &&
		    (p == s || !strchr("._:/-", *p)))
			return false;
	return *s && strlen(s) <= 63;
}

static bool
is_host_tag(const char *s)
{
	return is_tag(s) && !strchr(s, ':');
}

static bool
is_uuid(const char *s)
{
	struct uuid u;

	return uuid_read(s, &u);
}

static bool
is_hex(const char *s)
{
	for (; *s; s++)
		if (!isxdigit((unsigned char)*s))
			return false;
	return true;
}

static bool
is_time(const char *s)
{
	int64_t us;

	return time_read(s, &us);
}

static const struct format {
	const char *name, *pattern, *means;
	bool (*ok)(const char *);
} formats[] = {
	/* clang-format off */
	{ "name", "^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$", "a name: letters, digits, dot, underscore and hyphen, up to 64", is_name },
	{ "team-name", "^[A-Za-z0-9 _\\\\-@']{1,128}$", "a team name: letters, digits, blank and _-@', up to 128", is_team_name },
	{ "person", NULL, "free of control characters and <>&\\\"", is_person },
	{ "email", NULL, "an e-mail address", is_email },
	{ "env-name", "^[A-Za-z_][A-Za-z0-9_]*$", "a variable name", is_env_name },
	{ "meta-key", "^[A-Za-z0-9._/-]{1,64}$", "a metadata key", is_meta_key },
	{ "tag", "^[a-z0-9][a-z0-9._:/-]{0,62}$", "a tag", is_tag },
	{ "host-tag", "^[a-z0-9][a-z0-9._/-]{0,62}$", "a tag of a host", is_host_tag },
	{ "uuid", NULL, "a UUID", is_uuid },
	{ "hex", "^[0-9a-fA-F]*$", "hex digits", is_hex },
	{ "date-time", NULL, "a time as in RFC 3339", is_time },
	{ "cidr", NULL, "an address or a network: 10.0.0.0/8", cidr_network },
	/* clang-format on */
};

static const struct format *
format_find(const char *name)
{
	size_t i;

	for (i = 0; name && i < nitems(formats); i++)
		if (strcmp(formats[i].name, name) == 0)
			return &formats[i];
	return NULL;
}

bool
format_ok(const char *name, const char *text)
{
	const struct format *f = format_find(name);

	return !f || f->ok(text);
}

static int64_t
utf8_length(const char *s)
{
	int64_t n = 0;

	for (; *s; s++)
		n += (*s & 0xc0) != 0x80;
	return n;
}

static int
in_range(const struct field *f, int64_t n, const char *what, struct err *e)
{
	if ((!f->min && !f->max) || (n >= f->min && (n <= f->max || !f->max)))
		return 0;
	if (f->min == f->max)
		return err_set(
		    e, E_BAD_INPUT, "\"%s\" must have %" PRId64 "%s", f->name, f->min, what);
	return err_set(e, E_BAD_INPUT, "\"%s\" is not between %" PRId64 " and %" PRId64 "%s",
	    f->name, f->min, f->max, what);
}

static bool
one_of(const char *list, const char *word)
{
	size_t n = strlen(word);
	const char *p;

	for (p = list; p; p = strchr(p, '|') ? strchr(p, '|') + 1 : NULL)
		if (strncmp(p, word, n) == 0 && (p[n] == '|' || !p[n]))
			return true;
	return false;
}

static int
check_text(const struct field *f, const char *s, struct err *e)
{
	const struct format *fmt = format_find(f->format);

	if (in_range(f, utf8_length(s), " characters", e) < 0)
		return -1;
	if (f->one_of && !one_of(f->one_of, s))
		return err_set(e, E_BAD_INPUT, "\"%s\" is none of %s", f->name, f->one_of);
	if (fmt && !fmt->ok(s))
		return err_set(e, E_BAD_INPUT, "\"%s\" is not %s", f->name, fmt->means);
	return 0;
}

static int
read_id(const struct field *f, const char *s, void *to, void *mem, struct err *e)
{
	struct uuid *u = talloc(mem, struct uuid);

	if (!id_read(s, f->prefix, u))
		return err_set(e, E_BAD_INPUT,
		    "\"%s\" is not an id: %s and 25 characters of 0-9a-z", f->name, f->prefix);
	*(const struct uuid **)to = u;
	return 0;
}

static int
read_string(const struct field *f, struct json_object *v, void *to, struct err *e)
{
	const char *s = json_object_get_string(v);

	if (!json_object_is_type(v, json_type_string))
		return err_set(e, E_BAD_INPUT, "\"%s\" is not a string", f->name);
	*(const char **)to = s;
	return check_text(f, s, e);
}

static int
read_number(const struct field *f, struct json_object *v, void *to, struct err *e)
{
	int64_t n = json_object_get_int64(v);

	if (!json_object_is_type(v, json_type_int))
		return err_set(e, E_BAD_INPUT, "\"%s\" is not a whole number", f->name);
	if (f->type == F_I32 && (n < -INT32_MAX || n > INT32_MAX))
		return err_set(e, E_BAD_INPUT, "\"%s\" is out of range", f->name);
	if (f->type == F_I32)
		*(int32_t *)to = n;
	else
		*(int64_t *)to = n;
	return in_range(f, n, "", e);
}

static int
read_texts(const struct field *f, struct json_object *v, void *to, void *mem, struct err *e)
{
	size_t n, i;
	const char **list;
	struct field item = *f;

	if (!json_object_is_type(v, json_type_array))
		return err_set(e, E_BAD_INPUT, "\"%s\" is not a list", f->name);
	n = json_object_array_length(v);
	if (in_range(f, n, " entries", e) < 0)
		return -1;
	item.min = item.max = 0;
	list = talloc_zero_array(mem, const char *, n + 1);
	for (i = 0; i < n; i++)
		if (read_string(&item, json_object_array_get_idx(v, i), &list[i], e) < 0)
			return -1;
	*(const char *const **)to = list;
	return 0;
}

static int
read_pairs(const struct field *f, struct json_object *v, void *to, void *mem, struct err *e)
{
	struct pair *list;
	size_t n = 0;

	if (!json_object_is_type(v, json_type_object))
		return err_set(e, E_BAD_INPUT, "\"%s\" is not an object", f->name);
	if (in_range(f, json_object_object_length(v), " entries", e) < 0)
		return -1;
	list = talloc_zero_array(mem, struct pair, json_object_object_length(v) + 1);
	json_object_object_foreach(v, key, val)
	{
		if (!json_object_is_type(val, json_type_string))
			return err_set(
			    e, E_BAD_INPUT, "\"%s.%.40s\" is not a string", f->name, key);
		if (f->format && !format_ok(f->format, key))
			return err_set(
			    e, E_BAD_INPUT, "\"%s\" has a bad name: %.40s", f->name, key);
		list[n++] = (struct pair){ key, json_object_get_string(val) };
	}
	*(const struct pair **)to = list;
	return 0;
}

static int
read_sub(const struct field *f, struct json_object *v, void *to, void *mem, struct err *e)
{
	struct list l = { 0 };
	char *one;
	size_t i;

	if (!(f->flags & LIST)) {
		if (!json_object_is_type(v, json_type_object))
			return err_set(e, E_BAD_INPUT, "\"%s\" is not an object", f->name);
		one = talloc_zero_size(mem, f->subsize);
		*(void **)to = one;
		return fields_read(f->sub, v, one, mem, e);
	}
	if (!json_object_is_type(v, json_type_array))
		return err_set(e, E_BAD_INPUT, "\"%s\" is not a list", f->name);
	l.n = json_object_array_length(v);
	if (in_range(f, l.n, " entries", e) < 0)
		return -1;
	l.item = talloc_zero_size(mem, f->subsize * (l.n + 1));
	for (i = 0; i < l.n; i++) {
		v = json_object_is_type(v, json_type_array) ? v : NULL;
		if (!json_object_is_type(json_object_array_get_idx(v, i), json_type_object))
			return err_set(
			    e, E_BAD_INPUT, "\"%s\" has an entry that is no object", f->name);
		if (fields_read(f->sub, json_object_array_get_idx(v, i),
			(char *)l.item + i * f->subsize, mem, e) < 0)
			return -1;
	}
	*(struct list *)to = l;
	return 0;
}

static int
read_one(const struct field *f, struct json_object *v, void *to, void *mem, struct err *e)
{
	if (f->format && strcmp(f->format, "json") == 0) {
		*(const char **)to = json_object_to_json_string_ext(v, JSON_C_TO_STRING_PLAIN);
		return 0;
	}
	switch (f->type) {
	case F_STR:
		return read_string(f, v, to, e);
	case F_ID:
		if (!json_object_is_type(v, json_type_string))
			return err_set(e, E_BAD_INPUT, "\"%s\" is not a string", f->name);
		return read_id(f, json_object_get_string(v), to, mem, e);
	case F_BOOL:
		if (!json_object_is_type(v, json_type_boolean))
			return err_set(e, E_BAD_INPUT, "\"%s\" is not true or false", f->name);
		*(bool *)to = json_object_get_boolean(v);
		return 0;
	case F_NUM:
		if (!json_object_is_type(v, json_type_double) &&
		    !json_object_is_type(v, json_type_int))
			return err_set(e, E_BAD_INPUT, "\"%s\" is not a number", f->name);
		*(double *)to = json_object_get_double(v);
		return 0;
	case F_TEXTS:
		return read_texts(f, v, to, mem, e);
	case F_PAIRS:
		return read_pairs(f, v, to, mem, e);
	case F_SUB:
		return read_sub(f, v, to, mem, e);
	default:
		return read_number(f, v, to, e);
	}
}

void
fields_default(const struct field *f, void *st)
{
	void *to;

	for (; f->name; f++) {
		to = (char *)st + f->off;
		switch (f->type) {
		case F_STR:
			*(const char **)to = f->text;
			break;
		case F_BOOL:
			*(bool *)to = f->dflt;
			break;
		case F_I32:
			*(int32_t *)to = f->dflt;
			break;
		case F_I64:
			*(int64_t *)to = f->dflt;
			break;
		default:
			break;
		}
	}
}

int
fields_read(const struct field *all, struct json_object *obj, void *st, void *mem, struct err *e)
{
	struct json_object *v;
	const struct field *f;

	fields_default(all, st);
	for (f = all; f->name; f++) {
		if (f->flags & (IN_PATH | IN_QUERY))
			continue;
		v = NULL;
		if (obj)
			json_object_object_get_ex(obj, f->name, &v);
		if (v) {
			if (read_one(f, v, (char *)st + f->off, mem, e) < 0)
				return -1;
		} else if (f->flags & NEEDED)
			return err_set(e, E_BAD_INPUT, "\"%s\" is missing", f->name);
	}
	return 0;
}

/* "a,b" and a repeated parameter are one list. */
static int
add_texts(const struct field *f, const char *text, void *to, void *mem, struct err *e)
{
	const char *const *old = *(const char *const **)to;
	const char **list, *p, *end;
	size_t n = 0;

	while (old && old[n])
		n++;
	list = talloc_zero_array(mem, const char *, n + strlen(text) + 2);
	if (n)
		memcpy(list, old, n * sizeof *list);
	for (p = text; *p; p = *end ? end + 1 : end) {
		end = strchrnul(p, ',');
		if (end == p)
			continue;
		list[n] = talloc_strndup(mem, p, end - p);
		if ((f->format && !format_ok(f->format, list[n])) ||
		    (f->one_of && !one_of(f->one_of, list[n])))
			return err_set(
			    e, E_BAD_INPUT, "\"%s\" has a bad entry: %.60s", f->name, list[n]);
		n++;
	}
	*(const char *const **)to = list;
	return in_range(f, n, " entries", e);
}

int
field_read_text(const struct field *f, const char *text, void *st, void *mem, struct err *e)
{
	void *to = (char *)st + f->off;
	int64_t n;
	char *end;

	switch (f->type) {
	case F_STR:
		*(const char **)to = text;
		return check_text(f, text, e);
	case F_ID:
		return read_id(f, text, to, mem, e);
	case F_BOOL:
		if (strcmp(text, "true") != 0 && strcmp(text, "false") != 0)
			return err_set(e, E_BAD_INPUT, "\"%s\" is not true or false", f->name);
		*(bool *)to = *text == 't';
		return 0;
	case F_TEXTS:
		return add_texts(f, text, to, mem, e);
	case F_I32:
	case F_I64:
		n = strtoll(text, &end, 10);
		if (end == text || *end || isspace((unsigned char)*text) || strlen(text) > 18)
			return err_set(e, E_BAD_INPUT, "\"%s\" is not a whole number", f->name);
		if (f->type == F_I32 && (n < -INT32_MAX || n > INT32_MAX))
			return err_set(e, E_BAD_INPUT, "\"%s\" is out of range", f->name);
		if (in_range(f, n, "", e) < 0)
			return -1;
		if (f->type == F_I32)
			*(int32_t *)to = n;
		else
			*(int64_t *)to = n;
		return 0;
	default:
		return err_set(e, E_BUG, "field %s cannot come as text", f->name);
	}
}

static bool
is_null(const struct field *f, const void *p)
{
	switch (f->type) {
	case F_BOOL:
	case F_NUM:
		return false;
	case F_I32:
		return *(const int32_t *)p == NULL_INT4;
	case F_I64:
		return *(const int64_t *)p == NULL_INT;
	case F_SUB:
		if (f->flags & LIST)
			return false;
		return !*(void *const *)p;
	default:
		return !*(void *const *)p;
	}
}

static void
write_texts(const char *const *list, struct buf *b)
{
	const char *const *t;

	buf_chr(b, '[');
	for (t = list; *t; t++) {
		if (t > list)
			buf_chr(b, ',');
		buf_json(b, *t);
	}
	buf_chr(b, ']');
}

static void
write_pairs(const struct pair *p, struct buf *b)
{
	bool first = true;

	buf_chr(b, '{');
	for (; p->name; p++, first = false) {
		if (!first)
			buf_chr(b, ',');
		buf_json(b, p->name);
		buf_chr(b, ':');
		buf_json(b, p->value);
	}
	buf_chr(b, '}');
}

static void
write_sub(const struct field *f, const void *p, struct buf *b)
{
	const struct list *l = p;
	size_t i;

	if (!(f->flags & LIST)) {
		fields_write(f->sub, *(void *const *)p, b);
		return;
	}
	buf_chr(b, '[');
	for (i = 0; i < l->n; i++) {
		if (i)
			buf_chr(b, ',');
		fields_write(f->sub, (const char *)l->item + i * f->subsize, b);
	}
	buf_chr(b, ']');
}

static void
write_one(const struct field *f, const void *p, struct buf *b)
{
	char id[ID_SIZE];

	if (f->format && strcmp(f->format, "json") == 0) {
		buf_str(b, *(const char *const *)p);
		return;
	}
	switch (f->type) {
	case F_STR:
		buf_json(b, *(const char *const *)p);
		break;
	case F_BOOL:
		buf_str(b, *(const bool *)p ? "true" : "false");
		break;
	case F_I32:
		buf_int(b, *(const int32_t *)p);
		break;
	case F_I64:
		if (f->format && strcmp(f->format, "date-time") == 0) {
			buf_chr(b, '"');
			time_write(b, *(const int64_t *)p);
			buf_chr(b, '"');
		} else
			buf_int(b, *(const int64_t *)p);
		break;
	case F_NUM:
		buf_fmt(b, "%.17g", *(const double *)p);
		break;
	case F_ID:
		buf_chr(b, '"');
		buf_str(b, id_write(id, f->prefix, *(const struct uuid *const *)p));
		buf_chr(b, '"');
		break;
	case F_TEXTS:
		write_texts(*(const char *const *const *)p, b);
		break;
	case F_PAIRS:
		write_pairs(*(const struct pair *const *)p, b);
		break;
	default:
		write_sub(f, p, b);
	}
}

void
fields_write(const struct field *f, const void *st, struct buf *b)
{
	bool first = true, null;
	const void *p;

	buf_chr(b, '{');
	for (; f->name; f++) {
		if (f->flags & (IN_PATH | IN_QUERY))
			continue;
		p = (const char *)st + f->off;
		null = is_null(f, p);
		if (null && (f->flags & OMIT))
			continue;
		if (!first)
			buf_chr(b, ',');
		first = false;
		buf_chr(b, '"');
		buf_str(b, f->name);
		buf_add(b, "\":", 2);
		if (null)
			buf_add(b, "null", 4);
		else
			write_one(f, p, b);
	}
	buf_chr(b, '}');
}

static void
schema_enum(const char *list, struct buf *b)
{
	buf_str(b, ",\"enum\":[\"");
	for (; *list; list++)
		if (*list == '|')
			buf_str(b, "\",\"");
		else
			buf_chr(b, *list);
	buf_str(b, "\"]");
}

static void
schema_text(const struct field *f, struct buf *b)
{
	const struct format *fmt = format_find(f->format);

	buf_str(b, "\"type\":\"string\"");
	if (f->one_of)
		schema_enum(f->one_of, b);
	if (f->prefix)
		buf_fmt(b, ",\"pattern\":\"^%s[0-9a-z]{25}$\"", f->prefix);
	if (fmt && fmt->pattern)
		buf_fmt(b, ",\"pattern\":\"%s\"", fmt->pattern);
	if (f->format)
		buf_fmt(b, ",\"format\":\"%s\"", f->format);
}

static void
schema_limits(const struct field *f, const char *least, const char *most, struct buf *b)
{
	if (f->min)
		buf_fmt(b, ",\"%s\":%" PRId64, least, f->min);
	if (f->max)
		buf_fmt(b, ",\"%s\":%" PRId64, most, f->max);
}

void
field_schema(const struct field *f, struct buf *b)
{
	buf_chr(b, '{');
	if (f->format && strcmp(f->format, "json") == 0)
		buf_str(b, "\"description\":");
	else
		switch (f->type) {
		case F_STR:
		case F_ID:
			schema_text(f, b);
			schema_limits(f, "minLength", "maxLength", b);
			break;
		case F_BOOL:
			buf_str(b, "\"type\":\"boolean\"");
			break;
		case F_NUM:
			buf_str(b, "\"type\":\"number\"");
			break;
		case F_TEXTS:
			buf_str(b, "\"type\":\"array\",\"items\":{");
			schema_text(f, b);
			buf_chr(b, '}');
			schema_limits(f, "minItems", "maxItems", b);
			break;
		case F_PAIRS:
			buf_str(b,
			    "\"type\":\"object\",\"additionalProperties\":{\"type\":\"string\"}");
			schema_limits(f, "minProperties", "maxProperties", b);
			break;
		case F_SUB:
			buf_str(
			    b, f->flags & LIST ? "\"type\":\"array\",\"items\":" : "\"allOf\":[");
			fields_schema(f->sub, b);
			if (!(f->flags & LIST))
				buf_chr(b, ']');
			break;
		default:
			if (f->format && strcmp(f->format, "date-time") == 0) {
				buf_str(b, "\"type\":\"string\",\"format\":\"date-time\"");
				break;
			}
			buf_str(b, "\"type\":\"integer\"");
			schema_limits(f, "minimum", "maximum", b);
		}
	if (!(f->format && strcmp(f->format, "json") == 0)) {
		if (!(f->flags & (NEEDED | OMIT | IN_PATH | IN_QUERY)))
			buf_str(b, ",\"nullable\":true");
		if (f->flags & WRITE_ONLY)
			buf_str(b, ",\"writeOnly\":true");
		if (f->doc)
			buf_str(b, ",\"description\":");
	}
	if (f->doc || (f->format && strcmp(f->format, "json") == 0))
		buf_json(b, f->doc ? f->doc : "any JSON");
	buf_chr(b, '}');
}

void
fields_schema(const struct field *all, struct buf *b)
{
	const struct field *f;
	bool first = true;

	buf_str(b, "{\"type\":\"object\",\"properties\":{");
	for (f = all; f->name; f++) {
		if (f->flags & (IN_PATH | IN_QUERY))
			continue;
		if (!first)
			buf_chr(b, ',');
		first = false;
		buf_fmt(b, "\"%s\":", f->name);
		field_schema(f, b);
	}
	buf_chr(b, '}');
	first = true;
	for (f = all; f->name; f++) {
		if (!(f->flags & NEEDED) || (f->flags & (IN_PATH | IN_QUERY)))
			continue;
		buf_fmt(b, "%s\"%s\"", first ? ",\"required\":[" : ",", f->name);
		first = false;
	}
	if (!first)
		buf_chr(b, ']');
	buf_chr(b, '}');
}
