/* member_shape.h - a member of a team, as answers show him (spec 01 §2.0 member). */
#pragma once
#include "api.h"
#include "teams.q.h"

static const struct field member_fields[] = {
	FIELD(q_member, user_id, "user_id", .flags = NEEDED, .prefix = "usr-"),
	FIELD(q_member, name, "name", .flags = NEEDED),
	FIELD(q_member, email, "email", .flags = NEEDED),
	FIELD(
	    q_member, role, "role", .flags = NEEDED, .one_of = "owner|admin|member|viewer|auditor"),
	FIELD(q_member, joined_at, "joined_at", .flags = NEEDED, .format = "date-time"),
	FIELD(q_member, status, "status", .flags = NEEDED),
	FIELD(q_member, mfa, "mfa", .flags = NEEDED),
	FIELD(q_member, last_seen_at, "last_seen_at", .format = "date-time"),
	FIELD(q_member, source, "source", .flags = NEEDED),
	{ 0 },
};
