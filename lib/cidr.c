/* cidr.c - see cidr.h. */
#include "cidr.h"
#include "cleanup.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void
mapped(struct in6_addr *ret, const struct in_addr *v4)
{
	memset(ret, 0, sizeof *ret);
	ret->s6_addr[10] = ret->s6_addr[11] = 0xff;
	memcpy(ret->s6_addr + 12, v4, 4);
}

bool
cidr_address(const char *text, struct in6_addr *ret)
{
	struct in_addr v4;

	if (inet_pton(AF_INET6, text, ret) == 1)
		return true;
	if (inet_pton(AF_INET, text, &v4) != 1)
		return false;
	mapped(ret, &v4);
	return true;
}

bool
cidr_sockaddr(const struct sockaddr *sa, struct in6_addr *ret)
{
	if (sa->sa_family == AF_INET6)
		*ret = ((const struct sockaddr_in6 *)sa)->sin6_addr;
	else if (sa->sa_family == AF_INET)
		mapped(ret, &((const struct sockaddr_in *)sa)->sin_addr);
	else
		return false;
	return true;
}

static bool
network_has(const char *cidr, const struct in6_addr *a)
{
	char net[64], *slash;
	struct in6_addr n;
	int bits, i;

	snprintf(net, sizeof net, "%s", cidr);
	slash = strchr(net, '/');
	if (slash)
		*slash = '\0';
	if (!cidr_address(net, &n))
		return false;
	bits = slash ? (int)strtol(slash + 1, NULL, 10) : 128;
	if (slash && !strchr(net, ':'))
		bits += 96;
	for (i = 0; i < bits && i < 128; i++)
		if ((n.s6_addr[i / 8] ^ a->s6_addr[i / 8]) & (0x80 >> i % 8))
			return false;
	return true;
}

bool
cidr_list_has(const char *list, const struct in6_addr *a)
{
	auto_talloc char *copy = talloc_strdup(NULL, list);
	char *save, *net;

	for (net = strtok_r(copy, " ,", &save); net; net = strtok_r(NULL, " ,", &save))
		if (network_has(net, a))
			return true;
	return false;
}

bool
cidr_network(const char *text)
{
	struct in6_addr a;
	char one[64], *slash;

	snprintf(one, sizeof one, "%s", text);
	slash = strchr(one, '/');
	if (slash)
		*slash++ = '\0';
	if (strlen(text) >= sizeof one || !cidr_address(one, &a))
		return false;
	if (!slash)
		return true;
	return *slash && strspn(slash, "0123456789") == strlen(slash) && strlen(slash) <= 3 &&
	    strtol(slash, NULL, 10) <= (strchr(one, ':') ? 128 : 32);
}
