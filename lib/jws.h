/*
 * jws.h - verifies a JSON Web Signature of somebody else (RFC 7515), by libcjose.
 *
 * Apart from json.h because libcjose's headers bring jansson, whose names collide with json-c's.
 */
#pragma once
#include "db.h"
#include "err.h"

/*
 * The payload of the compact serialisation when the public key (a JWK, RFC 7517, as JSON text)
 * signed it; p NULL and E_UNAUTHORIZED otherwise. The algorithm is the header's: the caller has
 * compared it with the one that it expects.
 */
struct bytes jws_verify(void *mem, const char *compact, const char *jwk, struct err *);
