/*
 * err.h - one error: a code that every process knows, and one sentence.
 *
 * A function that can fail returns -1 or NULL and fills a struct err, never one without the other.
 * The first error wins: it is the cause, what follows are its consequences.
 */
#pragma once
#include <stdarg.h>

enum err_class { PERMANENT, TRANSIENT, THROTTLED, BUSY };

enum err_code {
#define E(code, http, class, slug, text) E_##code,
#include "errors.def"
#undef E
	E__MAX
};

struct err {
	enum err_code code;
	char text[240];
};

struct err_kind {
	int http;             /* status for API clients */
	enum err_class class; /* what a worker does with the job */
	const char *name;     /* as written here, without E_ */
	const char *slug;     /* "code" in the JSON body */
	const char *text;     /* for clients, when the sentence is only for the log */
};
extern const struct err_kind err_kinds[E__MAX];

/* Sets *e unless it is set already, and returns -1: return err_set(e, E_X, "no team %s", id); */
int err_set(struct err *e, enum err_code code, const char *fmt, ...)
    __attribute__((format(printf, 3, 4), nonnull(1, 3)));

/* The same with ": " and strerror(errno) at the end; ENOSPC and EDQUOT become E_NO_SPACE. */
int
err_sys(struct err *e, const char *fmt, ...) __attribute__((format(printf, 2, 3), nonnull(1, 2)));

/* What a client may read: the sentence for 4xx, the list's text for everything else. */
const char *err_public(const struct err *e);
