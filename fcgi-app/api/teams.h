/* teams.h - what the files of teams, members and invitations share. */
#pragma once
#include "api.h"
#include "team_shape.h"

struct by_team {
	const struct uuid *id;
};
extern const struct field by_team_fields[];

/* A JSON object of strings: name, value, …, NULL; a NULL value is left out. */
const char *words(void *mem, const char *name, ...) __attribute__((sentinel));

/*
 * The team of the path, locked, with the caller's role read again under the lock: 0, or -1. A
 * caller who has lost `may` since the request began is refused.
 */
int
team_locked(struct request *, const struct uuid *team, enum perm may, struct q_team_locked **ret);

/* Nobody else who asks for the same goes on before this transaction ends: for counting against a
 * limit. */
int one_at_a_time(struct request *, const char *what, const struct uuid *of);

/* Answers with the teamWithRole of the caller. */
int team_reply(struct request *, const struct uuid *team);

/* A mail about the caller's team or another: team, by, role and old_role become the template's
 * words. */
struct team_mail {
	const char *template, *team, *role, *old_role, *inviter, *expires;
	const struct uuid *token; /* row whose token is mailed */
};
int team_mail(struct request *, const struct uuid *to, const char *email, const char *name,
    const struct team_mail *);

/* The roles that a request may name. */
#define ROLES_GIVEN "admin|member|viewer|auditor"
