/* stream.c - see stream.h. */
#include "stream.h"

#include "back.h"
#include "cleanup.h"
#include "gateway.h"
#include "json.h"
#include "rights.h"
#include "route.h"
#include "tally.h"
#include "tally_all.h"
#include "timer.h"

#include <string.h>
#include <strings.h>
#include <talloc.h>

enum {
	LOSS_MS = 1000, /* between looks at a capsule whose guest broke off */
	LOSSES = 4,
	AGAIN_MS = 100,
	AGAIN_MAX = 100,
	STRANGERS = 128, /* sockets of an address that have not said yet who asks */
};

/* clang-format off */
static const struct {
	enum err_code error;
	int code;
} codes[] = {
	{ E_BAD_INPUT, WS_BAD }, { E_CONFLICT, WS_BAD }, { E_TOO_LARGE, WS_TOO_LARGE },
	{ E_UNAUTHORIZED, WS_UNAUTHORIZED }, { E_DEACTIVATED, WS_UNAUTHORIZED },
	{ E_FORBIDDEN, WS_FORBIDDEN }, { E_NO_TEAM, WS_FORBIDDEN }, { E_MUST_CHANGE, WS_FORBIDDEN }, { E_MFA_ENROLL, WS_FORBIDDEN },
	{ E_NOT_FOUND, WS_NOT_FOUND }, { E_BAD_STATE, WS_BAD_STATE }, { E_RATE, WS_SLOW },
	{ E_HOST_UNAVAILABLE, WS_LOST }, { E_UNAVAILABLE, WS_LOST }, { E_OVERLOADED, WS_LOST },
};
/* clang-format on */

static int
code_of(enum err_code e)
{
	for (size_t i = 0; i < nitems(codes); i++)
		if (codes[i].error == e)
			return codes[i].code;
	return WS_INTERNAL;
}

/* ---- the end */

static void
over(struct stream *s)
{
	if (s->phase == STREAM_OVER)
		return;
	s->phase = STREAM_OVER;
	TALLOC_FREE(s->right);
	TALLOC_FREE(s->timer);
	if (s->kind->gone && s->state)
		s->kind->gone(s);
}

void
stream_end(struct stream *s, int code, const char *reason)
{
	if (s->phase == STREAM_OVER)
		return;
	over(s);
	ws_close(s->ws, code, reason);
}

static void
fail_with(struct stream *s, int code, const char *slug, const char *text)
{
	if (s->phase == STREAM_OVER)
		return;
	over(s);
	ws_fail(s->ws, code, slug, text);
}

void
stream_fail(struct stream *s)
{
	const struct err *e = &s->r->work.err;

	fail_with(s, code_of(e->code), err_kinds[e->code].slug, err_public(e));
}

void
stream_send(struct stream *s, const struct buf *b)
{
	ws_send(s->ws, b->data, b->len);
}

void
stream_warn(struct stream *s, const struct err *e)
{
	struct buf b = BUF(s);

	buf_str(&b, "{\"type\":\"error\",\"data\":");
	buf_json(&b, err_public(e));
	buf_str(&b, ",\"code\":");
	buf_json(&b, err_kinds[e->code].slug);
	buf_str(&b, ",\"fatal\":false}");
	stream_send(s, &b);
	talloc_free(b.data);
}

/* ---- who may, and the capsule */

static void
told(void *arg, enum err_code code, const char *state)
{
	struct stream *s = arg;

	(void)state;
	switch (code) {
	case E_OK:
	case E_DB:
		return; /* after a loss: looked at again, or given up, by on_loss() */
	case E_UNAUTHORIZED:
		fail_with(s, WS_UNAUTHORIZED, "unauthorized", "the login or the key has ended");
		return;
	case E_NOT_FOUND:
		fail_with(s, WS_GONE, "not_found", "the capsule is gone");
		return;
	case E_BAD_STATE:
		fail_with(s, WS_GONE, "invalid_state",
		    "the capsule went to sleep, was rolled back or destroyed");
		return;
	case E_HOST_UNAVAILABLE:
		fail_with(s, WS_LOST, "host_unavailable", "the host is lost");
		return;
	default:
		fail_with(s, WS_FORBIDDEN, "forbidden", "you may not do this any more");
	}
}

static void
on_loss(void *arg)
{
	struct stream *s = arg;

	TALLOC_FREE(s->timer);
	if (s->phase == STREAM_OVER)
		return;
	if (++s->losses >= LOSSES) {
		fail_with(s, s->lost.code == E_RATE ? WS_SLOW : WS_LOST,
		    err_kinds[s->lost.code].slug, "the host or the guest is lost");
		return;
	}
	right_look(s->right);
	s->timer = timer_start(s, s->r->gw->loop, LOSS_MS, 0, on_loss, s);
}

void
stream_lost(struct stream *s, const struct err *e)
{
	if (s->phase == STREAM_OVER || s->losses)
		return;
	s->lost = *e;
	if (!s->right) {
		s->r->work.err = *e;
		stream_fail(s);
		return;
	}
	/* The row may be late: the host reports a sleep when it is done. */
	s->losses = 1;
	right_look(s->right);
	s->timer = timer_start(s, s->r->gw->loop, LOSS_MS, 0, on_loss, s);
}

static void
opened(struct request *r)
{
	struct stream *s = r->state;

	if (s->phase == STREAM_OVER)
		return;
	if (!s->right)
		s->right = right_watch(s, r->gw,
		    &(struct right_of){ .look = r->access->look,
			.key = r->access->key,
			.ip = r->ip,
			.access = r->access,
			.perm = r->route->may },
		    told, s);
	s->phase = STREAM_OPEN;
	if (s->kind->open(s, s->first) < 0)
		stream_fail(s);
	else
		ws_resume(s->ws);
}

static void
not_opened(struct request *r)
{
	struct stream *s = r->state;
	const struct err *e = &r->work.err;
	const char *state = r->access ? r->access->state : "unknown";

	if (e->code == E_NOT_FOUND)
		fail_with(s, WS_NOT_FOUND, "not_found", "sandbox not found");
	else if (e->code == E_BAD_STATE)
		fail_with(s, WS_BAD_STATE, "invalid_state",
		    talloc_asprintf(s, "sandbox is not running (status: %s)", state));
	else
		stream_fail(s);
}

/* Looks whether the capsule runs; one that policy put to sleep is woken. */
static void
look_and_open(struct stream *s)
{
	struct request *r = s->r;
	struct creds *c = talloc_zero(r, struct creds);

	s->phase = STREAM_LOOKING;
	if (s->absent) {
		fail_with(s, WS_NOT_FOUND, "not_found", "sandbox not found");
		return;
	}
	ws_pause(s->ws);
	if (strcmp(r->access->state, "running") == 0 && !s->tries) {
		opened(r);
		return;
	}
	if (!c)
		abort();
	c->known = talloc_memdup(c, &r->access->look, sizeof r->access->look);
	r->creds = c;
	r->work.err = (struct err){ 0 };
	access_look(r, &(struct access_ask){ .ok = opened, .no = not_opened });
}

static void
again(void *arg)
{
	struct stream *s = arg;

	TALLOC_FREE(s->timer);
	look_and_open(s);
}

void
stream_refused(struct stream *s, int status, struct json_object *json)
{
	struct request *r = s->r;

	if (s->phase == STREAM_OVER)
		return;
	r->slept = false;
	guest_refused(r, status, json);
	if (r->slept && s->tries++ < AGAIN_MAX) {
		TALLOC_FREE(s->right);
		TALLOC_FREE(s->timer);
		s->timer = timer_start(s, r->gw->loop, AGAIN_MS, 0, again, s);
		return;
	}
	if (r->slept)
		not_opened(r);
	else
		stream_fail(s);
}

/* ---- messages */

static void
within_limits(struct stream *s, void (*then)(void *, bool))
{
	struct request *r = s->r;
	const struct conf *c = r->gw->conf;
	const struct tally_ask asks[] = {
		{ talloc_asprintf(s, "streams:%s", r->access->id),
		    (size_t)c->gateway_capsule_streams },
		{ talloc_asprintf(s, "streams:%s", r->access->who),
		    (size_t)c->gateway_credential_streams },
	};

	tally_all_take(r->gw, s, asks, nitems(asks), then, s);
}

/* The one behind the WebSocket is known. */
static void
admitted(struct stream *s)
{
	TALLOC_FREE(s->timer);
	s->phase = STREAM_FIRST;
	if (!s->kind->begins)
		look_and_open(s);
}

static void
counted_open(void *arg, bool good)
{
	struct stream *s = arg;

	if (s->phase == STREAM_OVER)
		return;
	if (!good) {
		fail_with(s, WS_SLOW, "rate_limited", "too many streams at once");
		return;
	}
	admitted(s);
	if (s->phase == STREAM_FIRST)
		ws_resume(s->ws);
}

static void
auth_good(struct request *r)
{
	struct stream *s = r->state;

	if (s->phase != STREAM_OVER)
		within_limits(s, counted_open);
}

static void
auth_bad(struct request *r)
{
	struct stream *s = r->state;

	if (r->work.err.code == E_NOT_FOUND) {
		s->absent = true;
		admitted(s);
		if (s->phase == STREAM_FIRST)
			ws_resume(s->ws);
	} else if (r->work.err.code == E_UNAUTHORIZED) {
		fail_with(s, WS_UNAUTHORIZED, "unauthorized", "authentication failed");
	} else {
		stream_fail(s);
	}
}

static void
auth_message(struct stream *s, const char *type, struct json_object *json)
{
	const struct access_ask ask = { .ok = auth_good, .no = auth_bad, .any_state = true };

	if (!ws_door_said(s->r, type, json, &ask)) {
		fail_with(s, WS_UNAUTHORIZED, "unauthorized", "authentication failed");
		return;
	}
	TALLOC_FREE(s->timer);
	ws_pause(s->ws);
}

static void
auth_late(void *arg)
{
	fail_with(arg, WS_UNAUTHORIZED, "unauthorized", "authentication failed");
}

static void
on_text(struct ws *ws, const char *text, size_t n)
{
	struct stream *s = ws_arg(ws);
	void *mem = talloc_new(s);
	struct err e = { 0 };
	struct json_object *json = json_parse(mem, text, n, NULL, &e);
	const char *type = json && json_object_is_type(json, json_type_object)
	    ? json_str(json, "type", NULL)
	    : NULL;

	s->r->work.err = (struct err){ 0 };
	if (!json)
		fail_with(s, WS_BAD, "invalid_request", e.text);
	else if (!type)
		fail_with(s, WS_BAD, "invalid_request", "a message is an object with a \"type\"");
	else if (s->phase == STREAM_AUTH)
		auth_message(s, type, json);
	else if (s->phase == STREAM_FIRST && s->kind->begins(type)) {
		s->first = talloc_steal(s, mem) ? json : NULL;
		look_and_open(s);
		return;
	} else if (s->phase == STREAM_OPEN && s->kind->message(s, type, json) < 0)
		stream_fail(s);
	talloc_free(mem);
}

/* ---- the socket */

static void
on_open(struct ws *ws)
{
	struct stream *s = ws_arg(ws);

	if (s->phase == STREAM_AUTH)
		s->timer = timer_start(s, s->r->gw->loop, AUTH_MS, 0, auth_late, s);
	else
		admitted(s);
}

static void
on_room(struct ws *ws)
{
	struct stream *s = ws_arg(ws);

	if (s->phase == STREAM_OPEN && s->kind->room && s->state)
		s->kind->room(s);
}

static void
on_close(struct ws *ws, int code)
{
	(void)code;
	over(ws_arg(ws));
}

static const struct ws_events events = {
	.on_open = on_open,
	.on_text = on_text,
	.on_room = on_room,
	.on_close = on_close,
};

static struct stream *
accept_it(struct request *r)
{
	struct stream *s = r->state;

	s->ws = ws_accept(s, r, &events, s);
	if (!s->ws)
		reply_error(r);
	return s->ws ? s : NULL;
}

static void
counted(void *arg, bool good)
{
	struct stream *s = arg;
	struct request *r = s->r;

	if (!good) {
		reply_header(r, "Retry-After", "1");
		fail(r, E_RATE,
		    "more than %d streams at once to one capsule, or %d with one credential",
		    (int)r->gw->conf->gateway_capsule_streams,
		    (int)r->gw->conf->gateway_credential_streams);
		return;
	}
	s->phase = STREAM_FIRST;
	(void)accept_it(r);
}

static void
known(struct request *r)
{
	if (ws_asked(r))
		within_limits(r->state, counted);
	else
		reply_error(r);
}

static void
not_known(struct request *r)
{
	struct err e = r->work.err;
	struct stream *s = r->state;

	if (e.code != E_NOT_FOUND || !ws_asked(r)) {
		r->work.err = e;
		reply_error(r);
		return;
	}
	r->work.err = (struct err){ 0 };
	s->absent = true;
	s->phase = STREAM_FIRST;
	(void)accept_it(r);
}

/* ---- the handshake */

static bool
listed(const char *list, const char *origin)
{
	size_t n = strlen(origin);

	for (; *list; list += strspn(list, " ")) {
		size_t m = strcspn(list, " "), bare = m;

		while (bare && list[bare - 1] == '/')
			bare--;
		if (bare == n && strncasecmp(list, origin, n) == 0)
			return true;
		list += m;
	}
	return false;
}

bool
origin_allowed(const struct conf *c, const char *origin)
{
	const char *list = *c->gateway_origins ? c->gateway_origins : c->http_public_url;

	return !origin || listed(list, origin);
}

int
ws_door(struct request *r, const struct access_ask *ask)
{
	struct creds *c = creds_read(r);

	r->creds = c;
	r->ip = request_address(r, r);
	if (!origin_allowed(r->gw->conf, c->origin))
		return err_set(&r->work.err, E_FORBIDDEN, "the origin is not one that may connect");
	/* who acts for the Platform says so himself, in the first message (spec 02 §3.1) */
	if (creds_any(c) && !(r->route->flags & OF_PLATFORM)) {
		access_look(r, ask);
		request_admit(r);
		return 1;
	}
	if (!ws_asked(r)) {
		r->work.err = (struct err){ 0 };
		return err_set(&r->work.err, E_UNAUTHORIZED,
		    "a credential is needed: X-API-Key, or Authorization: Bearer");
	}
	if (!tally_take(&r->gw->strangers, r, r->ip ? r->ip : "", STRANGERS))
		return err_set(&r->work.err, E_RATE, "too many sockets that do not say who asks");
	return 0;
}

bool
ws_door_said(
    struct request *r, const char *type, struct json_object *json, const struct access_ask *ask)
{
	const char *token = json_str(json, "token", NULL);
	struct creds *c = NULL;

	if (strcmp(type, "auth") != 0 || !token)
		return false;
	c = talloc_zero(r, struct creds);
	if (!c)
		abort();
	c->bearer = talloc_strdup(c, token);
	r->creds = c;
	access_look(r, ask);
	return true;
}

int
stream_accept(struct request *r, const struct stream_kind *kind)
{
	struct stream *s = talloc_zero(r, struct stream);
	struct uuid id;
	int door = 0;

	if (!s)
		abort();
	*s = (struct stream){ .r = r, .kind = kind };
	r->state = s;
	door = ws_door(r, &(struct access_ask){ .ok = known, .no = not_known, .any_state = true });
	if (door != 0)
		return door < 0 ? -1 : 0;
	if (!id_read(r->param[0], "cl-", &id))
		return err_set(&r->work.err, E_BAD_INPUT,
		    "the capsule's id is not cl- and 25 characters of 0-9a-z");
	s->phase = STREAM_AUTH;
	request_admit(r);
	(void)accept_it(r);
	return 0;
}
