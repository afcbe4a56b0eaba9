/* api.c - see api.h. A call is a row of routes[] and a function. */
#include "api_sleep.h"
#include "artifact.h"
#include "api_call.h"
#include "api_host.h"
#include "api_watch.h"
#include "artifact_api.h"
#include "certs.h"
#include "control.h"
#include "h2_uv.h"
#include "host.h"
#include "id.h"
#include "image.h"
#include "json.h"
#include "metrics.h"
#include "net_policy.h"
#include "scaling.h"
#include "template.h"

#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/tcp.h>
#include <nghttp2/nghttp2.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#define BASE "/agent/v1"

enum { BODY_MAX = 1 << 20, STREAMS = 4096, BACKLOG = 128, HANDSHAKE_MS = 5000 };

static api_handler decommission, info, inventory, capsule_put, capsule_get, capsule_delete;

static const struct api_route routes[] = {
	/* clang-format off */
	{ "GET",	BASE "/info",		info,		false },
	{ "GET",	BASE "/metrics",	host_metrics,	false },
	{ "GET",	BASE "/logs",		host_logs,	false },
	{ "GET",	BASE "/capsules",	inventory,	false },
	{ "GET",	BASE "/capsules/{id}",	capsule_get,	false },
	{ "PUT",	BASE "/capsules/{id}",	capsule_put,	true },
	{ "PATCH",	BASE "/capsules/{id}",	capsule_patch,	true },
	{ "POST",	BASE "/capsules/{id}/pause",	sleep_pause,	true },
	{ "POST",	BASE "/capsules/{id}/resume",	sleep_resume,	true },
	{ "POST",	BASE "/capsules/{id}/hibernate", sleep_hibernate, true },
	{ "POST",	BASE "/capsules/{id}/snapshot",	sleep_snapshot,	true },
	{ "POST",	BASE "/capsules/{id}/rollback",	sleep_rollback,	true },
	{ "POST",	BASE "/capsules/{id}/fork",	sleep_fork,	true },
	{ "POST",	BASE "/capsules/{id}/discard",	sleep_discard,	true },
	{ "DELETE",	BASE "/capsules/{id}",	capsule_delete,	true },
	{ "POST",	BASE "/capsules/{id}/touch",	watch_touch,	false, TLS_GATEWAY },
	{ "GET",	BASE "/capsules/{id}/metrics",	watch_metrics,	false, TLS_GATEWAY },
	{ "GET",	BASE "/capsules/{id}/logs",	watch_logs,	false, TLS_GATEWAY },
	{ "GET",	BASE "/artifacts",	artifact_api_list,	false },
	{ "GET",	BASE "/artifacts/*",	artifact_api_get,	false, TLS_HOST },
	{ "PUT",	BASE "/artifacts/*",	artifact_api_pull,	false },
	{ "DELETE",	BASE "/artifacts/*",	artifact_api_delete,	false },
	{ "PUT",	BASE "/scaling",	scaling_put,	false },
	{ "DELETE",	BASE "/scaling",	scaling_delete,	false },
	{ "POST",	BASE "/decommission",	decommission,	false },
	/* clang-format on */
};

/* Answers. */

void
api_reply(struct h2_stream *s, int status, const struct buf *b)
{
	static const struct h2_header json[] = { { "content-type", "application/json" }, { 0 } };

	h2_respond(s, status, json, b->len == 0);
	if (b->len) {
		h2_write(s, b->data, b->len);
		h2_finish(s);
	}
}

void
api_error(struct h2_stream *s, const struct err *e)
{
	const struct err_kind *k = &err_kinds[e->code];
	const struct h2_header head[] = { { "content-type", "application/json" },
		{ "hutch-error", k->slug }, { 0 } };
	auto_talloc char *mem = talloc_new(NULL);
	struct buf b = BUF(mem);

	/* the caller is the control plane, which logs it: it gets the sentence, not only the kind
	 */
	buf_fmt(&b, "{\"error\":{\"code\":\"%s\",\"message\":", k->slug);
	buf_json(&b, e->text);
	buf_str(&b, "}}");
	h2_respond(s, k->http, head, false);
	h2_write(s, b.data, b.len);
	h2_finish(s);
}

void
api_fail(struct call *c, enum err_code code, const char *text)
{
	struct err e = { 0 };

	(void)err_set(&e, code, "%s", text);
	api_error(c->stream, &e);
}

struct capsule *
api_capsule(struct call *c)
{
	struct capsule *k = capsule_find(c->agent, c->id);

	if (k && k->state != CAP_GONE)
		return k;
	api_fail(c, E_NOT_FOUND, "no such capsule");
	return NULL;
}

struct json_object *
api_body(struct call *c, void *mem)
{
	static const struct json_limits limits = { .depth = 8, .keys = 1000 };
	struct json_object *j =
	    json_parse(mem, c->body.data ? c->body.data : "", c->body.len, &limits, &c->err);

	if (j && !json_object_is_type(j, json_type_object)) {
		(void)err_set(&c->err, E_BAD_INPUT, "the body is not an object");
		return NULL;
	}
	return j;
}

const char *
api_query(struct call *c, const char *name)
{
	size_t len = strlen(name), n;
	const char *p;

	for (p = c->query; *p; p += n + (p[n] == '&')) {
		n = strcspn(p, "&");
		if (n > len && strncmp(p, name, len) == 0 && p[len] == '=')
			return talloc_strndup(c, p + len + 1, n - len - 1);
	}
	return NULL;
}

/* What the host is and holds. */

static void
info(struct call *c)
{
	struct agent *a = c->agent;
	struct buf b = BUF(c);
	struct host h = { 0 };
	struct err e = { 0 };

	(void)host_facts(a, &h, &e);
	buf_fmt(&b, "{\"agent_version\":\"%s\",\"accel\":\"%s\",\"qemu_version\":", PACKAGE_VERSION,
	    accel_name(a->accel));
	buf_json(&b, a->qemu_version);
	buf_fmt(&b,
	    ",\"boot_id\":\"%s\",\"cpu_cores\":%d,\"memory_mb\":%llu,\"disk_gb\":%llu,"
	    "\"free_memory_mb\":%llu,\"free_disk_gb\":%llu,\"uids_free\":%d,\"starting\":%zu",
	    a->boot_id, a->cores, (unsigned long long)h.memory_mb,
	    (unsigned long long)h.disk_mb / 1024, (unsigned long long)h.free_memory_mb,
	    (unsigned long long)h.free_disk_mb / 1024, uid_free(a), vm_starting(a));
	buf_str(&b, ",\"templates\":[");
	template_names(a, &b);
	buf_str(&b, "],\"pools\":{");
	pools_json(a, &b);
	buf_fmt(&b, "},\"scaling\":\"%s\",\"warm_memory_mb\":%llu,\"conditions\":[",
	    scaling_version(a), (unsigned long long)scaling_share(a) >> 20);
	host_conditions(a, &b);
	buf_str(&b, "]}");
	api_reply(c->stream, 200, &b);
}

static void
capsule_json(const struct capsule *k, struct buf *b)
{
	buf_fmt(b,
	    "{\"id\":\"%s\",\"epoch\":%lld,\"state\":\"%s\",\"start_mode\":\"%s\",\"accel\":\"%s\","
	    "\"since\":%lld,\"template\":",
	    k->id, (long long)k->epoch, capsule_state_name(k->state), capsule_start_mode(k),
	    accel_name(k->accel), (long long)k->since);
	buf_json(b, k->template);
	buf_fmt(b, ",\"vcpus\":%d,\"memory_mb\":%d,\"disk_size_mb\":%llu", k->vcpus, k->memory_mb,
	    (unsigned long long)k->disk_size >> 20);
	if (k->state == CAP_ERROR) {
		buf_fmt(b, ",\"error\":{\"code\":\"%s\",\"message\":", capsule_error_code(k));
		buf_json(b, k->why);
		buf_chr(b, '}');
	}
	if (k->exited_at) {
		buf_str(b, ",\"exit\":");
		capsule_exit_json(k, b);
	}
	sleep_json(k, b);
	idle_json(k, b);
	buf_fmt(b, ",\"conditions\":[%s]", metrics_guest_silent(k) ? "\"guest_unresponsive\"" : "");
	buf_chr(b, '}');
}

static void
add_image(void *arg, const char *id)
{
	struct buf *b = arg;

	buf_fmt(b, "%s\"%s\"", b->data[b->len - 1] == '[' ? "" : ",", id);
}

static void
inventory(struct call *c)
{
	struct agent *a = c->agent;
	struct buf b = BUF(c);
	const struct capsule *k;
	const char *comma = "";

	buf_fmt(&b, "{\"journal_complete\":%s,\"cluster\":\"%s\",\"scaling\":\"%s\",\"capsules\":[",
	    a->journal_complete ? "true" : "false", control_cluster(a), scaling_version(a));
	TAILQ_FOREACH(k, &a->capsules, link)
	{
		if (k->state == CAP_GONE || k->state == CAP_NEW)
			continue;
		buf_str(&b, comma);
		capsule_json(k, &b);
		comma = ",";
	}
	buf_str(&b, "],\"images\":[");
	artifact_each(a->state_fd, add_image, &b);
	buf_str(&b, "]}");
	api_reply(c->stream, 200, &b);
}

static void
capsule_get(struct call *c)
{
	const struct capsule *k = api_capsule(c);
	struct buf b = BUF(c);

	if (!k)
		return;
	capsule_json(k, &b);
	api_reply(c->stream, 200, &b);
}

/* Create and destroy. */

void
api_started(void *arg, struct capsule *k, const struct err *e)
{
	struct call *c = arg;
	struct buf b = BUF(c);

	if (!c->stream)
		return;
	if (e) {
		api_error(c->stream, e);
		return;
	}
	buf_fmt(&b,
	    "{\"id\":\"%s\",\"epoch\":%lld,\"state\":\"%s\",\"start_mode\":\"%s\",\"accel\":\"%s\","
	    "\"took_ms\":%d}",
	    k->id, (long long)k->epoch, capsule_state_name(k->state), capsule_start_mode(k),
	    accel_name(k->accel), k->took_ms);
	api_reply(c->stream, 200, &b);
}

static bool
between(struct err *e, const char *name, int64_t n, int64_t least, int64_t most)
{
	if (n >= least && n <= most)
		return true;
	(void)err_set(e, E_BAD_INPUT, "\"%s\" is not between %lld and %lld", name, (long long)least,
	    (long long)most);
	return false;
}

static bool
envs_ok(struct json_object *envs, struct err *e)
{
	if (!envs)
		return true;
	if (!json_object_is_type(envs, json_type_object) ||
	    json_object_object_length(envs) > ENVS_MAX)
		return err_set(e, E_BAD_INPUT, "\"envs\" is not an object of at most %d texts",
			   ENVS_MAX) == 0;
	json_object_object_foreach(envs, key, value)
	{
		if (!*key || strchr(key, '=') || !json_object_is_type(value, json_type_string))
			return err_set(e, E_BAD_INPUT, "\"envs\": \"%.60s\" is no variable", key) ==
			    0;
	}
	return true;
}

int
api_spec(struct call *c, void *mem, struct json_object *j, int64_t epoch, struct capsule_spec *s)
{
	struct json_object *image = json_get(j, "image");
	const char *boot;

	boot = json_str(j, "boot", "warm");
	*s = (struct capsule_spec){ .epoch = json_int(j, "epoch", epoch),
		.template = json_str(j, "template", ""),
		.vcpus = json_int(j, "vcpus", 1),
		.memory_mb = json_int(j, "memory_mb", 512),
		.disk_mb = json_int(j, "disk_size_mb", 0),
		.cold = strcmp(boot, "cold") == 0,
		.hostname = json_str(j, "hostname", "hutch"),
		.user = json_str(j, "user", NULL),
		.workdir = json_str(j, "workdir", NULL),
		.token = json_str(j, "access_token", NULL),
		.team = json_str(j, "team_id", NULL),
		.template_id = json_str(j, "template_id", NULL),
		.envs = json_get(j, "envs"),
		.network = json_get(j, "network") };
	idle_defaults(&s->idle);
	if (idle_read(j, &s->idle, &c->err) < 0)
		return -1;
	s->disk = json_str(image, "disk", NULL);
	s->memory = json_str(image, "memory", NULL);
	s->new_identity = json_flag(j, "new_identity", false);
	if (image && (!artifact_id_ok(s->disk) || (s->memory && !artifact_id_ok(s->memory))))
		return err_set(&c->err, E_BAD_INPUT, "\"image\" does not name artifacts");
	if (s->cold)
		s->memory = NULL;
	if (s->epoch != epoch)
		return err_set(&c->err, E_BAD_INPUT, "\"epoch\" is not that of hutch-epoch");
	if (!s->token || !*s->token)
		return err_set(&c->err, E_BAD_INPUT, "\"access_token\" is missing");
	if (strcmp(boot, "warm") != 0 && !s->cold)
		return err_set(&c->err, E_BAD_INPUT, "\"boot\" is neither warm nor cold");
	if (!between(&c->err, "vcpus", json_int(j, "vcpus", 1), 1, 16) ||
	    !between(&c->err, "memory_mb", json_int(j, "memory_mb", 512), 128, 65536) ||
	    !between(&c->err, "disk_size_mb", s->disk_mb, 0, DISK_MAX_MB) ||
	    !envs_ok(s->envs, &c->err) || !net_policy_read(mem, s->network, &c->err))
		return -1;
	return 0;
}

static void
capsule_put(struct call *c)
{
	struct capsule_spec spec;
	char *mem = talloc_new(c);
	struct json_object *j;
	struct uuid uuid;

	if (!id_read(c->id, "cl-", &uuid)) {
		api_fail(c, E_BAD_INPUT, "this is no capsule's id");
		return;
	}
	j = api_body(c, mem);
	if (!j || api_spec(c, mem, j, c->epoch, &spec) < 0) {
		api_error(c->stream, &c->err);
		return;
	}
	capsule_start(c->agent, c->id, &spec, mem, c, api_started, c);
}

static void
delete_done(void *arg, struct capsule *k, const struct err *e)
{
	struct call *c = arg;

	(void)k;
	if (!c->stream)
		return;
	if (e)
		api_error(c->stream, e);
	else
		h2_respond(c->stream, 204, NULL, true);
}

static void
capsule_delete(struct call *c)
{
	capsule_stop(c->agent, c->id, c->epoch, c, delete_done, c);
}

/* The control plane has deleted this host: capsules end, keys go. The body names the host, so that
   an address that was given to another machine does no harm. */
static void
decommission(struct call *c)
{
	struct json_object *j = api_body(c, c);

	if (!j) {
		api_error(c->stream, &c->err);
	} else if (!control_is_host(c->agent, json_str(j, "host", ""))) {
		api_fail(c, E_CONFLICT, "this is another host");
	} else {
		h2_respond(c->stream, 204, NULL, true);
		control_decommission(c->agent);
	}
}

/* Streams: a call collects its body, then runs. */

static void
call_run(struct call *c)
{
	c->started = true;
	if (c->err.code != E_OK)
		api_error(c->stream, &c->err);
	else
		c->route->run(c);
}

static void
call_data(struct h2_stream *s, const uint8_t *p, size_t n)
{
	struct call *c = h2_stream_user(s);

	h2_consume(s, n);
	if (c->body.len + n > BODY_MAX)
		(void)err_set(&c->err, E_TOO_LARGE, "the body is longer than %d bytes", BODY_MAX);
	else
		buf_add(&c->body, p, n);
}

static void
call_end(struct h2_stream *s)
{
	struct call *c = h2_stream_user(s);

	if (!c->started)
		call_run(c);
}

static void
call_close(struct h2_stream *s, uint32_t error)
{
	struct call *c = h2_stream_user(s);

	(void)error;
	/* what was begun goes on without us: the client asks again */
	c->stream = NULL;
	h2_stream_set_user(s, NULL);
	talloc_free(c);
}

static const struct h2_events call_events = {
	.on_data = call_data,
	.on_end = call_end,
	.on_close = call_close,
};

/* "{id}" matches one capsule id; it goes to id. */
static bool
path_is(const char *pattern, const char *path, char id[CAPSULE_ID])
{
	size_t n;

	for (; *pattern; pattern++) {
		if (*pattern == '*')
			return *path != '\0';
		if (*pattern != '{') {
			if (*path++ != *pattern)
				return false;
			continue;
		}
		n = strspn(path, "abcdefghijklmnopqrstuvwxyz0123456789-");
		if (n == 0 || n >= CAPSULE_ID)
			return false;
		snprintf(id, CAPSULE_ID, "%.*s", (int)n, path);
		path += n;
		pattern = strchr(pattern, '}');
	}
	return *path == '\0' || *path == '?';
}

static const struct api_route *
route_find(const struct h2_head *h, char id[CAPSULE_ID], struct err *e)
{
	const struct api_route *r;
	bool path = false;

	for (r = routes; r < routes + nitems(routes); r++) {
		if (!path_is(r->path, h->path, id))
			continue;
		path = true;
		if (strcmp(r->method, h->method) == 0)
			return r;
	}
	(void)err_set(e, path ? E_NO_METHOD : E_NOT_FOUND, "no %.10s %.150s", h->method, h->path);
	return NULL;
}

/* The caller's name for what it wants done: the same again is the same thing. */
static const char *
op_of(void *mem, const struct h2_head *h)
{
	const struct h2_header *i;

	for (i = h->header; i->name; i++)
		if (strcmp(i->name, "hutch-op") == 0)
			return talloc_strdup(mem, i->value);
	return NULL;
}

static int64_t
epoch_of(const struct h2_head *h)
{
	const struct h2_header *i;
	char *end;
	long long n;

	for (i = h->header; i->name; i++) {
		if (strcmp(i->name, "hutch-epoch") != 0)
			continue;
		errno = 0;
		n = strtoll(i->value, &end, 10);
		return errno || *end || end == i->value || n < 0 ? -1 : n;
	}
	return -1;
}

/* /agent/v1/capsules/{id}/guest/…: true, it goes to the guest. */
static bool
is_bridge(struct agent *a, struct h2_stream *s, const struct h2_head *h)
{
	static const char prefix[] = BASE "/capsules/";
	char id[CAPSULE_ID];
	const char *p = h->path + strlen(prefix);
	size_t n;

	if (strncmp(h->path, prefix, strlen(prefix)) != 0)
		return false;
	n = strcspn(p, "/");
	if (n == 0 || n >= sizeof id || strncmp(p + n, "/guest/", 7) != 0)
		return false;
	snprintf(id, sizeof id, "%.*s", (int)n, p);
	bridge_start(a, s, h, id, p + n + strlen("/guest"));
	return true;
}

/* CONNECT PORT.ID (RFC 9113 §8.5): a port of the guest's. */
static void
tunnel(struct agent *a, struct h2_stream *s, const struct h2_head *h, unsigned role)
{
	const char *where = h->authority ? h->authority : "";
	size_t digits = strspn(where, "0123456789");
	unsigned long port = digits && digits <= 5 ? strtoul(where, NULL, 10) : 0;
	struct err e = { 0 };

	if (!(role & TLS_GATEWAY))
		(void)err_set(&e, E_FORBIDDEN, "this call is not for your certificate");
	else if (port < 1 || port > 65535 || where[digits] != '.')
		(void)err_set(&e, E_BAD_INPUT, "CONNECT takes PORT.CAPSULE");
	if (e.code != E_OK)
		api_error(s, &e);
	else
		bridge_tunnel(a, s, h, where + digits + 1, (unsigned)port);
}

/* A connection and who is at its other end. */
struct connection {
	struct agent *agent;
	struct h2_uv *link;
	bool remote; /* else the unix socket: whoever may open it may do all */
};

static unsigned
role_of(const struct connection *c)
{
	if (!c->remote)
		return TLS_CONTROL | TLS_GATEWAY | TLS_HOST;
	return tls_peer(h2_uv_peer(c->link));
}

/* The connection's events: passed on to whom the stream belongs. */

static void
on_head(struct h2_stream *s, const struct h2_head *h)
{
	struct connection *from = h2_user(h2_stream_session(s));
	struct agent *a = from->agent;
	unsigned role = role_of(from);
	struct call *c;

	h2_stream_set_user(s, NULL);
	if (h->method && !h->path && strcmp(h->method, "CONNECT") == 0)
		tunnel(a, s, h, role);
	if (!h->method || !h->path || (role & (TLS_CONTROL | TLS_GATEWAY) && is_bridge(a, s, h)))
		return;
	c = talloc_zero(a, struct call);
	c->peer.events = &call_events;
	c->stream = s;
	c->agent = a;
	c->body = BUF(c);
	c->path = talloc_strdup(c, h->path);
	c->query = strchr(h->path, '?') ? talloc_strdup(c, strchr(h->path, '?') + 1) : "";
	c->epoch = epoch_of(h);
	c->op = op_of(c, h);
	c->route = route_find(h, c->id, &c->err);
	h2_stream_set_user(s, c);
	if (c->route && !(role & (TLS_CONTROL | c->route->who)))
		(void)err_set(&c->err, E_FORBIDDEN, "this call is not for your certificate");
	if (c->route && c->route->changes && c->epoch < 0)
		(void)err_set(
		    &c->err, E_BAD_INPUT, "the header hutch-epoch is missing or no number");
}

static void
on_data(struct h2_stream *s, const uint8_t *p, size_t n)
{
	struct api_peer *peer = h2_stream_user(s);

	if (peer)
		peer->events->on_data(s, p, n);
	else
		h2_consume(s, n);
}

static void
on_end(struct h2_stream *s)
{
	struct api_peer *peer = h2_stream_user(s);

	if (peer && peer->events->on_end)
		peer->events->on_end(s);
}

static void
on_sent(struct h2_stream *s, size_t n)
{
	struct api_peer *peer = h2_stream_user(s);

	if (peer && peer->events->on_sent)
		peer->events->on_sent(s, n);
}

static void
on_close(struct h2_stream *s, uint32_t error)
{
	struct api_peer *peer = h2_stream_user(s);

	if (peer)
		peer->events->on_close(s, error);
}

static const struct h2_events connection_events = {
	.on_head = on_head,
	.on_data = on_data,
	.on_end = on_end,
	.on_sent = on_sent,
	.on_close = on_close,
};

static void
on_gone(struct h2_uv *h, const struct err *why)
{
	struct connection *c = h2_uv_user(h);

	if (why->code == E_REFUSED)
		log_warn(NULL, "connection: %s", why->text);
	else
		log_debug(NULL, "connection: %s", why->text);
	talloc_free(c);
}

struct listener {
	struct agent *agent;
	int fd;
	bool remote;
	struct watch *watch;
};

/* A peer that never shows its certificate is dropped. */
static void
handshake_late(void *arg)
{
	struct connection *c = arg;

	if (!tls_ready(h2_uv_peer(c->link)))
		h2_uv_close(c->link);
}

static int
secure(struct connection *c)
{
	struct tls_ctx *ctx = certs_server(c->agent);

	if (!ctx || h2_uv_tls(c->link, ctx, true) < 0)
		return -1;
	(void)timer_new(c, c->agent->loop, HANDSHAKE_MS, 0, handshake_late, c);
	return 0;
}

static void
on_connection(void *arg, int events)
{
	static const struct h2_limits limits = { .streams = STREAMS };
	struct listener *l = arg;
	struct err e = { 0 };
	int fd = accept4(l->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK), on = 1;
	struct connection *c;

	(void)events;
	if (fd < 0)
		return;
	if (l->remote)
		(void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
	c = talloc_zero(l->agent, struct connection);
	c->agent = l->agent;
	c->remote = l->remote;
	c->link = h2_uv_open(
	    c, c->agent->loop, fd, H2_SERVER, &connection_events, &limits, c, on_gone, &e);
	if (c->link && (!c->remote || secure(c) == 0))
		return;
	log_warn(NULL, "connection: %s", e.code ? e.text : "no certificate");
	talloc_free(c);
}

/* agent.listen as a socket. */
static int
listen_far(const char *where, struct err *e)
{
	struct addrinfo hint = { .ai_socktype = SOCK_STREAM,
		.ai_flags = AI_NUMERICSERV | AI_PASSIVE };
	struct addrinfo *list = NULL;
	auto_talloc char *host = talloc_strdup(NULL, where);
	char *port = strrchr(host, ':');
	int fd, on = 1;

	if (!port)
		return err_set(e, E_CONFIG, "agent.listen is not ADDRESS:PORT");
	*port++ = '\0';
	if (*host == '[' && port[-2] == ']') {
		port[-2] = '\0';
		memmove(host, host + 1, strlen(host));
	}
	if (getaddrinfo(host, port, &hint, &list) != 0)
		return err_set(
		    e, E_CONFIG, "agent.listen: %s is no address of this machine", where);
	fd = socket(list->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd >= 0)
		(void)setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
	if (fd < 0 || bind(fd, list->ai_addr, list->ai_addrlen) < 0 || listen(fd, BACKLOG) < 0) {
		(void)err_sys(e, "agent.listen %s", where);
		if (fd >= 0)
			close(fd);
		fd = -1;
	}
	freeaddrinfo(list);
	return fd;
}

int
api_listen(struct agent *a, struct err *e)
{
	static struct listener *l;

	if (l || !*a->conf->agent_listen || !certs_server(a))
		return 0;
	l = talloc_zero(a, struct listener);
	*l = (struct listener){
		.agent = a, .fd = listen_far(a->conf->agent_listen, e), .remote = true
	};
	if (l->fd < 0) {
		TALLOC_FREE(l);
		return -1;
	}
	l->watch = watch_new(l, a->loop, l->fd, UV_READABLE, on_connection, l);
	log_info(NULL, "listening on %s", a->conf->agent_listen);
	return 0;
}

int
api_start(struct agent *a, struct err *e)
{
	struct sockaddr_un sa = { .sun_family = AF_UNIX };
	struct listener *l = talloc_zero(a, struct listener);
	const char *path = a->conf->agent_socket;
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	if (strlen(path) >= sizeof sa.sun_path)
		return err_set(
		    e, E_CONFIG, "agent.socket is longer than %zu bytes", sizeof sa.sun_path - 1);
	memcpy(sa.sun_path, path, strlen(path) + 1);
	/* the state directory's lock says that no other agent uses this socket */
	(void)unlink(path);
	if (fd < 0 || bind(fd, (struct sockaddr *)&sa, sizeof sa) < 0 || chmod(path, 0660) < 0 ||
	    listen(fd, BACKLOG) < 0)
		return err_sys(e, "%s", path);
	l->agent = a;
	l->fd = fd;
	(void)watch_new(l, a->loop, fd, UV_READABLE, on_connection, l);
	return 0;
}
