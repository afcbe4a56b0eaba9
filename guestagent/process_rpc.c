/* process_rpc.c - the calls of process.Process (spec 06 §14.1). See process.h. */
#include "process.h"

#include "cleanup.h"
#include "handlers.h"
#include "identity.h"
#include "json.h"
#include "rpc.h"
#include "text.h"

#include <errno.h>
#include <limits.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <termios.h>

#define DEFAULT_PATH "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

enum {
	ARGS_MAX = 4096,
	ENVS_MAX = 2048,
	TAG_MAX = 128,
	COMMON_REPLAY_MS = 30 * 1000,
	SIZE_MAX_CELLS = 65535,
	SINCE_ABSENT = -2,
};

static const struct {
	const char *name;
	int number;
} signals[] = {
	{ "SIGNAL_SIGTERM", SIGTERM },
	{ "SIGNAL_SIGKILL", SIGKILL },
	{ "SIGNAL_SIGINT", SIGINT },
	{ "SIGNAL_SIGHUP", SIGHUP },
	{ "SIGNAL_SIGQUIT", SIGQUIT },
	{ "SIGNAL_SIGUSR1", SIGUSR1 },
	{ "SIGNAL_SIGUSR2", SIGUSR2 },
	{ "SIGNAL_SIGSTOP", SIGSTOP },
	{ "SIGNAL_SIGCONT", SIGCONT },
};

/* ---- which process ---- */

static int
selector_read(struct json_object *in, int64_t *pid, const char **tag, struct err *e)
{
	struct json_object *sel = NULL;

	if (rpc_object(in, "process", &sel, e) < 0 || rpc_int(sel, "pid", 1, INT_MAX, pid, e) < 0 ||
	    rpc_str(sel, "tag", tag, e) < 0)
		return -1;
	if (!*pid && !*tag)
		return err_set(e, E_BAD_INPUT, "\"process\" has neither pid nor tag");
	return 0;
}

struct process *
process_find(struct json_object *in, bool ended, struct err *e)
{
	int64_t pid = 0;
	const char *tag = NULL;
	struct process *old = NULL;

	if (selector_read(in, &pid, &tag, e) < 0)
		return NULL;
	for (struct process *p = process_list; p; p = p->next) {
		if (pid ? p->pid != pid : !p->tag || strcmp(p->tag, tag) != 0)
			continue;
		if (process_alive(p))
			return p;
		if (ended && !old)
			old = p;
	}
	if (old)
		return old;
	if (pid)
		(void)err_set(e, E_NOT_FOUND, "process with pid %d not found", (int)pid);
	else
		(void)err_set(e, E_NOT_FOUND, "process with tag %.100s not found", tag);
	return NULL;
}

/* ---- Start ---- */

/* Replaces the variable of the same name: the last one wins. */
static void
env_set(char **envp, size_t *n, char *text)
{
	size_t len = strcspn(text, "=") + 1;
	size_t i = 0;

	while (i < *n && strncmp(envp[i], text, len) != 0)
		i++;
	if (i == *n && *n < ENVS_MAX)
		(*n)++;
	else if (i == ENVS_MAX)
		return;
	envp[i] = text;
}

static int
env_add(void *mem, char **envp, size_t *n, struct json_object *vars, struct err *e)
{
	if (!vars)
		return 0;
	json_object_object_foreach(vars, key, value)
	{
		if (key[0] == '\0' || strchr(key, '='))
			return err_set(e, E_BAD_INPUT, "\"%s\" is no name of a variable", key);
		if (!json_object_is_type(value, json_type_string))
			return err_set(e, E_BAD_INPUT, "the variable \"%s\" is not a text", key);
		env_set(envp, n, talloc_asprintf(mem, "%s=%s", key, json_object_get_string(value)));
	}
	return 0;
}

static int
plan_env(struct call *c, struct json_object *vars, struct process_plan *plan)
{
	const struct user *u = plan->user;
	size_t n = 0;

	plan->envp = talloc_zero_array(c, char *, ENVS_MAX + 1);
	if (!plan->envp)
		abort();
	env_set(plan->envp, &n, talloc_strdup(c, "PATH=" DEFAULT_PATH));
	env_set(plan->envp, &n, talloc_asprintf(c, "HOME=%s", u->home));
	env_set(plan->envp, &n, talloc_asprintf(c, "USER=%s", u->name));
	env_set(plan->envp, &n, talloc_asprintf(c, "LOGNAME=%s", u->name));
	env_set(plan->envp, &n, talloc_asprintf(c, "SHELL=%s", u->shell));
	if (plan->terminal)
		env_set(plan->envp, &n, talloc_strdup(c, "TERM=xterm-256color"));
	if (env_add(c, plan->envp, &n, identity_variables(), &c->err) < 0)
		return -1;
	return env_add(c, plan->envp, &n, vars, &c->err);
}

static int
plan_args(struct call *c, struct json_object *args, struct process_plan *plan)
{
	size_t n = args ? json_object_array_length(args) : 0;

	if (n > ARGS_MAX)
		return err_set(&c->err, E_BAD_INPUT, "more than %d arguments", ARGS_MAX);
	plan->argv = talloc_zero_array(c, char *, n + 2);
	if (!plan->argv)
		abort();
	plan->argv[0] = talloc_strdup(c, plan->cmd);
	for (size_t i = 0; i < n; i++) {
		struct json_object *a = json_object_array_get_idx(args, i);

		if (!json_object_is_type(a, json_type_string))
			return err_set(&c->err, E_BAD_INPUT, "argument %zu is not a text", i);
		plan->argv[i + 1] = talloc_strdup(c, json_object_get_string(a));
	}
	return 0;
}

static int
plan_cwd(struct call *c, const char *cwd, struct process_plan *plan)
{
	struct stat st;

	plan->cwd_is_default = cwd[0] == '\0';
	plan->cwd = user_path(c, plan->user, cwd, &c->err);
	if (!plan->cwd)
		return -1;
	if (stat(plan->cwd, &st) < 0 || !S_ISDIR(st.st_mode))
		return err_set(&c->err, E_BAD_INPUT, "cwd '%s' does not exist", plan->cwd);
	return 0;
}

static int
size_read(struct json_object *in, unsigned short *cols, unsigned short *rows, struct err *e)
{
	struct json_object *size = NULL;
	int64_t x = 0, y = 0;

	if (rpc_object(in, "size", &size, e) < 0 ||
	    rpc_int(size, "cols", 0, SIZE_MAX_CELLS, &x, e) < 0 ||
	    rpc_int(size, "rows", 0, SIZE_MAX_CELLS, &y, e) < 0)
		return -1;
	*cols = x ? (unsigned short)x : 80;
	*rows = y ? (unsigned short)y : 24;
	return 0;
}

static int
plan_tag(struct json_object *in, struct process_plan *plan, struct err *e)
{
	if (rpc_str(in, "tag", &plan->tag, e) < 0)
		return -1;
	if (plan->tag && !plan->tag[0])
		plan->tag = NULL;
	if (!plan->tag)
		return 0;
	if (strlen(plan->tag) > TAG_MAX)
		return err_set(e, E_BAD_INPUT, "\"tag\" is longer than %d", TAG_MAX);
	for (struct process *p = process_list; p; p = p->next)
		if (process_alive(p) && p->tag && strcmp(p->tag, plan->tag) == 0)
			return err_set(
			    e, E_CONFLICT, "a process with tag %s runs already", plan->tag);
	return 0;
}

/* The configuration as List shows it: without what is empty. */
static const char *
config_text(struct call *c, struct json_object *process)
{
	static const char *const names[] = { "cmd", "args", "envs", "cwd" };
	struct buf b = BUF(c);
	struct json_object *v = NULL;

	buf_chr(&b, '{');
	for (size_t i = 0; i < nitems(names); i++) {
		v = json_get(process, names[i]);
		if (!v)
			continue;
		if (b.len > 1)
			buf_chr(&b, ',');
		buf_fmt(&b, "\"%s\":%s", names[i],
		    json_object_to_json_string_ext(
			v, JSON_C_TO_STRING_PLAIN | JSON_C_TO_STRING_NOSLASHESCAPE));
	}
	buf_chr(&b, '}');
	return b.data;
}

static int
plan_read(struct call *c, struct json_object *in, struct process_plan *plan)
{
	struct json_object *process = NULL, *args = NULL, *envs = NULL, *pty = NULL;
	const char *cwd = "";
	bool with_stdin = true;
	struct err *e = &c->err;

	if (rpc_object(in, "process", &process, e) < 0 ||
	    rpc_str(process, "cmd", &plan->cmd, e) < 0 || rpc_list(process, "args", &args, e) < 0 ||
	    rpc_object(process, "envs", &envs, e) < 0 || rpc_str(process, "cwd", &cwd, e) < 0 ||
	    rpc_object(in, "pty", &pty, e) < 0 || rpc_bool(in, "stdin", &with_stdin, e) < 0 ||
	    plan_tag(in, plan, e) < 0)
		return -1;
	if (!plan->cmd || !plan->cmd[0])
		return err_set(e, E_BAD_INPUT, "\"process.cmd\" is missing");
	plan->user = user_of(c, NULL);
	if (!plan->user)
		return -1;
	plan->no_stdin = !with_stdin;
	plan->terminal = pty != NULL;
	plan->config = config_text(c, process);
	if (pty && size_read(pty, &plan->cols, &plan->rows, e) < 0)
		return -1;
	if (plan_args(c, args, plan) < 0 || plan_cwd(c, cwd, plan) < 0)
		return -1;
	return plan_env(c, envs, plan);
}

/* since: from where output is wanted, -1: from now on; its presence asks for the additive fields.
 */
static int
since_read(struct json_object *in, int64_t *since, struct err *e)
{
	*since = SINCE_ABSENT;
	return rpc_int(in, "since", -1, INT64_MAX, since, e);
}

int
process_rpc_start(struct call *c, struct json_object *in, struct buf *out)
{
	struct process_plan plan = { 0 };
	struct process *p = NULL;
	int64_t since = SINCE_ABSENT;

	(void)out;
	if (plan_read(c, in, &plan) < 0 || since_read(in, &since, &c->err) < 0 ||
	    rpc_timeout(c) < 0)
		return -1;
	p = process_start(&plan, &c->err);
	if (!p)
		return -1;
	reader_add(p, c, 0, READER_STARTER | (since != SINCE_ABSENT ? READER_SEQ : 0));
	return 1;
}

int
process_rpc_connect(struct call *c, struct json_object *in, struct buf *out)
{
	struct process *p = process_find(in, true, &c->err);
	int64_t since = SINCE_ABSENT;
	bool once = false;

	(void)out;
	if (!p || since_read(in, &since, &c->err) < 0 || rpc_bool(in, "once", &once, &c->err) < 0 ||
	    rpc_timeout(c) < 0)
		return -1;
	if (since == SINCE_ABSENT && p->state == PROCESS_ENDED &&
	    loop_now() - p->ended > COMMON_REPLAY_MS)
		return err_set(&c->err, E_NOT_FOUND, "process with pid %d not found", (int)p->pid);
	if (since > (int64_t)p->ring.end)
		return err_set(&c->err, E_BAD_INPUT, "\"since\" is behind the end of the output");
	reader_add(p, c, since >= 0 ? (uint64_t)since : p->ring.end,
	    (since != SINCE_ABSENT ? READER_SEQ : 0) | (once ? READER_ONCE : 0));
	return 1;
}

/* ---- the others ---- */

static void
put_process(struct buf *out, const struct process *p, bool all)
{
	if (out->data[out->len - 1] != '[')
		buf_chr(out, ',');
	buf_fmt(out, "{\"config\":%s,\"pid\":%d", p->config, (int)p->pid);
	if (p->tag) {
		buf_str(out, ",\"tag\":");
		buf_json(out, p->tag);
	}
	if (all) {
		buf_fmt(out,
		    ",\"state\":\"%s\",\"startedAt\":", process_alive(p) ? "running" : "ended");
		text_put_time(out, &p->started);
		if (!process_alive(p))
			buf_fmt(out, ",\"exitCode\":%d",
			    WIFEXITED(p->status) ? WEXITSTATUS(p->status) : -1);
		if (!process_alive(p) && WIFSIGNALED(p->status))
			buf_fmt(out, ",\"signal\":%d", WTERMSIG(p->status));
	}
	buf_chr(out, '}');
}

int
process_rpc_list(struct call *c, struct json_object *in, struct buf *out)
{
	bool all = false, additive = json_get(in, "all") != NULL;

	if (rpc_bool(in, "all", &all, &c->err) < 0)
		return -1;
	buf_str(out, "{\"processes\":[");
	for (struct process *p = process_list; p; p = p->next)
		if (p->state != PROCESS_STARTING && (all || process_alive(p)))
			put_process(out, p, additive);
	if (out->data[out->len - 1] == '[')
		buf_clear(out); /* protobuf's JSON has no empty lists */
	else
		buf_str(out, "]}");
	return 0;
}

static int
input_text(struct json_object *in, const struct process *p, const char **text, struct err *e)
{
	struct json_object *input = NULL;
	const char *in_pipe = NULL, *in_pty = NULL;

	if (rpc_object(in, "input", &input, e) < 0 || rpc_str(input, "stdin", &in_pipe, e) < 0 ||
	    rpc_str(input, "pty", &in_pty, e) < 0)
		return -1;
	if (!in_pipe && !in_pty)
		return err_set(e, E_BAD_INPUT, "\"input\" has neither stdin nor pty");
	if (p->terminal && !in_pty)
		return err_set(e, E_SYSTEM, "the process has a terminal, no standard input");
	if (!p->terminal && !in_pipe)
		return err_set(e, E_SYSTEM, "the process has no terminal");
	*text = p->terminal ? in_pty : in_pipe;
	return 0;
}

int
process_input(
    struct call *c, struct json_object *in, const struct process *p, uint8_t **data, size_t *n)
{
	const char *text = NULL;

	if (input_text(in, p, &text, &c->err) < 0)
		return -1;
	return text_base64(c, text, data, n, &c->err);
}

static void
input_taken(struct call *c)
{
	struct buf none = BUF(c);

	if (c->err.code != E_OK)
		rpc_fail(c);
	else
		rpc_reply(c, &none);
}

int
process_rpc_send_input(struct call *c, struct json_object *in, struct buf *out)
{
	struct process *p = process_find(in, false, &c->err);
	uint8_t *data = NULL;
	size_t n = 0;

	(void)out;
	if (!p || process_input(c, in, p, &data, &n) < 0 ||
	    input_add(p, c, data, n, input_taken) < 0)
		return -1;
	return 1;
}

int
process_rpc_close_stdin(struct call *c, struct json_object *in, struct buf *out)
{
	struct process *p = process_find(in, false, &c->err);

	(void)out;
	if (!p)
		return -1;
	if (p->terminal)
		return err_set(&c->err, E_BAD_INPUT, "a terminal has no standard input to close");
	input_end(p);
	return 0;
}

int
process_rpc_signal(struct call *c, struct json_object *in, struct buf *out)
{
	struct process *p = process_find(in, false, &c->err);
	struct json_object *v = json_get(in, "signal");
	const char *name = v ? json_object_get_string(v) : "";
	int number = 0;

	(void)out;
	if (!p)
		return -1;
	for (size_t i = 0; i < nitems(signals); i++)
		if (strcmp(signals[i].name, name) == 0 ||
		    (json_object_is_type(v, json_type_int) &&
			json_object_get_int(v) == signals[i].number))
			number = signals[i].number;
	if (!number)
		return err_set(&c->err, E_BAD_INPUT, "\"signal\" is not a signal that can be sent");
	process_signal(p, number);
	return 0;
}

int
process_rpc_update(struct call *c, struct json_object *in, struct buf *out)
{
	struct process *p = process_find(in, false, &c->err);
	struct json_object *pty = NULL;
	unsigned short cols = 0, rows = 0;
	struct winsize size = { 0 };

	(void)out;
	if (!p || rpc_object(in, "pty", &pty, &c->err) < 0)
		return -1;
	if (!pty)
		return 0;
	if (!p->terminal)
		return err_set(&c->err, E_BAD_INPUT, "the process has no terminal");
	if (size_read(pty, &cols, &rows, &c->err) < 0)
		return -1;
	size = (struct winsize){ .ws_col = cols, .ws_row = rows };
	if (p->in.fd >= 0 && ioctl(p->in.fd, TIOCSWINSZ, &size) < 0)
		return err_sys(&c->err, "resize the terminal");
	return 0;
}
