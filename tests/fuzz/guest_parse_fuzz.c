/* guest_parse_fuzz.c - the guest's parsers of what callers send: forms, queries, gzip, texts. */
#include "fuzz.h"
#include "cleanup.h"

#include "guestagent/gzip.h"
#include "guestagent/multipart.h"
#include "guestagent/sha256.h"
#include "guestagent/text.h"
#include "guestagent/trust.h"
#include "json.h"

static uint64_t sum;

static int
on_part(void *arg, const char *name, const char *filename, struct err *e)
{
	(void)arg;
	(void)e;
	fuzz_mark(&sum, 'p');
	fuzz_sum(&sum, name ? name : "", name ? strlen(name) : 0);
	fuzz_sum(&sum, filename ? filename : "", filename ? strlen(filename) : 0);
	return 0;
}

static int
on_data(void *arg, const uint8_t *p, size_t n, struct err *e)
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
	struct err e = { 0 };
	struct multipart *m =
	    multipart_new(mem, "multipart/form-data; boundary=b", &events, mem, &e);
	int rc = 0;

	while (f.n && rc == 0) {
		const uint8_t *p = NULL;
		size_t n = fuzz_next(&f, whole, 4, &p);

		rc = multipart_feed(m, p, n, &e);
	}
	fuzz_mark(&sum, (char)(rc < 0 ? rc : multipart_end(m, &e)));
}

static int
unpacked(void *arg, const uint8_t *p, size_t n, struct err *e)
{
	size_t *total = arg;

	fuzz_sum(&sum, p, n);
	*total += n;
	return *total > 1 << 20 ? err_set(e, E_NO_SPACE, "full") : 0;
}

static void
packed(void *mem, struct fuzz f, bool whole)
{
	size_t total = 0;
	struct gzip *g = gzip_unpack(mem, unpacked, &total);
	struct err e = { 0 };
	int rc = 0;

	while (f.n && rc == 0) {
		const uint8_t *p = NULL;
		size_t n = fuzz_next(&f, whole, 3, &p);

		rc = gzip_feed(g, p, n, &e);
	}
	if (rc == 0)
		rc = gzip_end(g, &e);
	if (rc < 0)
		sum = 0; /* where it stopped depends on the pieces */
	fuzz_mark(&sum, (char)rc);
}

/* What is packed comes back. */
static void
there_and_back(void *mem, struct fuzz f, bool whole)
{
	struct buf b = BUF(mem);
	size_t total = 0;
	struct gzip *back = gzip_unpack(mem, unpacked, &total);
	uint64_t want = 1;
	struct err e = { 0 };

	(void)whole;
	(void)b;
	fuzz_sum(&want, f.p, f.n);
	sum = 1;
	{
		/* the packer's output goes straight to the unpacker */
		struct gzip *to = gzip_pack(mem, (gzip_out *)gzip_feed, back);

		if (gzip_feed(to, f.p, f.n, &e) < 0 || gzip_end(to, &e) < 0 ||
		    gzip_end(back, &e) < 0)
			abort();
	}
	fuzz_same(want, sum);
}

static void
texts(void *mem, struct fuzz f, bool whole)
{
	char *s = fuzz_text(mem, &f);
	struct timespec t = { 0 };
	struct buf b = BUF(mem);
	struct err e = { 0 };
	uint8_t *bytes = NULL, digest[32];
	int64_t n = 0, again = 0;
	size_t len = 0;

	(void)whole;
	(void)text_query(mem, s, "path");
	(void)text_percent(mem, (const char *)f.p, f.n);
	(void)text_int(s, INT64_MIN, INT64_MAX, &n, &e);
	(void)text_accepts(s, "gzip");
	(void)text_accepts(s, "identity");
	(void)text_same_secret("secret", s);
	(void)trust_check(s, &e);
	sha256(f.p, f.n, digest);
	if (text_base64(mem, s, &bytes, &len, &e) == 0 && len > strlen(s))
		abort();
	if (text_time(s, &n, &e) == 0 && n >= 0) {
		t = (struct timespec){ n / 1000000000, n % 1000000000 };
		text_put_time(&b, &t);
		b.data[b.len - 1] = '\0';
		if (n < INT64_C(4000000000000000000) && text_time(b.data + 1, &again, &e) == 0 &&
		    again != n)
			abort();
	}
}

static void
message(void *mem, struct fuzz f, bool whole)
{
	struct err e = { 0 };
	struct json_object *o = json_parse(mem, (const char *)f.p, f.n, NULL, &e);

	(void)whole;
	if (o && json_object_is_type(o, json_type_object)) {
		(void)json_str(o, "path", "");
		(void)json_int(o, "epoch", 0);
		(void)json_flag(o, "keep", false);
	}
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static fuzz_reader *const readers[] = { form, packed, there_and_back, texts, message };

	return fuzz_read(readers, nitems(readers), &sum, data, size);
}
