/*
 * token_seen.h - tokens that this process has verified, so that a client's second request costs no
 * signature.
 *
 * Only the signature and the claims are remembered; whether session, user and team still are good
 * the database is asked every time. Keyed by the whole token; exp is honoured at every look. The
 * process' keys and issuer never change in its life: a reload starts new processes.
 */
#pragma once
#include "token.h"

struct token_seen; /* not for threads */

struct token_seen *token_seen_new(void *mem);
/* As token_verify(); with `seen` NULL it is that. */
int token_seen_verify(struct token_seen *seen, void *mem, const struct keys *, enum token_type,
    const char *issuer, const char *text, struct token_claims *ret, struct err *);
