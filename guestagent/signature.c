/* signature.c - see signature.h. */
#include "signature.h"

#include "identity.h"
#include "sha256.h"
#include "text.h"

#include <string.h>
#include <time.h>

static const char *
or_empty(const char *s)
{
	return s ? s : "";
}

/* v1_ and the sum of path:operation:user:token[:expiration] in base64 without padding. */
static const char *
signature_of(struct call *c, const char *until)
{
	const char *op = strcmp(c->route->method, "GET") == 0 ? "read" : "write";
	uint8_t sum[32];
	struct buf text = BUF(c), b = BUF(c);

	buf_fmt(&text, "%s:%s:%s:%s", or_empty(call_query(c, "path")), op,
	    or_empty(call_query(c, "username")), or_empty(identity_token()));
	if (until)
		buf_fmt(&text, ":%s", until);
	sha256(text.data, text.len, sum);
	explicit_bzero(text.data, text.len);
	buf_str(&b, "v1_");
	buf_base64(&b, sum, sizeof sum);
	while (b.len && b.data[b.len - 1] == '=')
		b.data[--b.len] = '\0';
	return b.data;
}

int
signature_check(struct call *c)
{
	const char *given = call_query(c, "signature");
	const char *until = call_query(c, "signature_expiration");
	int64_t end = INT64_MAX;

	if (!given)
		return err_set(&c->err, E_UNAUTHORIZED, "signature missing");
	if ((until && text_int(until, 0, INT64_MAX, &end, &c->err) < 0) ||
	    !text_same_secret(signature_of(c, until), given)) {
		c->err = (struct err){ 0 };
		return err_set(&c->err, E_UNAUTHORIZED, "signature invalid");
	}
	if (end < (int64_t)time(NULL))
		return err_set(&c->err, E_UNAUTHORIZED, "signature expired");
	return 0;
}
