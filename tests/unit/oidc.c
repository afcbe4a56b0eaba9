/* oidc.c - ID tokens of other providers: what is believed, and what is not. */
#include "oidc.h"
#include "buf.h"
#include "cleanup.h"
#include "crypto.h"
#include "sign.h"
#include "unit.h"

#include <string.h>

enum { NOW = 1800000000 };

static const struct oidc_client client = {
	.type = "oidc", .issuer = "https://idp.example", .id = "hutch", .alg = "RS256"
};
static struct signer *good, *other, *secret;
static struct json_object *jwks;
static const char *good_jwk;

static void
keys(void)
{
	const char *jwk, *oct;
	struct buf b;

	setup();
	b = BUF(mem);
	good = signer_new(mem, "RSA", "k1", &good_jwk);
	other = signer_new(mem, "RSA", "k9", &jwk);
	secret = signer_new(mem, "oct", "k3", &oct);
	signer_new(mem, "EC", "k2", &jwk);
	buf_fmt(&b, "{\"keys\":[%s,%s,%s]}", good_jwk, jwk, oct);
	jwks = json_parse(mem, b.data, b.len, NULL, &err);
	ck_assert_ptr_nonnull(jwks);
}

/* The claims of a good token, with one of them replaced: name and JSON text, NULL text leaves it
 * out. */
static const char *
claims(const char *name, const char *text)
{
	static const struct {
		const char *name, *text;
	} all[] = { { "iss", "\"https://idp.example\"" }, { "aud", "\"hutch\"" },
		{ "sub", "\"u1\"" }, { "exp", "1800000300" }, { "iat", "1800000000" },
		{ "nonce", "\"n\"" }, { "email", "\"u@corp.example\"" } };
	struct buf b = BUF(mem);
	bool found = false;
	size_t i;

	buf_chr(&b, '{');
	for (i = 0; i < nitems(all); i++) {
		const char *value = all[i].text;

		if (name && strcmp(name, all[i].name) == 0) {
			found = true;
			value = text;
		}
		if (value)
			buf_fmt(&b, "%s\"%s\":%s", b.len > 1 ? "," : "", all[i].name, value);
	}
	if (name && !found)
		buf_fmt(&b, ",\"%s\":%s", name, text);
	buf_chr(&b, '}');
	return b.data;
}

static bool
accepted(const char *token)
{
	err = (struct err){ 0 };
	return oidc_id_token(mem, &client, jwks, token, "n", "access", NOW, &err) != NULL;
}

START_TEST(a_good_token)
{
	ck_assert_msg(
	    accepted(sign(mem, good, "RS256", "k1", 0, claims(NULL, NULL))), "%s", err.text);
	ck_assert(accepted(sign(mem, good, "RS256", "k1", 0, claims("aud", "[\"hutch\"]"))));
}
END_TEST

START_TEST(wrong_claims)
{
	static const struct {
		const char *name, *text;
	} wrong[] = { { "iss", "\"https://idp.example/\"" }, { "iss", NULL },
		{ "aud", "\"hutch2\"" }, { "aud", NULL }, { "aud", "[]" },
		{ "aud", "[\"hutch\",\"x\"]" }, { "aud", "{}" }, { "azp", "\"x\"" },
		{ "exp", "1799999900" }, { "exp", NULL }, { "exp", "\"never\"" },
		{ "iat", "1800000100" }, { "iat", NULL }, { "nbf", "1800000100" },
		{ "nonce", "\"m\"" }, { "nonce", NULL }, { "sub", "\"\"" }, { "sub", NULL },
		{ "sub", "7" }, { "at_hash", "\"AAAA\"" } };
	size_t i;

	for (i = 0; i < nitems(wrong); i++)
		ck_assert_msg(!accepted(sign(mem, good, "RS256", "k1", 0,
				  claims(wrong[i].name, wrong[i].text))),
		    "%s %s", wrong[i].name, wrong[i].text ? wrong[i].text : "absent");
}
END_TEST

START_TEST(the_access_token_is_bound)
{
	uint8_t h[HASH_SIZE];

	crypto_sha256("access", 6, h);
	ck_assert(accepted(sign(mem, good, "RS256", "k1", 0,
	    claims("at_hash", talloc_asprintf(mem, "\"%s\"", base64url_write(mem, h, 16))))));
}
END_TEST

START_TEST(wrong_signatures)
{
	const char *token = sign(mem, good, "RS256", "k1", 0, claims(NULL, NULL));
	const char *body = strchr(token, '.') + 1, *sig = strchr(body, '.') + 1;
	char *bent = talloc_strdup(mem, token);

	ck_assert(!accepted(sign(mem, other, "RS256", "k1", 0, claims(NULL, NULL))));
	ck_assert(!accepted(sign(mem, good, "RS384", "k1", 0, claims(NULL, NULL))));
	ck_assert(!accepted(sign(mem, good, "PS256", "k1", 0, claims(NULL, NULL))));
	ck_assert(!accepted(sign(mem, secret, "HS256", "k3", 0, claims(NULL, NULL))));
	ck_assert(!accepted(sign(mem, good, "RS256", "k2", 0, claims(NULL, NULL))));
	ck_assert(!accepted(sign(mem, good, "RS256", "k1", 1, claims(NULL, NULL))));
	/* without a name the set has too many keys to choose from */
	ck_assert(!accepted(sign(mem, good, "RS256", NULL, 0, claims(NULL, NULL))));
	bent[sig - token + 3] ^= 1;
	ck_assert(!accepted(bent));
	ck_assert(!accepted(talloc_asprintf(mem, "%s.%.*s.",
	    base64url_write(mem, "{\"alg\":\"none\"}", 14), (int)(sig - 1 - body), body)));
	ck_assert(!accepted(talloc_asprintf(mem, "%s.%.*s.",
	    base64url_write(mem, "{\"alg\":\"RS256\",\"kid\":\"k1\"}", 26), (int)(sig - 1 - body),
	    body)));
	ck_assert(!accepted(""));
	ck_assert(!accepted(".."));
	ck_assert(!accepted("a.b.c"));
}
END_TEST

START_TEST(an_unpublished_key_is_told_apart)
{
	ck_assert(!accepted(sign(mem, good, "RS256", "k7", 0, claims(NULL, NULL))));
	ck_assert_int_eq(err.code, E_NOT_FOUND);
}
END_TEST

Suite *
oidc_suite(void)
{
	Suite *s = suite_create("oidc");
	TCase *t = tcase_create("oidc");

	tcase_add_checked_fixture(t, keys, teardown);
	tcase_set_timeout(t, 60);
	tcase_add_test(t, a_good_token);
	tcase_add_test(t, wrong_claims);
	tcase_add_test(t, the_access_token_is_bound);
	tcase_add_test(t, wrong_signatures);
	tcase_add_test(t, an_unpublished_key_is_told_apart);
	suite_add_tcase(s, t);
	return s;
}
