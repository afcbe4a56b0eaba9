/* scaling.c - see scaling.h. A row is a shape; what it wants is written into its image. */
#include "scaling.h"
#include "host.h"
#include "image.h"
#include "json.h"
#include "template.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

enum { ROWS_MAX = 32, CLONES_MAX = 64, VERSION_MAX = 64, FILE_SIZE = 65536, PERCENT = 100 };

struct scaling_row {
	const char *template;
	int vcpus, memory_mb;
	size_t hot, waiting;
	bool told; /* that it has no room: the log says it once */
};

struct scaling {
	const char *version;
	int warm_percent; /* 0: the configuration's */
	bool is_short;
	size_t n;
	struct scaling_row *row;
};

/* A number of an object; absent is the fallback. */
static int
number(struct json_object *j, const char *name, int64_t fallback, int64_t least, int64_t most,
    int64_t *ret, struct err *e)
{
	struct json_object *v = json_get(j, name);

	*ret = v ? json_object_get_int64(v) : fallback;
	if ((v && !json_object_is_type(v, json_type_int)) || *ret < least || *ret > most)
		return err_set(e, E_BAD_INPUT, "\"%s\" is not between %lld and %lld", name,
		    (long long)least, (long long)most);
	return 0;
}

static int
row_read(struct json_object *j, struct scaling_row *r, void *mem, struct err *e)
{
	int64_t vcpus, memory_mb, hot, waiting;
	const char *name = json_str(j, "template", "");

	if (!*name)
		return err_set(e, E_BAD_INPUT, "a pool has no \"template\"");
	if (number(j, "vcpus", 0, 1, 16, &vcpus, e) < 0 ||
	    number(j, "memory_mb", 0, 128, 65536, &memory_mb, e) < 0 ||
	    number(j, "hot", 0, 0, CLONES_MAX, &hot, e) < 0 ||
	    number(j, "waiting", 0, 0, CLONES_MAX, &waiting, e) < 0)
		return -1;
	*r = (struct scaling_row){ talloc_strdup(mem, name), (int)vcpus, (int)memory_mb,
		(size_t)hot, (size_t)waiting, false };
	return 0;
}

static struct scaling *
scaling_read(void *mem, struct json_object *j, struct err *e)
{
	struct scaling *s = talloc_zero(mem, struct scaling);
	struct json_object *list = json_get(j, "pools");
	const char *version = json_str(j, "version", "");
	int64_t percent;
	size_t i;

	s->version = talloc_strdup(s, version);
	if (!*version || strlen(version) > VERSION_MAX ||
	    strspn(version, "abcdefghijklmnopqrstuvwxyz0123456789-") != strlen(version))
		(void)err_set(e, E_BAD_INPUT, "\"version\" is no version");
	else if (!json_object_is_type(list, json_type_array) ||
	    json_object_array_length(list) > ROWS_MAX)
		(void)err_set(e, E_BAD_INPUT, "\"pools\" is no list of at most %d", ROWS_MAX);
	else if (number(j, "warm_memory_percent", 0, 0, 90, &percent, e) == 0) {
		s->warm_percent = (int)percent;
		s->n = json_object_array_length(list);
		s->row = talloc_zero_array(s, struct scaling_row, s->n + 1);
		for (i = 0; i < s->n; i++)
			if (row_read(json_object_array_get_idx(list, i), &s->row[i], s, e) < 0)
				break;
	}
	if (e->code == E_OK)
		return s;
	talloc_free(s);
	return NULL;
}

/* On disk before it holds. */
static int
keep(const struct agent *a, const char *text, size_t len, struct err *e)
{
	int dir = a->state_fd;
	auto_fd fd = openat(dir, "scaling.new", O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

	if (fd < 0 || write(fd, text, len) != (ssize_t)len || fsync(fd) < 0 ||
	    renameat(dir, "scaling.new", dir, "scaling.json") < 0 || fsync(dir) < 0)
		return err_sys(e, "scaling.json");
	return 0;
}

void
scaling_open(struct agent *a)
{
	auto_talloc char *mem = talloc_new(NULL);
	char *text = talloc_size(mem, FILE_SIZE);
	auto_fd fd = openat(a->state_fd, "scaling.json", O_RDONLY | O_CLOEXEC);
	ssize_t n = fd < 0 ? -1 : read(fd, text, FILE_SIZE);
	struct err e = { 0 };
	struct json_object *j;

	if (fd < 0)
		return;
	j = n < 0 ? NULL : json_parse(mem, text, (size_t)n, NULL, &e);
	if (j)
		a->scaling = scaling_read(a, j, &e);
	/* the control plane hears that there is none, and sends it again */
	if (!a->scaling)
		log_error(NULL, "scaling.json: %s", n < 0 ? strerror(errno) : e.text);
}

void
scaling_forget(struct agent *a)
{
	if (unlinkat(a->state_fd, "scaling.json", 0) < 0 && errno != ENOENT)
		log_error(NULL, "scaling.json: %s", strerror(errno));
	TALLOC_FREE(a->scaling);
	scaling_hold(a);
	image_trim(a);
	pool_fill(a);
}

void
scaling_delete(struct call *c)
{
	log_info(NULL, "scaling: as configured");
	scaling_forget(c->agent);
	h2_respond(c->stream, 204, NULL, true);
}

void
scaling_put(struct call *c)
{
	struct agent *a = c->agent;
	struct json_object *j = api_body(c, c);
	struct scaling *s = j && c->body.len <= FILE_SIZE ? scaling_read(c, j, &c->err) : NULL;
	struct buf b = BUF(c);

	if (j && c->body.len > FILE_SIZE)
		(void)err_set(&c->err, E_TOO_LARGE, "the setting is longer than %d", FILE_SIZE);
	if (!s || keep(a, c->body.data, c->body.len, &c->err) < 0) {
		api_error(c->stream, &c->err);
		return;
	}
	talloc_free(a->scaling);
	a->scaling = talloc_steal(a, s);
	log_info(NULL, "scaling %s: %zu pools", s->version, s->n);
	scaling_hold(a);
	image_trim(a);
	pool_fill(a);
	buf_fmt(&b, "{\"version\":\"%s\"}", s->version);
	api_reply(c->stream, 200, &b);
}

uint64_t
scaling_share(const struct agent *a)
{
	int64_t percent = a->scaling && a->scaling->warm_percent
	    ? a->scaling->warm_percent
	    : a->conf->agent_warm_memory_percent;
	struct host h;
	struct err e = { 0 };

	return host_facts(a, &h, &e) == 0 ? (h.memory_mb << 20) / PERCENT * percent : 0;
}

/* A row whose template is here gets its image, if it fits into what is left of the share. */
static void
row_hold(struct agent *a, struct scaling_row *r, uint64_t *left)
{
	struct err e = { 0 };
	struct template *t = template_find(a, r->template, &e);
	uint64_t size = (uint64_t)r->memory_mb << 20;
	struct image *i;

	if (!t)
		return;
	if (size > *left) {
		a->scaling->is_short = true;
		if (!r->told)
			log_warn(NULL, "scaling: no room for the memory of %s %dx%d", r->template,
			    r->vcpus, r->memory_mb);
		r->told = true;
		return;
	}
	*left -= size;
	r->told = false;
	i = image_known(a, t, r->vcpus, r->memory_mb);
	i->pinned = true;
	i->hot = r->hot;
	i->waiting = r->waiting;
	if (pool_memory(a))
		image_want(i);
}

void
scaling_hold(struct agent *a)
{
	uint64_t left = scaling_share(a);
	struct image *i;
	size_t n;

	TAILQ_FOREACH(i, &a->images, link)
	i->pinned = false;
	if (!a->scaling || a->stopping)
		return;
	a->scaling->is_short = false;
	for (n = 0; n < a->scaling->n; n++)
		row_hold(a, &a->scaling->row[n], &left);
}

const char *
scaling_version(const struct agent *a)
{
	return a->scaling ? a->scaling->version : "";
}

bool
scaling_short(const struct agent *a)
{
	return a->scaling && a->scaling->is_short;
}
