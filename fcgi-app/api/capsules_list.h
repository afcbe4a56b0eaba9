/* capsules_list.h - lists of capsules: of the team (capsules.c), of any (capsules_admin.c). */
#pragma once
#include "capsules.h"

/* What a list leaves out; of all teams or one, team is for those who may ask for any. */
struct capsule_filter {
	const char *state, *template, *name, *owner, *cursor, *created_after, *created_before;
	const char *const *tag, *const *tag_any;
	const struct uuid *team;
	int32_t limit;
};
/* clang-format off */
#define CAPSULE_FILTER_FIELDS										\
	FIELD(capsule_filter, state, "state", .flags = IN_QUERY,					\
	    .one_of = "pending|starting|running|pausing|paused|resuming|hibernating|hibernated|stopping|stopped|missing|error", \
	    .doc = "Absent: all but stopped."),							\
	FIELD(capsule_filter, template, "template", .flags = IN_QUERY),				\
	FIELD(capsule_filter, tag, "tag", .flags = IN_QUERY, .format = "tag", .max = 32,		\
	    .doc = "May be repeated: all of them."),							\
	FIELD(capsule_filter, tag_any, "tag_any", .flags = IN_QUERY, .format = "tag", .max = 32,	\
	    .doc = "May be repeated: at least one of them."),						\
	FIELD(capsule_filter, created_after, "created_after", .flags = IN_QUERY, .format = "date-time"), \
	FIELD(capsule_filter, created_before, "created_before", .flags = IN_QUERY, .format = "date-time"), \
	FIELD(capsule_filter, name, "name", .flags = IN_QUERY, .max = 64, .doc = "Prefix."),		\
	FIELD(capsule_filter, owner, "owner", .flags = IN_QUERY, .doc = "usr-…, or me."),		\
	PAGE_FIELDS(capsule_filter)
/* clang-format on */
/* The query for it, which asks for one row more than the page has. */
int capsule_list_query(
    struct request *, const struct capsule_filter *, struct page *, struct q_capsule_list *);
/* The answer with these rows. */
int capsule_list_reply(struct request *, const struct page *, const struct q_capsule *, int n);
