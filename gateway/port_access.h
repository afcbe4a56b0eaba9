/*
 * port_access.h - the door of a capsule's ports: where the capsule is, whether it may be reached,
 * and by whom.
 *
 * The row is read off the loop and remembered for a moment; a sleeping capsule is woken. A client
 * shows no credential of ours before this: access.c's question is another one.
 */
#pragma once
#include "access.h"
#include "port_host.h"

enum door_why {
	DOOR_OPEN,
	DOOR_NONE,     /* no such capsule, or it has stopped, or it is not the caller's */
	DOOR_LOGIN,    /* private, and no credential was shown */
	DOOR_REFUSED,  /* private, and what was shown is not good for it: err says why */
	DOOR_PAUSED,   /* asleep, and nobody may wake it so */
	DOOR_STARTING, /* not there yet, or not awake in time */
	DOOR_NO_HOST,  /* lost */
	DOOR_FAILED,   /* err says why: the database, a quota */
};

struct door {
	enum door_why why;
	struct err err;
	struct access access;    /* of DOOR_OPEN */
	bool tls;                /* the service speaks it */
	const char *host_header; /* keep, localhost, or a name */
	const char *state;
};

/* Who stands before it. */
struct door_ask {
	struct port_place at;
	bool guest;                   /* the guest protocol: its own token was checked */
	bool traffic;                 /* the traffic token was shown, and is good */
	bool quiet;                   /* nobody is woken: an open stream is looked at again */
	const char *api_key, *bearer; /* or NULL */
	const struct credential_look *known; /* of a good cookie, or NULL */
	const char *ip;
};

struct doors;
struct doors *doors_open(void *mem, struct gateway *);

/* The answer, once, never before this returns; it is gone when done returns. mem freed: none. */
typedef void door_done(void *arg, const struct door *);
void door_look(void *mem, struct gateway *, const struct door_ask *, door_done *, void *arg);
/* The request goes in by an open one: its access is of the request from now on. */
void door_enter(struct request *, const struct door *);
/* The host says otherwise. */
void door_forget(struct gateway *, const struct uuid *capsule);
