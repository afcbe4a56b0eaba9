/*
 * journal.h - what the agent has promised and done, on disk before the effect.
 *
 * One line per record: CRC-32 in hex, a blank, JSON. Records are written and fsynced in a thread,
 * together when several wait; a torn tail is dropped when the journal is read. Secrets (tokens,
 * variables) never get here.
 */
#pragma once
#include "agent.h"
#include "json.h"

struct journal;

typedef void journal_done(void *arg, const struct err *);

/* Reads state_dir/journal: each record of it to on_record, in order. *ret_complete: nothing was
   lost but a torn tail. Then the file is rewritten from what on_rewrite appends with
   journal_keep(). */
struct journal *
journal_open(struct agent *, void (*on_record)(struct agent *, struct json_object *),
    void (*on_rewrite)(struct agent *, struct journal *), bool *ret_complete, struct err *);

/* Only inside on_rewrite. */
void journal_keep(struct journal *, const char *json);

/* Appends; done(arg, NULL) once the record is on disk. The callback is not called when owner
   (talloc) is freed before, but the record is written. done may be NULL. */
void journal_append(struct journal *, void *owner, const char *json, journal_done *, void *arg);

/* Rewrites a journal that has grown large. */
void journal_compact(struct journal *);
