/* audit_read.h - what the files of the audit routes share. */
#pragma once
#include "api.h"
#include "audit.q.h"

/* What a reader asks for, and whose log it is. */
struct audit_filter {
	const char *before;
	const struct uuid *before_id;
	int32_t limit;
	const char *cursor;
	const char *const *resource_type, *const *action;
	const char *actor_id, *actor_type, *resource_id, *status, *scope, *ip, *request_id, *from,
	    *to;
	const char *format;       /* export */
	const char *team;         /* platform routes: team-…, or all */
	const struct uuid *user;  /* platform routes: actor or subject */
	int64_t from_seq, to_seq; /* verify */
};
/* The log that is read: of one team, or of all. */
struct audit_view {
	const struct audit_filter *f;
	const struct uuid *team;   /* NULL: all */
	bool both;                 /* scopes team and admin */
	const struct uuid *person; /* only rows with him as actor or subject; NULL: all */
	int64_t from, to;          /* NULL_INT: any */
};
int audit_view(struct request *, struct audit_view *ret);
/* Rows below a place in the log, newest first; before NULL_INT: from the newest. */
int audit_rows(struct request *, const struct audit_view *, int64_t before,
    const struct uuid *before_id, int32_t limit, struct q_audit_entry **ret);

extern const struct field entry_fields[];
/* audit_out.c */
extern handler audit_export, audit_verify;
struct verified {
	bool ok, checkpoints_ok;
	int64_t checked, first_bad;
	const char *reason;
	struct verified_head *head;
	struct list public_keys;
};
extern const struct field verified_fields[];
