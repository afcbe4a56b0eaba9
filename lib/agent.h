/*
 * agent.h - calls from the control plane to a host's agent (spec 02 §5.7).
 */
#pragma once
#include "crypto.h"
#include "json.h"
#include "work.h"

struct agent_call {
	const char *address;       /* of the host's row: "unix:/path", "https://name:port" */
	const char *method, *path; /* below /agent/v1 */
	int64_t epoch;             /* hutch-epoch; 0: none */
	const char *op;            /* hutch-op: same op, same answer */
	const char *body;          /* JSON, or NULL */
	const char *token;         /* of the guest, for paths below …/guest; or NULL */
	const char *activity;      /* hutch-activity, or NULL */
	int64_t total_ms;
};

/* Whose authority makes our certificates for hosts on other machines; once, at start. */
void agent_keys(const struct keys *);

/*
 * 0: 2xx, *ret is the answer's object (NULL when empty). -1: E_HOST_UNAVAILABLE (no connection),
 * E_TIMEOUT, E_STALE_EPOCH, E_NOT_FOUND, E_OVERLOADED, E_NO_SPACE, or E_AGENT with the agent's
 * words.
 */
int agent_send(struct work *, const struct agent_call *, struct json_object **ret);

/*
 * The same of many at once, each with its own deadline: done(arg, i, answer) as each ends, with
 * answer NULL and the unit's error set when it failed; done clears it. A host that hangs keeps
 * nobody waiting.
 */
void agent_send_all(struct work *, const struct agent_call *, size_t n,
    void (*done)(void *arg, size_t i, struct json_object *answer), void *arg);
