/* tally.h - how many requests at once: one credential, or one capsule, must not take all there is.
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>

struct tally;

/* One more under this key, until mem is freed. False: there are max already. */
bool tally_take(struct tally **list, void *mem, const char *key, size_t max);
size_t tally_count(const struct tally *, const char *key);
/* Of every key that somebody has. */
void tally_each(const struct tally *, void (*fn)(void *arg, const char *key, size_t n), void *arg);
