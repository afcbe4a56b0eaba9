/*
 * activity.h - what a call through the bridge means to the idle timer (spec 02 §1.5).
 *
 * The caller may say it (header hutch-activity: hold, touch, none), since it knows whether a stream
 * is a command in the foreground or somebody who watches; else the guest's path decides.
 */
#pragma once
#include "agent.h"

struct activity;

/* A call begins; freed: it ends. said: the header, or NULL. NULL: it does not count. */
struct activity *
activity_begin(void *mem, struct capsule *, const char *method, const char *path, const char *said);
/* Bytes went to the guest, or came from it. NULL is allowed. */
void activity_in(struct activity *);
void activity_out(struct activity *);
