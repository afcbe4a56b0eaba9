/* api_host.c - see api_host.h. The rows are in api.c; an operator reads them at /v1/hosts/{id}/….
 */
#include "api_host.h"
#include "load.h"
#include "own_log.h"

#include <stdlib.h>

enum { TAIL = 200, TAIL_MAX = 10000 };

void
host_metrics(struct call *c)
{
	const char *tier = api_query(c, "tier");
	struct buf b = BUF(c);

	if (load_json(c->agent, tier ? tier : "10m", &b) < 0)
		api_fail(c, E_BAD_INPUT, "\"tier\" is not 10m, 2h or 24h");
	else
		api_reply(c->stream, 200, &b);
}

void
host_logs(struct call *c)
{
	const char *text = api_query(c, "tail");
	char *end = NULL;
	long n = text ? strtol(text, &end, 10) : TAIL;
	struct buf b = BUF(c);

	if (text && (*end || n < 1 || n > TAIL_MAX)) {
		api_fail(c, E_BAD_INPUT, "\"tail\" is not between 1 and 10000");
		return;
	}
	buf_str(&b, "{\"lines\":[");
	own_log_tail(c->agent, (int)n, &b);
	buf_str(&b, "]}");
	api_reply(c->stream, 200, &b);
}
