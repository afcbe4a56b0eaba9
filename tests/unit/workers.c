/* workers.c - lib/ of jobs, events, mails: dictionary, envelope, back-off, Mustache, HTTP guard,
 * local buckets. */
#include "cleanup.h"
#include "event.h"
#include "http.h"
#include "job.h"
#include "mail.h"
#include "mustache.h"
#include "queue.h"

#include <arpa/inet.h>
#include <check.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/un.h>
#include <talloc.h>
#include <unistd.h>

static void *mem;

static void
setup(void)
{
	mem = talloc_named_const(NULL, 0, "test");
}

static void
teardown(void)
{
	talloc_free(mem);
}

/* ---- Mustache ---- */

static const struct pair vars[] = { { "name", "Ada & <Bob>" }, { "empty", "" }, { "nl", "a\r\nb" },
	{ "yes", "1" }, { 0 } };

static const struct {
	const char *in, *html, *plain;
} mustache[] = {
	{ "Hi {{name}}!", "Hi Ada &amp; &lt;Bob&gt;!", "Hi Ada & <Bob>!" },
	{ "{{{name}}} {{&name}}", "Ada & <Bob> Ada & <Bob>", "Ada & <Bob> Ada & <Bob>" },
	{ "{{ name }}", "Ada &amp; &lt;Bob&gt;", "Ada & <Bob>" },
	{ "a{{unknown}}b{{empty}}c", "abc", "abc" },
	{ "{{nl}}", "a  b", "a  b" },
	{ "{{#yes}}x{{/yes}}{{^yes}}y{{/yes}}", "x", "x" },
	{ "{{#empty}}x{{name}}{{/empty}}{{^empty}}y{{/empty}}", "y", "y" },
	{ "{{#yes}}a{{#empty}}b{{#yes}}c{{/yes}}{{/empty}}d{{/yes}}", "ad", "ad" },
	{ "1\n{{#yes}}\n2\n{{/yes}}\n3\n", "1\n2\n3\n", "1\n2\n3\n" },
	{ "1\n  {{#empty}}  \n2\n{{/empty}}\n3", "1\n3", "1\n3" },
	{ "a {{! remark }} b\n{{! alone }}\nc", "a  b\nc", "a  b\nc" },
	{ "no braces { } }} {", "no braces { } }} {", "no braces { } }} {" },
};

START_TEST(test_mustache)
{
	struct buf html = BUF(mem), plain = BUF(mem);
	struct err e = { 0 };

	ck_assert_int_eq(mustache_render(&html, mustache[_i].in, vars, MUSTACHE_HTML, &e), 0);
	ck_assert_int_eq(mustache_render(&plain, mustache[_i].in, vars, MUSTACHE_PLAIN, &e), 0);
	ck_assert_str_eq(html.data, mustache[_i].html);
	ck_assert_str_eq(plain.data, mustache[_i].plain);
}
END_TEST

START_TEST(test_mustache_bad)
{
	static const char *const bad[] = { "{{name", "{{#yes}}", "{{/yes}}", "{{#yes}}{{/no}}",
		"{{a b}}", "{{}}", "{{{name}}", "{{>partial}}",
		"{{#a}}{{#a}}{{#a}}{{#a}}{{#a}}{{#a}}{{#a}}{{#a}}{{#a}}" };
	struct buf out = BUF(mem);
	struct err e = { 0 };

	ck_assert_int_eq(mustache_render(&out, bad[_i], vars, MUSTACHE_HTML, &e), -1);
	ck_assert_int_eq(e.code, E_CONFIG);
}
END_TEST

/* ---- mail ---- */

START_TEST(test_mail_templates)
{
	static struct conf c;
	struct mail m = { 0 };
	struct err e = { 0 };
	const struct mail_kind *k;

	c.mail_templates = SRCDIR "/share/mail";
	for (k = mail_kinds; k->name; k++) {
		ck_assert_msg(mail_render(mem, &c, k->name, "xx", vars, &m, &e) == 0, "%s: %s",
		    k->name, e.text);
		ck_assert_ptr_null(strpbrk(m.subject, "\r\n"));
		ck_assert_ptr_nonnull(strstr(m.html, "Ada &amp; &lt;Bob&gt;"));
		ck_assert_ptr_nonnull(strstr(m.text, "Ada & <Bob>"));
		ck_assert_ptr_null(strstr(m.html, "<img"));
	}
	ck_assert_int_eq(mail_render(mem, &c, "no_such", "en", vars, &m, &e), -1);
}
END_TEST

/* ---- events ---- */

START_TEST(test_dictionary)
{
	const struct event_kind *k, *other;

	for (k = event_kinds; k->type; k++) {
		for (other = k + 1; other->type; other++)
			ck_assert_str_ne(k->type, other->type);
		ck_assert_ptr_eq(event_kind(k->type), k);
		ck_assert(*k->audience && *k->doc && *k->category);
	}
	ck_assert_str_eq(event_kind("app.anything.at_all")->type, "app.*");
	ck_assert_ptr_null(event_kind("app."));
	ck_assert_ptr_null(event_kind("capsule.creat"));
	ck_assert_ptr_null(event_kind("capsule.created2"));
}
END_TEST

/* Refused before the database is asked: there is none here. */
START_TEST(test_event_refused)
{
	struct work w = { 0 };

	ck_assert_int_eq(event_add(&w, &(struct event){ .type = "capsule.exploded" }), -1);
	ck_assert_int_eq(w.err.code, E_BUG);
	w.err = (struct err){ 0 };
	ck_assert_int_eq(
	    event_add(&w, &(struct event){ .type = "capsule.created", .data = "{\"templat\":1}" }),
	    -1);
	ck_assert_int_eq(w.err.code, E_BUG);
	w.err = (struct err){ 0 };
	ck_assert_int_eq(
	    event_add(&w, &(struct event){ .type = "capsule.created", .data = "[1]" }), -1);
	ck_assert_int_eq(w.err.code, E_BUG);
}
END_TEST

START_TEST(test_envelope)
{
	struct buf b = BUF(mem);
	struct event_row r = { .id = &uuid_zero,
		.team = &uuid_zero,
		.capsule = &uuid_zero,
		.at = 1795251600000000,
		.seq = 4711,
		.v = 1,
		.type = "capsule.paused",
		.category = "lifecycle",
		.actor_type = "system",
		.actor_id = "usr-hidden",
		.actor_name = "hidden",
		.resource_type = "sandbox",
		.resource_id = "cl-1",
		.request_id = "r\"1",
		.data = "{\"a b\": \"c, \\\" d: e\", \"n\": [1, 2]}" };

	event_envelope(&b, &r);
	ck_assert_str_eq(b.data,
	    "{\"event\":\"capsule.paused\",\"timestamp\":\"2026-11-21T09:00:00Z\",\"team_id\":"
	    "\"team-0000000000000000000000000\","
	    "\"actor\":{\"type\":\"system\"},\"resource\":{\"id\":\"cl-1\",\"type\":\"sandbox\"},"
	    "\"id\":\"evt-0000000000000000000000000\",\"seq\":4711,\"v\":1,\"category\":"
	    "\"lifecycle\","
	    "\"capsule_id\":\"cl-0000000000000000000000000\",\"request_id\":\"r\\\"1\","
	    "\"data\":{\"a b\":\"c, \\\" d: e\",\"n\":[1,2]}}");
}
END_TEST

/* ---- jobs ---- */

START_TEST(test_kinds)
{
	const struct job_kind_row *k;
	const struct job_timer *t;

	for (k = job_kind_rows; k->name; k++) {
		ck_assert_msg(job_queue(k->queue) != NULL, "%s: no queue %s", k->name, k->queue);
		ck_assert(k->priority >= 0 && k->priority <= 100 && *k->doc);
	}
	for (t = job_timers; t->kind; t++)
		ck_assert_msg(job_kind_row(t->kind) != NULL, "timer %s has no kind", t->kind);
}
END_TEST

static const struct {
	enum err_code code;
	int attempts, waits;
	int64_t retry_after;
	enum job_end how;
	int64_t least_ms, most_ms;
} judged[] = {
	{ E_AGENT, 1, 0, -1, JOB_AGAIN, 4000, 5000 },
	{ E_AGENT, 3, 0, -1, JOB_AGAIN, 16000, 20000 },
	{ E_AGENT, 9, 0, -1, JOB_AGAIN, 480000, 600000 },
	{ E_AGENT, 10, 0, -1, JOB_FAILED, 0, 600000 },
	{ E_NO_HOSTS, 1, 0, -1, JOB_AGAIN, 24000, 30000 },
	{ E_THROTTLED, 9, 0, -1, JOB_AGAIN, 1440000, 1800000 },
	{ E_THROTTLED, 1, 0, 100, JOB_AGAIN, 100000, 125000 },
	{ E_CONFLICT, 99, 0, -1, JOB_BUSY, 1600, 2000 },
	{ E_CONFLICT, 99, 40, -1, JOB_BUSY, 24000, 30000 },
	{ E_NOT_FOUND, 1, 0, -1, JOB_FAILED, 0, 0 },
	{ E_CANCELLED, 1, 0, -1, JOB_CANCELLED, 0, 0 },
};

START_TEST(test_judge)
{
	const struct job_kind_row row = { .name = "x", .tries = 10 };
	struct err e = { .code = judged[_i].code, .text = "why" };
	struct job_ending end;

	job_judge(&row, judged[_i].attempts, judged[_i].waits, judged[_i].retry_after, &e, &end);
	ck_assert_int_eq(end.how, judged[_i].how);
	ck_assert_int_ge(end.delay_us, judged[_i].least_ms * 1000);
	ck_assert_int_le(end.delay_us, judged[_i].most_ms * 1000);
}
END_TEST

START_TEST(test_judge_for_ever)
{
	const struct job_kind_row row = { .name = "x", .tries = 0 };
	struct err e = { .code = E_AGENT };
	struct job_ending end;

	job_judge(&row, 100000, 0, -1, &e, &end);
	ck_assert_int_eq(end.how, JOB_AGAIN);
}
END_TEST

/* ---- rate limits without Redis ---- */

START_TEST(test_local_bucket)
{
	static const struct conf c = { .redis_socket = "/nonexistent/redis.sock",
		.redis_timeout_ms = 100 };
	struct queue *q = queue_open(mem, &c);
	struct rate rate;
	int i;

	for (i = 0; i < 5; i++) {
		ck_assert_int_eq(rate_take(q, "a", 5, 60, &rate), 1);
		ck_assert_int_eq(rate.limit, 5);
		ck_assert_int_eq(rate.remaining, 4 - i);
	}
	ck_assert_int_eq(rate_take(q, "a", 5, 60, &rate), 0);
	ck_assert_int_eq(rate.retry_after, 1);
	ck_assert_int_eq(rate.reset_sec, 5);
	ck_assert_int_eq(rate_take(q, "b", 5, 60, &rate), 1);
	ck_assert(!queue_up(q));
	usleep(1100000);
	ck_assert_int_eq(rate_take(q, "a", 5, 60, &rate), 1);
}
END_TEST

/* ---- a Redis that was started again ---- */

/* Twice a connection that answers one command and ends; a byte to `told` says that it has ended. */
static void
ends_twice(int listener, int told)
{
	char text[256];
	int i, fd;

	for (i = 0; i < 2; i++) {
		fd = accept(listener, NULL, NULL);
		if (read(fd, text, sizeof text) <= 0 || write(fd, "+PONG\r\n", 7) != 7)
			_exit(1);
		close(fd);
		if (write(told, "", 1) != 1)
			_exit(1);
	}
	_exit(0);
}

START_TEST(test_ended_while_idle)
{
	struct sockaddr_un a = { .sun_family = AF_UNIX };
	auto_fd listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	struct conf c = { .redis_socket = a.sun_path, .redis_timeout_ms = 5000 };
	struct queue *q = queue_open(mem, &c);
	int told[2], i;
	char byte;

	snprintf(a.sun_path, sizeof a.sun_path, "/tmp/hutch-unit-redis-%d", (int)getpid());
	(void)unlink(a.sun_path);
	ck_assert_int_eq(bind(listener, (struct sockaddr *)&a, sizeof a), 0);
	ck_assert_int_eq(listen(listener, 2), 0);
	ck_assert_int_eq(pipe(told), 0);
	if (fork() == 0)
		ends_twice(listener, told[1]);
	for (i = 0; i < 2; i++) { /* the second time the connection of the first is over */
		auto_reply *r = queue_cmd(q, "PING");

		ck_assert_ptr_nonnull(r);
		ck_assert_str_eq(r->str, "PONG");
		ck_assert_int_eq(read(told[0], &byte, 1), 1);
	}
	(void)unlink(a.sun_path);
	close(told[0]);
	close(told[1]);
}
END_TEST

/* ---- HTTP ---- */

static const struct {
	const char *address;
	bool ok;
} addresses[] = {
	{ "8.8.8.8", true },
	{ "1.1.1.1", true },
	{ "0.0.0.0", false },
	{ "10.1.2.3", false },
	{ "100.64.0.1", false },
	{ "100.128.0.1", true },
	{ "127.0.0.1", false },
	{ "127.255.255.254", false },
	{ "169.254.169.254", false },
	{ "172.15.255.255", true },
	{ "172.16.0.1", false },
	{ "172.31.255.255", false },
	{ "172.32.0.1", true },
	{ "192.0.0.1", false },
	{ "192.0.2.1", false },
	{ "192.88.99.1", false },
	{ "192.168.1.1", false },
	{ "198.18.0.1", false },
	{ "198.19.255.255", false },
	{ "198.51.100.1", false },
	{ "203.0.113.9", false },
	{ "224.0.0.1", false },
	{ "255.255.255.255", false },
	{ "2606:4700::1111", true },
	{ "2a00:1450::1", true },
	{ "::", false },
	{ "::1", false },
	{ "::7f00:1", false },
	{ "fc00::1", false },
	{ "fd12:3456::1", false },
	{ "fe80::1", false },
	{ "febf::1", false },
	{ "ff02::1", false },
	{ "100::1", false },
	{ "2001:db8::1", false },
	{ "2001::1", false },
	{ "::ffff:127.0.0.1", false },
	{ "::ffff:10.0.0.1", false },
	{ "::ffff:8.8.8.8", true },
	{ "64:ff9b::7f00:1", false },
	{ "64:ff9b::808:808", true },
	{ "64:ff9b:1::a00:1", false },
	{ "2002:7f00:1::", false },
	{ "2002:a00:1::", false },
	{ "2002:808:808::", true },
};

START_TEST(test_address)
{
	struct sockaddr_in a4 = { .sin_family = AF_INET };
	struct sockaddr_in6 a6 = { .sin6_family = AF_INET6 };
	const char *text = addresses[_i].address;
	bool got;

	if (inet_pton(AF_INET, text, &a4.sin_addr) == 1) {
		got = http_address_ok((struct sockaddr *)&a4);
	} else {
		ck_assert_int_eq(inet_pton(AF_INET6, text, &a6.sin6_addr), 1);
		got = http_address_ok((struct sockaddr *)&a6);
	}
	ck_assert_msg(got == addresses[_i].ok, "%s", text);
}
END_TEST

static const struct {
	const char *url;
	bool ok;
} urls[] = {
	{ "https://example.org/hook", true },
	{ "https://example.org:8443/hook", true },
	{ "http://example.org/hook", false },
	{ "https://example.org:22/", false },
	{ "https://user@example.org/", false },
	{ "https://user:pw@example.org/", false },
	{ "https://example.org/#f", false },
	{ "https://example.org./", false },
	{ "file:///etc/passwd", false },
	{ "gopher://example.org/", false },
	{ "example.org", false },
	{ "", false },
	{ "https://", false },
};

START_TEST(test_url)
{
	ck_assert_msg(http_url_ok(urls[_i].url) == urls[_i].ok, "%s", urls[_i].url);
}
END_TEST

/* These look like names; what they resolve to is refused at connect. */
START_TEST(test_refused)
{
	static const char *const url[] = { "https://127.0.0.1/", "https://2130706433/",
		"https://0x7f000001/", "https://0177.0.0.1/", "https://127.1/",
		"https://localhost/", "https://[::1]/", "https://[::ffff:127.0.0.1]:8443/",
		"http://127.0.0.1/" };
	struct http_call c = { .url = url[_i], .connect_ms = 500, .total_ms = 1000 };
	struct http_answer a;
	struct err e = { 0 };

	ck_assert_int_eq(http_send(mem, &c, &a, &e), -1);
	ck_assert_int_eq(e.code, E_REFUSED);
	ck_assert_str_eq(e.text, "target not allowed");
}
END_TEST

/* Answers each connection with the next of `answers`. */
static const char *const answers[] = {
	"HTTP/1.1 503 No\r\nRetry-After: 0\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
	"HTTP/1.1 200 OK\r\nContent-Type: text/x\r\nContent-Length: 5\r\nConnection: "
	"close\r\n\r\nhello",
	"HTTP/1.1 302 Found\r\nLocation: /other\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
	"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\nConnection: "
	"close\r\n\r\nxxxxxxxxxxxxxxxxxxxx",
	NULL
};
static char request[4][2048];

static void *
serve(void *arg)
{
	int listener = *(int *)arg, fd, i;
	ssize_t n;

	for (i = 0; answers[i]; i++) {
		fd = accept(listener, NULL, NULL);
		n = read(fd, request[i], sizeof request[i] - 1);
		(void)!write(fd, answers[i], strlen(answers[i]));
		close(fd);
		if (n < 0)
			break;
	}
	return NULL;
}

START_TEST(test_send)
{
	struct sockaddr_un a = { .sun_family = AF_UNIX };
	const struct pair header[] = { { "hutch-op", "job-1/2" }, { "x-empty", "" }, { 0 } };
	const struct pair evil[] = { { "a", "b\r\nc: d" }, { 0 } };
	struct http_call c = { .method = "PUT",
		.url = "http://agent/agent/v1/info",
		.unix_socket = a.sun_path,
		.headers = header,
		.body = "{}",
		.body_len = 2,
		.flags = HTTP_INTERNAL,
		.tries = 3 };
	struct http_answer got;
	struct err e = { 0 };
	pthread_t thread;
	int listener = socket(AF_UNIX, SOCK_STREAM, 0);

	snprintf(a.sun_path, sizeof a.sun_path, "/tmp/hutch-unit-%d.sock", (int)getpid());
	ck_assert_int_eq(bind(listener, (struct sockaddr *)&a, sizeof a), 0);
	ck_assert_int_eq(listen(listener, 4), 0);
	pthread_create(&thread, NULL, serve, &listener);
	ck_assert_msg(http_send(mem, &c, &got, &e) == 0, "%s", e.text);
	ck_assert_int_eq(got.status, 200);
	ck_assert_str_eq(got.body, "hello");
	ck_assert_str_eq(got.content_type, "text/x");
	ck_assert_ptr_nonnull(strstr(request[1], "PUT /agent/v1/info HTTP/1.1\r\n"));
	ck_assert_ptr_nonnull(strstr(request[1], "hutch-op: job-1/2\r\n"));
	ck_assert_ptr_nonnull(strstr(request[1], "x-empty:\r\n"));
	ck_assert_ptr_null(strstr(request[1], "Expect"));
	c = (struct http_call){
		.url = "http://agent/r", .unix_socket = a.sun_path, .flags = HTTP_INTERNAL
	};
	ck_assert_int_eq(http_send(mem, &c, &got, &e), 0);
	ck_assert_int_eq(got.status, 302); /* not followed */
	c.answer_max = 10;
	ck_assert_int_eq(http_send(mem, &c, &got, &e), -1);
	ck_assert_int_eq(e.code, E_TOO_LARGE);
	e = (struct err){ 0 };
	c.headers = evil;
	ck_assert_int_eq(http_send(mem, &c, &got, &e), -1);
	ck_assert_int_eq(e.code, E_BAD_INPUT);
	pthread_join(thread, NULL);
	close(listener);
	unlink(a.sun_path);
	e = (struct err){ 0 };
	c.headers = NULL;
	ck_assert_int_eq(http_send(mem, &c, &got, &e), -1);
	ck_assert_int_eq(e.code, E_HTTP);
}
END_TEST

#define N(a) (int)(sizeof(a) / sizeof((a)[0]))

int
main(void)
{
	Suite *suite = suite_create("workers");
	SRunner *runner = srunner_create(suite);
	TCase *c = tcase_create("workers");
	int failed;

	tcase_add_checked_fixture(c, setup, teardown);
	tcase_set_timeout(c, 20);
	tcase_add_loop_test(c, test_mustache, 0, N(mustache));
	tcase_add_loop_test(c, test_mustache_bad, 0, 9);
	tcase_add_test(c, test_mail_templates);
	tcase_add_test(c, test_dictionary);
	tcase_add_test(c, test_event_refused);
	tcase_add_test(c, test_envelope);
	tcase_add_test(c, test_kinds);
	tcase_add_loop_test(c, test_judge, 0, N(judged));
	tcase_add_test(c, test_judge_for_ever);
	tcase_add_test(c, test_local_bucket);
	tcase_add_test(c, test_ended_while_idle);
	tcase_add_loop_test(c, test_address, 0, N(addresses));
	tcase_add_loop_test(c, test_url, 0, N(urls));
	tcase_add_loop_test(c, test_refused, 0, 9);
	tcase_add_test(c, test_send);
	suite_add_tcase(suite, c);
	srunner_run_all(runner, CK_NORMAL);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed != 0;
}
