/* processes.c - GET …/processes, GET and DELETE …/processes/{sel}: what runs in a capsule (spec 02
 * §2.5). */
#include "back.h"
#include "cleanup.h"
#include "crypto.h"
#include "json.h"
#include "process_call.h"
#include "process_output.h"
#include "route.h"

#include <inttypes.h>
#include <string.h>

static handler process_list, process_get, process_signal, process_output, process_stdin;

struct process_item {
	int64_t pid, exit_code;
	const char *tag, *cmd, *state, *started_at;
	const char *const *args;
};
/* clang-format off */
static const struct field process_item_fields[] = {
	FIELD(process_item, pid, "pid"),
	FIELD(process_item, tag, "tag", .flags = OMIT),
	FIELD(process_item, cmd, "cmd"),
	FIELD(process_item, args, "args", .flags = OMIT),
	FIELD(process_item, state, "state", .one_of = "running|ended"),
	FIELD(process_item, exit_code, "exit_code", .flags = OMIT, .doc = "Of an ended one."),
	FIELD(process_item, started_at, "started_at", .format = "date-time"),
	{ 0 },
};

struct process_list {
	struct list processes;
};
static const struct field process_list_fields[] = {
	SUB(process_list, processes, "processes", process_item_fields, process_item, .flags = LIST),
	{ 0 },
};

struct output_in {
	int64_t since, max;
};
static const struct field output_in_fields[] = {
	FIELD(output_in, since, "since", .flags = IN_QUERY, .max = INT64_MAX, .doc = "Position to begin at; 0: all that is kept."),
	FIELD(output_in, max, "max", .flags = IN_QUERY, .min = 1, .max = 1 << 20, .dflt = 1 << 20, .doc = "At most so many bytes."),
	{ 0 },
};

struct output_chunk {
	const char *stream, *data;
	int64_t seq;
};
static const struct field output_chunk_fields[] = {
	FIELD(output_chunk, stream, "stream", .one_of = "stdout|stderr|pty"),
	FIELD(output_chunk, seq, "seq", .doc = "Position behind it."),
	FIELD(output_chunk, data, "data", .doc = "Base64."),
	{ 0 },
};
struct output_gap {
	int64_t from, to;
};
static const struct field output_gap_fields[] = { FIELD(output_gap, from, "from"), FIELD(output_gap, to, "to"), { 0 } };
struct output_out {
	struct list chunks;
	int64_t next;
	struct output_gap *gap;
};
static const struct field output_out_fields[] = {
	SUB(output_out, chunks, "chunks", output_chunk_fields, output_chunk, .flags = LIST),
	FIELD(output_out, next, "next", .doc = "The next since."),
	SUB(output_out, gap, "gap", output_gap_fields, output_gap, .flags = OMIT),
	{ 0 },
};

struct stdin_in {
	const char *data;
	bool eof;
};
static const struct field stdin_in_fields[] = {
	FIELD(stdin_in, data, "data", .max = 1398104, .doc = "Base64, at most 1 MiB."),
	FIELD(stdin_in, eof, "eof", .doc = "Nothing more comes."),
	{ 0 },
};

const struct route process_routes[] = {
	CAPSULE_ROUTES("GET", "processes", PERM_capsules_connect, process_list,
	    "The processes that were started through the API; all=true: ended ones too", 0, 200, OUT(process_list)),
	CAPSULE_ROUTES("GET", "processes/{sel}", PERM_capsules_connect, process_get,
	    "One process, by pid or tag", 0, 200, OUT(process_item)),
	CAPSULE_ROUTES("DELETE", "processes/{sel}", PERM_capsules_connect, process_signal,
	    "Send a signal to a process and its group; SIGKILL unless signal= says otherwise", 0, 204),
	CAPSULE_ROUTES("GET", "processes/{sel}/output", PERM_capsules_connect, process_output,
	    "What a process wrote, as far as it is kept", 0, 200, .in = output_in_fields, .insize = sizeof(struct output_in), OUT(output_out)),
	CAPSULE_ROUTES("POST", "processes/{sel}/stdin", PERM_capsules_connect, process_stdin,
	    "Write to a process", 0, 204, .in = stdin_in_fields, .insize = sizeof(struct stdin_in)),
	{ 0 },
};
/* clang-format on */

static const char *
state(struct json_object *p)
{
	return json_str(p, "state", "running");
}

static void
put_process(struct buf *b, struct json_object *p)
{
	struct json_object *config = json_get(p, "config");
	struct json_object *args = config ? json_get(config, "args") : NULL;

	buf_fmt(b, "{\"pid\":%" PRId64, json_int(p, "pid", 0));
	if (json_str(p, "tag", NULL)) {
		buf_str(b, ",\"tag\":");
		buf_json(b, json_str(p, "tag", NULL));
	}
	buf_str(b, ",\"cmd\":");
	buf_json(b, config ? json_str(config, "cmd", "") : "");
	if (args && json_object_is_type(args, json_type_array)) {
		buf_str(b, ",\"args\":[");
		for (size_t i = 0; i < json_object_array_length(args); i++) {
			if (i)
				buf_chr(b, ',');
			buf_json(b, json_object_get_string(json_object_array_get_idx(args, i)));
		}
		buf_chr(b, ']');
	}
	buf_str(b, ",\"state\":");
	buf_json(b, state(p));
	if (strcmp(state(p), "ended") == 0) {
		int64_t signal = json_int(p, "signal", 0);

		buf_fmt(b, ",\"exit_code\":%" PRId64,
		    signal > 0 ? 128 + signal : json_int(p, "exitCode", 0));
	}
	buf_str(b, ",\"started_at\":");
	buf_json(b, json_str(p, "startedAt", NULL));
	buf_chr(b, '}');
}

static size_t
count(struct json_object *list)
{
	return list && json_object_is_type(list, json_type_array) ? json_object_array_length(list)
								  : 0;
}

static void
listed(struct request *r, void *arg, int status, struct json_object *json)
{
	struct json_object *list = json ? json_get(json, "processes") : NULL;
	struct buf b = BUF(r);

	(void)arg;
	if (status != 200) {
		guest_refused(r, status, json);
		reply_error(r);
		return;
	}
	buf_str(&b, "{\"processes\":[");
	for (size_t i = 0; i < count(list); i++) {
		if (i)
			buf_chr(&b, ',');
		put_process(&b, json_object_array_get_idx(list, i));
	}
	buf_str(&b, "]}");
	reply_json(r, 200, &b);
}

static bool
fits(const struct process_selector *s, struct json_object *p)
{
	const char *tag = json_str(p, "tag", "");

	return s->pid ? json_int(p, "pid", 0) == s->pid : strcmp(tag, s->tag) == 0;
}

/* The one that runs, else one that has ended. */
static void
got(struct request *r, void *arg, int status, struct json_object *json)
{
	struct json_object *list = json ? json_get(json, "processes") : NULL, *found = NULL;
	struct buf b = BUF(r);

	if (status != 200) {
		guest_refused(r, status, json);
		reply_error(r);
		return;
	}
	for (size_t i = 0; i < count(list); i++) {
		struct json_object *p = json_object_array_get_idx(list, i);

		if (fits(arg, p) && (!found || strcmp(state(p), "running") == 0))
			found = p;
	}
	if (!found) {
		fail(r, E_NOT_FOUND, "no such process");
		return;
	}
	put_process(&b, found);
	reply_json(r, 200, &b);
}

static int
ask_list(struct request *r, bool all, guest_done *done, void *arg)
{
	struct buf b = BUF(r);

	/* The member asks for the additive fields, whatever it says. */
	buf_str(&b, all ? "{\"all\":true}" : "{\"all\":false}");
	guest_ask(r, r, "/process.Process/List", NULL, &b, GUEST_MS, done, arg);
	return 0;
}

static int
process_list(struct request *r)
{
	const char *all = query_get(r, "all");

	return ask_list(r, all && strcmp(all, "true") == 0, listed, NULL);
}

static int
process_get(struct request *r)
{
	struct process_selector *s = talloc_zero(r, struct process_selector);

	if (process_selector_read(r->param[1], s, &r->work.err) < 0)
		return -1;
	return ask_list(r, true, got, s);
}

static void
signalled(struct request *r, void *arg, int status, struct json_object *json)
{
	(void)arg;
	if (status == 200) {
		reply_empty(r, 204);
		return;
	}
	guest_refused(r, status, json);
	reply_error(r);
}

static int
process_signal(struct request *r)
{
	const char *name = query_get(r, "signal");
	struct process_selector s = { 0 };
	struct buf b = BUF(r);

	if (process_selector_read(r->param[1], &s, &r->work.err) < 0)
		return -1;
	name = process_signal_name(r, name ? name : "SIGKILL");
	if (!name)
		return err_set(&r->work.err, E_BAD_INPUT, "\"signal\" is not one that can be sent");
	process_selector_put(&b, &s);
	buf_fmt(&b, ",\"signal\":\"%s\"}", name);
	guest_ask(r, r, "/process.Process/SendSignal", NULL, &b, GUEST_MS, signalled, NULL);
	return 0;
}

/* ---- input */

struct writing {
	struct process_selector who;
	bool eof;
};

static void
closed(struct request *r, void *arg, int status, struct json_object *json)
{
	(void)arg;
	if (status == 200) {
		reply_empty(r, 204);
		return;
	}
	guest_refused(r, status, json);
	/* What SendInput calls internal (spec 06): it is closed, or the process has a terminal. */
	if (json && strcmp(json_str(json, "code", ""), "internal") == 0)
		r->work.err.code = E_BAD_STATE;
	reply_error(r);
}

static void
close_input(struct request *r, const struct process_selector *who)
{
	struct buf b = BUF(r);

	process_selector_put(&b, who);
	buf_chr(&b, '}');
	guest_ask(r, r, "/process.Process/CloseStdin", NULL, &b, GUEST_MS, closed, NULL);
}

static void
written(struct request *r, void *arg, int status, struct json_object *json)
{
	struct writing *w = arg;

	if (status == 200 && w->eof)
		close_input(r, &w->who);
	else
		closed(r, NULL, status, json);
}

static int
process_stdin(struct request *r)
{
	const struct stdin_in *in = r->in;
	struct writing *w = talloc_zero(r, struct writing);
	struct buf b = BUF(r);

	if (!w)
		abort();
	w->eof = in->eof;
	if (process_selector_read(r->param[1], &w->who, &r->work.err) < 0)
		return -1;
	if (!in->data && !in->eof)
		return err_set(&r->work.err, E_BAD_INPUT, "neither \"data\" nor \"eof\" is there");
	if (in->data && !base64_read(r, in->data).p)
		return err_set(&r->work.err, E_BAD_INPUT, "\"data\" is not base64");
	if (!in->data) {
		close_input(r, &w->who);
		return 0;
	}
	process_selector_put(&b, &w->who);
	buf_str(&b, ",\"input\":{\"stdin\":");
	buf_json(&b, in->data);
	buf_str(&b, "}}");
	guest_ask(r, r, "/process.Process/SendInput", NULL, &b, GUEST_MS, written, w);
	return 0;
}

/* ---- output */

static int
process_output(struct request *r)
{
	const struct output_in *in = r->in;
	struct process_selector s;

	if (process_selector_read(r->param[1], &s, &r->work.err) < 0)
		return -1;
	return output_read(r, &s, (uint64_t)in->since, (size_t)in->max);
}
