/*
 * conf.h - the configuration: one file hutch.conf (libconfuse), one struct, one table (conf.def).
 */
#pragma once
#include "err.h"
#include <stdbool.h>
#include <stdint.h>

struct conf {
#define SECTION(section, doc)
#define STR(section, name, dflt, doc)              const char *section##_##name;
#define INT(section, name, dflt, least, most, doc) int64_t section##_##name;
#define BOOL(section, name, dflt, doc)             bool section##_##name;
#include "conf.def"
#undef SECTION
#undef STR
#undef INT
#undef BOOL
};

/*
 * The settings of `path` over the defaults, on mem. NULL: E_CONFIG with file and line; an unknown
 * setting is an error that names the nearest known one. path NULL: the defaults.
 */
const struct conf *conf_load(void *mem, const char *path, struct err *);

/* hutch.conf with every setting, its default and its meaning (-T conf); the man page's part (-T
 * man). */
void conf_print_sample(void);
void conf_print_man(void);
