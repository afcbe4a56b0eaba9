/* tls.c - the platform's authority, and who may speak to whom. */
#include "unit.h"
#include "ca.h"
#include "tls.h"

#include <string.h>

static struct keys keys;
static struct uuid host_id;
static struct tls_self host;
static struct ca_cert cert;

static void
make_host(const char *address)
{
	struct err e = { 0 };

	memset(keys.key[KEY_CA], 7, KEY_SIZE);
	host_id = uuid_new();
	host.key = tls_key_make(mem);
	ck_assert_int_eq(ca_sign_host(mem, &keys, tls_csr_make(mem, host.key, &e), &host_id,
			     address, 60, &cert, &e),
	    0);
	host.cert = cert.pem;
	host.ca = ca_pem(mem, &keys);
}

/* Moves what each has for the other until nobody has more. */
static int
talk(struct tls *a, struct tls *b, struct err *e)
{
	struct tls *both[] = { a, b };
	uint8_t wire[16384];
	size_t n, i;
	bool moved = true;

	while (moved) {
		moved = false;
		for (i = 0; i < 2; i++)
			while ((n = tls_pull(both[i], wire, sizeof wire)) > 0) {
				moved = true;
				if (tls_feed(both[!i], wire, n, e) < 0)
					return -1;
			}
	}
	return 0;
}

static int
meet(const struct tls_self *client, const char *name, const char *fingerprints, enum tls_role *who,
    struct err *e)
{
	struct tls_ctx *s = tls_server(mem, &host, e),
		       *c = tls_client(mem, client, name, fingerprints, e);
	struct tls *a = tls_new(mem, c, false), *b = tls_new(mem, s, true);
	uint8_t text[16];

	if (tls_begin(a, e) < 0 || talk(a, b, e) < 0)
		return -1;
	if (!tls_ready(a) || !tls_ready(b))
		return err_set(e, E_REFUSED, "not ready");
	*who = tls_peer(b);
	ck_assert_int_eq(tls_send(a, (const uint8_t *)"hello", 5, e), 0);
	ck_assert_int_eq(talk(a, b, e), 0);
	ck_assert_int_eq(tls_read(b, text, sizeof text, e), 5);
	ck_assert_mem_eq(text, "hello", 5);
	return 0;
}

START_TEST(both_sides_know_each_other)
{
	enum tls_role who = TLS_NOBODY;
	struct err e = { 0 };

	make_host("https://10.1.2.3:7443");
	ck_assert_msg(
	    meet(ca_self(&keys, TLS_CONTROL), "10.1.2.3", cert.fingerprint, &who, &e) == 0, "%s",
	    e.text);
	ck_assert_int_eq(who, TLS_CONTROL);
	ck_assert_int_eq(meet(&host, "10.1.2.3", cert.fingerprint, &who, &e), 0);
	ck_assert_int_eq(who, TLS_HOST);
}
END_TEST

START_TEST(a_name_in_the_certificate)
{
	enum tls_role who;
	struct err e = { 0 };

	make_host("https://node-1.example:7443");
	ck_assert_int_eq(meet(&host, "node-1.example", cert.fingerprint, &who, &e), 0);
	ck_assert_int_lt(meet(&host, "node-2.example", cert.fingerprint, &who, &e), 0);
}
END_TEST

START_TEST(another_certificate_is_refused)
{
	char other[FINGERPRINT];
	enum tls_role who;
	struct err e = { 0 };

	make_host("https://10.1.2.3:7443");
	memset(other, 'a', FINGERPRINT - 1);
	other[FINGERPRINT - 1] = '\0';
	ck_assert_int_lt(meet(&host, "10.1.2.3", other, &who, &e), 0);
	ck_assert_int_lt(meet(&host, "10.1.2.3", "", &who, &e), 0);
	/* the one before stays good for a while: two in the list */
	ck_assert_int_eq(meet(&host, "10.1.2.3",
			     talloc_asprintf(mem, "%s,%s", other, cert.fingerprint), &who, &e),
	    0);
}
END_TEST

START_TEST(another_authority_is_refused)
{
	struct tls_self stranger;
	struct keys others = { 0 };
	struct ca_cert theirs;
	enum tls_role who;
	struct err e = { 0 };

	make_host("https://10.1.2.3:7443");
	memset(others.key[KEY_CA], 9, KEY_SIZE);
	stranger.key = tls_key_make(mem);
	ck_assert_int_eq(ca_sign_host(mem, &others, tls_csr_make(mem, stranger.key, &e), &host_id,
			     "https://10.1.2.3:1", 60, &theirs, &e),
	    0);
	stranger.cert = theirs.pem;
	stranger.ca = host.ca;
	ck_assert_int_lt(meet(&stranger, "10.1.2.3", cert.fingerprint, &who, &e), 0);
}
END_TEST

START_TEST(bad_requests)
{
	struct ca_cert c;
	struct err e = { 0 };

	make_host("https://10.1.2.3:7443");
	ck_assert_int_lt(
	    ca_sign_host(mem, &keys, "nonsense", &host_id, "https://10.1.2.3:1", 60, &c, &e), 0);
	ck_assert_int_eq(e.code, E_BAD_INPUT);
	ck_assert_int_lt(ca_sign_host(mem, &keys, tls_csr_make(mem, host.key, &e), &host_id,
			     "https://a,URI:hutch.control:1", 60, &c, &e),
	    0);
	ck_assert_int_lt(ca_sign_host(mem, &keys, tls_csr_make(mem, host.key, &e), &host_id,
			     "unix:/x", 60, &c, &e),
	    0);
}
END_TEST

START_TEST(the_authority_is_the_same_everywhere)
{
	make_host("https://10.1.2.3:7443");
	ck_assert_str_eq(ca_pem(mem, &keys), ca_pem(mem, &keys));
}
END_TEST

Suite *
tls_suite(void)
{
	TCase *c;
	Suite *s = suite_new("tls", &c);

	tcase_add_test(c, both_sides_know_each_other);
	tcase_add_test(c, a_name_in_the_certificate);
	tcase_add_test(c, another_certificate_is_refused);
	tcase_add_test(c, another_authority_is_refused);
	tcase_add_test(c, bad_requests);
	tcase_add_test(c, the_authority_is_the_same_everywhere);
	return s;
}
