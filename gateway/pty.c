/* pty.c - GET …/pty: a terminal in a capsule (spec 02 §3.4). */
#include "json.h"
#include "process_call.h"
#include "route.h"
#include "stream_process.h"

#include <inttypes.h>
#include <string.h>
#include <talloc.h>

static handler pty_open;

struct start_in {
	const char *cmd, *cwd, *user;
	const char *const *args;
	const struct pair *envs;
	int64_t cols, rows;
};
/* clang-format off */
static const struct field start_fields[] = {
	FIELD(start_in, cmd, "cmd", .max = 65536, .doc = "Absent: /bin/bash, else /bin/sh."),
	FIELD(start_in, args, "args", .max = 4096),
	FIELD(start_in, cwd, "cwd", .max = 4096),
	FIELD(start_in, envs, "envs", .max = 128, .format = "env-name"),
	FIELD(start_in, user, "user", .max = 64),
	FIELD(start_in, cols, "cols", .min = 1, .max = 1000, .dflt = 80),
	FIELD(start_in, rows, "rows", .min = 1, .max = 1000, .dflt = 24),
	{ 0 },
};

struct connect_in {
	const char *tag;
	int64_t since;
};
static const struct field connect_fields[] = {
	FIELD(connect_in, tag, "tag", .flags = NEEDED, .min = 1, .max = 64),
	FIELD(connect_in, since, "since", .max = INT64_MAX),
	{ 0 },
};

struct size_in {
	int64_t cols, rows;
};
static const struct field size_fields[] = {
	FIELD(size_in, cols, "cols", .flags = NEEDED, .min = 1, .max = 1000),
	FIELD(size_in, rows, "rows", .flags = NEEDED, .min = 1, .max = 1000),
	{ 0 },
};

struct data_in {
	const char *data;
};
static const struct field data_fields[] = {
	FIELD(data_in, data, "data", .flags = NEEDED),
	{ 0 },
};

const struct route pty_routes[] = {
	CAPSULE_ROUTES("GET", "pty", PERM_capsules_connect, pty_open,
	    "A WebSocket with a terminal", SOCKET, 101, .ticket = "pty"),
	{ 0 },
};
/* clang-format on */

static bool try_shell(struct stream *);

static int
start(struct stream *s, struct json_object *json, const char *shell)
{
	struct start_in in = { 0 };
	struct buf message = BUF(s);
	const char *tag = process_tag_new(s, "pty");
	struct err *e = &s->r->work.err;

	if (fields_read(start_fields, json, &in, s, e) < 0 || process_user_check(in.user, e) < 0)
		return -1;
	process_start_put(&message,
	    &(struct process_start){ .cmd = in.cmd && *in.cmd ? in.cmd : shell,
		.cwd = in.cwd,
		.tag = tag,
		.args = in.args,
		.envs = in.envs,
		.input = true,
		.cols = in.cols,
		.rows = in.rows });
	s->state = process_open(s, "/process.Process/Start", &message,
	    &(struct process_how){ .starter = true,
		.terminal = true,
		.user = in.user,
		.activity = "touch",
		.tag = tag,
		.cols = in.cols,
		.rows = in.rows,
		.absent = in.cmd && *in.cmd ? NULL : try_shell });
	talloc_free(message.data);
	return s->state ? 0 : -1;
}

/* No bash in the template. */
static bool
try_shell(struct stream *s)
{
	struct process *bash = s->state;

	if (start(s, s->first, "/bin/sh") < 0) {
		s->state = bash;
		return false;
	}
	return true;
}

static int
attach(struct stream *s, struct json_object *json)
{
	struct connect_in in = { 0 };
	struct buf message = BUF(s);

	if (fields_read(connect_fields, json, &in, s, &s->r->work.err) < 0)
		return -1;
	process_selector_put(&message, &(struct process_selector){ .tag = in.tag });
	buf_fmt(&message, ",\"since\":%" PRId64 "}", in.since);
	s->state = process_open(s, "/process.Process/Connect", &message,
	    &(struct process_how){
		.terminal = true, .activity = "none", .tag = in.tag, .cols = 80, .rows = 24 });
	talloc_free(message.data);
	return s->state ? 0 : -1;
}

static int
open_terminal(struct stream *s, struct json_object *first)
{
	TALLOC_FREE(s->state);
	return strcmp(json_str(first, "type", ""), "start") == 0 ? start(s, first, "/bin/bash")
								 : attach(s, first);
}

static bool
begins(const char *type)
{
	return strcmp(type, "start") == 0 || strcmp(type, "connect") == 0;
}

static int
message(struct stream *s, const char *type, struct json_object *json)
{
	struct err *e = &s->r->work.err;
	struct data_in data = { 0 };
	struct size_in size = { 0 };

	if (strcmp(type, "input") == 0)
		return fields_read(data_fields, json, &data, s, e) < 0
		    ? -1
		    : process_input(s->state, data.data);
	if (strcmp(type, "resize") == 0) {
		if (fields_read(size_fields, json, &size, s, e) < 0)
			return -1;
		process_resize(s->state, size.cols, size.rows);
	} else if (strcmp(type, "kill") == 0) {
		return process_signal(s->state, "SIGKILL");
	}
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
pty_open(struct request *r)
{
	static const struct stream_kind kind = { .begins = begins,
		.open = open_terminal,
		.message = message,
		.room = room,
		.gone = gone };

	return stream_accept(r, &kind);
}
