/*
 * front.c - see front.h.
 *
 * Each connection is a client and a server of HTTP/2 in memory; requests come one after the other.
 * What is not plainly HTTP/1.1 (RFC 9112) is answered 400 and ends the connection.
 */
#include "front.h"

#include "buf.h"
#include "cleanup.h"
#include "h2.h"
#include "loop.h"
#include "server.h"

#include <ctype.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <talloc.h>

enum { HEAD_MAX = 32 * 1024, FIELDS_MAX = 100, READ = 64 * 1024 };

enum state { HEAD, BODY, CHUNK_SIZE, CHUNK, CHUNK_END, TRAILER, WAIT };

struct front {
	struct watch watch;
	struct front *next;
	struct h2 *client, *server;
	struct h2_stream *stream; /* of the request that is under way */
	enum state state;
	struct buf in, out;
	uint64_t left; /* of the body or chunk */
	size_t at;     /* of out, written */
	size_t held;   /* of the answer, not yet consumed */
	bool chunks;   /* the answer goes out in chunks */
	bool answered, ended, last, dead;
};

static struct front *fronts;
static const char *front_token;

/* ---- the answer */

static void
say(struct front *f, const char *text)
{
	buf_str(&f->out, text);
}

static void
on_head(struct h2_stream *s, const struct h2_head *head)
{
	struct front *f = h2_user(h2_stream_session(s));
	bool body = head->status != 204 && head->status != 304;

	f->answered = true;
	f->chunks = body;
	buf_fmt(&f->out, "HTTP/1.1 %d Status\r\n", head->status);
	for (const struct h2_header *h = head->header; h->name; h++) {
		if (h->name[0] == ':')
			continue;
		buf_fmt(&f->out, "%s: %s\r\n", h->name, h->value);
		f->chunks &= strcmp(h->name, "content-length") != 0;
	}
	say(f, f->chunks ? "transfer-encoding: chunked\r\n" : "");
	say(f, f->last ? "connection: close\r\n\r\n" : "\r\n");
}

static void
on_data(struct h2_stream *s, const uint8_t *p, size_t n)
{
	struct front *f = h2_user(h2_stream_session(s));

	if (f->chunks && n)
		buf_fmt(&f->out, "%zx\r\n", n);
	buf_add(&f->out, p, n);
	if (f->chunks && n)
		say(f, "\r\n");
	f->held += n;
}

static void
on_end(struct h2_stream *s)
{
	struct front *f = h2_user(h2_stream_session(s));

	f->ended = true;
	if (f->chunks)
		say(f, "0\r\n\r\n");
}

static void
on_close(struct h2_stream *s, uint32_t error)
{
	struct front *f = h2_user(h2_stream_session(s));

	(void)error;
	f->stream = NULL;
	f->held = 0;
	f->dead |= !f->ended;
}

static const struct h2_events events = {
	.on_head = on_head,
	.on_data = on_data,
	.on_end = on_end,
	.on_close = on_close,
};

/* ---- the request */

static void
refuse(struct front *f)
{
	say(f, "HTTP/1.1 400 Bad Request\r\nconnection: close\r\ncontent-length: 0\r\n\r\n");
	f->last = true;
	f->ended = true;
	f->state = WAIT;
}

static bool
is_token(const char *s, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (!isalnum((unsigned char)s[i]) && !strchr("!#$%&'*+-.^_`|~", s[i]))
			return false;
	return n > 0;
}

/* A field's value without blanks around it; NULL: characters that do not belong there. */
static char *
value_of(char *s)
{
	size_t n;

	s += strspn(s, " \t");
	n = strlen(s);
	while (n && (s[n - 1] == ' ' || s[n - 1] == '\t'))
		s[--n] = '\0';
	for (size_t i = 0; i < n; i++)
		if ((unsigned char)s[i] < 0x20 && s[i] != '\t')
			return NULL;
	return s;
}

/* What the fields say of the body and the connection. -1: contradictory. */
static int
field_read(struct front *f, const char *name, const char *value, bool *chunked, bool *length)
{
	char *end = NULL;

	if (strcmp(name, "transfer-encoding") == 0) {
		if (*chunked || strcasecmp(value, "chunked") != 0)
			return -1;
		*chunked = true;
	} else if (strcmp(name, "content-length") == 0) {
		if (*length || !isdigit((unsigned char)*value))
			return -1;
		errno = 0;
		f->left = strtoull(value, &end, 10);
		*length = true;
		if (*end || errno)
			return -1;
	} else if (strcmp(name, "connection") == 0) {
		f->last |= strcasecmp(value, "close") == 0;
	} else if (strcmp(name, "expect") == 0) {
		if (strcasecmp(value, "100-continue") != 0)
			return -1;
		say(f, "HTTP/1.1 100 Continue\r\n\r\n");
	}
	return *chunked && *length ? -1 : 0;
}

static bool
passes(const char *name)
{
	static const char *const ours[] = { "transfer-encoding", "connection", "expect", "upgrade",
		"keep-alive", "te", "host", "proxy-connection", "http2-settings" };

	for (size_t i = 0; i < nitems(ours); i++)
		if (strcmp(name, ours[i]) == 0)
			return false;
	return true;
}

/* The fields behind the request line; how many go on, or -1. */
static int
fields_read(struct front *f, char *line, struct h2_header *h, int n, bool *chunked, bool *length)
{
	bool token = false, host = false;

	for (char *next = NULL; line && *line; line = next) {
		char *colon = strchr(line, ':'), *value = NULL;

		next = strstr(line, "\r\n");
		if (next) {
			*next = '\0';
			next += 2;
		}
		if (!colon || colon > line + strlen(line) ||
		    !is_token(line, (size_t)(colon - line)))
			return -1;
		*colon = '\0';
		value = value_of(colon + 1);
		for (char *p = line; *p; p++)
			*p = (char)tolower((unsigned char)*p);
		if (!value || n == FIELDS_MAX || field_read(f, line, value, chunked, length) < 0)
			return -1;
		host |= strcmp(line, "host") == 0;
		token |= strcmp(line, "x-access-token") == 0;
		if (passes(line))
			h[n++] = (struct h2_header){ line, value };
	}
	if (!host)
		return -1;
	if (!token && front_token && !strstr(h[1].value, "signature="))
		h[n++] = (struct h2_header){ "x-access-token", front_token };
	h[n] = (struct h2_header){ 0 };
	return n;
}

/* head: the whole head, without its blank line. */
static void
request(struct front *f, char *head)
{
	struct h2_header h[FIELDS_MAX + 2];
	bool chunked = false, length = false;
	char *target = strchr(head, ' '), *version = target ? strchr(target + 1, ' ') : NULL;
	char *line = strstr(head, "\r\n");
	struct err e = { 0 };

	f->left = 0;
	if (!line || !version || version > line || strncmp(version, " HTTP/1.1\r\n", 11) != 0 ||
	    target[1] != '/' || !is_token(head, (size_t)(target - head))) {
		refuse(f);
		return;
	}
	*target++ = '\0';
	*version = '\0';
	h[0] = (struct h2_header){ ":method", head };
	h[1] = (struct h2_header){ ":path", target };
	if (fields_read(f, line + 2, h, 2, &chunked, &length) < 0) {
		refuse(f);
		return;
	}
	f->answered = f->ended = false;
	f->state = chunked ? CHUNK_SIZE : f->left ? BODY : WAIT;
	f->stream = h2_request(f->client, h, f->state == WAIT, f, &e);
	f->dead |= !f->stream;
}

static void
body_ends(struct front *f)
{
	f->state = WAIT;
	if (f->stream)
		h2_finish(f->stream);
}

/* A line of at most max bytes at the beginning of in, cut off; NULL: not yet. */
static char *
line_take(struct front *f, void *mem, const char *end, size_t max)
{
	char *p = f->in.len ? memmem(f->in.data, f->in.len, end, strlen(end)) : NULL;
	char *line = NULL;
	size_t n = p ? (size_t)(p - f->in.data) : f->in.len;

	if (n > max || (p && memchr(f->in.data, 0, n))) {
		refuse(f);
		return NULL;
	}
	if (!p)
		return NULL;
	line = talloc_strndup(mem, f->in.data, n);
	buf_cut(&f->in, n + strlen(end));
	return line;
}

/* False: more bytes are needed. */
static bool
step(struct front *f)
{
	auto_talloc char *mem = talloc_new(NULL);
	char *line = NULL, *end = NULL;
	size_t n;

	switch (f->state) {
	case HEAD:
		line = line_take(f, mem, "\r\n\r\n", HEAD_MAX);
		if (line)
			request(f, talloc_asprintf(mem, "%s\r\n", line));
		return line != NULL;
	case CHUNK_SIZE:
		line = line_take(f, mem, "\r\n", 64);
		if (!line)
			return false;
		f->left = strtoull(line, &end, 16);
		if (!isxdigit((unsigned char)*line) || (*end && *end != ';') || end - line > 8)
			refuse(f);
		else
			f->state = f->left ? CHUNK : TRAILER;
		return true;
	case CHUNK_END:
	case TRAILER:
		line = line_take(f, mem, "\r\n", HEAD_MAX);
		if (line && *line)
			refuse(f); /* trailers are not taken */
		else if (line && f->state == TRAILER)
			body_ends(f);
		else if (line)
			f->state = CHUNK_SIZE;
		return line != NULL;
	case BODY:
	case CHUNK:
		if (!f->in.len || (f->stream && h2_queued(f->stream) >= H2_HIGH))
			return false;
		n = f->in.len < f->left ? f->in.len : (size_t)f->left;
		if (f->stream)
			h2_write(f->stream, f->in.data, n);
		buf_cut(&f->in, n);
		f->left -= n;
		if (f->left == 0 && f->state == BODY)
			body_ends(f);
		else if (f->left == 0)
			f->state = CHUNK_END;
		return true;
	case WAIT:
		if (f->stream || !f->ended || f->last)
			return false;
		f->state = HEAD;
		return true;
	}
	return false;
}

/* ---- the connection */

static void
front_free(struct front *f)
{
	struct front **at = &fronts;

	while (*at != f)
		at = &(*at)->next;
	*at = f->next;
	watch_stop(&f->watch);
	cleanup_fd(&f->watch.fd);
	talloc_free(f);
}

static void
carry(struct front *f)
{
	struct err e = { 0 };
	const uint8_t *p = NULL;
	bool more = true;
	ssize_t n;

	while (more && !f->dead) {
		more = false;
		while (!f->dead && (n = h2_pull(f->client, &p)) > 0) {
			f->dead |= h2_feed(f->server, p, (size_t)n, &e) < 0;
			more = true;
		}
		while (!f->dead && (n = h2_pull(f->server, &p)) > 0) {
			f->dead |= h2_feed(f->client, p, (size_t)n, &e) < 0;
			more = true;
		}
	}
}

/* False: it is over. */
static bool
front_flush(struct front *f)
{
	carry(f);
	while (step(f))
		carry(f);
	carry(f);
	while (f->at < f->out.len) {
		ssize_t n =
		    send(f->watch.fd, f->out.data + f->at, f->out.len - f->at, MSG_NOSIGNAL);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno != EAGAIN)
			return false;
		if (n < 0)
			break;
		f->at += (size_t)n;
	}
	if (f->at == f->out.len) {
		buf_clear(&f->out);
		f->at = 0;
		if (f->stream && f->held)
			h2_consume(f->stream, f->held);
		f->held = 0;
		if (f->dead || (f->last && f->ended && !f->stream))
			return false;
		carry(f);
	}
	watch_set(&f->watch,
	    (f->in.len < READ ? EPOLLIN : 0) | (f->at < f->out.len ? EPOLLOUT : 0) | EPOLLRDHUP);
	return true;
}

void
front_flush_all(void)
{
	struct front *next = NULL;

	for (struct front *f = fronts; f; f = next) {
		next = f->next;
		if (!front_flush(f))
			front_free(f);
	}
}

static void
front_ready(void *arg, uint32_t ready)
{
	static char data[READ];
	struct front *f = arg;
	ssize_t n = recv(f->watch.fd, data, sizeof data, 0);

	(void)ready;
	if (n > 0)
		buf_add(&f->in, data, (size_t)n);
	else if (n == 0 || errno != EAGAIN)
		front_free(f);
}

static void
listener_ready(void *arg, uint32_t ready)
{
	struct watch *w = arg;
	int fd = accept4(w->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
	struct front *f;

	(void)ready;
	if (fd < 0)
		return;
	f = talloc_zero(NULL, struct front);
	if (!f)
		abort();
	f->in = BUF(f);
	f->out = BUF(f);
	f->client = h2_new(f, H2_CLIENT, &events, NULL, f);
	f->server = h2_new(f, H2_SERVER, &server_events, &server_limits, NULL);
	f->watch = (struct watch){ .fd = fd, .fn = front_ready, .arg = f };
	f->next = fronts;
	fronts = f;
	watch_set(&f->watch, EPOLLIN | EPOLLRDHUP);
}

int
front_listen(int port, const char *token, struct err *e)
{
	static struct watch w;
	struct sockaddr_in a = { .sin_family = AF_INET, .sin_port = htons((uint16_t)port) };
	auto_fd fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	int on = 1;

	a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	front_token = token;
	if (fd >= 0)
		(void)setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
	if (fd < 0 || bind(fd, (struct sockaddr *)&a, sizeof a) < 0 || listen(fd, 128) < 0)
		return err_sys(e, "listen on port %d", port);
	w = (struct watch){ .fd = take_fd(&fd), .fn = listener_ready, .arg = &w };
	watch_set(&w, EPOLLIN);
	return 0;
}
