/* port_page.c - see port_page.h. */
#include "port_page.h"

#include "gateway.h"
#include "route.h"

#include <string.h>

enum { WAY_BACK_MAX = 2048 };

/* clang-format off */
static const struct {
	const char *code, *message; /* of E2B's clients, which compare the first one */
	enum err_code ours;
	const char *text;
} kinds[] = {
	[PAGE_NOT_FOUND] = { "capsule_not_found", "The sandbox was not found",
		E_NOT_FOUND, "no such capsule" },
	[PAGE_CLOSED] = { "port_closed", "The sandbox is running but port is not open",
		E_PORT_CLOSED, "nothing listens on this port of the capsule" },
	[PAGE_PAUSED] = { "capsule_paused", "The sandbox is paused",
		E_BAD_STATE, "the capsule is asleep" },
	[PAGE_STARTING] = { "capsule_starting", "The sandbox is starting",
		E_UNAVAILABLE, "the capsule is not awake yet" },
	[PAGE_NO_HOST] = { "host_unreachable", "The host of the sandbox does not answer",
		E_HOST_UNAVAILABLE, "the host of the capsule does not answer" },
};
/* clang-format on */

static bool
wants_html(const struct request *r)
{
	const char *accept = request_header(r, "Accept");

	return accept && strstr(accept, "text/html") && strcmp(r->method, "CONNECT") != 0;
}

static void
escape(struct buf *b, const char *s)
{
	for (; *s; s++)
		if (*s == '<' || *s == '>' || *s == '&' || *s == '"' || *s == '\'')
			buf_fmt(b, "&#%d;", *s);
		else
			buf_chr(b, *s);
}

static void
html(struct request *r, int status, const char *title, const char *text)
{
	struct buf b = BUF(r);

	buf_str(&b,
	    "<!doctype html>\n<html lang=\"en\"><meta charset=\"utf-8\">"
	    "<meta name=\"viewport\" content=\"width=device-width\"><title>");
	escape(&b, title);
	buf_str(&b,
	    "</title>\n<style>body{font:16px/1.5 system-ui,sans-serif;margin:15vh auto;"
	    "max-width:34em;padding:0 1em}h1{font-size:1.3em}</style>\n<h1>");
	escape(&b, title);
	buf_str(&b, "</h1>\n<p>");
	escape(&b, text);
	buf_str(&b, "</p></html>\n");
	reply_header(r, "Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'");
	(void)reply(r, status, "text/html; charset=utf-8", b.data, b.len);
}

static void
e2b_body(struct request *r, const struct port_place *at, enum page_code code)
{
	struct buf b = BUF(r);

	buf_str(&b, "{\"sandboxId\":");
	buf_json(&b, at->id + 3);
	buf_str(&b, ",\"message\":");
	buf_json(&b, kinds[code].message);
	if (code == PAGE_CLOSED)
		buf_fmt(&b, ",\"port\":%u", at->port);
	buf_fmt(&b, ",\"code\":502,\"error_code\":\"%s\"}", kinds[code].code);
	(void)reply_json(r, 502, &b);
}

void
page_fail(struct request *r, const struct port_place *at, enum err_code code, const char *text)
{
	const struct err_kind *k = &err_kinds[code];
	struct buf b = BUF(r);

	if (k->http == 503)
		reply_header(r, "Retry-After", "1");
	if (wants_html(r)) {
		html(r, k->http, k->text, text);
		return;
	}
	if (!at->bare) {
		buf_fmt(&b, "{\"error\":{\"code\":\"%s\",\"message\":", k->slug);
		buf_json(&b, text);
		buf_fmt(&b, ",\"request_id\":\"%s\"}}", r->work.id);
		(void)reply_json(r, k->http, &b);
		return;
	}
	buf_fmt(&b, "{\"code\":%d,\"message\":", k->http);
	buf_json(&b, text);
	buf_fmt(&b, ",\"error_code\":\"%s\"}", k->slug);
	(void)reply_json(r, k->http, &b);
}

void
page_reply(struct request *r, const struct port_place *at, enum page_code code)
{
	struct buf b = BUF(r);

	if (!at->bare) {
		page_fail(r, at, kinds[code].ours, kinds[code].text);
	} else if (wants_html(r)) {
		buf_fmt(&b, "%s (%s", kinds[code].message, at->id + 3);
		buf_fmt(&b, code == PAGE_CLOSED ? ", port %u)." : ").", at->port);
		html(r, 502, kinds[code].message, b.data);
	} else {
		e2b_body(r, at, code);
	}
}

/* A person before a private port: the dashboard asks who it is, and comes back with a ticket. Only
 * what a browser opens as a page of its own, under a name that has cookies of its own. */
static bool
to_dashboard(struct request *r, const struct port_place *at)
{
	const char *dest = request_header(r, "Sec-Fetch-Dest");
	struct buf b = BUF(r);

	if (at->bare || !at->by_host || strcmp(r->method, "GET") != 0 || !wants_html(r) ||
	    request_header(r, "Upgrade") || (dest && strcmp(dest, "document") != 0))
		return false;
	buf_fmt(&b, "%s/app/port?capsule=%s&port=%u&to=", r->gw->conf->http_public_url, at->id,
	    at->port);
	query_escape(&b, strlen(r->uri) <= WAY_BACK_MAX ? r->uri : "/");
	reply_header(r, "Location", b.data);
	reply_header(r, "Referrer-Policy", "no-referrer");
	return reply_empty(r, 302);
}

void
page_door(struct request *r, const struct port_place *at, const struct door *d)
{
	switch (d->why) {
	case DOOR_OPEN:
		break;
	case DOOR_NONE:
		page_reply(r, at, PAGE_NOT_FOUND);
		break;
	case DOOR_LOGIN:
		if (to_dashboard(r, at))
			break;
		page_fail(r, at, at->bare ? E_FORBIDDEN : E_UNAUTHORIZED,
		    at->bare ? "this port is private: send e2b-traffic-access-token"
			     : "this port is private: send X-API-Key, Authorization: Bearer or "
			       "e2b-traffic-access-token, or open /.hutch/auth?ticket=… with a "
			       "ticket of "
			       "POST /v1/auth/tickets");
		break;
	case DOOR_REFUSED:
		/* a cookie whose login has ended */
		if (d->err.code == E_UNAUTHORIZED && !request_header(r, "X-API-Key") &&
		    !request_header(r, "Authorization") && to_dashboard(r, at))
			break;
		page_fail(r, at, at->bare ? E_FORBIDDEN : d->err.code, d->err.text);
		break;
	case DOOR_PAUSED:
		page_reply(r, at, PAGE_PAUSED);
		break;
	case DOOR_STARTING:
		page_reply(r, at, PAGE_STARTING);
		break;
	case DOOR_NO_HOST:
		page_reply(r, at, PAGE_NO_HOST);
		break;
	case DOOR_FAILED:
		page_fail(r, at, d->err.code, err_public(&d->err));
		break;
	}
}

void
page_guest(struct request *r, int status, const char *message)
{
	struct buf b = BUF(r);

	buf_fmt(&b, "{\"code\":%d,\"message\":", status);
	buf_json(&b, message);
	buf_str(&b, "}");
	(void)reply_json(r, status, &b);
}
