/*
 * queue.h - Redis (hiredis): bells that wake workers, and buckets that count; never the only copy
 * of anything.
 *
 * One connection a process. It is made at first use, made anew after an error with growing pauses,
 * and its absence is never fatal: every caller has another way (PostgreSQL, or a local bucket).
 */
#pragma once
#include "conf.h"
#include <hiredis/hiredis.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>

struct queue;

struct queue *queue_open(void *mem, const struct conf *); /* does not connect yet */
void queue_close(struct queue *); /* before a fork's child goes its own way */

/* One command, printf style as redisCommand(). NULL: Redis is away or refused it (logged at debug).
 */
redisReply *queue_cmd(struct queue *, const char *fmt, ...);

static inline void
cleanup_reply(redisReply **r)
{
	if (*r)
		freeReplyObject(*r);
}
#define auto_reply __attribute__((cleanup(cleanup_reply))) redisReply

/* Several commands in one round trip: append each, then drain; how many went well. */
void queue_append(struct queue *, const char *fmt, ...);
int queue_drain(struct queue *);

/* Rings for a job: a push to hutch:q:<queue>, unless 1000 are in it. urgent jumps the line. */
void queue_push(struct queue *, const char *queue, const char *id, bool urgent);

/* Blocks for up to `seconds` and returns the next id on mem, which then also stands in the list
   `to`. NULL: none came, or Redis is away, or *stop became non-zero. */
const char *queue_take(struct queue *, void *mem, const char *queue, const char *to, int seconds,
    const volatile sig_atomic_t *stop);

/* Waits on a bell that has no content (BLPOP). True: it rang. False at once when Redis is away. */
bool
queue_bell_wait(struct queue *, const char *key, int seconds, const volatile sig_atomic_t *stop);
void queue_bell_ring(struct queue *, const char *key);

/* Deletes the entries of a stream that have one of the texts (ended by NULL) in them. How many they
   were; -1: Redis is away. */
int queue_stream_forget(struct queue *, const char *stream, const char *const *texts);

bool queue_up(struct queue *); /* is there a connection now? Does not try. */

/* Rate limits (spec 00 §3): a token bucket. */
struct rate {
	int64_t limit, remaining; /* bucket size, whole tokens left */
	int64_t reset_sec;        /* until the bucket is full again */
	int64_t retry_after;      /* until one token is there; 0 when allowed */
};

/*
 * Takes one token of the bucket `key`, which holds `burst` and gains `per_minute` a minute. 1:
 * allowed, 0: not. The bucket is in Redis (by its clock, one for all processes); while Redis is
 * away it is a local one of this process.
 */
int rate_take(struct queue *, const char *key, int64_t burst, int64_t per_minute, struct rate *ret);

/* The same for other windows: a bucket of `burst` that gains `tokens` in `window_sec`. look:
 * nothing is taken. */
struct bucket_rule {
	int64_t burst, tokens, window_sec;
	bool look;
};
int rate_bucket(struct queue *, const char *key, const struct bucket_rule *, struct rate *ret);
