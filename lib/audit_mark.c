/* audit_mark.c - see audit_mark.h. */
#include "audit_mark.h"
#include "audit.q.h"
#include "cleanup.h"
#include "json.h"

#include <endian.h>
#include <fcntl.h>
#include <inttypes.h>
#include <string.h>
#include <time.h>

static const char word[] = "hutch-audit-mark-1";

enum { WORD = sizeof word - 1, TEXT = WORD + 16 + 8 + HASH_SIZE + 8 };

/* What is signed: word ‖ team 16 ‖ seq 8 ‖ hash 32 ‖ at 8, numbers big-endian. */
static void
signed_text(const struct audit_mark *m, uint8_t out[TEXT])
{
	uint64_t seq = htobe64(m->seq), at = htobe64(m->at);

	memcpy(out, word, WORD);
	memcpy(out + WORD, m->team.b, 16);
	memcpy(out + WORD + 16, &seq, 8);
	memcpy(out + WORD + 24, m->hash, HASH_SIZE);
	memcpy(out + WORD + 24 + HASH_SIZE, &at, 8);
}

void
mark_keys_add(struct mark_keys *k, const uint8_t key[KEY_SIZE])
{
	uint8_t h[HASH_SIZE];

	memcpy(k->key[k->n], key, KEY_SIZE);
	crypto_sha256(key, KEY_SIZE, h);
	hex_write(k->id[k->n++], h, 4);
}

void
mark_keys_of(const struct keys *keys, struct mark_keys *ret)
{
	uint8_t public[KEY_SIZE];

	*ret = (struct mark_keys){ 0 };
	crypto_public(keys->key[KEY_AUDIT], public);
	mark_keys_add(ret, public);
	if (!keys->has_previous)
		return;
	crypto_public(keys->previous[KEY_AUDIT], public);
	mark_keys_add(ret, public);
}

void
mark_sign(const struct keys *keys, struct audit_mark *m)
{
	struct mark_keys k;
	uint8_t text[TEXT];

	mark_keys_of(keys, &k);
	memcpy(m->key_id, k.id[0], sizeof m->key_id);
	signed_text(m, text);
	crypto_sign(keys->key[KEY_AUDIT], text, sizeof text, m->signature);
}

enum mark_state
mark_check(const struct mark_keys *k, const struct audit_mark *m)
{
	uint8_t text[TEXT];
	int i;

	signed_text(m, text);
	for (i = 0; i < k->n; i++)
		if (strcmp(k->id[i], m->key_id) == 0)
			return crypto_signed(k->key[i], text, sizeof text, m->signature)
			    ? MARK_GOOD
			    : MARK_FORGED;
	return MARK_UNKNOWN_KEY;
}

void
mark_write(struct buf *b, const struct audit_mark *m)
{
	char team[ID_SIZE], hash[2 * HASH_SIZE + 1], sig[2 * SIGNATURE_SIZE + 1];

	buf_fmt(b,
	    "{\"team\":\"%s\",\"seq\":%" PRId64 ",\"hash\":\"%s\",\"at_us\":%" PRId64
	    ",\"key_id\":\"%s\",\"signature\":\"%s\"}\n",
	    id_write(team, "team-", &m->team), m->seq, hex_write(hash, m->hash, HASH_SIZE), m->at,
	    m->key_id, hex_write(sig, m->signature, SIGNATURE_SIZE));
}

bool
mark_read(const char *line, struct audit_mark *m)
{
	auto_talloc void *mem = talloc_new(NULL);
	struct err e = { 0 };
	struct json_object *o = json_parse(mem, line, strcspn(line, "\n"), NULL, &e);

	if (!json_object_is_type(o, json_type_object))
		return false;
	*m = (struct audit_mark){ .seq = json_int(o, "seq", -1), .at = json_int(o, "at_us", -1) };
	snprintf(m->key_id, sizeof m->key_id, "%s", json_str(o, "key_id", ""));
	return m->seq > 0 && id_read(json_str(o, "team", ""), "team-", &m->team) &&
	    hex_read(json_str(o, "hash", ""), m->hash, HASH_SIZE) &&
	    hex_read(json_str(o, "signature", ""), m->signature, SIGNATURE_SIZE);
}

static int
append(struct work *w, const char *path, const struct buf *lines)
{
	auto_fd fd = open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0640);

	if (fd < 0 || write(fd, lines->data, lines->len) != (ssize_t)lines->len || fsync(fd) < 0)
		return err_sys(&w->err, "checkpoint file %s", path);
	return 0;
}

int
marks_make(struct work *w, const char *path, const struct keys *keys)
{
	struct buf lines = BUF(w);
	struct q_audit_end *end;
	struct timespec now;
	int n, i;

	n = q_audit_news(w->db, &end);
	clock_gettime(CLOCK_REALTIME, &now);
	for (i = 0; i < n; i++) {
		struct audit_mark m = { .team = *end[i].team_id,
			.seq = end[i].seq,
			.at = now.tv_sec * INT64_C(1000000) + now.tv_nsec / 1000 };

		if (end[i].hash.n != HASH_SIZE)
			return err_set(
			    &w->err, E_TAMPERED, "the head of an audit chain has no hash");
		memcpy(m.hash, end[i].hash.p, HASH_SIZE);
		mark_sign(keys, &m);
		mark_write(&lines, &m);
		if (q_audit_mark_insert(w->db, .team = &m.team, .seq = m.seq, .at = m.at,
			.hash = { m.hash, sizeof m.hash }, .key_id = m.key_id,
			.signature = { m.signature, sizeof m.signature }) < 0)
			return -1;
	}
	if (n < 0 || (n > 0 && append(w, path, &lines) < 0))
		return -1;
	return n;
}
