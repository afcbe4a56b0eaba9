/*
 * qmp.h - QEMU's control socket (QMP), asynchronous.
 *
 * Commands may be sent at once, before QEMU even started: they wait in the socket. Answers come in
 * order. Freeing the connection drops what is open; no callback comes after that.
 */
#pragma once
#include "err.h"
#include <json-c/json.h>
#include <uv.h>

struct qmp;

/* ret is the "return" member, valid during the call; or NULL and why. */
typedef void qmp_reply(void *arg, struct json_object *ret, const struct err *);

struct qmp_events {
	void (*on_event)(void *user, const char *name, struct json_object *data);
	void (*on_gone)(
	    void *user, const struct err *); /* once; the calls that were open failed before */
};

/* Takes over the connected socket fd. */
struct qmp *qmp_open(void *mem, uv_loop_t *, int fd, const struct qmp_events *, void *user);

/* fd (or -1) goes with the command; it stays the caller's. arguments: JSON object, or NULL. */
void
qmp_call(struct qmp *, const char *command, const char *arguments, int fd, qmp_reply *, void *arg);
