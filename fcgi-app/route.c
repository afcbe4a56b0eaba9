/* route.c - every resource of the API, and how a path finds its row. */
#include "api/api.h"
#include "cleanup.h"

#include <string.h>

const struct route *const route_tables[] = {
#define T(table) table,
#include "api/tables.def"
#undef T
	NULL,
};

enum { SEGMENTS = 12 };

/* Splits the raw path at '/', then decodes each segment: %2F stays inside its segment. -1:
 * malformed. */
static int
split(struct request *r, const char *path, const char **seg)
{
	const char *p = path, *end;
	char *out, *o, two[3];
	uint8_t byte;
	int n = 0;

	while (*p == '/') {
		end = strchrnul(++p, '/');
		if (n == SEGMENTS)
			return fail(r, E_NOT_FOUND, "no such path");
		out = o = talloc_array(r, char, end - p + 1);
		while (p < end) {
			byte = *p++;
			if (byte == '%') {
				if (end - p < 2)
					return fail(r, E_BAD_INPUT, "the path is badly escaped");
				two[0] = p[0];
				two[1] = p[1];
				two[2] = '\0';
				if (!hex_read(two, &byte, 1))
					return fail(r, E_BAD_INPUT, "the path is badly escaped");
				p += 2;
			}
			if (byte < 0x20 || byte == 0x7f)
				return fail(r, E_BAD_INPUT, "the path has a control character");
			*o++ = byte;
		}
		*o = '\0';
		seg[n++] = out;
	}
	return n;
}

/* Does the pattern fit? The values of its {…} go to `value`, in order. */
static bool
fits(const char *pattern, const char *const *seg, int n, const char **value)
{
	const char *p = pattern, *end;
	int i, nv = 0;

	for (i = 0; *p == '/'; i++, p = end) {
		end = strchrnul(++p, '/');
		if (i >= n)
			return false;
		if (*p == '{')
			value[nv++] = seg[i];
		else if (strlen(seg[i]) != (size_t)(end - p) || memcmp(seg[i], p, end - p) != 0)
			return false;
	}
	return i == n;
}

bool
route_is_e2b(const char *path)
{
	const struct route *const *table;
	const struct route *rt;
	size_t n;

	for (table = route_tables; *table; table++)
		for (rt = *table; rt->path; rt++) {
			n = 1 + strcspn(rt->path + 1, "/");
			if (rt->flags & E2B && strncmp(rt->path, path, n) == 0 &&
			    strchr("/", path[n]))
				return true;
		}
	return false;
}

const struct route *
route_find(struct request *r, void *path_values, const char **allow)
{
	const char *seg[SEGMENTS];
	const char **value = path_values;
	const struct route *const *table;
	const struct route *rt, *get = NULL;
	struct buf methods = BUF(r);
	int n = split(r, r->path, seg);
	bool head = strcmp(r->method, "HEAD") == 0;

	if (n < 0)
		return NULL;
	for (table = route_tables; *table; table++)
		for (rt = *table; rt->path; rt++) {
			if (!fits(rt->path, seg, n, value))
				continue;
			if (strcmp(rt->method, head ? "GET" : r->method) == 0)
				return rt;
			buf_fmt(&methods, "%s%s", methods.len ? ", " : "", rt->method);
			get = strcmp(rt->method, "GET") == 0 ? rt : get;
		}
	if (get)
		buf_str(&methods, ", HEAD");
	*allow = methods.data;
	return NULL;
}
