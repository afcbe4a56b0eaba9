/* rpc.c - see rpc.h. */
#include "rpc.h"

#include "cleanup.h"
#include "json.h"
#include "text.h"

#include <stdlib.h>
#include <string.h>

enum { FRAME_MAX = 16 * 1024 * 1024, KEEPALIVE_S = 90 };
enum { FLAG_COMPRESSED = 1, FLAG_END = 2 };

/* Connect's name and HTTP status of our errors; what is not here is internal. */
static const struct {
	enum err_code code;
	const char *name;
	int http;
} codes[] = {
	{ E_BAD_INPUT, "invalid_argument", 400 },
	{ E_TOO_LARGE, "resource_exhausted", 429 },
	{ E_NO_SPACE, "resource_exhausted", 429 },
	{ E_NOT_FOUND, "not_found", 404 },
	{ E_CONFLICT, "already_exists", 409 },
	{ E_BAD_STATE, "failed_precondition", 400 },
	{ E_FORBIDDEN, "permission_denied", 403 },
	{ E_UNAUTHORIZED, "unauthenticated", 401 },
	{ E_UNSUPPORTED, "unimplemented", 501 },
	{ E_UNAVAILABLE, "unavailable", 503 },
	{ E_DEADLINE, "deadline_exceeded", 504 },
	{ E_CANCELLED, "canceled", 499 },
};

static const char *
rpc_code(enum err_code code, int *http)
{
	for (size_t i = 0; i < nitems(codes); i++) {
		if (codes[i].code != code)
			continue;
		*http = codes[i].http;
		return codes[i].name;
	}
	*http = 500;
	return "internal";
}

static bool
type_is(const char *value, const char *type)
{
	size_t n = strlen(type);

	return value && strncasecmp(value, type, n) == 0 &&
	    (value[n] == '\0' || value[n] == ';' || value[n] == ' ');
}

int
rpc_check_type(struct call *c)
{
	const char *want =
	    c->route->kind == CALL_UNARY ? "application/json" : "application/connect+json";
	struct h2_header accept[] = { { "accept-post", want }, { NULL, NULL } };

	if (type_is(call_header(c, "content-type"), want))
		return 0;
	call_reply(c, 415, accept, NULL, 0);
	return -1;
}

static int
parse(struct call *c, void *mem, const char *text, size_t len, struct json_object **ret)
{
	*ret = json_parse(mem, text, len, NULL, &c->err);
	if (!*ret)
		return -1;
	if (!json_object_is_type(*ret, json_type_object))
		return err_set(&c->err, E_BAD_INPUT, "the message is not an object");
	return 0;
}

void
rpc_unary(struct call *c)
{
	struct buf out = BUF(c);
	const char *coding = call_header(c, "content-encoding");
	struct json_object *in = NULL;
	int rc = -1;

	if (coding && strcasecmp(coding, "identity") != 0)
		rc = err_set(&c->err, E_UNSUPPORTED, "compressed messages are not supported");
	else if (parse(c, c, c->body.data ? c->body.data : "", c->body.len, &in) == 0)
		rc = c->route->rpc(c, in, &out);
	if (rc < 0)
		rpc_fail(c);
	else if (rc == 0)
		rpc_reply(c, &out);
}

int
rpc_frame(struct call *c, void *mem, struct json_object **in)
{
	const uint8_t *p = (const uint8_t *)c->body.data;
	uint32_t len = 0;
	int rc = 0;

	if (c->body.len < 5)
		return 0;
	len = (uint32_t)p[1] << 24 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 8 | p[4];
	if (p[0] & FLAG_COMPRESSED)
		return err_set(&c->err, E_UNSUPPORTED, "compressed messages are not supported");
	if (p[0])
		return err_set(&c->err, E_BAD_INPUT, "unknown frame flags");
	if (len > FRAME_MAX)
		return err_set(&c->err, E_TOO_LARGE, "a message is larger than 16 MiB");
	if (c->body.len - 5 < len)
		return 0;
	rc = parse(c, mem, c->body.data + 5, len, in);
	buf_cut(&c->body, 5 + (size_t)len);
	return rc < 0 ? -1 : 1;
}

void
rpc_stream(struct call *c)
{
	struct json_object *in = NULL;
	int rc = rpc_frame(c, c, &in);

	if (rc == 0)
		rc = err_set(&c->err, E_BAD_INPUT, "the request has no message");
	else if (rc > 0 && c->body.len)
		rc = err_set(&c->err, E_BAD_INPUT, "the request has more than one message");
	else if (rc > 0)
		rc = c->route->rpc(c, in, NULL);
	buf_clear(&c->body);
	if (rc < 0)
		rpc_end(c);
}

void
rpc_reply(struct call *c, const struct buf *out)
{
	struct buf none = BUF(c);

	if (c->route->kind == CALL_UNARY) {
		call_reply_json(c, out);
		return;
	}
	rpc_send(c, out && out->len ? out : &none);
	rpc_end(c);
}

static void
put_error(struct buf *b, const char *code, const char *text)
{
	buf_str(b, "{\"code\":");
	buf_json(b, code);
	buf_str(b, ",\"message\":");
	buf_json(b, text);
	buf_chr(b, '}');
}

void
rpc_fail(struct call *c)
{
	struct h2_header type[] = { { "content-type", "application/json" }, { NULL, NULL } };
	struct buf b = BUF(c);
	int http = 0;
	const char *code = rpc_code(c->err.code, &http);

	put_error(&b, code, c->err.text);
	c->discard = true;
	call_reply(c, http, type, b.data, b.len);
}

static void
frame(struct call *c, uint8_t flags, const char *data, size_t len)
{
	uint8_t head[5] = { flags, (uint8_t)(len >> 24), (uint8_t)(len >> 16), (uint8_t)(len >> 8),
		(uint8_t)len };
	static const struct h2_header type[] = { { "content-type", "application/connect+json" },
		{ NULL, NULL } };

	if (!c->stream || c->ended)
		return;
	if (!c->answered)
		h2_respond(c->stream, 200, type, false);
	c->answered = true;
	h2_write(c->stream, head, sizeof head);
	h2_write(c->stream, data, len);
}

static void
keepalive_due(void *arg)
{
	struct call *c = arg;
	const char *message = c->silence ? c->silence : "{\"event\":{\"keepalive\":{}}}";

	/* A full queue is no silence: the client is slow, not waiting. */
	if (c->stream && h2_queued(c->stream) == 0)
		frame(c, 0, message, strlen(message));
	timer_set(&c->keepalive, c->keepalive_ms);
}

static void
keepalive_begin(struct call *c)
{
	const char *text = call_header(c, "keepalive-ping-interval");
	int64_t s = KEEPALIVE_S;
	struct err ignore = { 0 };

	if (text && text_int(text, 1, 86400, &s, &ignore) < 0)
		s = KEEPALIVE_S;
	c->keepalive_ms = (uint64_t)s * 1000;
	c->keepalive.fn = keepalive_due;
	c->keepalive.arg = c;
}

void
rpc_send(struct call *c, const struct buf *message)
{
	if (c->route->kind == CALL_STREAM && !c->keepalive_ms)
		keepalive_begin(c);
	frame(c, 0, message->len ? message->data : "{}", message->len ? message->len : 2);
	if (c->keepalive_ms && c->stream)
		timer_set(&c->keepalive, c->keepalive_ms);
}

void
rpc_end(struct call *c)
{
	struct buf b = BUF(c);
	int http = 0;

	timer_stop(&c->keepalive);
	if (c->err.code != E_OK) {
		buf_str(&b, "{\"error\":");
		put_error(&b, rpc_code(c->err.code, &http), c->err.text);
		buf_chr(&b, '}');
	} else {
		buf_str(&b, "{}");
	}
	frame(c, FLAG_END, b.data, b.len);
	c->discard = true;
	c->ended = true;
	if (c->stream)
		h2_finish(c->stream);
}

int64_t
rpc_timeout(struct call *c)
{
	const char *text = call_header(c, "connect-timeout-ms");
	int64_t ms = 0;

	if (!text)
		return 0;
	if (text_int(text, 1, INT64_C(9999999999), &ms, &c->err) < 0)
		return -1;
	return ms;
}

/* ---- reading messages ---- */

static int
member(struct json_object *o, const char *name, enum json_type type, struct json_object **ret,
    struct err *e)
{
	struct json_object *v = NULL;

	if (!o || !json_object_object_get_ex(o, name, &v) || !v)
		return 0;
	if (!json_object_is_type(v, type))
		return err_set(e, E_BAD_INPUT, "\"%s\" is not %s", name,
		    type == json_type_string        ? "a text"
			: type == json_type_boolean ? "true or false"
			: type == json_type_array   ? "a list"
						    : "an object");
	*ret = v;
	return 1;
}

int
rpc_str(struct json_object *o, const char *name, const char **ret, struct err *e)
{
	struct json_object *v = NULL;
	int rc = member(o, name, json_type_string, &v, e);

	if (rc > 0)
		*ret = json_object_get_string(v);
	return rc < 0 ? -1 : 0;
}

int
rpc_bool(struct json_object *o, const char *name, bool *ret, struct err *e)
{
	struct json_object *v = NULL;
	int rc = member(o, name, json_type_boolean, &v, e);

	if (rc > 0)
		*ret = json_object_get_boolean(v);
	return rc < 0 ? -1 : 0;
}

int
rpc_int(
    struct json_object *o, const char *name, int64_t min, int64_t max, int64_t *ret, struct err *e)
{
	struct json_object *v = NULL;
	struct err range = { 0 };
	const char *text = NULL;

	if (!o || !json_object_object_get_ex(o, name, &v) || !v)
		return 0;
	if (json_object_is_type(v, json_type_int) || json_object_is_type(v, json_type_string))
		text = json_object_get_string(v);
	if (!text || text_int(text, min, max, ret, &range) < 0)
		return err_set(
		    e, E_BAD_INPUT, "\"%s\" is %s", name, text ? range.text : "not a number");
	return 0;
}

int
rpc_object(struct json_object *o, const char *name, struct json_object **ret, struct err *e)
{
	return member(o, name, json_type_object, ret, e) < 0 ? -1 : 0;
}

int
rpc_list(struct json_object *o, const char *name, struct json_object **ret, struct err *e)
{
	return member(o, name, json_type_array, ret, e) < 0 ? -1 : 0;
}
