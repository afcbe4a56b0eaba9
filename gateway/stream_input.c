/* stream_input.c - see stream_input.h. */
#include "stream_input.h"

#include "back.h"
#include "crypto.h"
#include "json.h"
#include "process_call.h"

#include <inttypes.h>
#include <string.h>
#include <talloc.h>

enum { WAIT_MAX = 64 * 1024, PIECE = 48 * 1024 };

struct stream_input {
	struct stream *s;
	struct process_selector who;
	bool terminal;
	struct buf wait; /* not sent yet; its first `sent` bytes are on their way */
	size_t sent;
	struct shot *busy, *resizing;
	bool ends;          /* standard input, behind what waits */
	int64_t cols, rows; /* wanted, while a size is on its way; 0: none */
};

/* ---- one small call whose answer matters little */

struct shot {
	struct guest *g;
	void (*done)(struct stream_input *, const struct err *);
	struct stream_input *in; /* NULL: nobody waits */
	struct buf body;
};

static void
shot_over(struct shot *s, const struct err *e)
{
	struct stream_input *in = s->in;
	void (*done)(struct stream_input *, const struct err *) = s->done;

	talloc_free(s);
	if (in && done)
		done(in, e);
}

static void
shot_refused(struct guest *g, int status, struct json_object *json)
{
	struct err e = { 0 };

	(void)err_set(&e, status == 404 ? E_NOT_FOUND : E_BAD_STATE, "%s",
	    json ? json_str(json, "message", "refused") : "refused");
	shot_over(guest_arg(g), &e);
}

static void
shot_data(struct guest *g, const uint8_t *p, size_t n)
{
	(void)p;
	guest_consume(g, n);
}

static void
shot_end(struct guest *g)
{
	struct err ok = { 0 };

	shot_over(guest_arg(g), &ok);
}

static void
shot_fail(struct guest *g, const struct err *e)
{
	shot_over(guest_arg(g), e);
}

static const struct guest_events shot_events = {
	.on_refused = shot_refused, .on_data = shot_data, .on_end = shot_end, .on_fail = shot_fail
};

static struct shot *
shoot(void *mem, struct request *r, const char *path, const struct buf *b, struct stream_input *in,
    void (*done)(struct stream_input *, const struct err *))
{
	struct guest_call call = { .method = "POST", .path = path, .type = "application/json" };
	struct shot *s = talloc_zero(mem, struct shot);

	if (!s)
		abort();
	*s = (struct shot){ .in = in, .done = done };
	s->g = guest_open(s, r, &call, &shot_events, s);
	if (!s->g) {
		talloc_free(s); /* the process's own stream tells that the host is lost */
		return NULL;
	}
	guest_write(s->g, b->data, b->len);
	guest_finish(s->g);
	return s;
}

/* ---- bytes */

static void input_pump(struct stream_input *);

static void
pace(struct stream_input *in)
{
	if (in->wait.len >= WAIT_MAX)
		ws_pause(in->s->ws);
	else
		ws_resume(in->s->ws);
}

static void
sent(struct stream_input *in, const struct err *e)
{
	in->busy = NULL;
	buf_cut(&in->wait, in->sent);
	in->sent = 0;
	if (e->code != E_OK) { /* it has ended, or its input is closed */
		TALLOC_FREE(in->wait.data);
		in->wait = BUF(in);
		if (e->code == E_BAD_STATE)
			stream_warn(in->s, e);
	}
	if (!in->wait.len) {
		TALLOC_FREE(in->wait.data);
		in->wait = BUF(in);
	}
	input_pump(in);
	if (in->s->phase == STREAM_OPEN)
		pace(in);
}

static void
closed(struct stream_input *in, const struct err *e)
{
	(void)e;
	in->busy = NULL;
}

static void
input_pump(struct stream_input *in)
{
	struct buf b = BUF(in);

	if (in->busy || (!in->wait.len && !in->ends))
		return;
	process_selector_put(&b, &in->who);
	if (in->wait.len) {
		in->sent = in->wait.len < PIECE ? in->wait.len : PIECE;
		buf_fmt(&b, ",\"input\":{\"%s\":\"", in->terminal ? "pty" : "stdin");
		buf_base64(&b, in->wait.data, in->sent);
		buf_str(&b, "\"}}");
		in->busy = shoot(in, in->s->r, "/process.Process/SendInput", &b, in, sent);
	} else {
		in->ends = false;
		buf_chr(&b, '}');
		in->busy = shoot(in, in->s->r, "/process.Process/CloseStdin", &b, in, closed);
	}
	talloc_free(b.data);
}

int
stream_input_add(struct stream_input *in, const char *base64)
{
	struct bytes raw = base64_read(in, base64);

	if (!raw.p)
		return err_set(&in->s->r->work.err, E_BAD_INPUT, "\"data\" is not base64");
	stream_input_bytes(in, raw.p, raw.n);
	talloc_free((void *)raw.p);
	return 0;
}

void
stream_input_bytes(struct stream_input *in, const void *p, size_t n)
{
	if (n && !in->ends)
		buf_add(&in->wait, p, n);
	input_pump(in);
	pace(in);
}

void
stream_input_end(struct stream_input *in)
{
	in->ends = true;
	input_pump(in);
}

/* ---- what overtakes */

void
stream_signal(struct stream_input *in, const char *name)
{
	struct buf b = BUF(in);

	process_selector_put(&b, &in->who);
	buf_fmt(&b, ",\"signal\":\"%s\"}", name);
	(void)shoot(in, in->s->r, "/process.Process/SendSignal", &b, NULL, NULL);
	talloc_free(b.data);
}

static void send_size(struct stream_input *);

static void
resized(struct stream_input *in, const struct err *e)
{
	(void)e;
	in->resizing = NULL;
	if (in->cols)
		send_size(in);
}

static void
send_size(struct stream_input *in)
{
	struct buf b = BUF(in);

	process_selector_put(&b, &in->who);
	buf_fmt(&b, ",\"pty\":{\"size\":{\"cols\":%" PRId64 ",\"rows\":%" PRId64 "}}}", in->cols,
	    in->rows);
	in->cols = 0;
	in->resizing = shoot(in, in->s->r, "/process.Process/Update", &b, in, resized);
	talloc_free(b.data);
}

void
stream_resize(struct stream_input *in, int64_t cols, int64_t rows)
{
	in->cols = cols;
	in->rows = rows;
	if (!in->resizing) /* of many sizes the last one counts */
		send_size(in);
}

void
stream_kill(struct request *r, int64_t pid)
{
	struct process_selector who = { .pid = pid };
	struct buf b = BUF(r);

	process_selector_put(&b, &who);
	buf_str(&b, ",\"signal\":\"SIGNAL_SIGKILL\"}");
	(void)shoot(NULL, r, "/process.Process/SendSignal", &b, NULL, NULL);
}

struct stream_input *
stream_input_new(void *mem, struct stream *s, int64_t pid, bool terminal)
{
	struct stream_input *in = talloc_zero(mem, struct stream_input);

	if (!in)
		abort();
	*in = (struct stream_input){ .s = s, .who = { .pid = pid }, .terminal = terminal };
	in->wait = BUF(in);
	return in;
}
