/*
 * compose.c - POST /files/compose: several files become one, in the order that they are named.
 *
 * The kernel copies, some megabytes at a time, so that other calls have their turn. The sources go
 * when the target is complete.
 */
#include "cleanup.h"
#include "entry.h"
#include "handlers.h"
#include "json.h"
#include "rpc.h"
#include "upload.h"
#include "user.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sendfile.h>
#include <sys/stat.h>

enum { STEP = 4 * 1024 * 1024 };

struct compose {
	struct call *call;
	struct upload *upload;
	struct timer turn;
	char **path;
	size_t n, at;
	int fd; /* the source that is copied; -1: the next has to be opened */
};

static int
compose_free(struct compose *x)
{
	timer_stop(&x->turn);
	cleanup_fd(&x->fd);
	return 0;
}

static int
source_open(struct compose *x, struct err *e)
{
	const char *path = x->path[x->at];
	struct stat st;
	int rc = 0;

	if (user_enter(x->upload->user, e) < 0)
		return -1;
	x->fd = open(path, O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
	if (x->fd < 0 || fstat(x->fd, &st) < 0)
		rc = entry_error(e, path);
	else if (!S_ISREG(st.st_mode))
		rc = err_set(e, E_BAD_INPUT, "path '%.150s' is not a regular file", path);
	user_leave();
	return rc;
}

/* 1: the source is at its end. */
static int
source_copy(struct compose *x, struct err *e)
{
	int to = x->upload->file.fd;
	ssize_t n = copy_file_range(x->fd, NULL, to, NULL, STEP, 0);

	if (n < 0 && (errno == EXDEV || errno == EINVAL || errno == EOPNOTSUPP || errno == ENOSYS))
		n = sendfile(to, x->fd, NULL, STEP);
	if (n < 0)
		return errno == EINTR ? 0 : incoming_refuse(e);
	return n == 0;
}

static void
sources_remove(struct compose *x)
{
	struct err ignore = { 0 };

	if (user_enter(x->upload->user, &ignore) < 0)
		return;
	for (size_t i = 0; i < x->n; i++)
		if (strcmp(x->path[i], x->upload->done[0]) != 0)
			(void)unlink(x->path[i]);
	user_leave();
}

static void
compose_fail(struct compose *x)
{
	timer_stop(&x->turn);
	incoming_drop(x->upload);
	call_fail(x->call);
}

static void
compose_turn(void *arg)
{
	struct compose *x = arg;
	struct err *e = &x->call->err;
	struct buf entry = BUF(x);
	int rc = 0;

	if (!x->call->stream)
		return;
	if (x->fd < 0 && x->at < x->n)
		rc = source_open(x, e);
	if (rc == 0 && x->fd >= 0)
		rc = source_copy(x, e);
	if (rc > 0) {
		cleanup_fd(&x->fd);
		x->fd = -1;
		x->at++;
	}
	if (rc >= 0 && x->at < x->n) {
		timer_set(&x->turn, 0);
		return;
	}
	if (rc < 0 || incoming_end(x->upload, e) < 0) {
		compose_fail(x);
		return;
	}
	sources_remove(x);
	buf_add(&entry, x->upload->answer.data + 1, x->upload->answer.len - 1);
	call_reply_json(x->call, &entry);
}

static int
compose_read(struct compose *x, struct json_object *in)
{
	struct call *c = x->call;
	struct json_object *list = NULL;
	const char *destination = NULL, *user = NULL;

	if (rpc_list(in, "source_paths", &list, &c->err) < 0 ||
	    rpc_str(in, "destination", &destination, &c->err) < 0 ||
	    rpc_str(in, "username", &user, &c->err) < 0)
		return -1;
	x->n = list ? json_object_array_length(list) : 0;
	if (x->n < 1 || x->n > UPLOAD_FILES_MAX)
		return err_set(&c->err, E_BAD_INPUT, "\"source_paths\" has not 1 to %d paths",
		    UPLOAD_FILES_MAX);
	if (!destination || !*destination)
		return err_set(&c->err, E_BAD_INPUT, "\"destination\" is missing");
	x->upload->user = user_of(c, user);
	if (!x->upload->user)
		return -1;
	x->path = talloc_array(x, char *, x->n);
	if (!x->path)
		abort();
	for (size_t i = 0; i < x->n; i++) {
		struct json_object *p = json_object_array_get_idx(list, i);

		if (!json_object_is_type(p, json_type_string))
			return err_set(
			    &c->err, E_BAD_INPUT, "\"source_paths\" has no text at %zu", i);
		x->path[i] = user_path(x, x->upload->user, json_object_get_string(p), &c->err);
		if (!x->path[i])
			return -1;
	}
	return incoming_begin(x->upload, destination, &c->err);
}

void
files_compose(struct call *c)
{
	struct compose *x = talloc_zero(c, struct compose);
	struct json_object *in =
	    json_parse(c, c->body.data ? c->body.data : "", c->body.len, NULL, &c->err);

	if (!x)
		abort();
	*x = (struct compose){ .call = c, .upload = upload_new(c), .fd = -1 };
	x->turn = (struct timer){ .fn = compose_turn, .arg = x };
	talloc_set_destructor(x, compose_free);
	if (in && !json_object_is_type(in, json_type_object)) {
		(void)err_set(&c->err, E_BAD_INPUT, "the body is not an object");
		in = NULL;
	}
	if (!in || compose_read(x, in) < 0)
		call_fail(c);
	else
		compose_turn(x);
}
