/* token.c - see token.h. */
#include "token.h"
#include "buf.h"
#include "cleanup.h"
#include "json.h"

#include <ctype.h>
#include <errno.h>
#include <jwt.h>
#include <string.h>
#include <time.h>

enum { TOKEN_MAX = 4096, SKEW = 60 };

static const struct kind {
	const char *typ, *aud, *prefix; /* claim (libjwt writes the header's, always "JWT"),
	                                   audience, id prefix of sub */
	enum key_use use;
} kinds[] = {
	[TOKEN_ACCESS] = { "access", "hutch-api", "usr-", KEY_ACCESS },
	[TOKEN_HOST] = { "host", "hutch-host", "host-", KEY_HOST },
};

static void
free_jwt(jwt_t **j)
{
	jwt_free(*j);
}
#define auto_jwt __attribute__((cleanup(free_jwt))) jwt_t

static int
add_ids(jwt_t *j, const struct kind *k, enum token_type type, const struct token_claims *c)
{
	char id[ID_SIZE];
	int bad = jwt_add_grant(j, "sub", id_write(id, k->prefix, &c->sub));

	if (type != TOKEN_ACCESS)
		return bad;
	bad |= jwt_add_grant(j, "sid", id_write(id, "ses-", &c->sid));
	bad |= jwt_add_grant(j, "team_id", c->has_team ? id_write(id, "team-", &c->team) : "");
	bad |= jwt_add_grant(j, "role", c->role ? c->role : "");
	bad |= jwt_add_grant(j, "email", c->email ? c->email : "");
	bad |= jwt_add_grant(j, "name", c->name ? c->name : "");
	bad |= jwt_add_grants_json(j, c->is_admin ? "{\"is_admin\":true}" : "{\"is_admin\":false}");
	return bad;
}

const char *
token_sign(void *mem, const struct keys *keys, enum token_type type, const char *issuer,
    const struct token_claims *c, struct err *e)
{
	const struct kind *k = &kinds[type];
	auto_jwt *j = NULL;
	auto_free char *text = NULL;
	int bad;

	if (jwt_new(&j) != 0) {
		err_set(e, E_BUG, "jwt_new failed");
		return NULL;
	}
	bad = add_ids(j, k, type, c);
	bad |= jwt_add_grant(j, "iss", issuer);
	bad |= jwt_add_grant(j, "aud", k->aud);
	if (type != TOKEN_ACCESS)
		bad |= jwt_add_grant(j, "typ", k->typ);
	bad |= jwt_add_grant_int(j, "iat", c->iat);
	bad |= jwt_add_grant_int(j, "exp", c->exp);
	bad |= jwt_add_header(j, "kid", keys->kid);
	bad |= jwt_set_alg(j, JWT_ALG_HS256, keys->key[k->use], KEY_SIZE);
	text = bad ? NULL : jwt_encode_str(j);
	if (!text) {
		err_set(e, E_BUG, "the token cannot be signed");
		return NULL;
	}
	return talloc_strdup(mem, text);
}

/* The header's key, or NULL unless it is exactly alg HS256, a known kid and typ JWT. */
static const uint8_t *
pinned_key(const struct keys *keys, const struct kind *k, const char *text)
{
	auto_talloc char *tmp = talloc_new(NULL);
	const char *dot = strchr(text, '.');
	struct json_object *head;
	struct err ignored = { 0 };
	struct bytes raw;
	const char *kid;

	if (!dot)
		return NULL;
	raw = base64url_read(tmp, talloc_strndup(tmp, text, dot - text));
	head = raw.p ? json_parse(tmp, (const char *)raw.p, raw.n, NULL, &ignored) : NULL;
	if (!head || !json_object_is_type(head, json_type_object) ||
	    json_object_object_length(head) != 3)
		return NULL;
	kid = json_str(head, "kid", "");
	if (strcmp(json_str(head, "alg", ""), "HS256") != 0 ||
	    strcmp(json_str(head, "typ", ""), "JWT") != 0)
		return NULL;
	if (strcmp(kid, keys->kid) == 0)
		return keys->key[k->use];
	if (keys->has_previous && strcmp(kid, keys->previous_kid) == 0)
		return keys->previous[k->use];
	return NULL;
}

/* Duplicate members in the claims are refused too: json_parse() is strict, libjwt's parser is not.
 */
static struct json_object *
claims_of(void *mem, const char *text)
{
	const char *from = strchr(text, '.') + 1, *to = strchr(from, '.');
	struct err ignored = { 0 };
	struct bytes raw;

	if (!to)
		return NULL;
	raw = base64url_read(mem, talloc_strndup(mem, from, to - from));
	return raw.p ? json_parse(mem, (const char *)raw.p, raw.n, NULL, &ignored) : NULL;
}

static bool
take_claims(void *mem, const struct kind *k, enum token_type type, const char *issuer,
    struct json_object *o, struct token_claims *c)
{
	int64_t now = time(NULL), nbf;
	const char *team;

	c->iat = json_int(o, "iat", INT64_MAX);
	c->exp = json_int(o, "exp", 0);
	if (strcmp(json_str(o, "typ", "access"), k->typ) != 0)
		return false;
	if (strcmp(json_str(o, "iss", ""), issuer) != 0 ||
	    strcmp(json_str(o, "aud", ""), k->aud) != 0)
		return false;
	/* INT64_MAX: also when the claim is there, but is no whole number */
	nbf = json_get(o, "nbf") ? json_int(o, "nbf", INT64_MAX) : 0;
	if (c->exp <= now - SKEW || c->iat > now + SKEW || nbf > now + SKEW)
		return false;
	if (!id_read(json_str(o, "sub", ""), k->prefix, &c->sub))
		return false;
	if (type != TOKEN_ACCESS)
		return true;
	team = json_str(o, "team_id", "");
	c->has_team = *team;
	if (*team && !id_read(team, "team-", &c->team))
		return false;
	c->role = talloc_strdup(mem, json_str(o, "role", ""));
	c->email = talloc_strdup(mem, json_str(o, "email", ""));
	c->name = talloc_strdup(mem, json_str(o, "name", ""));
	c->is_admin = json_flag(o, "is_admin", false);
	return id_read(json_str(o, "sid", ""), "ses-", &c->sid);
}

int
token_verify(void *mem, const struct keys *keys, enum token_type type, const char *issuer,
    const char *text, struct token_claims *ret, struct err *e)
{
	const struct kind *k = &kinds[type];
	auto_talloc char *tmp = talloc_new(NULL);
	struct token_claims c = { 0 };
	const uint8_t *key;
	struct json_object *claims;
	auto_jwt *j = NULL;

	key = strlen(text) <= TOKEN_MAX ? pinned_key(keys, k, text) : NULL;
	if (!key || jwt_decode(&j, text, key, KEY_SIZE) != 0 || jwt_get_alg(j) != JWT_ALG_HS256)
		return err_set(e, E_UNAUTHORIZED, "the token is not good");
	claims = claims_of(tmp, text);
	if (!claims || !take_claims(mem, k, type, issuer, claims, &c))
		return err_set(e, E_UNAUTHORIZED, "the token is not good, or has expired");
	*ret = c;
	return 0;
}

const char *
apikey_new(void *mem, const char *word)
{
	uint8_t random[16];

	crypto_random(random, sizeof random);
	return apikey_of(mem, word, random);
}

const char *
apikey_of(void *mem, const char *word, const uint8_t secret[16])
{
	char digits[33];

	hex_write(digits, secret, 16);
	return talloc_asprintf(mem, "%s_%s%08x", word, digits, crypto_crc32(digits, 32));
}

bool
apikey_hash(const char *key, uint8_t out[HASH_SIZE])
{
	const char *p = strchr(key, '_');
	char digits[41], crc[9];
	int i;

	if (!p || p == key || p - key > 8)
		return false;
	for (i = 0, p++; i < 40; i++) {
		if (!isxdigit((unsigned char)p[i]))
			return false;
		digits[i] = tolower((unsigned char)p[i]);
	}
	digits[40] = '\0';
	snprintf(crc, sizeof crc, "%08x", crypto_crc32(digits, 32));
	if (p[40] || memcmp(digits + 32, crc, 8) != 0)
		return false;
	crypto_sha256(digits, 40, out);
	return true;
}
