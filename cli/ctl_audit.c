/*
 * ctl_audit.c - hutchctl audit verify: every team's chain, every checkpoint of the table, and those
 * of a file that was copied off the machine: what nobody who can change the whole database could
 * have changed.
 */
#include "audit.q.h"
#include "audit_mark.h"
#include "cleanup.h"
#include "ctl.h"

#include <inttypes.h>
#include <string.h>

struct verify {
	struct ctl *c;
	struct mark_keys keys;
	int64_t rows, marks;
	int bad;
};

static void
bad(struct verify *v, const struct uuid *team, int64_t seq, const char *why)
{
	v->bad++;
	printf("%s: row %" PRId64 ": %s\n", id_text(v->c, "team-", team), seq, why);
}

static const char *
doubt(const struct verify *v, const struct audit_mark *m)
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

/* A checkpoint against the row that it is of. */
static int
check_mark(struct verify *v, const struct audit_mark *m, struct bytes present)
{
	const char *why = doubt(v, m);

	v->marks++;
	if (!why && (present.n != HASH_SIZE || memcmp(present.p, m->hash, HASH_SIZE) != 0))
		why = present.n ? "the row differs from its checkpoint"
				: "there is a checkpoint, but no row";
	if (why)
		bad(v, &m->team, m->seq, why);
	return 0;
}

static int
table_marks(struct verify *v, const struct uuid *team)
{
	struct q_audit_mark *row;
	struct audit_mark m;
	int64_t from = 1;
	int n, i;

	do {
		n = q_audit_marks(
		    v->c->work.db, &row, .team = team, .from_seq = from, .to_seq = NULL_INT);
		for (i = 0; i < n; i++) {
			m = (struct audit_mark){
				.team = *team, .seq = row[i].seq, .at = row[i].at
			};
			snprintf(m.key_id, sizeof m.key_id, "%s", row[i].key_id);
			if (row[i].hash.n != HASH_SIZE || row[i].signature.n != SIGNATURE_SIZE)
				bad(v, team, m.seq, "its checkpoint is forged");
			else {
				memcpy(m.hash, row[i].hash.p, HASH_SIZE);
				memcpy(m.signature, row[i].signature.p, SIGNATURE_SIZE);
				check_mark(v, &m, row[i].present);
			}
			from = m.seq + 1;
		}
	} while (n == 20000);
	return n < 0 ? -1 : 0;
}

static int
file_marks(struct verify *v, const char *path)
{
	auto_file *f = fopen(path, "re");
	struct q_audit_end *row;
	struct audit_mark m;
	char line[1024];
	int n, no = 0;

	if (!f)
		return err_sys(&v->c->work.err, "%s", path);
	while (fgets(line, sizeof line, f)) {
		no++;
		if (!mark_read(line, &m)) {
			printf("%s: line %d is no checkpoint\n", path, no);
			v->bad++;
			continue;
		}
		n = q_audit_row_hash(v->c->work.db, &row, .team = &m.team, .seq = m.seq);
		if (n < 0)
			return -1;
		check_mark(v, &m, n ? row->hash : (struct bytes){ 0 });
	}
	return 0;
}

static int
public_key(struct verify *v, const char *hex)
{
	uint8_t key[KEY_SIZE];
	const struct keys *keys;

	if (hex) {
		if (!hex_read(hex, key, sizeof key))
			return err_set(
			    &v->c->work.err, E_BAD_INPUT, "--public-key is not 64 hex digits");
		mark_keys_add(&v->keys, key);
		return 0;
	}
	keys = keys_load(v->c, v->c->conf, &v->c->work.err);
	if (!keys)
		return -1;
	mark_keys_of(keys, &v->keys);
	return 0;
}

int
ctl_audit_verify(struct ctl *c)
{
	const char *file = ctl_option(c, "checkpoints"), *hex = ctl_option(c, "public-key");
	struct verify v = { .c = c };
	struct q_audit_check *a;
	int n, i;

	if (ctl_done(c) < 0 || public_key(&v, hex) < 0 || ctl_db(c) < 0)
		return -1;
	n = q_audit_verify_all(c->work.db, &a);
	for (i = 0; i < n; i++) {
		v.rows += a[i].checked;
		if (a[i].reason)
			bad(&v, a[i].team_id, a[i].first_bad, a[i].reason);
		if (table_marks(&v, a[i].team_id) < 0)
			return -1;
	}
	if (n < 0 || (file && file_marks(&v, file) < 0))
		return -1;
	printf("%" PRId64 " rows of %d teams, %" PRId64 " checkpoints: %d chains broken\n", v.rows,
	    n, v.marks, v.bad);
	return v.bad ? 1 : 0;
}

int
ctl_audit_checkpoint(struct ctl *c)
{
	const struct keys *keys;
	int n;

	if (ctl_done(c) < 0)
		return -1;
	keys = keys_load(c, c->conf, &c->work.err);
	if (!keys || ctl_db(c) < 0)
		return -1;
	db_begin(c->work.db);
	n = marks_make(&c->work, c->conf->audit_checkpoint_file, keys);
	if (n < 0 || db_commit(c->work.db) < 0)
		return -1;
	printf("%d checkpoints in %s\n", n, c->conf->audit_checkpoint_file);
	return 0;
}
