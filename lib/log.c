/* log.c - see log.h. */
#include "log.h"
#include "buf.h"
#include "cleanup.h"

#include <string.h>
#include <time.h>

static const char *log_program = "hutch";
static enum log_level log_least = LOG_LEVEL_INFO;
static void (*log_also)(const char *, size_t);

void
log_open(const char *program, enum log_level least)
{
	log_program = program;
	log_least = least;
}

void
log_copy(void (*fn)(const char *, size_t))
{
	log_also = fn;
}

void
log_line(enum log_level level, const char *id, const char *fmt, ...)
{
	static const char *const name[] = { "debug", "info", "warning", "error" };
	auto_talloc char *mem = talloc_new(NULL);
	struct buf b = BUF(mem);
	struct timespec now;
	struct tm tm;
	char text[1024];
	va_list ap;

	if (level < log_least)
		return;
	va_start(ap, fmt);
	vsnprintf(text, sizeof text, fmt, ap);
	va_end(ap);
	clock_gettime(CLOCK_REALTIME, &now);
	gmtime_r(&now.tv_sec, &tm);
	buf_fmt(&b, "{\"time\":\"%04d-%02d-%02dT%02d:%02d:%02d.%03ldZ\",\"level\":\"%s\"",
	    tm.tm_year + 1900, tm.tm_mon + 1, tm.tm_mday, tm.tm_hour, tm.tm_min, tm.tm_sec,
	    now.tv_nsec / 1000000, name[level]);
	buf_str(&b, ",\"program\":");
	buf_json(&b, log_program);
	buf_fmt(&b, ",\"pid\":%d", (int)getpid());
	if (id) {
		buf_str(&b, ",\"request_id\":");
		buf_json(&b, id);
	}
	buf_str(&b, ",\"message\":");
	buf_json(&b, text);
	buf_str(&b, "}\n");
	(void)!write(STDERR_FILENO, b.data, b.len);
	if (log_also)
		log_also(b.data, b.len);
}
