/* queue.c - see queue.h. */
#include "queue.h"
#include "buf.h"
#include "cleanup.h"
#include "idle.h"
#include "log.h"

#include <errno.h>
#include <math.h>
#include <poll.h>
#include <stdarg.h>
#include <string.h>
#include <time.h>

enum { LIST_MAX = 1000, BUCKETS = 1024 };

/* A bucket of this process, for the time without Redis. */
struct bucket {
	uint64_t key;
	double tokens;
	int64_t at_ms;
};

struct queue {
	const struct conf *conf;
	redisContext *redis;
	int64_t retry_at_ms; /* no connection is tried before */
	int64_t pause_ms;
	int appended;
	struct bucket *buckets;
	char push_sha[41], rate_sha[41];
};

/* A list holds at most LIST_MAX ids: what is more waits in PostgreSQL, and the sweeper feeds it. */
static const char push_script[] =
    "if redis.call('LLEN', KEYS[1]) >= tonumber(ARGV[2]) then return 0 end\n"
    "return redis.call(ARGV[3], KEYS[1], ARGV[1])";

/*
 * A token bucket, in milli-tokens, by Redis' own clock. KEYS[1] bucket; ARGV[1] burst, ARGV[2] per
 * minute. Answers {allowed, milli-tokens left}. The key dies when the bucket would be full again.
 */
static const char rate_script[] =
    "local t = redis.call('TIME')\n"
    "local now = t[1] * 1000 + math.floor(t[2] / 1000)\n"
    "local burst, per = tonumber(ARGV[1]) * 1000, tonumber(ARGV[2]) / tonumber(ARGV[3])\n"
    "local b = redis.call('HMGET', KEYS[1], 'n', 'at')\n"
    "local n = burst\n"
    "if b[1] then n = math.min(burst, tonumber(b[1]) + math.max(0, now - tonumber(b[2])) * per) "
    "end\n"
    "local ok = 0\n"
    "if n >= 1000 then n = n - 1000 * tonumber(ARGV[4]); ok = 1 end\n"
    "redis.call('HSET', KEYS[1], 'n', tostring(n), 'at', tostring(now))\n"
    "redis.call('PEXPIRE', KEYS[1], math.ceil((burst - n) / per) + 1000)\n"
    "return {ok, math.floor(n)}";

static int64_t
now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

static int
close_now(struct queue *q)
{
	queue_close(q);
	return 0;
}

struct queue *
queue_open(void *mem, const struct conf *conf)
{
	struct queue *q = talloc_zero(mem, struct queue);

	q->conf = conf;
	talloc_set_destructor(q, close_now);
	return q;
}

void
queue_close(struct queue *q)
{
	if (q->redis)
		redisFree(q->redis);
	q->redis = NULL;
	q->appended = 0;
	q->push_sha[0] = q->rate_sha[0] = '\0';
}

bool
queue_up(struct queue *q)
{
	return q->redis != NULL;
}

/* After an error a context is dead: it goes, and the next try comes after a pause that doubles up
 * to 2 s. */
static void
lost(struct queue *q, const char *why)
{
	log_debug(NULL, "redis: %s", why);
	queue_close(q);
	q->pause_ms = q->pause_ms ? (q->pause_ms < 1000 ? q->pause_ms * 2 : 2000) : 100;
	q->retry_at_ms = now_ms() + q->pause_ms;
}

static void
connect_now(struct queue *q)
{
	const char *where = q->conf->redis_socket, *colon = strrchr(where, ':');
	int64_t ms = q->conf->redis_timeout_ms;
	struct timeval tv = { ms / 1000, ms % 1000 * 1000 };
	char host[256];

	if (*where == '/') {
		q->redis = redisConnectUnixWithTimeout(where, tv);
	} else {
		snprintf(host, sizeof host, "%.*s", colon ? (int)(colon - where) : 255, where);
		q->redis = redisConnectWithTimeout(
		    host, colon ? (int)strtol(colon + 1, NULL, 10) : 6379, tv);
	}
	if (!q->redis)
		return;
	if (q->redis->err || redisSetTimeout(q->redis, tv) != REDIS_OK) {
		lost(q, q->redis->errstr);
		return;
	}
}

static bool
ready(struct queue *q)
{
	if (q->redis && !q->redis->err && (q->appended || !idle_ended(q->redis->fd)))
		return true;
	if (q->redis && q->redis->err)
		lost(q, q->redis->errstr);
	else
		queue_close(q);
	if (now_ms() < q->retry_at_ms)
		return false;
	connect_now(q);
	return q->redis != NULL;
}

static redisReply *
checked(struct queue *q, redisReply *r)
{
	if (!r) {
		lost(q, q->redis->errstr);
		return NULL;
	}
	q->pause_ms = 0;
	if (r->type == REDIS_REPLY_ERROR) {
		log_debug(NULL, "redis: %s", r->str);
		freeReplyObject(r);
		return NULL;
	}
	return r;
}

redisReply *
queue_cmd(struct queue *q, const char *fmt, ...)
{
	redisReply *r;
	va_list ap;

	if (!ready(q))
		return NULL;
	va_start(ap, fmt);
	r = redisvCommand(q->redis, fmt, ap);
	va_end(ap);
	return checked(q, r);
}

void
queue_append(struct queue *q, const char *fmt, ...)
{
	va_list ap;

	if (!ready(q))
		return;
	va_start(ap, fmt);
	if (redisvAppendCommand(q->redis, fmt, ap) == REDIS_OK)
		q->appended++;
	va_end(ap);
}

int
queue_drain(struct queue *q)
{
	void *r = NULL;
	int good = 0;

	while (q->redis && q->appended > 0) {
		q->appended--;
		if (redisGetReply(q->redis, &r) != REDIS_OK) {
			lost(q, q->redis->errstr);
			break;
		}
		good += ((redisReply *)r)->type != REDIS_REPLY_ERROR;
		freeReplyObject(r);
	}
	q->appended = 0;
	return good;
}

/* The script's digest, loaded once a connection; "" when Redis is away. */
static const char *
script(struct queue *q, char sha[41], const char *text)
{
	if (!*sha) {
		auto_reply *r = queue_cmd(q, "SCRIPT LOAD %s", text);

		if (r && r->type == REDIS_REPLY_STRING && r->len == 40)
			snprintf(sha, 41, "%s", r->str);
	}
	return sha;
}

void
queue_push(struct queue *q, const char *queue, const char *id, bool urgent)
{
	const char *sha = script(q, q->push_sha, push_script);
	redisReply *r;

	if (!*sha)
		return;
	r = queue_cmd(q, "EVALSHA %s 1 hutch:q:%s %s %d %s", sha, queue, id, LIST_MAX,
	    urgent ? "RPUSH" : "LPUSH");
	if (r)
		freeReplyObject(r);
	else
		q->push_sha[0] = '\0'; /* a flush of scripts: load it again next time */
}

/* Waits for the answer of a blocking command, longer than redis.timeout_ms, but not past a signal.
 */
static redisReply *
blocking_answer(struct queue *q, int seconds, const volatile sig_atomic_t *stop)
{
	int64_t end = now_ms() + seconds * 1000 + q->conf->redis_timeout_ms;
	struct pollfd p = { .fd = q->redis->fd, .events = POLLIN };
	void *r = NULL;
	int done = 0, n;

	while (!done)
		if (redisBufferWrite(q->redis, &done) != REDIS_OK) {
			lost(q, q->redis->errstr);
			return NULL;
		}
	for (;;) {
		int64_t left = end - now_ms();

		if (*stop || left <= 0)
			break;
		/* a signal that comes just before poll() is seen at the next second */
		n = poll(&p, 1, left < 1000 ? (int)left : 1000);
		if (n > 0) {
			if (redisGetReply(q->redis, &r) != REDIS_OK) {
				lost(q, q->redis->errstr);
				return NULL;
			}
			return checked(q, r);
		}
	}
	queue_close(q); /* the command is still open there: only a new connection is clean */
	return NULL;
}

const char *
queue_take(struct queue *q, void *mem, const char *queue, const char *to, int seconds,
    const volatile sig_atomic_t *stop)
{
	redisReply *r;
	const char *id = NULL;

	if (!ready(q))
		return NULL;
	if (redisAppendCommand(
		q->redis, "BLMOVE hutch:q:%s %s RIGHT LEFT %d", queue, to, seconds) != REDIS_OK)
		return NULL;
	r = blocking_answer(q, seconds, stop);
	if (r && r->type == REDIS_REPLY_STRING)
		id = talloc_strndup(mem, r->str, r->len);
	if (r)
		freeReplyObject(r);
	return id;
}

bool
queue_bell_wait(struct queue *q, const char *key, int seconds, const volatile sig_atomic_t *stop)
{
	redisReply *r;
	bool rang;

	if (!ready(q) || redisAppendCommand(q->redis, "BLPOP %s %d", key, seconds) != REDIS_OK)
		return false;
	r = blocking_answer(q, seconds, stop);
	rang = r && r->type == REDIS_REPLY_ARRAY;
	if (r)
		freeReplyObject(r);
	return rang;
}

void
queue_bell_ring(struct queue *q, const char *key)
{
	queue_append(q, "LPUSH %s 1", key);
	queue_append(q, "LTRIM %s 0 0", key);
	(void)queue_drain(q);
}

static bool
has_text(const redisReply *entry, const char *const *texts)
{
	const redisReply *fields = entry->element[1];
	size_t i;
	int t;

	for (i = 0; i < fields->elements; i++)
		for (t = 0; texts[t]; t++)
			if (strstr(fields->element[i]->str, texts[t]))
				return true;
	return false;
}

int
queue_stream_forget(struct queue *q, const char *stream, const char *const *texts)
{
	char from[64] = "-";
	int gone = 0;
	size_t i;

	for (;;) {
		auto_reply *r = queue_cmd(q, "XRANGE %s %s + COUNT 500", stream, from);

		if (!r || r->type != REDIS_REPLY_ARRAY)
			return -1;
		for (i = 0; i < r->elements; i++) {
			const redisReply *e = r->element[i];

			snprintf(from, sizeof from, "(%s", e->element[0]->str);
			if (!has_text(e, texts))
				continue;
			queue_append(q, "XDEL %s %s", stream, e->element[0]->str);
			gone++;
		}
		(void)queue_drain(q);
		if (!r->elements)
			return gone;
	}
}

static void
rate_fill(struct rate *ret, bool ok, double tokens, const struct bucket_rule *rule)
{
	double each = (double)rule->window_sec / (double)rule->tokens;

	ret->limit = rule->burst;
	ret->remaining = (int64_t)tokens;
	ret->reset_sec = (int64_t)ceil(((double)rule->burst - tokens) * each);
	ret->retry_after = ok ? 0 : (int64_t)ceil((1 - tokens) * each);
	if (!ok && ret->retry_after < 1)
		ret->retry_after = 1;
}

/* The table is small and keyed by a hash: two keys in one place push each other out, which is
 * generous. */
static int
rate_local(struct queue *q, const char *key, const struct bucket_rule *rule, struct rate *ret)
{
	uint64_t hash = 14695981039346656037u;
	struct bucket *b;
	const char *p;
	int64_t now = now_ms();
	bool ok;

	for (p = key; *p; p++)
		hash = (hash ^ (uint8_t)*p) * 1099511628211u;
	if (!q->buckets)
		q->buckets = talloc_zero_array(q, struct bucket, BUCKETS);
	b = &q->buckets[hash % BUCKETS];
	if (b->key != hash || !b->at_ms)
		*b = (struct bucket){ hash, (double)rule->burst, now };
	b->tokens +=
	    (double)(now - b->at_ms) * (double)rule->tokens / ((double)rule->window_sec * 1000);
	if (b->tokens > (double)rule->burst)
		b->tokens = (double)rule->burst;
	b->at_ms = now;
	ok = b->tokens >= 1;
	if (ok && !rule->look)
		b->tokens -= 1;
	rate_fill(ret, ok, b->tokens, rule);
	return ok;
}

int
rate_bucket(struct queue *q, const char *key, const struct bucket_rule *rule, struct rate *ret)
{
	const char *sha = script(q, q->rate_sha, rate_script);
	redisReply *r = NULL;
	bool ok;

	if (*sha)
		r = queue_cmd(q, "EVALSHA %s 1 hutch:rate:%s %lld %lld %lld %d", sha, key,
		    (long long)rule->burst, (long long)rule->tokens, (long long)rule->window_sec,
		    !rule->look);
	if (!r || r->type != REDIS_REPLY_ARRAY || r->elements != 2) {
		if (r)
			freeReplyObject(r);
		q->rate_sha[0] = '\0';
		return rate_local(q, key, rule, ret);
	}
	ok = r->element[0]->integer == 1;
	rate_fill(ret, ok, (double)r->element[1]->integer / 1000, rule);
	freeReplyObject(r);
	return ok;
}

int
rate_take(struct queue *q, const char *key, int64_t burst, int64_t per_minute, struct rate *ret)
{
	return rate_bucket(q, key,
	    &(struct bucket_rule){ .burst = burst, .tokens = per_minute, .window_sec = 60 }, ret);
}
