/* route_print.c - see route_print.h. */
#include "route_print.h"
#include "buf.h"
#include "cleanup.h"

#include <ctype.h>
#include <string.h>

static const char *const pool_name[] = {
	[POOL_API] = "api", [POOL_OPS] = "ops", [POOL_GATEWAY] = "gateway"
};

static void
permission_name(enum perm p, struct buf *b)
{
	const char *s;

	for (s = perm_kinds[p].name; *s; s++)
		buf_chr(b, p > HOST_TOKEN && *s == '_' ? '.' : *s);
}

/* Words of the flags that say who may, what is asked and what comes: for people and for the matrix
 * of the tests. */
static const struct {
	unsigned flag;
	const char *word;
} flag_words[] = { { CREATES, "idempotent" }, { LISTS, "list" }, { STREAMS, "stream" },
	{ IN_TEAM, "in-team" }, { PROOF, "proof" }, { PROOF_OF_FACTOR, "proof-of-factor" },
	{ BEFORE_CHANGE, "before-change" }, { BEFORE_MFA, "before-mfa" },
	{ ANY_INPUT, "any-input" }, { OF_PLATFORM, "of-platform" }, { SOCKET, "websocket" } };

static const char *
key_word(enum perm p)
{
	return p == ANYONE                     ? "no-credential"
	    : perm_kinds[p].scope == KEY_DATA  ? "key-data"
	    : perm_kinds[p].scope == KEY_SCOPE ? "key"
					       : "no-key";
}

/* method, path, pool, permission, flags, may an API key, summary */
static void
routes(const struct route *const *tables, struct buf *b)
{
	const struct route *rt;
	size_t i;

	for (; *tables; tables++)
		for (rt = *tables; rt->path; rt++) {
			buf_fmt(b, "%s\t%s\t%s\t", rt->method, rt->path, pool_name[rt->pool]);
			permission_name(rt->may, b);
			buf_chr(b, '\t');
			for (i = 0; i < nitems(flag_words); i++)
				if (rt->flags & flag_words[i].flag)
					buf_fmt(b, "%s ", flag_words[i].word);
			buf_fmt(b, "\t%s\t%s\n", key_word(rt->may), rt->doc);
		}
}

/* --- OpenAPI ------------------------------------------------------------------------------- */

/* A {name} of the path that the input table does not have. */
static void
bare_parameters(const struct route *rt, struct buf *b, bool first)
{
	const struct field *f;
	const char *p, *end;

	for (p = strchr(rt->path, '{'); p; p = strchr(end, '{')) {
		end = strchr(p, '}');
		for (f = rt->in; f && f->name; f++)
			if (f->flags & IN_PATH && strncmp(f->name, p + 1, end - p - 1) == 0)
				break;
		if (f && f->name)
			continue;
		buf_fmt(b,
		    "%s{\"name\":\"%.*s\",\"in\":\"path\",\"required\":true,"
		    "\"schema\":{\"type\":\"string\"}}",
		    first ? "" : ",", (int)(end - p - 1), p + 1);
		first = false;
	}
}

static void
parameters(const struct route *rt, struct buf *b)
{
	const struct field *f;
	bool first = true;

	buf_str(b, ",\"parameters\":[");
	for (f = rt->in; f && f->name; f++) {
		if (!(f->flags & (IN_PATH | IN_QUERY)))
			continue;
		buf_fmt(b, "%s{\"name\":\"%s\",\"in\":\"%s\",\"required\":%s,\"schema\":",
		    first ? "" : ",", f->name, f->flags & IN_PATH ? "path" : "query",
		    f->flags & IN_PATH ? "true" : "false");
		field_schema(f, b);
		buf_chr(b, '}');
		first = false;
	}
	if (rt->flags & CREATES)
		buf_fmt(b,
		    "%s{\"name\":\"Idempotency-Key\",\"in\":\"header\",\"required\":false,"
		    "\"schema\":{\"type\":\"string\",\"minLength\":1,\"maxLength\":255}}",
		    first ? "" : ",");
	bare_parameters(rt, b, first && !(rt->flags & CREATES));
	buf_chr(b, ']');
}

static bool
has_body(const struct route *rt)
{
	const struct field *f;

	if (rt->flags & NO_BODY || strcmp(rt->method, "GET") == 0)
		return false;
	for (f = rt->in; f && f->name; f++)
		if (!(f->flags & (IN_PATH | IN_QUERY)))
			return true;
	return false;
}

static void
success(const struct route *rt, int status, struct buf *b)
{
	buf_fmt(b, "\"%d\":{\"description\":\"%s\"", status, status == 204 ? "Done" : "Success");
	if (rt->flags & STREAMS && !rt->out && status != 204)
		buf_str(b,
		    ",\"content\":{\"application/"
		    "octet-stream\":{\"schema\":{\"type\":\"string\",\"format\":\"binary\"}}}");
	else if (rt->out && status != 204) {
		buf_str(b, ",\"content\":{\"application/json\":{\"schema\":");
		if (rt->flags & LISTS)
			buf_str(b, "{\"type\":\"array\",\"items\":");
		if (rt->out->name && !*rt->out->name) /* the answer is this one value */
			field_schema(rt->out, b);
		else
			fields_schema(rt->out, b);
		buf_str(b, rt->flags & LISTS ? "}}}" : "}}");
	}
	buf_chr(b, '}');
}

static void
operation(const struct route *rt, struct buf *b)
{
	const char *m;

	buf_chr(b, '"');
	for (m = rt->method; *m; m++)
		buf_chr(b, tolower((unsigned char)*m));
	buf_str(b, "\":{\"summary\":");
	buf_json(b, rt->doc);
	buf_str(b, ",\"x-permission\":\"");
	permission_name(rt->may, b);
	buf_fmt(b, "\",\"x-pool\":\"%s\"", pool_name[rt->pool]);
	if (rt->may == ANYONE)
		buf_str(b, ",\"security\":[]");
	parameters(rt, b);
	if (has_body(rt)) {
		buf_fmt(b, ",\"requestBody\":{\"required\":%s,\"content\":{\"%s\":{\"schema\":",
		    rt->flags & MAY_BE_EMPTY ? "false" : "true",
		    rt->flags & STREAMS && !rt->insize ? "multipart/form-data"
						       : "application/json");
		fields_schema(rt->in, b);
		buf_str(b, "}}}");
	}
	buf_str(b, ",\"responses\":{");
	success(rt, rt->status ? rt->status : 200, b);
	if (rt->also) {
		buf_chr(b, ',');
		success(rt, rt->also, b);
	}
	buf_str(b, ",\"default\":{\"$ref\":\"#/components/responses/Error\"}}}");
}

/* True when an earlier row has the same path: it was printed there. */
static bool
printed(const struct route *const *tables, const struct route *upto)
{
	const struct route *rt;

	for (; *tables; tables++)
		for (rt = *tables; rt->path; rt++) {
			if (rt == upto)
				return false;
			if (strcmp(rt->path, upto->path) == 0)
				return true;
		}
	return false;
}

static void
paths(const struct route *const *tables, struct buf *b)
{
	const struct route *const *t, *const *u;
	const struct route *rt, *same;
	bool first = true, first_op;

	for (t = tables; *t; t++)
		for (rt = *t; rt->path; rt++) {
			if (printed(tables, rt))
				continue;
			buf_fmt(b, "%s\"%s\":{", first ? "" : ",\n", rt->path);
			first = false;
			first_op = true;
			for (u = tables; *u; u++)
				for (same = *u; same->path; same++)
					if (strcmp(same->path, rt->path) == 0) {
						buf_str(b, first_op ? "" : ",\n ");
						operation(same, b);
						first_op = false;
					}
			buf_chr(b, '}');
		}
	buf_chr(b, '\n');
}

/* --- web servers --------------------------------------------------------------------------- */

/* /v1/capsules/{id}/exec -> v1/capsules/[^/]+/exec, with dots escaped. */
static void
pattern(const char *path, struct buf *b)
{
	const char *p;

	for (p = path + 1; *p; p++)
		if (*p == '{') {
			p = strchr(p, '}');
			buf_str(b, "[^/]+");
		} else if (*p == '.')
			buf_str(b, "\\.");
		else
			buf_chr(b, *p);
}

/* All paths of one pool and method (NULL: any method): a|b|c; false when there is none. */
static bool
alternatives(const struct route *const *tables, enum pool pool, const char *method, struct buf *b)
{
	const struct route *const *t;
	const struct route *rt;
	bool any = false;

	for (t = tables; *t; t++)
		for (rt = *t; rt->path; rt++)
			if (rt->pool == pool &&
			    (method ? strcmp(rt->method, method) == 0 : !printed(tables, rt))) {
				buf_str(b, any ? "|" : "");
				pattern(rt->path, b);
				any = true;
			}
	return any;
}

static const char *const methods[] = { "GET", "POST", "PUT", "PATCH", "DELETE" };

/* The gateway's paths are its own whatever the method: it knows what to allow, the api pool does
 * not. */
static void
lighttpd_gateway(const struct route *const *tables, struct buf *b)
{
	auto_talloc char *mem = talloc_new(NULL);
	struct buf list = BUF(mem);

	if (alternatives(tables, POOL_GATEWAY, NULL, &list))
		buf_fmt(b,
		    "$HTTP[\"url\"] =~ \"^/(%s)$\" {\n\tinclude var.pools + "
		    "\"/gateway.conf\"\n}\n",
		    list.data);
}

static void
lighttpd(const struct route *const *tables, enum pool pool, struct buf *b)
{
	auto_talloc char *mem = talloc_new(NULL);
	size_t i;

	if (pool == POOL_GATEWAY) {
		lighttpd_gateway(tables, b);
		return;
	}
	for (i = 0; i < nitems(methods); i++) {
		struct buf list = BUF(mem);

		if (alternatives(tables, pool, methods[i], &list))
			buf_fmt(b,
			    "$HTTP[\"request-method\"] == \"%s\" {\n\t$HTTP[\"url\"] =~ "
			    "\"^/(%s)$\" {\n"
			    "\t\tinclude var.pools + \"/%s.conf\"\n\t}\n}\n",
			    methods[i], list.data, pool_name[pool]);
	}
}

static void
apache_gateway(const struct route *const *tables, struct buf *b)
{
	auto_talloc char *mem = talloc_new(NULL);
	struct buf list = BUF(mem);

	/* the path from the request line: %2F stays what it is */
	if (alternatives(tables, POOL_GATEWAY, NULL, &list))
		buf_fmt(b,
		    "RewriteCond %%{THE_REQUEST} \"^\\S+ ([^? ]+)\"\n"
		    "RewriteRule \"^/(%s)$\" \"${HUTCH_GATEWAY}%%1\" [P,NE]\n",
		    list.data);
}

static void
apache(const struct route *const *tables, enum pool pool, struct buf *b)
{
	auto_talloc char *mem = talloc_new(NULL);
	size_t i;

	if (pool == POOL_GATEWAY) {
		apache_gateway(tables, b);
		return;
	}
	for (i = 0; i < nitems(methods); i++) {
		struct buf list = BUF(mem);

		if (alternatives(tables, pool, methods[i], &list))
			buf_fmt(b,
			    "RewriteCond %%{REQUEST_METHOD} =%s\nRewriteRule \"^/(%s)$\" "
			    "\"${HUTCH_OPS}$0\" [P]\n",
			    methods[i], list.data);
	}
}

/* v1|sandboxes|…: the first segments of the api pool's paths, which answers below them what no row
 * has. */
static void
roots(const struct route *const *tables, struct buf *b)
{
	const struct route *rt;
	const char *at, *end;
	size_t n;

	buf_chr(b, '|');
	for (; *tables; tables++)
		for (rt = *tables; rt->path; rt++) {
			n = strcspn(rt->path + 1, "/");
			for (at = b->data; rt->pool == POOL_API && at; at = end) {
				end = strchr(at + 1, '|');
				if (!end) {
					buf_fmt(b, "%.*s|", (int)n, rt->path + 1);
					break;
				}
				if ((size_t)(end - at - 1) == n &&
				    memcmp(at + 1, rt->path + 1, n) == 0)
					break;
			}
		}
	b->data[b->len - 1] = '\0';
	memmove(b->data, b->data + 1, b->len - 1);
	b->len -= 2;
}

bool
route_print(const struct route *const *tables, const char *topic)
{
	auto_talloc char *mem = talloc_new(NULL);
	struct buf b = BUF(mem);
	enum pool pool;

	buf_need(&b, 1);
	if (strcmp(topic, "routes") == 0)
		routes(tables, &b);
	else if (strcmp(topic, "paths") == 0)
		paths(tables, &b);
	else if (strcmp(topic, "roots") == 0)
		roots(tables, &b);
	else if (strcmp(topic, "lighttpd") == 0 || strcmp(topic, "apache") == 0)
		for (pool = POOL_OPS; pool <= POOL_GATEWAY; pool++)
			(*topic == 'l' ? lighttpd : apache)(tables, pool, &b);
	else
		return false;
	fwrite(b.data, 1, b.len, stdout);
	return true;
}
