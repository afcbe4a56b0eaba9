/* server.c - see server.h. */
#include "server.h"

#include "call.h"
#include "cleanup.h"
#include "freeze.h"
#include "grow.h"
#include "handlers.h"
#include "identity.h"
#include "rpc.h"
#include "signature.h"
#include "text.h"

#include <nghttp2/nghttp2.h>
#include <stdlib.h>
#include <string.h>

enum { KB = 1024, MB = 1024 * 1024 };

/* Of all calls together: bytes that wait for callers before each gets less room, and messages. */
enum { QUEUED_ALL = 8 * MB, BODIES_ALL = 48 * MB };

static size_t bodies;

/* clang-format off */
static const struct route routes[] = {
	{ "GET",  "/health",                          CALL_WHOLE,  ANYONE, 0,       .fn = identity_health },
	{ "POST", "/init",                            CALL_WHOLE,  ANYONE, 1 * MB,  .fn = identity_init },
	{ "POST", "/freeze",                          CALL_WHOLE,  ANYONE, 1 * KB,  .fn = freeze_call },
	{ "POST", "/unfreeze",                        CALL_WHOLE,  ANYONE, 1 * KB,  .fn = freeze_undo_call },
	{ "POST", "/grow",                            CALL_WHOLE,  ANYONE, 1 * KB,  .fn = grow_call },
	{ "GET",  "/envs",                            CALL_WHOLE,  TOKEN,  0,       .fn = identity_envs },
	{ "GET",  "/stats",                           CALL_WHOLE,  ANYONE, 0,       .fn = stats_get },
	{ "GET",  "/metrics",                         CALL_WHOLE,  TOKEN,  0,       .fn = metrics_get },
	{ "GET",  "/ports",                           CALL_WHOLE,  TOKEN,  0,       .fn = ports_get },
	{ "GET",  "/files",                           CALL_WHOLE,  SIGNED, 0,       .fn = files_get },
	{ "POST", "/files",                           CALL_BODY,   SIGNED, 0,       .fn = files_post },
	{ "POST", "/files/compose",                   CALL_WHOLE,  TOKEN,  1 * MB,  .fn = files_compose },
	{ "POST", "/process.Process/Start",           CALL_STREAM, TOKEN,  16 * MB + 5, .rpc = process_rpc_start },
	{ "POST", "/process.Process/Connect",         CALL_STREAM, TOKEN,  64 * KB, .rpc = process_rpc_connect },
	{ "POST", "/process.Process/List",            CALL_UNARY,  TOKEN,  64 * KB, .rpc = process_rpc_list },
	{ "POST", "/process.Process/SendInput",       CALL_UNARY,  TOKEN,  16 * MB, .rpc = process_rpc_send_input },
	{ "POST", "/process.Process/StreamInput",     CALL_INPUT,  TOKEN,  0,       .fn = process_stream_input },
	{ "POST", "/process.Process/CloseStdin",      CALL_UNARY,  TOKEN,  64 * KB, .rpc = process_rpc_close_stdin },
	{ "POST", "/process.Process/SendSignal",      CALL_UNARY,  TOKEN,  64 * KB, .rpc = process_rpc_signal },
	{ "POST", "/process.Process/Update",          CALL_UNARY,  TOKEN,  64 * KB, .rpc = process_rpc_update },
	{ "POST", "/filesystem.Filesystem/Stat",      CALL_UNARY,  TOKEN,  64 * KB, .rpc = filesystem_stat },
	{ "POST", "/filesystem.Filesystem/MakeDir",   CALL_UNARY,  TOKEN,  64 * KB, .rpc = filesystem_make_dir },
	{ "POST", "/filesystem.Filesystem/Move",      CALL_UNARY,  TOKEN,  64 * KB, .rpc = filesystem_move },
	{ "POST", "/filesystem.Filesystem/Remove",    CALL_UNARY,  TOKEN,  64 * KB, .rpc = filesystem_remove },
	{ "POST", "/filesystem.Filesystem/ListDir",   CALL_UNARY,  TOKEN,  64 * KB, .rpc = filesystem_list_dir },
	{ "POST", "/filesystem.Filesystem/WatchDir",  CALL_STREAM, TOKEN,  64 * KB, .rpc = filesystem_watch_dir },
	{ "POST", "/filesystem.Filesystem/CreateWatcher", CALL_UNARY, TOKEN, 64 * KB, .rpc = filesystem_create_watcher },
	{ "POST", "/filesystem.Filesystem/GetWatcherEvents", CALL_UNARY, TOKEN, 64 * KB, .rpc = filesystem_get_watcher_events },
	{ "POST", "/filesystem.Filesystem/RemoveWatcher", CALL_UNARY, TOKEN, 64 * KB, .rpc = filesystem_remove_watcher },
};
/* clang-format on */

/* CONNECT has no path. */
static const struct route tunnel = { "CONNECT", "", CALL_BODY, TOKEN, 0, .fn = tunnel_connect };

const struct h2_limits server_limits = { .window = 128 * KB, .streams = 512 };

const char *
call_header(const struct call *c, const char *name)
{
	for (const struct h2_header *h = c->header; h->name; h++)
		if (strcmp(h->name, name) == 0)
			return h->value;
	return NULL;
}

const char *
call_query(struct call *c, const char *name)
{
	return text_query(c, c->query, name);
}

void
call_took(struct call *c, size_t n)
{
	if (c->stream)
		h2_consume(c->stream, n);
}

bool
call_full(const struct call *c)
{
	size_t most = H2_HIGH;

	if (h2_queued_all(h2_stream_session(c->stream)) >= QUEUED_ALL)
		most = H2_LOW;
	return h2_queued(c->stream) >= most;
}

void
call_reply(struct call *c, int status, const struct h2_header *extra, const void *body, size_t len)
{
	if (!c->stream || c->answered)
		return;
	c->answered = true;
	c->ended = true;
	h2_respond(c->stream, status, extra, len == 0);
	if (len) {
		h2_write(c->stream, body, len);
		h2_finish(c->stream);
	}
}

void
call_reply_json(struct call *c, const struct buf *b)
{
	static const struct h2_header type[] = { { "content-type", "application/json" },
		{ NULL, NULL } };

	if (b->len)
		call_reply(c, 200, type, b->data, b->len);
	else
		call_reply(c, 200, type, "{}", 2);
}

void
call_fail_as(struct call *c, int status, const char *code, const char *text)
{
	static const struct h2_header type[] = { { "content-type", "application/json" },
		{ NULL, NULL } };
	struct buf b = BUF(c);

	buf_str(&b, "{\"code\":");
	if (code)
		buf_json(&b, code);
	else
		buf_int(&b, status);
	buf_str(&b, ",\"message\":");
	buf_json(&b, text);
	buf_chr(&b, '}');
	c->discard = true;
	call_reply(c, status, type, b.data, b.len);
}

void
call_fail(struct call *c)
{
	call_fail_as(c, err_kinds[c->err.code].http, NULL, c->err.text);
}

static bool
is_rpc(enum call_kind kind)
{
	return kind == CALL_UNARY || kind == CALL_STREAM || kind == CALL_INPUT;
}

/* Refusals that come before any handler: plain calls get the number as code, RPCs Connect's word.
 */
static void
refuse(struct call *c, int status, const char *word, const char *text)
{
	call_fail_as(c, status, c->route && is_rpc(c->route->kind) ? word : NULL, text);
}

static const struct route *
route_find(const char *method, const char *path, size_t len, bool *known)
{
	for (size_t i = 0; i < nitems(routes); i++) {
		if (strlen(routes[i].path) != len || strncmp(routes[i].path, path, len) != 0)
			continue;
		*known = true;
		if (strcmp(routes[i].method, method) == 0)
			return &routes[i];
	}
	return NULL;
}

/* A service's method that is not there is Connect's "unimplemented", not a missing page. */
static void
refuse_unknown(struct call *c, const char *path, bool known)
{
	if (known)
		call_fail_as(c, 405, NULL, "method not allowed");
	else if (strncmp(path, "/process.Process/", 17) == 0 ||
	    strncmp(path, "/filesystem.Filesystem/", 23) == 0)
		call_fail_as(c, 501, "unimplemented", "no such method");
	else
		call_fail_as(c, 404, NULL, "no such path");
}

static struct call *
call_new(struct h2_stream *s, const struct h2_head *head)
{
	struct call *c = talloc_zero(NULL, struct call);
	const char *query = head->path ? strchr(head->path, '?') : NULL;
	size_t n = 0;

	if (!c)
		abort();
	c->stream = s;
	c->body = BUF(c);
	c->query = talloc_strdup(c, query ? query + 1 : "");
	while (head->header[n].name)
		n++;
	c->header = talloc_zero_array(c, struct h2_header, n + 1);
	if (!c->header || !c->query)
		abort();
	for (size_t i = 0; i < n; i++) {
		c->header[i].name = talloc_strdup(c->header, head->header[i].name);
		c->header[i].value = talloc_strdup(c->header, head->header[i].value);
	}
	h2_stream_set_user(s, c);
	return c;
}

static int
call_admit(struct call *c)
{
	const char *token = call_header(c, "x-access-token");

	if (c->route->access == ANYONE)
		return 0;
	if (identity_ready() && c->route->access == SIGNED && !token) {
		if (signature_check(c) == 0)
			return 0;
		call_fail(c);
	} else if (!identity_ready())
		refuse(c, 503, "unavailable", "the capsule is not ready yet");
	else if (!token || !identity_token_is(token))
		refuse(c, 401, "unauthenticated", "the access token is missing or wrong");
	else if (is_rpc(c->route->kind) && rpc_check_type(c) < 0)
		c->discard = true;
	else
		return 0;
	return -1;
}

static void
on_head(struct h2_stream *s, const struct h2_head *head)
{
	struct call *c = NULL;
	bool known = false;

	bool connect = head->method && !head->path && strcmp(head->method, "CONNECT") == 0;

	if (!connect && (!head->method || !head->path)) {
		h2_stream_set_user(s, NULL);
		h2_respond(s, 400, NULL, true);
		return;
	}
	c = call_new(s, head);
	c->route = connect ? &tunnel
			   : route_find(head->method, head->path, strcspn(head->path, "?"), &known);
	if (!c->route) {
		refuse_unknown(c, head->path, known);
		return;
	}
	if (call_admit(c) < 0)
		return;
	if (c->route->kind == CALL_BODY || c->route->kind == CALL_INPUT)
		c->route->fn(c);
}

/* What a stream of messages holds of one that is not complete. */
static void
count_input(struct call *c)
{
	bodies = bodies - c->counted + c->body.len;
	c->counted = c->body.len;
	if (bodies <= BODIES_ALL || c->discard)
		return;
	(void)err_set(&c->err, E_TOO_LARGE, "too many large messages at once");
	rpc_end(c);
}

static void
on_data(struct h2_stream *s, const uint8_t *p, size_t n)
{
	struct call *c = h2_stream_user(s);

	if (c && !c->discard && c->on_data) {
		c->on_data(c, p, n);
		if (c->route->kind == CALL_INPUT)
			count_input(c);
		return;
	}
	h2_consume(s, n);
	if (!c || c->discard)
		return;
	if (c->body.len + n > c->route->body_max || bodies + n > BODIES_ALL) {
		c->discard = true;
		if (bodies + n > BODIES_ALL)
			(void)err_set(&c->err, E_TOO_LARGE, "too many large messages at once");
		else
			(void)err_set(&c->err, E_TOO_LARGE, "the body is larger than %zu bytes",
			    c->route->body_max);
		buf_clear(&c->body);
		if (c->route->kind == CALL_STREAM)
			rpc_end(c);
		else if (is_rpc(c->route->kind))
			rpc_fail(c);
		else
			call_fail(c);
		return;
	}
	buf_add(&c->body, p, n);
	c->counted += n;
	bodies += n;
}

static void
on_end(struct h2_stream *s)
{
	struct call *c = h2_stream_user(s);

	if (!c || c->discard)
		return;
	switch (c->route->kind) {
	case CALL_WHOLE:
		c->route->fn(c);
		break;
	case CALL_UNARY:
		rpc_unary(c);
		break;
	case CALL_STREAM:
		rpc_stream(c);
		break;
	case CALL_BODY:
	case CALL_INPUT:
		if (c->on_end)
			c->on_end(c);
		break;
	}
}

static void
on_drain(struct h2_stream *s)
{
	struct call *c = h2_stream_user(s);

	if (c && c->on_drain)
		c->on_drain(c);
}

static void
on_close(struct h2_stream *s, uint32_t error)
{
	struct call *c = h2_stream_user(s);

	(void)error;
	if (!c)
		return;
	h2_stream_set_user(s, NULL);
	c->stream = NULL;
	timer_stop(&c->keepalive);
	bodies -= c->counted;
	if (c->on_gone)
		c->on_gone(c);
	talloc_free(c);
}

const struct h2_events server_events = {
	.on_head = on_head,
	.on_data = on_data,
	.on_end = on_end,
	.on_drain = on_drain,
	.on_close = on_close,
};
