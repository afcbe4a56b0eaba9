/*
 * buf.h - a growing byte buffer on talloc; always NUL-terminated behind its end.
 *
 * Appending never fails: out of memory aborts, as everywhere in Hutch.
 */
#pragma once
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

struct buf {
	void *mem;   /* talloc parent of data */
	char *data;  /* NULL until the first append */
	size_t len;  /* bytes in use */
	size_t room; /* bytes allocated */
};

#define BUF(parent) ((struct buf){ .mem = (parent) })

void buf_need(struct buf *, size_t more); /* room for `more` bytes and the NUL */
void buf_add(struct buf *, const void *, size_t);
void buf_str(struct buf *, const char *);
void buf_chr(struct buf *, char);
void buf_int(struct buf *, int64_t);
void buf_fmt(struct buf *, const char *, ...) __attribute__((format(printf, 2, 3)));
void buf_cut(struct buf *, size_t n); /* removes the first n bytes */
void buf_clear(struct buf *);         /* empties, keeps the room */

/* JSON: the string with quotes, escaped (RFC 8259 §7); NULL becomes null. */
void buf_json(struct buf *, const char *);
void buf_jsonn(struct buf *, const char *, size_t);
/* Standard base64 with padding (RFC 4648 §4). */
void buf_base64(struct buf *, const void *, size_t);
