/*
 * capsules.h - what the files about capsules share: the shape of one, the fields of a new one, and
 * how an operation is begun in the transaction and done behind the commit.
 */
#pragma once
#include "api.h"
#include "capsule_op.h"
#include "capsules.q.h"
#include "life.q.h"
#include "snapshots.q.h"

/* ---- the shape (capsules.c) */

struct owner {
	const struct uuid *id;
	const char *name;
};
/* The row, and what the row does not have in the shape of the answer. */
struct capsule {
	struct q_capsule row;
	struct owner *owner;
	const char *domain;
};
extern const struct field capsule_fields[];
void capsule_complete(struct request *, const struct q_capsule *, struct capsule *);

struct by_capsule {
	const struct uuid *id;
};
extern const struct field by_capsule_fields[];

/* The caller's capsule, which he may change. 0: none; -1: E_FORBIDDEN with these words. */
int
capsule_own(struct request *, const struct uuid *id, const char *others, struct q_capsule **ret);
/* 409: why the capsule, which is read again, cannot be moved: an operation is under way, or it is
 * not what it should be. Returns -1. */
int capsule_refuse(struct request *, const struct uuid *id, const char *wanted);

/* ---- times, network: of a new one, a fork, a change (capsules_spec.c) */

struct network {
	bool internet, smtp;
	const char *const *allow, *const *deny;
};
extern const struct field network_fields[];
struct times {
	int32_t timeout_sec, max_lifetime_sec; /* NULL_INT4: absent */
	const char *timeout_mode, *idle_action, *auto_resume, *on_max_lifetime, *restart_policy;
	const char *const *idle_signals;
	struct network *network;
};
/* clang-format off */
#define TIMES_FIELDS_OF(st, m)										\
	FIELD(st, m.timeout_sec, "timeout_sec", .min = INT32_MIN, .max = 2592000, .dflt = NULL_INT4,	\
	    .doc = "Idle, or to live: seconds; 0 and below: no limit."),				\
	FIELD(st, m.timeout_mode, "timeout_mode", .one_of = "idle|fixed", .doc = "fixed: activity does not move the end."), \
	FIELD(st, m.idle_action, "idle_action", .one_of = "pause|hibernate|destroy"),			\
	FIELD(st, m.idle_signals, "idle_signals", .max = 6, .one_of = "api|exec|input|port|process|cpu"),	\
	FIELD(st, m.auto_resume, "auto_resume", .one_of = "all|ports|off", .doc = "What wakes it when policy put it to sleep."), \
	FIELD(st, m.max_lifetime_sec, "max_lifetime_sec", .min = INT32_MIN, .max = INT32_MAX, .dflt = NULL_INT4,	\
	    .doc = "From first running; 0 and below: no limit."),					\
	FIELD(st, m.on_max_lifetime, "on_max_lifetime", .one_of = "hibernate|destroy"),			\
	SUB(st, m.network, "network", network_fields, network)
#define TIMES_FIELDS(st) TIMES_FIELDS_OF(st, t)
/* clang-format on */
/* Checks; makes what is 0 and below 0. */
int times_check(struct request *, struct times *);
/* The network as it is stored. NULL: absent. */
const char *network_json(struct request *, const struct network *);

enum { ENV_VALUE = 32768, ENV_ALL = 131072, META_VALUE = 512, META_ALL = 16384 };
int check_envs(struct request *, const struct pair *);
int check_metadata(struct request *, const struct pair *);
const char *pairs_json(struct request *, const struct pair *);

/* ---- a new one (capsules_create.c) */

struct capsule_create {
	const struct uuid *id; /* of the path: a snapshot's or parent's */
	const char *template, *snapshot, *name, *user, *workdir, *boot;
	int32_t vcpus, memory_mb, disk_size_mb;
	const struct pair *envs, *metadata;
	const char *const *tags, *const *host_tags;
	struct times t;
	int32_t wait;
};
/* What it starts from, besides what was asked. */
struct origin {
	const struct uuid *template, *parent, *snapshot;
	const char *template_name, *wake_from, *network;
	const char *const *tags, *const *idle_signals;
	const char *metadata, *envs; /* JSON text; the child's when absent from the input */
	const char *const *env_names;
	int32_t version;
	int64_t
	    epoch; /* of its first start: past that of the memory it has, whose guest knows it */
};
/* Quota of one; the row, its audit row and event. host NULL: it waits for one. */
int capsule_add(struct request *, const struct capsule_create *, const struct origin *,
    const struct uuid *host, struct uuid *ret);
/* A new capsule from a snapshot: state, job and answer as for a create. */
int capsule_from_snapshot(struct request *, struct capsule_create *, const struct q_snapshot *);

/* ---- an operation (capsules_do.c) */

struct doing {
	struct uuid id; /* of the capsule */
	const char *kind;
	struct op_args args;
	struct job_ref job;
	bool claimed;
	int32_t wait_sec;
	const char *until;               /* states in which waiting ends */
	int later;                       /* status when it is not there yet; 0: the route's */
	int (*answer)(struct request *); /* NULL: the capsule */
	void *arg;
};
#define WAIT_FIELD(st)                                                    \
	FIELD(st, wait, "wait", .flags = IN_QUERY, .max = 55, .dflt = -1, \
	    .doc = "Seconds to wait for the result.")
enum { WAIT_SHORT = 4, WAIT_LONG = 50 };
/* Adds the job, which this process takes; d belongs to the request. Answers with the row as it is
 * now. */
int capsule_begin(struct request *, struct doing *);
/* … for a job that was added already. */
int capsule_continue(struct request *, struct doing *, const struct job_ref *, bool claimed);
/* The wait that was asked for, or the usual one. */
int32_t wait_or(int32_t asked, int32_t usual);
/* The process that may do jobs at once: of the ops pool. */
const char *capsule_worker(const struct request *);
