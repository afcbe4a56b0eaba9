/*
 * field.h - one table describes a struct to the outside.
 *
 * The same table parses and checks a request (or a job, or an agent command), writes a reply, and
 * prints the schema in openapi.json. FIELD finds the type from the struct member, so table and
 * struct cannot disagree.
 */
#pragma once
#include "buf.h"
#include "db.h"
#include "err.h"
#include "rfc3339.h"
#include <json-c/json.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum ftype { F_END, F_STR, F_BOOL, F_I32, F_I64, F_NUM, F_ID, F_TEXTS, F_PAIRS, F_SUB };

enum {
	NEEDED = 1,      /* must be there, not null */
	IN_PATH = 2,     /* {name} of the route's path */
	IN_QUERY = 4,    /* ?name= */
	OMIT = 8,        /* left out of an answer when NULL; otherwise null */
	LIST = 16,       /* F_SUB: an array of sub-objects */
	WRITE_ONLY = 32, /* a secret: never shown in examples */
};

struct pair {
	const char *name, *value; /* a map of strings ends with a NULL name */
};

struct list { /* an array of sub-objects: n structs, one behind the other */
	void *item;
	size_t n;
};

struct field {
	const char *name; /* as the client spells it */
	enum ftype type;  /* of the struct member, found by the compiler */
	size_t off;
	unsigned flags;
	int64_t min, max;   /* of a number; of a string's length in characters; of a list's or map's
	                       size; 0, 0: any */
	int64_t dflt;       /* of a number or boolean */
	const char *text;   /* default of a string */
	const char *format; /* a row of formats[]: checked on input, shown in the schema; "json":
	                       raw JSON text */
	const char *prefix; /* F_ID: "cl-" */
	const char *one_of; /* "a|b|c" */
	const struct field *sub; /* F_SUB */
	size_t subsize;
	const char *doc;
};

/* clang-format off */
#define FIELD(st, member, as, ...)						\
	{									\
		.name = as,							\
		.off = offsetof(struct st, member),				\
		.type = _Generic(((struct st *)0)->member,			\
		    const char *: F_STR, bool: F_BOOL,				\
		    int32_t: F_I32, int64_t: F_I64, double: F_NUM,		\
		    const struct uuid *: F_ID,					\
		    const char *const *: F_TEXTS,				\
		    const struct pair *: F_PAIRS,				\
		    struct list: F_SUB, default: F_SUB),			\
		__VA_ARGS__							\
	}
/* A pointer to a struct with a table of its own, or (with LIST) a struct list of them. */
#define SUB(st, member, as, table, item, ...)					\
	{									\
		.name = as, .off = offsetof(struct st, member),			\
		.type = F_SUB, .sub = table, .subsize = sizeof(struct item),	\
		__VA_ARGS__							\
	}
/* clang-format on */

/* Fills st from obj (may be NULL: all absent). Strings point into obj. mem owns the rest.
   Only fields with (flags & where) == where_value are read: bodies 0, IN_PATH, IN_QUERY. */
int fields_read(const struct field *, struct json_object *obj, void *st, void *mem, struct err *);
/* One value that came as text (path, query). */
int field_read_text(const struct field *, const char *text, void *st, void *mem, struct err *);
/* Defaults for absent fields, of all kinds. */
void fields_default(const struct field *, void *st);
void fields_write(const struct field *, const void *st, struct buf *);
void fields_schema(const struct field *, struct buf *); /* JSON Schema of the body part */
void field_schema(const struct field *, struct buf *);  /* of one field */

/* Does the text have the format? Known: email, name, team-name, person, uuid, base64, env-name, …
 */
bool format_ok(const char *format, const char *text);
