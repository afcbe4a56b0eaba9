/*
 * mustache.h - the part of Mustache that mails need: {{name}}, {{{name}}}, {{&name}},
 * {{#name}}…{{/name}},
 * {{^name}}…{{/name}}, {{! remark}}, and standalone lines. No partials, no lambdas, no lists:
 * values are texts.
 */
#pragma once
#include "buf.h"
#include "err.h"
#include "field.h"

enum mustache_escape { MUSTACHE_HTML, MUSTACHE_PLAIN };

/* Renders text into out. vars end with a NULL name; an unknown or empty value is false. E_CONFIG:
 * bad template. */
int mustache_render(
    struct buf *out, const char *text, const struct pair *vars, enum mustache_escape, struct err *);
