/* keys.h - what keys.c and key_change.c share. */
#pragma once
#include "api.h"
#include "audit.h"
#include "keys.q.h"

struct by_key {
	const struct uuid *id;
};
extern const struct field by_key_fields[], key_fields[], key_made_fields[];

#define KEY_COMMON(st)                                                                           \
	FIELD(st, id, "id", .flags = NEEDED, .prefix = "key-"),                                  \
	    FIELD(st, team_id, "team_id", .flags = NEEDED, .prefix = "team-"),                   \
	    FIELD(st, name, "name", .flags = NEEDED),                                            \
	    FIELD(st, key_prefix, "key_prefix", .flags = NEEDED),                                \
	    FIELD(st, created_by, "created_by", .flags = NEEDED, .prefix = "usr-"),              \
	    FIELD(st, creator_email, "creator_email", .flags = OMIT),                            \
	    FIELD(st, created_at, "created_at", .flags = NEEDED, .format = "date-time"),         \
	    FIELD(st, last_used_at, "last_used", .flags = OMIT, .format = "date-time"),          \
	    FIELD(st, kind, "kind", .flags = NEEDED),                                            \
	    FIELD(st, description, "description", .flags = NEEDED),                              \
	    FIELD(st, scopes, "scopes", .flags = NEEDED),                                        \
	    FIELD(st, expires_at, "expires_at", .format = "date-time"),                          \
	    FIELD(st, revoked_at, "revoked_at", .format = "date-time"),                          \
	    FIELD(st, state, "state", .flags = NEEDED, .one_of = "active|expired|revoked"),      \
	    FIELD(st, rate_limit, "rate_limit", .doc = "Requests an hour; null: as everybody."), \
	    FIELD(st, allowed_ips, "allowed_ips", .flags = NEEDED),                              \
	    FIELD(st, rotated_to, "rotated_to", .prefix = "key-")

struct key_made {
	struct q_key row;
	const char *key;
};

bool key_sees_all(const struct request *);
/* The key of the path: 0, or -1 and 404 when it is none of the caller's. */
int key_find(struct request *, struct q_key **row);
/* Scopes that exist and that the caller's role holds; room for one more. */
int key_check_scopes(struct request *, const char *const *scopes);
int key_within_count(struct request *);
/* Inserts a key as k says, with new digits behind the word. */
int key_make(struct request *, const struct q_key *k, const char *word, struct key_made *);
/* extra: members of the metadata object, each after a comma. */
int key_audit(struct request *, enum audit_kind, const struct q_key *, const char *extra);
const char *key_texts(struct request *, const char *name, const char *const *list);
