/*
 * ctl_accounts.c - hutchctl user disable|enable|reset-mfa and admin promote|demote: as the routes
 * of administration do it, with the same guards, by the operator of the machine.
 */
#include "ctl.h"
#include "db.h"
#include "deletion.h"
#include "field.h"
#include "users.q.h"

#include <ctype.h>
#include <string.h>
#include <talloc.h>

/* The account of --email, and what acts on it. */
struct target {
	struct deletion d;
	const struct uuid *user;
	const char *email;
};

static int
open_target(struct ctl *c, struct target *t)
{
	const char *given = ctl_needed(c, "email"), *reason = ctl_option(c, "reason");
	struct q_user *u;
	char *p;
	int n;

	if (!given || ctl_done(c) < 0)
		return -1;
	p = talloc_strdup(c, given);
	t->email = p;
	for (; *p; p++)
		*p = tolower((unsigned char)*p);
	t->d = (struct deletion){ .conf = c->conf, .via = "hutchctl", .reason = reason };
	t->d.keys = keys_load(c, c->conf, &c->work.err);
	if (!t->d.keys || ctl_db(c) < 0)
		return -1;
	n = q_user_by_email(c->work.db, &u, .email = t->email);
	if (n <= 0)
		return n < 0 ? -1 : err_set(&c->work.err, E_NOT_FOUND, "no account %s", t->email);
	t->user = u->id;
	db_begin(c->work.db);
	return 0;
}

static int
end(struct ctl *c, const struct target *t, int n, const char *word)
{
	if (n < 0 || db_commit(c->work.db) < 0)
		return -1;
	printf("%s is %s%s\n", t->email, n ? "" : "already ", word);
	return 0;
}

int
ctl_user_disable(struct ctl *c)
{
	struct target t;

	if (open_target(c, &t) < 0)
		return -1;
	return end(c, &t, user_disable(&c->work, &t.d, t.user, NULL), "disabled");
}

int
ctl_user_enable(struct ctl *c)
{
	struct target t;

	if (open_target(c, &t) < 0)
		return -1;
	return end(c, &t, user_enable(&c->work, &t.d, t.user), "active");
}

int
ctl_user_reset_mfa(struct ctl *c)
{
	struct target t;

	if (open_target(c, &t) < 0)
		return -1;
	return end(c, &t, user_reset_mfa(&c->work, &t.d, t.user), "without second factors");
}

int
ctl_admin_promote(struct ctl *c)
{
	struct target t;

	if (open_target(c, &t) < 0)
		return -1;
	return end(
	    c, &t, user_set_role(&c->work, &t.d, t.user, "admin"), "a platform administrator");
}

int
ctl_admin_demote(struct ctl *c)
{
	struct target t;

	if (open_target(c, &t) < 0)
		return -1;
	return end(
	    c, &t, user_set_role(&c->work, &t.d, t.user, "user"), "no platform administrator");
}
