/* http.c - see http.h. */
#include "http.h"
#include "buf.h"
#include "cidr.h"
#include "cleanup.h"
#include "tls.h"

#include <arpa/inet.h>
#include <curl/curl.h>
#include <errno.h>
#include <ifaddrs.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/random.h>
#include <time.h>

/* Networks nobody outside has business in (spec 04 §4.4); v6 ones may carry a v4 address inside. */
struct net {
	uint8_t addr[16];
	int bits;
};
static const struct net refused4[] = {
	{ { 0 }, 8 },
	{ { 10 }, 8 },
	{ { 100, 64 }, 10 },
	{ { 127 }, 8 },
	{ { 169, 254 }, 16 },
	{ { 172, 16 }, 12 },
	{ { 192, 0, 0 }, 24 },
	{ { 192, 0, 2 }, 24 },
	{ { 192, 88, 99 }, 24 },
	{ { 192, 168 }, 16 },
	{ { 198, 18 }, 15 },
	{ { 198, 51, 100 }, 24 },
	{ { 203, 0, 113 }, 24 },
	{ { 224 }, 3 },
};
static const struct net refused6[] = {
	{ { 0 }, 127 }, /* :: and ::1 */
	{ { 0xfc }, 7 }, { { 0xfe, 0x80 }, 10 }, { { 0xff }, 8 }, { { 0x01 }, 64 },
	{ { 0x20, 0x01, 0x0d, 0xb8 }, 32 }, { { 0x20, 0x01, 0, 0 }, 32 },
	{ { 0 }, 96 }, /* v4-compatible, long dead */
};
/* Here the v4 address inside is judged. */
static const struct {
	struct net net;
	int at; /* byte where the v4 address stands */
} inner4[] = {
	{ { { 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff }, 96 }, 12 },
	{ { { 0, 0x64, 0xff, 0x9b }, 96 }, 12 },
	{ { { 0, 0x64, 0xff, 0x9b, 0, 1 }, 48 }, 12 },
	{ { { 0x20, 0x02 }, 16 }, 2 },
};

/* Repeats per host are at most a tenth of the calls: each call earns 1, each repeat costs 10. */
static struct {
	uint32_t host;
	int credit;
} budgets[64];

struct send {
	void *mem;
	const struct http_call *call;
	struct buf body;
	size_t max;
	bool too_large, refused;
	struct http_answer *ret;
};

/* The operator's own networks: an identity provider may stand inside the house. */
static bool
allowed_private(const struct http_call *c, const struct sockaddr *sa)
{
	struct in6_addr a;

	return c->private_nets && *c->private_nets && cidr_sockaddr(sa, &a) &&
	    cidr_list_has(c->private_nets, &a);
}

static bool
in_net(const uint8_t *addr, const struct net *n)
{
	int whole = n->bits / 8, rest = n->bits % 8;

	if (memcmp(addr, n->addr, whole) != 0)
		return false;
	return !rest || ((addr[whole] ^ n->addr[whole]) >> (8 - rest)) == 0;
}

static bool
ok4(const uint8_t *addr)
{
	size_t i;

	for (i = 0; i < nitems(refused4); i++)
		if (in_net(addr, &refused4[i]))
			return false;
	return true;
}

static bool
ok6(const uint8_t *addr)
{
	size_t i;

	for (i = 0; i < nitems(inner4); i++)
		if (in_net(addr, &inner4[i].net))
			return ok4(addr + inner4[i].at);
	for (i = 0; i < nitems(refused6); i++)
		if (in_net(addr, &refused6[i]))
			return false;
	return true;
}

/* Is it an address of this machine? Public ones too: behind them stands our own door. */
static bool
is_own(const struct sockaddr *sa)
{
	struct ifaddrs *list, *i;
	bool own = false;

	if (getifaddrs(&list) < 0)
		return true;
	for (i = list; i && !own; i = i->ifa_next) {
		if (!i->ifa_addr || i->ifa_addr->sa_family != sa->sa_family)
			continue;
		if (sa->sa_family == AF_INET)
			own = ((const struct sockaddr_in *)sa)->sin_addr.s_addr ==
			    ((const struct sockaddr_in *)i->ifa_addr)->sin_addr.s_addr;
		else if (sa->sa_family == AF_INET6)
			own = memcmp(&((const struct sockaddr_in6 *)sa)->sin6_addr,
				  &((const struct sockaddr_in6 *)i->ifa_addr)->sin6_addr, 16) == 0;
	}
	freeifaddrs(list);
	return own;
}

bool
http_address_ok(const struct sockaddr *sa)
{
	if (sa->sa_family == AF_INET)
		return ok4((const uint8_t *)&((const struct sockaddr_in *)sa)->sin_addr) &&
		    !is_own(sa);
	if (sa->sa_family == AF_INET6)
		return ok6((const uint8_t *)&((const struct sockaddr_in6 *)sa)->sin6_addr) &&
		    !is_own(sa);
	return false;
}

static bool
part_is_absent(CURLU *u, CURLUPart part)
{
	char *text = NULL;
	bool absent = curl_url_get(u, part, &text, 0) != CURLUE_OK;

	curl_free(text);
	return absent;
}

static bool
part_is(CURLU *u, CURLUPart part, unsigned flags, const char *a, const char *b)
{
	char *text = NULL;
	bool is = curl_url_get(u, part, &text, flags) == CURLUE_OK &&
	    (strcmp(text, a) == 0 || (b && strcmp(text, b) == 0));

	curl_free(text);
	return is;
}

static bool
url_ok(const char *url, bool any_port)
{
	CURLU *u = curl_url();
	char *host = NULL;
	bool ok;

	ok = strlen(url) <= 2048 && curl_url_set(u, CURLUPART_URL, url, 0) == CURLUE_OK &&
	    part_is(u, CURLUPART_SCHEME, 0, "https", NULL) &&
	    (any_port || part_is(u, CURLUPART_PORT, CURLU_DEFAULT_PORT, "443", "8443")) &&
	    part_is_absent(u, CURLUPART_USER) && part_is_absent(u, CURLUPART_PASSWORD) &&
	    part_is_absent(u, CURLUPART_FRAGMENT) &&
	    curl_url_get(u, CURLUPART_HOST, &host, 0) == CURLUE_OK && *host &&
	    host[strlen(host) - 1] != '.';
	curl_free(host);
	curl_url_cleanup(u);
	return ok;
}

bool
http_url_ok(const char *url)
{
	return url_ok(url, false);
}

static curl_socket_t
open_socket(void *arg, curlsocktype purpose, struct curl_sockaddr *a)
{
	struct send *s = arg;

	(void)purpose;
	if (!(s->call->flags & HTTP_INTERNAL) && !http_address_ok(&a->addr) &&
	    !allowed_private(s->call, &a->addr)) {
		s->refused = true;
		return CURL_SOCKET_BAD;
	}
	return socket(a->family, a->socktype | SOCK_CLOEXEC, a->protocol);
}

static size_t
take_body(char *p, size_t one, size_t n, void *arg)
{
	struct send *s = arg;

	(void)one;
	if (s->body.len + n > s->max) {
		s->too_large = true;
		return 0;
	}
	buf_add(&s->body, p, n);
	return n;
}

enum { RETRY_MOST = 24 * 3600 }; /* seconds; a stranger's number */

static size_t
take_header(char *p, size_t one, size_t n, void *arg)
{
	struct send *s = arg;
	char *end;

	(void)one;
	if (n > 12 && strncasecmp(p, "retry-after:", 12) == 0) {
		s->ret->retry_after = strtol(p + 12, &end, 10);
		if (end == p + 12 || s->ret->retry_after < 0)
			s->ret->retry_after = -1;
		if (s->ret->retry_after > RETRY_MOST)
			s->ret->retry_after = RETRY_MOST;
	}
	return n;
}

/* One handle a thread for what is inside: its connections are kept. After a fork the child makes
 * its own. */
static CURL *
inner_handle(void)
{
	static _Thread_local CURL *kept;
	static _Thread_local pid_t owner;

	if (!kept || owner != getpid()) {
		kept = curl_easy_init();
		owner = getpid();
	}
	return kept;
}

static struct curl_slist *
header_list(const struct http_call *c, struct err *e)
{
	/* a signature covers every header that stands here, the one that is to be left out, too */
	struct curl_slist *list = c->sigv4 ? NULL : curl_slist_append(NULL, "Expect:");
	const struct pair *h;
	auto_talloc char *tmp = talloc_strdup(NULL, "");

	for (h = c->headers; h && h->name; h++) {
		if (strpbrk(h->name, "\r\n:") || strpbrk(h->value, "\r\n")) {
			curl_slist_free_all(list);
			err_set(e, E_BAD_INPUT, "header %s has a line break", h->name);
			return NULL;
		}
		/* curl wants "Name;" for an empty value */
		list = curl_slist_append(
		    list, talloc_asprintf(tmp, *h->value ? "%s: %s" : "%s;", h->name, h->value));
	}
	return list;
}

static CURLcode
set_tls(CURL *h, void *ssl_ctx, void *arg)
{
	(void)h;
	return tls_ctx_setup(arg, ssl_ctx) == 0 ? CURLE_OK : CURLE_SSL_CERTPROBLEM;
}

/* Certificates of ours, no others; a connection is judged each time it is made. */
static void
mutual(CURL *h, const struct tls_ctx *tls)
{
	curl_easy_setopt(h, CURLOPT_CAINFO, NULL);
	curl_easy_setopt(h, CURLOPT_CAPATH, NULL);
	curl_easy_setopt(h, CURLOPT_SSLVERSION, (long)CURL_SSLVERSION_TLSv1_3);
	curl_easy_setopt(h, CURLOPT_SSL_CTX_FUNCTION, set_tls);
	curl_easy_setopt(h, CURLOPT_SSL_CTX_DATA, (void *)tls);
	curl_easy_setopt(h, CURLOPT_SSL_SESSIONID_CACHE, 0L);
	curl_easy_setopt(h, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_2TLS);
	curl_easy_setopt(h, CURLOPT_FORBID_REUSE, 1L);
	curl_easy_setopt(h, CURLOPT_FRESH_CONNECT, 1L);
}

static void
set_options(CURL *h, struct send *s, struct curl_slist *headers, int64_t left_ms)
{
	const struct http_call *c = s->call;

	curl_easy_reset(h);
	curl_easy_setopt(h, CURLOPT_URL, c->url);
	curl_easy_setopt(h, CURLOPT_NOSIGNAL, 1L);
	curl_easy_setopt(h, CURLOPT_NOPROXY, "*");
	curl_easy_setopt(h, CURLOPT_PROXY, "");
	curl_easy_setopt(h, CURLOPT_FOLLOWLOCATION, 0L);
	curl_easy_setopt(
	    h, CURLOPT_PROTOCOLS_STR, c->flags & HTTP_INTERNAL ? "http,https" : "https");
	curl_easy_setopt(
	    h, CURLOPT_CONNECTTIMEOUT_MS, (long)(c->connect_ms ? c->connect_ms : 3000));
	curl_easy_setopt(h, CURLOPT_TIMEOUT_MS, (long)left_ms);
	curl_easy_setopt(h, CURLOPT_HTTPHEADER, headers);
	curl_easy_setopt(h, CURLOPT_OPENSOCKETFUNCTION, open_socket);
	curl_easy_setopt(h, CURLOPT_OPENSOCKETDATA, s);
	curl_easy_setopt(h, CURLOPT_WRITEFUNCTION, take_body);
	curl_easy_setopt(h, CURLOPT_WRITEDATA, s);
	curl_easy_setopt(h, CURLOPT_HEADERFUNCTION, take_header);
	curl_easy_setopt(h, CURLOPT_HEADERDATA, s);
	curl_easy_setopt(h, CURLOPT_SSLVERSION, (long)CURL_SSLVERSION_TLSv1_2);
	curl_easy_setopt(h, CURLOPT_USERAGENT, "Hutch/" PACKAGE_VERSION);
	if (c->flags & HTTP_H2) {
		curl_easy_setopt(
		    h, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_2_PRIOR_KNOWLEDGE);
		/* libcurl 7.88 (Debian 12) fails the second request on such a connection:
		   "Error in the HTTP2 framing layer" */
		curl_easy_setopt(h, CURLOPT_FORBID_REUSE, 1L);
	}
	if (c->ca_file && *c->ca_file)
		curl_easy_setopt(h, CURLOPT_CAINFO, c->ca_file);
	if (c->tls && c->flags & HTTP_INTERNAL)
		mutual(h, c->tls);
	if (c->sigv4) {
		curl_easy_setopt(h, CURLOPT_AWS_SIGV4, c->sigv4);
		curl_easy_setopt(h, CURLOPT_USERPWD, c->user);
	}
	if (c->unix_socket && c->flags & HTTP_INTERNAL)
		curl_easy_setopt(h, CURLOPT_UNIX_SOCKET_PATH, c->unix_socket);
	if (c->body) {
		curl_easy_setopt(h, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)c->body_len);
		curl_easy_setopt(h, CURLOPT_POSTFIELDS, c->body);
	} else if (c->method && strcmp(c->method, "HEAD") == 0) {
		curl_easy_setopt(h, CURLOPT_NOBODY, 1L);
	}
	if (c->method)
		curl_easy_setopt(h, CURLOPT_CUSTOMREQUEST, c->method);
}

static int64_t
now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

/* How it ended. 0: answered; -1: failed. */
static int
outcome(CURL *h, struct send *s, CURLcode rc, const char *text, bool *again, struct err *e)
{
	char *type = NULL;
	long status = 0;

	if (s->refused)
		return err_set(e, E_REFUSED, "target not allowed");
	if (s->too_large)
		return err_set(e, E_TOO_LARGE, "the answer has more than %zu bytes", s->max);
	*again = rc == CURLE_COULDNT_CONNECT || rc == CURLE_COULDNT_RESOLVE_HOST;
	if (rc == CURLE_OPERATION_TIMEDOUT)
		return err_set(e, E_TIMEOUT, "%s: %s", s->call->url, text);
	if (rc != CURLE_OK)
		return err_set(
		    e, E_HTTP, "%s: %s", s->call->url, *text ? text : curl_easy_strerror(rc));
	curl_easy_getinfo(h, CURLINFO_RESPONSE_CODE, &status);
	curl_easy_getinfo(h, CURLINFO_CONTENT_TYPE, &type);
	s->ret->status = (int)status;
	s->ret->content_type = type ? talloc_strdup(s->mem, type) : NULL;
	*again = status == 429 || (status >= 502 && status <= 504);
	return 0;
}

/* One try; *again: it is worth another. */
static int
send_once(CURL *h, struct send *s, int64_t left_ms, bool *again, struct err *e)
{
	struct curl_slist *headers = header_list(s->call, e);
	char text[CURL_ERROR_SIZE] = "";
	CURLcode rc;

	*again = false;
	if (!headers)
		return -1;
	set_options(h, s, headers, left_ms);
	curl_easy_setopt(h, CURLOPT_ERRORBUFFER, text);
	buf_clear(&s->body);
	rc = curl_easy_perform(h);
	curl_easy_setopt(h, CURLOPT_ERRORBUFFER, NULL);
	curl_slist_free_all(headers);
	return outcome(h, s, rc, text, again, e);
}

/* Charges the host's budget for a repeat; false when it is used up. */
static bool
may_repeat(const char *url, bool repeat)
{
	uint32_t hash = 2166136261u;
	const char *p = strstr(url, "://");
	size_t i;

	for (p = p ? p + 3 : url; *p && *p != '/'; p++)
		hash = (hash ^ (uint8_t)*p) * 16777619u;
	i = hash % nitems(budgets);
	if (budgets[i].host != hash) {
		budgets[i].host = hash;
		budgets[i].credit = 30;
	}
	if (!repeat) {
		if (budgets[i].credit < 100)
			budgets[i].credit++;
		return true;
	}
	if (budgets[i].credit < 10)
		return false;
	budgets[i].credit -= 10;
	return true;
}

/* 200 ms, 400 ms, … up to 5 s, or as told; times 0.8 to 1.0. Random, so that callers do not come
 * together. */
static int64_t
pause_ms(int n, int64_t retry_after)
{
	int64_t ms = retry_after >= 0 ? retry_after * 1000 : 200 << (n < 5 ? n : 5);
	uint32_t r = 0;

	(void)!getrandom(&r, sizeof r, 0);
	return ms - ms / 5 * (r % 1000) / 1000;
}

static void
finish(struct send *s, int64_t start)
{
	buf_add(&s->body, "", 0);
	s->ret->body = s->body.data ? s->body.data : "";
	s->ret->len = s->body.len;
	s->ret->took_ms = now_ms() - start;
}

int
http_send(void *mem, const struct http_call *c, struct http_answer *ret, struct err *e)
{
	int64_t start = now_ms(), end = start + (c->total_ms ? c->total_ms : 10000), wait;
	struct http_answer got = { .retry_after = -1 };
	struct send s = { .mem = mem,
		.call = c,
		.body = BUF(mem),
		.ret = &got,
		.max = c->answer_max ? c->answer_max : 65536 };
	struct err last = { 0 };
	bool again;
	CURL *h;
	int try, rc;

	if (!(c->flags & HTTP_INTERNAL) && !url_ok(c->url, c->private_nets && *c->private_nets))
		return err_set(e, E_REFUSED, "target not allowed");
	h = c->flags & HTTP_INTERNAL ? inner_handle() : curl_easy_init();
	if (!h)
		return err_set(e, E_SYSTEM, "curl_easy_init failed");
	may_repeat(c->url, false);
	for (try = 0;; try++) {
		last = (struct err){ 0 };
		got.retry_after = -1;
		rc = send_once(h, &s, end - now_ms() > 1 ? end - now_ms() : 1, &again, &last);
		wait = pause_ms(try, got.retry_after);
		if (!again || try + 1 >= c->tries || now_ms() + wait >= end ||
		    !may_repeat(c->url, true))
			break;
		nanosleep(&(struct timespec){ wait / 1000, wait % 1000 * 1000000 }, NULL);
	}
	if (!(c->flags & HTTP_INTERNAL))
		curl_easy_cleanup(h);
	if (rc < 0)
		return err_set(e, last.code, "%s", last.text);
	finish(&s, start);
	*ret = got;
	return 0;
}

/* ---- many at once */

enum { AT_ONCE = 256 };

struct one {
	struct send s;
	struct http_answer got;
	struct curl_slist *headers;
	char text[CURL_ERROR_SIZE];
	int64_t start;
	CURL *h;
	size_t i;
};

struct all {
	void *mem;
	CURLM *multi;
	const struct http_call *calls;
	size_t n, next, open;
	void (*done)(void *, size_t, const struct http_answer *, const struct err *);
	void *arg;
};

/* Begins as many as may be open at once. */
static void
begin_more(struct all *a)
{
	while (a->next < a->n && a->open < AT_ONCE) {
		const struct http_call *c = &a->calls[a->next];
		struct one *o = talloc_zero(a->mem, struct one);
		struct err e = { 0 };

		*o = (struct one){ .i = a->next++, .start = now_ms(), .h = curl_easy_init() };
		o->s = (struct send){ .mem = o,
			.call = c,
			.body = BUF(o),
			.ret = &o->got,
			.max = c->answer_max ? c->answer_max : 65536 };
		o->got.retry_after = -1;
		o->headers = header_list(c, &e);
		if (!o->h || !o->headers || !(c->flags & HTTP_INTERNAL)) {
			if (e.code == E_OK)
				(void)err_set(&e, E_SYSTEM, "%s: not made", c->url);
			curl_easy_cleanup(o->h);
			curl_slist_free_all(o->headers);
			a->done(a->arg, o->i, NULL, &e);
			talloc_free(o);
			continue;
		}
		set_options(o->h, &o->s, o->headers, c->total_ms ? c->total_ms : 10000);
		curl_easy_setopt(o->h, CURLOPT_ERRORBUFFER, o->text);
		curl_easy_setopt(o->h, CURLOPT_PRIVATE, o);
		curl_multi_add_handle(a->multi, o->h);
		a->open++;
	}
}

static void
ended(struct all *a, CURL *h, CURLcode rc)
{
	struct err e = { 0 };
	struct one *o;
	bool again;

	curl_easy_getinfo(h, CURLINFO_PRIVATE, &o);
	curl_multi_remove_handle(a->multi, h);
	a->open--;
	if (outcome(h, &o->s, rc, o->text, &again, &e) == 0) {
		finish(&o->s, o->start);
		a->done(a->arg, o->i, &o->got, NULL);
	} else
		a->done(a->arg, o->i, NULL, &e);
	curl_easy_cleanup(h);
	curl_slist_free_all(o->headers);
	talloc_free(o);
}

void
http_send_all(void *mem, const struct http_call *calls, size_t n,
    void (*done)(void *arg, size_t i, const struct http_answer *, const struct err *), void *arg)
{
	struct all a = { .mem = mem,
		.multi = curl_multi_init(),
		.calls = calls,
		.n = n,
		.done = done,
		.arg = arg };
	CURLMsg *m;
	int running, left;

	if (!a.multi)
		abort();
	/* a connection each: sharing would let one wait for another */
	curl_multi_setopt(a.multi, CURLMOPT_PIPELINING, (long)CURLPIPE_NOTHING);
	for (begin_more(&a); a.open; begin_more(&a)) {
		curl_multi_perform(a.multi, &running);
		while ((m = curl_multi_info_read(a.multi, &left)) != NULL)
			if (m->msg == CURLMSG_DONE)
				ended(&a, m->easy_handle, m->data.result);
		if (a.open)
			curl_multi_poll(a.multi, NULL, 0, 1000, NULL);
	}
	curl_multi_cleanup(a.multi);
}
