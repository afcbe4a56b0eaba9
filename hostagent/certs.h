/*
 * certs.h - what this host shows to other machines, and whom it believes (spec 02 §5.2).
 *
 * The key is made here (state_dir/host.key, 0600) and never leaves; the control plane signs a
 * request for it at registration and at each refresh. Only with agent.listen.
 */
#pragma once
#include "agent.h"
#include "tls.h"

struct certs;

/* Reads key and certificate; makes the key. -1: the state directory does not allow it. */
int certs_open(struct agent *, struct err *);
/* The request for a certificate, in PEM, on mem; NULL: other machines don't reach this host. */
const char *certs_request(struct agent *, void *mem);
/* The answer: stored, and used from the next connection on. The listener begins with the first. */
void certs_take(struct agent *, const char *cert, const char *ca);
/* NULL: there is none (yet). */
const struct tls_self *certs_self(const struct agent *);
struct tls_ctx *certs_server(const struct agent *);
/* https://… or unix:…, on mem. */
const char *certs_address(const struct agent *, void *mem);
/* The key and what was signed for it are gone. */
void certs_wipe(struct agent *);
