/* team_shape.h - a team with the caller's role in it, as answers show it (spec 01 §2.0
 * teamWithRole). */
#pragma once
#include "api.h"
#include "teams.q.h"

static const struct field team_fields[] = {
	FIELD(q_team, id, "id", .flags = NEEDED, .prefix = "team-"),
	FIELD(q_team, name, "name", .flags = NEEDED),
	FIELD(q_team, slug, "slug", .flags = NEEDED),
	FIELD(q_team, is_byoc, "is_byoc", .flags = NEEDED),
	FIELD(q_team, created_at, "created_at", .flags = NEEDED, .format = "date-time"),
	FIELD(q_team, kind, "kind", .flags = NEEDED),
	FIELD(q_team, parent_id, "parent_id", .prefix = "team-"),
	FIELD(q_team, require_mfa, "require_mfa", .flags = NEEDED),
	FIELD(q_team, frozen, "frozen", .flags = NEEDED),
	FIELD(q_team, member_count, "member_count", .flags = NEEDED),
	FIELD(q_team, role, "role", .flags = NEEDED, .one_of = "owner|admin|member|viewer|auditor"),
	FIELD(q_team, is_default, "is_default", .flags = NEEDED),
	FIELD(q_team, permissions, "permissions", .flags = NEEDED),
	{ 0 },
};
