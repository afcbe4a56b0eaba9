/*
 * check_sql.c - every named query is accepted by the migrated schema, with the types it claims.
 *
 * usage: check_sql CONNINFO. One line per query; a query is prepared and described, never run.
 */
#include "cleanup.h"
#include "db.h"

#include <string.h>

#define Q(name) extern const struct query *const queries_##name[];
#include "tests/sql/queries.def"
#undef Q
static const struct query *const *const files[] = {
#define Q(name) queries_##name,
#include "tests/sql/queries.def"
#undef Q
};

static const struct {
	Oid oid;
	const char *name;
} types[] = {
	/* oids of pg_type.dat: they never change */
	[T_UUID] = { 2950, "uuid" },
	[T_TEXT] = { 25, "text" },
	[T_TIMESTAMPTZ] = { 1184, "timestamptz" },
	[T_JSONB] = { 3802, "jsonb" },
	[T_BYTEA] = { 17, "bytea" },
	[T_TEXTS] = { 1009, "text[]" },
	[T_INT4] = { 23, "int4" },
	[T_INT8] = { 20, "int8" },
	[T_FLOAT8] = { 701, "float8" },
	[T_BOOL] = { 16, "bool" },
};

static void
clear(PGresult **r)
{
	PQclear(*r);
}
#define auto_res __attribute__((cleanup(clear))) PGresult

static const char *
check_params(void *mem, const struct query *q, const PGresult *r)
{
	int i;

	for (i = 0; q->param[i].name; i++)
		if (i >= PQnparams(r) || PQparamtype(r, i) != types[q->param[i].type].oid)
			return talloc_asprintf(mem, "parameter %s is not %s", q->param[i].name,
			    types[q->param[i].type].name);
	return i == PQnparams(r)
	    ? NULL
	    : talloc_asprintf(mem, "%d parameters, described as %d", PQnparams(r), i);
}

static const char *
check_columns(void *mem, const struct query *q, const PGresult *r)
{
	int i;

	if (!q->row) /* :exec: what a SELECT … FOR UPDATE shows is only counted */
		return NULL;
	for (i = 0; q->row[i].name; i++) {
		if (i >= PQnfields(r))
			return talloc_asprintf(mem, "no column %s", q->row[i].name);
		if (strcmp(PQfname(r, i), q->row[i].name) != 0)
			return talloc_asprintf(mem, "column %d is %s, described as %s", i + 1,
			    PQfname(r, i), q->row[i].name);
		if (PQftype(r, i) != types[q->row[i].type].oid)
			return talloc_asprintf(mem, "column %s has type %u, described as %s",
			    q->row[i].name, PQftype(r, i), types[q->row[i].type].name);
	}
	return i == PQnfields(r)
	    ? NULL
	    : talloc_asprintf(mem, "%d columns, described as %d", PQnfields(r), i);
}

/* What is wrong with the query, or NULL. */
static const char *
check(void *mem, PGconn *pg, const struct query *q)
{
	auto_res *made = PQprepare(pg, q->name, q->sql, 0, NULL);
	auto_res *told = NULL;
	const char *bad;

	if (PQresultStatus(made) != PGRES_COMMAND_OK)
		return talloc_strdup(mem, PQresultErrorField(made, PG_DIAG_MESSAGE_PRIMARY));
	told = PQdescribePrepared(pg, q->name);
	if (PQresultStatus(told) != PGRES_COMMAND_OK)
		return talloc_strdup(mem, PQerrorMessage(pg));
	bad = check_params(mem, q, told);
	return bad ? bad : check_columns(mem, q, told);
}

int
main(int argc, char **argv)
{
	PGconn *pg = PQconnectdb(argc > 1 ? argv[1] : "");
	auto_talloc char *mem = talloc_new(NULL);
	const char *bad;
	int failed = 0;
	size_t i, j;

	if (PQstatus(pg) != CONNECTION_OK) {
		printf("not ok queries: %s", PQerrorMessage(pg));
		PQfinish(pg);
		return 1;
	}
	for (i = 0; i < nitems(files); i++)
		for (j = 0; files[i][j]; j++) {
			bad = check(mem, pg, files[i][j]);
			printf("%s query %s%s%s%s%s\n", bad ? "not ok" : "ok", files[i][j]->name,
			    bad ? ": " : "", bad ? files[i][j]->where : "", bad ? ": " : "",
			    bad ? bad : "");
			failed |= bad != NULL;
		}
	PQfinish(pg);
	return failed;
}
