/*
 * worker.c - one process of the pool: accepts a request, reads it, has it dispatched, answers.
 *
 * The loop takes signals only between requests, waits with epoll on a non-blocking listener, drains
 * the input and detaches before it finishes. Each of these was measured against the textbook
 * FCGX_Accept loop, which truncates transfers at restarts (docs/design/fastcgi-loop.md).
 */
#include "pool.h"
#include "request.h"
#include "cidr.h"
#include "cleanup.h"
#include "key_use.h"
#include "log.h"

#include <errno.h>
#include <fcgiapp.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/random.h>

static volatile sig_atomic_t stop;

static void
on_term(int sig)
{
	(void)sig;
	stop = 1;
}

/* A client's id is kept when it is 1-64 of [A-Za-z0-9._-]; else a new one. */
static const char *
request_id(struct request *r)
{
	const char *given = request_env(r, "HTTP_X_REQUEST_ID"), *p;
	struct uuid u;

	for (p = given; p && *p &&
	     (strchr("._-", *p) || (*p >= '0' && *p <= '9') ||
		 ((*p | 32) >= 'a' && (*p | 32) <= 'z'));
	     p++)
		;
	if (given && *given && !*p && p - given <= 64)
		return given;
	u = uuid_new();
	return id_text(r, "", &u);
}

static bool
trusted(const struct conf *c, const char *address)
{
	struct in6_addr a;

	return cidr_address(address, &a) && cidr_list_has(c->http_trusted_proxies, &a);
}

/* The client's address: the last one in X-Forwarded-For that no trusted proxy added. */
static const char *
client_address(struct request *r)
{
	const char *peer = request_env(r, "REMOTE_ADDR");
	const char *forwarded = request_env(r, "HTTP_X_FORWARDED_FOR");
	struct in6_addr a;
	char *list, *p;

	if (!peer || !cidr_address(peer, &a))
		return NULL;
	if (!forwarded || !trusted(r->app->conf, peer))
		return peer;
	list = talloc_strdup(r, forwarded);
	while ((p = strrchr(list, ',')) || *list) {
		char *one = p ? p + 1 : list;

		while (*one == ' ')
			one++;
		if (!cidr_address(one, &a))
			return peer;
		peer = talloc_strdup(r, one);
		if (!trusted(r->app->conf, peer) || !p)
			break;
		*p = '\0';
	}
	return peer;
}

static int
read_all(struct request *r, FCGX_Stream *in)
{
	const char *length = request_env(r, "CONTENT_LENGTH");
	size_t most = r->app->conf->http_body_max_kb * 1024;
	int64_t want = length && *length ? strtoll(length, NULL, 10) : -1;
	struct buf b = BUF(r);
	char part[16384];
	int n;

	if (want > (int64_t)most) {
		r->body_broken = true;
		return fail(r, E_TOO_LARGE, "the body is larger than %zu KiB", most / 1024);
	}
	if (want == 0)
		return 0;
	while ((n = FCGX_GetStr(part, sizeof part, in)) > 0) {
		if (b.len + n > most) {
			r->body_broken = true;
			return fail(r, E_TOO_LARGE, "the body is larger than %zu KiB", most / 1024);
		}
		buf_add(&b, part, n);
	}
	if (FCGX_GetError(in) || (want > 0 && (int64_t)b.len != want)) {
		r->body_broken = true;
		return fail(r, E_BAD_INPUT, "the body ended early");
	}
	r->body_text = b.data;
	r->body_len = b.len;
	return 0;
}

static void
read_request(struct request *r, FCGX_Request *q)
{
	const char *uri, *mark;

	r->env = q->envp;
	r->work.id = request_id(r);
	r->work.trace = request_env(r, "HTTP_TRACEPARENT");
	r->ip = client_address(r);
	r->method = request_env(r, "REQUEST_METHOD");
	uri = request_env(r, "REQUEST_URI");
	r->method = r->method ? r->method : "GET";
	r->uri = uri ? uri : "/";
	/* Apache hands on what the client wrote, and that may be the absolute form */
	if (strncmp(r->uri, "http://", 7) == 0 || strncmp(r->uri, "https://", 8) == 0) {
		r->uri = strchr(r->uri + 8, '/');
		r->uri = r->uri ? r->uri : "/";
	}
	if (strlen(r->uri) > 8192) {
		fail(r, E_URI_TOO_LONG, "the path is longer than 8192 bytes");
		r->uri = "/";
	}
	mark = strchr(r->uri, '?');
	r->path = mark ? talloc_strndup(r, r->uri, mark - r->uri) : r->uri;
	r->query = mark ? mark + 1 : NULL;
	if (r->work.err.code == E_OK)
		(void)read_all(r, q->in);
}

/* Status and headers. Without a length the end of the connection's record is the end of the answer.
 */
static void
head_out(struct request *r, bool whole)
{
	FCGX_Request *q = r->wire;
	struct buf b = BUF(r);

	buf_fmt(&b, "Status: %d\r\n", r->status);
	if (r->status != 204)
		buf_fmt(&b, "Content-Type: %s\r\n",
		    r->content_type ? r->content_type : "application/json");
	if (r->status != 204 && whole)
		buf_fmt(&b, "Content-Length: %zu\r\n", r->out.len);
	buf_fmt(&b, "X-Request-Id: %s\r\nCache-Control: private, no-store\r\n", r->work.id);
	if (r->headers.len)
		buf_add(&b, r->headers.data, r->headers.len);
	buf_str(&b, "\r\n");
	FCGX_PutStr(b.data, b.len, q->out);
}

static void
body_out(struct request *r)
{
	FCGX_Request *q = r->wire;

	if (strcmp(r->method, "HEAD") != 0 && r->status != 204 && r->out.len)
		FCGX_PutStr(r->out.data, r->out.len, q->out);
}

void
reply_more(struct request *r)
{
	if (!r->streaming)
		head_out(r, false);
	r->streaming = true;
	body_out(r);
	buf_clear(&r->out);
}

static void
answer(struct request *r)
{
	if (!r->streaming)
		head_out(r, true);
	body_out(r);
}

/* What is left of the input is read (Apache sends on), but not for ever. */
static bool
drain(FCGX_Stream *in)
{
	char part[4096];
	int turns = 256;

	while (FCGX_GetStr(part, sizeof part, in) > 0)
		if (!turns--)
			return false;
	return !FCGX_GetError(in);
}

static void
serve_one(struct app *app, FCGX_Request *q)
{
	struct request *r = talloc_zero(app->memory, struct request);

	r->app = app;
	r->wire = q;
	read_request(r, q);
	dispatch(r);
	answer(r);
	if (!r->body_broken && drain(q->in))
		FCGX_Detach(q); /* a plain close: no shutdown, poll and read */
	FCGX_Finish_r(q);
	talloc_free(r);
}

static void
set_signals(sigset_t *blocked, sigset_t *running)
{
	struct sigaction sa = { .sa_handler = on_term };

	sigaction(SIGTERM, &sa, NULL);
	sigaction(SIGUSR1, &sa, NULL);
	sigaction(SIGINT, &sa, NULL);
	signal(SIGPIPE, SIG_IGN);
	signal(SIGHUP, SIG_IGN);
	sigemptyset(blocked);
	sigaddset(blocked, SIGTERM);
	sigaddset(blocked, SIGUSR1);
	sigaddset(blocked, SIGINT);
	sigprocmask(SIG_BLOCK, blocked, running);
	sigdelset(running, SIGTERM);
	sigdelset(running, SIGUSR1);
	sigdelset(running, SIGINT);
}

int
worker_run(struct app *app)
{
	struct epoll_event ev = { .events = EPOLLIN | EPOLLEXCLUSIVE };
	int64_t left = app->conf->api_requests;
	sigset_t blocked, running;
	FCGX_Request q;
	auto_fd ep = epoll_create1(EPOLL_CLOEXEC);
	unsigned jitter;
	int rc;

	set_signals(&blocked, &running); /* before FCGX_Init, which would install its own */
	if (getrandom(&jitter, sizeof jitter, 0) == sizeof jitter && left)
		left -= jitter % (left / 5 + 1); /* not all processes end at once */
	fcntl(0, F_SETFL, fcntl(0, F_GETFL) | O_NONBLOCK);
	FCGX_Init();
	FCGX_InitRequest(&q, 0, 0);
	epoll_ctl(ep, EPOLL_CTL_ADD, 0, &ev);
	while (!stop) {
		rc = FCGX_Accept_r(&q);
		if (rc == -EAGAIN) {
			epoll_pwait(ep, &ev, 1, key_use_wait_ms(app->key_use), &running);
			key_use_write(app->key_use, app->db_work, false);
			continue;
		}
		if (rc == -EMFILE || rc == -ENFILE || rc == -ENOMEM) {
			usleep(10000);
			continue;
		}
		if (rc < 0) {
			log_error(NULL, "accept: %s", strerror(-rc));
			return 1;
		}
		serve_one(app, &q);
		if (app->conf->api_requests && --left <= 0)
			break;
		key_use_write(app->key_use, app->db_work, false);
		sigprocmask(SIG_SETMASK, &running, NULL); /* signals arrive here only */
		sigprocmask(SIG_BLOCK, &blocked, NULL);
	}
	key_use_write(app->key_use, app->db_work, true);
	FCGX_Free(&q, 1);
	return 0;
}
