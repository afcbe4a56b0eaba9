/*
 * gateway_fuzz.c - the gateway's parsers: Connect frames and HTTP/1.1 answers of guests, forms of
 * clients, UTF-8. Each input is read whole and in pieces: both must say the same.
 */
#include "fuzz.h"
#include "cleanup.h"

#include "buf.h"
#include "gateway/connect.h"
#include "gateway/http1.h"
#include "json.h"
#include "gateway/multipart.h"
#include "gateway/utf8.h"

static uint64_t sum;

/* ---- frames */

static int
on_frame(void *arg, unsigned flags, const char *json, size_t n)
{
	struct err e = { 0 };

	fuzz_mark(&sum, (char)flags);
	fuzz_sum(&sum, json, n);
	(void)json_parse(arg, json, n, NULL, &e);
	return flags == CONNECT_LAST ? 7 : 0;
}

static void
frames(void *mem, struct fuzz f, bool whole)
{
	struct connect c = { .part = BUF(mem), .max = 4096 };
	struct err e = { 0 };
	int rc = 0;

	while (f.n && rc == 0) {
		const uint8_t *p = NULL;
		size_t n = fuzz_next(&f, whole, 3, &p);

		rc = connect_feed(&c, p, n, on_frame, mem, &e);
		if (c.part.len > 4096 + 5)
			abort();
	}
	fuzz_mark(&sum, (char)rc);
}

/* ---- forms */

static int
on_part(void *arg, const char *name, struct err *e)
{
	(void)arg;
	(void)e;
	fuzz_mark(&sum, 'p');
	fuzz_sum(&sum, name ? name : "", name ? strlen(name) : 0);
	return 0;
}

static int
on_data(void *arg, const char *p, size_t n, struct err *e)
{
	(void)arg;
	(void)e;
	fuzz_sum(&sum, p, n);
	return 0;
}

static int
on_part_end(void *arg, struct err *e)
{
	(void)arg;
	(void)e;
	fuzz_mark(&sum, 'e');
	return 0;
}

static void
form(void *mem, struct fuzz f, bool whole)
{
	static const struct multipart_events events = { on_part, on_data, on_part_end };
	struct multipart m = { 0 };
	struct err e = { 0 };
	int rc = multipart_open(&m, mem, "multipart/form-data; boundary=b", &events, mem, &e);

	while (f.n && rc == 0) {
		const uint8_t *p = NULL;
		size_t n = fuzz_next(&f, whole, 4, &p);

		rc = multipart_feed(&m, (const char *)p, n, &e);
	}
	fuzz_mark(&sum, (char)(rc ? rc : multipart_end(&m, &e)));
}

static void
form_type(void *mem, struct fuzz f, bool whole)
{
	static const struct multipart_events events = { on_part, on_data, on_part_end };
	struct multipart m = { 0 };
	struct err e = { 0 };
	char *type = talloc_asprintf(
	    mem, "multipart/form-data;%.*s", (int)f.n, f.n ? (const char *)f.p : "");

	(void)whole;
	(void)multipart_open(&m, mem, type, &events, mem, &e);
}

/* ---- answers of services */

static void
on_head(void *arg, const struct http1_head *h)
{
	(void)arg;
	fuzz_mark(&sum, 'h');
	fuzz_sum(&sum, &h->status, sizeof h->status);
	fuzz_sum(&sum, &h->length, sizeof h->length);
	for (const struct http1_header *i = h->header; i->name; i++) {
		fuzz_sum(&sum, i->name, strlen(i->name));
		fuzz_sum(&sum, i->value, strlen(i->value));
	}
}

static void
on_body(void *arg, const char *p, size_t n)
{
	(void)arg;
	fuzz_sum(&sum, p, n);
}

static void
on_end(void *arg)
{
	(void)arg;
	fuzz_mark(&sum, 'e');
}

static void
answer(void *mem, struct fuzz f, bool whole)
{
	static const struct http1_events events = { on_head, on_body, on_end };
	bool no_body = fuzz_byte(&f) & 1;
	struct http1 h;
	struct err e = { 0 };
	ssize_t used = 0;
	bool all = true;

	http1_open(&h, mem, no_body, &events, mem);
	while (f.n && all) {
		const uint8_t *p = NULL;
		size_t n = fuzz_next(&f, whole, 5, &p);

		used = http1_feed(&h, (const char *)p, n, &e);
		all = used >= 0 && (size_t)used == n;
		if (h.head.len > HTTP1_HEAD_MAX + 4096)
			abort();
	}
	fuzz_mark(&sum, used < 0 ? '!' : '.');
	if (all)
		fuzz_mark(&sum, (char)http1_eof(&h, &e));
}

/* ---- UTF-8 */

static void
letters(void *mem, struct fuzz f, bool whole)
{
	struct buf b = BUF(mem);
	size_t n = utf8_whole((const char *)f.p, f.n);

	(void)whole;
	if (n > f.n || f.n - n > 3)
		abort();
	utf8_mend(&b, (const char *)f.p, f.n);
	if (!utf8_ok(b.data ? b.data : "", b.len))
		abort();
	if (utf8_ok((const char *)f.p, f.n) && f.n &&
	    (b.len != f.n || memcmp(b.data, f.p, f.n) != 0))
		abort();
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static fuzz_reader *const readers[] = { frames, form, form_type, answer, letters };

	return fuzz_read(readers, nitems(readers), &sum, data, size);
}
