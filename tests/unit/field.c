/* field.c - lib/field.c: tables that read, check, write and describe. */
#include "field.h"
#include "cleanup.h"
#include "json.h"
#include "unit.h"

#include <string.h>

struct point {
	int32_t x;
	const char *label;
};
static const struct field point_fields[] = {
	FIELD(point, x, "x", .flags = NEEDED, .min = -5, .max = 5),
	FIELD(point, label, "label", .flags = OMIT),
	{ 0 },
};

struct thing {
	const struct uuid *id;
	int32_t page;
	int64_t limit;
	bool loud;
	const char *name, *color, *email, *tag, *raw, *secret;
	int32_t small;
	int64_t big, at;
	double ratio;
	const char *const *tags;
	const struct pair *envs;
	struct point *point;
	struct list points;
};
static const struct field thing_fields[] = {
	FIELD(thing, id, "id", .flags = NEEDED | IN_PATH, .prefix = "cl-"),
	FIELD(thing, page, "page", .flags = IN_QUERY),
	FIELD(thing, limit, "limit", .flags = IN_QUERY, .min = 1, .max = 200, .dflt = 100),
	FIELD(thing, loud, "loud", .dflt = true),
	FIELD(thing, name, "name", .flags = NEEDED, .min = 2, .max = 4, .doc = "A \"name\"."),
	FIELD(thing, color, "color", .text = "red", .one_of = "red|dark red|blue"),
	FIELD(thing, email, "email", .format = "email"),
	FIELD(thing, tag, "tag", .format = "tag"),
	FIELD(thing, raw, "raw", .format = "json"),
	FIELD(thing, secret, "secret", .flags = WRITE_ONLY),
	FIELD(thing, small, "small", .dflt = 7),
	FIELD(thing, big, "big", .min = -10, .max = 10),
	FIELD(thing, at, "at", .dflt = NULL_INT, .format = "date-time"),
	FIELD(thing, ratio, "ratio"),
	FIELD(thing, tags, "tags", .min = 1, .max = 2, .format = "tag"),
	FIELD(thing, envs, "envs", .max = 2, .format = "env-name"),
	SUB(thing, point, "point", point_fields, point),
	SUB(thing, points, "points", point_fields, point, .flags = LIST, .max = 2),
	{ 0 },
};

static int
read_thing(const char *text, struct thing *t)
{
	struct json_object *o = json_parse(mem, text, strlen(text), NULL, &err);

	ck_assert_msg(o, "%s: %s", text, err.text);
	*t = (struct thing){ 0 };
	return fields_read(thing_fields, o, t, mem, &err);
}

START_TEST(all_kinds)
{
	struct thing t;

	ck_assert_msg(
	    read_thing("{\"name\":\"\xc3\xa4\xc3\xb6\xc3\xbc\",\"color\":\"dark "
		       "red\",\"loud\":false,\"email\":\"a@b\","
		       "\"small\":-3,\"big\":10,\"ratio\":2,\"tags\":[\"a\",\"b-c\"],\"envs\":{"
		       "\"A\":\"1\",\"B\":\"\"},"
		       "\"raw\":{\"deep\":[1, "
		       "2]},\"point\":{\"x\":-5},\"points\":[{\"x\":1,\"label\":\"l\"},{\"x\":2}],"
		       "\"unknown\":{\"is\":\"ignored\"}}",
		&t) == 0,
	    "%s", err.text);
	ck_assert_str_eq(t.color, "dark red");
	ck_assert(!t.loud);
	ck_assert_int_eq(t.small, -3);
	ck_assert_int_eq(t.big, 10);
	ck_assert(t.ratio == 2.0);
	ck_assert_str_eq(t.tags[1], "b-c");
	ck_assert_ptr_null(t.tags[2]);
	ck_assert_str_eq(t.envs[1].name, "B");
	ck_assert_str_eq(t.envs[1].value, "");
	ck_assert_ptr_null(t.envs[2].name);
	ck_assert_str_eq(t.raw, "{\"deep\":[1,2]}");
	ck_assert_int_eq(t.point->x, -5);
	ck_assert_int_eq(t.points.n, 2);
	ck_assert_str_eq(((struct point *)t.points.item)[0].label, "l");
	ck_assert_int_eq(((struct point *)t.points.item)[1].x, 2);
}
END_TEST

START_TEST(defaults)
{
	struct thing t;

	ck_assert_int_eq(read_thing("{\"name\":\"ab\",\"color\":null,\"small\":null}", &t), 0);
	ck_assert(t.loud);
	ck_assert_str_eq(t.color, "red");
	ck_assert_int_eq(t.small, 7);
	ck_assert_int_eq(t.limit, 100);
	ck_assert(t.at == NULL_INT);
	ck_assert_ptr_null(t.tags);
	ck_assert_ptr_null(t.point);
	ck_assert_int_eq(fields_read(thing_fields, NULL, &t, mem, &err), -1);
	ck_assert_str_eq(err.text, "\"name\" is missing");
}
END_TEST

/* clang-format off */
static const char *const refused[] = {
	"{}", "{\"name\":null}", "{\"name\":1}", "{\"name\":\"a\"}", "{\"name\":\"abcde\"}", "{\"name\":[\"ab\"]}", "{\"name\":{}}",
	"{\"name\":\"ab\",\"color\":\"re\"}", "{\"name\":\"ab\",\"color\":\"red|blue\"}", "{\"name\":\"ab\",\"color\":\"\"}",
	"{\"name\":\"ab\",\"loud\":1}", "{\"name\":\"ab\",\"loud\":\"true\"}",
	"{\"name\":\"ab\",\"small\":1.5}", "{\"name\":\"ab\",\"small\":\"1\"}", "{\"name\":\"ab\",\"small\":2147483648}",
	"{\"name\":\"ab\",\"small\":-2147483649}", "{\"name\":\"ab\",\"big\":11}", "{\"name\":\"ab\",\"big\":-11}", "{\"name\":\"ab\",\"big\":1e1}",
	"{\"name\":\"ab\",\"ratio\":\"1\"}", "{\"name\":\"ab\",\"ratio\":true}",
	"{\"name\":\"ab\",\"email\":\"a\"}", "{\"name\":\"ab\",\"email\":\"a@\"}", "{\"name\":\"ab\",\"email\":\"@b\"}", "{\"name\":\"ab\",\"email\":\"a@b@c\"}",
	"{\"name\":\"ab\",\"email\":\"a b@c\"}", "{\"name\":\"ab\",\"email\":\"a@b\\r\\nBcc: c@d\"}", "{\"name\":\"ab\",\"email\":\"<a@b>\"}",
	"{\"name\":\"ab\",\"tag\":\"\"}", "{\"name\":\"ab\",\"tag\":\"-a\"}", "{\"name\":\"ab\",\"tag\":\"A\"}",
	"{\"name\":\"ab\",\"tags\":\"a\"}", "{\"name\":\"ab\",\"tags\":[]}", "{\"name\":\"ab\",\"tags\":[\"a\",\"b\",\"c\"]}",
	"{\"name\":\"ab\",\"tags\":[1]}", "{\"name\":\"ab\",\"tags\":[null]}", "{\"name\":\"ab\",\"tags\":[\"B\"]}", "{\"name\":\"ab\",\"tags\":{\"0\":\"a\"}}",
	"{\"name\":\"ab\",\"envs\":[]}", "{\"name\":\"ab\",\"envs\":{\"A\":1}}", "{\"name\":\"ab\",\"envs\":{\"A\":null}}",
	"{\"name\":\"ab\",\"envs\":{\"1A\":\"\"}}", "{\"name\":\"ab\",\"envs\":{\"A=B\":\"\"}}", "{\"name\":\"ab\",\"envs\":{\"\":\"\"}}",
	"{\"name\":\"ab\",\"envs\":{\"A\":\"\",\"B\":\"\",\"C\":\"\"}}",
	"{\"name\":\"ab\",\"point\":[]}", "{\"name\":\"ab\",\"point\":{}}", "{\"name\":\"ab\",\"point\":{\"x\":6}}",
	"{\"name\":\"ab\",\"points\":{}}", "{\"name\":\"ab\",\"points\":[1]}", "{\"name\":\"ab\",\"points\":[null]}", "{\"name\":\"ab\",\"points\":[{\"x\":1},{}]}",
	"{\"name\":\"ab\",\"points\":[{\"x\":1},{\"x\":1},{\"x\":1}]}",
};
/* clang-format on */

START_TEST(refuses)
{
	struct thing t;

	ck_assert_msg(read_thing(refused[_i], &t) == -1, "%s was taken", refused[_i]);
	ck_assert_int_eq(err.code, E_BAD_INPUT);
	ck_assert_msg(strchr(err.text, '"'), "%s names no field", err.text);
}
END_TEST

static const struct field *
named(const char *name)
{
	const struct field *f = thing_fields;

	while (strcmp(f->name, name) != 0)
		f++;
	return f;
}

START_TEST(from_text)
{
	static const char *const bad[][2] = { { "limit", "" }, { "limit", "x" }, { "limit", "1x" },
		{ "limit", " 1" }, { "limit", "0" }, { "limit", "201" }, { "limit", "1.0" },
		{ "limit", "99999999999999999999" }, { "page", "2147483648" },
		{ "page", "-2147483649" }, { "loud", "1" }, { "loud", "TRUE" }, { "id", "cl-1" },
		{ "id", "" }, { "color", "green" }, { "name", "abcde" } };
	struct thing t = { 0 };
	size_t i;

	ck_assert_int_eq(field_read_text(named("limit"), "200", &t, mem, &err), 0);
	ck_assert_int_eq(t.limit, 200);
	ck_assert_int_eq(field_read_text(named("page"), "-2", &t, mem, &err), 0);
	ck_assert_int_eq(t.page, -2);
	ck_assert_int_eq(field_read_text(named("loud"), "true", &t, mem, &err), 0);
	ck_assert(t.loud);
	ck_assert_int_eq(
	    field_read_text(named("id"), "cl-0000000000000000000000001", &t, mem, &err), 0);
	ck_assert_int_eq(t.id->b[15], 1);
	for (i = 0; i < nitems(bad); i++) {
		err = (struct err){ 0 };
		ck_assert_msg(field_read_text(named(bad[i][0]), bad[i][1], &t, mem, &err) == -1,
		    "%s=%s was taken", bad[i][0], bad[i][1]);
		ck_assert_int_eq(err.code, E_BAD_INPUT);
	}
}
END_TEST

/* What is written is JSON and reads back as the same. */
START_TEST(written)
{
	static const char *const tags[] = { "a", "b", NULL };
	struct pair envs[] = { { "A", "x\"\n" }, { NULL, NULL } };
	struct point one = { 1, NULL }, two[2] = { { 2, "l" }, { 3, NULL } };
	struct thing t = { .name = "ab",
		.color = "blue",
		.raw = "[1]",
		.small = NULL_INT4,
		.big = -4,
		.at = 1500000,
		.ratio = 0.1,
		.tags = tags,
		.envs = envs,
		.point = &one,
		.points = { two, 2 } };
	struct buf b = BUF(mem);
	struct json_object *o;
	struct thing back = { 0 };

	fields_write(thing_fields, &t, &b);
	ck_assert_msg(
	    strcmp(b.data,
		"{\"loud\":false,\"name\":\"ab\",\"color\":\"blue\",\"email\":null,\"tag\":null,"
		"\"raw\":[1],"
		"\"secret\":null,\"small\":null,\"big\":-4,\"at\":\"1970-01-01T00:00:01.500000Z\","
		"\"ratio\":0.10000000000000001,\"tags\":[\"a\",\"b\"],\"envs\":{\"A\":\"x\\\"\\n\"}"
		",\"point\":{\"x\":1},"
		"\"points\":[{\"x\":2,\"label\":\"l\"},{\"x\":3}]}") == 0,
	    "%s", b.data);
	o = json_parse(mem, b.data, b.len, NULL, &err);
	ck_assert_ptr_nonnull(o);
	json_object_object_del(o, "at"); /* times are written only */
	ck_assert_msg(fields_read(thing_fields, o, &back, mem, &err) == 0, "%s", err.text);
	ck_assert_str_eq(back.envs[0].value, "x\"\n");
	ck_assert_int_eq(((struct point *)back.points.item)[1].x, 3);
}
END_TEST

START_TEST(schema)
{
	struct buf b = BUF(mem);
	struct json_object *o, *props, *f;

	fields_schema(thing_fields, &b);
	o = json_parse(mem, b.data, b.len, NULL, &err);
	ck_assert_msg(o, "%s in %s", err.text, b.data);
	props = json_get(o, "properties");
	ck_assert_ptr_null(json_get(props, "id"));
	ck_assert_int_eq(json_object_array_length(json_get(o, "required")), 1);
	f = json_get(props, "name");
	ck_assert_int_eq(json_int(f, "minLength", 0), 2);
	ck_assert_int_eq(json_int(f, "maxLength", 0), 4);
	ck_assert_str_eq(json_str(f, "description", ""), "A \"name\".");
	ck_assert_int_eq(json_object_array_length(json_get(json_get(props, "color"), "enum")), 3);
	ck_assert(json_flag(json_get(props, "secret"), "writeOnly", false));
	ck_assert_str_eq(json_str(json_get(props, "at"), "type", ""), "string");
	ck_assert_str_eq(
	    json_str(json_get(json_get(props, "points"), "items"), "type", ""), "object");
	ck_assert_int_eq(json_int(json_get(props, "tags"), "maxItems", 0), 2);
}
END_TEST

/* clang-format off */
static const struct {
	const char *format, *text;
	bool ok;
} format_cases[] = {
	{ "name", "a", true }, { "name", "A.b_c-9", true }, { "name", "", false }, { "name", ".a", false }, { "name", "a b", false },
	{ "name", "a/b", false }, { "name", "\xc3\xa4", false }, { "name", "a\n", false },
	{ "name", "0123456789012345678901234567890123456789012345678901234567890123", true },
	{ "name", "01234567890123456789012345678901234567890123456789012345678901234", false },
	{ "team-name", "A team's @ _-1", true }, { "team-name", "", false }, { "team-name", "a<b", false }, { "team-name", "a\tb", false },
	{ "person", "J\xc3\xbcrgen O'Neill", true }, { "person", "a<b", false }, { "person", "a&b", false }, { "person", "a\"b", false }, { "person", "a\x01", false },
	{ "person", "a\x7f", false }, { "email", "a.b+c@d.example", true }, { "email", "a@b\xc3\xa4", false }, { "email", "", false },
	{ "env-name", "_A1", true }, { "env-name", "", false }, { "env-name", "A-B", false }, { "env-name", "\xc3\xa4", false },
	{ "meta-key", "a/b.c_d-e", true }, { "meta-key", "", false }, { "meta-key", "a b", false },
	{ "tag", "a.b:c/d-e_f", true }, { "tag", ".a", false }, { "tag", "a b", false },
	{ "uuid", "0190b0b0-0000-7000-8000-000000000000", true }, { "uuid", "0190b0b0", false },
	{ "hex", "00ffAB", true }, { "hex", "0g", false }, { "date-time", "2026-11-21T12:00:00Z", true }, { "date-time", "now", false },
	{ "nonexistent", "anything", true },
};

static const struct {
	const char *text;
	int64_t us;
} times[] = {
	{ "1970-01-01T00:00:00Z", 0 }, { "1970-01-01T00:00:00.000001Z", 1 }, { "1969-12-31T23:59:59.5Z", -500000 },
	{ "2026-11-21T12:37:55Z", 1795264675000000 }, { "2026-11-21T13:37:55+01:00", 1795264675000000 }, { "2026-11-21t12:07:55.25-00:30", 1795264675250000 },
	{ "2024-02-29T00:00:00Z", 1709164800000000 }, { "2026-11-21T12:37:55.1234567Z", 1795264675123456 }, { "9999-12-31T23:59:59Z", 253402300799000000 },
};

static const char *const no_times[] = {
	"", "2026", "2026-11-21", "2026-11-21T12:37", "2026-11-21T12:37:55", "2026-11-21 12:37:55Z", "2026-13-01T00:00:00Z", "2026-00-01T00:00:00Z",
	"2026-01-32T00:00:00Z", "2026-01-00T00:00:00Z", "2026-02-29T00:00:00Z", "2026-04-31T00:00:00Z", "2026-01-01T24:00:00Z", "2026-01-01T00:60:00Z",
	"2026-01-01T00:00:61Z", "2026-01-01T00:00:00.Z", "2026-01-01T00:00:00ZZ", "2026-01-01T00:00:00+1:00", "2026-01-01T00:00:00+01", "2026-01-01T00:00:00+0100",
	"2026-01-01T00:00:00+24:00", "2026-01-01T00:00:00+01:60", "26-01-01T00:00:00Z", "2026-1-1T0:0:0Z", " 2026-01-01T00:00:00Z", "+026-01-01T00:00:00Z",
	"-026-01-01T00:00:00Z", "2026- 1-01T00:00:00Z", "2026-01-01T00:00:00+-1:00", "2026-01-01T00:00:00 Z", "20260101T000000Z", "2026-01-01T00:00:00,5Z",
};
/* clang-format on */

START_TEST(formats)
{
	ck_assert_msg(
	    format_ok(format_cases[_i].format, format_cases[_i].text) == format_cases[_i].ok,
	    "%s as %s", format_cases[_i].text, format_cases[_i].format);
}
END_TEST

START_TEST(time_round_trip)
{
	struct buf b = BUF(mem);
	int64_t us = -1, again;

	ck_assert_msg(time_read(times[_i].text, &us), "%s", times[_i].text);
	ck_assert_msg(us == times[_i].us, "%s is %lld", times[_i].text, (long long)us);
	time_write(&b, us);
	ck_assert(time_read(b.data, &again));
	ck_assert_int_eq(us, again);
}
END_TEST

START_TEST(time_refused)
{
	int64_t us = 7;

	ck_assert_msg(!time_read(no_times[_i], &us), "%s was taken", no_times[_i]);
	ck_assert_int_eq(us, 7);
}
END_TEST

Suite *
field_suite(void)
{
	TCase *c;
	Suite *s = suite_new("field", &c);

	tcase_add_test(c, all_kinds);
	tcase_add_test(c, defaults);
	tcase_add_loop_test(c, refuses, 0, nitems(refused));
	tcase_add_test(c, from_text);
	tcase_add_test(c, written);
	tcase_add_test(c, schema);
	tcase_add_loop_test(c, formats, 0, nitems(format_cases));
	tcase_add_loop_test(c, time_round_trip, 0, nitems(times));
	tcase_add_loop_test(c, time_refused, 0, nitems(no_times));
	return s;
}
