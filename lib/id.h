/*
 * id.h - identifiers: UUIDv7 inside (RFC 9562), prefix and 25 base36 characters outside (spec 00
 * §2).
 */
#pragma once
#include "err.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct uuid {
	uint8_t b[16];
};

extern const struct uuid uuid_zero; /* the Platform team */

enum { ID_DIGITS = 25, ID_SIZE = 8 + ID_DIGITS + 1 }; /* longest prefix "cluster-", digits, NUL */

/* A new UUIDv7: 48 bits of milliseconds, 12 of their fraction, 62 random. Strictly rising in a
 * process. */
struct uuid uuid_new(void);
bool uuid_equal(const struct uuid *, const struct uuid *);

/* The wire form; out has ID_SIZE bytes. Returns out. */
char *id_write(char *out, const char *prefix, const struct uuid *);
/* Same, on mem. */
const char *id_text(void *mem, const char *prefix, const struct uuid *);
/* Exactly the prefix and exactly 25 digits whose value fits 128 bits; false otherwise. */
bool id_read(const char *text, const char *prefix, struct uuid *ret);
/* The usual text with hyphens (36 characters and NUL), for clients that want it so. */
char *uuid_write(char out[37], const struct uuid *);
bool uuid_read(const char *text, struct uuid *ret);
