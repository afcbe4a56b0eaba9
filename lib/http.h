/*
 * http.h - every outgoing HTTP request: one function over libcurl, with a deadline, limits and a
 * guard.
 *
 * Without HTTP_INTERNAL the target is somebody else's: https on port 443 or 8443, and every address
 * is judged at connect time, on the socket address itself, so that no name and no rebinding leads
 * inside (spec 04 §4.4). Redirects are never followed, the environment's proxy is never used.
 */
#pragma once
#include "err.h"
#include "field.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

enum {
	HTTP_INTERNAL = 1, /* a part of Hutch: http, any port, any address, connections are kept */
	HTTP_H2 = 2,       /* HTTP/2 without TLS, by prior knowledge (the host agent) */
};

struct tls_ctx;

struct http_call {
	const char *method;         /* NULL: GET */
	const char *url;            /* with unix_socket the host name is only for show */
	const char *unix_socket;    /* only with HTTP_INTERNAL */
	const struct pair *headers; /* ends with a NULL name; may be NULL; CR and LF are refused */
	const void *body;
	size_t body_len;
	unsigned flags;
	const struct tls_ctx
	    *tls; /* only with HTTP_INTERNAL: both sides show certificates (tls.h) */
	const char *private_nets; /* networks the operator allows besides (cidr.h), on any port; may
	                             be NULL */
	const char
	    *ca_file;      /* certificates that are trusted instead of the system's; may be NULL */
	const char *sigv4; /* "aws:amz:REGION:s3": signed with user, as S3 wants it; or NULL */
	const char *user;  /* "access key id:secret access key" */
	int64_t connect_ms, total_ms; /* 0: 3 s, 10 s; total counts all tries */
	int tries; /* 0: 1. Only failures to connect and 502, 503, 504, 429 are repeated, within the
	              budget: repeats are at most one tenth of the calls to a host */
	size_t answer_max; /* 0: 64 KiB */
};

struct http_answer {
	int status;
	const char *body; /* NUL-terminated, on mem */
	size_t len;
	const char *content_type; /* or NULL */
	int64_t retry_after;      /* seconds, at most a day; -1: not told */
	int64_t took_ms;
};

/*
 * Makes the call. 0: the server answered, with whatever status. -1: E_REFUSED (target not allowed),
 * E_TIMEOUT, E_TOO_LARGE (of the answer), E_BAD_INPUT (of the call), E_HTTP (refused, reset, TLS).
 */
int http_send(void *mem, const struct http_call *, struct http_answer *ret, struct err *);

/*
 * Makes all calls at the same time, each once (tries is not looked at) and with a deadline of its
 * own: done(arg, i, answer, NULL) or done(arg, i, NULL, err) as each ends, so that one that hangs
 * keeps nobody waiting. Of parts of Hutch only (HTTP_INTERNAL). Returns behind the last done().
 */
void http_send_all(void *mem, const struct http_call *, size_t n,
    void (*done)(void *arg, size_t i, const struct http_answer *, const struct err *), void *arg);

/* May an external request go there? Exposed for tests. */
bool http_address_ok(const struct sockaddr *);
bool http_url_ok(const char *url);
