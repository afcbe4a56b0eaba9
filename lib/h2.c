/* h2.c - see h2.h. No libuv here: the guest agent links this file statically. */
#include "h2.h"

#include "buf.h"
#include "h2_mark.h"

#include <assert.h>
#include <nghttp2/nghttp2.h>
#include <stdlib.h>
#include <string.h>
#include <talloc.h>

/* In nghttp2 1.57 and in what Debian 12 has, not in all that we build with. */
extern void nghttp2_option_set_stream_reset_rate_limit(nghttp2_option *, uint64_t, uint64_t)
    __attribute__((weak));

enum { HEADERS_MAX = 128, ROOM_KEPT = 16 * 1024, CLIENT_STREAMS = 4096 };
/* More than a frame, and whole pages: the hello behind it is at the beginning of one, where a
   port's reader sees it. */
enum { FILL = 5 * 4096 };

struct h2 {
	nghttp2_session *ng;
	const struct h2_events *on;
	void *user;
	void (*due)(void *);
	void *due_arg;
	struct h2_stream *first; /* all open streams */
	size_t streams;
	size_t queued; /* of all streams */
	size_t header_list;
	enum h2_role role;
	struct h2_gate *gate; /* NULL: the peer was met */
	struct buf hello;     /* of a client that marks its session: all it says before */
	size_t said;          /* of hello */
	int busy;             /* inside h2_feed() or h2_pull() */
	bool over;            /* h2_close(): no events, no effects */
	bool freed;           /* by its owner, inside an event */
	bool leaving;         /* our GOAWAY or theirs: the end is no error */
};

/* What is collected of a message's headers, until they are complete. */
struct head {
	struct buf text;            /* name NUL value NUL … */
	size_t at[HEADERS_MAX * 2]; /* offsets into text */
	size_t n;                   /* headers */
	size_t bytes;               /* as RFC 9113 counts: name + value + 32 each */
	bool refused;               /* too many */
};

struct h2_stream {
	struct h2 *h;
	struct h2_stream *next, **back;
	void *user;
	int32_t id;
	struct head *head; /* NULL outside of header blocks */
	struct buf out;
	size_t sent; /* of out, given to nghttp2 */
	size_t unconsumed;
	bool got_head; /* on_head was delivered (or the answer's was) */
	bool deferred; /* the data provider waits for h2_write() */
	bool finished; /* END_STREAM after out */
	bool answered;
	bool quiet; /* reset or refused: only on_close */
	bool high;  /* out went over H2_LOW: on_drain is due */
};

static bool
silent(const struct h2_stream *s)
{
	return s->quiet || s->h->over;
}

static void
due(struct h2 *h)
{
	if (h->due && !h->over)
		h->due(h->due_arg);
}

static struct h2_stream *
stream_new(struct h2 *h, int32_t id, void *user)
{
	struct h2_stream *s = talloc_zero(h, struct h2_stream);

	if (!s)
		abort();
	s->h = h;
	s->id = id;
	s->user = user;
	s->out = BUF(s);
	s->next = h->first;
	s->back = &h->first;
	if (s->next)
		s->next->back = &s->next;
	h->first = s;
	h->streams++;
	return s;
}

static void
stream_unlink(struct h2_stream *s)
{
	*s->back = s->next;
	if (s->next)
		s->next->back = s->back;
	s->next = NULL;
	s->back = NULL;
	s->h->streams--;
	s->h->queued -= h2_queued(s);
}

/* ---- headers coming in */

static int
on_begin_headers(nghttp2_session *ng, const nghttp2_frame *f, void *arg)
{
	struct h2 *h = arg;
	struct h2_stream *s = nghttp2_session_get_stream_user_data(ng, f->hd.stream_id);

	if (h->over || f->hd.type != NGHTTP2_HEADERS)
		return 0;
	if (!s && h->role == H2_SERVER && f->headers.cat == NGHTTP2_HCAT_REQUEST) {
		s = stream_new(h, f->hd.stream_id, h->user);
		nghttp2_session_set_stream_user_data(ng, s->id, s);
	}
	if (!s || s->got_head || s->quiet)
		return 0;
	TALLOC_FREE(s->head);
	s->head = talloc_zero(s, struct head);
	if (!s->head)
		abort();
	s->head->text = BUF(s->head);
	return 0;
}

static int
on_header(nghttp2_session *ng, const nghttp2_frame *f, const uint8_t *name, size_t nlen,
    const uint8_t *value, size_t vlen, uint8_t flags, void *arg)
{
	struct h2 *h = arg;
	struct h2_stream *s = nghttp2_session_get_stream_user_data(ng, f->hd.stream_id);
	struct head *head = s ? s->head : NULL;

	(void)flags;
	if (!head || silent(s))
		return 0;
	head->bytes += nlen + vlen + 32;
	if (head->bytes > 16 * h->header_list)
		return NGHTTP2_ERR_CALLBACK_FAILURE;
	head->refused |= head->bytes > h->header_list || head->n == HEADERS_MAX;
	if (head->refused)
		return 0;
	head->at[2 * head->n] = head->text.len;
	buf_add(&head->text, name, nlen);
	buf_chr(&head->text, '\0');
	head->at[2 * head->n + 1] = head->text.len;
	buf_add(&head->text, value, vlen);
	buf_chr(&head->text, '\0');
	head->n++;
	return 0;
}

static void
refuse_head(struct h2_stream *s)
{
	if (s->h->role == H2_SERVER) {
		h2_respond(s, 431, NULL, true);
		s->quiet = true;
	} else {
		h2_reset(s, NGHTTP2_ENHANCE_YOUR_CALM);
	}
}

/* Offsets become pointers, the known pseudo headers get their places. */
static void
head_fill(const struct head *head, struct h2_header *list, struct h2_head *out)
{
	for (size_t i = 0; i < head->n; i++) {
		const char *name = head->text.data + head->at[2 * i];
		const char *value = head->text.data + head->at[2 * i + 1];

		list[i] = (struct h2_header){ name, value };
		if (name[0] != ':')
			continue;
		if (strcmp(name, ":method") == 0)
			out->method = value;
		else if (strcmp(name, ":path") == 0)
			out->path = value;
		else if (strcmp(name, ":authority") == 0)
			out->authority = value;
		else if (strcmp(name, ":protocol") == 0)
			out->protocol = value;
		else if (strcmp(name, ":status") == 0)
			out->status = (int)strtol(value, NULL, 10);
	}
	list[head->n] = (struct h2_header){ NULL, NULL };
	out->header = list;
}

static void
head_done(struct h2_stream *s)
{
	struct h2_header list[HEADERS_MAX + 1];
	struct h2_head out = { 0 };
	struct head *head = s->head;

	s->head = NULL;
	if (head->refused) {
		talloc_free(head);
		refuse_head(s);
		return;
	}
	head_fill(head, list, &out);
	if (s->h->role == H2_SERVER || out.status >= 200) {
		s->got_head = true;
		if (s->h->on->on_head)
			s->h->on->on_head(s, &out);
	}
	talloc_free(head);
}

/* ---- frames coming in */

static int
on_frame(nghttp2_session *ng, const nghttp2_frame *f, void *arg)
{
	struct h2 *h = arg;
	struct h2_stream *s = nghttp2_session_get_stream_user_data(ng, f->hd.stream_id);

	if (f->hd.type == NGHTTP2_GOAWAY)
		h->leaving = true;
	if (f->hd.type == NGHTTP2_PING && f->hd.flags & NGHTTP2_FLAG_ACK && !h->over &&
	    h->on->on_pong)
		h->on->on_pong(h);
	if (!s || silent(s))
		return h->over ? NGHTTP2_ERR_CALLBACK_FAILURE : 0;
	if (f->hd.type == NGHTTP2_HEADERS && s->head)
		head_done(s);
	if ((f->hd.type == NGHTTP2_HEADERS || f->hd.type == NGHTTP2_DATA) &&
	    f->hd.flags & NGHTTP2_FLAG_END_STREAM && s->got_head && !silent(s) && h->on->on_end)
		h->on->on_end(s);
	return h->over ? NGHTTP2_ERR_CALLBACK_FAILURE : 0;
}

static int
on_data(nghttp2_session *ng, uint8_t flags, int32_t id, const uint8_t *p, size_t n, void *arg)
{
	struct h2 *h = arg;
	struct h2_stream *s = nghttp2_session_get_stream_user_data(ng, id);

	(void)flags;
	if (h->over)
		return NGHTTP2_ERR_CALLBACK_FAILURE;
	if (!s || s->quiet || !h->on->on_data) {
		nghttp2_session_consume(ng, id, n);
		return 0;
	}
	s->unconsumed += n;
	h->on->on_data(s, p, n);
	return h->over ? NGHTTP2_ERR_CALLBACK_FAILURE : 0;
}

static int
on_stream_close(nghttp2_session *ng, int32_t id, uint32_t error, void *arg)
{
	struct h2 *h = arg;
	struct h2_stream *s = nghttp2_session_get_stream_user_data(ng, id);
	bool known;

	if (!s || h->over)
		return h->over ? NGHTTP2_ERR_CALLBACK_FAILURE : 0;
	/* What the user did not consume must not stay charged to the connection. */
	if (s->unconsumed)
		nghttp2_session_consume_connection(ng, s->unconsumed);
	nghttp2_session_set_stream_user_data(ng, id, NULL);
	known = h->role == H2_CLIENT || s->got_head;
	stream_unlink(s);
	if (known && h->on->on_close)
		h->on->on_close(s, error);
	talloc_free(s);
	return h->over ? NGHTTP2_ERR_CALLBACK_FAILURE : 0;
}

/* ---- bodies going out */

static void
out_taken(struct h2_stream *s, size_t n)
{
	s->sent += n;
	s->h->queued -= n;
	if (s->sent == s->out.len) {
		s->sent = 0;
		s->out.len = 0;
		if (s->out.room > ROOM_KEPT) {
			TALLOC_FREE(s->out.data);
			s->out.room = 0;
		}
	} else if (s->sent >= H2_LOW) {
		buf_cut(&s->out, s->sent);
		s->sent = 0;
	}
	if (!silent(s) && s->h->on->on_sent)
		s->h->on->on_sent(s, n);
	if (s->high && h2_queued(s) < H2_LOW) {
		s->high = false;
		if (!silent(s) && s->h->on->on_drain)
			s->h->on->on_drain(s);
	}
}

static ssize_t
on_read(nghttp2_session *ng, int32_t id, uint8_t *p, size_t room, uint32_t *flags,
    nghttp2_data_source *source, void *arg)
{
	struct h2_stream *s = source->ptr;
	struct h2 *h = arg;
	size_t n = h2_queued(s);

	(void)ng;
	(void)id;
	if (n > room)
		n = room;
	if (n) {
		memcpy(p, s->out.data + s->sent, n);
		out_taken(s, n);
		if (h->over)
			return NGHTTP2_ERR_CALLBACK_FAILURE;
	}
	/* A client's end goes alone: where a line breaks inside of its last frame, what comes next
	   may fill that up, but never make a body whole that is not. */
	if (s->finished && h2_queued(s) == 0 && (n == 0 || h->role == H2_SERVER))
		*flags |= NGHTTP2_DATA_FLAG_EOF;
	else if (n == 0) {
		s->deferred = true;
		return NGHTTP2_ERR_DEFERRED;
	}
	return (ssize_t)n;
}

static void
resume(struct h2_stream *s)
{
	if (s->deferred) {
		s->deferred = false;
		(void)nghttp2_session_resume_data(s->h->ng, s->id);
	}
	due(s->h);
}

void
h2_write(struct h2_stream *s, const void *p, size_t n)
{
	if (silent(s) || s->finished || n == 0)
		return;
	buf_add(&s->out, p, n);
	s->h->queued += n;
	s->high |= h2_queued(s) >= H2_LOW;
	resume(s);
}

void
h2_finish(struct h2_stream *s)
{
	if (silent(s) || s->finished)
		return;
	s->finished = true;
	resume(s);
}

size_t
h2_queued(const struct h2_stream *s)
{
	return s->out.len - s->sent;
}

size_t
h2_queued_all(const struct h2 *h)
{
	return h->queued;
}

void
h2_reset(struct h2_stream *s, uint32_t error)
{
	if (silent(s))
		return;
	s->quiet = true;
	(void)nghttp2_submit_rst_stream(s->h->ng, NGHTTP2_FLAG_NONE, s->id, error);
	due(s->h);
}

void
h2_reset_all(struct h2 *h, uint32_t error)
{
	for (struct h2_stream *s = h->first; s; s = s->next)
		h2_reset(s, error);
}

void
h2_consume(struct h2_stream *s, size_t n)
{
	if (s->h->over)
		return;
	if (n > s->unconsumed)
		n = s->unconsumed;
	s->unconsumed -= n;
	(void)nghttp2_session_consume(s->h->ng, s->id, n);
	due(s->h);
}

/* ---- messages going out */

static nghttp2_nv
nv(const char *name, const char *value)
{
	return (nghttp2_nv){ (uint8_t *)name, (uint8_t *)value, strlen(name), strlen(value),
		NGHTTP2_NV_FLAG_NONE };
}

/* Pseudo headers must come first on the wire, wherever the caller put them. */
static size_t
nv_list(nghttp2_nv *out, size_t n, const struct h2_header *h)
{
	for (const struct h2_header *p = h; p && p->name && n < HEADERS_MAX; p++)
		if (p->name[0] == ':')
			out[n++] = nv(p->name, p->value);
	for (const struct h2_header *p = h; p && p->name && n < HEADERS_MAX; p++)
		if (p->name[0] != ':')
			out[n++] = nv(p->name, p->value);
	return n;
}

static const char *
find(const struct h2_header *h, const char *name)
{
	for (; h && h->name; h++)
		if (strcmp(h->name, name) == 0)
			return h->value;
	return NULL;
}

struct h2_stream *
h2_request(struct h2 *h, const struct h2_header *head, bool end, void *user, struct err *e)
{
	const char *method = find(head, ":method");
	bool plain_connect = method && strcmp(method, "CONNECT") == 0 && !find(head, ":protocol");
	nghttp2_data_provider body = { .read_callback = on_read };
	nghttp2_nv list[HEADERS_MAX];
	struct h2_stream *s = NULL;
	size_t n = 0;

	assert(h->role == H2_CLIENT);
	if (!h2_takes(h)) {
		(void)err_set(e, E_CLOSED, "the connection is going away");
		return NULL;
	}
	if (!plain_connect && !find(head, ":scheme"))
		list[n++] = nv(":scheme", "http");
	if (!find(head, ":authority") && !find(head, "host"))
		list[n++] = nv(":authority", "hutch");
	n = nv_list(list, n, head);
	s = stream_new(h, 0, user);
	body.source.ptr = s;
	s->finished = end;
	s->id = nghttp2_submit_request(h->ng, NULL, list, n, end ? NULL : &body, s);
	if (s->id < 0) {
		(void)err_set(e, E_CLOSED, "request: %s", nghttp2_strerror(s->id));
		stream_unlink(s);
		talloc_free(s);
		return NULL;
	}
	due(h);
	return s;
}

void
h2_respond(struct h2_stream *s, int status, const struct h2_header *extra, bool end)
{
	nghttp2_data_provider body = { .source.ptr = s, .read_callback = on_read };
	nghttp2_nv list[HEADERS_MAX];
	char text[4] = { (char)('0' + status / 100 % 10), (char)('0' + status / 10 % 10),
		(char)('0' + status % 10), '\0' };

	assert(s->h->role == H2_SERVER && status >= 200 && status < 1000);
	if (silent(s) || s->answered)
		return;
	s->answered = true;
	s->finished |= end;
	list[0] = nv(":status", text);
	(void)nghttp2_submit_response(s->h->ng, s->id, list, nv_list(list, 1, extra),
	    end && h2_queued(s) == 0 ? NULL : &body);
	due(s->h);
}

/* ---- the session */

/* What comes before the peer says our mark is not ours. */
static int
gate_feed(struct h2 *h, const uint8_t *p, size_t n, struct err *e)
{
	struct h2_gate *g = h->gate;
	int rc = h2_gate_feed(g, p, n);

	if (rc < 0)
		return err_set(e, E_PROTOCOL, "the peer does not say whose session it is");
	if (rc == 0)
		return 0;
	h->gate = NULL;
	rc = h2_feed(h, (const uint8_t *)g->in.data, g->in.len, e);
	if (rc == 0) /* or the session may be gone, and the gate with it */
		talloc_free(g);
	return rc;
}

int
h2_feed(struct h2 *h, const uint8_t *p, size_t n, struct err *e)
{
	ssize_t got = 0;

	if (h->over)
		return err_set(e, E_CLOSED, "the session was closed");
	if (h->gate)
		return gate_feed(h, p, n, e);
	h->busy++;
	got = nghttp2_session_mem_recv(h->ng, p, n);
	h->busy--;
	due(h);
	if (h->over) {
		if (h->freed)
			talloc_free(h);
		return err_set(e, E_CLOSED, "the session was closed");
	}
	if (got < 0)
		return err_set(e, E_PROTOCOL, "HTTP/2: %s", nghttp2_strerror((int)got));
	return 0;
}

ssize_t
h2_pull(struct h2 *h, const uint8_t **ret)
{
	ssize_t n = 0;

	if (h->over)
		return -1;
	if (h->gate) {
		n = (ssize_t)(h->hello.len - h->said);
		*ret = (const uint8_t *)h->hello.data + h->said;
		h->said = h->hello.len;
		return n;
	}
	h->busy++;
	n = nghttp2_session_mem_send(h->ng, ret);
	h->busy--;
	if (!h->over)
		return n < 0 ? -1 : n;
	if (h->freed)
		talloc_free(h);
	return -1;
}

void
h2_goaway(struct h2 *h)
{
	if (h->over || h->leaving)
		return;
	h->leaving = true;
	(void)nghttp2_submit_goaway(h->ng, NGHTTP2_FLAG_NONE,
	    nghttp2_session_get_last_proc_stream_id(h->ng), NGHTTP2_NO_ERROR, NULL, 0);
	due(h);
}

void
h2_ping(struct h2 *h)
{
	if (h->over)
		return;
	(void)nghttp2_submit_ping(h->ng, NGHTTP2_FLAG_NONE, NULL);
	due(h);
}

/* The structures stay until h goes: a callback below us may hold one. */
static void
close_streams(struct h2 *h)
{
	h->over = true;
	while (h->first) {
		struct h2_stream *s = h->first;
		bool known = h->role == H2_CLIENT || s->got_head;

		stream_unlink(s);
		if (known && h->on->on_close)
			h->on->on_close(s, NGHTTP2_CANCEL);
	}
}

void
h2_close(struct h2 *h)
{
	h->busy++;
	close_streams(h);
	h->busy--;
	if (h->freed && !h->busy)
		talloc_free(h);
}

static int
h2_destroy(struct h2 *h)
{
	close_streams(h);
	if (h->busy) {
		h->freed = true;
		return -1; /* talloc keeps it; who is busy with it frees it on the way out */
	}
	nghttp2_session_del(h->ng);
	return 0;
}

static void
submit_settings(struct h2 *h, const struct h2_limits *l)
{
	uint32_t streams = l && l->streams ? l->streams : 256;
	uint32_t window = l && l->window ? l->window : 128 * 1024;
	uint64_t most = h->role == H2_SERVER ? streams : CLIENT_STREAMS;
	/* Twice: nghttp2 opens the connection's window again only when half of it was consumed. */
	uint64_t all = l && l->connection ? l->connection : 2 * window * (most + 1);
	const struct h2_mark *mark = l ? l->mark : NULL;
	nghttp2_settings_entry set[] = {
		{ H2_MARK_SETTING, mark ? mark->word[0] : 0 },
		{ H2_MARK_SETTING + 1, mark ? mark->word[1] : 0 },
		{ NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, window },
		{ NGHTTP2_SETTINGS_MAX_HEADER_LIST_SIZE, (uint32_t)h->header_list },
		{ NGHTTP2_SETTINGS_ENABLE_PUSH, 0 },
		{ NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS, streams },
		{ NGHTTP2_SETTINGS_ENABLE_CONNECT_PROTOCOL, 1 },
	};
	size_t first = mark ? 0 : H2_MARK_WORDS;
	size_t end = h->role == H2_SERVER ? 7 : 5; /* a client offers no streams, and no CONNECT */

	if (all > INT32_MAX)
		all = INT32_MAX;
	if (h->role == H2_SERVER)
		set[4] = (nghttp2_settings_entry){ NGHTTP2_SETTINGS_MAX_FRAME_SIZE, 16384 };
	(void)nghttp2_submit_settings(h->ng, NGHTTP2_FLAG_NONE, set + first, end - first);
	(void)nghttp2_session_set_local_window_size(h->ng, NGHTTP2_FLAG_NONE, 0, (int32_t)all);
}

static void
session_new(struct h2 *h)
{
	nghttp2_session_callbacks *cb = NULL;
	nghttp2_option *opt = NULL;
	int rc = 0;

	if (nghttp2_session_callbacks_new(&cb) || nghttp2_option_new(&opt))
		abort();
	nghttp2_session_callbacks_set_on_begin_headers_callback(cb, on_begin_headers);
	nghttp2_session_callbacks_set_on_header_callback(cb, on_header);
	nghttp2_session_callbacks_set_on_frame_recv_callback(cb, on_frame);
	nghttp2_session_callbacks_set_on_data_chunk_recv_callback(cb, on_data);
	nghttp2_session_callbacks_set_on_stream_close_callback(cb, on_stream_close);
	nghttp2_option_set_no_auto_window_update(opt, 1);
	nghttp2_option_set_no_closed_streams(opt, 1);
	/* Against strangers nghttp2 ends a connection with more than 33 resets a second. Our peers
	   are our own programs: one session carries a whole host, and clients that leave are
	   resets. */
	if (nghttp2_option_set_stream_reset_rate_limit)
		nghttp2_option_set_stream_reset_rate_limit(opt, 1000000, 1000000);
	rc = h->role == H2_SERVER ? nghttp2_session_server_new2(&h->ng, cb, h, opt)
				  : nghttp2_session_client_new2(&h->ng, cb, h, opt);
	if (rc)
		abort();
	nghttp2_option_del(opt);
	nghttp2_session_callbacks_del(cb);
}

static void
gate_close(struct h2 *h, const struct h2_mark *mark)
{
	const uint8_t *p = NULL;
	ssize_t n;

	h->hello = BUF(h);
	while ((n = nghttp2_session_mem_send(h->ng, &p)) > 0)
		buf_add(&h->hello, p, (size_t)n);
	h->gate = talloc_zero(h, struct h2_gate);
	if (!h->gate)
		abort();
	h->gate->mark = *mark;
	h->gate->in = BUF(h->gate);
}

void
h2_hail(struct h2 *h, const struct h2_mark *mark)
{
	struct buf b = BUF(h);

	if (h->over || !h->gate)
		return;
	h->gate->mark = *mark;
	h->gate->again = true;
	if (h->hello.len < FILL) {
		buf_need(&b, FILL + h->hello.len);
		memset(b.data, 0, FILL);
		b.len = FILL;
		buf_add(&b, h->hello.data, h->hello.len);
		talloc_free(h->hello.data);
		h->hello = b;
	}
	h2_mark_put((uint8_t *)h->hello.data + FILL, mark);
	h->said = 0;
	due(h);
}

struct h2 *
h2_new(void *mem, enum h2_role role, const struct h2_events *on, const struct h2_limits *limits,
    void *user)
{
	struct h2 *h = talloc_zero(mem, struct h2);

	if (!h)
		abort();
	h->on = on;
	h->user = user;
	h->role = role;
	h->header_list = limits && limits->header_list ? limits->header_list : 32 * 1024;
	session_new(h);
	talloc_set_destructor(h, h2_destroy);
	submit_settings(h, limits);
	if (role == H2_CLIENT && limits && limits->mark)
		gate_close(h, limits->mark);
	return h;
}

void *
h2_user(const struct h2 *h)
{
	return h->user;
}

void
h2_set_due(struct h2 *h, void (*fn)(void *), void *arg)
{
	h->due = fn;
	h->due_arg = arg;
	due(h);
}

size_t
h2_streams(const struct h2 *h)
{
	return h->streams;
}

bool
h2_alive(const struct h2 *h)
{
	return !h->over && (nghttp2_session_want_read(h->ng) || nghttp2_session_want_write(h->ng));
}

bool
h2_met(const struct h2 *h)
{
	return !h->gate;
}

bool
h2_takes(const struct h2 *h)
{
	return !h->over && !h->leaving && nghttp2_session_check_request_allowed(h->ng);
}

void *
h2_stream_user(const struct h2_stream *s)
{
	return s->user;
}

void
h2_stream_set_user(struct h2_stream *s, void *user)
{
	s->user = user;
}

struct h2 *
h2_stream_session(const struct h2_stream *s)
{
	return s->h;
}

int32_t
h2_stream_id(const struct h2_stream *s)
{
	return s->id;
}
