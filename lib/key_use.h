/*
 * key_use.h - what API keys are used for: requests are counted in the process and written down
 * every 30 s, in transactions of their own; refusals of known keys are audited, one row per key and
 * reason in ten minutes.
 */
#pragma once
#include "db.h"
#include "principal.h"
#include "queue.h"
#include "work.h"

struct use_log; /* not for threads */

struct use_log *key_use_new(void *mem);
/* One request of a key, by its route ("GET", "/v1/capsules") and the answer's status. */
void key_use_count(struct use_log *, const struct principal *, const char *ip, const char *method,
    const char *path, int status);
/* Until the next writing is due; -1: nothing waits. For epoll. */
int key_use_wait_ms(const struct use_log *);
/* Writes when it is due, or now. What cannot be written is kept for the next time. db: role
 * hutch_work. */
void key_use_write(struct use_log *, struct db *db, bool now);

/*
 * The audit row api_key/use_denied of a refused key (who->denied is the reason), in a transaction
 * of its own. The unit's error stays as it is.
 */
int key_denied(struct work *, const struct principal *who, struct queue *);
