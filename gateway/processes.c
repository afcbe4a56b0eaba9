/* processes.c - GET …/processes, GET and DELETE …/processes/{sel}: what runs in a capsule (spec 02
 * §2.5). */
#include "back.h"
#include "cleanup.h"
#include "json.h"
#include "route.h"

#include <inttypes.h>
#include <string.h>

static handler process_list, process_get, process_signal;

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

const struct route process_routes[] = {
	{ "GET", "/v1/capsules/{id}/processes", POOL_GATEWAY, PERM_capsules_connect, process_list,
	    "The processes that were started through the API; all=true: ended ones too", .status = 200, OUT(process_list) },
	{ "GET", "/v1/capsules/{id}/processes/{sel}", POOL_GATEWAY, PERM_capsules_connect, process_get,
	    "One process, by pid or tag", .status = 200, OUT(process_item) },
	{ "DELETE", "/v1/capsules/{id}/processes/{sel}", POOL_GATEWAY, PERM_capsules_connect, process_signal,
	    "Send a signal to a process and its group; SIGKILL unless signal= says otherwise", .status = 204 },
	{ 0 },
};

static const char *const signals[] = { "SIGKILL", "SIGTERM", "SIGINT", "SIGHUP", "SIGQUIT", "SIGUSR1", "SIGUSR2",
	"SIGSTOP", "SIGCONT" };
/* clang-format on */

/* {sel}: pid, tag, pid:N, tag:T. A number is a pid. */
struct selector {
	int64_t pid; /* 0: by tag */
	const char *tag;
};

static int
selector_read(struct request *r, struct selector *ret)
{
	const char *s = r->param[1];
	bool pid = strncmp(s, "pid:", 4) == 0, tag = strncmp(s, "tag:", 4) == 0;
	const char *text = pid || tag ? s + 4 : s;
	size_t digits = strspn(text, "0123456789");

	*ret = (struct selector){ 0 };
	if (!tag && *text && !text[digits] && digits < 10)
		ret->pid = strtoll(text, NULL, 10);
	else if (!pid)
		ret->tag = text;
	if (ret->pid <= 0 && (!ret->tag || !*ret->tag || strlen(ret->tag) > 64))
		return err_set(
		    &r->work.err, E_BAD_INPUT, "\"%.40s\" is neither a pid nor a tag", s);
	return 0;
}

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
fits(const struct selector *s, struct json_object *p)
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
	struct selector *s = talloc_zero(r, struct selector);

	if (selector_read(r, s) < 0)
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
	struct selector s = { 0 };
	struct buf b = BUF(r);
	size_t i = 0;

	if (selector_read(r, &s) < 0)
		return -1;
	name = name ? name : "SIGKILL";
	while (i < nitems(signals) && strcmp(signals[i], name) != 0 &&
	    strcmp(signals[i] + 3, name) != 0)
		i++;
	if (i == nitems(signals))
		return err_set(&r->work.err, E_BAD_INPUT, "\"signal\" is not one that can be sent");
	if (s.pid) {
		buf_fmt(&b, "{\"process\":{\"pid\":%" PRId64 "}", s.pid);
	} else {
		buf_str(&b, "{\"process\":{\"tag\":");
		buf_json(&b, s.tag);
		buf_chr(&b, '}');
	}
	buf_fmt(&b, ",\"signal\":\"SIGNAL_%s\"}", signals[i]);
	guest_ask(r, r, "/process.Process/SendSignal", NULL, &b, GUEST_MS, signalled, NULL);
	return 0;
}
