/*
 * back.h - calls to guest agents: one HTTP/2 session per host agent, one stream per call.
 *
 * The agent bridges /agent/v1/capsules/{id}/guest/… to the guest; flow control is end to end.
 */
#pragma once
#include "access.h"
#include "h2.h"
#include "request.h"

struct back;
struct guest;

/* Each may be NULL but on_refused and on_fail. Any of them may free the call. */
struct guest_events {
	void (*on_head)(struct guest *, const struct h2_head *); /* status 2xx */
	/* Any other status, instead of what follows; json: its body, or NULL. */
	void (*on_refused)(struct guest *, int status, struct json_object *json);
	void (*on_data)(struct guest *, const uint8_t *, size_t); /* then guest_consume() */
	void (*on_end)(struct guest *);
	void (*on_drain)(struct guest *);                    /* guest_queued() fell below H2_LOW */
	void (*on_fail)(struct guest *, const struct err *); /* the call ended before its end */
};

struct guest_call {
	const char *method, *path;    /* path with the query, as the guest sees it */
	const char *user;             /* Linux user, or NULL: the template's */
	const char *type;             /* content type, or NULL */
	const char *name, *value;     /* one more header; left out when the value is NULL */
	const struct h2_header *more; /* still more of them, ended by a NULL name; or NULL */
	bool end;                     /* no body */
	bool raw;      /* any status of the guest is on_head(); on_refused() is the host's own */
	bool no_token; /* the guest is asked without x-access-token */
	bool agent;    /* the host agent answers, not the guest: a path behind the capsule's */
	const char *activity; /* to the idle timer: hold, touch, none; NULL: the path decides */
};

struct back *back_open(void *mem, struct gateway *);
/* Freed: the stream is reset. NULL: r->work.err. */
struct guest *guest_open(void *mem, struct request *r, const struct guest_call *,
    const struct guest_events *, void *arg);
/* A byte stream to a port of the guest: on_head when the service took it, then bytes both ways;
   guest_finish() and on_end are the ends of one direction each (on_fail may follow). Nobody listens
   there: on_refused with 502. activity: as of a call; NULL: what passes counts as traffic of a
   port. */
struct guest *tunnel_open(void *mem, struct request *r, unsigned port, const char *activity,
    const struct guest_events *, void *arg);
void *guest_arg(const struct guest *);
void guest_write(struct guest *, const void *, size_t);
void guest_finish(struct guest *);
void guest_consume(struct guest *, size_t);
size_t guest_queued(const struct guest *);
/* The caller has all it wants: the call ends by itself, without an event, or is reset after a
   while. A reset of each would look like abuse to the host. */
void guest_leave(struct gateway *, struct guest *);

/*
 * A call whose answer is read whole (at most 32 MiB): done(r, arg, status, json) with the guest's
 * answer; json is NULL when it has none, and is gone when done returns; done does not free mem.
 * When the guest cannot be reached or is silent for ms (0: no limit) the request is failed and done
 * is not called.
 */
enum { GUEST_MS = 30000 };
typedef void guest_done(struct request *r, void *arg, int status, struct json_object *json);
void guest_ask(void *mem, struct request *r, const char *path, const char *user,
    const struct buf *json, uint64_t ms, guest_done *done, void *arg);

/* The guest's refusal as ours: sets r->work.err from a Connect or plain error body. */
void guest_refused(struct request *r, int status, struct json_object *json);
