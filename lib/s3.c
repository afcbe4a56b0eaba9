/* s3.c - see s3.h. */
#include "s3.h"
#include "cleanup.h"
#include "crypto.h"
#include "http.h"

#include <stdio.h>
#include <string.h>
#include <talloc.h>

static bool
only(const char *s, const char *more)
{
	static const char alnum[] =
	    "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789";

	for (; *s; s++)
		if (!strchr(alnum, *s) && !strchr(more, *s))
			return false;
	return true;
}

int
s3_check(const struct s3 *s, struct err *e)
{
	size_t n = strlen(s->prefix), host = strlen("https://");

	if (strncmp(s->endpoint, "https://", host) != 0 || !s->endpoint[host] ||
	    !only(s->endpoint + host, ".-:[]"))
		return err_set(
		    e, E_BAD_INPUT, "\"endpoint\" is not https://HOST or https://HOST:PORT");
	if (strlen(s->bucket) < 3 || strlen(s->bucket) > 63 || !only(s->bucket, ".-_"))
		return err_set(e, E_BAD_INPUT, "\"bucket\" is no name of a bucket");
	if (!only(s->region, "-") || !*s->region)
		return err_set(e, E_BAD_INPUT, "\"region\" is no region");
	if (!only(s->prefix, ".-_/") || strstr(s->prefix, "//") || strstr(s->prefix, "..") ||
	    (n && (*s->prefix == '/' || s->prefix[n - 1] == '/')))
		return err_set(e, E_BAD_INPUT,
		    "\"prefix\" has more than letters, digits, . - _ and single slashes inside");
	if (!*s->access_key_id || !only(s->access_key_id, "-_./+="))
		return err_set(e, E_BAD_INPUT, "\"access_key_id\" is no id");
	return 0;
}

const char *
s3_key(void *mem, const struct s3 *s, const struct uuid *team, const struct uuid *object)
{
	return talloc_asprintf(mem, "%s%s%s/%s", s->prefix, *s->prefix ? "/" : "",
	    id_text(mem, "team-", team), id_text(mem, "obj-", object));
}

static const char *
url_of(void *mem, const struct s3 *s, const char *key)
{
	if (s->path_style)
		return talloc_asprintf(mem, "%s/%s/%s", s->endpoint, s->bucket, key);
	return talloc_asprintf(
	    mem, "https://%s.%s/%s", s->bucket, s->endpoint + strlen("https://"), key);
}

int
s3_call(void *mem, const struct s3 *s, const char *method, const char *key, const char *body,
    int *status, struct err *e)
{
	uint8_t hash[HASH_SIZE];
	char hex[2 * HASH_SIZE + 1];
	/* libcurl 7.88 (Debian 12) signs the body's hash, but sends it only when it is given */
	const struct pair headers[] = { { "x-amz-content-sha256", hex },
		{ body ? "Content-Type" : NULL, "application/octet-stream" }, { 0 } };
	auto_talloc char *tmp = talloc_new(NULL);
	char *user = talloc_asprintf(tmp, "%s:%s", s->access_key_id, s->secret);
	struct http_call c = { .method = method,
		.url = url_of(tmp, s, key),
		.body = body,
		.body_len = body ? strlen(body) : 0,
		.headers = headers,
		.private_nets = s->conf->storage_private_networks,
		.ca_file = s->conf->storage_ca_file,
		.sigv4 = talloc_asprintf(tmp, "aws:amz:%s:s3", s->region),
		.user = user,
		.total_ms = s->try_ms ? s->try_ms : S3_TRY_MS };
	struct http_answer a;
	int rc;

	crypto_sha256(body ? body : "", c.body_len, hash);
	hex_write(hex, hash, sizeof hash);
	rc = http_send(mem, &c, &a, e);

	explicit_bzero(user, strlen(user));
	if (rc < 0)
		return -1;
	*status = a.status;
	return 0;
}

int
s3_delete(void *mem, const struct s3 *s, const char *key, struct err *e)
{
	int try, status;

	for (try = 0; try < S3_TRIES; try++) {
		*e = (struct err){ 0 };
		if (s3_call(mem, s, "DELETE", key, NULL, &status, e) < 0) {
			if (e->code == E_REFUSED || e->code == E_BAD_INPUT)
				return -1;
			continue;
		}
		if ((status >= 200 && status < 300) || status == 404)
			return 0;
		err_set(e, E_HTTP, "the store answers %d", status);
		if (status < 500 && status != 429)
			return -1;
	}
	return -1;
}

int
s3_probe(void *mem, const struct s3 *s, const char **step, struct err *e)
{
	static const char *const steps[] = { "put", "head", "get", "delete" };
	static const char *const methods[] = { "PUT", "HEAD", "GET", "DELETE" };
	struct uuid id = uuid_new();
	const char *key = s3_key(mem, s, &uuid_zero, &id);
	int status;
	size_t i;

	for (i = 0; i < nitems(steps); i++) {
		*step = steps[i];
		if (s3_call(mem, s, methods[i], key, i ? NULL : "hutch", &status, e) < 0)
			return -1;
		if (status < 200 || status > 299)
			return err_set(e, E_HTTP, "the store answers %d", status);
	}
	*step = NULL;
	return 0;
}
