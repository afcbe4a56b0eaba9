/* route.c - fcgi-app/route.c and lib/route_print.c: paths find rows, rows are printed. */
#include "fcgi-app/route.c"
#include "route_print.h"
#include "json.h"
#include "unit.h"

#undef fail /* the macro of check.h */

/* The router with tables of our own. */
struct by_thing {
	const struct uuid *id;
	const char *name;
	int32_t limit;
};
static const struct field by_thing_fields[] = {
	FIELD(by_thing, id, "id", .flags = NEEDED | IN_PATH, .prefix = "cl-"),
	FIELD(by_thing, name, "name", .min = 1, .max = 9, .doc = "A \"name\""),
	FIELD(by_thing, limit, "limit", .flags = IN_QUERY, .max = 9),
	{ 0 },
};

/* clang-format off */
const struct route health_routes[] = {
	{ "GET", "/v1/things", POOL_API, ANYONE, NULL, "List", LISTS, 200, OUT(by_thing) },
	{ "POST", "/v1/things", POOL_OPS, PERM_capsules_create, NULL, "Make \"one\"", CREATES, 201, IN(by_thing), OUT(by_thing) },
	{ "GET", "/v1/things/{id}", POOL_API, SIGNED_IN, NULL, "One", 0, 200, IN(by_thing), OUT(by_thing) },
	{ "DELETE", "/v1/things/{id}", POOL_OPS, PERM_capsules_delete, NULL, "Away", 0, 204, IN(by_thing) },
	{ "POST", "/v1/things/{id}/files/{name}", POOL_GATEWAY, PERM_capsules_connect, NULL, "File", STREAMS, 200, .in = by_thing_fields },
	{ "PUT", "/v1/dotted.path", POOL_OPS, SIGNED_IN, NULL, "Dots", NO_BODY, 200 },
	{ 0 },
};
/* clang-format on */
/* the other tables are empty here */
#define health_routes health_routes_again
#define T(table)      const struct route table[] = { { 0 } };
#include "fcgi-app/api/tables.def"
#undef T
#undef health_routes

int
fail(struct request *r, enum err_code code, const char *fmt, ...)
{
	va_list ap;
	char text[200];

	va_start(ap, fmt);
	vsnprintf(text, sizeof text, fmt, ap);
	va_end(ap);
	return err_set(&r->work.err, code, "%s", text);
}

/* clang-format off */
static const struct {
	const char *method, *path;
	int row; /* of health_routes, -1: none */
	const char *first, *second, *allow;
	enum err_code code;
} cases[] = {
	{ "GET", "/v1/things", 0, NULL, NULL, NULL, E_OK }, { "HEAD", "/v1/things", 0, NULL, NULL, NULL, E_OK }, { "POST", "/v1/things", 1, NULL, NULL, NULL, E_OK },
	{ "GET", "/v1/things/x", 2, "x", NULL, NULL, E_OK }, { "DELETE", "/v1/things/x", 3, "x", NULL, NULL, E_OK },
	{ "GET", "/v1/things/a%2Fb", 2, "a/b", NULL, NULL, E_OK }, { "GET", "/v1/things/%c3%a4", 2, "\xc3\xa4", NULL, NULL, E_OK },
	{ "POST", "/v1/things/a/files/b%20c", 4, "a", "b c", NULL, E_OK }, { "GET", "/v1/%74hings", 0, NULL, NULL, NULL, E_OK },
	{ "PATCH", "/v1/things", -1, NULL, NULL, "GET, POST, HEAD", E_OK }, { "PUT", "/v1/things/x", -1, NULL, NULL, "GET, DELETE, HEAD", E_OK },
	{ "HEAD", "/v1/dotted.path", -1, NULL, NULL, "PUT", E_OK },
	{ "GET", "/v1/thing", -1, NULL, NULL, NULL, E_OK }, { "GET", "/v1/things/", 2, "", NULL, NULL, E_OK }, { "GET", "/v1/things/x/y", -1, NULL, NULL, NULL, E_OK },
	{ "GET", "/", -1, NULL, NULL, NULL, E_OK }, { "GET", "", -1, NULL, NULL, NULL, E_OK }, { "GET", "v1/things", -1, NULL, NULL, NULL, E_OK },
	{ "GET", "//v1/things", -1, NULL, NULL, NULL, E_OK }, { "GET", "/v1/dottedxpath", -1, NULL, NULL, NULL, E_OK }, { "get", "/v1/things", -1, NULL, NULL, "GET, POST, HEAD", E_OK },
	{ "GET", "/v1/things/..", 2, "..", NULL, NULL, E_OK }, { "GET", "/v1/things/%2e%2e%2fx", 2, "../x", NULL, NULL, E_OK },
	{ "GET", "/v1/things/%", -1, NULL, NULL, NULL, E_BAD_INPUT }, { "GET", "/v1/things/%4", -1, NULL, NULL, NULL, E_BAD_INPUT },
	{ "GET", "/v1/things/%zz", -1, NULL, NULL, NULL, E_BAD_INPUT }, { "GET", "/v1/things/%00", -1, NULL, NULL, NULL, E_BAD_INPUT },
	{ "GET", "/v1/things/a%0ab", -1, NULL, NULL, NULL, E_BAD_INPUT }, { "GET", "/v1/things/%7f", -1, NULL, NULL, NULL, E_BAD_INPUT },
	{ "GET", "/1/2/3/4/5/6/7/8/9/10/11/12/13/14", -1, NULL, NULL, NULL, E_NOT_FOUND },
};
/* clang-format on */

START_TEST(found)
{
	struct request *r = talloc_zero(mem, struct request);
	const char *value[SEGMENTS] = { NULL }, *allow = NULL;
	const struct route *rt;

	r->method = cases[_i].method;
	r->path = cases[_i].path;
	rt = route_find(r, value, &allow);
	ck_assert_msg(rt == (cases[_i].row < 0 ? NULL : &health_routes[cases[_i].row]), "%s %s",
	    r->method, r->path);
	ck_assert_int_eq(r->work.err.code, cases[_i].code);
	if (cases[_i].first)
		ck_assert_str_eq(value[0], cases[_i].first);
	if (cases[_i].second)
		ck_assert_str_eq(value[1], cases[_i].second);
	if (cases[_i].row >= 0 || cases[_i].code)
		return;
	ck_assert_pstr_eq(allow, cases[_i].allow);
}
END_TEST

static void
print(const void *topic)
{
	ck_assert(route_print(route_tables, topic));
}

static const char *
printed(const char *topic)
{
	return printed_by(print, topic);
}

START_TEST(prints_openapi)
{
	const char *text = talloc_asprintf(mem, "{%s}", printed("paths"));
	struct json_object *o = json_parse(mem, text, strlen(text), NULL, &err), *op;

	ck_assert_msg(o, "%s in %s", err.text, text);
	ck_assert_int_eq(json_object_object_length(o), 4);
	op = json_get(json_get(o, "/v1/things"), "post");
	ck_assert_str_eq(json_str(op, "summary", ""), "Make \"one\"");
	ck_assert_str_eq(json_str(op, "x-permission", ""), "capsules.create");
	ck_assert_ptr_nonnull(json_get(json_get(op, "responses"), "201"));
	ck_assert_ptr_nonnull(json_get(op, "requestBody"));
	ck_assert_ptr_null(json_get(op, "security"));
	op = json_get(json_get(o, "/v1/things"), "get");
	ck_assert_ptr_nonnull(json_get(op, "security"));
	op = json_get(json_get(o, "/v1/things/{id}"), "get");
	ck_assert_ptr_null(json_get(op, "requestBody"));
	ck_assert_int_eq(json_object_array_length(json_get(op, "parameters")), 2);
	op = json_get(json_get(o, "/v1/dotted.path"), "put");
	ck_assert_ptr_null(json_get(op, "requestBody"));
}
END_TEST

START_TEST(prints_fragments)
{
	const char *l = printed("lighttpd"), *a = printed("apache"), *r = printed("routes");

	ck_assert_ptr_nonnull(strstr(l, "\"^/(v1/things/[^/]+/files/[^/]+)$\""));
	ck_assert_ptr_nonnull(strstr(l,
	    "$HTTP[\"request-method\"] == \"DELETE\" {\n\t$HTTP[\"url\"] =~ "
	    "\"^/(v1/things/[^/]+)$\""));
	ck_assert_ptr_nonnull(strstr(l, "dotted\\.path"));
	ck_assert_ptr_null(strstr(l, "\"GET\""));
	ck_assert_ptr_nonnull(
	    strstr(a, "RewriteCond %{REQUEST_METHOD} =PUT\nRewriteRule \"^/(v1/dotted\\.path)$\""));
	ck_assert_ptr_nonnull(strstr(r, "DELETE\t/v1/things/{id}\tops\tcapsules.delete\t"));
	ck_assert(!route_print(route_tables, "nonsense"));
}
END_TEST

Suite *
route_suite(void)
{
	TCase *c;
	Suite *s = suite_new("route", &c);

	tcase_add_loop_test(c, found, 0, nitems(cases));
	tcase_add_test(c, prints_openapi);
	tcase_add_test(c, prints_fragments);
	return s;
}
