/*
 * port_pass.c - see port_pass.h.
 *
 * The request's head is written anew, the answer's head is read strictly; bodies pass as they come,
 * in both directions, and are consumed only when the other side took them. After a 101 the bytes
 * are nobody's business, but for the pings that keep a WebSocket's way open (port_ws.h). A service
 * that speaks TLS gets it from here (port_tls.h).
 */
#include "port_pass.h"

#include "back.h"
#include "cleanup.h"
#include "gateway.h"
#include "http1.h"
#include "json.h"
#include "port_creds.h"
#include "port_page.h"
#include "port_tls.h"
#include "port_ws.h"
#include "tally.h"
#include "timer.h"
#include "upgrade.h"

#include <string.h>
#include <strings.h>

enum {
	PER_CAPSULE = 400, /* at once, in one process; a guest takes 512 streams */
	DIALS = 3,
	DIAL_MS = 100, /* then twice that */
	AGAIN_MAX = 100,
	AGAIN_MS = 100,
	LOOK_MS = 2000, /* may they still? */
	PING_MS = 20000,
	HEAD_MAX = 64 * 1024,
};

struct port_call {
	struct request *r;
	struct port_place at;
	struct door_ask ask;
	const char *host_header;
	int64_t epoch;
	struct buf head;     /* of the request, but for its first lines */
	const char *upgrade; /* what the client wants to become, or NULL */
	bool chunked;        /* so its body came, so it goes on */
	bool has_body, body_ended;
	struct guest *g;
	bool speaks_tls;
	struct port_tls *tls; /* between g and what follows; or NULL */
	struct sock *sock;    /* after the 101 */
	struct port_ws *ws;   /* if it is a WebSocket's */
	struct timer *pinger;
	bool open;    /* the service took the connection */
	bool refused; /* a header had two meanings */
	bool whole;   /* the answer is complete */
	unsigned dials, again;
	struct http1 in;
	size_t untaken; /* by the client */
	size_t owed;    /* came through the tunnel, not consumed yet */
};

static void begin(void *);
static void dial(void *);

/* ---- to and from the tunnel, in TLS or not */

static void
put(struct port_call *c, const void *p, size_t n)
{
	if (c->tls)
		port_tls_write(c->tls, p, n);
	else
		guest_write(c->g, p, n);
}

/* What the client has not taken holds the window shut; TLS, heads and sizes of chunks do not. */
static void
settle(struct port_call *c)
{
	size_t n = c->owed > c->untaken ? c->owed - c->untaken : 0;

	c->owed -= n;
	if (c->g && n)
		guest_consume(c->g, n);
}

static void
taken_off(struct port_call *c, size_t n)
{
	c->untaken -= n < c->untaken ? n : c->untaken;
	settle(c);
}

/* ---- the request's head */

/* Of this hop, or said anew. */
static const char *const not_in[] = { "connection", "keep-alive", "proxy-connection",
	"proxy-authorization", "transfer-encoding", "upgrade", "te", "trailer", "host", "expect",
	"content-length", "forwarded", "x-forwarded-for", "x-forwarded-proto", "x-forwarded-host",
	"x-forwarded-server", "x-forwarded-port", "x-host", "x-real-ip", NULL };

static bool
clean(const char *s)
{
	for (; *s; s++)
		if (((unsigned char)*s < ' ' && *s != '\t') || *s == 0x7f)
			return false;
	return true;
}

static void
take_header(void *arg, const char *name, const char *value)
{
	struct port_call *c = arg;

	if (!http1_token(name, strlen(name)) || !clean(value)) {
		c->refused = true;
		return;
	}
	if (http1_among(name, not_in))
		return;
	value = port_header(c->r, name, value);
	if (value)
		buf_fmt(&c->head, "%s: %s\r\n", name, value);
}

/* Where does the client's request have a body, and how long is it? */
static void
take_framing(struct port_call *c)
{
	const char *te = request_header(c->r, "Transfer-Encoding");
	const char *length = request_header(c->r, "Content-Length");

	c->chunked = te != NULL;
	c->has_body = te || (length && strcmp(length, "0") != 0);
	if (te)
		buf_str(&c->head, "Transfer-Encoding: chunked\r\n");
	else if (length)
		buf_fmt(&c->head, "Content-Length: %s\r\n", length);
}

static void
take_upgrade(struct port_call *c)
{
	const char *connection = request_header(c->r, "Connection");
	const char *upgrade = request_header(c->r, "Upgrade");

	/* h2c would be another protocol in which we could strip nothing */
	if (connection && upgrade && strcasestr(connection, "upgrade") &&
	    strncasecmp(upgrade, "h2c", 3) != 0 && !c->has_body)
		c->upgrade = talloc_strdup(c, upgrade);
	if (c->upgrade)
		buf_fmt(&c->head, "Connection: Upgrade\r\nUpgrade: %s\r\n", c->upgrade);
	else
		buf_str(&c->head, "Connection: close\r\n");
}

static void
take_head(struct port_call *c)
{
	struct request *r = c->r;
	const char *host = request_header(r, "Host");

	request_headers(r, take_header, c);
	buf_fmt(&c->head,
	    "X-Forwarded-For: %s\r\nX-Forwarded-Proto: %s\r\nX-Forwarded-Host: %s\r\n",
	    c->ask.ip ? c->ask.ip : "unknown", port_secure(r) ? "https" : "http", host ? host : "");
	take_framing(c);
	take_upgrade(c);
	c->refused |= *r->uri != '/' || strpbrk(r->uri, " \t\r\n") || c->head.len > HEAD_MAX;
}

/* keep, localhost, or a name; ${PORT} in a name is the port. */
static void
put_host(const struct port_call *c, const char *sent, struct buf *b)
{
	const char *rule = c->host_header, *mark = strstr(rule, "${PORT}");

	buf_str(b, "Host: ");
	if (strcmp(rule, "keep") == 0)
		buf_str(b, sent);
	else if (strcmp(rule, "localhost") == 0)
		buf_fmt(b, "localhost:%u", c->at.port);
	else if (mark)
		buf_fmt(b, "%.*s%u%s", (int)(mark - rule), rule, c->at.port, mark + 7);
	else
		buf_str(b, rule);
	buf_str(b, "\r\n");
}

static void
send_head(struct port_call *c)
{
	struct request *r = c->r;
	const char *host = request_header(r, "Host");
	struct buf b = BUF(c);

	buf_fmt(&b, "%s %s HTTP/1.1\r\n", r->method, r->uri);
	put_host(c, host ? host : "localhost", &b);
	buf_add(&b, c->head.data, c->head.len);
	buf_str(&b, "\r\n");
	put(c, b.data, b.len);
	talloc_free(b.data);
}

/* ---- the answer */

static void
over(struct port_call *c)
{
	if (c->tls)
		port_tls_stop(c->tls);
	TALLOC_FREE(c->pinger);
	TALLOC_FREE(c->g);
}

static void
answer_header(struct request *r, const struct http1_header *h)
{
	if (!http1_among(h->name, http1_hop))
		reply_header(r, talloc_strdup(r, h->name), talloc_strdup(r, h->value));
}

static const struct sock_events sock_events;

/* No traffic of the port: it keeps web servers and what else is on the way from closing. */
static void
ping(void *arg)
{
	struct port_call *c = arg;
	uint8_t frame[16];
	size_t n = c->g && sock_queued(c->sock) < SOCK_LOW ? port_ws_ping(c->ws, frame) : 0;

	if (n)
		sock_write(c->sock, frame, n);
}

/* The service takes the upgrade: what follows is passed as it is. */
static void
answer_upgrade(struct port_call *c, const struct http1_head *head)
{
	struct request *r = c->r;
	const char *to = c->upgrade;
	bool websocket = false;

	for (const struct http1_header *h = head->header; h->name; h++)
		if (strcasecmp(h->name, "upgrade") == 0)
			to = talloc_strdup(c, h->value);
	if (!c->upgrade) {
		page_fail(r, &c->at, E_PROTOCOL, "the service switched protocols unasked");
		return;
	}
	websocket = strcasecmp(to, "websocket") == 0 && request_header(r, "Sec-WebSocket-Key");
	c->sock = upgrade_raw(r, to, &sock_events, c);
	if (!c->sock) {
		page_fail(r, &c->at, r->work.err.code, r->work.err.text);
	} else if (websocket) {
		c->ws = port_ws_new(c);
		c->pinger = timer_start(c, r->gw->loop, PING_MS, PING_MS, ping, c);
	}
}

static void
answer_head(void *arg, const struct http1_head *head)
{
	struct port_call *c = arg;
	struct request *r = c->r;

	if (r->reply.state != REPLY_NONE)
		return;
	r->reply.plain = true;
	for (const struct http1_header *h = head->header; h->name; h++)
		answer_header(r, h);
	if (head->status == 101)
		answer_upgrade(c, head);
	else if (head->status == 204 || head->status == 304)
		reply_empty(r, head->status);
	else
		reply_begin(r, head->status, NULL, head->length);
}

static void
answer_body(void *arg, const char *p, size_t n)
{
	struct port_call *c = arg;

	if (c->r->reply.stream) {
		c->untaken += n;
		reply_write(c->r, p, n);
	}
}

static void
answer_end(void *arg)
{
	struct port_call *c = arg;

	c->whole = true;
	if (!c->r->reply.stream)
		return;
	/* of a HEAD: nothing was promised to come */
	if (strcmp(c->r->method, "HEAD") == 0)
		c->r->reply.written = c->r->reply.length;
	reply_end(c->r);
}

static const struct http1_events http1_events = { answer_head, answer_body, answer_end };

/* The service is no HTTP, or broke off. */
static void
broken(struct port_call *c, const struct err *e)
{
	struct request *r = c->r;

	over(c);
	if (c->sock)
		sock_close(c->sock);
	else if (r->reply.state == REPLY_NONE)
		page_fail(r, &c->at, E_PROTOCOL, e->text);
	else if (r->reply.stream && !r->reply.ended)
		reply_cut(r);
}

static void
pass_on(struct port_call *c, const char *p, size_t n)
{
	if (c->ws)
		port_ws_down(c->ws, p, n);
	c->untaken += n;
	sock_write(c->sock, p, n);
}

static void
feed(struct port_call *c, const char *p, size_t n)
{
	struct err e = { 0 };
	ssize_t used = http1_feed(&c->in, p, n, &e);

	if (used < 0) {
		broken(c, &e);
		return;
	}
	if (c->sock && (size_t)used < n)
		pass_on(c, p + used, n - (size_t)used);
}

/* ---- the tunnel */

/* What we say can begin. */
static void
opened(struct port_call *c)
{
	c->open = true;
	send_head(c);
	if (c->body_ended && c->chunked)
		put(c, "0\r\n\r\n", 5);
	request_admit(c->r);
}

/* What the client has not taken yet is counted as taken: it is bounded, and the call can end. */
static void
leave(struct port_call *c)
{
	if (!c->whole || !c->g || !c->body_ended)
		return;
	c->untaken = 0;
	settle(c);
	guest_leave(c->r->gw, c->g);
	c->g = NULL;
}

static void
said(void *arg, const char *p, size_t n)
{
	struct port_call *c = arg;

	if (c->sock)
		pass_on(c, p, n);
	else
		feed(c, p, n);
}

static void
said_all(void *arg)
{
	struct port_call *c = arg;
	struct err e = { 0 };

	if (c->sock) {
		TALLOC_FREE(c->pinger);
		sock_finish(c->sock);
	} else if (http1_eof(&c->in, &e) < 0) {
		broken(c, &e);
	} else {
		leave(c);
	}
}

static void
tls_wire(void *arg, const void *p, size_t n)
{
	struct port_call *c = arg;

	if (c->g)
		guest_write(c->g, p, n);
}

static void
tls_open(void *arg)
{
	opened(arg);
}

static void
tls_failed(void *arg, const struct err *e)
{
	broken(arg, e);
}

static const struct port_tls_events tls_events = { tls_wire, tls_open, said, said_all, tls_failed };

/* The name of the service in TLS: its Host without the port; no addresses. */
static const char *
tls_name(struct port_call *c)
{
	const char *host = request_header(c->r, "Host");
	struct buf b = BUF(c);
	char *name;

	put_host(c, host ? host : "localhost", &b);
	name = b.data + strlen("Host: ");
	name[strcspn(name, ":\r")] = '\0';
	return *name && strspn(name, "0123456789.[") < strlen(name) ? name : NULL;
}

static void
on_head(struct guest *g, const struct h2_head *head)
{
	struct port_call *c = guest_arg(g);

	(void)head;
	http1_open(&c->in, c, strcmp(c->r->method, "HEAD") == 0, &http1_events, c);
	if (!c->speaks_tls) {
		opened(c);
		return;
	}
	talloc_free(c->tls);
	c->tls = port_tls_open(c, c->r->gw, tls_name(c), &tls_events, c);
}

static void
on_data(struct guest *g, const uint8_t *p, size_t n)
{
	struct port_call *c = guest_arg(g);

	c->owed += n;
	if (c->tls)
		port_tls_feed(c->tls, p, n);
	else
		said(c, (const char *)p, n);
	settle(c);
	leave(c);
}

static void
on_end(struct guest *g)
{
	said_all(guest_arg(g));
}

static void
on_drain(struct guest *g)
{
	struct port_call *c = guest_arg(g);

	if (c->sock)
		sock_resume(c->sock);
	else
		request_wake(c->r);
}

static void
on_fail(struct guest *g, const struct err *e)
{
	struct port_call *c = guest_arg(g);
	bool was_open = c->open;

	(void)e;
	over(c);
	if (was_open)
		broken(c, &(struct err){ .text = "the connection to the service broke off" });
	else
		page_reply(c->r, &c->at, PAGE_NO_HOST);
}

/* {"error":…} is the host's: the capsule is not where the row said. The rest is the guest's: nobody
   listens, or not yet. */
static void
on_refused(struct guest *g, int status, struct json_object *json)
{
	struct port_call *c = guest_arg(g);
	bool of_host = json && json_get(json, "error");

	over(c);
	if (of_host && status != 404 && status != 409) {
		page_reply(c->r, &c->at, PAGE_NO_HOST);
	} else if (of_host) {
		door_forget(c->r->gw, &c->at.capsule);
		if (c->again++ < AGAIN_MAX)
			(void)timer_start(c, c->r->gw->loop, AGAIN_MS, 0, begin, c);
		else
			page_reply(c->r, &c->at, status == 409 ? PAGE_PAUSED : PAGE_NO_HOST);
	} else if (c->dials < DIALS) {
		(void)timer_start(c, c->r->gw->loop, DIAL_MS * c->dials, 0, dial, c);
	} else {
		page_reply(c->r, &c->at, PAGE_CLOSED);
	}
}

static const struct guest_events guest_events = {
	.on_head = on_head,
	.on_refused = on_refused,
	.on_data = on_data,
	.on_end = on_end,
	.on_drain = on_drain,
	.on_fail = on_fail,
};

/* The guest agent's port does not exist here: it is closed like any other that nobody opened. */
static void
dial(void *arg)
{
	struct port_call *c = arg;
	struct request *r = c->r;

	c->dials++;
	if (c->at.port == GUEST_PORT) {
		if (c->dials < DIALS)
			(void)timer_start(c, r->gw->loop, DIAL_MS * c->dials, 0, dial, c);
		else
			page_reply(r, &c->at, PAGE_CLOSED);
		return;
	}
	c->g = tunnel_open(c, r, c->at.port, NULL, &guest_events, c);
	if (!c->g) {
		r->work.err = (struct err){ 0 };
		page_reply(r, &c->at, PAGE_NO_HOST);
	}
}

/* ---- the client's side after the 101 */

static void
sock_data(struct sock *s, const uint8_t *p, size_t n)
{
	struct port_call *c = sock_arg(s);

	if (!c->g)
		return;
	if (c->ws) {
		struct buf on = BUF(c);

		port_ws_up(c->ws, p, n, &on);
		if (on.len)
			put(c, on.data, on.len);
		talloc_free(on.data);
	} else {
		put(c, p, n);
	}
	if (guest_queued(c->g) >= H2_HIGH)
		sock_pause(s);
}

static void
sock_eof(struct sock *s)
{
	struct port_call *c = sock_arg(s);

	if (c->g && c->tls)
		port_tls_finish(c->tls);
	if (c->g)
		guest_finish(c->g);
}

static void
sock_taken(struct sock *s, size_t n)
{
	taken_off(sock_arg(s), n);
}

static void
sock_gone(struct sock *s)
{
	struct port_call *c = sock_arg(s);

	over(c);
}

static const struct sock_events sock_events = {
	.on_data = sock_data,
	.on_eof = sock_eof,
	.on_taken = sock_taken,
	.on_close = sock_gone,
};

/* ---- the client's body */

static size_t
body(struct request *r, const char *p, size_t n)
{
	struct port_call *c = r->state;

	if (!c->g || !c->open)
		return r->reply.state == REPLY_NONE ? 0 : n;
	if (guest_queued(c->g) >= H2_HIGH)
		return 0; /* on_drain() wakes us */
	if (c->chunked) {
		char size[24];

		put(c, size, (size_t)snprintf(size, sizeof size, "%zx\r\n", n));
	}
	put(c, p, n);
	if (c->chunked)
		put(c, "\r\n", 2);
	return n;
}

static void
body_end(struct request *r)
{
	struct port_call *c = r->state;

	c->body_ended = true;
	if (c->chunked && c->g && c->open)
		put(c, "0\r\n\r\n", 5);
}

static void
taken(struct request *r, size_t n)
{
	taken_off(r->state, n);
}

/* ---- may they? */

/* Made private, deleted, moved, or no right any more: what is open ends. */
static void
looked(void *arg, const struct door *d)
{
	struct port_call *c = arg;

	if (d->why == DOOR_FAILED || (d->why == DOOR_OPEN && d->access.epoch == c->epoch))
		return;
	broken(c, &(struct err){ .text = "the port was closed" });
}

static void
look(void *arg)
{
	struct port_call *c = arg;

	if (c->g)
		door_look(c, c->r->gw, &c->ask, looked, c);
}

static void
on_door(void *arg, const struct door *d)
{
	struct port_call *c = arg;
	struct request *r = c->r;

	if (d->why != DOOR_OPEN) {
		page_door(r, &c->at, d);
		return;
	}
	door_enter(r, d);
	c->host_header = talloc_strdup(c, d->host_header);
	c->speaks_tls = d->tls;
	if (!c->epoch) {
		c->ask.quiet = true;
		(void)timer_start(c, r->gw->loop, LOOK_MS, LOOK_MS, look, c);
	}
	c->epoch = r->access->epoch;
	c->dials = 0;
	dial(c);
}

static void
begin(void *arg)
{
	struct port_call *c = arg;
	struct door_ask ask = c->ask;

	ask.quiet = false;
	door_look(c, c->r->gw, &ask, on_door, c);
}

void
port_pass(struct request *r, const struct port_place *at)
{
	struct port_call *c = talloc_zero(r, struct port_call);
	struct port_creds creds;

	if (!c)
		abort();
	port_creds_read(r, at, &creds);
	*c = (struct port_call){ .r = r,
		.at = *at,
		.head = BUF(c),
		.ask = { .at = *at,
		    .traffic = creds.traffic,
		    .api_key = creds.api_key,
		    .bearer = creds.bearer,
		    .known = creds.known,
		    .ip = request_address(c, r) } };
	take_head(c);
	r->state = c;
	r->on_body = body;
	r->on_body_end = body_end;
	r->on_taken = taken;
	if (c->refused || strcmp(r->method, "CONNECT") == 0)
		page_fail(r, at, E_BAD_INPUT, "this request cannot be passed on");
	else if (!tally_take(&r->gw->busy, r, talloc_asprintf(c, "port %s", at->id), PER_CAPSULE)) {
		reply_header(r, "Retry-After", "1");
		page_fail(r, at, E_RATE, "too many requests to this capsule at once");
	} else
		begin(c);
}
