/* h2_mark.c - lib/h2_mark.c and what lib/h2.c does with it: sessions on a line that knows no
 * connections. */
#include "h2.h"

#include <check.h>
#include <stdlib.h>
#include <string.h>
#include <talloc.h>

static struct h2 *server, *client;
static void *mem;
static int heads, pongs;

static void
saw_head(struct h2_stream *s, const struct h2_head *head)
{
	(void)s;
	heads += head->path && strcmp(head->path, "/a") == 0;
}

static void
saw_pong(struct h2 *h)
{
	(void)h;
	pongs++;
}

static const struct h2_events events = { .on_head = saw_head, .on_pong = saw_pong };

static void
begin(void)
{
	mem = talloc_new(NULL);
	heads = pongs = 0;
}

static void
end(void)
{
	talloc_free(mem);
}

/* Until nobody has anything to say. */
static void
carry(void)
{
	struct err e = { 0 };
	const uint8_t *p = NULL;
	bool more = true;
	ssize_t n;

	while (more) {
		more = false;
		for (; (n = h2_pull(client, &p)) > 0; more = true)
			ck_assert_int_eq(h2_feed(server, p, (size_t)n, &e), 0);
		for (; (n = h2_pull(server, &p)) > 0; more = true)
			ck_assert_int_eq(h2_feed(client, p, (size_t)n, &e), 0);
	}
}

/* A marked session: the server is a guest's link, which reads the mark before its session begins.
 */
static void
marked(struct h2_mark mark, const uint8_t **hello, size_t *n)
{
	struct h2_limits limits = { .mark = &mark };
	struct h2_mark seen;
	const uint8_t *none = NULL;

	client = h2_new(mem, H2_CLIENT, &events, &limits, NULL);
	*n = (size_t)h2_pull(client, hello);
	seen = h2_mark_of(*hello, *n);
	ck_assert_mem_eq(&seen, &mark, sizeof mark);
	limits.mark = &seen;
	server = h2_new(mem, H2_SERVER, &events, &limits, NULL);
	ck_assert(h2_request(client,
	    (struct h2_header[]){ { ":method", "GET" }, { ":path", "/a" }, { 0 } }, true, NULL,
	    &(struct err){ 0 }));
	ck_assert_int_eq(h2_pull(client, &none), 0); /* it waits */
}

/* What others left, whatever it is, is dropped; then the mark opens, byte by byte as well. */
START_TEST(mark)
{
	static const uint8_t stale[] = { 7, 0, 0, 42, 4, 0, 0, 0, 0, 0, 0xf4, 0xa6, 0, 0, 0, 1,
		0xf4, 0xa7 };
	const uint8_t *p = NULL;
	struct err e = { 0 };
	size_t n;
	ssize_t k;

	marked((struct h2_mark){ { 0x12345678, 0x9abcdef0 } }, &p, &n);
	ck_assert_int_eq(h2_feed(server, p, n, &e), 0);
	for (int i = 0; i < 1000; i++)
		ck_assert_int_eq(h2_feed(client, stale, sizeof stale - (i % 3), &e), 0);
	ck_assert(!h2_met(client));
	while ((k = h2_pull(server, &p)) > 0)
		for (ssize_t i = 0; i < k; i++)
			ck_assert_int_eq(h2_feed(client, p + i, 1, &e), 0);
	ck_assert(h2_met(client));
	carry();
	ck_assert_int_eq(heads, 1);
}
END_TEST

/* An earlier session's whole SETTINGS is not ours; a server's without any mark is taken as ours. */
START_TEST(mark_of_others)
{
	struct h2_mark other = { { 1, 2 } };
	struct h2_limits limits = { .mark = &other };
	struct h2 *old = h2_new(mem, H2_SERVER, &events, &limits, NULL);
	const uint8_t *p = NULL, *hello = NULL;
	struct err e = { 0 };
	size_t n;
	ssize_t k;

	marked((struct h2_mark){ { 3, 4 } }, &hello, &n);
	while ((k = h2_pull(old, &p)) > 0)
		ck_assert_int_eq(h2_feed(client, p, (size_t)k, &e), 0);
	ck_assert(!h2_met(client));
	talloc_free(old);

	marked((struct h2_mark){ { 5, 6 } }, &hello, &n);
	old = h2_new(mem, H2_SERVER, &events, NULL, NULL);
	k = h2_pull(old, &p);
	ck_assert_int_eq(h2_feed(client, p, 11, &e), 0);
	ck_assert(!h2_met(client));
	ck_assert_int_eq(h2_feed(client, p + 11, (size_t)k - 11, &e), 0);
	ck_assert(h2_met(client));
	talloc_free(old);

	/* after a hail nobody knows which hello that answers */
	marked((struct h2_mark){ { 9, 9 } }, &hello, &n);
	h2_hail(client, &other);
	old = h2_new(mem, H2_SERVER, &events, NULL, NULL);
	k = h2_pull(old, &p);
	ck_assert_int_lt(h2_feed(client, p, (size_t)k, &e), 0);
	talloc_free(old);
}
END_TEST

/* Hailed: the old mark opens nothing any more, the new hello stands at the beginning of a page. */
START_TEST(mark_hailed)
{
	struct h2_mark again = { { 7, 8 } }, seen;
	const uint8_t *p = NULL;
	uint8_t *copy = NULL;
	struct err e = { 0 };
	size_t n;
	ssize_t k;

	marked((struct h2_mark){ { 5, 6 } }, &p, &n);
	ck_assert_int_eq(h2_feed(server, p, n, &e), 0);
	for (int i = 0; i < 3; i++) {
		h2_hail(client, &again);
		k = h2_pull(client, &p);
		ck_assert_int_eq(k, 5 * 4096 + (ssize_t)n);
	}
	seen = h2_mark_of(p + 5 * 4096, n);
	ck_assert_mem_eq(&seen, &again, sizeof seen);
	copy = talloc_memdup(mem, p, (size_t)k);
	while ((k = h2_pull(server, &p)) > 0)
		ck_assert_int_eq(h2_feed(client, p, (size_t)k, &e), 0);
	ck_assert(!h2_met(client));
	/* a session that is in the middle of nothing breaks at what fills up a frame */
	(void)h2_feed(server, copy, 5 * 4096, &e);
	while (h2_pull(server, &p) > 0)
		;
	ck_assert(!h2_alive(server));
}
END_TEST

/* A peer that floods instead is not listened to for ever. */
START_TEST(mark_flooded)
{
	static uint8_t noise[64 * 1024];
	const uint8_t *p = NULL;
	struct err e = { 0 };
	size_t n;
	int i = 0;

	marked((struct h2_mark){ { 5, 6 } }, &p, &n);
	while (i < 1000 && h2_feed(client, noise, sizeof noise, &e) == 0)
		i++;
	ck_assert_int_eq(i, 256);
	ck_assert_int_eq(e.code, E_PROTOCOL);
}
END_TEST

START_TEST(ping)
{
	marked((struct h2_mark){ { 5, 6 } }, &(const uint8_t *){ NULL }, &(size_t){ 0 });
	talloc_free(client);
	client = h2_new(mem, H2_CLIENT, &events, NULL, NULL);
	h2_ping(client);
	carry();
	ck_assert_int_eq(pongs, 1);
}
END_TEST

int
main(void)
{
	TCase *c = tcase_create("h2_mark");
	Suite *suite = suite_create("h2_mark");
	SRunner *runner = srunner_create(suite);
	int failed = 0;

	tcase_add_checked_fixture(c, begin, end);
	tcase_add_test(c, mark);
	tcase_add_test(c, mark_of_others);
	tcase_add_test(c, mark_hailed);
	tcase_add_test(c, mark_flooded);
	tcase_add_test(c, ping);
	suite_add_tcase(suite, c);
	srunner_run_all(runner, CK_NORMAL);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
