/* artifact_api.c - see artifact_api.h. Files are read and written in threads. */
#include "artifact_api.h"
#include "artifact.h"
#include "certs.h"
#include "json.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <zstd.h>

enum { PULLS = 4, NAME_MAX_LEN = 64, LEVEL = 1 };

static const char prefix[] = "/agent/v1/artifacts/", templates[] = "templates/";

/* The path's parts behind /artifacts/: what, and of it a chunk. */
struct wish {
	const char *what; /* id, or templates/name */
	const char *file; /* NULL: the manifest */
	long chunk;
};

static bool
name_ok(const char *s)
{
	size_t n = strspn(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-");

	return n > 0 && n <= NAME_MAX_LEN && s[n] == '\0' && s[0] != '.';
}

static bool
wish_read(const struct call *c, void *mem, struct wish *w)
{
	char *text = talloc_strdup(mem, c->path + strlen(prefix)), *files, *chunks, *end = text;
	const char *id;

	text[strcspn(text, "?")] = '\0';
	*w = (struct wish){ .what = text };
	files = strstr(text, "/files/");
	if (files) {
		*files = '\0';
		w->file = files + strlen("/files/");
		chunks = strstr(files + 1, "/chunks/");
		if (!chunks)
			return false;
		*chunks = '\0';
		w->chunk = strtol(chunks + strlen("/chunks/"), &end, 10);
		if (*end || w->chunk < 0 || !name_ok(w->file))
			return false;
	}
	id = strncmp(text, templates, strlen(templates)) == 0 ? text + strlen(templates) : NULL;
	return id ? name_ok(id) : artifact_id_ok(text);
}

/* ---- serving */

struct hold;

struct serve {
	struct call *call; /* NULL: the client left */
	struct hold *hold; /* the call's, as long as there is one */
	int state;
	const char *image_dir;
	struct wish wish;
	uint8_t *data;
	size_t len;
	struct err err;
};

static int
wish_open(const struct serve *s, struct err *e)
{
	const char *name = s->wish.file;
	auto_talloc char *path = NULL;
	int fd;

	if (strncmp(s->wish.what, templates, strlen(templates)) != 0)
		return artifact_open(s->state, s->wish.what, name ? name : "manifest.json", e);
	path = talloc_asprintf(NULL, "%s/%s/%s", s->image_dir, s->wish.what + strlen(templates),
	    name ? name : "template.json");
	fd = open(path, O_RDONLY | O_CLOEXEC);
	return fd < 0 ? err_set(e, E_NOT_FOUND, "%s is not here", s->wish.what) : fd;
}

static ssize_t
read_at(int fd, uint8_t *p, size_t size, off_t at)
{
	size_t done = 0;
	ssize_t n;

	while (done < size && (n = pread(fd, p + done, size - done, at + (off_t)done)) != 0) {
		if (n < 0 && errno != EINTR)
			return -1;
		if (n > 0)
			done += (size_t)n;
	}
	return (ssize_t)done;
}

static void
serve_run(void *arg)
{
	struct serve *s = arg;
	auto_fd fd = wish_open(s, &s->err);
	size_t size = s->wish.file ? ARTIFACT_CHUNK : ARTIFACT_MANIFEST_MAX;
	auto_talloc uint8_t *p = NULL;
	ssize_t n;

	if (fd < 0)
		return;
	p = talloc_size(NULL, size);
	n = read_at(fd, p, size, s->wish.chunk * (off_t)ARTIFACT_CHUNK);
	if (n <= 0) {
		(void)err_set(&s->err, n < 0 ? E_SYSTEM : E_NOT_FOUND, "no such chunk");
		return;
	}
	if (!s->wish.file) {
		s->data = talloc_steal(s, p);
		s->len = (size_t)n;
		p = NULL;
		return;
	}
	s->data = talloc_size(s, ZSTD_compressBound((size_t)n));
	s->len = ZSTD_compress(s->data, ZSTD_compressBound((size_t)n), p, (size_t)n, LEVEL);
	if (ZSTD_isError(s->len))
		(void)err_set(&s->err, E_BUG, "zstd: %s", ZSTD_getErrorName(s->len));
}

/* On the call: its end is told to the thread's work. */
struct hold {
	struct serve *serve;
};

static int
hold_free(struct hold *h)
{
	if (h->serve) {
		h->serve->call = NULL;
		h->serve->hold = NULL;
	}
	return 0;
}

static void
serve_done(void *arg)
{
	struct serve *s = arg;
	static const struct h2_header type[] = { { "content-type", "application/octet-stream" },
		{ 0 } };

	if (s->hold)
		s->hold->serve = NULL;
	if (s->call && s->err.code != E_OK) {
		api_error(s->call->stream, &s->err);
	} else if (s->call) {
		h2_respond(s->call->stream, 200, type, false);
		h2_write(s->call->stream, s->data, s->len);
		h2_finish(s->call->stream);
	}
	talloc_free(s);
}

void
artifact_api_get(struct call *c)
{
	struct serve *s = talloc_zero(NULL, struct serve);
	struct hold *h;

	if (!wish_read(c, s, &s->wish)) {
		talloc_free(s);
		api_fail(c, E_NOT_FOUND, "this is no artifact");
		return;
	}
	h = talloc_zero(c, struct hold);
	h->serve = s;
	talloc_set_destructor(h, hold_free);
	s->hold = h;
	s->call = c;
	s->state = c->agent->state_fd;
	s->image_dir = c->agent->conf->agent_image_dir;
	background(c->agent->loop, serve_run, serve_done, s);
}

static void
list_one(void *arg, const char *id)
{
	struct buf *b = arg;

	if (b->data[b->len - 1] != '[')
		buf_chr(b, ',');
	buf_json(b, id);
}

void
artifact_api_list(struct call *c)
{
	struct buf b = BUF(c);

	buf_str(&b, "{\"artifacts\":[");
	artifact_each(c->agent->state_fd, list_one, &b);
	buf_str(&b, "]}");
	api_reply(c->stream, 200, &b);
}

void
artifact_api_delete(struct call *c)
{
	struct wish w;

	if (!wish_read(c, c, &w) || w.file || !artifact_id_ok(w.what)) {
		api_fail(c, E_NOT_FOUND, "this is no artifact");
	} else if (artifact_used(c->agent, w.what)) {
		api_fail(c, E_CONFLICT, "something on this host lies on it");
	} else {
		artifact_remove(c->agent->state_fd, w.what);
		h2_respond(c->stream, 204, NULL, true);
	}
}

/* ---- pulling: a thread each, at most PULLS; who asks for the same joins */

struct waiter {
	TAILQ_ENTRY(waiter) link;
	struct call *call;
	struct pull *pull;
};

struct pull {
	TAILQ_ENTRY(pull) link;
	TAILQ_HEAD(, waiter) waiters;
	const char *what;
	struct pull_env env;
	struct err err;
	int result;
};

static TAILQ_HEAD(, pull) pulls = TAILQ_HEAD_INITIALIZER(pulls);
static int running;

static int
waiter_free(struct waiter *w)
{
	TAILQ_REMOVE(&w->pull->waiters, w, link);
	return 0;
}

static void
pull_wait(struct pull *p, struct call *c)
{
	struct waiter *w = talloc_zero(c, struct waiter);

	w->call = c;
	w->pull = p;
	TAILQ_INSERT_TAIL(&p->waiters, w, link);
	talloc_set_destructor(w, waiter_free);
}

static void
pull_thread(void *arg)
{
	struct pull *p = arg;

	p->result = pull_run(&p->env, p->what, &p->err);
}

static void
pull_done(void *arg)
{
	struct pull *p = arg;
	struct waiter *w;

	TAILQ_REMOVE(&pulls, p, link);
	running--;
	if (p->result < 0)
		log_warn(NULL, "pull %s: %s", p->what, p->err.text);
	else
		log_info(NULL, "pulled %s from %.*s", p->what, (int)strcspn(p->env.from, "#"),
		    p->env.from);
	while ((w = TAILQ_FIRST(&p->waiters))) {
		struct call *c = w->call;

		talloc_free(w);
		if (p->result < 0)
			api_error(c->stream, &p->err);
		else
			h2_respond(c->stream, 204, NULL, true);
	}
	talloc_free(p);
}

static struct pull *
pull_start(struct call *c, const char *what, const char *from, const char *digest)
{
	const struct tls_self *self = certs_self(c->agent);
	struct pull *p = talloc_zero(NULL, struct pull);

	TAILQ_INIT(&p->waiters);
	p->what = talloc_strdup(p, what);
	p->env = (struct pull_env){ .state = c->agent->state_fd,
		.image_dir = c->agent->conf->agent_image_dir,
		.from = talloc_strdup(p, from),
		.digest = digest ? talloc_strdup(p, digest) : NULL };
	if (self)
		p->env.self = (struct tls_self){ talloc_strdup(p, self->cert),
			talloc_strdup(p, self->key), talloc_strdup(p, self->ca) };
	TAILQ_INSERT_TAIL(&pulls, p, link);
	running++;
	background(c->agent->loop, pull_thread, pull_done, p);
	return p;
}

void
artifact_api_pull(struct call *c)
{
	struct json_object *j = api_body(c, c);
	const char *from = j ? json_str(j, "from", "") : "";
	struct wish w;
	struct pull *p;

	if (!j) {
		api_error(c->stream, &c->err);
		return;
	}
	if (!wish_read(c, c, &w) || w.file) {
		api_fail(c, E_NOT_FOUND, "this is no artifact");
		return;
	}
	if (artifact_id_ok(w.what) && artifact_have(c->agent->state_fd, w.what)) {
		h2_respond(c->stream, 204, NULL, true);
		return;
	}
	TAILQ_FOREACH(p, &pulls, link)
	if (strcmp(p->what, w.what) == 0) {
		pull_wait(p, c);
		return;
	}
	if (running == PULLS) {
		api_fail(c, E_OVERLOADED, "four pulls are running");
		return;
	}
	pull_wait(pull_start(c, w.what, from, json_str(j, "digest", NULL)), c);
}
