/* print.h - what the route tables know, for people and for other programs (-T). */
#pragma once
#include <stdbool.h>

/* topic: routes, paths, lighttpd, apache, errors, conf, man. False: no such topic. */
bool print_topic(const char *topic);
