/*
 * audit_out.c - the audit log for others: export as CSV or NDJSON, and the proof that it is whole
 * (spec 01 §2.9).
 *
 * Queries: sql/queries/audit.sql.  Tests: tests/http/audit.py.
 */
#include "audit.h"
#include "audit_mark.h"
#include "audit_read.h"
#include "cleanup.h"
#include "log.h"

#include <inttypes.h>
#include <string.h>

enum { EXPORT_ROWS = 100000, PIECE = 1000, VERIFY_ROWS = 20000 };

/* --- export ------------------------------------------------------------------------------------
 */

static const char csv_head[] =
    "created_at,id,team_id,seq,actor_type,actor_id,actor_name,resource_type,resource_id,"
    "action,event,scope,status,ip,user_agent,request_id,metadata,hash\r\n";

/* RFC 4180; what a spreadsheet would take for a formula gets an apostrophe. */
static void
cell(struct buf *b, const char *s)
{
	buf_chr(b, '"');
	if (s && *s && strchr("=+-@\t\r", *s))
		buf_chr(b, '\'');
	for (; s && *s; s++) {
		if (*s == '"')
			buf_chr(b, '"');
		buf_chr(b, *s);
	}
	buf_chr(b, '"');
}

static void
csv_row(struct buf *b, const struct q_audit_entry *e)
{
	char id[ID_SIZE], team[ID_SIZE], seq[24];
	const char *const text[] = { e->created_at, id_write(id, "log-", e->id),
		id_write(team, "team-", e->team_id), seq, e->actor_type, e->actor_id, e->actor_name,
		e->resource_type, e->resource_id, e->action, e->event, e->scope, e->status, e->ip,
		e->user_agent, e->request_id, e->metadata, e->hash };
	size_t i;

	snprintf(seq, sizeof seq, "%" PRId64, e->seq);
	for (i = 0; i < nitems(text); i++) {
		if (i)
			buf_chr(b, ',');
		cell(b, text[i]);
	}
	buf_str(b, "\r\n");
}

/* Who took how much out of the log is in the log: before the first byte leaves. */
static int
audit_the_export(struct request *r, const struct audit_view *v)
{
	struct buf meta = BUF(r);
	int rc;

	buf_str(&meta, "{\"filters\":");
	buf_json(&meta, r->query ? r->query : "");
	buf_fmt(&meta, ",\"most\":%d}", EXPORT_ROWS);
	db_begin(r->work.db);
	rc = audit_add(&r->work, AUDIT_AUDIT_EXPORT,
	    &(struct audit){
		.team = r->route->may == PLATFORM_READ ? NULL : v->team, .metadata = meta.data });
	return rc < 0 ? -1 : db_commit(r->work.db);
}

/* The next piece of the answer; its rows are forgotten when it is sent. How many rows; -1. */
static int
piece(struct request *r, const struct audit_view *v, int64_t *before, struct uuid *id, int left)
{
	bool csv = strcmp(v->f->format, "csv") == 0;
	auto_talloc void *mem = talloc_new(r);
	void *keep = r->work.db->mem;
	struct q_audit_entry *row;
	int n, i;

	r->work.db->mem = mem;
	n = audit_rows(
	    r, v, *before, *before == NULL_INT ? NULL : id, left < PIECE ? left : PIECE, &row);
	for (i = 0; i < n; i++) {
		if (csv)
			csv_row(&r->out, &row[i]);
		else {
			fields_write(entry_fields, &row[i], &r->out);
			buf_chr(&r->out, '\n');
		}
		*before = row[i].at;
		*id = *row[i].id;
	}
	r->work.db->mem = keep;
	reply_more(r);
	return n;
}

int
audit_export(struct request *r)
{
	const struct audit_filter *f = r->in;
	bool csv = strcmp(f->format, "csv") == 0;
	int64_t before = NULL_INT;
	struct audit_view v;
	struct uuid id;
	int n, left = EXPORT_ROWS;

	if (audit_view(r, &v) < 0 || audit_the_export(r, &v) < 0)
		return -1;
	r->status = 200;
	r->content_type = csv ? "text/csv; charset=utf-8" : "application/x-ndjson";
	reply_header(r, "Content-Disposition", "attachment; filename=\"audit-log.%s\"", f->format);
	buf_clear(&r->out);
	if (csv)
		buf_str(&r->out, csv_head);
	do {
		n = piece(r, &v, &before, &id, left);
		left -= n;
	} while (n == PIECE && left > 0);
	if (n < 0)
		log_warn(r->work.id, "the export ended early: %s", r->work.err.text);
	return 0;
}

/* --- verify ------------------------------------------------------------------------------------
 */

struct verified_head {
	int64_t seq;
	const char *hash;
};
static const struct field verified_head_fields[] = {
	FIELD(verified_head, seq, "seq", .flags = NEEDED),
	FIELD(verified_head, hash, "hash", .flags = NEEDED),
	{ 0 },
};
struct public_key {
	const char *id, *key;
};
static const struct field public_key_fields[] = {
	FIELD(public_key, id, "id", .flags = NEEDED),
	FIELD(public_key, key, "ed25519", .flags = NEEDED, .doc = "32 bytes in hex."),
	{ 0 },
};
const struct field verified_fields[] = {
	FIELD(verified, ok, "ok", .flags = NEEDED),
	FIELD(verified, checked, "checked", .flags = NEEDED, .doc = "Rows."),
	FIELD(verified, first_bad, "first_bad", .flags = OMIT,
	    .doc = "The first row that does not fit."),
	FIELD(verified, reason, "reason", .flags = OMIT),
	SUB(verified, head, "head", verified_head_fields, verified_head, .flags = NEEDED),
	FIELD(verified, checkpoints_ok, "checkpoints_ok", .flags = NEEDED),
	SUB(verified, public_keys, "public_keys", public_key_fields, public_key,
	    .flags = NEEDED | LIST),
	{ 0 },
};

static const char *
hex(void *mem, const void *p, size_t n)
{
	return hex_write(talloc_array(mem, char, 2 * n + 1), p, n);
}

/* Signatures of the checkpoints within the range; that their rows agree is checked with the rows.
 */
static int
checkpoints(struct request *r, const struct mark_keys *keys, const struct uuid *team, int64_t from,
    int64_t to, bool *ok)
{
	struct q_audit_mark *row;
	int n = q_audit_marks(r->work.db, &row, .team = team, .from_seq = from, .to_seq = to), i;

	*ok = true;
	for (i = 0; i < n; i++) {
		struct audit_mark m = { .team = *team, .seq = row[i].seq, .at = row[i].at };

		if (row[i].hash.n != HASH_SIZE || row[i].signature.n != SIGNATURE_SIZE ||
		    strlen(row[i].key_id) != 8) {
			*ok = false;
			continue;
		}
		memcpy(m.hash, row[i].hash.p, HASH_SIZE);
		memcpy(m.signature, row[i].signature.p, SIGNATURE_SIZE);
		memcpy(m.key_id, row[i].key_id, sizeof m.key_id);
		if (mark_check(keys, &m) != MARK_GOOD || row[i].present.n != HASH_SIZE ||
		    memcmp(row[i].present.p, m.hash, HASH_SIZE) != 0)
			*ok = false;
	}
	return n < 0 ? -1 : 0;
}

static int
range(struct request *r, const struct audit_filter *f, int64_t head, int64_t *from, int64_t *to)
{
	*to = f->to_seq;
	*from = f->from_seq;
	if (*from == NULL_INT)
		*from = (*to == NULL_INT ? head : *to) - VERIFY_ROWS + 1;
	if (*from < 1)
		*from = 1;
	if ((*to == NULL_INT ? head : *to) - *from >= VERIFY_ROWS)
		return fail(
		    r, E_BAD_INPUT, "from_seq and to_seq are more than %d rows apart", VERIFY_ROWS);
	return 0;
}

int
audit_verify(struct request *r)
{
	struct verified out = { 0 };
	struct public_key list[2];
	struct q_audit_check *c;
	struct verified_head h;
	struct q_audit_end *e;
	struct mark_keys keys;
	struct audit_view v;
	int64_t from, to;
	int n, i;

	if (audit_view(r, &v) < 0)
		return -1;
	if (!v.team)
		return fail(r, E_BAD_INPUT,
		    "\"team_id\" names one team; all of them: hutchctl audit verify");
	n = q_audit_head(r->work.db, &e, .team = v.team);
	if (n <= 0)
		return reply_row(r, n, NULL);
	if (range(r, v.f, e->seq, &from, &to) < 0)
		return -1;
	mark_keys_of(r->app->keys, &keys);
	if (q_audit_range(r->work.db, &c, .team = v.team, .from_seq = from, .to_seq = to) <= 0 ||
	    checkpoints(r, &keys, v.team, from, to, &out.checkpoints_ok) < 0)
		return -1;
	h = (struct verified_head){ e->seq, hex(r, e->hash.p, e->hash.n) };
	for (i = 0; i < keys.n; i++)
		list[i] = (struct public_key){ keys.id[i], hex(r, keys.key[i], KEY_SIZE) };
	out.checked = c->checked;
	out.first_bad = c->first_bad;
	out.reason = c->reason;
	out.ok = !c->reason && out.checkpoints_ok;
	out.head = &h;
	out.public_keys = (struct list){ list, keys.n };
	return reply_row(r, 1, &out);
}
