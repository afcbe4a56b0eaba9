/* key_count.c - see key_count.h. Two counts take turns: one grows on the loop while a thread writes
 * the other. */
#include "key_count.h"

#include "gateway.h"
#include "key_use.h"
#include "principal.h"
#include "route.h"
#include "timer.h"

#include <pthread.h>
#include <stdlib.h>
#include <talloc.h>

struct key_count {
	struct gateway *gw;
	struct use_log *grows, *other;
	struct db *db;
	pthread_mutex_t db_lock; /* db and other are the thread's while it has it */
	uv_work_t req;
	bool writing;
	struct timer *timer;
};

static void write_later(struct key_count *);

static void
in_thread(uv_work_t *req)
{
	struct key_count *k = req->data;

	pthread_mutex_lock(&k->db_lock);
	key_use_write(k->other, k->db, true);
	pthread_mutex_unlock(&k->db_lock);
}

static void
after_thread(uv_work_t *req, int status)
{
	struct key_count *k = req->data;

	(void)status;
	k->writing = false;
	write_later(k); /* what came meanwhile, or what could not be written */
}

static void
on_timer(void *arg)
{
	struct key_count *k = arg;
	struct use_log *full = k->grows;

	TALLOC_FREE(k->timer);
	k->grows = k->other;
	k->other = full;
	k->writing = true;
	uv_queue_work(k->gw->loop, &k->req, in_thread, after_thread);
}

static void
write_later(struct key_count *k)
{
	int a = key_use_wait_ms(k->grows), b = k->writing ? -1 : key_use_wait_ms(k->other);
	int ms = a < 0 ? b : a;

	if (ms < 0 || k->writing || k->timer)
		return;
	if (a < 0) { /* only what failed is left */
		struct use_log *left = k->other;

		k->other = k->grows;
		k->grows = left;
	}
	k->timer = timer_start(k, k->gw->loop, (uint64_t)ms, 0, on_timer, k);
}

struct key_count *
key_count_open(void *mem, struct gateway *gw)
{
	const struct conf *c = gw->conf;
	struct key_count *k = talloc_zero(mem, struct key_count);

	if (!k)
		abort();
	*k = (struct key_count){ .gw = gw, .req.data = k };
	pthread_mutex_init(&k->db_lock, NULL);
	/* roots of their own: threads must not share a talloc tree */
	k->grows = key_use_new(NULL);
	k->other = key_use_new(NULL);
	k->db = db_open(NULL, c->db_work_url, "hutch-gateway", c->db_statement_timeout_ms);
	return k;
}

void
key_count(struct request *r)
{
	struct key_count *k = r->gw->key_count;

	if (!r->by_key || !r->route || r->reply.status == 401)
		return;
	key_use_count(k->grows, &(struct principal){ .key = &r->key }, r->ip, r->route->method,
	    r->route->path, r->reply.status);
	write_later(k);
}

void
key_count_end(struct key_count *k)
{
	pthread_mutex_lock(&k->db_lock); /* never unlocked: the process ends */
	key_use_write(k->grows, k->db, true);
	key_use_write(k->other, k->db, true);
}
