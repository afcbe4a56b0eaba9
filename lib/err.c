/* err.c - see err.h. */
#include "err.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

const struct err_kind err_kinds[E__MAX] = {
#define E(code, http, class, slug, text) [E_##code] = { http, class, #code, slug, text },
#include "errors.def"
#undef E
};

int
err_set(struct err *e, enum err_code code, const char *fmt, ...)
{
	va_list ap;

	if (e->code != E_OK)
		return -1;
	e->code = code;
	va_start(ap, fmt);
	vsnprintf(e->text, sizeof e->text, fmt, ap);
	va_end(ap);
	return -1;
}

int
err_sys(struct err *e, const char *fmt, ...)
{
	char text[sizeof e->text / 2];
	int saved = errno;
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof text, fmt, ap);
	va_end(ap);
	return err_set(e, saved == ENOSPC || saved == EDQUOT ? E_NO_SPACE : E_SYSTEM, "%s: %s",
	    text, strerror(saved));
}

const char *
err_public(const struct err *e)
{
	int http = err_kinds[e->code].http;

	return http >= 400 && http < 500 ? e->text : err_kinds[e->code].text;
}
