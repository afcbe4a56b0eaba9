/*
 * password.h - password hashes: this file is the only one that knows their form (spec 01 §3).
 *
 * "h1:" + yescrypt of base64(SHA-384("hutch-password-1" 00 bytes)), since crypt(3) cuts at 511
 * bytes.
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
/* 0, or E_BAD_INPUT that says what is wrong with a new password. */
int password_check(
    const char *password, int64_t least, const char *email, const char *name, struct err *);
