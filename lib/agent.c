/* agent.c - see agent.h. */
#include "agent.h"
#include "ca.h"
#include "cleanup.h"
#include "hosts.q.h"
#include "http.h"

#include <inttypes.h>
#include <string.h>

static const struct {
	const char *slug;
	enum err_code code;
} told[] = {
	{ "stale_epoch", E_STALE_EPOCH },
	{ "not_found", E_NOT_FOUND },
	{ "overloaded", E_OVERLOADED },
	{ "out_of_space", E_NO_SPACE },
	{ "invalid_state", E_BAD_STATE },
	{ "conflict", E_CONFLICT },
};

static int
refused(struct work *w, const struct agent_call *c, const struct http_answer *a)
{
	struct err ignored = { 0 };
	struct json_object *o = json_parse(w, a->body, a->len, NULL, &ignored);
	struct json_object *e = o ? json_get(o, "error") : NULL;
	const char *slug = json_str(e, "code", ""),
		   *message = json_str(e, "message", "no reason given");
	size_t i;

	for (i = 0; i < nitems(told); i++)
		if (strcmp(slug, told[i].slug) == 0)
			return err_set(&w->err, told[i].code, "%s", message);
	return err_set(
	    &w->err, E_AGENT, "%s %s: %d %s: %s", c->method, c->path, a->status, slug, message);
}

static const struct keys *our_keys;

void
agent_keys(const struct keys *k)
{
	our_keys = k;
}

/* https://host:port: with certificates, and only to the one that the host's row names. The row is
   read at each connection: what was replaced is refused at once. */
static int
secure(struct work *w, const struct agent_call *c, struct http_call *call)
{
	const char *address = c->address;
	struct q_host_dial *row;
	struct dial d;

	if (!strchr(address, '#')) {
		if (q_host_dial_by_address(w->db, &row, .address = address) <= 0)
			return w->err.code ? -1
					   : err_set(&w->err, E_HOST_UNAVAILABLE,
						 "no host is registered at %s", address);
		address = row->dial;
	}
	if (!our_keys || dial_read(w, address, &d) < 0)
		return err_set(&w->err, E_HOST_UNAVAILABLE,
		    "the host's address %s is not understood", c->address);
	call->tls = tls_client(w, ca_self(our_keys, TLS_CONTROL), d.host, d.fingerprints, &w->err);
	if (!call->tls)
		return -1;
	call->flags = HTTP_INTERNAL;
	call->url = talloc_asprintf(w,
	    strchr(d.host, ':') ? "https://[%s]:%s/agent/v1%s" : "https://%s:%s/agent/v1%s", d.host,
	    d.port, c->path);
	return 0;
}

/* The call over HTTP, with what it points to on w. */
static int
ready(struct work *w, const struct agent_call *c, struct http_call *call)
{
	struct pair *headers = talloc_zero_array(w, struct pair, 8);
	int n = 1;

	headers[0] = (struct pair){ "content-type", "application/json" };
	*call = (struct http_call){ .method = c->method,
		.url = talloc_asprintf(w, "http://agent/agent/v1%s", c->path),
		.headers = headers,
		.body = c->body,
		.body_len = c->body ? strlen(c->body) : 0,
		.flags = HTTP_INTERNAL | HTTP_H2,
		.connect_ms = 2000,
		.total_ms = c->total_ms,
		.answer_max = 8 << 20 };
	if (!c->address)
		return err_set(&w->err, E_HOST_UNAVAILABLE, "it is on no host");
	if (strncmp(c->address, "unix:", 5) == 0)
		call->unix_socket = c->address + 5;
	else if (secure(w, c, call) < 0)
		return -1;
	if (c->epoch)
		headers[n++] =
		    (struct pair){ "hutch-epoch", talloc_asprintf(w, "%" PRId64, c->epoch) };
	if (c->op)
		headers[n++] = (struct pair){ "hutch-op", c->op };
	if (w->id)
		headers[n++] = (struct pair){ "x-request-id", w->id };
	if (c->token)
		headers[n++] = (struct pair){ "x-access-token", c->token };
	if (c->activity)
		headers[n++] = (struct pair){ "hutch-activity", c->activity };
	return 0;
}

/* What the agent said; e: it said nothing. */
static int
heard(struct work *w, const struct agent_call *c, const struct http_answer *a, const struct err *e,
    struct json_object **ret)
{
	if (e) {
		w->err = *e;
		if (w->err.code != E_TIMEOUT)
			w->err.code = E_HOST_UNAVAILABLE;
		return -1;
	}
	if (a->status < 200 || a->status > 299)
		return refused(w, c, a);
	if (!a->len)
		return 0;
	*ret = json_parse(w, a->body, a->len, &(struct json_limits){ .keys = 1000000 }, &w->err);
	return *ret ? 0 : -1;
}

int
agent_send(struct work *w, const struct agent_call *c, struct json_object **ret)
{
	struct http_call call;
	struct http_answer a;
	struct err e = { 0 };

	*ret = NULL;
	if (ready(w, c, &call) < 0)
		return -1;
	return http_send(w, &call, &a, &e) < 0 ? heard(w, c, NULL, &e, ret)
					       : heard(w, c, &a, NULL, ret);
}

struct sent_all {
	struct work *w;
	const struct agent_call *calls;
	const size_t *which; /* of the calls that were made */
	void (*done)(void *, size_t, struct json_object *);
	void *arg;
};

static void
one_done(void *arg, size_t i, const struct http_answer *a, const struct err *e)
{
	struct sent_all *all = arg;
	struct json_object *answer = NULL;
	size_t k = all->which[i];

	if (heard(all->w, &all->calls[k], a, e, &answer) == 0 && !answer)
		(void)err_set(&all->w->err, E_AGENT, "the answer is empty");
	all->done(all->arg, k, all->w->err.code == E_OK ? answer : NULL);
}

void
agent_send_all(struct work *w, const struct agent_call *calls, size_t n,
    void (*done)(void *arg, size_t i, struct json_object *answer), void *arg)
{
	struct http_call *list = talloc_zero_array(w, struct http_call, n + 1);
	size_t *which = talloc_zero_array(w, size_t, n + 1), i, made = 0;
	struct sent_all all = { .w = w, .calls = calls, .which = which, .done = done, .arg = arg };

	for (i = 0; i < n; i++)
		if (ready(w, &calls[i], &list[made]) == 0)
			which[made++] = i;
		else
			done(arg, i, NULL);
	http_send_all(w, list, made, one_done, &all);
	talloc_free(list);
	talloc_free(which);
}
