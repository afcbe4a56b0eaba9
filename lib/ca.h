/*
 * ca.h - the platform's certificate authority (spec 02 §5.2).
 *
 * Its Ed25519 key is derived from the master secret, its certificate from the key: every program
 * that has the secret makes the same one, nothing is stored. While secrets.previous_file is set,
 * the authority before is believed, too.
 */
#pragma once
#include "crypto.h"
#include "tls.h"

struct ca_cert {
	const char *pem;
	char fingerprint[FINGERPRINT];
	int64_t expires_at; /* microseconds since 1970 */
};

/* Its certificate, and the one before, in PEM. */
const char *ca_pem(void *mem, const struct keys *);

/* A certificate for a host: CN and URI are its id, the SAN is the host part of its address.
 * -1: E_BAD_INPUT, the request is none, or its key is weak, or not signed by its key. */
int ca_sign_host(void *mem, const struct keys *, const char *csr, const struct uuid *host,
    const char *address, int64_t ttl, struct ca_cert *ret, struct err *);

/* What this process shows to hosts: key and certificate of its own, made at first use and again at
 * half of their 24 h. role: TLS_CONTROL or TLS_GATEWAY. Valid until the next call. */
const struct tls_self *ca_self(const struct keys *, enum tls_role role);
