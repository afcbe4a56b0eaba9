/*
 * cidr.h - addresses and lists of networks, as operators write them: "127.0.0.1/32 ::1/128".
 *
 * IPv4 is held as IPv4-mapped IPv6 (RFC 4291 §2.5.5.2), so that there is one comparison.
 */
#pragma once
#include <netinet/in.h>
#include <stdbool.h>
#include <sys/socket.h>

/* False: not an address. */
bool cidr_address(const char *text, struct in6_addr *ret);
bool cidr_sockaddr(const struct sockaddr *, struct in6_addr *ret);
/* Is it an address, or one with /bits? */
bool cidr_network(const char *text);
/* Whether a network of the list (separated by blanks or commas) holds it; what is no network holds
 * nothing. */
bool cidr_list_has(const char *list, const struct in6_addr *);
