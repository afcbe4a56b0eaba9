/* e2b_network.c - networks in the words of the E2B protocol, and in ours (spec 06 §8). */
#include "cidr.h"
#include "cleanup.h"
#include "e2b.h"
#include "json.h"

enum { ENTRIES = 256 };

static const char everything[] = "0.0.0.0/0";

const struct field e2b_network_fields[] = {
	FIELD(e2b_network, allow_out, "allowOut", .max = ENTRIES,
	    .doc = "Addresses, CIDRs, names, *.name; beats denyOut."),
	FIELD(e2b_network, deny_out, "denyOut", .max = ENTRIES, .doc = "Addresses and CIDRs."),
	FIELD(e2b_network, public_traffic, "allowPublicTraffic", .dflt = 1,
	    .doc = "false: its ports want the traffic token."),
	FIELD(e2b_network, mask_host, "maskRequestHost", .min = 1, .max = 253,
	    .doc = "The Host that its services see; ${PORT} is replaced."),
	FIELD(e2b_network, https_ports, "httpsPorts", .format = "json",
	    .doc = "A list of ports that speak TLS."),
	FIELD(e2b_network, rules, "rules", .format = "json", .doc = "None but an empty object."),
	FIELD(e2b_network, egress_proxy, "egressProxy", .format = "json",
	    .doc = "Not supported here."),
	{ 0 },
};
const struct field e2b_network_update_fields[] = {
	SANDBOX_ID(e2b_network_update),
	FIELD(e2b_network_update, internet, "allow_internet_access", .dflt = 1),
	FIELD(e2b_network_update, allow_out, "allowOut", .max = ENTRIES),
	FIELD(e2b_network_update, deny_out, "denyOut", .max = ENTRIES),
	FIELD(e2b_network_update, rules, "rules", .format = "json"),
	FIELD(e2b_network_update, egress_proxy, "egressProxy", .format = "json"),
	{ 0 },
};

/* Is the JSON text of something nothing? */
static bool
nothing(const char *json)
{
	return !json || strcmp(json, "null") == 0 || strcmp(json, "{}") == 0 ||
	    strcmp(json, "[]") == 0;
}

static bool
is_network(const char *text)
{
	size_t n = strcspn(text, "/");
	char address[64];
	struct in6_addr ip;

	if (n >= sizeof address)
		return false;
	memcpy(address, text, n);
	address[n] = '\0';
	return cidr_address(address, &ip);
}

struct network *
e2b_network_of(struct request *r, bool internet, const char *const *allow_out,
    const char *const *deny_out, const char *rules, const char *egress_proxy)
{
	struct network *n = talloc_zero(r, struct network);
	const char *const *p;

	/* an option of security is never ignored in silence */
	if (!nothing(rules)) {
		fail(r, E_UNSUPPORTED, "\"rules\" of networks are not supported here");
		return NULL;
	}
	if (!nothing(egress_proxy)) {
		fail(r, E_UNSUPPORTED, "\"egressProxy\" is not supported here");
		return NULL;
	}
	*n = (struct network){ .internet = internet, .allow = allow_out, .deny = deny_out };
	for (p = deny_out; p && *p; p++) {
		if (!is_network(*p)) {
			fail(r, E_BAD_INPUT, "\"denyOut\": %.60s is no address or CIDR", *p);
			return NULL;
		}
		if (strcmp(*p, everything) == 0)
			n->internet = false;
	}
	return n;
}

const char *
e2b_ingress(struct request *r, const struct e2b_network *n)
{
	struct json_object *list = NULL, *port;
	struct buf b = BUF(r);
	size_t i, count = 0;

	buf_chr(&b, '{');
	if (n && n->mask_host) {
		buf_str(&b, "\"mask_host\":");
		buf_json(&b, n->mask_host);
	}
	if (n && !nothing(n->https_ports)) {
		list = json_parse(r, n->https_ports, strlen(n->https_ports), NULL, &r->work.err);
		if (!list)
			return NULL;
		count = json_object_is_type(list, json_type_array) ? json_object_array_length(list)
								   : ENTRIES + 1;
		if (count > ENTRIES) {
			fail(r, E_BAD_INPUT, "\"httpsPorts\" is no list of ports");
			return NULL;
		}
		buf_fmt(&b, "%s\"https_ports\":[", n->mask_host ? "," : "");
	}
	for (i = 0; i < count; i++) {
		int64_t number;

		port = json_object_array_get_idx(list, i);
		number = json_object_is_type(port, json_type_int) ? json_object_get_int64(port) : 0;
		if (number < 1 || number > 65535 || number == E2B_PORT_GUEST) {
			fail(r, E_BAD_INPUT,
			    "\"httpsPorts\" has an entry that is no port from 1 to 65535 but %d",
			    E2B_PORT_GUEST);
			return NULL;
		}
		buf_fmt(&b, "%s%d", i ? "," : "", (int)number);
	}
	buf_str(&b, list ? "]}" : "}");
	return b.data;
}

static void
copy(struct buf *b, struct json_object *from, const char *ours, const char *theirs)
{
	struct json_object *v = json_get(from, ours);

	if (v)
		buf_fmt(b, ",\"%s\":%s", theirs,
		    json_object_to_json_string_ext(v, JSON_C_TO_STRING_PLAIN));
}

void
e2b_network_write(struct buf *b, const struct q_sandbox *s)
{
	static const struct json_limits large = { .depth = 8, .keys = 10000 };
	struct err e = { 0 };
	struct json_object *out = json_parse(b->mem, s->network, strlen(s->network), &large, &e);
	struct json_object *in = json_parse(b->mem, s->ingress, strlen(s->ingress), &large, &e);

	buf_fmt(b, "{\"allowPublicTraffic\":%s", s->public_traffic ? "true" : "false");
	if (out) {
		copy(b, out, "allow", "allowOut");
		copy(b, out, "deny", "denyOut");
	}
	if (in) {
		copy(b, in, "mask_host", "maskRequestHost");
		copy(b, in, "https_ports", "httpsPorts");
	}
	buf_chr(b, '}');
}
