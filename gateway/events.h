/*
 * events.h - live events (spec 04 §6): topics that clients listen to, over SSE and WebSocket.
 *
 * The feed (events_feed.c) reads every event once, in the order of the relay's numbers, and shows
 * it to each subscription; Redis only rings its bell. A subscription that begins, or that has seen
 * events before, reads pages from the table until it has caught up with the feed (events_sub.c).
 */
#pragma once
#include "event.h"
#include "gateway.h"
#include "request.h"
#include "rights.h"

#include <uv.h>

enum {
	TOPICS_MAX = 20,
	FILTERS_MAX = 50,
	LISTENERS_PER_USER = 10,
	LISTENERS_PER_TEAM = 200,
	MESSAGE_MAX = 16 * 1024,
	WAITING_MAX = 1 << 20,  /* for a slow reader: then it is closed */
	PAGE_HIGH = 256 * 1024, /* a replay waits at so much */
	REPLAY_MAX = 10000,
	PAGE = 500,
};

/* An event as it goes out. Of the feed: on its question, gone after the turn. */
struct happening {
	int64_t gpos;
	struct uuid id, team, user, capsule, owner;
	bool has_user, has_capsule, has_owner, private_capsule, lost_capsule;
	const struct event_kind *kind;
	const char *type, *resource_type, *resource_id, *actor_id;
	const char *json; /* the envelope */
	size_t n;
};
struct q_live_event;
struct happening *happenings(void *mem, const struct q_live_event *, int n);

/* ---- topics: events_topic.c */

enum topic_kind { TOPIC_ME, TOPIC_TEAM, TOPIC_CAPSULE, TOPIC_JOB, TOPIC_METRICS };
struct topic {
	enum topic_kind kind;
	const char *name; /* as the client wrote it */
	struct uuid id;   /* of capsule or job */
};

/* Who listens, as he is now. */
struct viewer {
	struct uuid user, team;
	bool has_user, has_team, by_key;
	bool sees_team; /* may see the team's capsules */
	char user_id[ID_SIZE];
	struct right_news now;
};

/* False: a foreign team, or no topic at all; nobody is told which. */
bool topic_read(struct topic *, const char *name, const struct viewer *);
/* E_OK, or why not: E_FORBIDDEN, and E_NOT_FOUND for what he is not told that it is there. */
enum err_code topic_denied(const struct topic *, const struct viewer *);
/* Is it of the topic, and may the viewer see it, now? */
bool topic_shows(const struct topic *, const struct viewer *, const struct happening *);
/* filters: exact names, prefix.*, *, and older names of ours; NULL: everything. */
bool filter_ok(const char *filter);
bool filter_shows(const char *const *filters, const char *type);
/* Something that may have changed what the viewer may do. */
bool changes_rights(const struct viewer *, const struct happening *);

/* ---- listeners and subscriptions: events_sub.c */

struct listener;
struct sub;

/* How a client is spoken to: SSE or WebSocket. */
struct listener_kind {
	void (*event)(
	    struct listener *, struct sub *, const struct topic *, const struct happening *);
	void (*live)(struct listener *, const struct topic *, const char *what, const char *json,
	    size_t n); /* no event: gone when it was said */
	size_t (*queued)(struct listener *);
	void (*begun)(struct sub *); /* its topics hold; sub_go() lets its events follow */
	void (*refused)(struct sub *,
	    enum err_code); /* before it began, or its right was lost; it is gone then */
	void (*gap)(struct sub *, const char *reason);
	void (*end)(struct listener *, int code, const char *reason,
	    enum err_code);                            /* a WebSocket's close code */
	void (*tick)(struct listener *, uint64_t now); /* each second; may be NULL */
};

struct listener {
	struct request *r;
	const struct listener_kind *kind;
	struct viewer who;
	struct right *right;
	void (*ready)(struct listener *); /* once, when the viewer is known and counted */
	bool known, counted;
	void *state; /* the kind's */
	struct sub *subs;
	size_t topics;
	bool over;
	struct listener *next, **at;
};

/* r->access is there. Freed with mem. ready() or the kind's end() follows. */
struct listener *listener_new(
    void *mem, struct request *, const struct listener_kind *, void (*ready)(struct listener *));
/* Ends it, by its kind. */
void listener_end(struct listener *, int code, const char *reason, enum err_code);

struct sub {
	struct listener *l;
	struct topic *topic; /* several only for SSE: they share one place */
	size_t n;
	const char *const *filters; /* ended by NULL, or NULL */
	struct uuid since;
	bool has_since;
	bool metrics; /* of a capsule: what it uses, too */
	void *arg;    /* the kind's */
	/* events_sub.c's */
	enum { SUB_ASKED, SUB_BEHIND, SUB_LIVE } state;
	int64_t pos; /* everything up to here was shown */
	struct page *page;
	size_t shown; /* of the page */
	struct right *right;
	bool held; /* until sub_go() */
	const char *gap;
	struct sub *next, **at;
	/* events_live.c's */
	struct watched *look;
	struct sub *look_next, **look_at;
};

/* On mem of the listener; begun or refused follows, not before this returns. */
struct sub *sub_new(struct listener *, const struct topic *, size_t n);
void sub_start(struct sub *);
/* It began and the client knows: its events follow. */
void sub_go(struct sub *);
/* The client took something: a replay may go on. */
void subs_room(struct listener *);

/* ---- what is no event: events_live.c */

/* If its topics have figures (metrics; a capsule's, when it wants them) they come from now on. */
void live_look(struct sub *);
void live_leave(struct sub *);

/* ---- the feed: events_feed.c */

struct feed {
	struct gateway *gw;
	struct listener *first;
	int64_t pos; /* shown to all who are live; -1: it stands */
	bool reading, again, standing;
	uv_async_t bell;
	struct timer *tick;
};
struct feed *feed_get(struct gateway *);
void feed_wake(struct feed *);
/* Of events_sub.c, for the feed. */
void subs_show(struct listener *, const struct happening *);
void subs_caught_up(struct listener *);

/* A connection as hutch_work, for one question at a time in a thread. NULL: none is free. */
struct reader;
struct reader *reader_take(struct gateway *);
struct db *reader_db(struct reader *);
void reader_return(struct reader *);
