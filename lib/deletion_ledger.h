/*
 * deletion_ledger.h - the audit rows of one transaction in several teams, written at its end in
 * order of the teams' ids; and which teams go with an account.
 */
#pragma once
#include "audit.h"
#include "deletion.q.h"
#include "work.h"

struct ledger {
	struct work *w;
	struct ledger_row *rows;
	size_t n;
};
/* The texts must live as long as the unit. team: never NULL. */
void ledger_add(struct ledger *, enum audit_kind, const struct uuid *team, const char *resource_id,
    const struct uuid *subject, const char *metadata);
int ledger_write(struct ledger *);

/* Other members, and he is its only active owner. */
bool team_would_be_orphan(const struct q_his_team *);
bool team_goes_along(const struct q_his_team *, bool delete_teams);
