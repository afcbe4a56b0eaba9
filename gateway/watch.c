/* watch.c - GET …/files/watch: what happens in a directory of a capsule (spec 02 §3.5). */
#include "back.h"
#include "cleanup.h"
#include "connect.h"
#include "files.h"
#include "gateway.h"
#include "json.h"
#include "route.h"
#include "stream.h"

#include <string.h>
#include <talloc.h>

static handler watch_open;

struct watch_in {
	const char *path;
	bool recursive, entry;
};
/* clang-format off */
static const struct field watch_in_fields[] = {
	FIELD(watch_in, path, "path", .flags = IN_QUERY | NEEDED, .min = 1, .max = 4096),
	FIELD(watch_in, recursive, "recursive", .flags = IN_QUERY),
	FIELD(watch_in, entry, "entry", .flags = IN_QUERY, .doc = "Events have the entry as it is then."),
	{ 0 },
};

const struct route watch_routes[] = {
	CAPSULE_ROUTES("GET", "files/watch", PERM_capsules_connect, watch_open,
	    "A WebSocket with what happens in a directory", SOCKET, 101, .in = watch_in_fields, .insize = sizeof(struct watch_in), .ticket = "files"),
	{ 0 },
};

static const struct {
	const char *theirs, *ours;
} kinds[] = {
	{ "EVENT_TYPE_CREATE", "create" }, { "EVENT_TYPE_WRITE", "write" }, { "EVENT_TYPE_REMOVE", "remove" },
	{ "EVENT_TYPE_RENAME", "rename" }, { "EVENT_TYPE_CHMOD", "chmod" },
};
/* clang-format on */

enum { FRAME_MAX = 1 << 20 };

struct watch {
	struct stream *s;
	struct guest *g;
	struct connect frames;
	size_t owed; /* not consumed: the client is behind */
	bool again;  /* it was told that events were lost: the same watch goes on */
};

static int begin(struct stream *, bool again);

static void
say(struct watch *w, const char *text)
{
	ws_send(w->s->ws, text, strlen(text));
}

static void
on_event(struct watch *w, struct json_object *ev)
{
	const char *type = json_str(ev, "type", "");
	struct json_object *entry = json_get(ev, "entry");
	struct buf b = BUF(w);

	for (size_t i = 0; i < nitems(kinds); i++) {
		if (strcmp(kinds[i].theirs, type) != 0)
			continue;
		buf_fmt(&b, "{\"type\":\"event\",\"event\":\"%s\",\"name\":", kinds[i].ours);
		buf_json(&b, json_str(ev, "name", ""));
		if (entry) {
			buf_str(&b, ",\"entry\":");
			file_entry_put(&b, entry);
		}
		buf_chr(&b, '}');
		stream_send(w->s, &b);
		talloc_free(b.data);
	}
}

/* Events were lost: the client lists again, and the watch goes on. */
static void
on_overflow(struct watch *w)
{
	say(w, "{\"type\":\"overflow\"}");
	if (begin(w->s, true) < 0)
		stream_fail(w->s);
}

/* 0: go on; 1: it is over. */
static int
frame(void *arg, unsigned flags, const char *text, size_t n)
{
	struct watch *w = arg;
	struct stream *s = w->s;
	auto_talloc char *mem = talloc_new(s);
	struct json_object *json = json_parse(mem, text, n, NULL, &s->r->work.err);
	struct json_object *error = json ? json_get(json, "error") : NULL, *ev = NULL;

	if (!json) {
		(void)err_set(&s->r->work.err, E_AGENT, "the guest's frame is not JSON");
		stream_fail(s);
		return 1;
	}
	if (flags & CONNECT_LAST) {
		if (!error || !json_object_is_type(error, json_type_object))
			return 1;
		if (strcmp(json_str(error, "code", ""), "resource_exhausted") == 0)
			on_overflow(w);
		else
			stream_refused(s, 0, error);
		return 1;
	}
	if (json_get(json, "start") && !w->again)
		say(w, "{\"type\":\"started\"}");
	if ((ev = json_get(json, "filesystem")))
		on_event(w, ev);
	return s->phase == STREAM_OVER;
}

static void
on_refused(struct guest *g, int status, struct json_object *json)
{
	struct watch *w = guest_arg(g);

	stream_refused(w->s, status, json);
}

static void
on_data(struct guest *g, const uint8_t *data, size_t n)
{
	struct watch *w = guest_arg(g);
	struct stream *s = w->s;
	struct err e = { 0 };
	int rc = connect_feed(&w->frames, data, n, frame, w, &e);

	if (rc < 0) {
		s->r->work.err = e;
		stream_fail(s);
	}
	if (rc || s->state != w || s->phase == STREAM_OVER)
		return;
	w->owed += n;
	if (ws_queued(s->ws) < SOCK_HIGH) {
		guest_consume(g, w->owed);
		w->owed = 0;
	}
}

static void
on_fail(struct guest *g, const struct err *e)
{
	struct watch *w = guest_arg(g);

	w->g = NULL;
	if (w->s->state == w)
		stream_lost(w->s, e);
}

static void
on_end(struct guest *g)
{
	struct err e = { 0 };

	(void)err_set(&e, E_AGENT, "the guest watches no more");
	on_fail(g, &e);
}

static const struct guest_events events = {
	.on_refused = on_refused, .on_data = on_data, .on_end = on_end, .on_fail = on_fail
};

static int
begin(struct stream *s, bool again)
{
	const struct watch_in *in = s->r->in;
	struct watch *w = talloc_zero(s, struct watch);
	struct guest_call call = { .method = "POST",
		.path = "/filesystem.Filesystem/WatchDir",
		.type = "application/connect+json",
		.activity = "none" };
	struct buf message = BUF(s), framed = BUF(s);

	if (!w)
		abort();
	*w = (struct watch){ .s = s, .again = again };
	w->frames = (struct connect){ .part = BUF(w), .max = FRAME_MAX };
	buf_str(&message, "{\"path\":");
	buf_json(&message, in->path);
	buf_fmt(&message, ",\"recursive\":%s,\"includeEntry\":%s}",
	    in->recursive ? "true" : "false", in->entry ? "true" : "false");
	connect_frame(&framed, 0, message.data, message.len);
	w->g = guest_open(w, s->r, &call, &events, w);
	if (w->g) {
		guest_write(w->g, framed.data, framed.len);
		guest_finish(w->g);
		s->state = w;
	}
	talloc_free(message.data);
	talloc_free(framed.data);
	return w->g ? 0 : -1;
}

static int
open_watch(struct stream *s, struct json_object *first)
{
	(void)first;
	TALLOC_FREE(s->state);
	return begin(s, false);
}

static int
message(struct stream *s, const char *type, struct json_object *json)
{
	(void)json;
	if (strcmp(type, "stop") == 0)
		stream_end(s, WS_NORMAL, "stopped");
	return 0;
}

static void
room(struct stream *s)
{
	struct watch *w = s->state;

	if (w->owed && w->g)
		guest_consume(w->g, w->owed);
	w->owed = 0;
}

static void
gone(struct stream *s)
{
	struct watch *w = s->state;

	TALLOC_FREE(w->g);
}

static int
watch_open(struct request *r)
{
	static const struct stream_kind kind = {
		.open = open_watch, .message = message, .room = room, .gone = gone
	};
	const struct watch_in *in = r->in;

	if ((!in->path || !*in->path) && ws_asked(r))
		return err_set(&r->work.err, E_BAD_INPUT, "\"path\" is missing");
	r->work.err = (struct err){ 0 };
	return stream_accept(r, &kind);
}
