/*
 * http1.h - reads one HTTP/1.1 answer of a service in a capsule, as its bytes come (RFC 9112). The
 * service is hostile: what has two meanings is refused.
 */
#pragma once
#include "buf.h"
#include "err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

enum { HTTP1_HEAD_MAX = 64 * 1024, HTTP1_HEADERS = 100 };

struct http1_header {
	const char *name, *value;
};

struct http1_head {
	int status;
	int64_t length;                    /* -1: not known before the end */
	const struct http1_header *header; /* all, ended by a NULL name; valid during on_head */
};

struct http1_events {
	void (*on_head)(void *, const struct http1_head *); /* not of 1xx, but of 101 */
	void (*on_body)(void *, const char *, size_t);
	void (*on_end)(void *); /* the answer is whole; not of 101 */
};

struct http1 {
	const struct http1_events *on;
	void *arg;
	bool no_body; /* the request was a HEAD */
	enum http1_state {
		HTTP1_HEAD,
		HTTP1_LENGTH,
		HTTP1_CLOSE, /* the body lasts until the connection ends */
		HTTP1_SIZE,
		HTTP1_EXTENSION,
		HTTP1_CHUNK,
		HTTP1_CHUNK_END,
		HTTP1_TRAILER,
		HTTP1_UPGRADED, /* what follows is not HTTP */
		HTTP1_DONE,
		HTTP1_BROKEN,
	} state;
	struct buf head;
	int64_t left;
	size_t digits, trailer;
	bool line_empty, cr;
};

/* The memory it takes is mem's. */
void http1_open(struct http1 *, void *mem, bool no_body, const struct http1_events *on, void *arg);
/*
 * How many bytes it used: fewer than n when the answer ended, or became something else, before
 * them. -1: it is no HTTP. An event may not free the parser's memory.
 */
ssize_t http1_feed(struct http1 *, const char *, size_t n, struct err *);
/* The service closed: 0, or -1 when something is missing. */
int http1_eof(struct http1 *, struct err *);
/* Is every byte a token's (RFC 9110 §5.6.2)? */
bool http1_token(const char *, size_t);
/* Is the header's name one of these (NULL ends them)? */
bool http1_among(const char *name, const char *const *);
/* Headers of an answer that are of one hop, or said anew by who passes it on. */
extern const char *const http1_hop[];
