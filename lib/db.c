/* db.c - prepared statements in, structs out; see db.h. */
#include "db.h"
#include "buf.h"
#include "cleanup.h"
#include "idle.h"

#include <endian.h>
#include <errno.h>
#include <poll.h>
#include <string.h>
#include <time.h>

#define PARAM_MAX   48
#define PENDING_MAX 32
#define EPOCH_2000  946684800000000LL /* PostgreSQL counts microseconds from 2000-01-01 */

enum tx { TX_NONE, TX_WANTED, TX_OPEN, TX_FAILED };
enum kind { SENT_QUERY, SENT_PREPARE, SENT_BEGIN, SENT_FORGET, SENT_SYNC };

struct db_state {
	PGconn *pg;
	const char *conninfo, *application;
	int64_t timeout_ms;
	enum tx tx;
	bool team_set; /* a team is the context of row-level security */
	bool broken;
	enum kind pending[PENDING_MAX];
	int npending, taken;
	const struct query *prepared[1024]; /* hash set by address */
};

static int
close_state(struct db_state *s)
{
	if (s->pg)
		PQfinish(s->pg);
	return 0;
}

struct db *
db_open(void *mem, const char *conninfo, const char *application, int64_t timeout_ms)
{
	struct db *db = talloc_zero(mem, struct db);

	db->s = talloc_zero(db, struct db_state);
	db->s->conninfo = talloc_strdup(db, conninfo);
	db->s->application = talloc_strdup(db, application);
	db->s->timeout_ms = timeout_ms;
	talloc_set_destructor(db->s, close_state);
	return db;
}

static int
connect_now(struct db *db)
{
	struct db_state *s = db->s;
	const char *const key[] = { "dbname", "application_name", "options", "connect_timeout",
		NULL };
	auto_talloc char *tmp = talloc_new(NULL);
	const char *const value[] = { s->conninfo, s->application,
		talloc_asprintf(tmp,
		    "-c statement_timeout=%lld -c idle_in_transaction_session_timeout=10000 "
		    "-c timezone=UTC -c client_min_messages=warning",
		    (long long)s->timeout_ms),
		"5", NULL };

	if (s->pg)
		PQfinish(s->pg);
	memset(s->prepared, 0, sizeof s->prepared);
	s->tx = TX_NONE;
	s->team_set = s->broken = false;
	s->npending = s->taken = 0;
	s->pg = PQconnectdbParams(key, value, 1);
	if (PQstatus(s->pg) != CONNECTION_OK)
		return err_set(db->err, E_DB, "database: %s", PQerrorMessage(s->pg));
	PQsetnonblocking(s->pg, 1);
	if (!PQenterPipelineMode(s->pg))
		return err_set(db->err, E_DB, "database: no pipeline mode");
	return 0;
}

int
db_unit(struct db *db, void *mem, struct err *e)
{
	db->mem = mem;
	db->err = e;
	db->constraint[0] = '\0';
	if (!db->s->pg || db->s->broken || PQstatus(db->s->pg) != CONNECTION_OK ||
	    idle_ended(PQsocket(db->s->pg)))
		return connect_now(db);
	return 0;
}

void
db_unit_end(struct db *db)
{
	struct err none = { 0 };

	db->err = &none;
	db_drop(db);
	if (db->s->tx != TX_NONE)
		db_rollback(db);
	db->err = NULL;
	db->mem = NULL;
}

static int
broken(struct db *db, const char *what)
{
	db->s->broken = true;
	db->s->npending = db->s->taken = 0;
	return err_set(db->err, E_DB, "database: %s: %s", what, PQerrorMessage(db->s->pg));
}

static int64_t
now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

/* Waits until a result can be had, writing what is still to be written. A silent server is given
   the statement's own time and two seconds more. */
static int
wait_result(struct db *db)
{
	int64_t end = now_ms() + db->s->timeout_ms + 2000, left;
	struct pollfd p = { .fd = PQsocket(db->s->pg) };
	int unsent = PQflush(db->s->pg);

	while (PQisBusy(db->s->pg)) {
		if (unsent < 0)
			return broken(db, "write");
		left = end - now_ms();
		if (left <= 0)
			return broken(db, "no answer in time");
		p.events = POLLIN | (unsent ? POLLOUT : 0);
		if (poll(&p, 1, left) < 0 && errno != EINTR)
			return broken(db, "poll");
		if (!PQconsumeInput(db->s->pg))
			return broken(db, "read");
		unsent = unsent ? PQflush(db->s->pg) : 0;
	}
	return 0;
}

static int
push(struct db *db, enum kind k, int sent)
{
	if (!sent)
		return broken(db, "send");
	db->s->pending[db->s->npending++] = k;
	return 0;
}

/* True the first time that this connection meets the query. */
static bool
is_new(struct db_state *s, const struct query *q)
{
	size_t i = ((uintptr_t)q >> 4) * 0x9E3779B97F4A7C15u >> 54;

	for (;; i = (i + 1) & 1023) {
		if (s->prepared[i] == q)
			return false;
		if (!s->prepared[i]) {
			s->prepared[i] = q;
			return true;
		}
	}
}

static void
unprepare(struct db_state *s)
{
	/* a failed pipeline may have lost a PREPARE: the names are made anew with DEALLOCATE ALL */
	memset(s->prepared, 0, sizeof s->prepared);
}

/* A text array in PostgreSQL's binary form: dimensions, flags, element type, then the elements. */
static void
put32(struct buf *b, uint32_t v)
{
	v = htobe32(v);
	buf_add(b, &v, sizeof v);
}

static const char *
text_array(void *mem, const char *const *list, int *len)
{
	struct buf b = BUF(mem);
	uint32_t n = 0, i;

	while (list[n])
		n++;
	put32(&b, n ? 1 : 0);
	put32(&b, 0);
	put32(&b, 25);
	if (n) {
		put32(&b, n);
		put32(&b, 1);
	}
	for (i = 0; i < n; i++) {
		put32(&b, strlen(list[i]));
		buf_str(&b, list[i]);
	}
	*len = b.len;
	return b.data;
}

struct params {
	const char *value[PARAM_MAX];
	int length[PARAM_MAX], format[PARAM_MAX];
	uint64_t scratch[PARAM_MAX];
};

/* One argument in wire form; false when a needed one is missing. */
static bool
param(void *tmp, const struct col *c, const void *from, struct params *p, int i)
{
	const struct bytes *bytes;
	int64_t n8;
	int32_t n4;
	double d;

	p->format[i] = 1;
	switch (c->type) {
	case T_INT4:
		memcpy(&n4, from, sizeof n4);
		if (c->nullable && n4 == NULL_INT4)
			return true;
		n4 = htobe32((uint32_t)n4);
		memcpy(&p->scratch[i], &n4, sizeof n4);
		p->length[i] = 4;
		break;
	case T_INT8:
	case T_TIMESTAMPTZ:
		memcpy(&n8, from, sizeof n8);
		if (n8 == NULL_INT)
			return c->nullable;
		if (c->type == T_TIMESTAMPTZ)
			n8 -= EPOCH_2000;
		p->scratch[i] = htobe64((uint64_t)n8);
		p->length[i] = 8;
		break;
	case T_FLOAT8:
		memcpy(&d, from, sizeof d);
		memcpy(&p->scratch[i], &d, sizeof d);
		p->scratch[i] = htobe64(p->scratch[i]);
		p->length[i] = 8;
		break;
	case T_BOOL:
		*(char *)&p->scratch[i] = *(const bool *)from;
		p->length[i] = 1;
		break;
	case T_BYTEA:
		bytes = from;
		p->value[i] = (const char *)bytes->p;
		p->length[i] = bytes->n;
		return bytes->p || c->nullable;
	case T_UUID:
		p->value[i] = *(const char *const *)from;
		p->length[i] = 16;
		return p->value[i] || c->nullable;
	case T_TEXTS:
		if (!*(const char *const *const *)from)
			return c->nullable;
		p->value[i] = text_array(tmp, *(const char *const *const *)from, &p->length[i]);
		return true;
	default:
		p->format[i] = 0;
		p->value[i] = *(const char *const *)from;
		return p->value[i] || c->nullable;
	}
	p->value[i] = (const char *)&p->scratch[i];
	return true;
}

static const char *const tx_begin = "BEGIN";
static const char *const team_forget = "SELECT set_config('hutch.team', '', false)";

int
db_send(struct db *db, const struct query *q, const void *args)
{
	struct db_state *s = db->s;
	auto_talloc char *tmp = talloc_new(db->mem);
	struct params p = { 0 };
	int n;

	if (db->err->code != E_OK)
		return -1;
	if (s->tx == TX_FAILED)
		return err_set(db->err, E_BUG, "%s: the transaction has failed", q->where);
	if (s->npending > PENDING_MAX - 5)
		return err_set(db->err, E_BUG, "%s: too many statements in one pipeline", q->where);
	for (n = 0; q->param[n].name; n++)
		if (n >= PARAM_MAX ||
		    !param(tmp, &q->param[n], (const char *)args + q->param[n].off, &p, n))
			return err_set(
			    db->err, E_BUG, "%s: %s is not set", q->where, q->param[n].name);
	if (s->tx == TX_WANTED) {
		if (push(db, SENT_BEGIN,
			PQsendQueryParams(s->pg, tx_begin, 0, NULL, NULL, NULL, NULL, 1)) < 0)
			return -1;
		s->tx = TX_OPEN;
	}
	if (is_new(s, q) &&
	    push(db, SENT_PREPARE, PQsendPrepare(s->pg, q->name, q->sql, 0, NULL)) < 0)
		return -1;
	return push(
	    db, SENT_QUERY, PQsendQueryPrepared(s->pg, q->name, n, p.value, p.length, p.format, 1));
}

void
db_forget_team(struct db *db)
{
	if (push(db, SENT_FORGET,
		PQsendQueryParams(db->s->pg, team_forget, 0, NULL, NULL, NULL, NULL, 1)) == 0)
		db->s->team_set = false;
}

static enum err_code
code_of(const char *state)
{
	static const struct {
		const char *prefix;
		enum err_code code;
	} map[] = {
		{ "23505", E_CONFLICT },  /* unique_violation */
		{ "23503", E_CONFLICT },  /* foreign_key_violation */
		{ "23P01", E_CONFLICT },  /* exclusion_violation */
		{ "23514", E_BAD_INPUT }, /* check_violation */
		{ "22", E_BAD_INPUT },    /* data exception */
		{ "42", E_BUG },          /* syntax, missing table or right: our mistake */
		{ "53100", E_NO_SPACE },  /* disk_full */
	};
	size_t i;

	for (i = 0; i < nitems(map); i++)
		if (state && strncmp(state, map[i].prefix, strlen(map[i].prefix)) == 0)
			return map[i].code;
	return E_DB;
}

static int
failed(struct db *db, const struct query *q, const PGresult *res)
{
	const char *state = PQresultErrorField(res, PG_DIAG_SQLSTATE);
	const char *text = PQresultErrorField(res, PG_DIAG_MESSAGE_PRIMARY);
	const char *constraint = PQresultErrorField(res, PG_DIAG_CONSTRAINT_NAME);

	if (db->s->tx == TX_OPEN)
		db->s->tx = TX_FAILED;
	unprepare(db->s);
	snprintf(db->constraint, sizeof db->constraint, "%s", constraint ? constraint : "");
	if (PQresultStatus(res) == PGRES_PIPELINE_ABORTED)
		return err_set(db->err, E_DB, "%s: not run", q ? q->where : "pipeline");
	return err_set(db->err, code_of(state), "%s: %s [%s]", q ? q->where : "pipeline",
	    text ? text : PQerrorMessage(db->s->pg), state ? state : "?");
}

/* The result of the next statement in the pipeline, or NULL when the connection broke. */
static PGresult *
next(struct db *db)
{
	PGresult *res;

	if (wait_result(db) < 0)
		return NULL;
	res = PQgetResult(db->s->pg);
	if (!res)
		broken(db, "no result");
	return res;
}

static int
sync_pipeline(struct db *db)
{
	struct db_state *s = db->s;

	if (s->npending && s->pending[s->npending - 1] == SENT_SYNC)
		return 0;
	return push(db, SENT_SYNC, PQpipelineSync(s->pg));
}

static void
deallocate(struct db *db)
{
	struct err none = { 0 }, *saved = db->err;
	PGresult *res;

	/* after an error the set of prepared names is unknown: start from none */
	db->err = &none;
	if (push(db, SENT_QUERY,
		PQsendQueryParams(db->s->pg, "DEALLOCATE ALL", 0, NULL, NULL, NULL, NULL, 1)) ==
		0 &&
	    sync_pipeline(db) == 0 && (res = next(db))) {
		PQclear(res);
		(void)PQgetResult(db->s->pg);
		if ((res = next(db)))
			PQclear(res);
	}
	db->s->npending = db->s->taken = 0;
	db->err = saved;
}

/* Reads up to and with the next query's result; what came before it must have gone well. */
static PGresult *
take_result(struct db *db, const struct query *q)
{
	struct db_state *s = db->s;
	PGresult *res, *mine = NULL;
	bool ok;
	enum kind k;

	if (sync_pipeline(db) < 0)
		return NULL;
	while (!mine && s->taken < s->npending) {
		k = s->pending[s->taken++];
		res = next(db);
		if (!res)
			return NULL;
		ok = PQresultStatus(res) == PGRES_TUPLES_OK ||
		    PQresultStatus(res) == PGRES_COMMAND_OK;
		if (k == SENT_QUERY && ok)
			mine = res;
		else if (!ok && k != SENT_SYNC)
			failed(db, q, res);
		if (k != SENT_SYNC)
			(void)PQgetResult(s->pg); /* the NULL behind each statement */
		if (res != mine)
			PQclear(res);
		if (!ok && k != SENT_SYNC)
			break;
	}
	if (!mine || s->pending[s->taken] == SENT_SYNC)
		db_drop(db);
	if (!mine && db->err->code == E_OK)
		err_set(db->err, E_BUG, "%s: nothing was sent", q->where);
	return mine;
}

void
db_drop(struct db *db)
{
	struct db_state *s = db->s;
	bool bad = db->err && db->err->code != E_OK;
	struct err none = { 0 }, *saved = db->err;
	PGresult *res;

	if (!s->pg || s->broken || !s->npending) {
		s->npending = s->taken = 0;
		return;
	}
	db->err = &none;
	if (sync_pipeline(db) == 0)
		while (s->taken < s->npending && (res = next(db))) {
			if (s->pending[s->taken++] != SENT_SYNC) {
				bad |= PQresultStatus(res) != PGRES_TUPLES_OK &&
				    PQresultStatus(res) != PGRES_COMMAND_OK;
				(void)PQgetResult(s->pg);
			}
			PQclear(res);
		}
	db->err = saved;
	s->npending = s->taken = 0;
	if (bad && !s->broken && s->tx == TX_NONE) {
		unprepare(s);
		deallocate(db);
	}
}

static const char *const *
read_texts(void *mem, const char *v, int len)
{
	const char *end = v + len;
	const char **list;
	uint32_t n, size, i;

	memcpy(&n, v, 4);
	if (!n || len < 20)
		return talloc_zero_array(mem, const char *, 1);
	memcpy(&n, v + 12, 4);
	n = be32toh(n);
	list = talloc_zero_array(mem, const char *, n + 1);
	for (i = 0, v += 20; i < n && v + 4 <= end; i++, v += size) {
		memcpy(&size, v, 4);
		size = be32toh(size);
		v += 4;
		if (size == UINT32_MAX)
			size = 0;
		list[i] = talloc_strndup(list, v, size);
	}
	return list;
}

static void
store(void *mem, const PGresult *res, int i, int c, const struct col *col, char *row)
{
	bool null = PQgetisnull(res, i, c);
	const char *v = null ? NULL : PQgetvalue(res, i, c);
	void *to = row + col->off;
	uint64_t n8 = 0;
	uint32_t n4 = 0;

	switch (col->type) {
	case T_INT4:
		if (v)
			memcpy(&n4, v, 4);
		*(int32_t *)to = v ? (int32_t)be32toh(n4) : NULL_INT4;
		break;
	case T_INT8:
	case T_TIMESTAMPTZ:
		if (v)
			memcpy(&n8, v, 8);
		*(int64_t *)to = !v       ? NULL_INT
		    : col->type == T_INT8 ? (int64_t)be64toh(n8)
					  : (int64_t)be64toh(n8) + EPOCH_2000;
		break;
	case T_FLOAT8:
		if (v)
			memcpy(&n8, v, 8);
		n8 = be64toh(n8);
		memcpy(to, &n8, 8);
		break;
	case T_BOOL:
		*(bool *)to = v && *v;
		break;
	case T_BYTEA:
		*(struct bytes *)to =
		    (struct bytes){ (const uint8_t *)v, v ? PQgetlength(res, i, c) : 0 };
		break;
	case T_TEXTS:
		*(const char *const **)to = v ? read_texts(mem, v, PQgetlength(res, i, c)) : NULL;
		break;
	case T_JSONB:
		*(const char **)to = v ? v + 1 : NULL; /* behind the version byte */
		break;
	default:
		*(const char **)to = v;
	}
}

struct held {
	PGresult *res;
};

static int
release(struct held *h)
{
	PQclear(h->res);
	return 0;
}

int
db_take(struct db *db, const struct query *q, void **rows)
{
	PGresult *res = take_result(db, q);
	struct held *held;
	const char *count;
	char *out;
	int i, c, n;

	if (!res)
		return -1;
	if (!rows) {
		count = PQcmdTuples(res);
		n = *count ? (int)strtol(count, NULL, 10) : PQntuples(res);
		PQclear(res);
		return n;
	}
	n = PQntuples(res);
	out = talloc_zero_size(db->mem, q->rowsize * (n ? n : 1));
	held = talloc(out, struct held);
	held->res = res;
	talloc_set_destructor(held, release);
	for (i = 0; i < n; i++)
		for (c = 0; q->row[c].name; c++)
			store(out, res, i, c, &q->row[c], out + i * q->rowsize);
	*rows = out;
	return n;
}

int
db_exec(struct db *db, const struct query *q, const void *args)
{
	return db_send(db, q, args) < 0 ? -1 : db_take(db, q, NULL);
}

int
db_many(struct db *db, const struct query *q, const void *args, void **rows)
{
	return db_send(db, q, args) < 0 ? -1 : db_take(db, q, rows);
}

int
db_one(struct db *db, const struct query *q, const void *args, void **row)
{
	int n = db_many(db, q, args, row);

	if (n > 1)
		return err_set(db->err, E_BUG, "%s: %d rows where one was meant", q->where, n);
	return n;
}

void
db_begin(struct db *db)
{
	db->s->tx = TX_WANTED;
}

/* COMMIT and ROLLBACK are queries of their own, like those of the .sql files. */
static const struct col no_params[] = { { 0 } };
static const struct query q_commit = { "tx_commit", "COMMIT", "COMMIT", no_params, NULL, 0 };
static const struct query q_rollback = { "tx_rollback", "ROLLBACK", "ROLLBACK", no_params, NULL,
	0 };

static int
plain(struct db *db, const struct query *q)
{
	if (push(db, SENT_QUERY,
		PQsendQueryParams(db->s->pg, q->sql, 0, NULL, NULL, NULL, NULL, 1)) < 0)
		return -1;
	return db_take(db, q, NULL) < 0 ? -1 : 0;
}

int
db_commit(struct db *db)
{
	enum tx was = db->s->tx;

	if (was == TX_FAILED || db->err->code != E_OK) {
		db_rollback(db);
		return err_set(db->err, E_BUG, "commit of a failed transaction");
	}
	if (was != TX_OPEN) {
		db->s->tx = TX_NONE;
		return 0; /* nothing was done in it */
	}
	if (plain(db, &q_commit) < 0)
		return -1;
	db->s->tx = TX_NONE;
	return 0;
}

void
db_rollback(struct db *db)
{
	struct err none = { 0 }, *saved = db->err;

	db->err = &none;
	db_drop(db);
	if (db->s->tx == TX_OPEN || db->s->tx == TX_FAILED) {
		if (!db->s->broken && plain(db, &q_rollback) < 0)
			db->s->broken = true;
	}
	if (!db->s->broken && db->s->tx == TX_FAILED) {
		unprepare(db->s);
		deallocate(db);
	}
	db->s->tx = TX_NONE;
	db->err = saved;
}

bool
db_in_transaction(const struct db *db)
{
	return db->s->tx != TX_NONE;
}

PGconn *
db_raw(struct db *db)
{
	return db->s->pg;
}
