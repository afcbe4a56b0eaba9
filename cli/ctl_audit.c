/*
 * ctl_audit.c - hutchctl audit verify: every team's chain, every checkpoint of the table, and those
 * of a file that was copied off the machine: what nobody who can change the whole database could
 * have changed.
 */
#include "audit.q.h"
#include "audit_check.h"
#include "cleanup.h"
#include "ctl.h"

#include <inttypes.h>

static int
found(struct audit_check *v, const struct uuid *team, int64_t seq, const char *why)
{
	printf("%s: row %" PRId64 ": %s\n", id_text(v->arg, "team-", team), seq, why);
	return 0;
}

static int
file_marks(struct ctl *c, struct audit_check *v, const char *path)
{
	auto_file *f = fopen(path, "re");
	struct q_audit_end *row;
	struct audit_mark m;
	char line[1024];
	int n, no = 0;

	if (!f)
		return err_sys(&c->work.err, "%s", path);
	while (fgets(line, sizeof line, f)) {
		no++;
		if (!mark_read(line, &m)) {
			printf("%s: line %d is no checkpoint\n", path, no);
			v->bad++;
			continue;
		}
		n = q_audit_row_hash(c->work.db, &row, .team = &m.team, .seq = m.seq);
		if (n < 0)
			return -1;
		if (audit_check_mark(v, &m, n ? row->hash.p : NULL, n ? row->hash.n : 0) < 0)
			return -1;
	}
	return 0;
}

static int
public_key(struct ctl *c, struct audit_check *v, const char *hex)
{
	uint8_t key[KEY_SIZE];
	const struct keys *keys;

	if (hex) {
		if (!hex_read(hex, key, sizeof key))
			return err_set(
			    &c->work.err, E_BAD_INPUT, "--public-key is not 64 hex digits");
		mark_keys_add(&v->keys, key);
		return 0;
	}
	keys = keys_load(c, c->conf, &c->work.err);
	if (!keys)
		return -1;
	mark_keys_of(keys, &v->keys);
	return 0;
}

int
ctl_audit_verify(struct ctl *c)
{
	const char *file = ctl_option(c, "checkpoints"), *hex = ctl_option(c, "public-key");
	struct audit_check v = { .found = found, .arg = c };

	if (ctl_done(c) < 0 || public_key(c, &v, hex) < 0 || ctl_db(c) < 0)
		return -1;
	if (audit_check_all(&c->work, &v) < 0 || (file && file_marks(c, &v, file) < 0))
		return -1;
	printf("%" PRId64 " rows of %" PRId64 " teams, %" PRId64 " checkpoints: %d chains broken\n",
	    v.rows, v.teams, v.marks, v.bad);
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
