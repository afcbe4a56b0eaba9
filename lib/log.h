/*
 * log.h - one JSON object a line on stderr: what systemd-journald and every log shipper read.
 *
 * {"time":"2026-11-21T09:00:00.123Z","level":"error","program":"api","pid":7,"request_id":"…","message":"…"}
 * Programs log, libraries return errors: nothing in lib/ logs above debug. Secrets never get here.
 */
#pragma once
#include <stddef.h>

enum log_level { LOG_LEVEL_DEBUG, LOG_LEVEL_INFO, LOG_LEVEL_WARNING, LOG_LEVEL_ERROR };

/* The program's name in every line, and the lowest level that is written. */
void log_open(const char *program, enum log_level least);

/* Each line goes to fn, too, with its newline; from any thread. NULL: no more. */
void log_copy(void (*fn)(const char *line, size_t n));

/* One line. id is the unit's request id, or NULL. */
void log_line(enum log_level, const char *id, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

#define log_debug(id, ...) log_line(LOG_LEVEL_DEBUG, id, __VA_ARGS__)
#define log_info(id, ...)  log_line(LOG_LEVEL_INFO, id, __VA_ARGS__)
#define log_warn(id, ...)  log_line(LOG_LEVEL_WARNING, id, __VA_ARGS__)
#define log_error(id, ...) log_line(LOG_LEVEL_ERROR, id, __VA_ARGS__)
