/* port.c - see port.h. */
#include "port.h"

#include "gateway.h"
#include "guest_pass.h"
#include "port_creds.h"
#include "port_page.h"
#include "port_pass.h"
#include "route.h"
#include "signed.h"

#include <string.h>

/* Host name beats headers: a page inside a capsule cannot reach another one by adding a header. */
static bool
find(struct request *r, struct port_place *at)
{
	const char *id = request_header(r, "E2b-Sandbox-Id");

	if (port_host_read(request_header(r, "Host"), r->gw->conf->proxy_domain, at))
		return true;
	if (!id)
		return false;
	port_headers_read(id, request_header(r, "E2b-Sandbox-Port"), at);
	return true;
}

bool
port_request(struct request *r)
{
	struct port_place at;

	if (!find(r, &at)) {
		if (!is_signed_url(r))
			return false;
		signed_request(r);
		return true;
	}
	if (at.bare && at.port == GUEST_PORT)
		guest_pass(r, &at);
	else if (!at.port)
		page_reply(r, &at, PAGE_NOT_FOUND);
	else if (at.by_host && strcmp(r->path, "/.hutch/auth") == 0)
		port_login(r, &at);
	else
		port_pass(r, &at);
	return true;
}
