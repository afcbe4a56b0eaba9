/*
 * access.h - who asks, and where the capsule is: credential, permission, capsule's row, in one
 * answer.
 *
 * The database is asked off the loop; a positive answer is remembered for gateway.cache_sec.
 */
#pragma once
#include "id.h"
#include "principal.h"
#include "request.h"

/* Never changed once made; on the request. */
struct access {
	struct uuid team, capsule;
	char id[ID_SIZE]; /* cl-… */
	int64_t epoch;
	const char *host; /* the agent's address: unix:/path */
	char token[65];   /* x-access-token of the guest */
	const char *who;  /* the credential in rate limits */
	struct uuid key;  /* if by_key: the API key */
	bool by_key;
	const char *key_name;
	int32_t key_rate; /* of an API key: requests an hour; 0: no limit of its own */
	const char *state;
	struct credential_look look; /* who asks: for credential_resend() */
};

/* What a request shows of who asks. */
struct creds {
	const char *api_key, *bearer;
	const char *ticket, *purpose;        /* opens routes that have a purpose */
	const char *origin;                  /* of the page that asks, or NULL */
	bool strict;                         /* a page's ticket needs it */
	const struct credential_look *known; /* of an earlier look: nothing else counts */
};
/* Of the headers and the query; nothing when there is none of them. On the request. */
struct creds *creds_read(struct request *);
bool creds_any(const struct creds *);
/* May a page of this origin open streams (gateway.origins)? NULL: no page asks. */
bool origin_allowed(const struct conf *, const char *origin);
/* A private capsule is there for its owner and for those who run the team. */
bool access_visible(const char *visibility, const struct uuid *owner, const struct principal *);

struct doorman;

/* A database connection for a thread of the pool; NULL: none is free. */
struct desk;
struct queue;
struct desk *desk_take(struct doorman *);
struct db *desk_db(struct desk *);
struct queue *desk_queue(struct desk *);
void desk_return(struct doorman *, struct desk *);

struct doorman *doorman_open(void *mem, struct gateway *, struct err *);

/*
 * May the request's credential do its route's thing to the capsule of its path? Sets r->access and
 * calls ok(r), or answers the error. The answer never comes before this returns.
 */
void access_check(struct request *r, void (*ok)(struct request *));

/* The same by r->creds (also behind a 101, when there are no headers any more). no(r): r->work.err
   says why not; nothing was answered. */
struct access_ask {
	void (*ok)(struct request *), (*no)(struct request *);
	bool any_state; /* the capsule may be in any state, and is not woken */
	bool no_wake;   /* it must run */
	bool alone;     /* of no capsule: only who asks */
};
void access_look(struct request *r, const struct access_ask *);

/* Of the client, as the web server says; on mem, or NULL. */
const char *request_address(void *mem, const struct request *);
/* The agent says that the capsule is not there: what we remember of it is old. */
void access_forget(struct gateway *, const struct access *);
