/*
 * ports.c - ports of a capsule: which were declared, which listen, who may reach them (spec 02
 * §2.8).
 *
 * The gateway serves them (gateway/port*.c) and reads these rows. Queries: sql/queries/ports.sql.
 * Tests: tests/http/ports.py.
 */
#include "agent.h"
#include "audit.h"
#include "capsules.h"
#include "cleanup.h"
#include "json.h"
#include "ports.h"
#include "ports.q.h"

#include <string.h>

static handler port_list, port_publish, port_close;

enum { GUEST_PORT = 49983, LISTEN_MS = 3000, PORTS_MAX = 1024 };

struct port {
	int32_t port;
	const char *url, *visibility, *protocol, *label, *host_header;
	bool listening;
};
struct by_port {
	const struct uuid *id;
	int32_t port;
};
/* clang-format off */
static const struct field port_fields[] = {
	FIELD(port, port, "port", .flags = NEEDED),
	FIELD(port, url, "url", .flags = NEEDED),
	FIELD(port, visibility, "visibility", .flags = NEEDED, .one_of = "private|public"),
	FIELD(port, protocol, "protocol", .flags = NEEDED, .one_of = "http|https"),
	FIELD(port, label, "label", .flags = OMIT),
	FIELD(port, host_header, "host_header", .flags = OMIT, .doc = "Of declared ports."),
	FIELD(port, listening, "listening", .flags = NEEDED, .doc = "Something in the capsule takes connections there."),
	{ 0 },
};
static const struct field port_new_fields[] = { PATH_ID(port_new, "cl-"), PORT_NEW_FIELDS, { 0 } };
const struct field port_wish_fields[] = { PORT_NEW_FIELDS, { 0 } };
static const struct field by_port_fields[] = {
	PATH_ID(by_port, "cl-"),
	FIELD(by_port, port, "port", .flags = NEEDED | IN_PATH, .min = 1, .max = 65535),
	{ 0 },
};

const struct route port_routes[] = {
	{ "GET", "/v1/capsules/{id}/ports", POOL_OPS, PERM_capsules_view, port_list, "Ports that were declared, and what listens", 0, 200, .in = by_capsule_fields, .insize = sizeof(struct by_capsule), OUT(port) },
	{ "POST", "/v1/capsules/{id}/ports", POOL_API, PERM_capsules_update, port_publish, "Declare a port: private, or public to everybody", CREATES, 201, IN(port_new), OUT(port) },
	{ "DELETE", "/v1/capsules/{id}/ports/{port}", POOL_API, PERM_capsules_update, port_close, "Take a declared port back; what is open ends", 0, 204, IN(by_port) },
	{ 0 },
};
/* clang-format on */

const char *
port_url(struct request *r, const struct uuid *capsule, int32_t port)
{
	const struct conf *c = r->app->conf;
	bool tls = strncmp(c->http_public_url, "https:", 6) == 0;

	return talloc_asprintf(r, "%s://%d-%s.%s/", tls ? "https" : "http", (int)port,
	    id_text(r, "cl-", capsule), c->proxy_domain);
}

/* What listens: one bit per port. A guest that does not answer listens nowhere. */
static bool *
listening(struct request *r, const struct uuid *capsule, const struct q_port_house *home)
{
	bool *on = talloc_zero_array(r, bool, 65536);
	struct agent_call call = { .address = home->address,
		.method = "GET",
		.path = talloc_asprintf(r, "/capsules/%s/guest/ports", id_text(r, "cl-", capsule)),
		.token = crypto_guest_token(r, r->app->keys, capsule, GUEST_TOKEN_EPOCH),
		.activity = "none",
		.total_ms = LISTEN_MS };
	struct json_object *answer = NULL, *list;

	if (!on)
		abort();
	if (strcmp(home->state, "running") != 0)
		return on;
	if (agent_send(&r->work, &call, &answer) < 0 || !answer) {
		r->work.err = (struct err){ 0 };
		return on;
	}
	list = json_get(answer, "ports");
	for (size_t i = 0; list && json_object_is_type(list, json_type_array) &&
	     i < json_object_array_length(list) && i < PORTS_MAX;
	     i++) {
		struct json_object *port = json_get(json_object_array_get_idx(list, i), "port");
		int64_t n = port ? json_object_get_int64(port) : 0;

		if (n > 0 && n < 65536 && n != GUEST_PORT)
			on[n] = true;
	}
	return on;
}

static int
port_list(struct request *r)
{
	const struct by_capsule *in = r->in;
	struct q_port_house *home;
	struct q_port_rule *rule;
	struct port *all;
	int n = q_port_home(r->work.db, &home, .capsule = in->id), rules, count = 0;
	bool *on;

	if (n <= 0)
		return reply_row(r, n, NULL);
	rules = q_port_list(r->work.db, &rule, .capsule = in->id);
	if (rules < 0)
		return -1;
	on = listening(r, in->id, home);
	all = talloc_zero_array(r, struct port, rules + PORTS_MAX);
	for (int i = 0; i < rules; i++) {
		all[count++] = (struct port){ .port = rule[i].port,
			.url = port_url(r, in->id, rule[i].port),
			.visibility = rule[i].visibility,
			.protocol = rule[i].protocol,
			.label = rule[i].label,
			.host_header = rule[i].host_header,
			.listening = on[rule[i].port] };
		on[rule[i].port] = false;
	}
	for (int p = 1; p < 65536; p++)
		if (on[p] && count < rules + PORTS_MAX)
			all[count++] = (struct port){ .port = p,
				.url = port_url(r, in->id, p),
				.visibility = home->public_traffic ? "public" : "private",
				.protocol = "http",
				.listening = true };
	return reply_rows(r, count, all, sizeof *all);
}

/* A name as Host takes it, and ${PORT}. */
static bool
good_host(const char *s)
{
	const char *mark = strstr(s, "${PORT}");
	static const char allowed[] =
	    "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-:";
	size_t n = strspn(s, allowed);

	return mark ? s + n == mark && strspn(mark + 7, allowed) == strlen(mark + 7) : !s[n];
}

static int
told(struct request *r, enum audit_kind kind, const struct uuid *id, int32_t port,
    const char *visibility)
{
	const char *data =
	    talloc_asprintf(r, "{\"port\":%d,\"visibility\":\"%s\"}", (int)port, visibility);

	return audit_add(&r->work, kind,
	    &(struct audit){ .team = r->who.team,
		.capsule = id,
		.resource_id = id_text(r, "cl-", id),
		.metadata = data,
		.data = data });
}

/* What is said of one that is declared, whoever asks. */
static int
check(struct request *r, const struct port_new *p)
{
	if (p->port == GUEST_PORT)
		return fail(r, E_BAD_INPUT, "port %d is the guest agent's", GUEST_PORT);
	if (!good_host(p->host_header))
		return fail(
		    r, E_BAD_INPUT, "\"host_header\" is neither keep, localhost nor a name");
	return 0;
}

static int
declare(struct request *r, const struct uuid *capsule, const struct port_new *p)
{
	return q_port_publish(r->work.db, .capsule = capsule, .port = p->port,
		   .visibility = p->visibility, .protocol = p->protocol, .label = p->label,
		   .host_header = p->host_header) < 0
	    ? -1
	    : told(r, AUDIT_PORT_PUBLISH, capsule, p->port, p->visibility);
}

/* 1: it was declared. */
static int
take_back(struct request *r, const struct uuid *capsule, int32_t port)
{
	struct q_port_rule *rule;
	int n = q_port_close(r->work.db, &rule, .capsule = capsule, .port = port);

	if (n > 0 && told(r, AUDIT_PORT_UNPUBLISH, capsule, port, rule->visibility) < 0)
		return -1;
	return n;
}

static const struct port_new *
among(const struct list *l, int32_t port)
{
	const struct port_new *p = l->item;

	for (size_t i = 0; i < l->n; i++)
		if (p[i].port == port)
			return &p[i];
	return NULL;
}

int
ports_check(struct request *r, const struct list *l)
{
	const struct port_new *p = l->item;

	for (size_t i = 0; i < l->n; i++) {
		if (check(r, &p[i]) < 0)
			return -1;
		if (among(l, p[i].port) != &p[i])
			return fail(r, E_BAD_INPUT, "\"ports\" has %d twice", (int)p[i].port);
	}
	return 0;
}

int
ports_declare(struct request *r, const struct uuid *capsule, const struct list *l)
{
	const struct port_new *p = l->item;

	for (size_t i = 0; i < l->n; i++)
		if (declare(r, capsule, &p[i]) < 0)
			return -1;
	return 0;
}

static bool
same(const struct port_new *p, const struct q_port_rule *old)
{
	return strcmp(p->visibility, old->visibility) == 0 &&
	    strcmp(p->protocol, old->protocol) == 0 &&
	    strcmp(p->host_header, old->host_header) == 0 &&
	    strcmp(p->label ? p->label : "", old->label ? old->label : "") == 0;
}

int
ports_replace(struct request *r, const struct uuid *capsule, const struct list *l)
{
	const struct port_new *p = l->item;
	struct q_port_rule *old;
	int n = q_port_list(r->work.db, &old, .capsule = capsule);

	if (n < 0)
		return -1;
	for (int i = 0; i < n; i++)
		if (!among(l, old[i].port) && take_back(r, capsule, old[i].port) < 0)
			return -1;
	for (size_t i = 0; i < l->n; i++) {
		int k = 0;

		while (k < n && old[k].port != p[i].port)
			k++;
		if ((k == n || !same(&p[i], &old[k])) && declare(r, capsule, &p[i]) < 0)
			return -1;
	}
	return 0;
}

static int
port_publish(struct request *r)
{
	const struct port_new *in = r->in;
	struct q_capsule *c;
	struct port p = { .port = in->port,
		.url = port_url(r, in->id, in->port),
		.visibility = in->visibility,
		.protocol = in->protocol,
		.label = in->label,
		.host_header = in->host_header };
	int n;

	if (check(r, in) < 0)
		return -1;
	n = capsule_own(r, in->id, "you may open ports of your own capsules only", &c);
	if (n <= 0)
		return reply_row(r, n, NULL);
	if (strcmp(c->state, "stopped") == 0 || strcmp(c->state, "stopping") == 0)
		return fail(r, E_BAD_STATE, "the capsule is %s", c->state);
	return declare(r, in->id, in) < 0 ? -1 : reply_row(r, 1, &p);
}

static int
port_close(struct request *r)
{
	const struct by_port *in = r->in;
	struct q_capsule *c;
	int n = capsule_own(r, in->id, "you may close ports of your own capsules only", &c);

	if (n <= 0)
		return reply_row(r, n, NULL);
	n = take_back(r, in->id, in->port);
	return n < 0 ? -1 : reply_done(r, n);
}
