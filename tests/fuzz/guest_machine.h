/*
 * guest_machine.h - the guest's machine that is not there: what the targets with a whole server
 * have in place of handlers that touch it. They read their message as handlers do.
 */
#pragma once
#include "guestagent/call.h"
#include "guestagent/freeze.h"
#include "guestagent/grow.h"
#include "guestagent/handlers.h"
#include "guestagent/identity.h"
#include "guestagent/init.h"
#include "guestagent/process.h"
#include "guestagent/resume.h"
#include "guestagent/rpc.h"
#include "guestagent/server.h"
#include "guestagent/user.h"
#include "log.h"

#include <talloc.h>

struct process *process_list;

void
process_forget_ended(void)
{
}

void
watchers_forget(void)
{
}

bool
process_alive(const struct process *p)
{
	return p != NULL;
}

void
grow_run(struct call *c, uint64_t least, void (*done)(struct call *, const struct err *))
{
	(void)least;
	done(c, NULL);
}

void
freeze_thaw(void)
{
}

void
resume_run(struct call *c, void (*done)(struct call *))
{
	done(c);
}

static void
whole(struct call *c)
{
	(void)call_query(c, "path");
	call_reply(c, 204, NULL, NULL, 0);
}

static int
read_message(struct call *c, struct json_object *in, struct buf *out)
{
	struct json_object *o = NULL, *list = NULL;
	const char *text = "";
	bool flag = false;
	int64_t n = 0;
	struct user *u = user_of(c, NULL);

	if (!u || rpc_object(in, "process", &o, &c->err) < 0 ||
	    rpc_str(in, "path", &text, &c->err) < 0 ||
	    rpc_bool(in, "recursive", &flag, &c->err) < 0 ||
	    rpc_int(in, "depth", 0, 32, &n, &c->err) < 0 ||
	    rpc_list(o, "args", &list, &c->err) < 0 || rpc_timeout(c) < 0 ||
	    !user_path(c, u, text, &c->err))
		return -1;
	if (c->route->kind == CALL_STREAM) {
		struct buf b = BUF(c);

		buf_str(&b, "{\"event\":{}}");
		rpc_send(c, &b);
		rpc_end(c);
		return 1;
	}
	buf_str(out, "{\"ok\":true}");
	return 0;
}

static void
body_data(struct call *c, const uint8_t *p, size_t n)
{
	struct json_object *in = NULL;

	buf_add(&c->body, p, n);
	call_took(c, n);
	while (rpc_frame(c, c, &in) > 0)
		;
	if (c->err.code)
		rpc_end(c);
}

static void
body_end(struct call *c)
{
	struct buf none = BUF(c);

	rpc_reply(c, &none);
}

static void
takes_input(struct call *c)
{
	c->on_data = body_data;
	c->on_end = body_end;
}

#define CALL(name)                \
	void name(struct call *c) \
	{                         \
		whole(c);         \
	}
#define RPC(name)                                                         \
	int name(struct call *c, struct json_object *in, struct buf *out) \
	{                                                                 \
		return read_message(c, in, out);                          \
	}
CALL(freeze_call)
CALL(freeze_undo_call)
CALL(grow_call)
CALL(stats_get)
CALL(metrics_get)
CALL(ports_get)
CALL(files_get)
CALL(files_compose)
RPC(process_rpc_start)
RPC(process_rpc_connect)
RPC(process_rpc_list)
RPC(process_rpc_send_input)
RPC(process_rpc_close_stdin)
RPC(process_rpc_signal)
RPC(process_rpc_update)
RPC(filesystem_stat)
RPC(filesystem_make_dir)
RPC(filesystem_move)
RPC(filesystem_remove)
RPC(filesystem_list_dir)
RPC(filesystem_watch_dir)
RPC(filesystem_create_watcher)
RPC(filesystem_get_watcher_events)
RPC(filesystem_remove_watcher)

void
files_post(struct call *c)
{
	takes_input(c);
}

void
process_stream_input(struct call *c)
{
	takes_input(c);
}

void
tunnel_connect(struct call *c)
{
	(void)call_header(c, ":authority");
	whole(c);
}
