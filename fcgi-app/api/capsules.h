/*
 * capsules.h - what the files about capsules share: the shape of one, the fields of a new one, and
 * how an operation is begun in the transaction and done behind the commit.
 */
#pragma once
#include "api.h"
#include "capsule_op.h"
#include "capsules.q.h"
#include "capsules_spec.h"
#include "life.q.h"
#include "ports.h"
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
	struct list ports;
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

/* ---- a new one (capsules_create.c) */

struct capsule_create {
	const struct uuid *id; /* of the path: a snapshot's or parent's */
	const char *template, *snapshot, *name, *user, *workdir, *boot;
	int32_t vcpus, memory_mb, disk_size_mb;
	const struct pair *envs, *metadata;
	const char *const *tags, *const *host_tags;
	struct times t;
	struct list ports;
	int32_t wait;
	bool checked;                    /* the maps have been, by whoever asks */
	int (*answer)(struct request *); /* instead of the capsule: see struct doing */
	void *arg;
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
/* A new capsule: input checked, defaults, quota, host, row, job, answer. ret: its id. */
int capsule_new(struct request *, struct capsule_create *, struct uuid *ret);
/* … from a snapshot. */
int capsule_from_snapshot(
    struct request *, struct capsule_create *, const struct q_snapshot *, struct uuid *ret);

/* ---- change, sleep, wake, end of one (capsules_life.c, capsules.c) */

struct capsule_patch {
	const struct uuid *id;
	const char *name;
	const struct pair *metadata;
	const char *const *tags, *const *tags_add, *const *tags_remove;
	struct times t;
	struct list ports;
	int32_t vcpus, memory_mb, disk_size_mb; /* NULL_INT4: as they are */
	int64_t generation;                     /* NULL_INT: any */
	const char *changed; /* {"changed":[names of fields]} for audit and event */
	struct doing *told;  /* NULL: a worker tells the host; else this process, which waits */
};
/* ret: as it is then. */
int capsule_change(struct request *, const struct capsule_patch *, struct q_capsule **ret);

struct capsule_move {
	const struct uuid *id;
	const char *boot, *from, *snapshot;
	const char *by; /* who puts it to sleep: "user", "client" */
	int32_t timeout_sec, wait;
	bool memory;
	int (*answer)(struct request *); /* instead of the capsule: see struct doing */
	void *arg;
};
int capsule_hibernates(struct request *, const struct capsule_move *);
int capsule_resumes(struct request *, const struct capsule_move *);
/* 1: destruction accepted; 0: it was before. answer: behind the commit. */
int
capsule_end(struct request *, const struct uuid *, int32_t wait, int (*answer)(struct request *));
/* … of whatever team's it is, by somebody who may. */
int capsule_end_of(
    struct request *, const struct q_capsule *, int32_t wait, int (*answer)(struct request *));
/* An answer of those: accepted all the same when the host is silent: a worker goes on (spec 02:
 * never 5xx). */
int capsule_ended(struct request *);

/* ---- copies of one (capsules_fork.c) */

struct refusal {
	const char *code, *message;
	enum err_code why;
};
struct brood {
	struct uuid *id; /* of each child; zero: refused */
	struct refusal *error;
	enum err_code first; /* of all refused ones */
	int32_t count, made;
	int (*answer)(struct request *, struct brood *);
	int64_t until; /* of the answer: 0 in the transaction */
};
struct fork_in {
	struct capsule_create c;
	int32_t count;
	const char *name_prefix;
	bool memory;
};
/* The children's rows, the job, the answer: answer() is called in the transaction and once more
 * behind it. */
int capsule_forks(
    struct request *, const struct fork_in *, int (*answer)(struct request *, struct brood *));

/* ---- a snapshot of one (snapshots.c) */

struct snapshot_create {
	const struct uuid *id;
	const char *name, *description;
	const struct pair *metadata;
	int64_t expires_in_sec; /* NULL_INT: never */
	int32_t wait;
	bool memory, last;               /* last: the capsule is destroyed behind it */
	int (*answer)(struct request *); /* instead of the snapshot: r->after_arg is a struct doing,
	                                    its args name the snapshot */
};
/* ret: its row as it is now; ready at once when the capsule sleeps. */
int snapshot_take(struct request *, const struct snapshot_create *, struct q_snapshot **ret);
/* Gone, with its audit row. */
int snapshot_drop(struct request *, const struct uuid *);

/* ---- an operation (capsules_do.c) */

struct doing {
	struct uuid id; /* of the capsule */
	const char *kind;
	struct op_args args;
	struct job_ref job;
	bool claimed;
	int32_t wait_sec;
	const struct uuid *team;         /* whose capsule; NULL: the caller's team's */
	const char *until;               /* states in which waiting ends */
	int later;                       /* status when it is not there yet; 0: the route's */
	int (*answer)(struct request *); /* NULL: the capsule */
	void *arg;
};
#define WAIT_FIELD_OF(st, m)                                           \
	FIELD(st, m, "wait", .flags = IN_QUERY, .max = 55, .dflt = -1, \
	    .doc = "Seconds to wait for the result.")
#define WAIT_FIELD(st) WAIT_FIELD_OF(st, wait)
enum { WAIT_SHORT = 4, WAIT_LONG = 50 };
/* Adds the job, which this process takes; d belongs to the request. Answers with the row as it is
 * now. */
int capsule_begin(struct request *, struct doing *);
/* … for a job that was added already. */
int capsule_continue(struct request *, struct doing *, const struct job_ref *, bool claimed);
/* Waits for the states of d->until, at most until then (capsule_clock). 0: there, or time is up. */
int capsule_look_on(struct request *, const struct doing *, int64_t until);
int64_t capsule_clock(void); /* milliseconds */
/* The wait that was asked for, or the usual one. */
int32_t wait_or(int32_t asked, int32_t usual);
/* The process that may do jobs at once: of the ops pool. */
const char *capsule_worker(const struct request *);
