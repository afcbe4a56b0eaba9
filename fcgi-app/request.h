/*
 * request.h - one request to the REST API, and the words to answer it with.
 *
 * dispatch.c fills it in this order: route, input (checked by the route's field table), caller and
 * permission, rate limit, idempotency; then the handler runs, inside the transaction when the
 * method changes something; after the commit r->after, if the handler set it.
 */
#pragma once
#include "conf.h"
#include "proto/route.h"
#include "queue.h"
#include "work.h"

/* What a process of the pool has for all its requests. */
struct app {
	const struct conf *conf;
	const struct keys *keys;
	struct db *db;       /* role hutch_app */
	struct db *db_work;  /* role hutch_work: routes of the platform and of hosts */
	struct queue *queue; /* Redis */
	struct token_seen *tokens;
	struct use_log *key_use; /* requests by API key, not yet written down */
	void *memory;            /* a talloc pool that every request lives in; empty between two */
	const char *pool;        /* "api" or "ops" */
};

struct header {
	const char *name, *value;
};

struct request {
	struct work work; /* first: a request is a unit of work */
	struct app *app;
	const struct route *route;
	const void *in; /* the route's input struct, filled and checked */
	struct principal who;
	bool own_only; /* the permission holds only for what the caller made himself */
	const char *method, *uri, *path, *query;
	char *const *env; /* FastCGI parameters */
	const char *ip;   /* the client's, behind trusted proxies only */
	struct json_object *body;
	const char *body_text;
	size_t body_len;
	bool body_broken; /* input ended early or was too large: the rest is not drained */
	int status;
	struct buf out;           /* the answer's JSON */
	const char *content_type; /* NULL: JSON */
	bool streaming;           /* reply_more() has sent the head */
	void *wire;               /* worker.c's */
	struct buf headers;       /* extra header lines, each with CRLF */
	handler *after;           /* after the commit: may replace the answer */
	void *after_arg;
	const char *replay_key; /* Idempotency-Key in force, or NULL */
	struct uuid replay_scope;
};

/* n is what the query returned: -1 failed, 0 none, else how many. status 0: the route's own. */
int reply_row(struct request *, int n, const void *row); /* the route's status, or 404 */
int reply_with(struct request *, const struct field *, const void *row);
int reply_rows(struct request *, int n, const void *rows, size_t size); /* a bare array */
int reply_done(struct request *, int n);                                /* 204, or 404 */
void reply_header(struct request *, const char *name, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

/* Sends what stands in r->out so far, with the head before the first piece: for answers too large
 * to be held. */
void reply_more(struct request *);

/* Sets the unit's error; returns -1. */
int fail(struct request *, enum err_code, const char *, ...) __attribute__((format(printf, 3, 4)));

/* The dialect of spec 06 (routes with E2B): the status and code by which its clients know an error,
 * and the body that tells it. */
int e2b_status(enum err_code, const char **slug);
void e2b_error(struct request *);

/* A request header, by its name in the CGI environment ("HTTP_ORIGIN"), or NULL. */
const char *request_env(const struct request *, const char *name);

/*
 * Paging by key (spec 00 §3): newest first, (time, id). The input struct of a list has `limit` and
 * `cursor` (PAGE_FIELDS). page_read() turns the cursor into the key to begin below; NULL_INT and
 * NULL on the first page. Ask the query for limit + 1 rows; page_reply() answers with limit and
 * links the next.
 */
struct page {
	int64_t before;
	const struct uuid *before_id;
	int32_t limit;
};
#define PAGE_FIELDS(st)                                                                 \
	FIELD(st, limit, "limit", .flags = IN_QUERY, .min = 1, .max = 200, .dflt = 100, \
	    .doc = "Rows in this page."),                                               \
	    FIELD(st, cursor, "cursor", .flags = IN_QUERY,                              \
		.doc = "X-Next-Cursor of the page before.")
/* The cursor that begins below this row. */
const char *page_cursor(struct request *, int64_t at, const struct uuid *id);
int page_read(struct request *, int32_t limit, const char *cursor, struct page *ret);
/* X-Next-Token instead of X-Next-Cursor and Link, as clients of spec 06 have it. */
int e2b_page_reply(struct request *, int n, const void *rows, size_t size, const struct page *,
    size_t time_off, size_t id_off);
int page_reply(struct request *, int n, const void *rows, size_t size, const struct page *,
    size_t time_off, size_t id_off);

/* The links to the next page alone, for answers that are no bare array. */
void page_link(struct request *, int n, const void *rows, size_t size, const struct page *,
    size_t time_off, size_t id_off);

/* dispatch.c */
void dispatch(struct request *);
/* Takes a token of a bucket that holds n and gains n in `seconds`. -1: E_RATE; the answer's headers
 * tell. */
int rate_limited(struct request *, const char *what, const char *who, int64_t n, int64_t seconds);
/* -1 with E_REAUTH unless the caller has lately proven who he is (auth.reauth). */
int proven_lately(struct request *);
/* %-decoding of a value of a query or form; '+' is a blank there. NULL: a bad escape, a control
 * character. */
const char *query_decode(void *mem, const char *, size_t);
/* The query's parameters whose names begin with the prefix, decoded, without it; NULL and err when
 * malformed. */
const struct pair *query_pairs(struct request *, const char *prefix);
/* route.c */
extern const struct route *const route_tables[];
/* Does the path begin as those of spec 06 do? For errors before a route is found. */
bool route_is_e2b(const char *path);
const struct route *route_find(struct request *, void *path_values, const char **allow);
