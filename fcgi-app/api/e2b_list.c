/* e2b_list.c - lists of capsules through the E2B protocol (spec 06 §5, §6). */
#include "cleanup.h"
#include "e2b.h"
#include "rfc3339.h"

#include <inttypes.h>

static handler list_v2, list_v1;

struct sandbox_filter {
	const char *metadata, *template, *order, *started_after, *cursor;
	const char *const *state;
	int32_t limit;
};
#define METADATA                                                                         \
	FIELD(sandbox_filter, metadata, "metadata", .flags = IN_QUERY,                   \
	    .doc = "key=value&…, form-encoded inside this one value; keys and values " \
		   "encoded twice.")
static const struct field sandbox_filter_fields[] = {
	METADATA,
	FIELD(sandbox_filter, state, "state", .flags = IN_QUERY, .max = 2,
	    .one_of = "running|paused", .doc = "Absent: both."),
	FIELD(sandbox_filter, started_after, "startedAfter", .flags = IN_QUERY,
	    .format = "date-time"),
	FIELD(sandbox_filter, template, "template", .flags = IN_QUERY, .max = 200,
	    .doc = "Name or id."),
	FIELD(sandbox_filter, order, "order", .flags = IN_QUERY, .text = "desc",
	    .one_of = "asc|desc", .doc = "By start."),
	FIELD(sandbox_filter, limit, "limit", .flags = IN_QUERY, .min = 1, .max = 100, .dflt = 100),
	FIELD(sandbox_filter, cursor, "nextToken", .flags = IN_QUERY,
	    .doc = "X-Next-Token of the page before."),
	{ 0 },
};
static const struct field running_filter_fields[] = { METADATA, { 0 } };

/* clang-format off */
const struct route e2b_list_routes[] = {
	{ "GET", "/v2/sandboxes", POOL_API, PERM_capsules_view, list_v2, "E2B: running and paused sandboxes", E2B | LISTS, 200, IN(sandbox_filter), OUT(listed_sandbox) },
	{ "GET", "/sandboxes", POOL_API, PERM_capsules_view, list_v1, "E2B: running sandboxes", E2B | LISTS, 200, .in = running_filter_fields, .insize = sizeof(struct sandbox_filter), OUT(listed_sandbox) },
	{ 0 },
};
/* clang-format on */

/* One half of a pair of a form: decoded, and once more where that is possible. */
static const char *
half(struct request *r, const char *p, size_t n)
{
	const char *once = query_decode(r, p, n), *twice;

	if (!once || !strchr(once, '%'))
		return once;
	twice = query_decode(r, once, strlen(once));
	return twice ? twice : once;
}

/* The filter as JSON; *ret NULL: none. */
static int
metadata_json(struct request *r, const char *form, const char **ret)
{
	struct pair *list = talloc_zero_array(r, struct pair, 65);
	const char *p, *end, *eq;
	size_t n = 0;

	*ret = NULL;
	for (p = form; p && *p; p = *end ? end + 1 : end) {
		end = strchrnul(p, '&');
		eq = memchr(p, '=', end - p);
		if (end == p)
			continue;
		if (!eq || n == 64)
			return fail(r, E_BAD_INPUT, "\"metadata\" is not key=value&…");
		list[n].name = half(r, p, eq - p);
		list[n].value = half(r, eq + 1, end - eq - 1);
		if (!list[n].name || !list[n].value)
			return fail(r, E_BAD_INPUT, "\"metadata\" is badly escaped");
		n++;
	}
	if (n)
		*ret = pairs_json(r, list);
	return 0;
}

static bool
wants(const struct sandbox_filter *in, const char *state)
{
	const char *const *p;

	if (!in->state || !*in->state)
		return true;
	for (p = in->state; *p; p++)
		if (strcmp(*p, state) == 0)
			return true;
	return false;
}

/* 25 characters are an id; the rest is a name, without name space and tag. */
static const char *
bare(struct request *r, const char *text)
{
	const char *slash = strrchr(text, '/');

	text = slash ? slash + 1 : text;
	return talloc_strndup(r, text, strcspn(text, ":"));
}

static int
rows(struct request *r, const struct sandbox_filter *in, const struct page *p,
    struct q_sandbox **ret)
{
	struct uuid *template = talloc(r, struct uuid);
	const char *metadata, *name = in->template && *in->template ? bare(r, in->template) : NULL;
	bool is_id = name && id_read(name, "", template);
	int64_t after = NULL_INT;

	if (metadata_json(r, in->metadata, &metadata) < 0)
		return -1;
	if (in->started_after)
		(void)time_read(in->started_after, &after);
	if (strcmp(in->order, "asc") == 0)
		return q_e2b_list_up(r->work.db, ret, .running = wants(in, "running"),
		    .paused = wants(in, "paused"), .metadata = metadata, .started_after = after,
		    .template = name, .template_id = is_id ? template : NULL, .after = p->before,
		    .after_id = p->before_id, .limit = p->limit + 1);
	return q_e2b_list(r->work.db, ret, .running = wants(in, "running"),
	    .paused = wants(in, "paused"), .metadata = metadata, .started_after = after,
	    .template = name, .template_id = is_id ? template : NULL, .before = p->before,
	    .before_id = p->before_id, .limit = p->limit + 1);
}

static int
list(struct request *r, const struct sandbox_filter *in)
{
	struct q_sandbox_count *count;
	struct listed_sandbox *all;
	struct q_sandbox *found;
	struct page p;
	int n, i;

	if (page_read(r, in->limit, in->cursor, &p) < 0)
		return -1;
	n = rows(r, in, &p, &found);
	if (n < 0 || q_e2b_running(r->work.db, &count) < 0)
		return -1;
	all = talloc_array(r, struct listed_sandbox, n + 1);
	for (i = 0; i < n; i++)
		listed_sandbox(&found[i], &all[i]);
	reply_header(r, "X-Total-Running", "%" PRId64, count->n);
	return e2b_page_reply(r, n, all, sizeof *all, &p,
	    offsetof(struct listed_sandbox, created_at), offsetof(struct listed_sandbox, id));
}

static int
list_v2(struct request *r)
{
	return list(r, r->in);
}

static int
list_v1(struct request *r)
{
	static const char *const only[] = { "running", NULL };
	struct sandbox_filter in = *(const struct sandbox_filter *)r->in;

	in.state = only;
	in.order = "desc";
	in.limit = 1000;
	return list(r, &in);
}
