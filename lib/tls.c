/* tls.c - see tls.h. */
#include "tls.h"
#include "cleanup.h"

#include <arpa/inet.h>
#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>
#include <openssl/x509v3.h>
#include <stdlib.h>
#include <string.h>

struct tls_ctx {
	SSL_CTX *ssl;
	bool server, anyone;
	const char *host, *fingerprints;
	struct tls_self self;
};

struct tls {
	SSL *ssl;
	BIO *in, *out; /* the connection's own; ssl frees them */
	bool ready, anyone;
	enum tls_role peer;
};

static const struct {
	const char *uri;
	enum tls_role role;
	bool prefix;
} roles[] = {
	{ "hutch:control", TLS_CONTROL, false },
	{ "hutch:gateway", TLS_GATEWAY, false },
	{ "hutch:host:", TLS_HOST, true },
};

/* What OpenSSL says of the last failure; its queue is empty after that. */
static int
refuse(struct err *e, enum err_code code, const char *what)
{
	unsigned long n = ERR_get_error();
	char text[160] = "no reason given";

	if (n)
		ERR_error_string_n(n, text, sizeof text);
	ERR_clear_error();
	return err_set(e, code, "%s: %s", what, text);
}

/* ---- certificates */

static X509 *
cert_read(const char *pem)
{
	BIO *b = BIO_new_mem_buf(pem, -1);
	X509 *x = PEM_read_bio_X509(b, NULL, NULL, NULL);

	BIO_free(b);
	return x;
}

static EVP_PKEY *
key_read(const char *pem)
{
	BIO *b = BIO_new_mem_buf(pem, -1);
	EVP_PKEY *k = PEM_read_bio_PrivateKey(b, NULL, NULL, NULL);

	BIO_free(b);
	return k;
}

static void
hex_digest(X509 *x, char ret[FINGERPRINT])
{
	unsigned char sum[EVP_MAX_MD_SIZE];
	unsigned n = 0, i;

	(void)X509_digest(x, EVP_sha256(), sum, &n);
	for (i = 0; i < 32; i++)
		snprintf(ret + 2 * i, 3, "%02x", sum[i]);
}

int
tls_fingerprint(const char *cert, char ret[FINGERPRINT])
{
	X509 *x = cert_read(cert);

	if (!x)
		return -1;
	hex_digest(x, ret);
	X509_free(x);
	return 0;
}

static enum tls_role
role_of_uri(const ASN1_STRING *s)
{
	const char *text = (const char *)ASN1_STRING_get0_data(s);
	size_t n = ASN1_STRING_length(s), i, len;

	for (i = 0; i < nitems(roles); i++) {
		len = strlen(roles[i].uri);
		if (n >= len && memcmp(text, roles[i].uri, len) == 0 &&
		    (n == len || roles[i].prefix))
			return roles[i].role;
	}
	return TLS_NOBODY;
}

static enum tls_role
role_of(X509 *x)
{
	GENERAL_NAMES *names = X509_get_ext_d2i(x, NID_subject_alt_name, NULL, NULL);
	enum tls_role role = TLS_NOBODY;
	int i;

	for (i = 0; i < sk_GENERAL_NAME_num(names); i++) {
		const GENERAL_NAME *g = sk_GENERAL_NAME_value(names, i);

		if (g->type == GEN_URI && role == TLS_NOBODY)
			role = role_of_uri(g->d.uniformResourceIdentifier);
	}
	GENERAL_NAMES_free(names);
	return role;
}

/* After the chain was found good: is it one of the certificates we were told of? */
static int
check_pinned(int ok, X509_STORE_CTX *store)
{
	SSL *ssl = X509_STORE_CTX_get_ex_data(store, SSL_get_ex_data_X509_STORE_CTX_idx());
	const struct tls_ctx *c = SSL_CTX_get_app_data(SSL_get_SSL_CTX(ssl));
	X509 *x = X509_STORE_CTX_get_current_cert(store);
	char sum[FINGERPRINT];

	if (!ok || X509_STORE_CTX_get_error_depth(store) > 0)
		return ok;
	hex_digest(x, sum);
	if (role_of(x) == TLS_HOST && strstr(c->fingerprints, sum))
		return 1;
	X509_STORE_CTX_set_error(store, X509_V_ERR_APPLICATION_VERIFICATION);
	return 0;
}

/* ---- contexts */

static int
trust(SSL_CTX *ssl, const char *pem)
{
	BIO *b = BIO_new_mem_buf(pem, -1);
	X509_STORE *store = X509_STORE_new();
	X509 *x;
	int n = 0;

	while ((x = PEM_read_bio_X509(b, NULL, NULL, NULL))) {
		n += X509_STORE_add_cert(store, x);
		X509_free(x);
	}
	ERR_clear_error(); /* the end of the list */
	BIO_free(b);
	SSL_CTX_set_cert_store(ssl, store);
	return n > 0;
}

static int
expect_host(SSL_CTX *ssl, const char *host)
{
	X509_VERIFY_PARAM *p = SSL_CTX_get0_param(ssl);
	unsigned char raw[sizeof(struct in6_addr)];

	if (inet_pton(AF_INET, host, raw) == 1 || inet_pton(AF_INET6, host, raw) == 1)
		return X509_VERIFY_PARAM_set1_ip_asc(p, host);
	return X509_VERIFY_PARAM_set1_host(p, host, 0);
}

int
tls_ctx_setup(const struct tls_ctx *c, void *ssl_ctx)
{
	SSL_CTX *ssl = ssl_ctx;
	X509 *x = cert_read(c->self.cert);
	EVP_PKEY *k = key_read(c->self.key);
	int ok = x && k && SSL_CTX_use_certificate(ssl, x) == 1 &&
	    SSL_CTX_use_PrivateKey(ssl, k) == 1 && trust(ssl, c->self.ca) &&
	    SSL_CTX_set_min_proto_version(ssl, TLS1_3_VERSION) == 1;

	X509_free(x);
	EVP_PKEY_free(k);
	SSL_CTX_set_app_data(ssl, (void *)c);
	if (c->server)
		SSL_CTX_set_verify(ssl, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, NULL);
	else
		SSL_CTX_set_verify(ssl, SSL_VERIFY_PEER, check_pinned);
	(void)SSL_CTX_set_session_cache_mode(ssl, SSL_SESS_CACHE_OFF);
	return ok && (!c->host || expect_host(ssl, c->host)) ? 0 : -1;
}

static int
choose_h2(SSL *ssl, const unsigned char **out, unsigned char *len, const unsigned char *in,
    unsigned inlen, void *arg)
{
	static const unsigned char h2[] = { 2, 'h', '2' };

	(void)ssl;
	(void)arg;
	return SSL_select_next_proto((unsigned char **)out, len, h2, sizeof h2, in, inlen) ==
		OPENSSL_NPN_NEGOTIATED
	    ? SSL_TLSEXT_ERR_OK
	    : SSL_TLSEXT_ERR_ALERT_FATAL;
}

static int
ctx_free(struct tls_ctx *c)
{
	SSL_CTX_free(c->ssl);
	return 0;
}

static struct tls_ctx *
ctx_new(void *mem, const struct tls_self *self, bool server, const char *host,
    const char *fingerprints, struct err *e)
{
	static const unsigned char h2[] = { 2, 'h', '2' };
	struct tls_ctx *c = talloc_zero(mem, struct tls_ctx);

	c->server = server;
	c->host = host ? talloc_strdup(c, host) : NULL;
	c->fingerprints = talloc_strdup(c, fingerprints ? fingerprints : "");
	c->self = (struct tls_self){ talloc_strdup(c, self->cert), talloc_strdup(c, self->key),
		talloc_strdup(c, self->ca) };
	c->ssl = SSL_CTX_new(server ? TLS_server_method() : TLS_client_method());
	talloc_set_destructor(c, ctx_free);
	if (tls_ctx_setup(c, c->ssl) < 0) {
		(void)refuse(e, E_CONFIG, "certificate");
		talloc_free(c);
		return NULL;
	}
	if (server)
		SSL_CTX_set_alpn_select_cb(c->ssl, choose_h2, NULL);
	else
		(void)SSL_CTX_set_alpn_protos(c->ssl, h2, sizeof h2);
	if (server)
		(void)SSL_CTX_set_num_tickets(c->ssl, 0); /* every connection is judged anew */
	return c;
}

struct tls_ctx *
tls_server(void *mem, const struct tls_self *self, struct err *e)
{
	return ctx_new(mem, self, true, NULL, NULL, e);
}

struct tls_ctx *
tls_client(void *mem, const struct tls_self *self, const char *host, const char *fingerprints,
    struct err *e)
{
	return ctx_new(mem, self, false, host, fingerprints, e);
}

struct tls_ctx *
tls_anyone(void *mem)
{
	static const unsigned char http[] = "\x08http/1.1";
	struct tls_ctx *c = talloc_zero(mem, struct tls_ctx);

	if (!c)
		abort();
	c->anyone = true;
	c->ssl = SSL_CTX_new(TLS_client_method());
	if (!c->ssl)
		abort();
	talloc_set_destructor(c, ctx_free);
	SSL_CTX_set_verify(c->ssl, SSL_VERIFY_NONE, NULL);
	/* development servers have small and old keys; nobody else is on that wire */
	SSL_CTX_set_security_level(c->ssl, 0);
	(void)SSL_CTX_set_min_proto_version(c->ssl, TLS1_2_VERSION);
	(void)SSL_CTX_set_options(c->ssl, SSL_OP_NO_RENEGOTIATION | SSL_OP_IGNORE_UNEXPECTED_EOF);
	(void)SSL_CTX_set_mode(c->ssl, SSL_MODE_RELEASE_BUFFERS);
	(void)SSL_CTX_set_session_cache_mode(c->ssl, SSL_SESS_CACHE_OFF);
	(void)SSL_CTX_set_alpn_protos(c->ssl, http, sizeof http - 1);
	return c;
}

/* ---- connections */

static int
tls_free(struct tls *t)
{
	SSL_free(t->ssl);
	return 0;
}

struct tls *
tls_new(void *mem, struct tls_ctx *c, bool server)
{
	struct tls *t = talloc_zero(mem, struct tls);

	t->anyone = c->anyone;
	t->ssl = SSL_new(c->ssl);
	t->in = BIO_new(BIO_s_mem());
	t->out = BIO_new(BIO_s_mem());
	if (!t->ssl || !t->in || !t->out)
		abort();
	SSL_set_bio(t->ssl, t->in, t->out);
	if (server)
		SSL_set_accept_state(t->ssl);
	else
		SSL_set_connect_state(t->ssl);
	talloc_set_destructor(t, tls_free);
	return t;
}

static int
handshake(struct tls *t, struct err *e)
{
	X509 *x;
	int rc;

	ERR_clear_error();
	rc = SSL_do_handshake(t->ssl);
	if (rc != 1) {
		rc = SSL_get_error(t->ssl, rc);
		if (rc == SSL_ERROR_WANT_READ || rc == SSL_ERROR_WANT_WRITE)
			return 0;
		if (!t->anyone && SSL_get_verify_result(t->ssl) != X509_V_OK) {
			ERR_clear_error();
			return err_set(e, E_REFUSED, "the peer's certificate: %s",
			    X509_verify_cert_error_string(SSL_get_verify_result(t->ssl)));
		}
		return refuse(e, E_REFUSED, "TLS");
	}
	if (t->anyone) {
		t->ready = true;
		return 0;
	}
	x = SSL_get1_peer_certificate(t->ssl);
	t->peer = x ? role_of(x) : TLS_NOBODY;
	X509_free(x);
	if (t->peer == TLS_NOBODY)
		return err_set(e, E_REFUSED, "the peer's certificate names nobody we know");
	t->ready = true;
	return 0;
}

int
tls_begin(struct tls *t, struct err *e)
{
	return handshake(t, e);
}

int
tls_feed(struct tls *t, const uint8_t *p, size_t n, struct err *e)
{
	(void)BIO_write(t->in, p, (int)n);
	return t->ready ? 0 : handshake(t, e);
}

ssize_t
tls_read(struct tls *t, uint8_t *p, size_t n, struct err *e)
{
	int got, why;

	if (!t->ready)
		return 0;
	ERR_clear_error();
	got = SSL_read(t->ssl, p, (int)n);
	if (got > 0)
		return got;
	why = SSL_get_error(t->ssl, got);
	if (why == SSL_ERROR_WANT_READ || why == SSL_ERROR_WANT_WRITE)
		return 0;
	if (why == SSL_ERROR_ZERO_RETURN)
		return err_set(e, E_CLOSED, "the peer closed the connection");
	return refuse(e, E_REFUSED, "TLS");
}

void
tls_want(struct tls *t, const char *name)
{
	(void)SSL_set_tlsext_host_name(t->ssl, name);
}

bool
tls_ready(const struct tls *t)
{
	return t->ready;
}

int
tls_send(struct tls *t, const uint8_t *p, size_t n, struct err *e)
{
	/* a memory BIO takes all */
	ERR_clear_error();
	return SSL_write(t->ssl, p, (int)n) == (int)n ? 0 : refuse(e, E_CLOSED, "TLS");
}

void
tls_finish(struct tls *t)
{
	ERR_clear_error();
	if (t->ready)
		(void)SSL_shutdown(t->ssl);
}

size_t
tls_pull(struct tls *t, uint8_t *p, size_t n)
{
	int got = BIO_read(t->out, p, (int)n);

	return got > 0 ? (size_t)got : 0;
}

enum tls_role
tls_peer(const struct tls *t)
{
	return t->peer;
}

/* ---- keys and requests */

static const char *
bio_text(void *mem, BIO *b)
{
	char *p;
	long n = BIO_get_mem_data(b, &p);
	const char *text = talloc_strndup(mem, p, n);

	BIO_free(b);
	return text;
}

const char *
tls_key_make(void *mem)
{
	EVP_PKEY *k = EVP_EC_gen("P-256");
	BIO *b = BIO_new(BIO_s_mem());

	if (!k || PEM_write_bio_PrivateKey(b, k, NULL, NULL, 0, NULL, NULL) != 1)
		abort();
	EVP_PKEY_free(k);
	return bio_text(mem, b);
}

const char *
tls_csr_make(void *mem, const char *key, struct err *e)
{
	EVP_PKEY *k = key_read(key);
	X509_REQ *r = X509_REQ_new();
	BIO *b = BIO_new(BIO_s_mem());
	const char *text = NULL;

	if (k && X509_REQ_set_pubkey(r, k) == 1 && X509_REQ_sign(r, k, EVP_sha256()) > 0 &&
	    PEM_write_bio_X509_REQ(b, r) == 1) {
		text = bio_text(mem, b);
	} else {
		BIO_free(b);
		(void)refuse(e, E_CONFIG, "certificate request");
	}
	X509_REQ_free(r);
	EVP_PKEY_free(k);
	return text;
}

/* ---- addresses */

int
dial_read(void *mem, const char *address, struct dial *ret)
{
	char *text, *port, *hash;

	if (strncmp(address, "https://", 8) != 0)
		return -1;
	text = talloc_strdup(mem, address + 8);
	hash = strchr(text, '#');
	if (hash)
		*hash++ = '\0';
	port = strrchr(text, ':');
	if (!port || port == text || !port[1] || strspn(port + 1, "0123456789") != strlen(port + 1))
		return -1;
	*port++ = '\0';
	if (*text == '[' && port[-2] == ']') {
		port[-2] = '\0';
		text++;
	}
	*ret = (struct dial){ text, port, hash ? hash : "" };
	/* what stands there becomes part of a certificate */
	return strspn(text, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.:-") ==
		strlen(text)
	    ? 0
	    : -1;
}
