/*
 * shared_fuzz.c - the parsers of lib/ that have no target elsewhere: JSON and the tables of fields
 * behind every request, schedules, templates of mails, addresses, ids and times, the gate of an
 * HTTP/2 client.
 */
#include "fuzz.h"

#include "cidr.h"
#include "cleanup.h"
#include "cron.h"
#include "field.h"
#include "h2_mark.h"
#include "id.h"
#include "json.h"
#include "mustache.h"

static uint64_t sum;

/* ---- JSON and fields */

/* What is read can be written and read again as the same. */
static void
document(void *mem, struct fuzz f, bool whole)
{
	struct err e = { 0 };
	struct json_object *o = json_parse(mem, f.n ? (const char *)f.p : "", f.n, NULL, &e),
			   *again;
	const char *text;

	(void)whole;
	if (!o && (e.code != E_BAD_INPUT || !*e.text))
		abort();
	if (!o)
		return;
	text = json_object_to_json_string_ext(o, JSON_C_TO_STRING_PLAIN);
	again = json_parse(mem, text, strlen(text), NULL, &e);
	if (!again || !json_object_equal(o, again))
		abort();
}

struct part {
	const char *word;
	int32_t count;
};

struct request_in {
	const char *name, *kind, *mail, *raw, *when, *schedule;
	bool flag;
	int32_t small;
	int64_t big, at;
	double share;
	const struct uuid *id;
	const char *const *tags;
	const struct pair *labels;
	struct part *part;
	struct list parts;
};

static const struct field part_fields[] = {
	FIELD(part, word, "word", .flags = NEEDED, .max = 8, .min = 1),
	FIELD(part, count, "count", .min = 1, .max = 9, .dflt = 1),
	{ 0 },
};

static const struct field request_fields[] = {
	FIELD(request_in, name, "name", .flags = NEEDED, .format = "name"),
	FIELD(request_in, kind, "kind", .one_of = "a|bc", .text = "a"),
	FIELD(request_in, mail, "mail", .format = "email"),
	FIELD(request_in, raw, "raw", .format = "json"),
	FIELD(request_in, when, "when", .format = "time"),
	FIELD(request_in, schedule, "schedule", .max = 20),
	FIELD(request_in, flag, "flag", .dflt = 1),
	FIELD(request_in, small, "small", .min = -5, .max = 5),
	FIELD(request_in, big, "big"),
	FIELD(request_in, at, "at", .format = "date-time"),
	FIELD(request_in, share, "share"),
	FIELD(request_in, id, "id", .prefix = "cl-"),
	FIELD(request_in, tags, "tags", .format = "tag", .max = 4),
	FIELD(request_in, labels, "labels", .max = 4),
	SUB(request_in, part, "part", part_fields, part),
	SUB(request_in, parts, "parts", part_fields, part, .flags = LIST, .max = 3),
	{ 0 },
};

/* What the table lets in is within its limits, and is JSON when it is written. */
static void
fields(void *mem, struct fuzz f, bool whole)
{
	struct err e = { 0 };
	struct json_object *o = json_parse(mem, f.n ? (const char *)f.p : "", f.n, NULL, &e);
	struct request_in in = { 0 };
	struct buf b = BUF(mem);

	(void)whole;
	if (!o)
		return;
	if (fields_read(request_fields, o, &in, mem, &e) < 0) {
		if (e.code == E_OK || !*e.text)
			abort();
		return;
	}
	if (!in.name || !format_ok("name", in.name) || in.small < -5 || in.small > 5 ||
	    in.parts.n > 3 || (in.part && !in.part->word))
		abort();
	fields_write(request_fields, &in, &b);
	if (!json_parse(mem, b.data, b.len, NULL, &e))
		abort();
}

/* Values of paths and queries. */
static void
field_texts(void *mem, struct fuzz f, bool whole)
{
	uint8_t which = fuzz_byte(&f);
	const struct field *k = &request_fields[which % (nitems(request_fields) - 1)];
	char *s = fuzz_text(mem, &f);
	struct request_in in = { 0 };
	struct err e = { 0 };

	(void)whole;
	if (field_read_text(k, s, &in, mem, &e) < 0) {
		if (e.code == E_OK || !*e.text)
			abort();
		return;
	}
	if (in.small < -5 || in.small > 5 ||
	    (in.kind && strcmp(in.kind, "a") && strcmp(in.kind, "bc")))
		abort();
}

/* ---- schedules: the next time is later, on a minute, and the same a minute before it */

static void
schedule(void *mem, struct fuzz f, bool whole)
{
	int64_t after = 1795300000 + 86400 * (int64_t)fuzz_byte(&f), next = 0, again = 0;
	char *s = fuzz_text(mem, &f);
	struct err e = { 0 };

	(void)whole;
	if (cron_next(s, after, &next, &e) < 0) {
		if (e.code != E_BAD_INPUT || !*e.text)
			abort();
		return;
	}
	if (next <= after || next % 60 || cron_next(s, next - 1, &again, &e) < 0 || again != next)
		abort();
}

/* ---- mails: no value brings a tag, a line or a reference of its own */

static void
mail(void *mem, struct fuzz f, bool whole)
{
	const struct pair vars[] = { { "name", fuzz_text(mem, &f) }, { "team", "blue" }, { 0 } };
	struct buf html = BUF(mem), any = BUF(mem);
	struct err e = { 0 };

	(void)whole;
	if (mustache_render(&html, "{{#name}}{{name}}{{/name}}{{^name}}-{{/name}}", vars,
		MUSTACHE_HTML, &e) < 0)
		abort();
	for (size_t i = 0; i < html.len; i++)
		if (strchr("<>\"'\r\n\t", html.data[i]))
			abort();
	if (mustache_render(&any, vars[0].value, vars + 1, MUSTACHE_PLAIN, &e) < 0 &&
	    (e.code != E_CONFIG || !*e.text))
		abort();
}

/* ---- addresses, ids, times */

static void
names(void *mem, struct fuzz f, bool whole)
{
	char *s = fuzz_text(mem, &f), id[ID_SIZE];
	struct buf b = BUF(mem);
	struct in6_addr a;
	struct uuid u;
	int64_t us, again;

	(void)whole;
	(void)cidr_network(s);
	if (cidr_address(s, &a)) {
		(void)cidr_list_has("10.0.0.0/8, ::/0", &a);
		if (!cidr_network(s) || !cidr_list_has(s, &a))
			abort();
	} else
		(void)cidr_list_has(s, &in6addr_loopback);
	if (id_read(s, "cl-", &u) && strcmp(id_write(id, "cl-", &u), s) != 0)
		abort();
	(void)uuid_read(s, &u);
	if (time_read(s, &us)) {
		time_write(&b, us);
		if (us >= 0 && (!time_read(b.data, &again) || again != us))
			abort();
	}
}

/* ---- the gate: it opens for its mark, wherever that stands, and for a server without marks */

static void
gate(void *mem, struct fuzz f, bool whole)
{
	static const uint8_t said[] = { 0, 0, 12, 4, 0, 0, 0, 0, 0, 0xf4, 0xa6, 1, 2, 3, 4, 0xf4,
		0xa7, 5, 6, 7, 8, 'x' };
	struct h2_gate g = { .mark = { { 0x01020304, 0x05060708 } }, .in = BUF(mem) };
	size_t junk = fuzz_byte(&f), total = 0;
	const uint8_t *p = NULL;
	struct buf all = BUF(mem);
	int rc = 0;

	(void)h2_mark_of(f.p, f.n);
	g.again = junk & 1;
	if (f.n < 9 || f.p[3] == 4) /* may be somebody who knows of no marks */
		buf_add(&all, "\0\0\0\0\0\0\0\0\0", 9);
	buf_add(&all, f.p, f.n);
	buf_add(&all, said, sizeof said);
	f = (struct fuzz){ (const uint8_t *)all.data, all.len };
	while (f.n && rc == 0) {
		size_t n = fuzz_next(&f, whole, 3, &p);

		total += n;
		rc = h2_gate_feed(&g, p, n);
		if (rc == 0 && g.dropped + g.in.len != total)
			abort();
	}
	if (rc != 1 || g.in.len < 9 + H2_MARK_SIZE ||
	    memcmp(g.in.data + 3, said + 3, 6 + H2_MARK_SIZE) != 0)
		abort();
	fuzz_sum(&sum, g.in.data, 9 + H2_MARK_SIZE);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static fuzz_reader *const readers[] = { document, fields, field_texts, schedule, mail,
		names, gate };

	return fuzz_read(readers, nitems(readers), &sum, data, size);
}
