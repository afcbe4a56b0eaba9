/*
 * password.h - password hashes: this file is the only one that knows their form (spec 01 §3).
 *
 * "h1:" + yescrypt of base64(SHA-384("hutch-password-1" 00 NFC bytes)), since crypt(3) cuts at 511
 * bytes and people type the same letter in two ways. Hashes that came from elsewhere ($2b$, $6$,
 * $y$) are over the bytes themselves, as they were there.
 */
#pragma once
#include "err.h"
#include <stdbool.h>
#include <stdint.h>

/* The stored form, on mem. Takes 50 ms and more: only where waiting is allowed. */
const char *password_hash(void *mem, const char *password, int cost, struct err *);
/* Is it this password? stored NULL: the same work is done against a dummy, and the answer is false.
 */
bool password_verify(const char *password, const char *stored, int cost);
/* Is the stored form another than password_hash() would make today? Then make it anew at a good
 * sign-in. */
bool password_stale(const char *stored, int cost);

struct password_rules {
	const char *field;        /* as the client calls it: named in the error */
	int64_t least;            /* characters */
	const char *email, *name; /* of the person, or NULL */
	const char *url;          /* of the installation, or NULL: its host name is no password */
	const char *blocklist;    /* auth.blocklist: sorted file, or "" */
};
/* 0, or E_BAD_INPUT that says what is wrong with a new password. */
int password_check(const char *password, const struct password_rules *, struct err *);
