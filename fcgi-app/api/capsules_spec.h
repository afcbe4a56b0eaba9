/* capsules_spec.h - times, network, variables, metadata: of a new capsule, a fork, a change. */
#pragma once
#include "api.h"

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
	FIELD(st, m.restart_policy, "restart_policy", .one_of = "never|on_failure",			\
	    .doc = "on_failure: boots its disk again when its machine ended, at most 3 times an hour."),	\
	SUB(st, m.network, "network", network_fields, network)
#define TIMES_FIELDS(st) TIMES_FIELDS_OF(st, t)
/* clang-format on */
/* What a create, a restore into new and a fork are told alike. m: where in st the struct is, with
 * its dot; nothing when st is it. */
/* clang-format off */
#define NEW_FIELDS_OF(st, m)										\
	FIELD(st, m disk_size_mb, "disk_size_mb", .max = 262144, .min = INT32_MIN,			\
	    .doc = "1024 to 262144, not less than of what it starts from; 0 and below: as that, of a template 5120."), \
	FIELD(st, m envs, "envs", .max = 128, .format = "env-name",					\
	    .doc = "Variables of every process; HUTCH_* is reserved."),				\
	FIELD(st, m metadata, "metadata", .max = 64, .format = "meta-key"),				\
	FIELD(st, m tags, "tags", .max = 32, .format = "tag"),						\
	FIELD(st, m host_tags, "host_tags", .max = 8, .format = "tag", .doc = "All must be on the host."), \
	FIELD(st, m user, "user", .min = 1, .max = 32,							\
	    .doc = "In the guest; by default that of what it starts from."),				\
	FIELD(st, m workdir, "workdir", .min = 1, .max = 4096,						\
	    .doc = "In the guest; by default that of what it starts from."),				\
	TIMES_FIELDS_OF(st, m t),									\
	PORTS_FIELD(st, m ports),									\
	WAIT_FIELD_OF(st, m wait)
/* clang-format on */
/* Checks; makes what is 0 and below 0. */
int times_check(struct request *, struct times *);
/* The network as it is stored. NULL: absent. */
const char *network_json(struct request *, const struct network *);

enum { ENV_VALUE = 32768, ENV_ALL = 131072, META_VALUE = 512, META_ALL = 16384 };
int check_envs(struct request *, const struct pair *);
int check_metadata(struct request *, const struct pair *);
const char *pairs_json(struct request *, const struct pair *);
