/* audit_check.c - see audit_check.h. Queries: sql/queries/audit.sql. */
#include "audit_check.h"
#include "audit.q.h"
#include "cleanup.h"

#include <string.h>

enum { TEAMS = 1000, ROWS = 5000, MARKS = 20000 }; /* of one statement */

static int
bad(struct audit_check *v, const struct uuid *team, int64_t seq, const char *why)
{
	v->bad++;
	return v->found(v, team, seq, why);
}

static bool
stopped(struct audit_check *v)
{
	return v->stop && v->stop(v);
}

static const char *
doubt(const struct audit_check *v, const struct audit_mark *m)
{
	switch (mark_check(&v->keys, m)) {
	case MARK_GOOD:
		return NULL;
	case MARK_FORGED:
		return "its checkpoint is forged";
	default:
		return "its checkpoint was signed with a key that is not believed";
	}
}

int
audit_check_mark(
    struct audit_check *v, const struct audit_mark *m, const uint8_t *present, size_t n)
{
	const char *why = doubt(v, m);

	v->marks++;
	if (!why && (n != HASH_SIZE || memcmp(present, m->hash, HASH_SIZE) != 0))
		why =
		    n ? "the row differs from its checkpoint" : "there is a checkpoint, but no row";
	return why ? bad(v, &m->team, m->seq, why) : 0;
}

static int
table_mark(struct audit_check *v, const struct q_audit_mark *row)
{
	struct audit_mark m = { .team = *row->team_id, .seq = row->seq, .at = row->at };

	if (row->hash.n != HASH_SIZE || row->signature.n != SIGNATURE_SIZE)
		return bad(v, &m.team, m.seq, "its checkpoint is forged");
	snprintf(m.key_id, sizeof m.key_id, "%s", row->key_id);
	memcpy(m.hash, row->hash.p, HASH_SIZE);
	memcpy(m.signature, row->signature.p, SIGNATURE_SIZE);
	return audit_check_mark(v, &m, row->present.p, row->present.n);
}

static int
table_marks(struct work *w, struct audit_check *v, const struct uuid *team)
{
	struct q_audit_mark *row;
	int64_t from = 1;
	int n, i;

	do {
		n = q_audit_marks(w->db, &row, .team = team, .from_seq = from, .to_seq = NULL_INT);
		for (i = 0; i < n; i++)
			if (table_mark(v, &row[i]) < 0)
				return -1;
		if (n == MARKS)
			from = row[n - 1].seq + 1;
	} while (n == MARKS && !stopped(v));
	return n < 0 ? -1 : 0;
}

/* To the row that was the last one when it began, then what came since, with the head. */
static int
chain(struct work *w, struct audit_check *v, const struct q_audit_chain *c)
{
	struct q_audit_check *a;
	int64_t from, to;

	for (from = 1; !stopped(v); from += ROWS) {
		to = from + ROWS <= c->seq ? from + ROWS - 1 : NULL_INT;
		if (q_audit_range(w->db, &a, .team = c->team_id, .from_seq = from, .to_seq = to) <
		    0)
			return -1;
		v->rows += a->checked;
		if (a->reason && bad(v, c->team_id, a->first_bad, a->reason) < 0)
			return -1;
		if (a->reason || to == NULL_INT)
			break;
	}
	return table_marks(w, v, c->team_id);
}

/* What anonymising left: the Platform's chain has the digests. */
static int
batches(struct work *w, struct audit_check *v)
{
	struct q_audit_doubt *row;
	int n = q_audit_batches_verify(w->db, &row), i;

	for (i = 0; i < n; i++)
		if (bad(v, &uuid_zero, row[i].seq, row[i].reason) < 0)
			return -1;
	return n < 0 ? -1 : 0;
}

int
audit_check_all(struct work *w, struct audit_check *v)
{
	struct uuid after = uuid_zero;
	struct q_audit_chain *c;
	bool first = true;
	int n, i;

	do {
		n = q_audit_chains(w->db, &c, .after = first ? NULL : &after, .limit = TEAMS);
		for (i = 0; i < n && !stopped(v); i++) {
			if (chain(w, v, &c[i]) < 0)
				return -1;
			v->teams++;
		}
		if (n > 0)
			after = *c[n - 1].team_id;
		first = false;
	} while (n == TEAMS && !stopped(v));
	return n < 0 ? -1 : batches(w, v);
}
