/*
 * deletion.h - the ends of accounts and teams, and their returns: the one transaction of each (spec
 * 01 §1.1, §1.4, §6). What takes longer is a job that the transaction adds: user.disable,
 * team.purge, user.purge (workers/jobs/).
 *
 * All run inside the caller's transaction, take their locks in the order of spec 01 §1.4 and write
 * audit rows, events and mails themselves: call them last. Those of users need role hutch_work (a
 * route with ACROSS) or the schema's owner; team_delete() also works under the team's own tenant.
 * Return 1: done; 0: it was so already, nothing was written; -1: the unit's err says why.
 */
#pragma once
#include "conf.h"
#include "crypto.h"
#include "work.h"
#include <stdbool.h>

struct deletion {
	const struct conf *conf;  /* days of grace */
	const struct keys *keys;  /* for the mails */
	const struct uuid *admin; /* platform admin who acts: read again under the lock. NULL: the
	                             person himself, an owner, or hutchctl */
	const char *via;          /* "hutchctl": for the audit row; NULL: a request */
	const char *reason;       /* as the admin gave it, or NULL */
	bool delete_teams; /* with the account also live teams that have other members, but no
	                      other active owner; otherwise they are E_OWNS_TEAM */
	bool purge_now;    /* no days of grace */
};

/*
 * Keys and invitations gone, every capsule shall stop, deleted_at, job team.purge (its id in *job,
 * which may be NULL), mail to the members. E_NOT_FOUND: unknown or deleted; E_PLATFORM_TEAM.
 */
int team_delete(struct work *, const struct deletion *, const struct uuid *team, struct uuid *job);

/* active, inactive -> disabled. E_LAST_ADMIN, E_NOT_FOUND, E_BAD_INPUT (an admin himself). */
int user_disable(struct work *, const struct deletion *, const struct uuid *user, struct uuid *job);
/* disabled, inactive -> active: always works. E_NOT_FOUND. */
int user_enable(struct work *, const struct deletion *, const struct uuid *user);
/*
 * -> deleted, with the teams that have nobody else; job user.purge after the days of grace. With
 * purge_now also of an account that is in its days of grace. E_LAST_ADMIN; E_OWNS_TEAM, with the
 * teams in work.err_more.
 */
int user_delete(struct work *, const struct deletion *, const struct uuid *user, struct uuid *job);
/* deleted -> as it was before. E_BAD_STATE: it is not deleted, or its purge has begun. */
int user_restore(struct work *, const struct deletion *, const struct uuid *user);
/* Removes all second factors and ends the logins; he is told by mail. */
int user_reset_mfa(struct work *, const struct deletion *, const struct uuid *user);
/* Gives a platform role: user, operator, admin. E_LAST_ADMIN. */
int
user_set_role(struct work *, const struct deletion *, const struct uuid *user, const char *role);
