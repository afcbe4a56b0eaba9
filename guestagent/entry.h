/* entry.h - one file as the protocol shows it (EntryInfo), and what errno means there. */
#pragma once
#include "buf.h"
#include "err.h"
#include <sys/types.h>

/* Appends the entry's JSON object. path is shown as it is; call it as the user. */
int entry_put(struct buf *, const char *path, struct err *);
/* errno about a path as an error; returns -1. */
int entry_error(struct err *, const char *path);
/* Makes the directory above path, and those above it. */
int entry_parents(const char *path, struct err *);
