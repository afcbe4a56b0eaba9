/*
 * api_watch.c - calls that look at a capsule, and those of its idle timer: metrics, logs, touch.
 *
 * The rows are in api.c. What is changed by PATCH is in the journal before it is answered.
 */
#include "api_watch.h"
#include "idle.h"
#include "logs.h"
#include "metrics.h"

#include <stdlib.h>
#include <string.h>

enum { TAIL = 200, TAIL_MAX = 10000 };

void
watch_touch(struct call *c)
{
	struct capsule *k = api_capsule(c);
	const char *signal = "api";
	struct json_object *j = NULL;
	unsigned bit;

	if (!k)
		return;
	if (c->body.len && !(j = api_body(c, c))) {
		api_error(c->stream, &c->err);
		return;
	}
	if (j)
		signal = json_str(j, "signal", signal);
	bit = idle_signal(signal);
	if (!bit || bit == IDLE_PROCESS || bit == IDLE_CPU)
		api_fail(c, E_BAD_INPUT, "\"signal\" is not api, exec, input or port");
	else if (k->state != CAP_RUNNING)
		api_fail(c, E_BAD_STATE, capsule_state_name(k->state));
	else {
		idle_touch(k, bit);
		api_reply(c->stream, 204, &(struct buf){ 0 });
	}
}

/* A whole number of the query between 0 and most; -1: it is none. */
static int64_t
query_number(struct call *c, const char *name, int64_t absent, int64_t most)
{
	const char *text = api_query(c, name);
	char *end;
	long long n;

	if (!text)
		return absent;
	n = strtoll(text, &end, 10);
	return *text >= '0' && *text <= '9' && !*end && n <= most ? n : -1;
}

void
watch_metrics(struct call *c)
{
	struct capsule *k = api_capsule(c);
	const char *tier = api_query(c, "tier");
	int64_t since = query_number(c, "since", 0, INT64_MAX);
	struct buf b = BUF(c);

	if (!k)
		return;
	if (since < 0)
		api_fail(c, E_BAD_INPUT, "\"since\" is no number");
	else if (metrics_json(k, tier ? tier : "10m", since, &b) < 0)
		api_fail(c, E_BAD_INPUT, "\"tier\" is not 10m, 2h or 24h");
	else
		api_reply(c->stream, 200, &b);
}

/* Text, with the place behind it in hutch-next: a follower asks again with from=. */
void
watch_logs(struct call *c)
{
	struct capsule *k = api_capsule(c);
	const char *name = api_query(c, "source");
	int source = logs_source(name ? name : "serial");
	int64_t tail = query_number(c, "tail", TAIL, TAIL_MAX), next;
	int64_t from = api_query(c, "from") ? query_number(c, "from", 0, INT64_MAX) : -1;
	struct buf b = BUF(c);
	char place[24];
	struct h2_header head[] = { { "content-type", "text/plain; charset=utf-8" },
		{ "hutch-next", place }, { 0 } };

	if (!k)
		return;
	if (source < 0)
		api_fail(c, E_BAD_INPUT, "\"source\" is not serial, boot or agent");
	else if (tail < 0 || (api_query(c, "from") && from < 0))
		api_fail(c, E_BAD_INPUT, "\"tail\" or \"from\" is no number in its range");
	else {
		next = logs_read(k, (enum log_source)source, (int)tail, from, &b);
		snprintf(place, sizeof place, "%lld", next < 0 ? 0LL : (long long)next);
		h2_respond(c->stream, 200, head, b.len == 0);
		if (b.len) {
			h2_write(c->stream, b.data, b.len);
			h2_finish(c->stream);
		}
	}
}
