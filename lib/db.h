/*
 * db.h - PostgreSQL: the named queries of sql/queries/, prepared, binary, pipelined.
 *
 * There is no function that takes an SQL string: a query is a const struct query that
 * tools/sqlgen.awk made. One connection serves one unit of work at a time. Results live as long as
 * the unit (db->mem); their texts and ids point into libpq's own buffers, nothing is copied.
 */
#pragma once
#include "err.h"
#include "id.h"
#include <libpq-fe.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum sqltype {
	T_END,
	T_UUID,
	T_TEXT,
	T_TIMESTAMPTZ,
	T_JSONB,
	T_BYTEA,
	T_TEXTS,
	T_INT4,
	T_INT8,
	T_FLOAT8,
	T_BOOL
};

#define NULL_INT  INT64_MIN /* NULL of int8 and timestamptz (microseconds since 1970) */
#define NULL_INT4 INT32_MIN /* NULL of int4 */

struct bytes {
	const uint8_t *p; /* NULL: SQL NULL */
	size_t n;
};

struct col {
	const char *name;
	enum sqltype type;
	size_t off;
	bool nullable;
};

struct query {
	const char *name, *where, *sql;
	const struct col *param, *row;
	size_t rowsize;
};

/* The row pointer must be of the query's own row type; anything else does not compile. */
#define Q_ROW(type, p) _Generic((p), type * * : (void **)(p))

struct db {
	void *mem;           /* of the unit of work in hand: results hang here */
	struct err *err;     /* of the unit of work in hand */
	char constraint[64]; /* the constraint that refused the last statement, or "" */
	struct db_state *s;
};

/* A connection on mem; made at first use, made anew after it broke. application: shown by
 * PostgreSQL. */
struct db *db_open(void *mem, const char *conninfo, const char *application, int64_t timeout_ms);
/* Begins a unit: results go to mem, errors to err. Reconnects when needed. -1: E_DB. */
int db_unit(struct db *, void *mem, struct err *);
/* Ends a unit: an open transaction is rolled back. */
void db_unit_end(struct db *);

/* All return -1 and set db->err on failure. A unique violation is E_CONFLICT, with db->constraint
 * set. */
int db_exec(struct db *, const struct query *, const void *);          /* rows affected */
int db_one(struct db *, const struct query *, const void *, void **);  /* 0 or 1 */
int db_many(struct db *, const struct query *, const void *, void **); /* how many */

/* BEGIN travels with the first statement. After an error only db_rollback() is left. */
void db_begin(struct db *);
int db_commit(struct db *);
void db_rollback(struct db *);
bool db_in_transaction(const struct db *);

/*
 * Pipelining: send several, then take the answers in the same order; one round trip. Outside a
 * transaction they share an implicit one. db_take() is db_many() for a sent query (:exec: rows
 * NULL).
 */
int db_send(struct db *, const struct query *, const void *);
int db_take(struct db *, const struct query *, void **rows);
void db_drop(struct db *); /* forgets the answers that were not taken */

/* The tenant of row-level security on this connection; the authentication functions set it too. */
void db_forget_team(struct db *);

PGconn *db_raw(struct db *); /* for hutchctl migrate and LISTEN only */
