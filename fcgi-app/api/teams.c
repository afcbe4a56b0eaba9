/*
 * teams.c - teams: what users share capsules, keys and a quota with.
 *
 * Queries: sql/queries/teams.sql.  Tests: tests/http/me.t.
 */
#include "team_shape.h"

static handler team_list;

/* clang-format off */
const struct route team_routes[] = {
	{ "GET", "/v1/teams", POOL_API, SIGNED_IN, team_list, "The teams that you belong to", LISTS, 200, OUT(team) },
	{ 0 },
};
/* clang-format on */

static int
team_list(struct request *r)
{
	struct q_team *teams;
	int n = q_team_list(r->work.db, &teams, .user = r->who.user);

	return reply_rows(r, n, teams, sizeof *teams);
}
