/*
 * route.h - what an endpoint is: a row. Shared by the programs that serve HTTP (fcgi-app, gateway).
 *
 * From these rows come: dispatch and permission checks, docs/openapi.json, the web servers' routing
 * fragments, the permission matrix of the tests. struct request is each program's own.
 */
#pragma once
#include "field.h"
#include "principal.h"

enum pool { POOL_API, POOL_OPS, POOL_GATEWAY };

struct request;
typedef int handler(struct request *); /* 0, or -1 with the unit's err set */

enum {
	CREATES = 1,       /* POST that creates: takes an Idempotency-Key */
	LISTS = 2,         /* answers an array of `out` */
	NO_BODY = 4,       /* POST without a request body */
	STREAMS = 8,       /* body is not JSON: files, multipart */
	MAY_BE_EMPTY = 16, /* an empty body counts as {} */
	TIGHT = 32,        /* sign-in and its like: the tighter rate limit */
	ACROSS = 64, /* reaches rows of several teams: role hutch_work; each query names its rows */
	PROOF = 128, /* of the caller's identity, at most auth.reauth seconds old */
	PROOF_OF_FACTOR = 256, /* the same, asked only of accounts with a second factor */
	BEFORE_CHANGE = 512,   /* works while a forced change of the password is due */
	BEFORE_MFA = 1024,     /* works while a second factor is wanted and not there */
	ANY_INPUT = 2048,      /* bad input reaches the handler, as far as it could be read */
	IN_TEAM =
	    4096,   /* {id} of the path is a team: the one of the caller's token, else 404 or 403 */
	E2B = 8192, /* speaks the dialect of spec 06: error bodies, lists */
	ASLEEP = 32768, /* the gateway: of capsules in every state, not only of running ones */
	OF_PLATFORM = 1 << 17, /* the caller, an administrator of the platform, acts in its team */
	SOCKET = 1 << 18,      /* the gateway: a WebSocket, answered 101 (gateway/stream.h) */
	NO_WAKE = 65536,       /* the gateway: a sleeping capsule is refused, not woken */
};

struct route {
	const char *method; /* "GET", … */
	const char *path;   /* {name} fills the input's field of that name */
	enum pool pool;
	enum perm may;
	handler *fn;
	const char *doc; /* OpenAPI summary */
	unsigned flags;
	int status; /* of success */
	int also;   /* a second status of success, with the same answer; 0: none */
	const struct field *in, *out;
	size_t insize;
	const char
	    *ticket; /* the gateway: purpose of the tickets (?ticket=) that open it, or NULL */
	handler *
	    ahead; /* sends the route's query on the same round trip as the look-up of the caller */
};

#define IN(st)  .in = st##_fields, .insize = sizeof(struct st)
#define OUT(st) .out = st##_fields
