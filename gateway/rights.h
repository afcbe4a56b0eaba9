/*
 * rights.h - may those who look at open streams still do it? Asked every 5 s, one query for all of
 * a process (spec 02 §3.1).
 */
#pragma once
#include "access.h"
#include "principal.h"

struct gateway;
struct right;
struct rights;

/* What became of it: E_OK (told only by right_look()), E_UNAUTHORIZED: login or key ended,
   E_FORBIDDEN: right lost, E_NOT_FOUND, E_BAD_STATE: not running any more, or another epoch;
   E_HOST_UNAVAILABLE: missing; E_DB: not known. state: the capsule's, or NULL. */
typedef void right_told(void *arg, enum err_code, const char *state);

/* Who it is now, told each time it is asked and he still may. */
struct right_news {
	char role[16], platform_role[16]; /* "" : none */
	bool also;                        /* right_of.also too */
};

struct right_of {
	struct credential_look look; /* who: access->look */
	struct uuid key;             /* of an API key */
	const char *ip;
	const struct access *access; /* the capsule and its epoch; NULL: of none */
	struct uuid team;            /* without access */
	enum perm perm;
	bool any_state; /* the capsule may be in any state */
	/* Before told(arg, E_OK), and at every later look; or NULL. */
	void (*news)(void *arg, const struct right_news *);
	enum perm also; /* a second permission, for right_news.also */
};

/* told(arg, …) when it is lost; it may free the right. Freed: nobody asks any more. */
struct right *
right_watch(void *mem, struct gateway *, const struct right_of *, right_told *told, void *arg);
/* Asks at once; told is called in any case. */
void right_look(struct right *);
