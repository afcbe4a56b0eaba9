/*
 * work.h - a unit of work: one request, one job, one agent command.
 *
 * It is the first member of struct request, struct job and struct command. The unit is a talloc
 * context and owns everything allocated on its behalf; at its end one talloc_free() releases all.
 */
#pragma once
#include "err.h"
#include <stdbool.h>
#include <stdint.h>

struct db;
struct bell;
struct uuid;

/* Who causes the unit: audit rows, events and jobs name him. All NULL but type: the system itself.
 */
struct actor {
	const char *type;        /* user, api_key, host, system */
	const char *id, *name;   /* wire id; name */
	const struct uuid *user; /* the person behind it, or NULL */
	const char *ip, *user_agent;
};

struct work {
	struct db *db;        /* NULL in programs without a database */
	struct err err;       /* why the unit failed */
	const char *err_more; /* what the client's error object has beside code and message: text of
	                         JSON members, "\"count\":2", or NULL */
	const char *id;       /* request id: in every log line, audit row and job it causes */
	const char *trace;    /* W3C traceparent, or NULL */
	struct actor actor;   /* type NULL counts as system */
	struct bell *bells;   /* jobs and events added, for job_announce() after the commit */
};
