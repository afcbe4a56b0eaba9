/*
 * ctl_migrate.c - hutchctl migrate: roles, numbered migrations, seeds.
 *
 * One at a time (advisory lock), each file in a transaction of its own, its SHA-256 in the ledger:
 * a file that changed after it was applied is an error. The seeds (permissions, the default quota)
 * follow the program and its configuration at every run.
 */
#include "ctl.h"
#include "cleanup.h"
#include "db.h"
#include "migration.h"
#include "principal.h"
#include "teams.q.h"

#include <string.h>

static const char prepare[] =
    "DO $$ BEGIN"
    " IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'hutch_app') "
    "THEN CREATE ROLE hutch_app LOGIN; END IF;"
    " IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'hutch_work') "
    "THEN CREATE ROLE hutch_work LOGIN; END IF;"
    " IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'hutch_forget') "
    "THEN CREATE ROLE hutch_forget NOLOGIN; END IF;"
    " END $$;"
    "CREATE TABLE IF NOT EXISTS schema_migrations (number int PRIMARY "
    "KEY, name text NOT NULL, sha256 text NOT NULL,"
    " applied_at timestamptz NOT NULL DEFAULT now());"
    "GRANT SELECT ON schema_migrations TO hutch_app, hutch_work;";

static void
clear(PGresult **r)
{
	PQclear(*r);
}
#define auto_res __attribute__((cleanup(clear))) PGresult

/* Migrations are the one place where SQL is text: this connection is not the pipelined one. */
static int
plain(struct ctl *c, PGconn *pg, const char *what, const char *sql)
{
	auto_res *res = PQexec(pg, sql);
	ExecStatusType s = PQresultStatus(res);

	if (s == PGRES_COMMAND_OK || s == PGRES_TUPLES_OK)
		return 0;
	return err_set(&c->work.err, E_MIGRATE, "%s: %s", what, PQresultErrorMessage(res));
}

static void
digest(const struct migration *m, char out[2 * HASH_SIZE + 1])
{
	uint8_t h[HASH_SIZE];

	crypto_sha256(m->text, strlen(m->text), h);
	hex_write(out, h, sizeof h);
}

/* 1: applied before, 0: not yet, -1: applied, but the file was another. */
static int
applied(struct ctl *c, PGconn *pg, const struct migration *m)
{
	char number[16], sum[2 * HASH_SIZE + 1];
	const char *const values[] = { number };
	auto_res *res = NULL;

	snprintf(number, sizeof number, "%d", m->number);
	res = PQexecParams(pg, "SELECT sha256 FROM schema_migrations WHERE number = $1::int", 1,
	    NULL, values, NULL, NULL, 0);
	if (PQresultStatus(res) != PGRES_TUPLES_OK)
		return err_set(&c->work.err, E_MIGRATE, "%s", PQresultErrorMessage(res));
	if (!PQntuples(res))
		return 0;
	digest(m, sum);
	if (strcmp(PQgetvalue(res, 0, 0), sum) != 0)
		return err_set(&c->work.err, E_MIGRATE,
		    "%s was changed after it was applied; a new change is a new file", m->name);
	return 1;
}

static int
apply(struct ctl *c, PGconn *pg, const struct migration *m)
{
	char number[16], sum[2 * HASH_SIZE + 1];
	const char *const values[] = { number, m->name, sum };
	auto_res *res = NULL;

	if (plain(c, pg, m->name, "BEGIN") < 0 || plain(c, pg, m->name, m->text) < 0)
		return -1;
	snprintf(number, sizeof number, "%d", m->number);
	digest(m, sum);
	res = PQexecParams(pg,
	    "INSERT INTO schema_migrations (number, name, sha256) VALUES ($1::int, $2, $3)", 3,
	    NULL, values, NULL, NULL, 0);
	if (PQresultStatus(res) != PGRES_COMMAND_OK)
		return err_set(
		    &c->work.err, E_MIGRATE, "%s: %s", m->name, PQresultErrorMessage(res));
	return plain(c, pg, m->name, "COMMIT");
}

static int
seed_permissions(struct ctl *c, PGconn *pg)
{
	static const char *const role[] = { "owner", "admin", "member", "viewer", "auditor" };
	struct buf b = BUF(c), name = BUF(c);
	enum perm p;
	size_t i;
	bool own, any;

	buf_str(&b, "INSERT INTO permissions (name, description, roles) VALUES ");
	for (p = HOST_TOKEN + 1; p < PERM__MAX; p++) {
		const char *s;

		buf_clear(&name);
		for (s = perm_kinds[p].name; *s; s++)
			buf_chr(&name, *s == '_' ? '.' : *s);
		buf_fmt(&b, "%s('%s', ", p > HOST_TOKEN + 1 ? "," : "", name.data);
		buf_chr(&b, '\'');
		for (s = perm_kinds[p].doc; *s; s++) {
			if (*s == '\'')
				buf_chr(&b, '\'');
			buf_chr(&b, *s);
		}
		buf_str(&b, "', '{");
		for (any = false, i = 0; i < nitems(role); i++)
			if (role_holds(role[i], p, &own)) {
				buf_fmt(&b, "%s%s", any ? "," : "", role[i]);
				any = true;
			}
		buf_str(&b, "}')");
	}
	buf_str(&b,
	    " ON CONFLICT (name) DO UPDATE SET description = excluded.description, roles = "
	    "excluded.roles");
	return plain(c, pg, "permissions", b.data);
}

static int
seed_quota(struct ctl *c)
{
	const struct conf *f = c->conf;

	if (ctl_db(c) < 0)
		return -1;
	return q_quota_default(c->work.db, .capsules = f->quota_capsules, .vcpus = f->quota_vcpus,
		   .memory_mb = f->quota_memory_mb, .disk_mb = f->quota_disk_mb) < 0
	    ? -1
	    : 0;
}

static int
run(struct ctl *c, PGconn *pg, bool status)
{
	const struct migration *m;
	int n, made = 0;

	if (PQstatus(pg) != CONNECTION_OK)
		return err_set(&c->work.err, E_MIGRATE, "%s", PQerrorMessage(pg));
	if (plain(c, pg, "lock",
		"SET client_min_messages = warning; SELECT "
		"pg_advisory_lock(hashtextextended('hutch.migrate', 0))") < 0 ||
	    plain(c, pg, "roles", prepare) < 0)
		return -1;
	for (m = migrations; m->number; m++) {
		n = applied(c, pg, m);
		if (n < 0 || (n == 0 && !status && apply(c, pg, m) < 0))
			return -1;
		if (status)
			printf("%s\t%s\n", n ? "applied" : "missing", m->name);
		else if (n == 0 && ++made)
			printf("applied %s\n", m->name);
	}
	if (status)
		return 0;
	if (!made)
		puts("the database is up to date");
	if (seed_permissions(c, pg) < 0 || seed_quota(c) < 0)
		return -1;
	return ctl_seed_idps(c);
}

int
ctl_migrate(struct ctl *c)
{
	bool status = ctl_option(c, "status");
	PGconn *pg;
	int rc;

	if (ctl_done(c) < 0)
		return -1;
	pg = PQconnectdb(c->conf->db_owner_url);
	rc = run(c, pg, status);
	PQfinish(pg);
	return rc;
}
