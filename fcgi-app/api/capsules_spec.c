/* capsules_spec.c - checks of what a capsule may be told: variables, metadata, times, network. */
#include "capsules.h"
#include "cidr.h"
#include "cleanup.h"

#include <string.h>

enum { NETWORK_ENTRIES = 256 };

const struct field network_fields[] = {
	FIELD(network, internet, "internet", .dflt = 1, .doc = "false: only what is allowed."),
	FIELD(network, allow, "allow", .max = NETWORK_ENTRIES,
	    .doc = "Addresses, CIDRs, names, *.name."),
	FIELD(network, deny, "deny", .max = NETWORK_ENTRIES),
	FIELD(network, smtp, "smtp", .doc = "Port 25, too."),
	{ 0 },
};

static int
check_pairs(struct request *r, const char *what, const struct pair *p, size_t most, size_t most_all)
{
	size_t all = 0;

	for (; p && p->name; p++) {
		if (strlen(p->value) > most)
			return fail(r, E_BAD_INPUT, "\"%s.%.40s\" is longer than %zu bytes", what,
			    p->name, most);
		all += strlen(p->name) + strlen(p->value);
	}
	return all > most_all
	    ? fail(r, E_BAD_INPUT, "\"%s\" has more than %zu bytes", what, most_all)
	    : 0;
}

int
check_envs(struct request *r, const struct pair *p)
{
	if (check_pairs(r, "envs", p, ENV_VALUE, ENV_ALL) < 0)
		return -1;
	for (; p && p->name; p++)
		if (strncmp(p->name, "HUTCH_", 6) == 0)
			return fail(r, E_BAD_INPUT,
			    "\"envs.%.40s\" is reserved: names that begin with HUTCH_", p->name);
	return 0;
}

int
check_metadata(struct request *r, const struct pair *p)
{
	static const char *const reserved[] = { "kernel_version", "vmm_version", "agent_version",
		"envd_version" };
	size_t i;

	if (check_pairs(r, "metadata", p, META_VALUE, META_ALL) < 0)
		return -1;
	for (; p && p->name; p++)
		for (i = 0; i < nitems(reserved); i++)
			if (strcmp(p->name, reserved[i]) == 0)
				return fail(r, E_BAD_INPUT, "\"metadata.%s\" is reserved", p->name);
	return 0;
}

const char *
pairs_json(struct request *r, const struct pair *p)
{
	static const struct pair none[] = { { 0 } };
	struct field f[] = { { .name = "x", .type = F_PAIRS }, { 0 } };
	struct buf b = BUF(r);
	const struct pair *list = p ? p : none;

	fields_write(f, &list, &b);
	return talloc_strndup(r, b.data + 5, b.len - 6); /* without {"x": and } */
}

/* A network, an address, a name, or all names below one. */
static bool
target_ok(const char *text)
{
	char address[64];
	size_t n = strcspn(text, "/");
	struct in6_addr ip;
	char *end;
	long bits;

	if (n < sizeof address) {
		memcpy(address, text, n);
		address[n] = '\0';
		if (cidr_address(address, &ip)) {
			if (!text[n])
				return true;
			bits = strtol(text + n + 1, &end, 10);
			return text[n + 1] >= '0' && text[n + 1] <= '9' && !*end && bits >= 0 &&
			    bits <= (strchr(address, ':') ? 128 : 32);
		}
	}
	if (strncmp(text, "*.", 2) == 0)
		text += 2;
	n = strlen(text);
	return n > 0 && n <= 253 && strchr("-.", *text) == NULL && text[n - 1] != '-' &&
	    !strstr(text, "..") &&
	    strspn(text, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._") == n;
}

static int
targets_check(struct request *r, const char *what, const char *const *list)
{
	for (; list && *list; list++)
		if (!target_ok(*list))
			return fail(r, E_BAD_INPUT,
			    "\"network.%s\": %.60s is no address, network or name", what, *list);
	return 0;
}

int
times_check(struct request *r, struct times *t)
{
	if (t->timeout_sec < 0 && t->timeout_sec != NULL_INT4)
		t->timeout_sec = 0;
	if (t->max_lifetime_sec < 0 && t->max_lifetime_sec != NULL_INT4)
		t->max_lifetime_sec = 0;
	if (!t->network)
		return 0;
	if (targets_check(r, "allow", t->network->allow) < 0)
		return -1;
	return targets_check(r, "deny", t->network->deny);
}

const char *
network_json(struct request *r, const struct network *n)
{
	static const char *const none[] = { NULL };
	struct network full;
	struct buf b = BUF(r);

	if (!n)
		return NULL;
	full = *n;
	if (!full.allow)
		full.allow = none;
	if (!full.deny)
		full.deny = none;
	fields_write(network_fields, &full, &b);
	return b.data;
}
