/*
 * e2b.h - what the files of the E2B routes share (spec 06): shapes, names, how a capsule is found.
 *
 * Nothing is done here that /v1 does not do: handlers translate input, ask the functions of
 * capsules.h, and translate the answer.
 */
#pragma once
#include "capsules.h"
#include "e2b.q.h"

#include <string.h>

#define E2B_ENVD   "0.6.13" /* the guest protocol that our agent speaks: raised when it is proven */
#define E2B_CLIENT "hutch"

enum { E2B_TIMEOUT_MAX = 2592000, E2B_WAIT_MS = 50000, E2B_PORT_GUEST = 49983 };
/* What a capsule of a template has that says nothing else. */
enum { E2B_VCPUS = 1, E2B_MEMORY_MB = 512, E2B_DISK_MB = 5120 };

/* A path with {id} only. The id is text: what cannot be one is not found. */
struct by_sandbox {
	const char *id;
};
#define SANDBOX_ID(st) FIELD(st, id, "id", .flags = NEEDED | IN_PATH, .max = 200)

/* ---- shapes (e2b_shape.c) */

struct sandbox_shape {
	const struct uuid *id, *template;
	const char *alias, *client, *envd, *token, *traffic, *domain;
};
extern const struct field sandbox_shape_fields[];
void sandbox_shape(struct request *, const struct q_sandbox *, struct sandbox_shape *);

struct listed_sandbox {
	const struct uuid *id, *template;
	const char *alias, *client, *envd, *metadata, *state;
	int64_t started_at, ends_at;
	int32_t vcpus, memory_mb, disk_mb;
	int64_t created_at; /* the page's key */
};
extern const struct field listed_sandbox_fields[];
void listed_sandbox(const struct q_sandbox *, struct listed_sandbox *);

/* SandboxDetail, written at once: its network has a shape of its own. */
int sandbox_detail(struct request *, const struct q_sandbox *);
extern const struct field sandbox_detail_fields[];

/* Answers with the sandbox, with this status. */
int sandbox_reply(struct request *, const struct q_sandbox *, int status);

/* ---- finding one */

/* The capsule of the path, whose state these routes show. -1: E_NOT_FOUND. */
int sandbox_find(struct request *, const char *id, struct q_sandbox **ret);
/* … in any state. */
int sandbox_any(struct request *, const char *id, struct q_sandbox **ret);
/* As it is now. */
int sandbox_again(struct request *, const struct uuid *, struct q_sandbox **ret);

/* ---- what a route waits for (e2b_life.c) */

/* Behind the commit: waits until it is `wanted`, as long as its job did not fail. 0: it is; -1: it
 * is gone, still on its way (one of the words `moving`), or err is what the job said, else
 * `failed`. */
int sandbox_reached(struct request *, const char *wanted, const char *moving, const char *failed,
    struct q_sandbox **ret);
/* It did not start in time: it goes, in a transaction of its own. */
int sandbox_give_up(struct request *, const struct q_sandbox *);
/* Seconds from now until it ends, or sleeps. */
int sandbox_ends_in(struct request *, const struct q_sandbox *, int32_t seconds);

/* ---- names (e2b_names.c) */

/* What a name or id means. A snapshot, or a template, or neither: E_NOT_FOUND. */
struct e2b_named {
	const struct q_e2b_snapshot *snapshot;
	const struct q_e2b_template *template;
	const char *alias; /* of a name; NULL: an id */
};
int e2b_resolve(struct request *, const char *text, struct e2b_named *ret);
/* The team's name space. NULL: err is set. */
const char *e2b_slug(struct request *);
/* An alias for a new snapshot: lower case, the own name space stripped, free of other use. */
int e2b_alias(struct request *, const char *text, const char **ret);

/* ---- outward network (e2b_network.c) */

struct e2b_network {
	const char *const *allow_out, *const *deny_out;
	const char *rules, *egress_proxy, *https_ports, *mask_host;
	bool public_traffic;
};
extern const struct field e2b_network_fields[], e2b_network_update_fields[];
struct e2b_network_update {
	const char *id;
	bool internet;
	const char *const *allow_out, *const *deny_out;
	const char *rules, *egress_proxy;
};
/* Ours, of theirs. internet: allow_internet_access. NULL: err is set. */
struct network *e2b_network_of(struct request *, bool internet, const char *const *allow_out,
    const char *const *deny_out, const char *rules, const char *egress_proxy);
/* capsules.ingress. NULL: err is set. */
const char *e2b_ingress(struct request *, const struct e2b_network *);
/* "network" of a SandboxDetail. */
void e2b_network_write(struct buf *, const struct q_sandbox *);
