/*
 * events_ws.c - see events_ws.h: one JSON object per text frame (spec 04 §6).
 *
 * Who asks is said by a header, a ticket, or the first message {"type":"auth","token":…} within 5
 * s. Refused topics of a subscribe are named in its answer, when all of its topics are decided.
 */
#include "events_ws.h"

#include "access.h"
#include "events.h"
#include "json.h"
#include "stream.h"
#include "timer.h"
#include "ws.h"

#include <string.h>
#include <talloc.h>

enum { RETRY_S = 1 };

struct client {
	struct request *r;
	struct ws *ws;
	struct listener *l; /* once it is known who asks */
	struct timer *timer;
	bool over;
};

/* A subscribe whose topics are being looked at. */
struct asked {
	struct client *c;
	const char *id; /* the client's, or NULL */
	struct buf topics, refused;
	size_t left;
};

/* ---- to the client */

static void
put(struct client *c, const struct buf *b)
{
	if (!c->over)
		ws_send(c->ws, b->data, b->len);
}

static void
close_with(struct client *c, int code, const char *slug, const char *reason)
{
	struct buf b = BUF(c);

	if (c->over)
		return;
	buf_fmt(&b, "{\"type\":\"closing\",\"code\":\"%s\",\"reason\":", slug);
	buf_json(&b, reason);
	buf_fmt(&b, ",\"retry_after_s\":%d}", RETRY_S);
	put(c, &b);
	talloc_free(b.data);
	c->over = true;
	TALLOC_FREE(c->timer);
	ws_close(c->ws, code, reason);
}

static void
put_id(struct buf *b, const char *id)
{
	if (id) {
		buf_str(b, ",\"id\":");
		buf_json(b, id);
	}
}

static void
put_error(struct client *c, const char *id, enum err_code code, const char *text)
{
	struct buf b = BUF(c);

	buf_str(&b, "{\"type\":\"error\"");
	put_id(&b, id);
	buf_fmt(&b, ",\"code\":\"%s\",\"message\":", err_kinds[code].slug);
	buf_json(&b, text);
	buf_chr(&b, '}');
	put(c, &b);
	talloc_free(b.data);
}

static void
put_refused(struct buf *b, const char *topic, enum err_code code)
{
	buf_str(b, b->len ? ",{\"topic\":" : "{\"topic\":");
	buf_json(b, topic);
	buf_fmt(b, ",\"code\":\"%s\"}", err_kinds[code].slug);
}

/* Those whose answer was sent. One that ends the listener ends this, too. */
static void
let_go(struct listener *l)
{
	struct sub *next = NULL;

	for (struct sub *s = l->subs; s && !l->over; s = next) {
		next = s->next;
		if (s->held && !s->arg)
			sub_go(s);
	}
}

/* When all topics of the message are decided: the answer. */
static void
decided(struct asked *a)
{
	struct client *c = a->c;
	struct buf b = BUF(a);

	if (a->left)
		return;
	buf_str(&b, "{\"type\":\"subscribed\"");
	put_id(&b, a->id);
	buf_fmt(&b, ",\"topics\":[%s],\"refused\":[%s]}", a->topics.len ? a->topics.data : "",
	    a->refused.len ? a->refused.data : "");
	put(c, &b);
	for (struct sub *s = c->l->subs; s; s = s->next)
		if (s->arg == a)
			s->arg = NULL;
	talloc_free(a);
	let_go(c->l);
}

static void
ws_event(struct listener *l, struct sub *s, const struct topic *t, const struct happening *h)
{
	struct buf b = BUF(l);

	(void)s;
	buf_str(&b, "{\"type\":\"event\",\"topic\":");
	buf_json(&b, t->name);
	buf_str(&b, ",\"event\":");
	buf_add(&b, h->json, h->n);
	buf_chr(&b, '}');
	put(l->state, &b);
	talloc_free(b.data);
}

static void
ws_live(struct listener *l, const struct topic *t, const char *what, const char *json, size_t n)
{
	struct buf b = BUF(l);

	buf_str(&b, "{\"type\":\"live\",\"topic\":");
	buf_json(&b, t->name);
	buf_fmt(&b, ",\"live\":\"%s\",\"data\":", what);
	buf_add(&b, json, n);
	buf_chr(&b, '}');
	put(l->state, &b);
	talloc_free(b.data);
}

static size_t
client_queued(struct listener *l)
{
	struct client *c = l->state;

	return ws_queued(c->ws);
}

static void
begun(struct sub *s)
{
	struct asked *a = s->arg;

	if (a->topics.len)
		buf_chr(&a->topics, ',');
	buf_json(&a->topics, s->topic->name);
	a->left--;
	decided(a);
}

static void
refused(struct sub *s, enum err_code code)
{
	struct client *c = s->l->state;
	struct asked *a = s->arg;
	struct buf b = BUF(c);

	if (a && !s->held) {
		put_refused(&a->refused, s->topic->name, code);
		a->left--;
		decided(a);
		return;
	}
	buf_str(&b, "{\"type\":\"refused\",\"topic\":");
	buf_json(&b, s->topic->name);
	buf_fmt(&b, ",\"code\":\"%s\"}", err_kinds[code].slug);
	put(c, &b);
	talloc_free(b.data);
}

static void
gap(struct sub *s, const char *reason)
{
	struct client *c = s->l->state;
	struct buf b = BUF(c);

	buf_str(&b, "{\"type\":\"gap\",\"topic\":");
	buf_json(&b, s->topic->name);
	buf_fmt(&b, ",\"reason\":\"%s\"}", reason);
	put(c, &b);
	talloc_free(b.data);
}

static void
end(struct listener *l, int code, const char *reason, enum err_code e)
{
	close_with(l->state, code, err_kinds[e].slug, reason);
}

static const struct listener_kind ws_kind = { .event = ws_event,
	.live = ws_live,
	.queued = client_queued,
	.begun = begun,
	.refused = refused,
	.gap = gap,
	.end = end };

/* ---- messages */

/* The array's texts on mem, ended by NULL; NULL: not such an array, or more than max. */
static const char **
texts(void *mem, struct json_object *array, size_t max)
{
	size_t n = array && json_object_is_type(array, json_type_array)
	    ? json_object_array_length(array)
	    : max + 1;
	const char **list = n <= max ? talloc_zero_array(mem, const char *, n + 1) : NULL;

	for (size_t i = 0; list && i < n; i++) {
		struct json_object *one = json_object_array_get_idx(array, i);

		if (!json_object_is_type(one, json_type_string))
			return NULL;
		list[i] = talloc_strdup(list, json_object_get_string(one));
	}
	return list;
}

/* The subscription to this topic, if there is one. */
static struct sub *
find(struct listener *l, const char *topic)
{
	for (struct sub *s = l->subs; s; s = s->next)
		if (strcmp(s->topic->name, topic) == 0)
			return s;
	return NULL;
}

static void
subscribe_one(struct asked *a, const char *name, const char **filters, struct json_object *json)
{
	const char *since = json_str(json, "since", NULL);
	struct listener *l = a->c->l;
	struct sub *s = find(l, name);
	enum err_code denied = E_OK;
	struct topic t;

	if (s && s->state == SUB_ASKED) {
		put_refused(&a->refused, name, E_CONFLICT);
		return;
	}
	talloc_free(s); /* asked again: begins anew, with other filters */
	if (!topic_read(&t, name, &l->who)) {
		put_refused(&a->refused, name, E_NOT_FOUND);
		return;
	}
	denied = l->topics >= TOPICS_MAX ? E_RATE : topic_denied(&t, &l->who);
	if (denied != E_OK) {
		put_refused(&a->refused, name, denied);
		return;
	}
	s = sub_new(l, &t, 1);
	s->arg = a;
	s->metrics = json_object_get_boolean(json_get(json, "metrics"));
	if (filters) {
		size_t n = talloc_array_length(filters);

		s->filters = talloc_memdup(s, filters, n * sizeof *filters);
		for (size_t i = 0; i + 1 < n; i++)
			((const char **)s->filters)[i] = talloc_strdup(s, filters[i]);
	}
	if (since) {
		s->has_since = true;
		if (!id_read(since, "evt-", &s->since))
			s->since = uuid_zero;
	}
	a->left++;
	sub_start(s);
}

static void
subscribe(struct client *c, struct json_object *json, const char *id)
{
	struct json_object *events = json_get(json, "events");
	struct asked *a = talloc_zero(c, struct asked);
	const char **names = NULL, **filters = NULL;

	if (!a)
		abort();
	*a = (struct asked){ .c = c,
		.id = id ? talloc_strdup(a, id) : NULL,
		.topics = BUF(a),
		.refused = BUF(a),
		.left = 1 };
	names = texts(a, json_get(json, "topics"), TOPICS_MAX);
	filters = events ? texts(a, events, FILTERS_MAX) : NULL;
	if (!names || !*names || (events && !filters)) {
		put_error(c, id, E_BAD_INPUT, "topics: 1 to 20 texts; events: at most 50");
		talloc_free(a);
		return;
	}
	for (const char **f = filters; f && *f; f++)
		if (!filter_ok(*f)) {
			put_error(c, id, E_BAD_INPUT, "events: a name, prefix.* or *");
			talloc_free(a);
			return;
		}
	for (; *names; names++)
		subscribe_one(a, *names, filters, json);
	a->left--;
	decided(a);
}

static void
unsubscribe(struct client *c, struct json_object *json, const char *id)
{
	void *mem = talloc_new(c);
	const char **names = texts(mem, json_get(json, "topics"), TOPICS_MAX);
	struct buf b = BUF(mem);

	if (!names) {
		put_error(c, id, E_BAD_INPUT, "topics: at most 20 texts");
		talloc_free(mem);
		return;
	}
	buf_str(&b, "{\"type\":\"unsubscribed\"");
	put_id(&b, id);
	buf_str(&b, ",\"topics\":[");
	for (size_t i = 0; names[i]; i++) {
		struct sub *s = find(c->l, names[i]);

		if (!s || s->state == SUB_ASKED)
			continue;
		talloc_free(s);
		if (b.data[b.len - 1] != '[')
			buf_chr(&b, ',');
		buf_json(&b, names[i]);
	}
	buf_str(&b, "]}");
	put(c, &b);
	talloc_free(mem);
}

static void
message(struct client *c, const char *type, struct json_object *json)
{
	const char *id = json_str(json, "id", NULL);

	if (id && strlen(id) > 64) {
		put_error(c, NULL, E_BAD_INPUT, "id: at most 64 characters");
	} else if (strcmp(type, "subscribe") == 0) {
		subscribe(c, json, id);
	} else if (strcmp(type, "unsubscribe") == 0) {
		unsubscribe(c, json, id);
	} else if (strcmp(type, "ping") == 0) {
		struct buf b = BUF(c);

		buf_str(&b, "{\"type\":\"pong\"");
		put_id(&b, id);
		buf_chr(&b, '}');
		put(c, &b);
		talloc_free(b.data);
	} else {
		put_error(c, id, E_BAD_INPUT, "type is subscribe, unsubscribe or ping");
	}
}

/* ---- who asks */

static void
ready(struct listener *l)
{
	struct client *c = l->state;

	ws_resume(c->ws);
}

/* The listener, on a socket that is open. */
static void
listen_on(struct client *c)
{
	struct request *r = c->r;

	ws_pause(c->ws);
	c->l = listener_new(c, r, &ws_kind, ready);
	c->l->state = c;
}

static void
auth_good(struct request *r)
{
	struct client *c = r->state;

	if (!c->over)
		listen_on(c);
}

static void
auth_bad(struct request *r)
{
	enum err_code e = r->work.err.code;

	close_with(r->state,
	    e == E_UNAUTHORIZED ? WS_UNAUTHORIZED
		: e == E_RATE   ? WS_SLOW
				: WS_FORBIDDEN,
	    err_kinds[e].slug, err_public(&r->work.err));
}

static void
auth_message(struct client *c, const char *type, struct json_object *json)
{
	const struct access_ask ask = { .ok = auth_good, .no = auth_bad, .alone = true };

	if (!ws_door_said(c->r, type, json, &ask)) {
		close_with(c, WS_UNAUTHORIZED, "unauthorized", "authentication failed");
		return;
	}
	TALLOC_FREE(c->timer);
	ws_pause(c->ws);
}

static void
auth_late(void *arg)
{
	struct client *c = arg;

	TALLOC_FREE(c->timer);
	close_with(c, WS_UNAUTHORIZED, "unauthorized", "authentication failed");
}

/* ---- the socket */

static void
on_open(struct ws *ws)
{
	struct client *c = ws_arg(ws);

	if (c->r->access)
		listen_on(c);
	else
		c->timer = timer_start(c, c->r->gw->loop, AUTH_MS, 0, auth_late, c);
}

static void
on_text(struct ws *ws, const char *text, size_t n)
{
	struct client *c = ws_arg(ws);
	void *mem = talloc_new(c);
	struct err e = { 0 };
	struct json_object *json = NULL;
	const char *type = NULL;

	if (n > MESSAGE_MAX) {
		close_with(c, WS_TOO_LARGE, "too_large", "a message is at most 16 KiB");
		talloc_free(mem);
		return;
	}
	json = json_parse(mem, text, n, NULL, &e);
	type = json && json_object_is_type(json, json_type_object) ? json_str(json, "type", NULL)
								   : NULL;
	if (!type)
		put_error(c, NULL, E_BAD_INPUT, "a message is a JSON object with a type");
	else if (c->l)
		message(c, type, json);
	else
		auth_message(c, type, json);
	talloc_free(mem);
}

static void
on_room(struct ws *ws)
{
	struct client *c = ws_arg(ws);

	if (c->l && !c->over)
		subs_room(c->l);
}

static void
on_close(struct ws *ws, int code)
{
	struct client *c = ws_arg(ws);

	(void)code;
	c->over = true;
	TALLOC_FREE(c->timer);
	TALLOC_FREE(c->l);
}

static const struct ws_events socket_events = {
	.on_open = on_open, .on_text = on_text, .on_room = on_room, .on_close = on_close
};

static void
accept_it(struct client *c)
{
	c->ws = ws_accept(c, c->r, &socket_events, c);
	if (!c->ws)
		reply_error(c->r);
}

static void
known(struct request *r)
{
	if (ws_asked(r))
		accept_it(r->state);
	else
		reply_error(r);
}

int
events_ws(struct request *r)
{
	struct client *c = talloc_zero(r, struct client);
	int door = 0;

	if (!c)
		abort();
	c->r = r;
	r->state = c;
	door = ws_door(r, &(struct access_ask){ .ok = known, .no = reply_error, .alone = true });
	if (door != 0)
		return door < 0 ? -1 : 0;
	request_admit(r);
	accept_it(c);
	return 0;
}
