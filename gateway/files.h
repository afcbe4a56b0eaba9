/* files.h - an entry of a directory as clients see it (spec 02 §2.6). */
#pragma once
#include "buf.h"

#include <json-c/json.h>

/* The guest's EntryInfo as our entry. */
void file_entry_put(struct buf *, struct json_object *);
