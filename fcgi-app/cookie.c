/* cookie.c - see cookie.h. */
#include "cookie.h"

#include <string.h>
#include <talloc.h>

static bool
is_loopback_http(const struct request *r)
{
	static const char *const own[] = { "http://localhost", "http://127.", "http://[::1]" };
	const char *url = r->app->conf->http_public_url;
	size_t i;

	for (i = 0; i < sizeof own / sizeof own[0]; i++)
		if (strncmp(url, own[i], strlen(own[i])) == 0)
			return true;
	return false;
}

const char *
cookie_get(struct request *r, const char *name)
{
	const char *p = request_env(r, "HTTP_COOKIE"), *end;
	const char *full =
	    talloc_asprintf(r, "%shutch_%s=", is_loopback_http(r) ? "" : "__Host-", name);
	size_t n = strlen(full);

	for (; p && *p; p = *end ? end + 1 : end) {
		while (*p == ' ')
			p++;
		end = strchrnul(p, ';');
		if (strncmp(p, full, n) == 0)
			return talloc_strndup(r, p + n, end - p - n);
	}
	return NULL;
}

void
cookie_set(
    struct request *r, const char *name, const char *value, const char *same_site, int64_t age)
{
	bool loopback = is_loopback_http(r);

	reply_header(r, "Set-Cookie", "%shutch_%s=%s; Path=/; HttpOnly; SameSite=%s%s; Max-Age=%d",
	    loopback ? "" : "__Host-", name, value, same_site, loopback ? "" : "; Secure",
	    (int)age);
}
