/* reply.c - the few words that handlers answer with; see request.h. */
#include "request.h"
#include "cleanup.h"

#include <string.h>

int
fail(struct request *r, enum err_code code, const char *fmt, ...)
{
	char text[sizeof r->work.err.text];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof text, fmt, ap);
	va_end(ap);
	return err_set(&r->work.err, code, "%s", text);
}

const char *
request_env(const struct request *r, const char *name)
{
	size_t n = strlen(name);
	char *const *e;

	for (e = r->env; *e; e++)
		if (strncmp(*e, name, n) == 0 && (*e)[n] == '=')
			return *e + n + 1;
	return NULL;
}

int
reply_with(struct request *r, const struct field *fields, const void *row)
{
	r->status = r->route->status ? r->route->status : 200;
	buf_clear(&r->out);
	fields_write(fields, row, &r->out);
	return 0;
}

int
reply_row(struct request *r, int n, const void *row)
{
	if (n < 0)
		return -1;
	return n ? reply_with(r, r->route->out, row)
		 : fail(r, E_NOT_FOUND, "no such object, or not yours");
}

int
reply_rows(struct request *r, int n, const void *rows, size_t size)
{
	int i;

	if (n < 0)
		return -1;
	r->status = r->route->status ? r->route->status : 200;
	buf_clear(&r->out);
	buf_chr(&r->out, '[');
	for (i = 0; i < n; i++) {
		if (i)
			buf_chr(&r->out, ',');
		fields_write(r->route->out, (const char *)rows + i * size, &r->out);
	}
	buf_chr(&r->out, ']');
	return 0;
}

int
reply_done(struct request *r, int n)
{
	if (n < 0)
		return -1;
	if (!n)
		return fail(r, E_NOT_FOUND, "no such object, or not yours");
	r->status = 204;
	buf_clear(&r->out);
	return 0;
}

void
reply_header(struct request *r, const char *name, const char *fmt, ...)
{
	char text[1024], *p;
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof text, fmt, ap);
	va_end(ap);
	for (p = text; *p; p++)
		if ((unsigned char)*p < 0x20)
			*p = ' ';
	buf_fmt(&r->headers, "%s: %s\r\n", name, text);
}

int
e2b_status(enum err_code code, const char **slug)
{
	static const struct {
		enum err_code code;
		int http;
		const char *slug;
	} other[] = {
		/* than elsewhere: what the clients know */
		{ E_QUOTA, 429, "quota_exceeded" },
		{ E_UNSUPPORTED, 400, "unsupported" },
		{ E_CONFLICT, 409, "invalid_state" },
		{ E_NO_HOSTS, 503, "sandbox_capacity_unavailable" },
		{ E_NO_SPACE, 503, "sandbox_capacity_unavailable" },
	};
	size_t i;

	for (i = 0; i < nitems(other); i++)
		if (other[i].code == code) {
			*slug = other[i].slug;
			return other[i].http;
		}
	*slug = err_kinds[code].slug;
	return err_kinds[code].http;
}

void
e2b_error(struct request *r)
{
	const char *slug;

	r->status = e2b_status(r->work.err.code, &slug);
	buf_clear(&r->out);
	buf_fmt(&r->out, "{\"code\":%d,\"message\":", r->status);
	buf_json(&r->out, r->status < 500 ? r->work.err.text : err_public(&r->work.err));
	buf_fmt(&r->out, ",\"error_code\":\"%s\"}", slug);
}

/* A cursor is base64url(time 8 ‖ id 16 ‖ HMAC 8): nobody makes one that we did not give. */
enum { CURSOR_KEY = 24, CURSOR_SIZE = 32 };

static void
cursor_mac(const struct request *r, const uint8_t key[CURSOR_KEY], uint8_t mac[HASH_SIZE])
{
	crypto_hmac(r->app->keys->key[KEY_CURSOR], key, CURSOR_KEY, mac);
}

int
page_read(struct request *r, int32_t limit, const char *cursor, struct page *p)
{
	uint8_t mac[HASH_SIZE];
	struct uuid *id;
	struct bytes raw;

	*p = (struct page){ .before = NULL_INT, .limit = limit };
	if (!cursor)
		return 0;
	raw = base64url_read(r, cursor);
	if (raw.n != CURSOR_SIZE)
		return fail(r, E_BAD_INPUT, "\"cursor\" is none that was given");
	cursor_mac(r, raw.p, mac);
	if (!crypto_equal(mac, raw.p + CURSOR_KEY, CURSOR_SIZE - CURSOR_KEY))
		return fail(r, E_BAD_INPUT, "\"cursor\" is none that was given");
	memcpy(&p->before, raw.p, 8);
	id = talloc(r, struct uuid);
	memcpy(id->b, raw.p + 8, 16);
	p->before_id = id;
	return 0;
}

static bool
is_paging(const char *s, size_t n)
{
	return (n >= 7 && memcmp(s, "cursor=", 7) == 0);
}

/* The query string without cursor, for the next link. */
static const char *
query_rest(struct request *r)
{
	struct buf b = BUF(r);
	const char *p, *end;

	for (p = r->query; p && *p; p = *end ? end + 1 : end) {
		end = strchrnul(p, '&');
		if (end > p && !is_paging(p, end - p)) {
			buf_add(&b, p, end - p);
			buf_chr(&b, '&');
		}
	}
	return b.data ? b.data : "";
}

const char *
page_cursor(struct request *r, int64_t at, const struct uuid *id)
{
	uint8_t raw[CURSOR_SIZE], mac[HASH_SIZE];

	memcpy(raw, &at, 8);
	memcpy(raw + 8, id->b, 16);
	cursor_mac(r, raw, mac);
	memcpy(raw + CURSOR_KEY, mac, CURSOR_SIZE - CURSOR_KEY);
	return base64url_write(r, raw, sizeof raw);
}

void
page_link(struct request *r, int n, const void *rows, size_t size, const struct page *p,
    size_t time_off, size_t id_off)
{
	const char *last, *cursor;

	if (n <= p->limit)
		return;
	last = (const char *)rows + (p->limit - 1) * size;
	cursor = page_cursor(
	    r, *(const int64_t *)(last + time_off), *(const struct uuid *const *)(last + id_off));
	reply_header(r, "X-Next-Cursor", "%s", cursor);
	reply_header(r, "Link", "<%s%s?%scursor=%s>; rel=\"next\"", r->app->conf->http_public_url,
	    r->path, query_rest(r), cursor);
}

int
e2b_page_reply(struct request *r, int n, const void *rows, size_t size, const struct page *p,
    size_t time_off, size_t id_off)
{
	const char *last = (const char *)rows + (p->limit - 1) * size;

	if (reply_rows(r, n > p->limit ? p->limit : n, rows, size) < 0)
		return -1;
	if (n > p->limit)
		reply_header(r, "X-Next-Token", "%s",
		    page_cursor(r, *(const int64_t *)(last + time_off),
			*(const struct uuid *const *)(last + id_off)));
	return 0;
}

int
page_reply(struct request *r, int n, const void *rows, size_t size, const struct page *p,
    size_t time_off, size_t id_off)
{
	if (reply_rows(r, n > p->limit ? p->limit : n, rows, size) < 0)
		return -1;
	page_link(r, n, rows, size, p, time_off, id_off);
	return 0;
}
