/* text.h - the notations of the protocol: base64, percent, times. Everything comes from outside. */
#pragma once
#include "buf.h"
#include "err.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <time.h>

/* Standard alphabet, with or without padding. -1: something else; *ret is a child of mem. */
int text_base64(void *mem, const char *s, uint8_t **ret, size_t *len, struct err *);
/* %41 and + in a query's value; NULL when broken or with a NUL inside. */
char *text_percent(void *mem, const char *s, size_t len);
/* The decoded value of name in a query (a=1&b=2), or NULL. */
char *text_query(void *mem, const char *query, const char *name);
/* Nanoseconds since 1970 from decimal digits or RFC 3339. */
int text_time(const char *s, int64_t *ns, struct err *);
/* RFC 3339 in UTC with nanoseconds, in quotes, for JSON. */
void text_put_time(struct buf *, const struct timespec *);
/* A decimal number in [min, max]; nothing before or behind it. */
int text_int(const char *s, int64_t min, int64_t max, int64_t *ret, struct err *);
/* What an Accept-Encoding says of a coding: 1 good, -1 refused, 0 nothing. */
int text_accepts(const char *header, const char *coding);
/* Equal, in a time that depends on the lengths only. */
bool text_same_secret(const char *a, const char *b);
