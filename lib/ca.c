/* ca.c - see ca.h. */
#include "ca.h"
#include "cleanup.h"

#include <arpa/inet.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <string.h>
#include <time.h>

enum { CLIENT_TTL = 24 * 3600, SKEW = 300, SERIAL = 16 };

static const char ca_begin[] = "20240101000000Z", ca_end[] = "20740101000000Z";

static void
set_name(X509_NAME *n, const char *cn)
{
	(void)X509_NAME_add_entry_by_txt(
	    n, "O", MBSTRING_ASC, (const unsigned char *)"Hutch", -1, -1, 0);
	(void)X509_NAME_add_entry_by_txt(
	    n, "CN", MBSTRING_UTF8, (const unsigned char *)cn, -1, -1, 0);
}

static void
extend(X509 *x, X509 *issuer, int nid, const char *value)
{
	X509V3_CTX c;
	X509_EXTENSION *ext;

	X509V3_set_ctx(&c, issuer, x, NULL, NULL, 0);
	ext = X509V3_EXT_conf_nid(NULL, &c, nid, value);
	if (!ext || X509_add_ext(x, ext, -1) != 1)
		abort(); /* the values are ours */
	X509_EXTENSION_free(ext);
}

/* The authority of one master secret: key and certificate, both the same in every process. */
static X509 *
authority(const uint8_t seed[KEY_SIZE], EVP_PKEY **ret)
{
	EVP_PKEY *k = EVP_PKEY_new_raw_private_key(EVP_PKEY_ED25519, NULL, seed, KEY_SIZE);
	X509 *x = X509_new();

	if (!k || !x)
		abort();
	(void)X509_set_version(x, X509_VERSION_3);
	(void)ASN1_INTEGER_set(X509_get_serialNumber(x), 1);
	(void)ASN1_TIME_set_string(X509_getm_notBefore(x), ca_begin);
	(void)ASN1_TIME_set_string(X509_getm_notAfter(x), ca_end);
	set_name(X509_get_subject_name(x), "Hutch platform");
	(void)X509_set_issuer_name(x, X509_get_subject_name(x));
	(void)X509_set_pubkey(x, k);
	extend(x, x, NID_basic_constraints, "critical,CA:TRUE,pathlen:0");
	extend(x, x, NID_key_usage, "critical,keyCertSign");
	extend(x, x, NID_subject_key_identifier, "hash");
	if (X509_sign(x, k, NULL) <= 0)
		abort();
	*ret = k;
	return x;
}

static const char *
cert_text(void *mem, X509 *x)
{
	BIO *b = BIO_new(BIO_s_mem());
	const char *text;
	char *p;
	long n;

	(void)PEM_write_bio_X509(b, x);
	n = BIO_get_mem_data(b, &p);
	text = talloc_strndup(mem, p, n);
	BIO_free(b);
	return text;
}

const char *
ca_pem(void *mem, const struct keys *keys)
{
	EVP_PKEY *k;
	X509 *x = authority(keys->key[KEY_CA], &k);
	const char *text = cert_text(mem, x);

	X509_free(x);
	EVP_PKEY_free(k);
	if (keys->has_previous) {
		x = authority(keys->previous[KEY_CA], &k);
		text = talloc_asprintf(mem, "%s%s", text, cert_text(mem, x));
		X509_free(x);
		EVP_PKEY_free(k);
	}
	return text;
}

/* A certificate for a public key, good from five minutes ago (clocks differ). */
static int
issue(void *mem, const struct keys *keys, EVP_PKEY *who, const char *cn, const char *san,
    int64_t ttl, const char *usage, struct ca_cert *ret)
{
	EVP_PKEY *ca_key;
	X509 *ca = authority(keys->key[KEY_CA], &ca_key), *x = X509_new();
	uint8_t serial[SERIAL];
	BIGNUM *n;
	time_t now = time(NULL);
	int rc;

	crypto_random(serial, sizeof serial);
	serial[0] &= 0x7f;
	n = BN_bin2bn(serial, sizeof serial, NULL);
	(void)BN_to_ASN1_INTEGER(n, X509_get_serialNumber(x));
	BN_free(n);
	(void)X509_set_version(x, X509_VERSION_3);
	(void)ASN1_TIME_set(X509_getm_notBefore(x), now - SKEW);
	(void)ASN1_TIME_set(X509_getm_notAfter(x), now + ttl);
	set_name(X509_get_subject_name(x), cn);
	(void)X509_set_issuer_name(x, X509_get_subject_name(ca));
	(void)X509_set_pubkey(x, who);
	extend(x, ca, NID_basic_constraints, "critical,CA:FALSE");
	extend(x, ca, NID_key_usage, "critical,digitalSignature");
	extend(x, ca, NID_ext_key_usage, usage);
	extend(x, ca, NID_authority_key_identifier, "keyid");
	extend(x, ca, NID_subject_alt_name, san);
	rc = X509_sign(x, ca_key, NULL) > 0 ? 0 : -1;
	ret->pem = cert_text(mem, x);
	ret->expires_at = (now + ttl) * 1000000LL;
	if (rc == 0)
		rc = tls_fingerprint(ret->pem, ret->fingerprint);
	X509_free(x);
	X509_free(ca);
	EVP_PKEY_free(ca_key);
	return rc;
}

int
ca_sign_host(void *mem, const struct keys *keys, const char *csr, const struct uuid *host,
    const char *address, int64_t ttl, struct ca_cert *ret, struct err *e)
{
	BIO *b = BIO_new_mem_buf(csr, -1);
	X509_REQ *r = PEM_read_bio_X509_REQ(b, NULL, NULL, NULL);
	EVP_PKEY *k = r ? X509_REQ_get0_pubkey(r) : NULL;
	const char *id = id_text(mem, "host-", host), *san;
	unsigned char raw[sizeof(struct in6_addr)];
	struct dial d;
	char group[32] = "";
	bool ip;
	int rc;

	BIO_free(b);
	ERR_clear_error();
	if (k)
		(void)EVP_PKEY_get_group_name(k, group, sizeof group, NULL);
	if (!k || X509_REQ_verify(r, k) != 1 || strcmp(group, "prime256v1") != 0) {
		ERR_clear_error();
		X509_REQ_free(r);
		return err_set(
		    e, E_BAD_INPUT, "\"csr\" is not a signed request for an EC P-256 key");
	}
	if (dial_read(mem, address, &d) < 0) {
		X509_REQ_free(r);
		return err_set(e, E_BAD_INPUT, "\"address\" is not https://NAME:PORT");
	}
	ip = inet_pton(AF_INET, d.host, raw) == 1 || inet_pton(AF_INET6, d.host, raw) == 1;
	san = talloc_asprintf(mem, "%s:%s,URI:hutch:host:%s", ip ? "IP" : "DNS", d.host, id);
	rc = issue(mem, keys, k, id, san, ttl, "serverAuth,clientAuth", ret);
	X509_REQ_free(r);
	return rc < 0 ? err_set(e, E_BUG, "a certificate could not be signed") : 0;
}

const struct tls_self *
ca_self(const struct keys *keys, enum tls_role role)
{
	static struct tls_self self;
	static void *mem;
	static int64_t renew_at;
	const char *name = role == TLS_GATEWAY ? "hutch:gateway" : "hutch:control";
	struct ca_cert cert;
	EVP_PKEY *k;
	BIO *b;

	if (mem && time(NULL) < renew_at)
		return &self;
	TALLOC_FREE(mem);
	mem = talloc_new(NULL);
	self.key = tls_key_make(mem);
	b = BIO_new_mem_buf(self.key, -1);
	k = PEM_read_bio_PrivateKey(b, NULL, NULL, NULL);
	BIO_free(b);
	if (!k ||
	    issue(mem, keys, k, name, talloc_asprintf(mem, "URI:%s", name), CLIENT_TTL,
		"clientAuth", &cert) < 0)
		abort();
	EVP_PKEY_free(k);
	self.cert = cert.pem;
	self.ca = ca_pem(mem, keys);
	renew_at = time(NULL) + CLIENT_TTL / 2;
	return &self;
}
