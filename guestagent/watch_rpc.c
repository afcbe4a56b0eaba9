/*
 * watch_rpc.c - WatchDir, and watchers that are asked for their events (spec 06 §14.2).
 *
 * A stream that nobody reads stops its observer: the kernel then loses events and says so.
 */
#include "call.h"
#include "cleanup.h"
#include "handlers.h"
#include "observer.h"
#include "rpc.h"
#include "user.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

enum {
	EVENTS_MAX = 10000,
	EVENTS_BYTES = 4 * 1024 * 1024,      /* of one watcher */
	EVENTS_BYTES_ALL = 16 * 1024 * 1024, /* of all */
	WATCHERS_MAX = 64,
	UNASKED_MS =
	    10 * 60 * 1000, /* such a watcher gives way to another when there are too many */
};

static int
want_read(struct call *c, struct json_object *in, struct observed *want)
{
	const char *path = "";

	if (rpc_str(in, "path", &path, &c->err) < 0 ||
	    rpc_bool(in, "recursive", &want->recursive, &c->err) < 0 ||
	    rpc_bool(in, "includeEntry", &want->entries, &c->err) < 0 ||
	    rpc_bool(in, "allowNetworkMounts", &want->network, &c->err) < 0)
		return -1;
	want->user = user_of(c, NULL);
	if (!want->user)
		return -1;
	want->path = user_path(c, want->user, path, &c->err);
	return want->path ? 0 : -1;
}

/* ---- WatchDir */

struct stream {
	struct observer *observer;
	struct timer deadline;
};

static void
stream_end(struct call *c)
{
	struct stream *s = c->state;

	timer_stop(&s->deadline);
	TALLOC_FREE(s->observer);
	rpc_end(c);
}

static void
stream_event(void *arg, const struct buf *json)
{
	struct call *c = arg;
	struct stream *s = c->state;
	struct buf b = BUF(c);

	if (!json) {
		(void)err_set(&c->err, E_TOO_LARGE, "events were lost: too many at once");
		stream_end(c);
		return;
	}
	buf_str(&b, "{\"filesystem\":");
	buf_add(&b, json->data, json->len);
	buf_chr(&b, '}');
	rpc_send(c, &b);
	buf_clear(&b);
	if (call_full(c))
		observer_go(s->observer, false);
}

static void
stream_drain(struct call *c)
{
	struct stream *s = c->state;

	if (s->observer)
		observer_go(s->observer, true);
}

static void
stream_gone(struct call *c)
{
	struct stream *s = c->state;

	timer_stop(&s->deadline);
	TALLOC_FREE(s->observer);
}

static void
stream_late(void *arg)
{
	struct call *c = arg;

	(void)err_set(&c->err, E_DEADLINE, "the deadline passed");
	stream_end(c);
}

int
filesystem_watch_dir(struct call *c, struct json_object *in, struct buf *out)
{
	struct observed want = { .on_event = stream_event, .arg = c };
	struct stream *s = talloc_zero(c, struct stream);
	struct buf start = BUF(c);
	int64_t ms = rpc_timeout(c);

	(void)out;
	if (!s)
		abort();
	if (ms < 0 || want_read(c, in, &want) < 0)
		return -1;
	s->observer = observer_new(s, &want, &c->err);
	if (!s->observer)
		return -1;
	c->state = s;
	c->on_drain = stream_drain;
	c->on_gone = stream_gone;
	c->silence = "{\"keepalive\":{}}";
	s->deadline = (struct timer){ .fn = stream_late, .arg = c };
	if (ms)
		timer_set(&s->deadline, (uint64_t)ms);
	buf_str(&start, "{\"start\":{}}");
	rpc_send(c, &start);
	return 1;
}

/* ---- watchers */

struct event {
	struct event *next;
	size_t len;
	char json[];
};

struct watcher {
	struct watcher *next, **back;
	struct observer *observer; /* NULL: it lost events */
	char id[24];
	uint64_t asked;
	struct event *first, **last;
	size_t events, bytes;
	bool lost;
};

static struct watcher *watchers;
static size_t watchers_bytes;

static void
event_drop(struct watcher *w)
{
	struct event *e = w->first;

	w->first = e->next;
	if (!w->first)
		w->last = &w->first;
	w->events--;
	w->bytes -= e->len;
	watchers_bytes -= e->len;
	talloc_free(e);
}

static int
watcher_free(struct watcher *w)
{
	while (w->first)
		event_drop(w);
	*w->back = w->next;
	if (w->next)
		w->next->back = w->back;
	return 0;
}

static void
watcher_event(void *arg, const struct buf *json)
{
	struct watcher *w = arg;
	struct event *e = NULL;

	if (!json) {
		w->lost = true;
		TALLOC_FREE(w->observer);
		return;
	}
	e = talloc_size(w, sizeof *e + json->len);
	if (!e)
		abort();
	*e = (struct event){ .len = json->len };
	memcpy(e->json, json->data, json->len);
	*w->last = e;
	w->last = &e->next;
	w->events++;
	w->bytes += e->len;
	watchers_bytes += e->len;
	while (w->events > EVENTS_MAX || w->bytes > EVENTS_BYTES ||
	    (watchers_bytes > EVENTS_BYTES_ALL && w->events > 1))
		event_drop(w);
}

/* Room for one more: the one that was not asked for the longest time goes. */
static int
make_room(struct err *e)
{
	struct watcher *oldest = watchers;
	size_t n = 0;

	for (struct watcher *w = watchers; w; w = w->next, n++)
		if (w->asked < oldest->asked)
			oldest = w;
	if (n < WATCHERS_MAX)
		return 0;
	if (loop_now() - oldest->asked < UNASKED_MS)
		return err_set(e, E_TOO_LARGE, "too many watchers");
	talloc_free(oldest);
	return 0;
}

int
filesystem_create_watcher(struct call *c, struct json_object *in, struct buf *out)
{
	struct observed want = { .on_event = watcher_event };
	struct watcher *w = NULL;
	uint64_t id = 0;

	if (want_read(c, in, &want) < 0 || make_room(&c->err) < 0)
		return -1;
	w = talloc_zero(NULL, struct watcher);
	if (!w)
		abort();
	w->last = &w->first;
	w->asked = loop_now();
	want.arg = w;
	w->observer = observer_new(w, &want, &c->err);
	if (!w->observer) {
		talloc_free(w);
		return -1;
	}
	(void)getrandom(&id, sizeof id, 0);
	(void)snprintf(w->id, sizeof w->id, "w%016" PRIx64, id);
	w->next = watchers;
	w->back = &watchers;
	if (w->next)
		w->next->back = &w->next;
	watchers = w;
	talloc_set_destructor(w, watcher_free);
	buf_fmt(out, "{\"watcherId\":\"%s\"}", w->id);
	return 0;
}

static struct watcher *
watcher_find(struct call *c, struct json_object *in)
{
	const char *id = "";
	struct watcher *w = watchers;

	if (rpc_str(in, "watcherId", &id, &c->err) < 0)
		return NULL;
	while (w && strcmp(w->id, id) != 0)
		w = w->next;
	if (!w)
		(void)err_set(&c->err, E_NOT_FOUND, "watcher with id %.40s not found", id);
	return w;
}

int
filesystem_get_watcher_events(struct call *c, struct json_object *in, struct buf *out)
{
	struct watcher *w = watcher_find(c, in);

	if (!w)
		return -1;
	w->asked = loop_now();
	if (w->lost && !w->first)
		return err_set(&c->err, E_TOO_LARGE, "events were lost: too many at once");
	if (w->first)
		buf_str(out, "{\"events\":[");
	while (w->first) {
		buf_add(out, w->first->json, w->first->len);
		event_drop(w);
		buf_str(out, w->first ? "," : "]}");
	}
	return 0;
}

int
filesystem_remove_watcher(struct call *c, struct json_object *in, struct buf *out)
{
	struct watcher *w = watcher_find(c, in);

	(void)out;
	if (!w)
		return -1;
	talloc_free(w);
	return 0;
}

void
watchers_forget(void)
{
	while (watchers)
		talloc_free(watchers);
}
