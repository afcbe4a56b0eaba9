/*
 * exec_stream.c - GET …/exec/stream: start a process or connect to one, its output and input as
 * messages (spec 02 §3.2). GET …/processes/{sel}/stream: the same without a first message (§3.3).
 */
#include "json.h"
#include "process_call.h"
#include "route.h"
#include "stream_process.h"

#include <inttypes.h>
#include <string.h>
#include <talloc.h>

static handler exec_stream, process_stream;

struct start_in {
	const char *type, *cmd, *cwd, *user, *tag, *encoding;
	const char *const *args;
	const struct pair *envs;
	int64_t timeout_sec;
	bool input, kill_on_close;
};
/* clang-format off */
static const struct field start_fields[] = {
	FIELD(start_in, cmd, "cmd", .flags = NEEDED, .min = 1, .max = 65536),
	FIELD(start_in, args, "args", .max = 4096),
	FIELD(start_in, cwd, "cwd", .max = 4096),
	FIELD(start_in, envs, "envs", .max = 128, .format = "env-name"),
	FIELD(start_in, user, "user", .max = 64),
	FIELD(start_in, timeout_sec, "timeout_sec", .max = 86400),
	FIELD(start_in, tag, "tag", .max = 64),
	FIELD(start_in, input, "stdin"),
	FIELD(start_in, encoding, "encoding", .text = "text", .one_of = "text|base64"),
	FIELD(start_in, kill_on_close, "kill_on_close"),
	{ 0 },
};

struct connect_in {
	int64_t pid, since;
	const char *tag, *encoding;
};
static const struct field connect_fields[] = {
	FIELD(connect_in, pid, "pid", .min = 1, .max = INT32_MAX),
	FIELD(connect_in, tag, "tag", .max = 64),
	FIELD(connect_in, since, "since", .min = -1, .max = INT64_MAX, .dflt = -1),
	FIELD(connect_in, encoding, "encoding", .text = "text", .one_of = "text|base64"),
	{ 0 },
};

struct watch_in {
	int64_t since;
	const char *encoding;
};
static const struct field watch_in_fields[] = {
	FIELD(watch_in, since, "since", .flags = IN_QUERY, .min = -1, .max = INT64_MAX, .dflt = -1, .doc = "Position to begin at; 0: all that is kept; absent: from now on."),
	FIELD(watch_in, encoding, "encoding", .flags = IN_QUERY, .text = "text", .one_of = "text|base64"),
	{ 0 },
};

const struct route exec_stream_routes[] = {
	CAPSULE_ROUTES("GET", "exec/stream", PERM_capsules_connect, exec_stream,
	    "A WebSocket: start a process, or connect to one", SOCKET, 101, .ticket = "exec"),
	CAPSULE_ROUTES("GET", "processes/{sel}/stream", PERM_capsules_connect, process_stream,
	    "A WebSocket with a process's output and input", SOCKET, 101, .in = watch_in_fields, .insize = sizeof(struct watch_in), .ticket = "process"),
	{ 0 },
};
/* clang-format on */

static int
start(struct stream *s, struct json_object *json)
{
	struct start_in in = { 0 };
	struct buf message = BUF(s);
	struct err *e = &s->r->work.err;

	if (fields_read(start_fields, json, &in, s, e) < 0 || process_tag_check(in.tag, e) < 0 ||
	    process_user_check(in.user, e) < 0)
		return -1;
	if (!in.tag)
		in.tag = process_tag_new(s, "proc");
	process_start_put(&message,
	    &(struct process_start){ .cmd = in.cmd,
		.cwd = in.cwd,
		.tag = in.tag,
		.args = in.args,
		.envs = in.envs,
		.input = in.input });
	s->state = process_open(s, "/process.Process/Start", &message,
	    &(struct process_how){ .starter = true,
		.base64 = strcmp(in.encoding, "base64") == 0,
		.kill_on_close = in.kill_on_close,
		.timeout_sec = in.timeout_sec,
		.user = in.user,
		.activity = "hold",
		.tag = in.tag });
	talloc_free(message.data);
	return s->state ? 0 : -1;
}

static int
attach(struct stream *s, const struct process_selector *who, int64_t since, const char *encoding,
    const char *activity)
{
	struct buf message = BUF(s);

	process_selector_put(&message, who);
	buf_fmt(&message, ",\"since\":%" PRId64 "}", since);
	s->state = process_open(s, "/process.Process/Connect", &message,
	    &(struct process_how){
		.base64 = strcmp(encoding, "base64") == 0, .activity = activity, .tag = who->tag });
	talloc_free(message.data);
	return s->state ? 0 : -1;
}

static int
connect_to(struct stream *s, struct json_object *json)
{
	struct connect_in in = { 0 };
	struct process_selector who = { 0 };
	struct err *e = &s->r->work.err;

	if (fields_read(connect_fields, json, &in, s, e) < 0)
		return -1;
	if (!in.pid && !in.tag)
		return err_set(e, E_BAD_INPUT, "neither \"pid\" nor \"tag\" is there");
	who.pid = in.pid;
	who.tag = in.tag;
	return attach(s, &who, in.since, in.encoding, "hold");
}

static int
open_exec(struct stream *s, struct json_object *first)
{
	bool starts = strcmp(json_str(first, "type", ""), "start") == 0;

	TALLOC_FREE(s->state);
	return starts ? start(s, first) : connect_to(s, first);
}

static bool
begins(const char *type)
{
	return strcmp(type, "start") == 0 || strcmp(type, "connect") == 0;
}

/* ---- messages */

struct data_in {
	const char *data, *signal;
};
static const struct field data_fields[] = { FIELD(data_in, data, "data", .flags = NEEDED), { 0 } };
static const struct field signal_fields[] = { FIELD(data_in, signal, "signal", .flags = NEEDED),
	{ 0 } };

static int
message(struct stream *s, const char *type, struct json_object *json)
{
	struct process *p = s->state;
	struct data_in in = { 0 };
	struct err *e = &s->r->work.err;

	if (strcmp(type, "stdin") == 0)
		return fields_read(data_fields, json, &in, s, e) < 0 ? -1
								     : process_input(p, in.data);
	if (strcmp(type, "signal") == 0)
		return fields_read(signal_fields, json, &in, s, e) < 0
		    ? -1
		    : process_signal(p, in.signal);
	if (strcmp(type, "eof") == 0)
		process_eof(p);
	else if (strcmp(type, "kill") == 0)
		return process_signal(p, "SIGKILL");
	else if (strcmp(type, "stop") == 0)
		stream_end(s, WS_NORMAL, "stopped");
	return 0;
}

static void
room(struct stream *s)
{
	process_room(s->state);
}

static void
gone(struct stream *s)
{
	process_gone(s->state);
}

static int
exec_stream(struct request *r)
{
	static const struct stream_kind kind = {
		.begins = begins, .open = open_exec, .message = message, .room = room, .gone = gone
	};

	return stream_accept(r, &kind);
}

/* ---- …/processes/{sel}/stream */

static int
open_process(struct stream *s, struct json_object *first)
{
	const struct watch_in *in = s->r->in;
	struct process_selector who;

	(void)first;
	TALLOC_FREE(s->state);
	if (process_selector_read(s->r->param[1], &who, &s->r->work.err) < 0)
		return -1;
	return attach(s, &who, in->since, in->encoding, "none");
}

static int
process_stream(struct request *r)
{
	static const struct stream_kind kind = {
		.open = open_process, .message = message, .room = room, .gone = gone
	};
	struct process_selector who;

	if (process_selector_read(r->param[1], &who, &r->work.err) < 0)
		return -1;
	return stream_accept(r, &kind);
}
