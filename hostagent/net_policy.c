/* net_policy.c - see net_policy.h. */
#include "net_policy.h"
#include "cleanup.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#define P(a, b, c, d, bits)                                            \
	{                                                              \
		(uint32_t)(a) << 24 | (b) << 16 | (c) << 8 | (d), bits \
	}

const struct net_prefix net_nevers[] = {
	/* clang-format off */
	P(0, 0, 0, 0, 8),	P(10, 0, 0, 0, 8),	P(100, 64, 0, 0, 10),	P(127, 0, 0, 0, 8),
	P(169, 254, 0, 0, 16),	P(172, 16, 0, 0, 12),	P(192, 0, 0, 0, 24),	P(192, 168, 0, 0, 16),
	P(198, 18, 0, 0, 15),	P(224, 0, 0, 0, 4),	P(240, 0, 0, 0, 4),
	/* clang-format on */
};
const uint32_t net_nevers_count = nitems(net_nevers);

static uint32_t
mask(uint32_t bits)
{
	return bits ? ~0U << (32 - bits) : 0;
}

static bool
within(const struct net_prefix *p, uint32_t n, uint32_t addr)
{
	for (; n; n--, p++)
		if ((addr & mask(p->bits)) == p->addr)
			return true;
	return false;
}

bool
net_never(uint32_t addr)
{
	return within(net_nevers, net_nevers_count, addr);
}

/* 1: a prefix; 0: IPv6, which no capsule has, so that it needs no rule; -1: neither. */
static int
prefix_read(const char *text, struct net_prefix *ret)
{
	char address[INET6_ADDRSTRLEN + 1], *end;
	const char *slash = strchr(text, '/');
	size_t n = slash ? (size_t)(slash - text) : strlen(text);
	unsigned long bits = 32, most = 32;
	struct in6_addr six;
	struct in_addr four;

	if (n == 0 || n >= sizeof address)
		return -1;
	memcpy(address, text, n);
	address[n] = '\0';
	if (inet_pton(AF_INET6, address, &six) == 1)
		bits = most = 128;
	else if (inet_pton(AF_INET, address, &four) != 1)
		return -1;
	if (slash) {
		if (!isdigit((unsigned char)slash[1]))
			return -1;
		bits = strtoul(slash + 1, &end, 10);
		if (*end || bits > most)
			return -1;
	}
	if (most == 128)
		return 0;
	ret->bits = (uint32_t)bits;
	ret->addr = ntohl(four.s_addr) & mask(ret->bits);
	return 1;
}

bool
net_name_read(const char *text, size_t len, char ret[NET_NAME])
{
	size_t i, label = 0;

	if (len && text[len - 1] == '.')
		len--;
	if (len == 0 || len >= NET_NAME)
		return false;
	for (i = 0; i < len; i++) {
		unsigned char c = (unsigned char)text[i];

		if (c == '.' ? label == 0 : !(isalnum(c) || c == '-' || c == '_') || ++label > 63)
			return false;
		if (c == '.')
			label = 0;
		ret[i] = (char)tolower(c);
	}
	ret[len] = '\0';
	return label > 0;
}

/* "name" or "*.name"; a name has a letter, so that a mistyped address is no name. */
static bool
pattern_read(const char *text, char ret[NET_NAME])
{
	size_t star = strncmp(text, "*.", 2) == 0 ? 2 : 0, i;
	char name[NET_NAME];

	if (!net_name_read(text + star, strlen(text + star), name) ||
	    strlen(name) + star >= NET_NAME)
		return false;
	memcpy(ret, text, star);
	memcpy(ret + star, name, strlen(name) + 1);
	for (i = 0; name[i]; i++)
		if (isalpha((unsigned char)name[i]))
			return true;
	return false;
}

static int
list_read(struct json_object *j, const char *list, struct net_prefix *ret, uint32_t *count,
    void *mem, char (**ret_name)[NET_NAME], uint32_t *names, struct err *e)
{
	struct json_object *a = json_get(j, list), *item;
	char(*name)[NET_NAME];
	const char *text;
	size_t i, n;

	if (!a)
		return 0;
	if (!json_object_is_type(a, json_type_array) ||
	    (n = json_object_array_length(a)) > NET_ENTRIES)
		return err_set(e, E_BAD_INPUT, "network.%s is not a list of at most %d entries",
		    list, NET_ENTRIES);
	name = *ret_name = talloc_zero_size(mem, sizeof *name * n);
	for (i = 0; i < n; i++) {
		item = json_object_array_get_idx(a, i);
		text =
		    json_object_is_type(item, json_type_string) ? json_object_get_string(item) : "";
		switch (prefix_read(text, &ret[*count])) {
		case 1:
			++*count;
			break;
		case 0:
			break;
		default:
			if (!pattern_read(text, name[*names]))
				return err_set(e, E_BAD_INPUT,
				    "network.%s: \"%.60s\" is no address, network, name or *.name",
				    list, text);
			++*names;
		}
	}
	return 0;
}

static int
flag_read(struct json_object *j, const char *name, bool fallback, uint8_t *ret, struct err *e)
{
	struct json_object *v = json_get(j, name);

	if (v && !json_object_is_type(v, json_type_boolean))
		return err_set(e, E_BAD_INPUT, "network.%s is neither true nor false", name);
	*ret = v ? json_object_get_boolean(v) : fallback;
	return 0;
}

struct net_policy *
net_policy_read(void *mem, struct json_object *j, struct err *e)
{
	struct net_policy *p = talloc_zero(mem, struct net_policy);
	struct net_rules *r = &p->rules;

	if (j && !json_object_is_type(j, json_type_object))
		(void)err_set(e, E_BAD_INPUT, "network is not an object");
	else if (flag_read(j, "internet", true, &r->internet, e) == 0 &&
	    flag_read(j, "smtp", false, &r->smtp, e) == 0 &&
	    list_read(j, "allow", r->allow, &r->allows, p, &p->allow_name, &p->allow_names, e) ==
		0 &&
	    list_read(j, "deny", r->deny, &r->denies, p, &p->deny_name, &p->deny_names, e) == 0) {
		r->names = p->allow_names || p->deny_names;
		r->open = r->internet || r->allows || p->allow_names;
		return p;
	}
	talloc_free(p);
	return NULL;
}

static bool
matches(const char (*list)[NET_NAME], uint32_t n, const char *name)
{
	size_t len = strlen(name), tail;
	uint32_t i;

	for (i = 0; i < n; i++) {
		if (list[i][0] != '*') {
			if (strcmp(list[i], name) == 0)
				return true;
			continue;
		}
		tail = strlen(list[i]) - 1; /* with its dot */
		if (len > tail && strcmp(name + len - tail, list[i] + 1) == 0)
			return true;
	}
	return false;
}

enum net_verdict
net_name_verdict(const struct net_policy *p, const char *name)
{
	if (matches((const char(*)[NET_NAME])p->allow_name, p->allow_names, name))
		return NET_ALLOWED;
	if (matches((const char(*)[NET_NAME])p->deny_name, p->deny_names, name))
		return NET_DENIED;
	return p->rules.internet ? NET_BY_ADDRESS : NET_DENIED;
}

bool
net_address_allowed(const struct net_policy *p, uint32_t addr)
{
	const struct net_rules *r = &p->rules;

	if (net_never(addr))
		return false;
	if (within(r->allow, r->allows, addr))
		return true;
	return r->internet && !within(r->deny, r->denies, addr);
}
