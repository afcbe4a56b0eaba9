/* storage_seal.h - the secret of a storage connection: sealed in its row, open only in memory. */
#pragma once
#include "crypto.h"
#include "s3.h"
#include "storage.q.h"

struct bytes
storage_seal(void *mem, const struct keys *, const struct uuid *connection, const char *secret);
/* Everything that a call needs; E_TAMPERED when the secret does not open. */
int storage_open(void *mem, const struct conf *, const struct keys *,
    const struct q_connection_secret *, struct s3 *ret, struct err *);
