/* ports.c - GET /ports: where something listens in this machine, as the kernel's tables say. */
#include "cleanup.h"
#include "handlers.h"

#include <arpa/inet.h>
#include <stdlib.h>
#include <string.h>

enum { LISTENING = 0x0A, PORTS_MAX = 1024 };

struct port {
	unsigned number;
	int family;
	char address[INET6_ADDRSTRLEN];
};

/* The tables show addresses as words in the order of the machine. */
static int
line_read(const char *line, struct port *p)
{
	unsigned char raw[16];
	char hex[33];
	unsigned state = 0;
	size_t words;

	if (sscanf(line, " %*u: %32[0-9A-Fa-f]:%x %*[0-9A-Fa-f:] %x", hex, &p->number, &state) !=
		3 ||
	    state != LISTENING || (strlen(hex) != 8 && strlen(hex) != 32))
		return -1;
	words = strlen(hex) / 8;
	p->family = words == 1 ? 4 : 6;
	for (size_t i = 0; i < words; i++) {
		char word[9] = "";
		uint32_t n;

		memcpy(word, hex + 8 * i, 8);
		n = (uint32_t)strtoul(word, NULL, 16);
		memcpy(raw + 4 * i, &n, 4);
	}
	return inet_ntop(words == 1 ? AF_INET : AF_INET6, raw, p->address, sizeof p->address) ? 0
											      : -1;
}

static size_t
table_read(const char *path, struct port *list, size_t n)
{
	auto_file *f = fopen(path, "re");
	char line[256];

	while (f && n < PORTS_MAX && fgets(line, sizeof line, f)) {
		size_t i = 0;

		if (line_read(line, &list[n]) < 0)
			continue;
		/* with SO_REUSEPORT several sockets have the same one */
		while (i < n &&
		    (list[i].number != list[n].number ||
			strcmp(list[i].address, list[n].address) != 0))
			i++;
		n += i == n;
	}
	return n;
}

static int
by_number(const void *a, const void *b)
{
	const struct port *x = a, *y = b;

	return x->number != y->number ? (x->number > y->number) - (x->number < y->number)
				      : strcmp(x->address, y->address);
}

void
ports_get(struct call *c)
{
	struct port *list = talloc_array(c, struct port, PORTS_MAX);
	struct buf b = BUF(c);
	size_t n;

	if (!list)
		abort();
	n = table_read("/proc/net/tcp", list, 0);
	n = table_read("/proc/net/tcp6", list, n);
	qsort(list, n, sizeof *list, by_number);
	buf_str(&b, "{\"ports\":[");
	for (size_t i = 0; i < n; i++)
		buf_fmt(&b, "%s{\"port\":%u,\"address\":\"%s\",\"family\":%d}", i ? "," : "",
		    list[i].number, list[i].address, list[i].family);
	buf_str(&b, "]}");
	call_reply_json(c, &b);
}
