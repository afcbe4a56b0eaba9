/* token.c - lib/token.c: forged tokens of every kind, and API keys. */
#include "token_seen.h"
#include "cleanup.h"
#include "unit.h"

#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <string.h>
#include <time.h>

#define ISS  "https://hutch.example"
#define HEAD "{\"alg\":\"HS256\",\"kid\":\"@K\",\"typ\":\"JWT\"}"
#define BODY                                                                                      \
	"\"iss\":\"" ISS "\",\"aud\":\"hutch-api\",\"sub\":\"@U\",\"sid\":\"@S\",\"team_id\":\"@" \
	"T\",\"role\":\"owner\","                                                                 \
	"\"is_admin\":true,\"iat\":@N"
#define CLAIMS "{" BODY ",\"exp\":@F}"

static struct keys keys;
static struct uuid user, session, team;

static void
make_keys(void)
{
	int i;

	setup();
	for (i = 0; i < KEY__MAX; i++) {
		memset(keys.key[i], 'a' + i, KEY_SIZE);
		memset(keys.previous[i], 'A' + i, KEY_SIZE);
	}
	memcpy(keys.kid, "11111111", 9);
	memcpy(keys.previous_kid, "22222222", 9);
	keys.has_previous = true;
	user = uuid_new();
	session = uuid_new();
	team = uuid_new();
}

/* The text with its @X replaced: ids, key ids, times. */
static const char *
fill(const char *text)
{
	struct buf b = BUF(mem);
	int64_t now = time(NULL);

	for (; *text; text++) {
		if (*text != '@') {
			buf_chr(&b, *text);
			continue;
		}
		switch (*++text) {
		case 'K':
			buf_str(&b, keys.kid);
			break;
		case 'O':
			buf_str(&b, keys.previous_kid);
			break;
		case 'U':
			buf_str(&b, id_text(mem, "usr-", &user));
			break;
		case 'S':
			buf_str(&b, id_text(mem, "ses-", &session));
			break;
		case 'T':
			buf_str(&b, id_text(mem, "team-", &team));
			break;
		case 'H':
			buf_str(&b, id_text(mem, "host-", &user));
			break;
		case 'N':
			buf_int(&b, now);
			break;
		case 'F':
			buf_int(&b, now + 600);
			break;
		case 'P':
			buf_int(&b, now - 600);
			break;
		default:
			ck_abort_msg("no @%c", *text);
		}
	}
	return b.data ? b.data : "";
}

enum sign { CURRENT, PREVIOUS, HOST_KEY, ZERO_KEY, KID_KEY, SHA384, SHA512, NO_SIGNATURE, GARBAGE };

static const char *
signature(enum sign how, const char *text)
{
	uint8_t mac[EVP_MAX_MD_SIZE];
	unsigned n = 32;
	static const uint8_t zero[KEY_SIZE];
	uint8_t kid[KEY_SIZE] = { 0 };
	const uint8_t *key = keys.key[KEY_ACCESS];
	const EVP_MD *md = how == SHA384 ? EVP_sha384()
	    : how == SHA512              ? EVP_sha512()
					 : EVP_sha256();

	memcpy(kid, keys.kid, 8);
	if (how == NO_SIGNATURE)
		return "";
	if (how == GARBAGE)
		return "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
	key = how == PREVIOUS ? keys.previous[KEY_ACCESS]
	    : how == HOST_KEY ? keys.key[KEY_HOST]
	    : how == ZERO_KEY ? zero
	    : how == KID_KEY  ? kid
			      : key;
	HMAC(md, key, KEY_SIZE, (const uint8_t *)text, strlen(text), mac, &n);
	return base64url_write(mem, mac, n);
}

static const char *
forge(const char *head, const char *claims, enum sign how)
{
	const char *h = fill(head ? head : HEAD), *c = fill(claims ? claims : CLAIMS);
	const char *text = talloc_asprintf(
	    mem, "%s.%s", base64url_write(mem, h, strlen(h)), base64url_write(mem, c, strlen(c)));

	return talloc_asprintf(mem, "%s.%s", text, signature(how, text));
}

static int
verify(enum token_type type, const char *text, struct token_claims *c)
{
	return token_verify(mem, &keys, type, ISS, text, c, &err);
}

/* clang-format off */
static const struct {
	const char *what, *head, *claims;
	enum sign how;
} forged[] = {
	/* the algorithm is not the token's to choose */
	{ "alg none", "{\"alg\":\"none\",\"kid\":\"@K\",\"typ\":\"JWT\"}", NULL, NO_SIGNATURE },
	{ "alg none, signed", "{\"alg\":\"none\",\"kid\":\"@K\",\"typ\":\"JWT\"}", NULL, CURRENT },
	{ "alg None", "{\"alg\":\"None\",\"kid\":\"@K\",\"typ\":\"JWT\"}", NULL, NO_SIGNATURE },
	{ "alg NONE", "{\"alg\":\"NONE\",\"kid\":\"@K\",\"typ\":\"JWT\"}", NULL, NO_SIGNATURE },
	{ "alg nOnE", "{\"alg\":\"nOnE\",\"kid\":\"@K\",\"typ\":\"JWT\"}", NULL, NO_SIGNATURE },
	{ "alg empty", "{\"alg\":\"\",\"kid\":\"@K\",\"typ\":\"JWT\"}", NULL, NO_SIGNATURE },
	{ "alg null", "{\"alg\":null,\"kid\":\"@K\",\"typ\":\"JWT\"}", NULL, CURRENT },
	{ "alg absent", "{\"kid\":\"@K\",\"typ\":\"JWT\"}", NULL, CURRENT },
	{ "alg HS384", "{\"alg\":\"HS384\",\"kid\":\"@K\",\"typ\":\"JWT\"}", NULL, SHA384 },
	{ "alg HS512", "{\"alg\":\"HS512\",\"kid\":\"@K\",\"typ\":\"JWT\"}", NULL, SHA512 },
	{ "alg RS256", "{\"alg\":\"RS256\",\"kid\":\"@K\",\"typ\":\"JWT\"}", NULL, CURRENT },
	{ "alg ES256", "{\"alg\":\"ES256\",\"kid\":\"@K\",\"typ\":\"JWT\"}", NULL, CURRENT },
	{ "alg PS256", "{\"alg\":\"PS256\",\"kid\":\"@K\",\"typ\":\"JWT\"}", NULL, CURRENT },
	{ "alg hs256", "{\"alg\":\"hs256\",\"kid\":\"@K\",\"typ\":\"JWT\"}", NULL, CURRENT },
	{ "alg HS256 with a blank", "{\"alg\":\"HS256 \",\"kid\":\"@K\",\"typ\":\"JWT\"}", NULL, CURRENT },
	{ "alg a list", "{\"alg\":[\"HS256\"],\"kid\":\"@K\",\"typ\":\"JWT\"}", NULL, CURRENT },
	{ "alg twice", "{\"alg\":\"none\",\"alg\":\"HS256\",\"kid\":\"@K\",\"typ\":\"JWT\"}", NULL, CURRENT },
	{ "alg twice, escaped", "{\"\\u0061lg\":\"none\",\"alg\":\"HS256\",\"kid\":\"@K\",\"typ\":\"JWT\"}", NULL, CURRENT },
	{ "HS512 said, HS256 done", "{\"alg\":\"HS512\",\"kid\":\"@K\",\"typ\":\"JWT\"}", NULL, CURRENT },
	{ "HS256 said, HS512 done", NULL, NULL, SHA512 },
	/* nor the key */
	{ "kid a path", "{\"alg\":\"HS256\",\"kid\":\"../../dev/null\",\"typ\":\"JWT\"}", NULL, ZERO_KEY },
	{ "kid SQL", "{\"alg\":\"HS256\",\"kid\":\"' UNION SELECT 'x\",\"typ\":\"JWT\"}", NULL, KID_KEY },
	{ "kid unknown", "{\"alg\":\"HS256\",\"kid\":\"33333333\",\"typ\":\"JWT\"}", NULL, CURRENT },
	{ "kid absent", "{\"alg\":\"HS256\",\"typ\":\"JWT\"}", NULL, CURRENT },
	{ "kid empty", "{\"alg\":\"HS256\",\"kid\":\"\",\"typ\":\"JWT\"}", NULL, CURRENT },
	{ "kid a number", "{\"alg\":\"HS256\",\"kid\":11111111,\"typ\":\"JWT\"}", NULL, CURRENT },
	{ "kid longer", "{\"alg\":\"HS256\",\"kid\":\"@K0\",\"typ\":\"JWT\"}", NULL, CURRENT },
	{ "kid of the previous key, signed with the current", "{\"alg\":\"HS256\",\"kid\":\"@O\",\"typ\":\"JWT\"}", NULL, CURRENT },
	{ "kid of the current key, signed with the previous", NULL, NULL, PREVIOUS },
	{ "key of zeros", NULL, NULL, ZERO_KEY }, { "the kid as key", NULL, NULL, KID_KEY }, { "the hosts' key", NULL, NULL, HOST_KEY },
	{ "garbage as signature", NULL, NULL, GARBAGE }, { "no signature", NULL, NULL, NO_SIGNATURE },
	{ "jku", "{\"alg\":\"HS256\",\"kid\":\"@K\",\"typ\":\"JWT\",\"jku\":\"https://evil.example/jwks\"}", NULL, CURRENT },
	{ "jwk", "{\"alg\":\"HS256\",\"kid\":\"@K\",\"typ\":\"JWT\",\"jwk\":{\"kty\":\"oct\",\"k\":\"AAAA\"}}", NULL, ZERO_KEY },
	{ "x5u", "{\"alg\":\"HS256\",\"kid\":\"@K\",\"typ\":\"JWT\",\"x5u\":\"https://evil.example/c\"}", NULL, CURRENT },
	{ "x5c", "{\"alg\":\"HS256\",\"kid\":\"@K\",\"typ\":\"JWT\",\"x5c\":[]}", NULL, CURRENT },
	{ "crit", "{\"alg\":\"HS256\",\"kid\":\"@K\",\"typ\":\"JWT\",\"crit\":[\"b64\"]}", NULL, CURRENT },
	{ "b64 false", "{\"alg\":\"HS256\",\"kid\":\"@K\",\"typ\":\"JWT\",\"b64\":false}", NULL, CURRENT },
	{ "zip", "{\"alg\":\"HS256\",\"kid\":\"@K\",\"typ\":\"JWT\",\"zip\":\"DEF\"}", NULL, CURRENT },
	{ "cty instead of typ", "{\"alg\":\"HS256\",\"kid\":\"@K\",\"cty\":\"JWT\"}", NULL, CURRENT },
	{ "typ absent", "{\"alg\":\"HS256\",\"kid\":\"@K\"}", NULL, CURRENT },
	{ "typ other", "{\"alg\":\"HS256\",\"kid\":\"@K\",\"typ\":\"host\"}", NULL, CURRENT },
	{ "typ lower case", "{\"alg\":\"HS256\",\"kid\":\"@K\",\"typ\":\"jwt\"}", NULL, CURRENT },
	{ "header no object", "[\"HS256\",\"@K\",\"JWT\"]", NULL, CURRENT },
	{ "header no JSON", "alg=HS256", NULL, CURRENT }, { "header empty", "", NULL, CURRENT }, { "header null", "null", NULL, CURRENT },
	{ "header with something behind", HEAD "{}", NULL, CURRENT },
	/* claims */
	{ "expired", NULL, "{" BODY ",\"exp\":@P}", CURRENT }, { "exp absent", NULL, "{" BODY "}", CURRENT },
	{ "exp a text", NULL, "{" BODY ",\"exp\":\"@F\"}", CURRENT }, { "exp null", NULL, "{" BODY ",\"exp\":null}", CURRENT },
	{ "exp 0", NULL, "{" BODY ",\"exp\":0}", CURRENT }, { "exp negative", NULL, "{" BODY ",\"exp\":-1}", CURRENT },
	{ "exp too large", NULL, "{" BODY ",\"exp\":99999999999999999999}", CURRENT }, { "exp 1e400", NULL, "{" BODY ",\"exp\":1e400}", CURRENT },
	{ "exp twice", NULL, "{" BODY ",\"exp\":@P,\"exp\":@F}", CURRENT }, { "exp twice, escaped", NULL, "{" BODY ",\"exp\":@P,\"\\u0065xp\":@F}", CURRENT },
	{ "nbf to come", NULL, "{" BODY ",\"exp\":@F,\"nbf\":@F}", CURRENT }, { "nbf a text", NULL, "{" BODY ",\"exp\":@F,\"nbf\":\"@F\"}", CURRENT },
	{ "nbf to come, as a float", NULL, "{" BODY ",\"exp\":@F,\"nbf\":9e12}", CURRENT },
	{ "iat to come", NULL, "{\"iss\":\"" ISS "\",\"aud\":\"hutch-api\",\"sub\":\"@U\",\"sid\":\"@S\",\"iat\":@F,\"exp\":@F}", CURRENT },
	{ "iat absent", NULL, "{\"iss\":\"" ISS "\",\"aud\":\"hutch-api\",\"sub\":\"@U\",\"sid\":\"@S\",\"exp\":@F}", CURRENT },
	{ "iat a text", NULL, "{\"iss\":\"" ISS "\",\"aud\":\"hutch-api\",\"sub\":\"@U\",\"sid\":\"@S\",\"iat\":\"0\",\"exp\":@F}", CURRENT },
	{ "iss other", NULL, "{\"iss\":\"https://evil.example\",\"aud\":\"hutch-api\",\"sub\":\"@U\",\"sid\":\"@S\",\"iat\":@N,\"exp\":@F}", CURRENT },
	{ "iss absent", NULL, "{\"aud\":\"hutch-api\",\"sub\":\"@U\",\"sid\":\"@S\",\"iat\":@N,\"exp\":@F}", CURRENT },
	{ "iss with a slash", NULL, "{\"iss\":\"" ISS "/\",\"aud\":\"hutch-api\",\"sub\":\"@U\",\"sid\":\"@S\",\"iat\":@N,\"exp\":@F}", CURRENT },
	{ "aud other", NULL, "{\"iss\":\"" ISS "\",\"aud\":\"hutch-host\",\"sub\":\"@U\",\"sid\":\"@S\",\"iat\":@N,\"exp\":@F}", CURRENT },
	{ "aud absent", NULL, "{\"iss\":\"" ISS "\",\"sub\":\"@U\",\"sid\":\"@S\",\"iat\":@N,\"exp\":@F}", CURRENT },
	{ "aud a list", NULL, "{\"iss\":\"" ISS "\",\"aud\":[\"hutch-api\"],\"sub\":\"@U\",\"sid\":\"@S\",\"iat\":@N,\"exp\":@F}", CURRENT },
	{ "sub absent", NULL, "{\"iss\":\"" ISS "\",\"aud\":\"hutch-api\",\"sid\":\"@S\",\"iat\":@N,\"exp\":@F}", CURRENT },
	{ "sub a host", NULL, "{\"iss\":\"" ISS "\",\"aud\":\"hutch-api\",\"sub\":\"@H\",\"sid\":\"@S\",\"iat\":@N,\"exp\":@F}", CURRENT },
	{ "sub malformed", NULL, "{\"iss\":\"" ISS "\",\"aud\":\"hutch-api\",\"sub\":\"usr-1\",\"sid\":\"@S\",\"iat\":@N,\"exp\":@F}", CURRENT },
	{ "sub twice", NULL, "{" BODY ",\"exp\":@F,\"sub\":\"@U\"}", CURRENT },
	{ "sid absent", NULL, "{\"iss\":\"" ISS "\",\"aud\":\"hutch-api\",\"sub\":\"@U\",\"iat\":@N,\"exp\":@F}", CURRENT },
	{ "sid malformed", NULL, "{\"iss\":\"" ISS "\",\"aud\":\"hutch-api\",\"sub\":\"@U\",\"sid\":\"ses-\",\"iat\":@N,\"exp\":@F}", CURRENT },
	{ "team_id malformed", NULL, "{\"iss\":\"" ISS "\",\"aud\":\"hutch-api\",\"sub\":\"@U\",\"sid\":\"@S\",\"team_id\":\"team-x\",\"iat\":@N,\"exp\":@F}", CURRENT },
	{ "team_id a user", NULL, "{\"iss\":\"" ISS "\",\"aud\":\"hutch-api\",\"sub\":\"@U\",\"sid\":\"@S\",\"team_id\":\"@U\",\"iat\":@N,\"exp\":@F}", CURRENT },
	{ "typ host in the claims", NULL, "{" BODY ",\"exp\":@F,\"typ\":\"host\"}", CURRENT },
	{ "claims no object", NULL, "[1]", CURRENT }, { "claims no JSON", NULL, "exp", CURRENT }, { "claims empty", NULL, "", CURRENT },
	{ "claims null", NULL, "null", CURRENT }, { "claims with NaN", NULL, "{" BODY ",\"exp\":NaN}", CURRENT },
	{ "claims with a NUL", NULL, "{" BODY ",\"exp\":@F,\"x\":\"\\u0000\"}", CURRENT },
	{ "claims with something behind", NULL, CLAIMS "x", CURRENT },
};
/* clang-format on */

START_TEST(refuses)
{
	struct token_claims c = { .iat = 7 };

	ck_assert_msg(verify(TOKEN_ACCESS,
			  forge(forged[_i].head, forged[_i].claims, forged[_i].how), &c) == -1,
	    "%s was taken", forged[_i].what);
	ck_assert_int_eq(err.code, E_UNAUTHORIZED);
	ck_assert_int_eq(c.iat, 7);
}
END_TEST

START_TEST(accepts)
{
	struct token_claims c;

	ck_assert_msg(verify(TOKEN_ACCESS, forge(NULL, NULL, CURRENT), &c) == 0, "%s", err.text);
	ck_assert(uuid_equal(&c.sub, &user));
	ck_assert(uuid_equal(&c.sid, &session));
	ck_assert(c.has_team && uuid_equal(&c.team, &team));
	ck_assert(c.is_admin);
	ck_assert_str_eq(c.role, "owner");
	ck_assert_msg(
	    verify(TOKEN_ACCESS,
		forge("{\"alg\":\"HS256\",\"kid\":\"@O\",\"typ\":\"JWT\"}", NULL, PREVIOUS),
		&c) == 0,
	    "previous key: %s", err.text);
	ck_assert_int_eq(
	    verify(TOKEN_ACCESS,
		forge("{\"typ\":\"JWT\", \"kid\":\"@K\",\"alg\":\"HS256\"}", NULL, CURRENT), &c),
	    0);
	ck_assert_int_eq(
	    verify(TOKEN_ACCESS, forge(NULL, "{" BODY ",\"exp\":@F,\"nbf\":@P}", CURRENT), &c), 0);
	keys.has_previous = false;
	ck_assert_int_eq(
	    verify(TOKEN_ACCESS,
		forge("{\"alg\":\"HS256\",\"kid\":\"@O\",\"typ\":\"JWT\"}", NULL, PREVIOUS), &c),
	    -1);
}
END_TEST

static const char *
signed_token(enum token_type type)
{
	struct token_claims c = { .sub = user,
		.sid = session,
		.team = team,
		.has_team = true,
		.role = "member",
		.email = "a@b",
		.name = "A \"B\"",
		.iat = time(NULL),
		.exp = time(NULL) + 60 };

	return token_sign(mem, &keys, type, ISS, &c, &err);
}

START_TEST(round_trip)
{
	const char *access = signed_token(TOKEN_ACCESS), *host = signed_token(TOKEN_HOST);
	struct token_claims c;

	ck_assert_msg(access && host, "%s", err.text);
	ck_assert_int_eq(verify(TOKEN_ACCESS, access, &c), 0);
	ck_assert_str_eq(c.name, "A \"B\"");
	ck_assert_str_eq(c.email, "a@b");
	ck_assert(!c.is_admin);
	ck_assert_int_eq(verify(TOKEN_HOST, host, &c), 0);
	ck_assert(uuid_equal(&c.sub, &user));
	ck_assert_int_eq(verify(TOKEN_HOST, access, &c), -1);
	ck_assert_int_eq(verify(TOKEN_ACCESS, host, &c), -1);
	ck_assert_int_eq(
	    token_verify(mem, &keys, TOKEN_ACCESS, "https://other.example", access, &c, &err), -1);
}
END_TEST

/* What was verified once is known again: exactly it, and only as what it was. */
START_TEST(seen_again)
{
	struct token_seen *seen = token_seen_new(mem);
	char *access = talloc_strdup(mem, signed_token(TOKEN_ACCESS));
	struct token_claims first, c;
	size_t i, n = strlen(access);
	int turn;

	ck_assert_int_eq(token_verify(mem, &keys, TOKEN_ACCESS, ISS, access, &first, &err), 0);
	for (turn = 0; turn < 3; turn++) {
		ck_assert_int_eq(
		    token_seen_verify(seen, mem, &keys, TOKEN_ACCESS, ISS, access, &c, &err), 0);
		ck_assert(uuid_equal(&c.sub, &first.sub) && uuid_equal(&c.sid, &first.sid));
		ck_assert_str_eq(c.email, first.email);
		ck_assert_int_eq(c.exp, first.exp);
	}
	ck_assert_int_eq(
	    token_seen_verify(seen, mem, &keys, TOKEN_HOST, ISS, access, &c, &err), -1);
	for (i = 0; i < n; i += 7) {
		access[i] ^= 1;
		ck_assert_int_eq(
		    token_seen_verify(seen, mem, &keys, TOKEN_ACCESS, ISS, access, &c, &err), -1);
		access[i] ^= 1;
	}
	access[n - 1] = '\0';
	ck_assert_int_eq(
	    token_seen_verify(seen, mem, &keys, TOKEN_ACCESS, ISS, access, &c, &err), -1);
	ck_assert_int_eq(token_seen_verify(seen, mem, &keys, TOKEN_ACCESS, ISS, "", &c, &err), -1);
}
END_TEST

/* The parts of a good token, put together wrong: @ stands before h, p and s. */
START_TEST(mangled)
{
	/* clang-format off */
	static const char *const shape[] = {
		"", ".", "..", "...", "@h", "@h.@p", "@h.@p.", ".@p.@s", "@h..@s", "@p.@h.@s", "@h.@p.@s.", "@h.@p.@s.@s", ".@h.@p.@s",
		"@h.@p.@s ", " @h.@p.@s", "@h.@p.@s\n", "@h.@p.@s=", "@h=.@p.@s", "@h.@p=.@s", "@h.@p.@sA", "@h.@p.@s@s", "@h.@p.@p", "@h @p @s",
		"Bearer @h.@p.@s", "@h.@p.@h", "@h.@h.@s", "@h,@p,@s", "@h.@p\xc3\xa4.@s", "@h.@p..@s", "!@h.@p.@s",
	};
	/* clang-format on */
	const char *good = signed_token(TOKEN_ACCESS), *p = strchr(good, '.'),
		   *s = strrchr(good, '.');
	const char *f;
	struct token_claims c;
	struct buf b = BUF(mem);

	buf_str(&b, "");
	for (f = shape[_i]; *f; f++)
		if (*f == '@' && *++f)
			buf_add(&b,
			    *f == 'h'       ? good
				: *f == 'p' ? p + 1
					    : s + 1,
			    *f == 'h'       ? (size_t)(p - good)
				: *f == 'p' ? (size_t)(s - p - 1)
					    : strlen(s + 1));
		else
			buf_chr(&b, *f);
	ck_assert_msg(verify(TOKEN_ACCESS, b.data, &c) == -1, "%s was taken", shape[_i]);
	ck_assert_int_eq(err.code, E_UNAUTHORIZED);
}
END_TEST

/* Every character of the token counts, and every shorter token is refused. */
START_TEST(each_character)
{
	char *t = talloc_strdup(mem, signed_token(TOKEN_ACCESS)), old;
	size_t i, n = strlen(t);
	struct token_claims c;

	for (i = 0; i < n; i++) {
		old = t[i];
		t[i] = old == 'A' ? 'B' : 'A';
		ck_assert_msg(verify(TOKEN_ACCESS, t, &c) == -1, "changed at %zu", i);
		t[i] = '\0';
		ck_assert_msg(verify(TOKEN_ACCESS, t, &c) == -1, "cut at %zu", i);
		t[i] = old;
	}
	err = (struct err){ 0 };
	ck_assert_int_eq(verify(TOKEN_ACCESS, t, &c), 0);
}
END_TEST

START_TEST(too_long)
{
	char *pad = talloc_zero_size(mem, 4097);
	struct token_claims c;

	memset(pad, 'x', 4096);
	ck_assert_int_eq(
	    verify(TOKEN_ACCESS,
		forge(
		    NULL, talloc_asprintf(mem, "{" BODY ",\"exp\":@F,\"x\":\"%s\"}", pad), CURRENT),
		&c),
	    -1);
	pad[2000] = '\0';
	err = (struct err){ 0 };
	ck_assert_int_eq(
	    verify(TOKEN_ACCESS,
		forge(
		    NULL, talloc_asprintf(mem, "{" BODY ",\"exp\":@F,\"x\":\"%s\"}", pad), CURRENT),
		&c),
	    0);
}
END_TEST

START_TEST(api_keys)
{
	const char *key = apikey_new(mem, "htc"), *digits = strchr(key, '_') + 1;
	uint8_t h[HASH_SIZE], same[HASH_SIZE];
	char *t = talloc_strdup(mem, key), *upper = talloc_strdup(mem, key), old, *p;
	size_t i;

	ck_assert_int_eq(strlen(key), 44);
	ck_assert(apikey_hash(key, h));
	ck_assert_str_ne(key, apikey_new(mem, "htc"));
	ck_assert(apikey_hash(talloc_asprintf(mem, "e2b_%s", digits), same));
	ck_assert_mem_eq(h, same, sizeof h);
	for (p = strchr(upper, '_'); *p; p++)
		*p = *p >= 'a' && *p <= 'f' ? *p - 32 : *p;
	ck_assert(apikey_hash(upper, same));
	ck_assert_mem_eq(h, same, sizeof h);
	for (i = 4; i < 44; i++) { /* one wrong digit is always found */
		old = t[i];
		t[i] = old == '0' ? '1' : '0';
		ck_assert_msg(!apikey_hash(t, same), "%s was taken for %s", t, key);
		t[i] = '\0';
		ck_assert(!apikey_hash(t, same));
		t[i] = old;
	}
	ck_assert(!apikey_hash("", same));
	ck_assert(!apikey_hash("_", same));
	ck_assert(!apikey_hash(digits, same));
	ck_assert(!apikey_hash(talloc_asprintf(mem, "_%s", digits), same));
	ck_assert(!apikey_hash(talloc_asprintf(mem, "%s0", key), same));
	ck_assert(!apikey_hash(talloc_asprintf(mem, "%s ", key), same));
	ck_assert(!apikey_hash(talloc_asprintf(mem, "htc__%s", digits), same));
	ck_assert(!apikey_hash(talloc_asprintf(mem, "waytoolongword_%s", digits), same));
	ck_assert(!apikey_hash("htc_zzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzz", same));
}
END_TEST

Suite *
token_suite(void)
{
	Suite *s = suite_create("token");
	TCase *c = tcase_create("token");

	tcase_add_checked_fixture(c, make_keys, teardown);
	tcase_set_timeout(c, 60);
	tcase_add_test(c, accepts);
	tcase_add_test(c, round_trip);
	tcase_add_test(c, seen_again);
	tcase_add_loop_test(c, refuses, 0, nitems(forged));
	tcase_add_loop_test(c, mangled, 0, 30);
	tcase_add_test(c, each_character);
	tcase_add_test(c, too_long);
	tcase_add_test(c, api_keys);
	suite_add_tcase(s, c);
	return s;
}
