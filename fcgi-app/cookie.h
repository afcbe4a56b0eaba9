/*
 * cookie.h - the API's own cookies.
 *
 * Their names begin with __Host- (RFC 6265bis §4.1.3.2), which browsers take only with Secure and
 * Path=/; where public_url is http on this machine itself they bear the bare name, without Secure.
 */
#pragma once
#include "fcgi-app/request.h"

/* The value of hutch_<name>, on the request; NULL: none. */
const char *cookie_get(struct request *, const char *name);
/* same_site: "Strict" or "Lax"; age in seconds, 0 removes it. */
void cookie_set(
    struct request *, const char *name, const char *value, const char *same_site, int64_t age);
