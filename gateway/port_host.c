/* port_host.c - see port_host.h. */
#include "port_host.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

enum { PORT_DIGITS = 5, PORT_MAX = 65535 };

static void
set(struct port_place *p, const char *port, size_t digits, const char *id)
{
	char text[PORT_DIGITS + 1];
	unsigned long n;

	snprintf(text, sizeof text, "%.*s", (int)digits, port);
	n = strtoul(text, NULL, 10);
	snprintf(p->id, sizeof p->id, "cl-%.*s", ID_DIGITS, id);
	p->port = n <= PORT_MAX && id_read(p->id, "cl-", &p->capsule) ? (unsigned)n : 0;
}

/* Of the 25 characters; less than that many: some are no part of an id. */
static size_t
id_span(const char *s)
{
	size_t n = 0;

	while (n < ID_DIGITS && (isdigit((unsigned char)s[n]) || (s[n] >= 'a' && s[n] <= 'z')))
		n++;
	return n;
}

bool
port_host_read(const char *host, const char *domain, struct port_place *p)
{
	size_t digits = host ? strspn(host, "0123456789") : 0, n = strcspn(domain, ":");
	const char *id, *rest;

	*p = (struct port_place){ .by_host = true };
	if (digits < 1 || digits > PORT_DIGITS || host[digits] != '-')
		return false;
	id = host + digits + 1;
	p->bare = strncmp(id, "cl-", 3) != 0;
	if (!p->bare)
		id += 3;
	if (id_span(id) != ID_DIGITS || id[ID_DIGITS] != '.')
		return false;
	rest = id + ID_DIGITS + 1;
	if (strcspn(rest, ":") != n || strncasecmp(rest, domain, n) != 0)
		return false;
	set(p, host, digits, id);
	return true;
}

void
port_headers_read(const char *id, const char *port, struct port_place *p)
{
	size_t digits = port ? strspn(port, "0123456789") : 0;

	*p = (struct port_place){ .bare = true };
	snprintf(p->id, sizeof p->id, "cl-%.*s", ID_DIGITS, id);
	if (id_span(id) != ID_DIGITS || id[ID_DIGITS])
		return;
	if (!port)
		set(p, "49983", PORT_DIGITS, id);
	else if (digits >= 1 && digits <= PORT_DIGITS && !port[digits])
		set(p, port, digits, id);
}
