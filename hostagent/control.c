/*
 * control.c - see control.h. One call at a time, in a thread; rows of calls[] say what each sends
 * and what its answer changes. host.json (0600) keeps who we are at the control plane.
 */
#include "api_sleep.h"
#include "control.h"
#include "capsule.h"
#include "certs.h"
#include "field.h"
#include "host.h"
#include "http.h"
#include "image.h"
#include "json.h"
#include "metrics.h"
#include "reports.h"
#include "scaling.h"
#include "template.h"

#include <errno.h>
#include <fcntl.h>
#include <openssl/sha.h>
#include <string.h>
#include <sys/random.h>
#include <sys/utsname.h>
#include <sys/wait.h>

enum { TICK_MS = 1000, RETRY_MIN_MS = 1000, RETRY_MAX_MS = 30000 };
enum { BATCH = 200, METRICS_BATCH = 20, TOKEN_MAX = 4096 };
enum { DEFAULT_LIFE_MS = 7 * 24 * 3600 * 1000 };

enum kind { REGISTER, HEARTBEAT, REPORTS, REFRESH, KINDS };

struct control {
	struct agent *agent;
	const char *id, *token, *refresh; /* NULL: not registered */
	const char *cluster;              /* of the database that knows us, or "" */
	bool distrusted; /* our credentials were refused: all is paused until they are good again */
	char registered_with[65]; /* SHA-256 of the registration token that was used */
	int64_t refresh_at;       /* unix ms */
	int64_t seq;              /* of heartbeats */
	struct reports *reports;
	bool busy, closed;
	struct {
		int64_t due; /* now_mono() */
		int fails;
	} when[KINDS];
};

struct exchange {
	struct control *control;
	enum kind kind;
	struct http_call call;
	struct http_answer answer;
	struct err err;
	int result;
	int64_t last;    /* REPORTS: sequence of the last change in it */
	int64_t metrics; /* the same of rows of metrics */
};

typedef const char *body_fn(struct control *, struct exchange *);
typedef void answer_fn(struct control *, struct exchange *, struct json_object *);

static body_fn register_body, heartbeat_body, reports_body, refresh_body;
static answer_fn identity_answer, heartbeat_answer, reports_answer;

static const struct kind_row {
	const char *name, *path; /* authenticated: behind /v1/hosts/{id}/ */
	body_fn *body;
	answer_fn *answer;
	bool authenticated;
} calls[KINDS] = {
	/* clang-format off */
	[REGISTER] =	{ "register",	"/v1/hosts/register",		register_body,	identity_answer,	false },
	[HEARTBEAT] =	{ "heartbeat",	"heartbeat",			heartbeat_body,	heartbeat_answer,	true },
	[REPORTS] =	{ "reports",	"reports",				reports_body,	reports_answer,		true },
	[REFRESH] =	{ "refresh",	"/v1/hosts/auth/refresh",	refresh_body,	identity_answer,	false },
	/* clang-format on */
};

/* Who we are. */

static void
sha256_hex(const char *text, char ret[65])
{
	unsigned char sum[SHA256_DIGEST_LENGTH];
	size_t i;

	(void)SHA256((const unsigned char *)text, strlen(text), sum);
	for (i = 0; i < sizeof sum; i++)
		snprintf(ret + 2 * i, 3, "%02x", sum[i]);
}

/* The registration token, on mem; NULL: there is none. */
static const char *
registration_token(struct control *c, void *mem)
{
	char *text = talloc_zero_size(mem, TOKEN_MAX);
	auto_fd fd = *c->agent->conf->agent_token_file
	    ? open(c->agent->conf->agent_token_file, O_RDONLY | O_CLOEXEC)
	    : -1;

	if (fd < 0 || read(fd, text, TOKEN_MAX - 1) <= 0)
		return NULL;
	text[strcspn(text, "\r\n \t")] = '\0';
	return *text ? text : NULL;
}

static int
base64url(const char *text, size_t len, char *ret)
{
	static const char digits[] =
	    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
	unsigned bits = 0, have = 0;
	const char *d;
	int n = 0;

	for (; len--; text++) {
		if (!*text || !(d = strchr(digits, *text)))
			return -1;
		bits = bits << 6 | (unsigned)(d - digits);
		have += 6;
		if (have >= 8) {
			have -= 8;
			ret[n++] = (char)(bits >> have);
		}
	}
	return n;
}

/* Half of the token's life from now: what it says of itself; else half of the usual life. */
static int64_t
half_life(const char *token)
{
	auto_talloc char *mem = talloc_new(NULL);
	const char *p = strchr(token, '.'), *end = p ? strchr(p + 1, '.') : NULL;
	char *text;
	struct json_object *j;
	struct err e = { 0 };
	int64_t exp = 0;
	int n;

	if (end) {
		text = talloc_size(mem, end - p);
		n = base64url(p + 1, end - p - 1, text);
		j = n < 0 ? NULL : json_parse(mem, text, n, NULL, &e);
		exp = j ? json_int(j, "exp", 0) * 1000 : 0;
	}
	return now_real() + (exp > now_real() ? (exp - now_real()) / 2 : DEFAULT_LIFE_MS / 2);
}

static void
identity_save(struct control *c)
{
	auto_talloc char *mem = talloc_new(NULL);
	struct buf b = BUF(mem);
	int dir = c->agent->state_fd;
	auto_fd fd = openat(dir, "host.new", O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

	buf_str(&b, "{\"id\":");
	buf_json(&b, c->id);
	buf_str(&b, ",\"token\":");
	buf_json(&b, c->token);
	buf_str(&b, ",\"refresh_token\":");
	buf_json(&b, c->refresh);
	buf_str(&b, ",\"cluster\":");
	buf_json(&b, c->cluster);
	buf_fmt(&b, ",\"distrusted\":%s", c->distrusted ? "true" : "false");
	buf_fmt(&b, ",\"refresh_at\":%lld,\"registered_with\":\"%s\"}\n", (long long)c->refresh_at,
	    c->registered_with);
	if (fd < 0 || write(fd, b.data, b.len) != (ssize_t)b.len || fsync(fd) < 0 ||
	    renameat(dir, "host.new", dir, "host.json") < 0)
		log_error(NULL, "host.json: %s", strerror(errno));
	explicit_bzero(b.data, b.len);
}

static void
identity_set(struct control *c, const char *id, const char *token, const char *refresh)
{
	const char *old[] = { c->id, c->token, c->refresh };
	size_t i;

	c->id = talloc_strdup(c, id);
	c->token = talloc_strdup(c, token);
	c->refresh = talloc_strdup(c, refresh);
	for (i = 0; i < nitems(old); i++)
		talloc_free((void *)old[i]);
}

static void
identity_load(struct control *c)
{
	auto_talloc char *mem = talloc_new(NULL);
	char *text = talloc_size(mem, 4 * TOKEN_MAX);
	auto_fd fd = openat(c->agent->state_fd, "host.json", O_RDONLY | O_CLOEXEC);
	ssize_t n = fd < 0 ? -1 : read(fd, text, 4 * TOKEN_MAX);
	struct err e = { 0 };
	struct json_object *j = n < 0 ? NULL : json_parse(mem, text, n, NULL, &e);
	const char *token = registration_token(c, mem);
	char sum[65] = "";

	if (!j)
		return;
	/* a new registration token says: register anew */
	if (token)
		sha256_hex(token, sum);
	if (token && strcmp(sum, json_str(j, "registered_with", "")) != 0)
		return;
	identity_set(
	    c, json_str(j, "id", ""), json_str(j, "token", ""), json_str(j, "refresh_token", ""));
	c->cluster = talloc_strdup(c, json_str(j, "cluster", ""));
	c->distrusted = json_flag(j, "distrusted", false);
	c->refresh_at = json_int(j, "refresh_at", 0);
	snprintf(c->registered_with, sizeof c->registered_with, "%s",
	    json_str(j, "registered_with", ""));
}

/* What is sent. */

/* The request for a certificate, where other machines reach us. */
static void
request_json(struct control *c, struct exchange *x, struct buf *b)
{
	const char *csr = certs_request(c->agent, x);

	if (!csr)
		return;
	buf_str(b, ",\"csr\":");
	buf_json(b, csr);
}

static const char *
register_body(struct control *c, struct exchange *x)
{
	struct agent *a = c->agent;
	struct buf b = BUF(x);
	struct host h = { 0 };
	struct utsname u;
	struct err e = { 0 };
	const char *token = registration_token(c, x);

	if (!token)
		return NULL;
	sha256_hex(token, c->registered_with);
	(void)uname(&u);
	(void)host_facts(a, &h, &e);
	buf_str(&b, "{\"token\":");
	buf_json(&b, token);
	buf_str(&b, ",\"name\":");
	buf_json(&b, *a->conf->agent_name ? a->conf->agent_name : u.nodename);
	buf_str(&b, ",\"address\":");
	buf_json(&b, certs_address(a, x));
	buf_str(&b, ",\"arch\":");
	buf_json(&b, u.machine);
	buf_fmt(&b,
	    ",\"cpu_cores\":%d,\"memory_mb\":%llu,\"disk_gb\":%llu,\"accel\":\"%s\","
	    "\"agent_version\":\"%s\",\"templates\":[",
	    a->cores, (unsigned long long)h.memory_mb, (unsigned long long)h.disk_mb / 1024,
	    accel_name(a->accel), PACKAGE_VERSION);
	template_names(a, &b);
	buf_str(&b, "],\"cpu_classes\":[");
	buf_json(&b, host_cpu_class(a));
	buf_chr(&b, ']');
	request_json(c, x, &b);
	buf_chr(&b, '}');
	return b.data;
}

/* Changes when any capsule's epoch or state does, whatever their order. */
static uint64_t
inventory_hash(const struct agent *a)
{
	const struct capsule *c;
	uint64_t sum = 0, h;
	char text[128];
	const char *p;

	TAILQ_FOREACH(c, &a->capsules, link)
	{
		if (c->state == CAP_GONE || c->state == CAP_NEW)
			continue;
		snprintf(text, sizeof text, "%s %lld %s", c->id, (long long)c->epoch,
		    capsule_state_name(c->state));
		h = 14695981039346656037u;
		for (p = text; *p; p++)
			h = (h ^ (unsigned char)*p) * 1099511628211u;
		sum += h;
	}
	return sum;
}

/* Templates that are here, and those whose memory is ready. */
static void
holds_json(struct agent *a, struct buf *b)
{
	const struct image *i;
	size_t before = b->len;

	template_names(a, b);
	TAILQ_FOREACH(i, &a->images, link)
	{
		if (i->state != IMG_READY || !i->t) /* pulled: of a capsule, not of a template */
			continue;
		buf_str(b, b->len > before ? "," : "");
		buf_fmt(b, "\"warm:%s\"", i->t->name);
	}
}

static const char *
heartbeat_body(struct control *c, struct exchange *x)
{
	struct agent *a = c->agent;
	struct buf b = BUF(x);
	struct host h = { 0 };
	struct err e = { 0 };
	size_t counts[CAP_GONE + 1] = { 0 }, i;
	const struct capsule *k;
	const char *comma = "";

	(void)host_facts(a, &h, &e);
	TAILQ_FOREACH(k, &a->capsules, link)
	counts[k->state]++;
	buf_fmt(&b,
	    "{\"seq\":%lld,\"boot_id\":\"%s\",\"agent_version\":\"%s\",\"load\":%.2f,"
	    "\"free_memory_mb\":%llu,\"free_disk_mb\":%llu,\"counts\":{",
	    (long long)++c->seq, a->boot_id, PACKAGE_VERSION, h.load,
	    (unsigned long long)h.free_memory_mb, (unsigned long long)h.free_disk_mb);
	for (i = CAP_STARTING; i < CAP_GONE; i++) {
		buf_fmt(&b, "%s\"%s\":%zu", comma, capsule_state_name(i), counts[i]);
		comma = ",";
	}
	buf_fmt(&b, "},\"inventory_hash\":\"%016llx\",\"conditions\":[",
	    (unsigned long long)inventory_hash(a));
	host_conditions(a, &b);
	buf_str(&b, "],\"holds\":[");
	holds_json(a, &b);
	buf_str(&b, "]}");
	return b.data;
}

static const char *
reports_body(struct control *c, struct exchange *x)
{
	struct buf b = BUF(x), list = BUF(x);

	x->last = reports_batch(c->reports, BATCH, &list);
	buf_fmt(&b, "{\"sequence\":%lld,\"changes\":[", (long long)x->last);
	buf_add(&b, list.data, list.len);
	buf_chr(&b, ']');
	if (metrics_waiting()) {
		buf_str(&b, ",\"metrics\":[");
		x->metrics = metrics_rows(METRICS_BATCH, &b);
		buf_chr(&b, ']');
	}
	buf_chr(&b, '}');
	return b.data;
}

static const char *
refresh_body(struct control *c, struct exchange *x)
{
	struct buf b = BUF(x);

	buf_str(&b, "{\"refresh_token\":");
	buf_json(&b, c->refresh);
	request_json(c, x, &b);
	buf_chr(&b, '}');
	return b.data;
}

/* Credentials: the host is trusted as long as they are taken (spec 02 §5.2). */

static void
woken(void *arg, struct capsule *k, const struct err *e)
{
	(void)arg;
	if (e)
		log_warn(
		    NULL, "credentials are good again: a capsule was not resumed: %s", e->text);
	else
		log_info(NULL, "credentials are good again: %s runs", k->id);
}

/* Good again: what the refusal paused runs on. */
static void
resume_ours(struct control *c, struct capsule *k)
{
	if (k->state == CAP_PAUSED && strcmp(k->paused_by, "host") == 0)
		capsule_resume(c->agent, k->id, k->epoch, c, woken, c);
}

static void
slept(void *arg, struct capsule *k, const struct err *e)
{
	struct control *c = arg;

	if (e) {
		log_warn(NULL, "credentials refused: a capsule was not paused: %s", e->text);
		return;
	}
	log_info(NULL, "credentials refused: %s is paused", k->id);
	if (!c->distrusted)
		resume_ours(c, k); /* they became good while it stopped */
}

/* Refused: everything is paused and kept. Again with each refusal: what has started since. */
static void
distrusted(struct control *c)
{
	struct capsule *k;

	if (!c->distrusted)
		log_error(NULL, "the control plane refuses this host: all capsules are paused");
	c->distrusted = true;
	identity_save(c);
	TAILQ_FOREACH(k, &c->agent->capsules, link)
	if (k->state == CAP_RUNNING)
		capsule_pause(c->agent, k->id, k->epoch, "host", c, slept, c);
}

static void
trusted(struct control *c)
{
	struct capsule *k;

	if (!c->distrusted)
		return;
	c->distrusted = false;
	TAILQ_FOREACH(k, &c->agent->capsules, link)
	resume_ours(c, k);
}

/* What the answers change. */

static void
identity_answer(struct control *c, struct exchange *x, struct json_object *j)
{
	const char *token = json_str(j, "token", ""), *refresh = json_str(j, "refresh_token", "");
	const char *id = json_str(json_get(j, "host"), "id", c->id ? c->id : "");

	if (!*id || !*token || !*refresh) {
		log_error(NULL, "%s: the answer has no id or no tokens", calls[x->kind].name);
		c->when[x->kind].due = now_mono() + RETRY_MAX_MS;
		return;
	}
	identity_set(c, id, token, refresh);
	c->refresh_at = half_life(token);
	c->cluster = talloc_strdup(c, json_str(j, "cluster_id", c->cluster ? c->cluster : ""));
	certs_take(c->agent, json_str(j, "cert_pem", ""), json_str(j, "ca_cert_pem", ""));
	trusted(c);
	identity_save(c);
	log_info(NULL, "%s: host %s", calls[x->kind].name, c->id);
	c->when[HEARTBEAT].due = c->when[REPORTS].due = 0;
}

static void
heartbeat_answer(struct control *c, struct exchange *x, struct json_object *j)
{
	(void)x;
	(void)j;
	c->when[HEARTBEAT].due = now_mono() + c->agent->conf->host_heartbeat_sec * 1000;
}

static void
reports_answer(struct control *c, struct exchange *x, struct json_object *j)
{
	int64_t acked = json_int(j, "acked", x->last);

	reports_sent(c->reports, acked);
	metrics_sent(x->metrics);
}

/* The turn of a call. */

static int64_t
jitter(int fails)
{
	int64_t ms = (int64_t)RETRY_MIN_MS << (fails < 5 ? fails : 5);
	uint32_t r = 0;

	(void)!getrandom(&r, sizeof r, 0);
	if (ms > RETRY_MAX_MS)
		ms = RETRY_MAX_MS;
	return ms / 2 + ms / 2 * (r % 1000) / 1000 + 1;
}

/* An answer that is no success: capsules run on, whatever it says. */
static void
refused(struct control *c, struct exchange *x)
{
	int status = x->result < 0 ? 0 : x->answer.status;
	int fails = c->when[x->kind].fails++;
	int64_t wait = jitter(fails);

	if (status == 401 || status == 403) {
		if (x->kind == REFRESH || x->kind == REGISTER)
			wait = c->agent->conf->agent_refused_retry_sec * 1000;
		if (x->kind == REFRESH)
			distrusted(c);
		else
			c->refresh_at = 0; /* at once */
	}
	c->when[x->kind].due = now_mono() + wait;
	if ((fails & (fails - 1)) == 0) /* the 1st, 2nd, 3rd, 5th, 9th… time */
		log_warn(NULL, "control plane: %s: %s", calls[x->kind].name,
		    x->result < 0
			? x->err.text
			: talloc_asprintf(x, "answered %d %.120s", status, x->answer.body));
}

static void control_turn(struct control *);

static void
exchange_run(void *arg)
{
	struct exchange *x = arg;

	x->result = http_send(x, &x->call, &x->answer, &x->err);
}

static void
exchange_done(void *arg)
{
	struct exchange *x = arg;
	struct control *c = x->control;
	struct err e = { 0 };
	struct json_object *j = NULL;
	static const char nothing[] = "{}";

	c->busy = false;
	if (x->result == 0 && x->answer.status / 100 == 2 && !c->closed)
		j = x->answer.len ? json_parse(x, x->answer.body, x->answer.len, NULL, &e)
				  : json_parse(x, nothing, 2, NULL, &e);
	if (j) {
		c->when[x->kind].fails = 0;
		c->when[x->kind].due = 0;
		calls[x->kind].answer(c, x, j);
	} else if (!c->closed)
		refused(c, x);
	if (x->call.body)
		explicit_bzero((void *)x->call.body, x->call.body_len);
	talloc_free(x);
	control_turn(c);
}

static void
exchange_start(struct control *c, enum kind kind)
{
	const struct conf *conf = c->agent->conf;
	const struct kind_row *row = &calls[kind];
	struct exchange *x = talloc_zero(NULL, struct exchange);
	struct pair *headers = talloc_zero_array(x, struct pair, 3);
	const char *body = row->body(c, x);
	struct buf path = BUF(x);

	if (!body) {
		/* no registration token: looked for again later */
		c->when[kind].due = now_mono() + RETRY_MAX_MS;
		talloc_free(x);
		return;
	}
	headers[0] = (struct pair){ "Content-Type", "application/json" };
	if (row->authenticated)
		headers[1] = (struct pair){ "X-Host-Token", talloc_strdup(x, c->token) };
	if (row->authenticated)
		buf_fmt(&path, "/v1/hosts/%s/%s", c->id, row->path);
	else
		buf_str(&path, row->path);
	x->control = c;
	x->kind = kind;
	x->call = (struct http_call){ .method = "POST",
		.url = talloc_asprintf(x, "%s%s", conf->agent_control_url, path.data),
		.unix_socket = *conf->agent_control_socket ? conf->agent_control_socket : NULL,
		.headers = headers,
		.body = body,
		.body_len = strlen(body),
		.flags = HTTP_INTERNAL };
	c->busy = true;
	background(c->agent->loop, exchange_run, exchange_done, x);
}

/* What is due, most important first. */
static void
control_turn(struct control *c)
{
	int64_t now = now_mono();

	if (c->busy || c->closed || c->agent->stopping)
		return;
	if (!c->token) {
		if (now >= c->when[REGISTER].due)
			exchange_start(c, REGISTER);
	} else if (now_real() >= c->refresh_at && now >= c->when[REFRESH].due)
		exchange_start(c, REFRESH);
	else if ((reports_waiting(c->reports) || metrics_waiting()) && now >= c->when[REPORTS].due)
		exchange_start(c, REPORTS);
	else if (now >= c->when[HEARTBEAT].due)
		exchange_start(c, HEARTBEAT);
}

static void
on_tick(void *arg)
{
	control_turn(arg);
}

/* A report of the capsule's state, with a code and a sentence if there are. */
static void
report(struct control *c, const struct capsule *k, const char *code, const char *text)
{
	auto_talloc char *mem = talloc_new(NULL);
	struct buf b = BUF(mem);

	buf_fmt(&b, "{\"id\":\"%s\",\"epoch\":%lld,\"state\":\"%s\",\"at\":%lld", k->id,
	    (long long)k->epoch, capsule_state_name(k->state), (long long)k->since);
	if (code) {
		buf_fmt(&b, ",\"code\":\"%s\",\"message\":", code);
		buf_json(&b, text);
	}
	sleep_json(k, &b);
	if (k->exited_at) {
		buf_str(&b, ",\"exit\":");
		capsule_exit_json(k, &b);
	}
	buf_chr(&b, '}');
	reports_add(c->reports, b.data);
	control_turn(c);
}

void
control_changed(const struct capsule *k)
{
	struct control *c = k->agent->control;
	bool bad = k->state == CAP_ERROR;

	if (c)
		report(c, k, bad ? capsule_error_code(k) : NULL, bad ? k->why : NULL);
}

void
control_notice(const struct capsule *k, const char *code, const char *text)
{
	if (k->agent->control)
		report(k->agent->control, k, code, text);
}

int
control_start(struct agent *a, struct err *e)
{
	struct control *c;
	const struct capsule *k;

	if (!*a->conf->agent_control_url)
		return 0;
	if (strncmp(a->conf->agent_control_url, "http", 4) != 0)
		return err_set(e, E_CONFIG, "agent.control_url is not an http URL");
	c = talloc_zero(a, struct control);
	c->agent = a;
	c->reports = reports_open(c, a->state_fd);
	c->cluster = "";
	identity_load(c);
	a->control = c;
	(void)timer_new(c, a->loop, TICK_MS, TICK_MS, on_tick, c);
	TAILQ_FOREACH(k, &a->capsules, link)
	if (k->state != CAP_GONE)
		control_changed(k);
	control_turn(c);
	return 0;
}

bool
control_trusts(const struct agent *a)
{
	return !a->control || !a->control->distrusted;
}

size_t
control_waiting(const struct agent *a)
{
	return a->control ? reports_waiting(a->control->reports) : 0;
}

const char *
control_cluster(const struct agent *a)
{
	return a->control ? a->control->cluster : "";
}

bool
control_is_host(const struct agent *a, const char *id)
{
	return a->control && a->control->id && strcmp(a->control->id, id) == 0;
}

static void
removed(void *arg, struct capsule *k, const struct err *e)
{
	(void)arg;
	(void)k;
	if (e)
		log_warn(NULL, "decommission: %s", e->text);
}

void
control_decommission(struct agent *a)
{
	struct control *c = a->control;
	struct capsule *k;

	log_warn(NULL, "this host was deleted: capsules end, keys are wiped");
	TAILQ_FOREACH(k, &a->capsules, link)
	if (k->state != CAP_GONE && k->state != CAP_NEW)
		capsule_stop(a, k->id, k->epoch, a, removed, a);
	certs_wipe(a);
	scaling_forget(a);
	(void)unlinkat(a->state_fd, "host.json", 0);
	a->control = NULL;
	/* an exchange may be under way: c stays, and says nothing more */
	c->closed = true;
}
