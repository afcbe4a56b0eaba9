/* http.c - lib/http.c: where requests to other people's servers may go (spec 04 §4.4). */
#include "http.h"
#include "cleanup.h"
#include "unit.h"

#include <arpa/inet.h>
#include <ifaddrs.h>
#include <netinet/in.h>
#include <pthread.h>
#include <string.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

static bool
ok(const char *text)
{
	struct sockaddr_in a4 = { .sin_family = AF_INET };
	struct sockaddr_in6 a6 = { .sin6_family = AF_INET6 };

	if (inet_pton(AF_INET, text, &a4.sin_addr) == 1)
		return http_address_ok((struct sockaddr *)&a4);
	ck_assert_msg(inet_pton(AF_INET6, text, &a6.sin6_addr) == 1, "%s is no address", text);
	return http_address_ok((struct sockaddr *)&a6);
}

/* clang-format off */
static const char *const inside[] = {
	"0.0.0.0", "0.1.2.3", "10.0.0.0", "10.255.255.255", "100.64.0.1", "100.127.255.255", "127.0.0.1", "127.255.255.254", "169.254.169.254", "172.16.0.1",
	"172.31.255.255", "192.0.0.1", "192.0.2.1", "192.88.99.1", "192.168.0.1", "192.168.255.255", "198.18.0.1", "198.19.255.255", "198.51.100.1",
	"203.0.113.1", "224.0.0.1", "239.255.255.255", "240.0.0.1", "255.255.255.255",
	"::", "::1", "::2", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "::ffff:169.254.169.254", "::127.0.0.1", "::10.0.0.1", "64:ff9b::127.0.0.1", "64:ff9b::a9fe:a9fe",
	"64:ff9b:1::10.0.0.1", "2002:7f00:1::", "2002:a00:1::1", "2002:a9fe:a9fe::1", "fc00::1", "fd12:3456::1", "fdff:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
	"fe80::1", "febf::1", "ff02::1", "ff0e::1", "100::1", "2001:db8::1", "2001::1", "2001:0:7f00:1::",
};
static const char *const outside[] = {
	"1.1.1.1", "8.8.8.8", "9.255.255.255", "11.0.0.0", "100.63.255.255", "100.128.0.0", "126.255.255.255", "128.0.0.1", "169.253.255.255", "169.255.0.0",
	"172.15.255.255", "172.32.0.0", "192.0.1.0", "192.167.255.255", "192.169.0.0", "198.17.255.255", "198.20.0.0", "203.0.112.255", "223.255.255.255",
	"2606:4700:4700::1111", "2001:4860:4860::8888", "::ffff:8.8.8.8", "64:ff9b::808:808", "2002:808:808::1", "2001:db9::1",
};
static const char *const bad_urls[] = {
	"", "http://example.org/", "https:", "https://", "ftp://example.org/", "file:///etc/passwd", "gopher://example.org/", "dict://example.org:443/",
	"https://example.org:80/", "https://example.org:22/", "https://example.org:0/", "https://example.org:65536/", "https://user@example.org/", "https://user:pw@example.org/",
	"https://:pw@example.org/", "https://example.org/#x", "https://example.org./", "https://127.0.0.1@example.org/", "https://example.org:443@127.0.0.1:22/", "//example.org/",
	"example.org", "javascript:alert(1)", "https://exa mple.org/", "https://example.org:8080/", "https://\r\nexample.org/", "https://example.org\t/", "unix:///run/x",
	"https://[::1", "https://example.org:443443/",
};
static const char *const good_urls[] = { "https://example.org", "https://example.org/", "https://example.org:443/x?y=z", "https://example.org:8443/", "HTTPS://EXAMPLE.org/" };
/* clang-format on */

START_TEST(refused)
{
	ck_assert_msg(!ok(inside[_i]), "%s was allowed", inside[_i]);
}
END_TEST

START_TEST(allowed)
{
	ck_assert_msg(ok(outside[_i]), "%s was refused", outside[_i]);
}
END_TEST

START_TEST(own_addresses)
{
	struct sockaddr sa = { .sa_family = AF_UNIX };
	struct ifaddrs *list, *i;

	ck_assert(!http_address_ok(&sa));
	ck_assert_int_eq(getifaddrs(&list), 0);
	for (i = list; i; i = i->ifa_next)
		if (i->ifa_addr)
			ck_assert_msg(
			    !http_address_ok(i->ifa_addr), "own address on %s", i->ifa_name);
	freeifaddrs(list);
}
END_TEST

START_TEST(urls_refused)
{
	ck_assert_msg(!http_url_ok(bad_urls[_i]), "%s was allowed", bad_urls[_i]);
}
END_TEST

START_TEST(urls_allowed)
{
	ck_assert_msg(http_url_ok(good_urls[_i]), "%s was refused", good_urls[_i]);
}
END_TEST

/* Numbers in every spelling lead to loopback; nothing listens there that answers, and nobody asks.
 */
START_TEST(spellings)
{
	/* clang-format off */
	static const char *const url[] = {
		"https://127.0.0.1/", "https://127.1/", "https://2130706433/", "https://0x7f000001/", "https://0x7f.1/", "https://0177.0.0.1/", "https://017700000001/",
		"https://localhost/", "https://[::1]/", "https://[::ffff:127.0.0.1]/", "https://[::ffff:7f00:1]/", "https://[0:0:0:0:0:0:0:1]/", "https://0/", "https://0.0.0.0/",
		"https://[::]/", "https://169.254.169.254/latest/meta-data/", "https://10.0.0.1/", "https://[fe80::1%25lo]/", "https://127.0.0.1:8443/",
		"https://\xe2\x91\xa0\xe2\x91\xa1\xe2\x91\xa6.0.0.1/", "https://127.0.0.1%2f@8.8.8.8/",
	};
	/* clang-format on */
	struct http_call call = { .url = url[_i], .total_ms = 2000 };
	struct http_answer a = { 0 };

	ck_assert_int_eq(http_send(mem, &call, &a, &err), -1);
	ck_assert_msg(err.code == E_REFUSED || err.code == E_HTTP, "%s: %s", url[_i], err.text);
	ck_assert_msg(err.code == E_REFUSED || _i >= 17, "%s: %s", url[_i], err.text);
}
END_TEST

START_TEST(header_lines)
{
	struct pair headers[] = { { "X-A", "b\r\nX-C: d" }, { NULL, NULL } };
	struct http_call call = { .url = "http://127.0.0.1:9/",
		.flags = HTTP_INTERNAL,
		.headers = headers,
		.total_ms = 1000 };
	struct http_answer a = { 0 };

	ck_assert_int_eq(http_send(mem, &call, &a, &err), -1);
	ck_assert_int_eq(err.code, E_BAD_INPUT);
}
END_TEST

/* Whatever number of seconds a stranger tells: it is waited for, not turned into none. */
static void *
busy_forever(void *arg)
{
	static const char answer[] =
	    "HTTP/1.1 429 Busy\r\nRetry-After: 9223372036854775807\r\nContent-Length: "
	    "0\r\nConnection: close\r\n\r\n";
	int *count = arg, fd;
	char text[2048];

	while ((fd = accept(*count, NULL, NULL)) >= 0) {
		(void)!read(fd, text, sizeof text);
		(void)!write(fd, answer, sizeof answer - 1);
		close(fd);
		count[1]++;
	}
	return NULL;
}

START_TEST(retry_after)
{
	struct sockaddr_un at = { .sun_family = AF_UNIX };
	struct http_answer a = { 0 };
	pthread_t thread;
	int count[2] = { socket(AF_UNIX, SOCK_STREAM, 0), 0 };

	snprintf(at.sun_path, sizeof at.sun_path, "/tmp/hutch-busy-%d.sock", (int)getpid());
	ck_assert_int_eq(bind(count[0], (struct sockaddr *)&at, sizeof at), 0);
	ck_assert_int_eq(listen(count[0], 4), 0);
	ck_assert_int_eq(pthread_create(&thread, NULL, busy_forever, count), 0);
	ck_assert_int_eq(http_send(mem,
			     &(struct http_call){ .url = "http://agent/x",
				 .unix_socket = at.sun_path,
				 .flags = HTTP_INTERNAL,
				 .tries = 3,
				 .total_ms = 20000 },
			     &a, &err),
	    0);
	(void)unlink(at.sun_path);
	(void)shutdown(count[0], SHUT_RDWR);
	pthread_join(thread, NULL);
	close(count[0]);
	ck_assert_int_eq(a.status, 429);
	ck_assert_int_eq(a.retry_after, 24 * 3600);
	ck_assert_int_eq(count[1], 1);
}
END_TEST

/* ---- many at once */

enum { MANY = 40 };

/* Takes every third call and never answers it; the others are answered at once. */
static void *
some_answer(void *arg)
{
	static const char answer[] = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}";
	int listener = *(int *)arg, fd, i;
	char text[2048];
	ssize_t n;

	for (i = 0; i < MANY; i++) {
		fd = accept(listener, NULL, NULL);
		n = read(fd, text, sizeof text - 1);
		text[n > 0 ? n : 0] = '\0';
		if (strstr(text, "/silent "))
			continue; /* open until the process ends */
		(void)!write(fd, answer, sizeof answer - 1);
		close(fd);
	}
	return NULL;
}

struct ends {
	int answered, late, order;
	int last_answer; /* its place among all ends */
};

static void
one_ended(void *arg, size_t i, const struct http_answer *a, const struct err *e)
{
	struct ends *n = arg;

	ck_assert_int_eq(a != NULL, i % 3 != 0);
	n->order++;
	if (a) {
		ck_assert_str_eq(a->body, "{}");
		n->answered++;
		n->last_answer = n->order;
	} else {
		ck_assert_int_eq(e->code, E_TIMEOUT);
		n->late++;
	}
}

START_TEST(a_silent_one_delays_nobody)
{
	struct sockaddr_un a = { .sun_family = AF_UNIX };
	struct http_call call[MANY];
	struct ends n = { 0 };
	struct timespec begin, end;
	pthread_t thread;
	int listener = socket(AF_UNIX, SOCK_STREAM, 0), i;

	snprintf(a.sun_path, sizeof a.sun_path, "/tmp/hutch-many-%d.sock", (int)getpid());
	ck_assert_int_eq(bind(listener, (struct sockaddr *)&a, sizeof a), 0);
	ck_assert_int_eq(listen(listener, MANY), 0);
	for (i = 0; i < MANY; i++)
		call[i] =
		    (struct http_call){ .url = i % 3 ? "http://agent/x" : "http://agent/silent",
			    .unix_socket = a.sun_path,
			    .flags = HTTP_INTERNAL,
			    .total_ms = 3000 };
	pthread_create(&thread, NULL, some_answer, &listener);
	clock_gettime(CLOCK_MONOTONIC, &begin);
	http_send_all(mem, call, MANY, one_ended, &n);
	clock_gettime(CLOCK_MONOTONIC, &end);
	(void)unlink(a.sun_path);
	ck_assert_int_eq(n.late, (MANY + 2) / 3);
	ck_assert_int_eq(n.answered, MANY - (MANY + 2) / 3);
	ck_assert_int_eq(
	    n.last_answer, n.answered); /* all of them before the first that was late */
	ck_assert_int_lt(end.tv_sec - begin.tv_sec, 20); /* one after the other: 42 */
}
END_TEST

/* What cannot be made is told as well; outside targets are not for this. */
static void
refused_one(void *arg, size_t i, const struct http_answer *a, const struct err *e)
{
	(void)i;
	ck_assert_ptr_null(a);
	ck_assert_int_ne(e->code, E_OK);
	++*(int *)arg;
}

START_TEST(many_are_ours)
{
	struct http_call call[] = {
		{ .url = "https://example.org/" },
		{ .url = "http://agent/", .unix_socket = "/tmp/none.sock", .flags = HTTP_INTERNAL }
	};
	int n = 0;

	http_send_all(mem, call, nitems(call), refused_one, &n);
	ck_assert_int_eq(n, 2);
}
END_TEST

Suite *
http_suite(void)
{
	TCase *c;
	Suite *s = suite_new("http", &c);

	tcase_add_loop_test(c, refused, 0, nitems(inside));
	tcase_add_loop_test(c, allowed, 0, nitems(outside));
	tcase_add_test(c, own_addresses);
	tcase_add_test(c, a_silent_one_delays_nobody);
	tcase_add_test(c, many_are_ours);
	tcase_add_loop_test(c, urls_refused, 0, nitems(bad_urls));
	tcase_add_loop_test(c, urls_allowed, 0, nitems(good_urls));
	tcase_add_loop_test(c, spellings, 0, 21);
	tcase_add_test(c, header_lines);
	tcase_add_test(c, retry_after);
	return s;
}
