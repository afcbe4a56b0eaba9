/* e2b_teams.c - one's teams, and what they ran, through the E2B protocol (spec 06 §6). */
#include "cleanup.h"
#include "cli_key.h"
#include "e2b.h"
#include "teams.q.h"

#include <time.h>

static handler team_list, team_series, team_most;

enum { POINTS = 500, SLOT = 10, HOUR = 3600, MONTHS = 60 * 86400 };

struct team {
	const char *id, *name, *key;
	bool is_default;
};
static const struct field team_fields[] = {
	FIELD(team, id, "teamID", .flags = NEEDED, .format = "uuid"),
	FIELD(team, name, "name", .flags = NEEDED),
	FIELD(team, key, "apiKey", .flags = NEEDED),
	FIELD(team, is_default, "isDefault", .flags = NEEDED),
	{ 0 },
};
struct team_metrics_in {
	const char *id, *metric;
	int64_t start, end;
};
#define SPAN                                                                                     \
	FIELD(team_metrics_in, id, "id", .flags = NEEDED | IN_PATH, .max = 64),                  \
	    FIELD(team_metrics_in, start, "start", .flags = IN_QUERY, .min = 0,                  \
		.max = 253402300799, .dflt = NULL_INT,                                           \
		.doc = "Unix seconds; absent: an hour ago."),                                    \
	    FIELD(team_metrics_in, end, "end", .flags = IN_QUERY, .min = 0, .max = 253402300799, \
		.dflt = NULL_INT)
static const struct field team_metrics_in_fields[] = { SPAN, { 0 } };
static const struct field team_most_in_fields[] = {
	SPAN,
	FIELD(team_metrics_in, metric, "metric", .flags = IN_QUERY, .text = "concurrent_sandboxes",
	    .one_of = "concurrent_sandboxes|sandbox_start_rate"),
	{ 0 },
};
struct team_point {
	int64_t timestamp, unix_seconds, running;
	double rate;
};
static const struct field team_point_fields[] = {
	FIELD(team_point, timestamp, "timestamp", .flags = NEEDED, .format = "date-time"),
	FIELD(team_point, unix_seconds, "timestampUnix", .flags = NEEDED),
	FIELD(team_point, running, "concurrentSandboxes", .flags = NEEDED),
	FIELD(team_point, rate, "sandboxStartRate", .flags = NEEDED, .doc = "A second."),
	{ 0 },
};
struct team_max {
	int64_t timestamp, unix_seconds;
	double value;
};
static const struct field team_max_fields[] = {
	FIELD(team_max, timestamp, "timestamp", .flags = NEEDED, .format = "date-time"),
	FIELD(team_max, unix_seconds, "timestampUnix", .flags = NEEDED),
	FIELD(team_max, value, "value", .flags = NEEDED),
	{ 0 },
};

/* clang-format off */
#define TEAM(table) .in = table##_fields, .insize = sizeof(struct team_metrics_in)
const struct route e2b_team_routes[] = {
	{ "GET", "/teams", POOL_API, SIGNED_IN, team_list, "E2B: one's teams", E2B | LISTS, 200, OUT(team) },
	{ "GET", "/teams/{id}/metrics", POOL_API, PERM_capsules_view, team_series, "E2B: how many sandboxes a team ran", E2B | LISTS, 200, TEAM(team_metrics_in), OUT(team_point) },
	{ "GET", "/teams/{id}/metrics/max", POOL_API, PERM_capsules_view, team_most, "E2B: the most of it", E2B, 200, TEAM(team_most_in), OUT(team_max) },
	{ 0 },
};
/* clang-format on */

static const char *
uuid_text(void *mem, const struct uuid *u)
{
	char text[37];

	return talloc_strdup(mem, uuid_write(text, u));
}

/* The keys of teams are told to logins of the CLI alone. */
static int
team_list(struct request *r)
{
	struct q_team *rows;
	struct team *all;
	int n = q_team_list(r->work.db, &rows, .user = r->who.user), i;

	if (n < 0)
		return -1;
	all = talloc_array(r, struct team, n + 1);
	for (i = 0; i < n; i++) {
		all[i] = (struct team){ .id = uuid_text(all, rows[i].id),
			.name = rows[i].name,
			.key = cli_key(r, rows[i].id),
			.is_default = rows[i].is_default };
		if (!all[i].key)
			return -1;
	}
	return reply_rows(r, n, all, sizeof *all);
}

/* The credential's team, and no other. Points of the same length, as many as fit. */
static int
series(struct request *r, const struct team_metrics_in *in, struct team_point **ret)
{
	int64_t now = time(NULL), to = in->end == NULL_INT ? now : in->end;
	int64_t from = in->start == NULL_INT ? to - HOUR : in->start, step;
	struct q_e2b_team_point *rows;
	struct uuid team;
	int n, i;

	if (!(uuid_read(in->id, &team) || id_read(in->id, "", &team)) || !r->who.team ||
	    !uuid_equal(&team, r->who.team))
		return fail(r, E_NOT_FOUND, "team not found");
	if (from < now - MONTHS)
		from = now - MONTHS;
	if (to < from)
		return fail(r, E_BAD_INPUT, "\"end\" is before \"start\"");
	step = ((to - from) / POINTS / SLOT + 1) * SLOT;
	n = q_e2b_team_points(
	    r->work.db, &rows, .team = &team, .from = from, .to = to, .step = step);
	if (n < 0)
		return -1;
	*ret = talloc_array(r, struct team_point, n + 1);
	for (i = 0; i < n; i++)
		(*ret)[i] = (struct team_point){ .timestamp = rows[i].at * 1000000,
			.unix_seconds = rows[i].at,
			.running = rows[i].running,
			.rate = (double)rows[i].starts / (double)step };
	return n;
}

static int
team_series(struct request *r)
{
	struct team_point *all;
	int n = series(r, r->in, &all);

	return reply_rows(r, n, all, sizeof *all);
}

static int
team_most(struct request *r)
{
	const struct team_metrics_in *in = r->in;
	bool rate = strcmp(in->metric, "sandbox_start_rate") == 0;
	struct team_max most = { .timestamp = (int64_t)time(NULL) * 1000000,
		.unix_seconds = time(NULL) };
	struct team_point *all;
	double value;
	int n = series(r, in, &all), i;

	for (i = 0; i < n; i++) {
		value = rate ? all[i].rate : (double)all[i].running;
		if (i == 0 || value > most.value)
			most = (struct team_max){ all[i].timestamp, all[i].unix_seconds, value };
	}
	return n < 0 ? -1 : reply_with(r, team_max_fields, &most);
}
