/*
 * oidc.c - see oidc.h.
 *
 * What a provider says is believed only as far as it is checked here: its discovery document must
 * name the issuer that was configured, its ID token must be signed with the one algorithm of the
 * row by one of its published keys and be meant for us, now, and for this browser's request.
 */
#include "oidc.h"
#include "buf.h"
#include "cleanup.h"
#include "crypto.h"
#include "http.h"
#include "jws.h"

#include <openssl/evp.h>
#include <string.h>
#include <time.h>

enum { KEEP_S = 3600, AGAIN_S = 60, SKEW_S = 60, CALL_MS = 8000, DOC_MAX = 1 << 18 };

/* Algorithms that a row may name: asymmetric ones only, with the digest of their at_hash. */
static const struct alg {
	const char *name, *digest;
} algs[] = {
	{ "RS256", "SHA256" },
	{ "PS256", "SHA256" },
	{ "ES256", "SHA256" },
	{ "RS384", "SHA384" },
	{ "PS384", "SHA384" },
	{ "ES384", "SHA384" },
	{ "RS512", "SHA512" },
	{ "PS512", "SHA512" },
	{ "ES512", "SHA512" },
};

static const struct alg *
alg_find(const char *name)
{
	size_t i;

	for (i = 0; i < nitems(algs); i++)
		if (strcmp(algs[i].name, name) == 0)
			return &algs[i];
	return NULL;
}

/* --- documents ----------------------------------------------------------------------------- */

/* What was fetched, per process. */
static struct cached {
	char *url;
	struct json_object *doc;
	time_t at;
} cache[16];

static struct json_object *
get_json(void *mem, const struct oidc_client *c, const char *url, const char *bearer, struct err *e)
{
	struct pair headers[] = { { "Accept", "application/json" }, { 0 }, { 0 } };
	struct http_call call = { .url = url,
		.headers = headers,
		.private_nets = c->conf->oauth_private_networks,
		.ca_file = c->conf->oauth_ca_file,
		.total_ms = CALL_MS,
		.tries = 2,
		.answer_max = DOC_MAX };
	struct http_answer a;

	if (bearer)
		headers[1] =
		    (struct pair){ "Authorization", talloc_asprintf(mem, "Bearer %s", bearer) };
	if (http_send(mem, &call, &a, e) < 0)
		return NULL;
	if (a.status != 200) {
		(void)err_set(e, E_HTTP, "%s answers %d", url, a.status);
		return NULL;
	}
	return json_parse(mem, a.body, a.len, NULL, e);
}

/* The document of this address, not older than max_age seconds. */
static struct json_object *
document(const struct oidc_client *c, const char *url, time_t max_age, struct err *e)
{
	struct cached *slot = &cache[0], *i;
	time_t now = time(NULL);
	struct json_object *doc;
	char *mem;

	for (i = cache; i < cache + nitems(cache); i++) {
		if (i->url && strcmp(i->url, url) == 0) {
			slot = i;
			break;
		}
		if (i->at < slot->at)
			slot = i;
	}
	if (slot->url && strcmp(slot->url, url) == 0 && now - slot->at < max_age)
		return slot->doc;
	mem = talloc_strdup(NULL, url);
	doc = get_json(mem, c, url, NULL, e);
	if (!doc) {
		talloc_free(mem);
		return NULL;
	}
	talloc_free(slot->url);
	*slot = (struct cached){ mem, doc, now };
	return doc;
}

static struct json_object *
discovery(void *mem, const struct oidc_client *c, struct err *e)
{
	size_t n = strlen(c->issuer);
	const char *url = talloc_asprintf(mem, "%.*s/.well-known/openid-configuration",
	    (int)(n && c->issuer[n - 1] == '/' ? n - 1 : n), c->issuer);
	struct json_object *doc = document(c, url, KEEP_S, e);
	const char *missing = NULL;

	if (!doc)
		return NULL;
	if (strcmp(json_str(doc, "issuer", ""), c->issuer) != 0) {
		(void)err_set(e, E_UNAUTHORIZED, "%s names another issuer", url);
		return NULL;
	}
	if (!*json_str(doc, "authorization_endpoint", ""))
		missing = "authorization_endpoint";
	else if (!*json_str(doc, "token_endpoint", ""))
		missing = "token_endpoint";
	else if (!*json_str(doc, "jwks_uri", ""))
		missing = "jwks_uri";
	if (missing) {
		(void)err_set(e, E_UNAUTHORIZED, "%s has no %s", url, missing);
		return NULL;
	}
	return doc;
}

int
oidc_client_read(
    void *mem, const char *type, struct json_object *config, struct oidc_client *ret, struct err *e)
{
	bool github = strcmp(type, "github") == 0;

	ret->type = type;
	ret->id = talloc_strdup(mem, json_str(config, "client_id", ""));
	if (!*ret->id)
		return err_set(e, E_BAD_INPUT, "\"config.client_id\" is missing");
	if (github) {
		ret->web = talloc_strdup(mem, json_str(config, "web_url", "https://github.com"));
		ret->api =
		    talloc_strdup(mem, json_str(config, "api_url", "https://api.github.com"));
		ret->scope = talloc_strdup(mem, json_str(config, "scope", "read:user user:email"));
		if (strncmp(ret->web, "https://", 8) != 0 || strncmp(ret->api, "https://", 8) != 0)
			return err_set(e, E_BAD_INPUT,
			    "\"config.web_url\" and \"config.api_url\" must begin with https://");
		return 0;
	}
	ret->issuer = talloc_strdup(mem, json_str(config, "issuer", ""));
	ret->alg = talloc_strdup(mem, json_str(config, "alg", "RS256"));
	ret->scope = talloc_strdup(mem, json_str(config, "scope", "openid email profile"));
	if (strncmp(ret->issuer, "https://", 8) != 0)
		return err_set(e, E_BAD_INPUT, "\"config.issuer\" must begin with https://");
	if (!alg_find(ret->alg))
		return err_set(e, E_BAD_INPUT,
		    "\"config.alg\" is none of RS256, PS256, ES256 and their 384 and 512 forms");
	return 0;
}

/* --- the way there ------------------------------------------------------------------------- */

/* RFC 3986 §2.1: all but the unreserved characters. */
static void
escape(struct buf *b, const char *s)
{
	for (; *s; s++)
		if ((*s >= '0' && *s <= '9') || ((*s | 32) >= 'a' && (*s | 32) <= 'z') ||
		    strchr("-._~", *s))
			buf_chr(b, *s);
		else
			buf_fmt(b, "%%%02X", (unsigned char)*s);
}

/* name=value pairs, application/x-www-form-urlencoded. */
static void
form(struct buf *b, const struct pair *p)
{
	for (; p->name; p++) {
		if (!p->value)
			continue;
		buf_fmt(b, "%s%s=", b->len ? "&" : "", p->name);
		escape(b, p->value);
	}
}

static const char *
challenge(void *mem, const char *verifier)
{
	uint8_t h[HASH_SIZE];

	crypto_sha256(verifier, strlen(verifier), h);
	return base64url_write(mem, h, sizeof h);
}

const char *
oidc_authorize_url(void *mem, const struct oidc_client *c, const char *state, const char *nonce,
    const char *verifier, struct err *e)
{
	struct buf b = BUF(mem);
	struct json_object *doc;
	const char *at;
	const struct pair query[] = { { "response_type", "code" }, { "client_id", c->id },
		{ "redirect_uri", c->redirect }, { "scope", c->scope }, { "state", state },
		{ "nonce", c->issuer ? nonce : NULL },
		{ "code_challenge", challenge(mem, verifier) }, { "code_challenge_method", "S256" },
		{ 0 } };

	if (c->issuer) {
		doc = discovery(mem, c, e);
		if (!doc)
			return NULL;
		at = json_str(doc, "authorization_endpoint", "");
	} else
		at = talloc_asprintf(mem, "%s/login/oauth/authorize", c->web);
	form(&b, query);
	return talloc_asprintf(mem, "%s%c%s", at, strchr(at, '?') ? '&' : '?', b.data);
}

/* --- the way back -------------------------------------------------------------------------- */

static const char *
basic(void *mem, const struct oidc_client *c)
{
	struct buf b = BUF(mem);
	char *out;

	/* both parts are form-encoded first (RFC 6749 §2.3.1) */
	escape(&b, c->id);
	buf_chr(&b, ':');
	escape(&b, c->secret);
	out = talloc_array(mem, char, b.len * 4 / 3 + 8);
	EVP_EncodeBlock((unsigned char *)out, (const unsigned char *)b.data, (int)b.len);
	return talloc_asprintf(mem, "Basic %s", out);
}

static bool
lists(struct json_object *list, const char *word)
{
	size_t i,
	    n = json_object_is_type(list, json_type_array) ? json_object_array_length(list) : 0;

	for (i = 0; i < n; i++) {
		struct json_object *one = json_object_array_get_idx(list, i);

		if (json_object_is_type(one, json_type_string) &&
		    strcmp(json_object_get_string(one), word) == 0)
			return true;
	}
	return false;
}

/* The token endpoint's answer. */
static struct json_object *
exchange(void *mem, const struct oidc_client *c, const char *endpoint, bool by_header,
    const char *code, const char *verifier, struct err *e)
{
	struct pair headers[] = { { "Content-Type", "application/x-www-form-urlencoded" },
		{ "Accept", "application/json" }, { 0 }, { 0 } };
	const struct pair fields[] = { { "grant_type", "authorization_code" }, { "code", code },
		{ "redirect_uri", c->redirect }, { "code_verifier", verifier },
		{ "client_id", c->id }, { "client_secret", by_header ? NULL : c->secret }, { 0 } };
	struct http_call call = { .method = "POST",
		.url = endpoint,
		.headers = headers,
		.private_nets = c->conf->oauth_private_networks,
		.ca_file = c->conf->oauth_ca_file,
		.total_ms = CALL_MS };
	struct buf b = BUF(mem);
	struct http_answer a;
	struct json_object *doc;

	if (by_header)
		headers[2] = (struct pair){ "Authorization", basic(mem, c) };
	form(&b, fields);
	call.body = b.data;
	call.body_len = b.len;
	if (http_send(mem, &call, &a, e) < 0)
		return NULL;
	doc = json_parse(mem, a.body, a.len, NULL, e);
	if (!doc)
		return NULL;
	/* GitHub tells errors with status 200 */
	if (a.status != 200 || json_get(doc, "error") || !*json_str(doc, "access_token", "")) {
		(void)err_set(e, E_UNAUTHORIZED, "%s answers %d %.80s", endpoint, a.status,
		    json_str(doc, "error", ""));
		return NULL;
	}
	return doc;
}

static struct json_object *
refuse(struct err *e, const char *what)
{
	(void)err_set(e, E_UNAUTHORIZED, "ID token: %s", what);
	return NULL;
}

/* The key of the set that the header names; without a name, the only one. */
static const char *
key_for(struct json_object *jwks, const char *kid)
{
	struct json_object *keys = json_get(jwks, "keys"), *found = NULL;
	size_t i,
	    n = json_object_is_type(keys, json_type_array) ? json_object_array_length(keys) : 0;

	for (i = 0; i < n; i++) {
		struct json_object *k = json_object_array_get_idx(keys, i);

		if (strcmp(json_str(k, "use", "sig"), "sig") != 0)
			continue;
		if (kid ? strcmp(json_str(k, "kid", ""), kid) == 0 : !found)
			found = k;
		else if (!kid)
			return NULL;
	}
	return found ? json_object_to_json_string_ext(found, JSON_C_TO_STRING_PLAIN) : NULL;
}

static bool
at_hash_fits(void *mem, const struct alg *alg, const char *want, const char *access_token)
{
	unsigned char h[EVP_MAX_MD_SIZE];
	unsigned int n = 0;

	if (!EVP_Digest(
		access_token, strlen(access_token), h, &n, EVP_get_digestbyname(alg->digest), NULL))
		return false;
	return strcmp(base64url_write(mem, h, n / 2), want) == 0;
}

/* What the claims must say; NULL: they do. */
static const char *
claims_wrong(void *mem, const struct oidc_client *c, struct json_object *claims, const char *nonce,
    const char *access_token, int64_t now)
{
	struct json_object *aud = json_get(claims, "aud");
	bool many = json_object_is_type(aud, json_type_array);
	const char *azp = json_str(claims, "azp", NULL),
		   *at_hash = json_str(claims, "at_hash", NULL);

	if (strcmp(json_str(claims, "iss", ""), c->issuer) != 0)
		return "another issuer";
	if (many ? !lists(aud, c->id) : strcmp(json_str(claims, "aud", ""), c->id) != 0)
		return "meant for somebody else (aud)";
	if ((azp && strcmp(azp, c->id) != 0) || (!azp && many && json_object_array_length(aud) > 1))
		return "meant for somebody else (azp)";
	if (json_int(claims, "exp", 0) + SKEW_S < now)
		return "expired";
	if (json_int(claims, "iat", INT64_MAX) - SKEW_S > now)
		return "issued in the future";
	if (json_int(claims, "nbf", 0) - SKEW_S > now)
		return "not good yet";
	if (!nonce || strcmp(json_str(claims, "nonce", ""), nonce) != 0)
		return "of another request (nonce)";
	if (at_hash && access_token && !at_hash_fits(mem, alg_find(c->alg), at_hash, access_token))
		return "of another access token (at_hash)";
	if (!*json_str(claims, "sub", "") || strlen(json_str(claims, "sub", "")) > 255)
		return "no subject";
	return NULL;
}

struct json_object *
oidc_id_token(void *mem, const struct oidc_client *c, struct json_object *jwks, const char *token,
    const char *nonce, const char *access_token, int64_t now, struct err *e)
{
	const char *dot = strchr(token, '.'), *key, *wrong;
	struct json_object *header, *claims;
	struct bytes text;

	if (!dot || strlen(token) > 16384)
		return refuse(e, "not a signed token");
	text = base64url_read(mem, talloc_strndup(mem, token, dot - token));
	header = text.p ? json_parse(mem, (const char *)text.p, text.n, NULL, e) : NULL;
	if (!header)
		return refuse(e, "its header cannot be read");
	if (strcmp(json_str(header, "alg", ""), c->alg) != 0)
		return refuse(e, "another algorithm than the provider's");
	if (json_get(header, "crit"))
		return refuse(e, "critical extensions are not understood");
	key = key_for(jwks, json_str(header, "kid", NULL));
	if (!key) {
		(void)err_set(e, E_NOT_FOUND, "ID token: signed with a key that is not published");
		return NULL;
	}
	text = jws_verify(mem, token, key, e);
	if (!text.p)
		return NULL;
	claims = json_parse(mem, (const char *)text.p, text.n, NULL, e);
	if (!json_object_is_type(claims, json_type_object))
		return refuse(e, "its claims cannot be read");
	wrong = claims_wrong(mem, c, claims, nonce, access_token, now);
	return wrong ? refuse(e, wrong) : claims;
}

/* With the keys as remembered; once more with new ones when the provider has changed them. */
static struct json_object *
verified(void *mem, const struct oidc_client *c, struct json_object *doc, const char *token,
    const char *nonce, const char *access_token, int64_t now, struct err *e)
{
	const char *url = json_str(doc, "jwks_uri", "");
	struct err first = { 0 };
	struct json_object *jwks = document(c, url, KEEP_S, e), *claims;

	if (!jwks)
		return NULL;
	claims = oidc_id_token(mem, c, jwks, token, nonce, access_token, now, &first);
	if (claims || first.code != E_NOT_FOUND) {
		if (!claims)
			(void)err_set(e, first.code, "%s", first.text);
		return claims;
	}
	jwks = document(c, url, AGAIN_S, e);
	return jwks ? oidc_id_token(mem, c, jwks, token, nonce, access_token, now, e) : NULL;
}

static const char *
lower(void *mem, const char *s)
{
	char *copy = talloc_strdup(mem, s), *p;

	for (p = copy; *p; p++)
		*p = *p >= 'A' && *p <= 'Z' ? *p + 32 : *p;
	return copy;
}

/* Some providers write booleans as text. */
static bool
says_true(struct json_object *o, const char *name)
{
	return json_flag(o, name, false) || strcmp(json_str(o, name, ""), "true") == 0;
}

static int
oidc_who(void *mem, const struct oidc_client *c, const char *code, const char *iss,
    const char *nonce, const char *verifier, int64_t now, struct oidc_person *ret, struct err *e)
{
	struct json_object *doc = discovery(mem, c, e), *tokens, *claims, *info, *ways;
	const char *access, *userinfo;
	bool post;

	if (!doc)
		return -1;
	if (iss ? strcmp(iss, c->issuer) != 0
		: json_flag(doc, "authorization_response_iss_parameter_supported", false))
		return err_set(e, E_UNAUTHORIZED, "the answer is another issuer's");
	ways = json_get(doc, "token_endpoint_auth_methods_supported");
	post = ways && !lists(ways, "client_secret_basic");
	tokens = exchange(mem, c, json_str(doc, "token_endpoint", ""), !post, code, verifier, e);
	if (!tokens)
		return -1;
	access = json_str(tokens, "access_token", "");
	claims = verified(mem, c, doc, json_str(tokens, "id_token", ""), nonce, access, now, e);
	if (!claims)
		return -1;
	userinfo = json_str(doc, "userinfo_endpoint", "");
	info = claims;
	if (!json_get(claims, "email") && *userinfo) {
		info = get_json(mem, c, userinfo, access, e);
		if (!info)
			return -1;
		if (strcmp(json_str(info, "sub", ""), json_str(claims, "sub", "")) != 0)
			return err_set(e, E_UNAUTHORIZED, "userinfo is about another subject");
	}
	ret->subject = json_str(claims, "sub", "");
	ret->name = json_str(info, "name", json_str(info, "preferred_username", NULL));
	ret->email = json_get(info, "email") ? lower(mem, json_str(info, "email", "")) : NULL;
	ret->verified = ret->email && says_true(info, "email_verified");
	ret->mfa = lists(json_get(claims, "amr"), "mfa");
	return 0;
}

/* GitHub vouches for an address only when it is primary and verified. */
static int
github_who(void *mem, const struct oidc_client *c, const char *code, const char *verifier,
    struct oidc_person *ret, struct err *e)
{
	struct json_object *tokens, *user, *emails;
	const char *access;
	size_t i, n;

	tokens = exchange(mem, c, talloc_asprintf(mem, "%s/login/oauth/access_token", c->web),
	    false, code, verifier, e);
	if (!tokens)
		return -1;
	access = json_str(tokens, "access_token", "");
	user = get_json(mem, c, talloc_asprintf(mem, "%s/user", c->api), access, e);
	emails = user ? get_json(mem, c, talloc_asprintf(mem, "%s/user/emails", c->api), access, e)
		      : NULL;
	if (!emails)
		return -1;
	if (json_int(user, "id", 0) <= 0)
		return err_set(e, E_UNAUTHORIZED, "%s/user has no id", c->api);
	ret->subject = talloc_asprintf(mem, "%lld", (long long)json_int(user, "id", 0));
	ret->name = json_str(user, "name", json_str(user, "login", NULL));
	n = json_object_is_type(emails, json_type_array) ? json_object_array_length(emails) : 0;
	for (i = 0; i < n; i++) {
		struct json_object *one = json_object_array_get_idx(emails, i);

		if (json_flag(one, "primary", false) && json_flag(one, "verified", false)) {
			ret->email = lower(mem, json_str(one, "email", ""));
			ret->verified = true;
		}
	}
	return 0;
}

int
oidc_person_of(void *mem, const struct oidc_client *c, const char *code, const char *iss,
    const char *nonce, const char *verifier, int64_t now, struct oidc_person *ret, struct err *e)
{
	*ret = (struct oidc_person){ 0 };
	if (c->issuer)
		return oidc_who(mem, c, code, iss, nonce, verifier, now, ret, e);
	return github_who(mem, c, code, verifier, ret, e);
}

int
oidc_discovery_test(void *mem, const struct oidc_client *c, const char **detail, struct err *e)
{
	struct json_object *doc;

	if (!c->issuer) {
		*detail = talloc_asprintf(mem, "%s", c->web);
		return 0;
	}
	doc = discovery(mem, c, e);
	if (!doc)
		return -1;
	*detail = talloc_asprintf(mem, "%s", json_str(doc, "authorization_endpoint", ""));
	return 0;
}

int
oidc_keys_test(void *mem, const struct oidc_client *c, const char **detail, struct err *e)
{
	struct json_object *doc, *jwks, *keys;

	*detail = "no keys: it answers with what its API says";
	if (!c->issuer)
		return 0;
	doc = discovery(mem, c, e);
	jwks = doc ? document(c, json_str(doc, "jwks_uri", ""), AGAIN_S, e) : NULL;
	if (!jwks)
		return -1;
	keys = json_get(jwks, "keys");
	if (!json_object_is_type(keys, json_type_array) || json_object_array_length(keys) == 0)
		return err_set(e, E_UNAUTHORIZED, "the key set is empty");
	*detail = talloc_asprintf(mem, "%zu keys", json_object_array_length(keys));
	return 0;
}
