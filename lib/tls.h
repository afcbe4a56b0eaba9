/*
 * tls.h - TLS 1.3 between the parts of Hutch on different machines; both sides show a certificate
 * of the platform's authority (ca.h).
 *
 * Who the peer is stands in its certificate, as a URI: hutch:control, hutch:gateway,
 * hutch:host:host-…. A struct tls is one connection without I/O of its own: bytes from the wire go
 * in, bytes for the wire come out; h2_uv.h drives it, curl takes the context (tls_ctx_setup).
 */
#pragma once
#include "err.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

enum tls_role { TLS_NOBODY = 0, TLS_CONTROL = 1, TLS_GATEWAY = 2, TLS_HOST = 4 };
enum { FINGERPRINT = 65 }; /* SHA-256 of a certificate in hex, and NUL */

/* What a program shows, and whom it believes. PEM; ca may hold several certificates. */
struct tls_self {
	const char *cert, *key, *ca;
};

struct tls_ctx;
struct tls;

/* Talloc children of mem. NULL: E_CONFIG, the PEM is not good. */
struct tls_ctx *tls_server(void *mem, const struct tls_self *, struct err *);
/* fingerprints: the host must show one of these certificates ("hex" or "hex,hex"); empty: nobody is
 * right. host: name or address that must stand in the certificate. */
struct tls_ctx *tls_client(
    void *mem, const struct tls_self *, const char *host, const char *fingerprints, struct err *);
/* A client that shows nothing and believes anybody, for HTTP/1.1 with services in capsules: what
 * protects that connection is the tunnel. TLS 1.2, too. */
struct tls_ctx *tls_anyone(void *mem);
/* Makes another library's SSL_CTX of a client the same: for CURLOPT_SSL_CTX_FUNCTION. */
int tls_ctx_setup(const struct tls_ctx *, void *ssl_ctx);

struct tls *tls_new(void *mem, struct tls_ctx *, bool server);
/* Bytes from the wire. -1: E_REFUSED with the reason; what tls_pull() still has (an alert) is sent
 * before closing. */
int tls_feed(struct tls *, const uint8_t *, size_t, struct err *);
/* What they say, at most n bytes; 0: no more for now. -1: the connection is over. */
ssize_t tls_read(struct tls *, uint8_t *, size_t n, struct err *);
/* Begins a client's handshake. */
int tls_begin(struct tls *, struct err *);
/* Before that: the name of the service that is wanted. */
void tls_want(struct tls *, const char *name);
bool tls_ready(const struct tls *); /* the handshake is done: tls_send() may be called */
int tls_send(struct tls *, const uint8_t *, size_t, struct err *);
/* Nothing more will be sent: says so. */
void tls_finish(struct tls *);
/* Bytes for the wire, at most n; 0: none. */
size_t tls_pull(struct tls *, uint8_t *, size_t n);
/* Who the peer is; TLS_NOBODY before the handshake is done. */
enum tls_role tls_peer(const struct tls *);

/* A new P-256 key, in PEM. */
const char *tls_key_make(void *mem);
/* A request for a certificate of that key, in PEM; NULL: E_CONFIG. */
const char *tls_csr_make(void *mem, const char *key, struct err *);
/* SHA-256 of a certificate, in hex. -1: not a certificate. */
int tls_fingerprint(const char *cert, char ret[FINGERPRINT]);

/* "https://name:port#fingerprints" in parts, on mem. -1: it is no such address. */
struct dial {
	const char *host, *port, *fingerprints;
};
int dial_read(void *mem, const char *address, struct dial *ret);
