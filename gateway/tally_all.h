/*
 * tally_all.h - how many at once over all gateway processes of the installation: WebSockets, and
 * those who listen to live events.
 *
 * Each process writes down in Redis how many it has under a key, and shows every 5 s that it lives;
 * counts of one that has not for 20 s do not count any more. What was written is told again when
 * Redis has forgotten it. While Redis is away each process counts for itself.
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>

struct gateway;
struct tally_all;

struct tally_ask {
	const char *key; /* as it is called in Redis, behind hutch:held: */
	size_t max;
};
enum { TALLY_ASKS = 2 }; /* at most, at once */

struct tally_all *tally_all_open(void *mem, struct gateway *);
/* The process ends: what it has does not count any more. */
void tally_all_end(struct tally_all *);

/* One more under each key, until mem is freed. told(arg, good) follows, not before this returns;
   good false: nothing was taken. */
void tally_all_take(struct gateway *, void *mem, const struct tally_ask *, size_t n,
    void (*told)(void *arg, bool good), void *arg);
