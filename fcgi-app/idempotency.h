/*
 * idempotency.h - one Idempotency-Key, one effect (spec 00 §3): the record is in the transaction of
 * the effect, the first answer is given again for 24 hours.
 */
#pragma once
#include "request.h"

/* *replayed: the answer stands in the request already. -1: E_IDEMPOTENCY, E_CONFLICT (still
 * running). */
int idempotency_begin(struct request *, bool *replayed);
int idempotency_record(struct request *); /* before the commit */
int idempotency_update(struct request *); /* the answer got better after the commit */
