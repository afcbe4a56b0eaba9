/* ctl.h - what every command of hutchctl gets. */
#pragma once
#include "conf.h"
#include "crypto.h"
#include "work.h"

struct ctl {
	struct work
	    work; /* first: a command is a unit of work; the database is opened by ctl_db() */
	const struct conf *conf;
	const char *file; /* it was read from */
	int argc;         /* options and arguments after the command's words */
	char **argv;
};

typedef int ctl_fn(struct ctl *); /* exit status; -1: the unit's err says why */

struct ctl_command {
	const char *words, *usage; /* "admin create", "--email E …" */
	ctl_fn *fn;
	const char *doc;
};

ctl_fn ctl_user_disable, ctl_user_enable, ctl_user_reset_mfa, ctl_admin_promote, ctl_admin_demote;
ctl_fn ctl_migrate, ctl_secrets, ctl_admin_create, ctl_admin_list, ctl_key_create, ctl_host_create,
    ctl_template_add, ctl_audit_checkpoint, ctl_audit_verify, ctl_hostcheck;

/* Makes the identity providers of hutch.conf's section oauth; part of migrate. */
int ctl_seed_idps(struct ctl *);

/* Connects as the owner of the schema. */
int ctl_db(struct ctl *);
/* --name VALUE; NULL when absent. Every option must be asked for by ctl_done() at the latest. */
const char *ctl_option(struct ctl *, const char *name);
/* The same, but its absence is an error: NULL and err. */
const char *ctl_needed(struct ctl *, const char *name);
int ctl_done(struct ctl *); /* an option that nobody asked for is an error */
