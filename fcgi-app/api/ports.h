/* ports.h - ports that are declared: by themselves, and with a capsule that is made, copied or
 * changed. */
#pragma once
#include "api.h"

enum { CAPSULE_PORTS = 32 };

struct port_new {
	const struct uuid *id; /* of the path; in lists none */
	int32_t port;
	const char *visibility, *protocol, *label, *host_header;
};
/* clang-format off */
#define PORT_NEW_FIELDS													\
	FIELD(port_new, port, "port", .flags = NEEDED, .min = 1, .max = 65535),						\
	FIELD(port_new, visibility, "visibility", .text = "private", .one_of = "private|public"),			\
	FIELD(port_new, protocol, "protocol", .text = "http", .one_of = "http|https", .doc = "Towards the guest; a certificate is not looked at."), \
	FIELD(port_new, label, "label", .min = 1, .max = 64),								\
	FIELD(port_new, host_header, "host_header", .text = "keep", .min = 1, .max = 253,				\
	    .doc = "The Host that the service sees: keep, localhost, or a name; ${PORT} in it is the port.")
/* In the body of a capsule: struct list m. */
#define PORTS_FIELD(st, m) SUB(st, m, "ports", port_wish_fields, port_new, .flags = LIST, .max = CAPSULE_PORTS)
/* clang-format on */
extern const struct field port_wish_fields[];

/* Where it is reached. */
const char *port_url(struct request *, const struct uuid *capsule, int32_t port);
/* Checks a list, whose item may be NULL: absent. */
int ports_check(struct request *, const struct list *);
/* Declares them, with audit row and event each. */
int ports_declare(struct request *, const struct uuid *capsule, const struct list *);
/* They are all: what else was declared is taken back; what is as it was, is not told. */
int ports_replace(struct request *, const struct uuid *capsule, const struct list *);
