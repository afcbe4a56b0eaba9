/*
 * audit_check.h - does the audit log verify: every chain row by row, every checkpoint of the table
 * (spec 01 §5).
 */
#pragma once
#include "audit_mark.h"

struct audit_check {
	struct mark_keys keys; /* that are believed */
	/* A finding; -1: stop with work.err set. */
	int (*found)(struct audit_check *, const struct uuid *team, int64_t seq, const char *why);
	bool (*stop)(struct audit_check *); /* asked between pieces; NULL: never */
	void *arg;
	int64_t rows, marks, teams; /* so far */
	int bad;
};

/*
 * All teams, piece by piece, each piece a statement of its own: the log may grow meanwhile. 0, also
 * with findings or when it was stopped; -1: error.
 */
int audit_check_all(struct work *, struct audit_check *);
/* One checkpoint against the hash that its row has now. */
int
audit_check_mark(struct audit_check *, const struct audit_mark *, const uint8_t *present, size_t n);
