/*
 * json.h - strict JSON in (RFC 8259), on top of json-c.
 *
 * json-c alone takes overlong UTF-8, duplicate keys, NaN, single quotes and 1e999. json_parse()
 * first scans the text itself and refuses all of that, so that json-c only ever sees what it reads
 * right.
 */
#pragma once
#include "err.h"
#include <json-c/json.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct json_limits {
	int depth; /* of nesting; default 32 */
	int keys;  /* in the whole document; default 1000 */
};

/*
 * The document, released with mem. NULL: E_BAD_INPUT, with the byte where it went wrong. limits may
 * be NULL. Refused: invalid UTF-8, lone surrogates, duplicate keys, NUL in strings, numbers outside
 * int64 and double, anything behind the value, an empty text, a bare null.
 */
struct json_object *
json_parse(void *mem, const char *text, size_t len, const struct json_limits *limits, struct err *);

/* The member's text, number or object, or the fallback when absent or of another type. */
const char *json_str(struct json_object *, const char *name, const char *fallback);
int64_t json_int(struct json_object *, const char *name, int64_t fallback);
bool json_flag(struct json_object *, const char *name, bool fallback);
struct json_object *json_get(struct json_object *, const char *name); /* NULL when absent */
