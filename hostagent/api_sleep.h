/* api_sleep.h - rows of the control API about sleep, snapshots and forks (api.c). */
#pragma once
#include "api_call.h"

api_handler sleep_pause, sleep_resume, sleep_hibernate, sleep_snapshot, sleep_rollback, sleep_fork,
    sleep_discard;
/* Members of a capsule's answer: residency, who put it to sleep, its artifacts. */
void sleep_json(const struct capsule *, struct buf *);

/* api.c: what a PUT, a rollback or a fork's child says; -1: call->err. The answer of a start. */
int api_spec(struct call *, void *mem, struct json_object *, int64_t epoch, struct capsule_spec *);
capsule_done api_started;
