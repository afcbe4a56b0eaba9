/*
 * observer.h - what happens in a directory: inotify, one instance for each who wants to know.
 *
 * New directories are observed at once, and what is in them already is told as created. Nobody
 * else's memory waits: while nothing is read the kernel keeps a bounded number of events, and says
 * when it lost some.
 */
#pragma once
#include "buf.h"
#include "err.h"
#include <stdbool.h>

struct observer;
struct user;

struct observed {
	struct user *user; /* with whose rights; becomes a child of the observer */
	const char *path;
	bool recursive, entries, network; /* entries: with EntryInfo; network: such mounts, too */
	/* json: {"name","type","entry"?}; NULL: events were lost, no more come; only this one may
	   free the observer */
	void (*on_event)(void *arg, const struct buf *json);
	void *arg;
};

/* NULL: E_NOT_FOUND, E_BAD_INPUT (no directory), E_FORBIDDEN, E_BAD_STATE (a network mount),
   E_TOO_LARGE. A child of mem. */
struct observer *observer_new(void *mem, const struct observed *, struct err *);
/* false: no more events for now. */
void observer_go(struct observer *, bool go);
