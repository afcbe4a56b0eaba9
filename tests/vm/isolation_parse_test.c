/* isolation_parse_test.c - what guests and callers send to the network's parts: whole, in single
 * bytes, broken, random. */
#include "egress_own.h"

#include <arpa/inet.h>
#include <check.h>
#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>

enum { ROUNDS = 200000, PACKETS = 20000 };

static void *mem;

static void
setup(void)
{
	mem = talloc_new(NULL);
	srandom(7);
}

static void
teardown(void)
{
	talloc_free(mem);
}

/* A ClientHello with one name, in records of `cut` bytes. */
static size_t
hello(const char *name, size_t cut, uint8_t *ret)
{
	uint8_t m[600] = { 1 };
	size_t n = strlen(name), len = 4, at, k, out = 0;

	m[len++] = 3;
	m[len++] = 3;
	len += 32;
	m[len++] = 0; /* session */
	memcpy(m + len, "\0\2\x13\x01\1\0", 6);
	len += 6;
	m[len++] = (uint8_t)((n + 9) >> 8);
	m[len++] = (uint8_t)(n + 9);
	memcpy(m + len, "\0\0", 2);
	len += 2;
	m[len++] = (uint8_t)((n + 5) >> 8);
	m[len++] = (uint8_t)(n + 5);
	m[len++] = (uint8_t)((n + 3) >> 8);
	m[len++] = (uint8_t)(n + 3);
	m[len++] = 0;
	m[len++] = (uint8_t)(n >> 8);
	m[len++] = (uint8_t)n;
	memcpy(m + len, name, n);
	len += n;
	m[2] = (uint8_t)((len - 4) >> 8);
	m[3] = (uint8_t)(len - 4);
	for (at = 0; at < len; at += k) {
		k = len - at < cut ? len - at : cut;
		memcpy(ret + out, "\x16\3\1", 3);
		ret[out + 3] = (uint8_t)(k >> 8);
		ret[out + 4] = (uint8_t)k;
		memcpy(ret + out + 5, m + at, k);
		out += 5 + k;
	}
	return out;
}

START_TEST(tls_names)
{
	static const size_t cuts[] = { 1000, 40, 7, 1 };
	uint8_t b[4000];
	char name[NET_NAME];
	size_t i, n, k;

	for (i = 0; i < nitems(cuts); i++) {
		n = hello("WWW.Good.Example", cuts[i], b);
		for (k = 0; k < n; k++)
			ck_assert_int_eq(head_name(b, k, name), 0);
		ck_assert_int_eq(head_name(b, n, name), 1);
		ck_assert_str_eq(name, "www.good.example");
	}
	n = hello("a b", 1000, b);
	ck_assert_int_eq(head_name(b, n, name), -1);
	/* each byte changed to each of some: never out of bounds, never a name that is none */
	n = hello("good.example", 30, b);
	for (i = 0; i < n; i++)
		for (k = 0; k < 256; k += 15) {
			uint8_t was = b[i], *copy;

			b[i] = (uint8_t)k;
			copy = malloc(n);
			memcpy(copy, b, n);
			(void)head_name(copy, n, name);
			free(copy);
			b[i] = was;
		}
}
END_TEST

START_TEST(http_names)
{
	static const struct row {
		const char *text, *name; /* NULL: none; "": more bytes are needed */
	} rows[] = {
		{ "GET / HTTP/1.1\r\nHost: Good.Example\r\n\r\n", "good.example" },
		{ "GET / HTTP/1.1\r\nA: b\r\nhOST:\t good.example:8080 \r\n", "good.example" },
		{ "GET / HTTP/1.1\nHost: good.example.\n\n", "good.example" },
		{ "GET / HTTP/1.1\r\nHost: good.exam", "" },
		{ "GET / HTTP/1.0\r\n\r\n", NULL },
		{ "GET / HTTP/1.1\r\nHost: [::1]\r\n\r\n", NULL },
		{ "GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", NULL },
		{ "SSH-2.0-x\r\n", "" },
		{ "\1\2\3", NULL },
	};
	char name[NET_NAME];
	size_t i;

	for (i = 0; i < nitems(rows); i++) {
		int got = head_name((const uint8_t *)rows[i].text, strlen(rows[i].text), name);

		ck_assert_msg(got ==
			(!rows[i].name          ? -1
				: *rows[i].name ? 1
						: 0),
		    "%s: %d", rows[i].text, got);
		if (got == 1)
			ck_assert_str_eq(name, rows[i].name);
	}
}
END_TEST

START_TEST(random_heads)
{
	char name[NET_NAME];
	int i;

	for (i = 0; i < ROUNDS; i++) {
		size_t n = (size_t)random() % 300, k;
		uint8_t *b = malloc(n + 1);

		for (k = 0; k < n; k++)
			b[k] = random() % 3 ? (uint8_t)random() : (uint8_t)(random() % 4);
		if (n)
			b[0] = random() % 2 ? 22 : 'G';
		(void)head_name(b, n, name);
		free(b);
	}
}
END_TEST

static struct net_policy *
policy(const char *text)
{
	struct err e = { 0 };
	struct json_object *j = json_parse(mem, text, strlen(text), NULL, &e);
	struct net_policy *p = j ? net_policy_read(mem, j, &e) : NULL;

	ck_assert_msg(p || e.code == E_BAD_INPUT, "%s: %s", text, e.text);
	return p;
}

START_TEST(policies)
{
	static const char *const bad[] = { "{\"allow\":[\"1.2.3.4/\"]}", "{\"allow\":[\"/8\"]}",
		"{\"allow\":[\"1.2.3.4/-1\"]}", "{\"allow\":[\"1.2.3.4/ 8\"]}",
		"{\"deny\":[\"*.*\"]}", "{\"deny\":[\"a.*.b\"]}", "{\"deny\":[\"\"]}",
		"{\"deny\":[\"1.2.3.4.5\"]}", "{\"allow\":[\"::1/129\"]}", "{\"smtp\":1}",
		"{\"allow\":[\"a;drop\"]}", "{\"allow\":[\"a b\"]}", "{\"allow\":\"a\"}" };
	struct net_policy *p;
	size_t i;

	for (i = 0; i < nitems(bad); i++)
		ck_assert_msg(!policy(bad[i]), "%s", bad[i]);
	p = policy(
	    "{\"internet\":true,\"allow\":[\"8.8.0.0/16\",\"*.Good.example\",\"fe80::/10\"],"
	    "\"deny\":[\"8.0.0.0/8\",\"bad.example\",\"*.bad.example\",\"x.good.example\"]}");
	ck_assert_int_eq(net_name_verdict(p, "a.good.example"), NET_ALLOWED);
	ck_assert_int_eq(net_name_verdict(p, "x.good.example"), NET_ALLOWED);
	ck_assert_int_eq(net_name_verdict(p, "good.example"), NET_BY_ADDRESS);
	ck_assert_int_eq(net_name_verdict(p, "agood.example"), NET_BY_ADDRESS);
	ck_assert_int_eq(net_name_verdict(p, "bad.example"), NET_DENIED);
	ck_assert_int_eq(net_name_verdict(p, "a.b.bad.example"), NET_DENIED);
	ck_assert(net_address_allowed(p, 0x08080808) && !net_address_allowed(p, 0x08010101));
	ck_assert(net_address_allowed(p, 0x01010101) && !net_address_allowed(p, 0x0a000001));
	p = policy("{\"internet\":false,\"allow\":[\"0.0.0.0/0\",\"a.example\"]}");
	ck_assert(!net_address_allowed(p, 0xa9fea9fe) && !net_address_allowed(p, 0x7f000001));
	ck_assert(!net_address_allowed(p, 0x64400001) && net_address_allowed(p, 0x01010101));
	ck_assert_int_eq(net_name_verdict(p, "b.example"), NET_DENIED);
}
END_TEST

/* Packets of a guest to its resolver: random, and questions with random bytes changed. */
START_TEST(random_questions)
{
	static const uint8_t good[] = "\1\2\1\0\0\1\0\0\0\0\0\0\3www\4good\7example\0\0\1\0\1";
	struct egress *g = talloc_zero(mem, struct egress);
	struct outlet *o = talloc_zero(g, struct outlet);
	struct sockaddr_in a = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t len = sizeof a;
	int from = socket(AF_INET, SOCK_DGRAM, 0), i, answers = 0;
	uint8_t b[600];
	ssize_t k;

	g->loop = uv_default_loop();
	o->egress = g;
	o->policy = *policy("{\"internet\":false,\"allow\":[\"other.example\"]}");
	o->fd[0] = socket(AF_INET, SOCK_DGRAM, 0);
	ck_assert_int_eq(bind(o->fd[0], (struct sockaddr *)&a, sizeof a), 0);
	ck_assert_int_eq(getsockname(o->fd[0], (struct sockaddr *)&a, &len), 0);
	ck_assert_int_eq(connect(from, (struct sockaddr *)&a, sizeof a), 0);
	(void)fcntl(from, F_SETFL, O_NONBLOCK);
	for (i = 0; i < PACKETS; i++) {
		size_t n = sizeof good - 1, at;

		memcpy(b, good, n);
		for (at = 0; i && at < 4; at++)
			b[(size_t)random() % n] = (uint8_t)random();
		if (i % 3 == 2)
			for (n = (size_t)random() % sizeof b, at = 0; at < n; at++)
				b[at] = (uint8_t)random();
		ck_assert_int_eq(send(from, b, n, 0), n);
		dns_packet(o, 0);
		k = recv(from, b, sizeof b, 0);
		if (i == 0)
			/* no such name: nobody outside was asked */
			ck_assert(k == (ssize_t)sizeof good - 1 && (b[3] & 15) == 3 && b[2] & 0x80);
		answers += k > 0;
		(void)uv_run(g->loop, UV_RUN_NOWAIT);
	}
	ck_assert_int_gt(answers, 100);
	close(from);
	close(o->fd[0]);
}
END_TEST

/* Names whose text is not what would be asked: cut by a zero, with a dot inside of a label, or
   pointing into the head, which goes out with another id. */
START_TEST(names_that_hide)
{
#define Q(name) "\1\2\1\0\0\1\0\0\0\0\0\0" name "\0\1\0\1", 16 + sizeof name - 1
	static const struct row {
		const char *packet;
		size_t len, out; /* out: how many go to a name server */
	} rows[] = {
		{ Q("\4good\7example\0"), 1 },
		{ Q("\4good\11example\0x\5other\0"), 0 },
		{ Q("\7\0secret\5other\0"), 0 },
		{ Q("\14good.example\0"), 0 },
		{ Q("\1a\xc0\0"), 0 },
		{ Q("\xc0\2"), 0 },
	};
#undef Q
	struct egress *g = talloc_zero(mem, struct egress);
	int pair[2];
	size_t i;

	g->loop = uv_default_loop();
	for (i = 0; i < nitems(rows); i++) {
		struct outlet *o = talloc_zero(g, struct outlet);

		ck_assert_int_eq(socketpair(AF_UNIX, SOCK_DGRAM, 0, pair), 0);
		o->egress = g;
		o->policy = *policy("{\"internet\":true,\"deny\":[\"bad.example\"]}");
		o->fd[0] = pair[0];
		ck_assert_int_eq(
		    send(pair[1], rows[i].packet, rows[i].len, 0), (ssize_t)rows[i].len);
		dns_packet(o, 0);
		ck_assert_msg(o->lookups == rows[i].out, "question %zu", i);
		talloc_free(o);
		close(pair[0]);
		close(pair[1]);
	}
}
END_TEST

int
main(void)
{
	Suite *s = suite_create("isolation_parse");
	TCase *c = tcase_create("parse");
	SRunner *r = srunner_create(s);
	int failed;

	tcase_add_checked_fixture(c, setup, teardown);
	tcase_set_timeout(c, 120);
	tcase_add_test(c, tls_names);
	tcase_add_test(c, http_names);
	tcase_add_test(c, random_heads);
	tcase_add_test(c, policies);
	tcase_add_test(c, random_questions);
	tcase_add_test(c, names_that_hide);
	suite_add_tcase(s, c);
	srunner_run_all(r, CK_ENV);
	failed = srunner_ntests_failed(r);
	srunner_free(r);
	return failed != 0;
}
