/*
 * relay.c - numbers the events of the outbox, then tells the stream hutch:ev (spec 04 §1.2).
 *
 * Every machine has one; the lock on event_relay's row lets one work. Numbers and everything that
 * hangs on them are committed before the stream hears of them: what a crash swallows, the next
 * start repeats, and readers drop what they know.
 */
#include "worker.h"
#include "db.h"
#include "event.h"
#include "log.h"
#include "relay.q.h"

#include <string.h>

enum { BATCH = 500 };

static void
add_to_stream(struct process *p, struct work *w, const struct q_relayed *rows, int n)
{
	struct buf b = BUF(w);
	int i;

	for (i = 0; i < n; i++) {
		const struct q_relayed *r = &rows[i];

		buf_clear(&b);
		event_envelope(&b, EVENT_ROW(r));
		queue_append(p->queue, "XADD hutch:ev MAXLEN ~ 100000 * g %lld e %b",
		    (long long)r->gpos, b.data, b.len);
		if (i % 100 == 99)
			(void)queue_drain(p->queue);
	}
	(void)queue_drain(p->queue);
}

/* How many were numbered; -1: another relay is at work, or an error (logged). */
static int
turn(struct process *p, struct work *w, bool *active)
{
	struct q_relay_head *head;
	struct q_relayed *rows;
	int n;

	db_begin(p->db);
	n = q_relay_lock(p->db, &head);
	if (n == 0)
		*active = false;
	if (n != 1)
		return -1;
	if (!*active) { /* we have just become the one */
		n = q_relay_recent(p->db, &rows);
		if (n < 0)
			return -1;
		add_to_stream(p, w, rows, n);
		*active = true;
	}
	n = q_relay_take(p->db, &rows, .gpos = head->gpos);
	if (n <= 0)
		return n;
	if (q_relay_head_set(p->db, .gpos = head->gpos + n) < 0 || db_commit(p->db) < 0)
		return -1;
	add_to_stream(p, w, rows, n);
	return n;
}

int
relay_main(struct process *p)
{
	bool active = false;
	struct work *w;
	int n;

	while (!worker_stop) {
		n = -1;
		w = worker_unit(p);
		if (w) {
			n = turn(p, w, &active);
			if (w->err.code != E_OK)
				log_warn(NULL, "relay: %s", w->err.text);
			worker_unit_end(w);
		}
		if (n == BATCH)
			continue;
		if (!active || !queue_bell_wait(p->queue, "hutch:relay", 1, &worker_stop)) {
			if (!active || !queue_up(p->queue))
				worker_sleep(1000);
		}
	}
	return 0;
}
