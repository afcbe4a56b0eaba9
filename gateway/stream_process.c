/* stream_process.c - see stream_process.h. */
#include "stream_process.h"

#include "back.h"
#include "cleanup.h"
#include "connect.h"
#include "crypto.h"
#include "gateway.h"
#include "json.h"
#include "process_call.h"
#include "stream_input.h"
#include "timer.h"
#include "utf8.h"

#include <inttypes.h>
#include <string.h>

enum {
	FRAME_MAX = 1 << 20,
	GRACE_MS = 5000, /* between TERM and KILL */
	PING_MS = 30000, /* of terminals, as JSON */
	CUT_MAX = 3,     /* bytes of a character that is not complete */
};

struct process {
	struct stream *s;
	struct process_how how;
	struct guest *g;
	struct connect frames;
	struct stream_input *input; /* once its pid is known */
	struct process_selector who;
	struct {
		char p[CUT_MAX];
		size_t n;
	} cut[2];            /* of stdout, stderr: bytes of a character whose rest comes */
	size_t owed;         /* bytes that the client has not taken: not consumed yet */
	size_t waits;        /* ws_queued() when it was looked at last */
	struct timer *slow;  /* the starter's client takes nothing */
	struct timer *limit; /* timeout_sec: TERM, then KILL */
	uint64_t seq;        /* told last */
	bool skips;          /* a viewer is behind: output is left out … */
	uint64_t gap_from;   /* … from here on */
	bool started, timed_out;
};

/* Of what base64 says, without reading it. */
static size_t
base64_size(const char *text)
{
	size_t n = strlen(text), pad = 0;

	while (pad < 2 && pad < n && text[n - 1 - pad] == '=')
		pad++;
	return (n - pad) * 3 / 4;
}

/* ---- to the client */

static void
say(struct process *p, struct buf *b)
{
	stream_send(p->s, b);
	talloc_free(b->data);
}

static void
say_gap(struct process *p, uint64_t from, uint64_t to)
{
	struct buf b = BUF(p);

	if (from >= to)
		return;
	buf_fmt(&b, "{\"type\":\"gap\",\"from\":%" PRIu64 ",\"to\":%" PRIu64 "}", from, to);
	say(p, &b);
	p->seq = to;
}

/* Text is cut only between characters: the rest waits for the next piece. Returns how many bytes
   wait. */
static size_t
put_text(struct process *p, struct buf *b, int which, const char *data, size_t n)
{
	struct buf all = BUF(p), good = BUF(p);
	size_t whole = 0, rest = 0;

	buf_need(&all, CUT_MAX + n);
	buf_add(&all, p->cut[which].p, p->cut[which].n);
	if (n)
		buf_add(&all, data, n);
	whole = utf8_whole(all.data, all.len);
	rest = all.len - whole;
	utf8_mend(&good, all.data, whole);
	buf_jsonn(b, good.data ? good.data : "", good.len);
	memcpy(p->cut[which].p, all.data + whole, rest);
	p->cut[which].n = rest;
	talloc_free(all.data);
	talloc_free(good.data);
	return rest;
}

static void
say_output(struct process *p, const char *kind, const char *base64, uint64_t seq)
{
	bool err = strcmp(kind, "stderr") == 0;
	struct buf b = BUF(p);
	size_t waits = 0;

	buf_fmt(&b, "{\"type\":\"%s\",\"data\":", p->how.terminal ? "output" : kind);
	if (p->how.terminal || p->how.base64) {
		buf_json(&b, base64);
	} else {
		struct bytes raw = base64_read(p, base64);

		waits = put_text(p, &b, err, (const char *)raw.p, raw.n);
		talloc_free((void *)raw.p);
	}
	buf_fmt(&b, ",\"seq\":%" PRIu64 "}", seq - waits);
	say(p, &b);
	p->seq = seq - waits;
}

/* What of a character never came. */
static void
say_rest(struct process *p)
{
	static const char *const kinds[] = { "stdout", "stderr" };

	for (int i = 0; i < 2; i++) {
		struct buf b = BUF(p), good = BUF(p);

		if (!p->cut[i].n)
			continue;
		utf8_mend(&good, p->cut[i].p, p->cut[i].n);
		buf_fmt(&b, "{\"type\":\"%s\",\"data\":", kinds[i]);
		buf_json(&b, good.data);
		p->seq += p->cut[i].n;
		buf_fmt(&b, ",\"seq\":%" PRIu64 "}", p->seq);
		p->cut[i].n = 0;
		say(p, &b);
		talloc_free(good.data);
	}
}

static void
say_start(struct process *p, struct json_object *start)
{
	struct buf b = BUF(p);
	const char *tag = json_str(start, "tag", p->how.tag);

	buf_fmt(&b, "{\"type\":\"%s\",\"pid\":%" PRId64, p->how.terminal ? "started" : "start",
	    p->who.pid);
	if (tag) {
		buf_str(&b, ",\"tag\":");
		buf_json(&b, tag);
	}
	if (p->how.terminal)
		buf_fmt(&b, ",\"cols\":%" PRId64 ",\"rows\":%" PRId64,
		    json_int(start, "cols", p->how.cols), json_int(start, "rows", p->how.rows));
	buf_chr(&b, '}');
	say(p, &b);
}

static void
say_exit(struct process *p, int64_t code, int64_t signal)
{
	struct buf b = BUF(p);

	buf_fmt(&b, "{\"type\":\"exit\",\"exit_code\":%" PRId64, code);
	if (signal > 0)
		buf_fmt(&b, ",\"signal\":%" PRId64, signal);
	if (!p->how.terminal)
		buf_fmt(&b, ",\"timed_out\":%s", p->timed_out ? "true" : "false");
	buf_chr(&b, '}');
	say(p, &b);
	p->how.kill_on_close = false;
	stream_end(p->s, WS_NORMAL, "the process ended");
}

static void
on_ping(void *arg)
{
	struct process *p = arg;
	struct buf b = BUF(p);

	buf_str(&b, "{\"type\":\"ping\"}");
	if (ws_queued(p->s->ws) < SOCK_HIGH)
		stream_send(p->s, &b);
	talloc_free(b.data);
}

/* ---- pace */

/* Nothing was taken since the last look: the stream ends, the process goes on. */
static void
on_slow(void *arg)
{
	struct process *p = arg;
	size_t now = ws_queued(p->s->ws);
	uint64_t ms = (uint64_t)p->s->r->gw->conf->gateway_slow_sec * 1000;

	TALLOC_FREE(p->slow);
	if (now < p->waits) {
		p->waits = now;
		p->slow = timer_start(p, p->s->r->gw->loop, ms, 0, on_slow, p);
		return;
	}
	(void)err_set(
	    &p->s->r->work.err, E_RATE, "nothing was taken for too long: the process goes on");
	stream_fail(p->s);
}

static void
consume(struct process *p, size_t n)
{
	uint64_t ms = (uint64_t)p->s->r->gw->conf->gateway_slow_sec * 1000;

	if (!p->g)
		return;
	p->owed += n;
	if (!p->how.starter || ws_queued(p->s->ws) < SOCK_HIGH) {
		guest_consume(p->g, p->owed);
		p->owed = 0;
	} else if (!p->slow) {
		p->waits = ws_queued(p->s->ws);
		p->slow = timer_start(p, p->s->r->gw->loop, ms, 0, on_slow, p);
	}
}

void
process_room(struct process *p)
{
	TALLOC_FREE(p->slow);
	if (p->owed && p->g)
		guest_consume(p->g, p->owed);
	p->owed = 0;
}

/* ---- the time it may take */

static void
on_kill(void *arg)
{
	struct process *p = arg;

	TALLOC_FREE(p->limit);
	stream_signal(p->input, "SIGNAL_SIGKILL");
}

static void
on_limit(void *arg)
{
	struct process *p = arg;

	TALLOC_FREE(p->limit);
	p->timed_out = true;
	stream_signal(p->input, "SIGNAL_SIGTERM");
	p->limit = timer_start(p, p->s->r->gw->loop, GRACE_MS, 0, on_kill, p);
}

/* ---- from the guest */

static void
on_start(struct process *p, struct json_object *start)
{
	if (p->started)
		return;
	p->started = true;
	p->who.pid = json_int(start, "pid", 0);
	p->input = stream_input_new(p, p->s, p->who.pid, p->how.terminal);
	say_start(p, start);
	if (p->how.timeout_sec > 0)
		p->limit = timer_start(
		    p, p->s->r->gw->loop, (uint64_t)p->how.timeout_sec * 1000, 0, on_limit, p);
	if (p->how.terminal)
		(void)timer_start(p, p->s->r->gw->loop, PING_MS, PING_MS, on_ping, p);
}

static void
on_output(struct process *p, struct json_object *data)
{
	static const char *const kinds[] = { "stdout", "stderr", "pty" };
	uint64_t seq = strtoull(json_str(data, "seq", "0"), NULL, 10);

	for (size_t i = 0; i < nitems(kinds); i++) {
		const char *base64 = json_str(data, kinds[i], NULL);
		size_t n = base64 ? base64_size(base64) : 0;

		if (!base64)
			continue;
		if (!p->how.starter && ws_queued(p->s->ws) >= SOCK_HIGH) {
			if (!p->skips)
				p->gap_from = p->seq ? p->seq : seq - n;
			p->skips = true;
			p->cut[0].n = p->cut[1].n = 0;
			p->seq = seq;
			return;
		}
		if (p->skips)
			say_gap(p, p->gap_from, seq - n);
		p->skips = false;
		say_output(p, kinds[i], base64, seq);
	}
}

static void
on_gap(struct process *p, struct json_object *gap)
{
	uint64_t from = strtoull(json_str(gap, "from", "0"), NULL, 10);
	uint64_t to = strtoull(json_str(gap, "to", "0"), NULL, 10);

	p->cut[0].n = p->cut[1].n = 0;
	if (p->skips)
		return; /* it becomes part of the larger one */
	say_gap(p, from, to);
}

static void
on_exit_of(struct process *p, struct json_object *end)
{
	int64_t signal = json_int(end, "signal", 0);

	if (p->skips)
		say_gap(p, p->gap_from, p->seq);
	say_rest(p);
	say_exit(p, signal > 0 ? -1 : json_int(end, "exitCode", 0), signal);
}

/* The last frame of a stream that did not tell the process's end. */
static void
refused(struct process *p, struct json_object *error)
{
	const char *code = json_str(error, "code", ""), *text = json_str(error, "message", "");
	bool absent = strcmp(code, "not_found") == 0;
	bool denied = strcmp(code, "permission_denied") == 0 && strncmp(text, "fork/exec", 9) == 0;
	struct buf b = BUF(p);

	if (!p->started && p->how.starter && (absent || denied)) {
		if (p->how.absent && p->how.absent(p->s))
			return;
		buf_fmt(&b, "{\"type\":\"%s\",\"data\":", p->how.terminal ? "output" : "stderr");
		if (p->how.terminal || p->how.base64) {
			buf_chr(&b, '"');
			buf_base64(&b, text, strlen(text));
			buf_chr(&b, '"');
		} else {
			buf_json(&b, text);
		}
		buf_str(&b, ",\"seq\":0}");
		say(p, &b);
		say_exit(p, absent ? 127 : 126, 0); /* as a shell says it */
	} else if (strcmp(code, "deadline_exceeded") == 0 && p->started) {
		p->timed_out = true;
		say_exit(p, -1, 9);
	} else {
		stream_refused(p->s, 0, error);
	}
}

/* 0: go on; 1: it is over. */
static int
frame(void *arg, unsigned flags, const char *text, size_t n)
{
	struct process *p = arg;
	struct stream *s = p->s;
	auto_talloc char *mem = talloc_new(s);
	struct json_object *json = json_parse(mem, text, n, NULL, &s->r->work.err);
	struct json_object *ev = json ? json_get(json, "event") : NULL;
	struct json_object *error = json ? json_get(json, "error") : NULL, *what = NULL;

	if (!json) {
		(void)err_set(&s->r->work.err, E_AGENT, "the guest's frame is not JSON");
		stream_fail(s);
		return 1;
	}
	if (flags & CONNECT_LAST) {
		if (error && json_object_is_type(error, json_type_object))
			refused(p, error);
		return 1;
	}
	if (ev && (what = json_get(ev, "start")))
		on_start(p, what);
	if (ev && (what = json_get(ev, "data")))
		on_output(p, what);
	if (ev && (what = json_get(ev, "gap")))
		on_gap(p, what);
	if (ev && (what = json_get(ev, "end")))
		on_exit_of(p, what);
	return s->phase == STREAM_OVER;
}

static void
on_refused(struct guest *g, int status, struct json_object *json)
{
	struct process *p = guest_arg(g);

	stream_refused(p->s, status, json);
}

static void
on_data(struct guest *g, const uint8_t *data, size_t n)
{
	struct process *p = guest_arg(g);
	struct stream *s = p->s;
	struct err e = { 0 };
	int rc = connect_feed(&p->frames, data, n, frame, p, &e);

	if (rc < 0) {
		s->r->work.err = e;
		stream_fail(s);
	}
	/* Over, or begun anew: then p is not the stream's any more. */
	if (rc == 0 && s->state == p && s->phase != STREAM_OVER)
		consume(p, n);
}

static void
on_fail(struct guest *g, const struct err *e)
{
	struct process *p = guest_arg(g);

	p->g = NULL;
	if (p->s->state == p)
		stream_lost(p->s, e);
}

static void
on_end(struct guest *g)
{
	struct err e = { 0 };

	(void)err_set(&e, E_AGENT, "the stream ended before the process");
	on_fail(g, &e);
}

static const struct guest_events guest_events = {
	.on_refused = on_refused,
	.on_data = on_data,
	.on_end = on_end,
	.on_fail = on_fail,
};

struct process *
process_open(
    struct stream *s, const char *path, const struct buf *message, const struct process_how *how)
{
	struct process *p = talloc_zero(s, struct process);
	struct guest_call call = { .method = "POST",
		.path = path,
		.type = "application/connect+json",
		.user = how->user,
		.activity = how->activity };
	struct buf framed = BUF(p);

	if (!p)
		abort();
	*p = (struct process){ .s = s, .how = *how };
	p->frames = (struct connect){ .part = BUF(p), .max = FRAME_MAX };
	/* The guest ends it by itself when we do not live to do it. */
	if (how->timeout_sec > 0) {
		call.name = "connect-timeout-ms";
		call.value = talloc_asprintf(p, "%" PRId64, how->timeout_sec * 1000 + 2 * GRACE_MS);
	}
	p->g = guest_open(p, s->r, &call, &guest_events, p);
	if (!p->g) {
		talloc_free(p);
		return NULL;
	}
	connect_frame(&framed, 0, message->data, message->len);
	guest_write(p->g, framed.data, framed.len);
	guest_finish(p->g);
	talloc_free(framed.data);
	return p;
}

/* ---- from the client */

int
process_input(struct process *p, const char *data)
{
	if (!p->input)
		return 0;
	if (p->how.terminal || p->how.base64)
		return stream_input_add(p->input, data);
	stream_input_bytes(p->input, data, strlen(data));
	return 0;
}

void
process_eof(struct process *p)
{
	if (p->input)
		stream_input_end(p->input);
}

int
process_signal(struct process *p, const char *name)
{
	const char *signal = process_signal_name(p, name);

	if (!signal)
		return err_set(
		    &p->s->r->work.err, E_BAD_INPUT, "\"signal\" is not one that can be sent");
	if (p->input)
		stream_signal(p->input, signal);
	return 0;
}

void
process_resize(struct process *p, int64_t cols, int64_t rows)
{
	if (p->input)
		stream_resize(p->input, cols, rows);
}

void
process_gone(struct process *p)
{
	if (p->how.kill_on_close && p->started)
		stream_kill(p->s->r, p->who.pid);
	TALLOC_FREE(p->g);
	TALLOC_FREE(p->slow);
	TALLOC_FREE(p->limit);
}
