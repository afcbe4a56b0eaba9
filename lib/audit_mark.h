/*
 * audit_mark.h - checkpoints: the end of a team's chain at a moment, signed with Ed25519 (spec 01
 * §5).
 *
 * Who can change every row of the database cannot make one: the secret is derived from the master
 * secret.
 */
#pragma once
#include "buf.h"
#include "crypto.h"
#include "id.h"
#include "work.h"

struct audit_mark {
	struct uuid team;
	int64_t seq, at; /* at: microseconds since 1970 */
	uint8_t hash[HASH_SIZE], signature[SIGNATURE_SIZE];
	char key_id[9]; /* 8 hex digits of SHA-256 of the public key */
};

/* The public keys that are believed: of the current master secret, of the one before, or as given.
 */
struct mark_keys {
	uint8_t key[2][KEY_SIZE];
	char id[2][9];
	int n;
};
void mark_keys_of(const struct keys *, struct mark_keys *ret);
void mark_keys_add(struct mark_keys *, const uint8_t key[KEY_SIZE]);

void mark_sign(const struct keys *, struct audit_mark *); /* fills key_id and signature */
enum mark_state { MARK_GOOD, MARK_FORGED, MARK_UNKNOWN_KEY };
enum mark_state mark_check(const struct mark_keys *, const struct audit_mark *);

/* A line of the checkpoint file: one JSON object. */
void mark_write(struct buf *, const struct audit_mark *);
bool mark_read(const char *line, struct audit_mark *ret);

/*
 * Signs the end of every chain that grew, in the caller's transaction (role hutch_work). The lines
 * are in the file, synced, before the commit: it may hold a checkpoint that the table lacks, never
 * the other way round. How many; -1.
 */
int marks_make(struct work *, const char *path, const struct keys *);
