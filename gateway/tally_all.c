/*
 * tally_all.c - see tally_all.h.
 *
 * The loop counts its own in a tally; a thread asks and tells Redis, in the order of the loop's
 * words. A word has the process's whole count of a key, so that none that is lost does harm for
 * longer than the next one.
 */
#include "tally_all.h"

#include "cleanup.h"
#include "gateway.h"
#include "log.h"
#include "queue.h"
#include "tally.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <talloc.h>
#include <time.h>

enum {
	BEAT_SEC = 5,
	DEAD_SEC = 20,
	AGAIN_SEC = 300, /* everything is told again; */
	KEPT_SEC = 900,  /* what is not, Redis forgets */
	KEY_SIZE = 128,
	LEAVE_SEC = 1,
};

/* A word to Redis. Its own allocation: it wanders between threads. */
struct word {
	struct word *next;
	enum { WORD_TAKE, WORD_TELL, WORD_FORGOT } kind;
	char key[TALLY_ASKS][KEY_SIZE];
	int n[TALLY_ASKS], max[TALLY_ASKS]; /* hiredis knows no %zu */
	struct held *held;                  /* of the loop; NULL: gone meanwhile */
	bool good;
};

struct words {
	struct word *first, **end;
};

struct tally_all {
	struct gateway *gw;
	struct tally *own; /* of this process */
	uv_async_t answered;
	/* the thread's */
	struct queue *queue;
	char id[17];
	bool stale; /* Redis may not know what we have */
	time_t beat_at, told_at;
	/* both sides' */
	pthread_mutex_t lock;
	pthread_cond_t wake, gone;
	struct words asked, done;
	atomic_bool leaving;
	bool left;
};

/* What somebody holds, as long as his memory lives. */
struct held {
	struct tally_all *all;
	struct word *word; /* on its way, or NULL */
	void *shares;
	char key[TALLY_ASKS][KEY_SIZE];
	size_t n;
	void (*told)(void *, bool);
	void *arg;
};

/*
 * KEYS: the processes that live, then keys (or ""). ARGV: our id, seconds until a process is dead,
 * seconds to keep a key, then for each key how many we have with the new one, and how many there
 * may be.
 */
static const char take_script[] =
    "local now = tonumber(redis.call('TIME')[1])\n"
    "for i = 2, #KEYS do if KEYS[i] ~= '' then\n"
    "  local n = tonumber(ARGV[i * 2])\n"
    "  local all = redis.call('HGETALL', KEYS[i])\n"
    "  for j = 1, #all, 2 do if all[j] ~= ARGV[1] then\n"
    "    local beat = redis.call('ZSCORE', KEYS[1], all[j])\n"
    "    if beat and now - tonumber(beat) < tonumber(ARGV[2]) then n = n + tonumber(all[j + 1])\n"
    "    else redis.call('HDEL', KEYS[i], all[j]) end\n"
    "  end end\n"
    "  if n > tonumber(ARGV[i * 2 + 1]) then return 0 end\n"
    "end end\n"
    "for i = 2, #KEYS do if KEYS[i] ~= '' then\n"
    "  redis.call('HSET', KEYS[i], ARGV[1], ARGV[i * 2])\n"
    "  redis.call('EXPIRE', KEYS[i], ARGV[3])\n"
    "end end\n"
    "return 1";

/* 1: what we have told is still there. */
static const char beat_script[] =
    "local now = tonumber(redis.call('TIME')[1])\n"
    "redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now - tonumber(ARGV[2]))\n"
    "local known = redis.call('ZSCORE', KEYS[1], ARGV[1])\n"
    "redis.call('ZADD', KEYS[1], now, ARGV[1])\n"
    "return known and 1 or 0";

#define GATES "hutch:gates"
#define HELD  "hutch:held:"

/* ---- lists of words; under the lock */

static void
words_add(struct words *l, struct word *w)
{
	w->next = NULL;
	*l->end = w;
	l->end = &w->next;
}

static struct word *
words_take(struct words *l)
{
	struct word *first = l->first;

	*l = (struct words){ .end = &l->first };
	return first;
}

/* ---- in the thread */

static time_t
seconds(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec;
}

static void
ask(struct tally_all *a, struct word *w)
{
	auto_reply *r = queue_cmd(a->queue, "EVAL %s 3 " GATES " %s %s %s %d %d %d %d %d %d",
	    take_script, w->key[0], w->key[1], a->id, DEAD_SEC, KEPT_SEC, w->n[0], w->max[0],
	    w->n[1], w->max[1]);

	w->good = !r || r->integer == 1;
	a->stale = a->stale || !r;
}

static void
tell(struct tally_all *a, const struct word *w)
{
	if (!w->n[0]) {
		queue_append(a->queue, "HDEL %s %s", w->key[0], a->id);
		return;
	}
	queue_append(a->queue, "HSET %s %s %d", w->key[0], a->id, w->n[0]);
	queue_append(a->queue, "EXPIRE %s %d", w->key[0], KEPT_SEC);
}

static void
drained(struct tally_all *a, int words)
{
	if (words && queue_drain(a->queue) < words)
		a->stale = true;
}

static void
answer(struct tally_all *a, struct word *w)
{
	pthread_mutex_lock(&a->lock);
	words_add(&a->done, w);
	pthread_mutex_unlock(&a->lock);
	uv_async_send(&a->answered);
}

static void
work_off(struct tally_all *a, struct word *w)
{
	struct word *next = NULL;
	int pipelined = 0;

	for (; w; w = next) {
		next = w->next;
		if (w->kind == WORD_TELL) {
			tell(a, w);
			pipelined += w->n[0] ? 2 : 1;
			free(w);
			continue;
		}
		drained(a, pipelined);
		pipelined = 0;
		ask(a, w);
		answer(a, w);
	}
	drained(a, pipelined);
}

/* We live. Has Redis forgotten us, or not heard everything, the loop tells it again. */
static void
beat(struct tally_all *a)
{
	auto_reply *r =
	    queue_cmd(a->queue, "EVAL %s 1 " GATES " %s %d", beat_script, a->id, DEAD_SEC);
	time_t now = seconds();
	struct word *w = NULL;

	a->beat_at = now;
	if (!r || (r->integer == 1 && !a->stale && now - a->told_at < AGAIN_SEC))
		return;
	a->stale = false;
	a->told_at = now;
	w = calloc(1, sizeof *w);
	if (!w)
		abort();
	w->kind = WORD_FORGOT;
	answer(a, w);
}

/* The next words; NULL after at most a second. */
static struct word *
next_words(struct tally_all *a)
{
	struct timespec until;
	struct word *w = NULL;

	clock_gettime(CLOCK_REALTIME, &until);
	until.tv_sec++;
	pthread_mutex_lock(&a->lock);
	if (!a->asked.first && !a->leaving)
		pthread_cond_timedwait(&a->wake, &a->lock, &until);
	w = words_take(&a->asked);
	pthread_mutex_unlock(&a->lock);
	return w;
}

static void *
run(void *arg)
{
	struct tally_all *a = arg;

	beat(a);
	while (!a->leaving) {
		work_off(a, next_words(a));
		if (seconds() - a->beat_at >= BEAT_SEC)
			beat(a);
	}
	queue_append(a->queue, "ZREM " GATES " %s", a->id);
	(void)queue_drain(a->queue);
	pthread_mutex_lock(&a->lock);
	a->left = true;
	pthread_cond_signal(&a->gone);
	pthread_mutex_unlock(&a->lock);
	return NULL;
}

/* ---- on the loop */

static void
post(struct tally_all *a, struct word *w)
{
	pthread_mutex_lock(&a->lock);
	words_add(&a->asked, w);
	pthread_cond_signal(&a->wake);
	pthread_mutex_unlock(&a->lock);
}

static void
post_count(void *arg, const char *key, size_t n)
{
	struct word *w = calloc(1, sizeof *w);

	if (!w)
		abort();
	w->kind = WORD_TELL;
	snprintf(w->key[0], KEY_SIZE, "%s", key);
	w->n[0] = (int)n;
	post(arg, w);
}

static int
held_destroy(struct held *h)
{
	if (h->word)
		h->word->held = NULL;
	TALLOC_FREE(h->shares);
	for (size_t i = 0; i < h->n; i++)
		post_count(h->all, h->key[i], tally_count(h->all->own, h->key[i]));
	return 0;
}

static void
answered(struct tally_all *a, const struct word *w)
{
	struct held *h = w->held;

	if (w->kind == WORD_FORGOT) {
		tally_each(a->own, post_count, a);
	} else if (h) {
		void (*told)(void *, bool) = h->told;
		void *arg = h->arg;

		h->word = NULL;
		if (!w->good)
			talloc_free(h);
		told(arg, w->good);
	}
}

static void
on_answered(uv_async_t *async)
{
	struct tally_all *a = async->data;
	struct word *w = NULL, *next = NULL;

	pthread_mutex_lock(&a->lock);
	w = words_take(&a->done);
	pthread_mutex_unlock(&a->lock);
	for (; w; w = next) {
		next = w->next;
		answered(a, w);
		free(w);
	}
}

void
tally_all_take(struct gateway *gw, void *mem, const struct tally_ask *asks, size_t n,
    void (*told)(void *arg, bool good), void *arg)
{
	struct tally_all *a = gw->tally_all;
	struct held *h = talloc_zero(mem, struct held);
	struct word *w = calloc(1, sizeof *w);

	if (!h || !w)
		abort();
	*h =
	    (struct held){ .all = a, .shares = talloc_new(h), .told = told, .arg = arg, .word = w };
	*w = (struct word){ .kind = WORD_TAKE, .held = h };
	talloc_set_destructor(h, held_destroy);
	for (; h->n < n; h->n++) {
		snprintf(h->key[h->n], KEY_SIZE, HELD "%s", asks[h->n].key);
		if (!tally_take(&a->own, h->shares, h->key[h->n], asks[h->n].max)) {
			h->n = 0;
			TALLOC_FREE(h->shares);
			answer(a, w); /* not good: this process alone has too many */
			return;
		}
		memcpy(w->key[h->n], h->key[h->n], KEY_SIZE);
		w->n[h->n] = (int)tally_count(a->own, h->key[h->n]);
		w->max[h->n] = (int)asks[h->n].max;
	}
	post(a, w);
}

struct tally_all *
tally_all_open(void *mem, struct gateway *gw)
{
	struct tally_all *a = talloc_zero(mem, struct tally_all);
	uint64_t id = 0;
	pthread_t thread;

	if (!a || getrandom(&id, sizeof id, 0) != sizeof id)
		abort();
	*a = (struct tally_all){ .gw = gw,
		.queue = queue_open(NULL, gw->conf), /* threads must not share a talloc tree */
		.asked.end = &a->asked.first,
		.done.end = &a->done.first };
	snprintf(a->id, sizeof a->id, "%016llx", (unsigned long long)id);
	pthread_mutex_init(&a->lock, NULL);
	pthread_cond_init(&a->wake, NULL);
	pthread_cond_init(&a->gone, NULL);
	uv_async_init(gw->loop, &a->answered, on_answered);
	a->answered.data = a;
	uv_unref((uv_handle_t *)&a->answered);
	if (pthread_create(&thread, NULL, run, a) != 0)
		abort();
	pthread_detach(thread);
	return a;
}

void
tally_all_end(struct tally_all *a)
{
	struct timespec until;

	clock_gettime(CLOCK_REALTIME, &until);
	until.tv_sec += LEAVE_SEC;
	pthread_mutex_lock(&a->lock);
	a->leaving = true;
	pthread_cond_signal(&a->wake);
	while (!a->left && pthread_cond_timedwait(&a->gone, &a->lock, &until) == 0)
		;
	pthread_mutex_unlock(&a->lock);
}
