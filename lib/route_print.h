/*
 * route_print.h - what route tables know, printed for people, web servers and clients.
 *
 * Each program that serves HTTP prints its own rows; tools/print-api puts them together.
 */
#pragma once
#include "proto/route.h"

/*
 * tables ends with NULL. topic: routes (tab-separated: method, path, pool, permission, flags, doc),
 * paths (OpenAPI path items), roots (first segments of the api pool, a|b), lighttpd and apache
 * (which request goes to this program's pools; the api pool is the default and prints nothing).
 * False: no such topic.
 */
bool route_print(const struct route *const *tables, const char *topic);
