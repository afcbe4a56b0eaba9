/*
 * exec.c - POST …/exec: one command in a capsule, with its output when it has ended, or in the
 * background.
 *
 * The guest streams the output; it is kept up to OUTPUT_MAX each and read and dropped beyond. Spec
 * 02 §2.5.
 */
#include "back.h"
#include "cleanup.h"
#include "connect.h"
#include "crypto.h"
#include "gateway.h"
#include "json.h"
#include "process_call.h"
#include "route.h"
#include "timer.h"
#include "utf8.h"

#include <inttypes.h>
#include <string.h>

static handler exec_run;

struct exec_in {
	const char *cmd, *tag, *cwd, *user, *input;
	const char *const *args;
	const struct pair *envs;
	int64_t timeout_sec;
	bool background;
};
/* clang-format off */
static const struct field exec_fields[] = {
	FIELD(exec_in, cmd, "cmd", .flags = NEEDED, .min = 1, .max = 65536, .doc = "Program to run; no shell is added."),
	FIELD(exec_in, args, "args", .max = 4096, .doc = "Its arguments."),
	FIELD(exec_in, timeout_sec, "timeout_sec", .min = INT32_MIN, .max = 86400, .doc = "Seconds until it is ended; 0 or less: 30. Foreground only."),
	FIELD(exec_in, background, "background", .doc = "Answer at once; the process goes on."),
	FIELD(exec_in, tag, "tag", .max = 64, .doc = "Name of the process: letters, digits, dot, underscore, hyphen; unique among the living."),
	FIELD(exec_in, envs, "envs", .max = 128, .format = "env-name", .doc = "Variables added to the capsule's."),
	FIELD(exec_in, cwd, "cwd", .max = 4096, .doc = "Directory; default: the template's."),
	FIELD(exec_in, user, "user", .max = 64, .doc = "Linux user; default: the template's."),
	FIELD(exec_in, input, "stdin", .max = 1398104, .doc = "Standard input in base64, at most 1 MiB; absent: none."),
	{ 0 },
};

struct exec_out {
	const char *sandbox_id, *cmd, *out, *err, *encoding, *tag;
	int64_t exit_code, duration_ms, pid;
	bool truncated, timed_out;
};
static const struct field exec_out_fields[] = {
	FIELD(exec_out, sandbox_id, "sandbox_id"),
	FIELD(exec_out, cmd, "cmd"),
	FIELD(exec_out, out, "stdout", .flags = OMIT, .doc = "Foreground only, like what follows."),
	FIELD(exec_out, err, "stderr", .flags = OMIT),
	FIELD(exec_out, exit_code, "exit_code", .flags = OMIT, .doc = "127: no such command; 126: it may not be run; 124: timed out; 128 + n: ended by signal n."),
	FIELD(exec_out, duration_ms, "duration_ms", .flags = OMIT),
	FIELD(exec_out, encoding, "encoding", .flags = OMIT, .one_of = "utf-8|base64", .doc = "Of both outputs."),
	FIELD(exec_out, truncated, "truncated", .flags = OMIT, .doc = "An output was larger than 16 MiB."),
	FIELD(exec_out, timed_out, "timed_out", .flags = OMIT),
	FIELD(exec_out, pid, "pid", .flags = OMIT, .doc = "Background only (202)."),
	FIELD(exec_out, tag, "tag", .flags = OMIT, .doc = "Background only."),
	{ 0 },
};

const struct route exec_routes[] = {
	CAPSULE_ROUTES("POST", "exec", PERM_capsules_connect, exec_run,
	    "Run a command", 0, 200, .also = 202, .in = exec_fields, .insize = sizeof(struct exec_in), OUT(exec_out)),
	{ 0 },
};
/* clang-format on */

enum {
	OUTPUT_MAX = 16 << 20,
	INPUT_MAX = 1 << 20,
	FRAME_MAX = 1 << 20,
	DEFAULT_SEC = 30,
	GRACE_MS = 5000,   /* between TERM and KILL */
	SPACE_MS = 20000,  /* nothing on the way may take us for dead */
	LAST_MS = 1000,    /* between the end of a process and of its stream */
	START_MS = 30000,  /* until the guest says that it started */
	PIECE = 48 * 1024, /* of output in an answer; a multiple of 3 */
	SMALL = 64 * 1024, /* an answer that is not streamed */
};

enum phase { STARTING, RUNNING, ENDING, DONE };

struct output {
	struct buf b;
	bool cut;
};

struct exec {
	struct request *r;
	const struct exec_in *in;
	struct guest *g;
	struct connect frames;
	enum phase phase;
	const char *tag;
	int64_t pid;
	uint64_t began, took_ms;
	struct output out[2]; /* stdout, stderr */
	int exit_code;
	bool timed_out, base64;
	bool over;           /* the end was told; the stream's end follows */
	struct timer *limit; /* the next thing that happens by time: no start, TERM, KILL */
	int part;            /* of the answer being written */
	size_t at;
};

/* ---- the answer */

/* A cut may fall into a character; then that character is not there. */
static void
trim(struct output *o)
{
	if (o->cut)
		o->b.len = utf8_whole(o->b.data, o->b.len);
}

static void
put_output(struct buf *to, const struct exec *x, const char *p, size_t n)
{
	if (x->base64) {
		buf_base64(to, p, n);
	} else {
		size_t from = to->len;

		/* buf_jsonn's quotes belong to the whole string, not to its pieces. */
		buf_jsonn(to, p, n);
		to->len--;
		memmove(to->data + from, to->data + from + 1, to->len - from - 1);
		to->len--;
		to->data[to->len] = '\0';
	}
}

static void
put_head(struct buf *b, const struct exec *x)
{
	buf_str(b, "{\"sandbox_id\":");
	buf_json(b, x->r->access->id);
	buf_str(b, ",\"cmd\":");
	buf_json(b, x->in->cmd);
	buf_str(b, ",\"stdout\":\"");
}

static void
put_tail(struct buf *b, const struct exec *x)
{
	buf_fmt(b, "\",\"exit_code\":%d,\"duration_ms\":%" PRIu64 ",\"encoding\":\"%s\"",
	    x->exit_code, x->took_ms, x->base64 ? "base64" : "utf-8");
	if (x->out[0].cut || x->out[1].cut)
		buf_str(b, ",\"truncated\":true");
	if (x->timed_out)
		buf_str(b, ",\"timed_out\":true");
	buf_chr(b, '}');
}

/* The next piece of the answer: head, stdout, between, stderr, tail. */
static void
on_room(struct request *r)
{
	struct exec *x = r->state;
	struct buf b = BUF(x);

	if (x->phase != DONE)
		return; /* a space was sent; the answer is not there yet */
	if (x->part == 0) {
		put_head(&b, x);
		x->part++;
	} else if (x->part == 1 || x->part == 2) {
		struct output *o = &x->out[x->part - 1];
		size_t n = o->b.len - x->at < PIECE ? o->b.len - x->at : PIECE;

		if (n)
			put_output(&b, x, o->b.data + x->at, n);
		x->at += n;
		if (x->at == o->b.len) {
			TALLOC_FREE(o->b.data);
			o->b = BUF(x);
			x->at = 0;
			if (x->part++ == 1)
				buf_str(&b, "\",\"stderr\":\"");
		}
	} else {
		put_tail(&b, x);
		reply_write(r, b.data, b.len);
		reply_end(r);
		talloc_free(b.data);
		return;
	}
	reply_write(r, b.data, b.len);
	talloc_free(b.data);
	if (reply_queued(r) == 0)
		on_room(r); /* that part was empty */
}

static void
answer(struct exec *x)
{
	struct request *r = x->r;
	struct buf b = BUF(r);

	x->phase = DONE;
	x->took_ms = uv_now(r->gw->loop) - x->began;
	TALLOC_FREE(x->g);
	TALLOC_FREE(x->limit);
	trim(&x->out[0]);
	trim(&x->out[1]);
	x->base64 = !utf8_ok(x->out[0].b.data, x->out[0].b.len) ||
	    !utf8_ok(x->out[1].b.data, x->out[1].b.len);
	if (r->reply.state != REPLY_NONE || x->out[0].b.len + x->out[1].b.len > SMALL) {
		reply_begin(r, 200, "application/json", -1);
		request_wake(r);
		return;
	}
	put_head(&b, x);
	put_output(&b, x, x->out[0].b.data, x->out[0].b.len);
	buf_str(&b, "\",\"stderr\":\"");
	put_output(&b, x, x->out[1].b.data, x->out[1].b.len);
	put_tail(&b, x);
	reply_json(r, 200, &b);
}

static void
answer_background(struct exec *x)
{
	struct request *r = x->r;
	struct buf b = BUF(r);

	TALLOC_FREE(x->g); /* the process goes on without a listener */
	TALLOC_FREE(x->limit);
	x->phase = DONE;
	buf_str(&b, "{\"sandbox_id\":");
	buf_json(&b, r->access->id);
	buf_str(&b, ",\"cmd\":");
	buf_json(&b, x->in->cmd);
	buf_fmt(&b, ",\"pid\":%" PRId64 ",\"tag\":", x->pid);
	buf_json(&b, x->tag);
	buf_chr(&b, '}');
	reply_json(r, 202, &b);
}

/* The request's answer is an error; the process, if there is one, is the guest's business now. */
static void
give_up(struct exec *x)
{
	x->phase = DONE;
	TALLOC_FREE(x->g);
	TALLOC_FREE(x->limit);
	reply_error(x->r);
}

/* ---- standard input and signals */

static void
put_selector(struct buf *b, const struct exec *x)
{
	buf_fmt(b, "{\"process\":{\"pid\":%" PRId64 "}", x->pid);
}

static void
input_closed(struct request *r, void *arg, int status, struct json_object *json)
{
	struct exec *x = arg;

	(void)r;
	(void)status; /* a process that ended or closed its input took what it wanted */
	(void)json;
	if (x->in->background && x->phase != DONE)
		answer_background(x);
}

static void
input_sent(struct request *r, void *arg, int status, struct json_object *json)
{
	struct exec *x = arg;
	struct buf b = BUF(x);

	(void)status;
	(void)json;
	if (x->phase == DONE)
		return;
	put_selector(&b, x);
	buf_chr(&b, '}');
	guest_ask(r, r, "/process.Process/CloseStdin", NULL, &b, GUEST_MS, input_closed, x);
}

static void
send_input(struct exec *x)
{
	struct buf b = BUF(x);

	put_selector(&b, x);
	buf_str(&b, ",\"input\":{\"stdin\":");
	buf_json(&b, x->in->input);
	buf_str(&b, "}}");
	guest_ask(x->r, x->r, "/process.Process/SendInput", NULL, &b,
	    x->in->background ? GUEST_MS : 0, input_sent, x);
	talloc_free(b.data);
}

static void
signalled(struct request *r, void *arg, int status, struct json_object *json)
{
	(void)r;
	(void)arg;
	(void)status; /* it may have ended meanwhile; the stream tells */
	(void)json;
}

static void
send_signal(struct exec *x, const char *name)
{
	struct buf b = BUF(x);

	put_selector(&b, x);
	buf_fmt(&b, ",\"signal\":\"%s\"}", name);
	guest_ask(x->r, x->r, "/process.Process/SendSignal", NULL, &b, GUEST_MS, signalled, x);
	talloc_free(b.data);
}

static void
on_kill(void *arg)
{
	struct exec *x = arg;

	TALLOC_FREE(x->limit);
	send_signal(x, "SIGNAL_SIGKILL");
}

static void
on_limit(void *arg)
{
	struct exec *x = arg;

	TALLOC_FREE(x->limit);
	if (x->phase == STARTING) {
		(void)err_set(
		    &x->r->work.err, E_TIMEOUT, "the guest did not start the command in time");
		give_up(x);
		return;
	}
	x->timed_out = true;
	x->phase = ENDING;
	x->limit = timer_start(x, x->r->gw->loop, GRACE_MS, 0, on_kill, x);
	send_signal(x, "SIGNAL_SIGTERM");
}

static void
on_space(void *arg)
{
	struct exec *x = arg;

	if (x->phase == DONE)
		return;
	reply_begin(x->r, 200, "application/json", -1);
	reply_write(x->r, " ", 1);
}

/* ---- what the guest says */

static int64_t
seconds(const struct exec *x)
{
	return x->in->timeout_sec > 0 ? x->in->timeout_sec : DEFAULT_SEC;
}

static int
started(struct exec *x, struct json_object *start)
{
	x->pid = json_int(start, "pid", 0);
	x->phase = RUNNING;
	TALLOC_FREE(x->limit);
	if (x->in->input)
		send_input(x);
	else if (x->in->background)
		answer_background(x);
	if (x->in->background || x->phase == DONE)
		return x->phase == DONE;
	x->limit = timer_start(x, x->r->gw->loop, (uint64_t)seconds(x) * 1000, 0, on_limit, x);
	(void)timer_start(x, x->r->gw->loop, SPACE_MS, SPACE_MS, on_space, x);
	return 0;
}

static void
keep(struct exec *x, int which, const char *text)
{
	struct output *o = &x->out[which];
	struct bytes b = { 0 };
	size_t n = 0;

	if (!text || o->cut)
		return;
	b = base64_read(x, text);
	if (!b.p)
		return;
	n = b.n < OUTPUT_MAX - o->b.len ? b.n : OUTPUT_MAX - o->b.len;
	buf_add(&o->b, b.p, n);
	o->cut = n < b.n;
	talloc_free((void *)b.p);
}

static void
ended(struct exec *x, struct json_object *end)
{
	int64_t signal = json_int(end, "signal", 0);

	x->exit_code = (int)json_int(end, "exitCode", 0);
	if (signal > 0)
		x->exit_code = 128 + (int)signal; /* what a shell would say */
	if (x->timed_out)
		x->exit_code = 124;
}

/* The guest told the end of the process, but does not end its stream. */
static void
on_last(void *arg)
{
	answer(arg);
}

static int
event(struct exec *x, struct json_object *ev)
{
	struct json_object *start = json_get(ev, "start"), *data = json_get(ev, "data");
	struct json_object *end = json_get(ev, "end");

	if (start && x->phase == STARTING)
		return started(x, start);
	if (data) {
		keep(x, 0, json_str(data, "stdout", NULL));
		keep(x, 1, json_str(data, "stderr", NULL));
	}
	if (end && !x->in->background && !x->over) {
		ended(x, end);
		TALLOC_FREE(x->limit);
		x->over = true;
		x->limit = timer_start(x, x->r->gw->loop, LAST_MS, 0, on_last, x);
	}
	return 0;
}

/* The last frame without an end before it: the command did not start, or the guest's deadline
 * passed. */
static void
refused(struct exec *x, struct json_object *error)
{
	const char *code = json_str(error, "code", "");
	const char *text = json_str(error, "message", "");

	bool absent = strcmp(code, "not_found") == 0;
	bool denied = strcmp(code, "permission_denied") == 0 && strncmp(text, "fork/exec", 9) == 0;

	if ((absent || denied) && x->phase == STARTING) {
		x->exit_code = absent ? 127 : 126; /* as a shell says it */
		buf_str(&x->out[1].b, text);
		answer(x);
	} else if (strcmp(code, "deadline_exceeded") == 0 && x->phase != STARTING) {
		x->timed_out = true;
		x->exit_code = 124;
		answer(x);
	} else {
		guest_refused(x->r, 0, error);
		give_up(x);
	}
}

/* 0: go on; 1: the exec is over. */
static int
frame(void *arg, unsigned flags, const char *text, size_t n)
{
	struct exec *x = arg;
	struct err e = { 0 };
	auto_talloc char *mem = talloc_new(x); /* thousands of frames make one exec */
	struct json_object *json = json_parse(mem, text, n, NULL, &e);
	struct json_object *ev = json ? json_get(json, "event") : NULL;
	struct json_object *error = json ? json_get(json, "error") : NULL;

	if (!json || (error && !json_object_is_type(error, json_type_object))) {
		(void)err_set(
		    &x->r->work.err, E_AGENT, "the guest's frame: %s", json ? "error" : e.text);
		give_up(x);
		return 1;
	}
	if (flags & CONNECT_LAST && error) {
		refused(x, error);
		return 1;
	}
	if (flags & CONNECT_LAST && !x->over) {
		(void)err_set(&x->r->work.err, E_AGENT, "the stream ended before the process");
		give_up(x);
		return 1;
	}
	return ev && json_object_is_type(ev, json_type_object) ? event(x, ev) : 0;
}

/* ---- the stream */

static void
on_refused(struct guest *g, int status, struct json_object *json)
{
	struct exec *x = guest_arg(g);

	guest_refused(x->r, status, json);
	give_up(x);
}

static void
on_data(struct guest *g, const uint8_t *p, size_t n)
{
	struct exec *x = guest_arg(g);

	guest_consume(g, n);
	if (connect_feed(&x->frames, p, n, frame, x, &x->r->work.err) < 0)
		give_up(x);
}

static void
on_fail(struct guest *g, const struct err *e)
{
	struct exec *x = guest_arg(g);

	(void)err_set(&x->r->work.err, e->code, "%s", e->text);
	give_up(x);
}

static void
on_end(struct guest *g)
{
	struct exec *x = guest_arg(g);
	struct err e = { 0 };

	if (x->over) {
		answer(x);
		return;
	}
	(void)err_set(&e, E_AGENT, "the stream ended before the process");
	on_fail(g, &e);
}

static const struct guest_events exec_events = {
	.on_refused = on_refused,
	.on_data = on_data,
	.on_end = on_end,
	.on_fail = on_fail,
};

/* ---- the request */

static int
check(struct request *r, const struct exec_in *in)
{
	struct bytes input = { 0 };

	if (process_tag_check(in->tag, &r->work.err) < 0 ||
	    process_user_check(in->user, &r->work.err) < 0)
		return -1;
	if (!in->input)
		return 0;
	input = base64_read(r, in->input);
	if (!input.p)
		return err_set(&r->work.err, E_BAD_INPUT, "\"stdin\" is not base64");
	if (input.n > INPUT_MAX)
		return err_set(&r->work.err, E_BAD_INPUT, "\"stdin\" is larger than 1 MiB");
	talloc_free((void *)input.p);
	return 0;
}

static int
exec_run(struct request *r)
{
	struct exec *x = talloc_zero(r, struct exec);
	/* what runs in the background holds the idle timer only where the process itself counts */
	struct guest_call call = { .method = "POST", .path = "/process.Process/Start" };
	struct buf message = BUF(x), framed = BUF(x);

	if (!x)
		abort();
	*x = (struct exec){ .r = r, .in = r->in, .began = uv_now(r->gw->loop) };
	x->frames = (struct connect){ .part = BUF(x), .max = FRAME_MAX };
	x->out[0].b = x->out[1].b = BUF(x);
	if (check(r, x->in) < 0)
		return -1;
	x->tag = x->in->tag ? x->in->tag : process_tag_new(x, "proc");
	r->state = x;
	r->on_room = on_room;
	call.type = "application/connect+json";
	call.user = x->in->user;
	call.activity = x->in->background ? "touch" : "hold";
	/* The guest ends it by itself when we do not live to do it. */
	if (!x->in->background) {
		call.name = "connect-timeout-ms";
		call.value = talloc_asprintf(x, "%" PRId64, seconds(x) * 1000 + 2 * GRACE_MS);
	}
	x->g = guest_open(x, r, &call, &exec_events, x);
	if (!x->g)
		return -1;
	process_start_put(&message,
	    &(struct process_start){ .cmd = x->in->cmd,
		.cwd = x->in->cwd,
		.tag = x->tag,
		.args = x->in->args,
		.envs = x->in->envs,
		.input = x->in->input != NULL });
	connect_frame(&framed, 0, message.data, message.len);
	guest_write(x->g, framed.data, framed.len);
	guest_finish(x->g);
	talloc_free(message.data);
	talloc_free(framed.data);
	x->limit = timer_start(x, r->gw->loop, START_MS, 0, on_limit, x);
	return 0;
}
