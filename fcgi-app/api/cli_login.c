/*
 * cli_login.c - sign-in of command line programs that listen on this machine (spec 06 §13).
 *
 * A signed-in person grants: a login of kind cli is made, and the browser carries its tokens to the
 * program, on loopback only. Tokens are renewed and ended with forms, in the words of OAuth. The
 * login's keys are derived from the master secret, so that they can be told again.
 * Queries: sql/queries/cli.sql, sessions.sql.  Tests: tests/http/cli_login.py.
 */
#include "audit.h"
#include "cleanup.h"
#include "cli.q.h"
#include "cli_key.h"
#include "job.h"
#include "sessions.h"

#include <ctype.h>
#include <string.h>

static handler cli_grant, cli_token, cli_revoke;

static const char key_word[] = "e2b", key_name[] = "cli", client_id[] = "hutch-cli";

struct cli_grant {
	const char *next;
};
static const struct field cli_grant_fields[] = {
	FIELD(cli_grant, next, "next", .flags = NEEDED, .max = 2048,
	    .doc = "Where the program listens: http://localhost:… or http://127.0.0.1:…"),
	{ 0 },
};
struct cli_granted {
	const char *location;
};
static const struct field cli_granted_fields[] = {
	FIELD(cli_granted, location, "location", .flags = NEEDED,
	    .doc = "next, with email, accessToken, refreshToken, tokenEndpoint, revokeEndpoint, "
		   "clientId."),
	{ 0 },
};
struct cli_tokens {
	const char *access, *refresh, *type;
	int64_t expires_in;
};
static const struct field cli_tokens_fields[] = {
	FIELD(cli_tokens, access, "access_token", .flags = NEEDED),
	FIELD(cli_tokens, refresh, "refresh_token", .flags = NEEDED),
	FIELD(cli_tokens, type, "token_type", .flags = NEEDED),
	FIELD(cli_tokens, expires_in, "expires_in", .flags = NEEDED),
	{ 0 },
};
struct cli_error {
	const char *error;
};
static const struct field cli_error_fields[] = {
	FIELD(cli_error, error, "error", .flags = NEEDED),
	{ 0 },
};

/* clang-format off */
const struct route cli_login_routes[] = {
	{ "POST", "/v1/auth/cli/grant", POOL_OPS, SIGNED_IN, cli_grant, "Let a program on this machine sign in as oneself", TIGHT, 200, IN(cli_grant), OUT(cli_granted) },
	{ "POST", "/v1/auth/cli/token", POOL_OPS, ANYONE, cli_token, "A form grant_type=refresh_token: new tokens; else 400 {\"error\":\"invalid_grant\"}", TIGHT | STREAMS, 200, OUT(cli_tokens) },
	{ "POST", "/v1/auth/cli/revoke", POOL_OPS, ANYONE, cli_revoke, "A form with token: its login ends, if there is one", TIGHT | STREAMS, 204 },
	{ 0 },
};
/* clang-format on */

/* ---- granting */

/* Only the program's own machine: no other host, no user name before the host, no fragment. */
static bool
is_loopback(const char *url)
{
	static const char *const hosts[] = { "http://localhost", "http://127.0.0.1" };
	const char *p = NULL;
	char *end = NULL;

	for (size_t i = 0; i < nitems(hosts); i++)
		if (strncmp(url, hosts[i], strlen(hosts[i])) == 0)
			p = url + strlen(hosts[i]);
	if (!p)
		return false;
	if (*p == ':') {
		unsigned long port = isdigit((unsigned char)p[1]) ? strtoul(p + 1, &end, 10) : 0;

		if (port < 1 || port > 65535)
			return false;
		p = end;
	}
	if (*p && *p != '/' && *p != '?')
		return false;
	for (; *p; p++)
		if (!isgraph((unsigned char)*p) || strchr("#\\\"<>", *p))
			return false;
	return true;
}

static void
add(struct buf *b, const char *name, const char *value)
{
	buf_chr(b, memchr(b->data, '?', b->len) ? '&' : '?');
	buf_fmt(b, "%s=", name);
	for (; *value; value++)
		if (isalnum((unsigned char)*value) || strchr("-._~", *value))
			buf_chr(b, *value);
		else
			buf_fmt(b, "%%%02X", (unsigned char)*value);
}

static int
cli_grant(struct request *r)
{
	const struct cli_grant *in = r->in;
	const char *url = r->app->conf->http_public_url;
	struct cli_login l;
	struct buf b = BUF(r);

	if (!is_loopback(in->next))
		return fail(
		    r, E_BAD_INPUT, "\"next\" is not on http://localhost or http://127.0.0.1");
	if (session_cli_open(r, &l) < 0)
		return -1;
	buf_str(&b, in->next);
	add(&b, "email", l.email);
	add(&b, "accessToken", l.access);
	add(&b, "refreshToken", l.refresh);
	add(&b, "tokenEndpoint", talloc_asprintf(r, "%s/v1/auth/cli/token", url));
	add(&b, "revokeEndpoint", talloc_asprintf(r, "%s/v1/auth/cli/revoke", url));
	add(&b, "clientId", client_id);
	reply_header(r, "Cache-Control", "no-store");
	return reply_row(r, 1, &(struct cli_granted){ b.data });
}

/* ---- tokens */

/* A field of the form in the body, or NULL. */
static const char *
form(struct request *r, const char *name)
{
	const char *p = r->body_text, *end = p ? p + r->body_len : NULL;
	size_t len = strlen(name);

	while (p && p < end) {
		const char *stop = memchr(p, '&', (size_t)(end - p));
		size_t n = (size_t)((stop ? stop : end) - p);

		if (n > len && memcmp(p, name, len) == 0 && p[len] == '=')
			return query_decode(r, p + len + 1, n - len - 1);
		p += n + 1;
	}
	return NULL;
}

/* RFC 6749 §5.2, which these programs read. */
static int
form_error(struct request *r, const char *error)
{
	r->work.err = (struct err){ 0 };
	(void)reply_with(r, cli_error_fields, &(struct cli_error){ error });
	r->status = 400;
	return 0;
}

static int
cli_token(struct request *r)
{
	const char *type = form(r, "grant_type"), *token = form(r, "refresh_token");
	struct cli_login l;

	reply_header(r, "Cache-Control", "no-store");
	if (!type || !token)
		return form_error(r, "invalid_request");
	if (strcmp(type, "refresh_token") != 0)
		return form_error(r, "unsupported_grant_type");
	if (session_cli_renew(r, token, &l) < 0)
		return r->work.err.code == E_UNAUTHORIZED ? form_error(r, "invalid_grant") : -1;
	return reply_row(r, 1, &(struct cli_tokens){ l.access, l.refresh, "Bearer", l.expires_in });
}

static int
cli_revoke(struct request *r)
{
	const char *token = form(r, "token");

	if (!token)
		return form_error(r, "invalid_request");
	return session_cli_end(r, token) < 0 ? -1 : reply_done(r, 1);
}

/* ---- keys */

static const char *const *
data_scopes(struct request *r)
{
	const char **list = talloc_zero_array(r, const char *, PERM__MAX);
	int n = 0;

	for (int p = 0; p < PERM__MAX; p++)
		if (perm_kinds[p].scope == KEY_DATA)
			list[n++] = perm_kinds[p].name;
	return list;
}

static int
tell(struct request *r, const struct uuid *team, const struct uuid *id)
{
	const char *key = id_text(r, "key-", id);

	return audit_add(&r->work, AUDIT_API_KEY_CREATE,
	    &(struct audit){ .team = team,
		.resource_id = key,
		.subject = r->who.user,
		.metadata = talloc_asprintf(r, "{\"name\":\"%s\",\"kind\":\"cli\"}", key_name),
		.data = talloc_asprintf(r, "{\"key_id\":\"%s\",\"name\":\"%s\"}", key, key_name) });
}

const char *
cli_key(struct request *r, const struct uuid *team)
{
	uint8_t text[32], mac[HASH_SIZE], hash[HASH_SIZE];
	bool own = !db_in_transaction(r->work.db);
	struct uuid id = uuid_new();
	struct q_cli_made *made;
	const char *key;

	if (r->who.type != CALLER_USER || !r->who.session)
		return "";
	memcpy(text, r->who.session->b, 16);
	memcpy(text + 16, team->b, 16);
	crypto_hmac(r->app->keys->key[KEY_CLI], text, sizeof text, mac);
	key = apikey_of(r, key_word, mac);
	(void)apikey_hash(key, hash);
	if (own)
		db_begin(r->work.db);
	if (q_cli_key_of(r->work.db, &made, .id = &id, .session = r->who.session,
		.user = r->who.user, .team = team, .hash = { hash, sizeof hash },
		.prefix = talloc_strndup(r, key, strlen(key_word) + 7),
		.scopes = data_scopes(r)) != 1)
		return NULL;
	if (made->told == 2 && tell(r, team, &id) < 0)
		return NULL;
	if (own) {
		if (db_commit(r->work.db) < 0)
			return NULL;
		job_announce(&r->work, r->app->queue);
	}
	return made->told ? key : "";
}
