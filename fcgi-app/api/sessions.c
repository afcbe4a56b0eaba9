/*
 * sessions.c - logins and their rotating refresh tokens (spec 01 §4).
 *
 * A login is a row and a family of refresh tokens. A token is "hrt_" + base64url(session 16 ‖
 * generation 4 ‖ random 16 ‖ HMAC 16); the row holds the SHA-256 of the current and the previous
 * one. The previous one, presented within ten seconds (two tabs), gets the same successor, which is
 * sealed with a key that only the presented token gives; presented later it ends the whole family.
 * Queries: sql/queries/sessions.sql.  Tests: tests/http/auth.t.
 */
#include "sessions.h"
#include "account.h"
#include "accounts.q.h"
#include "audit.h"
#include "cleanup.h"
#include "cli.q.h"
#include "fcgi-app/cookie.h"
#include "job.h"
#include "sessions.q.h"
#include "teams.q.h"
#include "users.q.h"

#include <endian.h>
#include <string.h>
#include <time.h>

struct auth_response {
	const char *token, *email, *name, *role, *platform_role, *refresh_token, *team;
	const struct uuid *user, *session;
	bool is_admin, must_change_password, mfa_enrollment_required;
	int64_t expires_in;
};
const struct field auth_response_fields[] = {
	FIELD(auth_response, token, "token", .flags = NEEDED,
	    .doc = "Access token for Authorization: Bearer."),
	FIELD(auth_response, user, "user_id", .flags = NEEDED, .prefix = "usr-"),
	FIELD(auth_response, team, "team_id", .flags = NEEDED,
	    .doc = "Empty when the user has no team."),
	FIELD(auth_response, email, "email", .flags = NEEDED),
	FIELD(auth_response, name, "name", .flags = NEEDED),
	FIELD(auth_response, role, "role", .flags = NEEDED),
	FIELD(auth_response, is_admin, "is_admin", .flags = NEEDED),
	FIELD(auth_response, platform_role, "platform_role", .flags = NEEDED,
	    .one_of = "user|operator|admin"),
	FIELD(auth_response, expires_in, "expires_in", .flags = NEEDED, .doc = "Seconds."),
	FIELD(auth_response, session, "session_id", .flags = NEEDED, .prefix = "ses-"),
	FIELD(auth_response, must_change_password, "must_change_password", .flags = NEEDED),
	FIELD(auth_response, mfa_enrollment_required, "mfa_enrollment_required", .flags = NEEDED),
	FIELD(auth_response, refresh_token, "refresh_token", .flags = OMIT,
	    .doc = "For client cli, or when the old one came in the body; browsers get a cookie."),
	{ 0 },
};
const struct field session_refresh_fields[] = {
	FIELD(session_refresh, refresh_token, "refresh_token", .flags = WRITE_ONLY, .max = 512,
	    .doc = "Absent: the cookie."),
	FIELD(session_refresh, team, "team_id", .prefix = "team-"),
	{ 0 },
};
const struct field session_logout_fields[] = {
	FIELD(session_logout, all, "all", .doc = "End all logins of the user."),
	FIELD(session_logout, refresh_token, "refresh_token", .flags = WRITE_ONLY, .max = 512),
	{ 0 },
};
const struct field session_switch_fields[] = {
	FIELD(session_switch, team, "team_id", .flags = NEEDED, .prefix = "team-"),
	{ 0 },
};
struct csrf {
	const char *csrf_token;
};
const struct field session_csrf_fields[] = {
	FIELD(csrf, csrf_token, "csrf_token", .flags = NEEDED),
	{ 0 },
};

enum { CLI_IDLE = 30 * 86400, CLI_LONGEST = 90 * 86400 }; /* seconds */
enum { DEVICE_DAYS = 60, OVERLAP_SECONDS = 10, RAW = 52, MAC = 16, MAC_AT = 36 };
static const char token_word[] = "hrt_";

/* --- tokens -------------------------------------------------------------------------------- */

static const char *
refresh_make(struct request *r, const struct uuid *sid, uint32_t generation)
{
	uint8_t raw[RAW], mac[HASH_SIZE];
	uint32_t be = htobe32(generation);

	memcpy(raw, sid->b, 16);
	memcpy(raw + 16, &be, 4);
	crypto_random(raw + 20, 16);
	crypto_hmac(r->app->keys->key[KEY_REFRESH], raw, MAC_AT, mac);
	memcpy(raw + MAC_AT, mac, MAC);
	return talloc_asprintf(r, "%s%s", token_word, base64url_write(r, raw, sizeof raw));
}

/* The session that the token belongs to; false when we did not make it. */
static bool
refresh_read(struct request *r, const char *token, struct uuid *sid)
{
	const struct keys *k = r->app->keys;
	uint8_t mac[HASH_SIZE];
	struct bytes raw;
	bool good;

	if (strncmp(token, token_word, sizeof token_word - 1) != 0)
		return false;
	raw = base64url_read(r, token + sizeof token_word - 1);
	if (raw.n != RAW)
		return false;
	crypto_hmac(k->key[KEY_REFRESH], raw.p, MAC_AT, mac);
	good = crypto_equal(mac, raw.p + MAC_AT, MAC);
	if (!good && k->has_previous) {
		crypto_hmac(k->previous[KEY_REFRESH], raw.p, MAC_AT, mac);
		good = crypto_equal(mac, raw.p + MAC_AT, MAC);
	}
	memcpy(sid->b, raw.p, 16);
	return good;
}

/* The key that seals a token's successor: only who presents the token can open it. */
static void
successor_key(const char *token, uint8_t key[KEY_SIZE])
{
	crypto_hmac((const uint8_t *)"hutch refresh token's successor.", token, strlen(token), key);
}

static const char *
csrf_of(struct request *r, const struct uuid *sid)
{
	uint8_t mac[HASH_SIZE];

	crypto_hmac(r->app->keys->key[KEY_CSRF], sid->b, sizeof sid->b, mac);
	return base64url_write(r, mac, sizeof mac);
}

/* The cookie alone proves nothing: capsules' pages live on sibling host names (spec 01 §4.2). */
static int
csrf_check(struct request *r, const struct uuid *sid)
{
	const char *origin = request_env(r, "HTTP_ORIGIN"),
		   *given = request_env(r, "HTTP_X_CSRF_TOKEN");
	const char *site = request_env(r, "HTTP_SEC_FETCH_SITE"), *want = csrf_of(r, sid);

	if (origin ? strcmp(origin, r->app->conf->http_public_url) != 0
		   : !site || strcmp(site, "same-origin") != 0)
		return fail(r, E_CSRF, "the request does not come from an allowed page");
	if (!given || strlen(given) != strlen(want) || !crypto_equal(given, want, strlen(want)))
		return fail(r, E_CSRF, "X-CSRF-Token is missing or wrong: GET /v1/auth/csrf");
	return 0;
}

/* --- opening ------------------------------------------------------------------------------- */

/* "Ada's Team" of the characters that a team's name may have. */
static const char *
default_team_name(struct request *r, const char *name)
{
	struct buf b = BUF(r);
	const char *p;

	for (p = name; *p && b.len < 100; p++)
		if ((*p >= '0' && *p <= '9') || ((*p | 32) >= 'a' && (*p | 32) <= 'z') ||
		    (*p && strchr(" _-@'", *p)))
			buf_chr(&b, *p);
	if (!b.len || strspn(b.data, " ") == b.len)
		return "Personal Team";
	buf_str(&b, "'s Team");
	return b.data;
}

static int
team_make(struct request *r, const struct uuid *user, const char *name, const struct uuid **ret)
{
	struct uuid *id = talloc(r, struct uuid);
	uint8_t random[6];
	char hex[13];
	const char *slug, *meta;
	struct buf b = BUF(r);

	*id = uuid_new();
	crypto_random(random, sizeof random);
	hex_write(hex, random, sizeof random);
	slug = talloc_asprintf(r, "%.6s-%s", hex, hex + 6);
	name = default_team_name(r, name);
	if (q_team_insert(r->work.db, .id = id, .name = name, .slug = slug, .user = user) < 0)
		return -1;
	if (q_member_insert(r->work.db, .team = id, .user = user, .role = "owner",
		.is_default = true, .source = "created") < 0)
		return -1;
	buf_str(&b, "{\"name\":");
	buf_json(&b, name);
	buf_chr(&b, '}');
	meta = b.data;
	*ret = id;
	return audit_add(&r->work, AUDIT_TEAM_CREATE,
	    &(struct audit){ .team = id,
		.resource_id = id_text(r, "team-", id),
		.metadata = meta,
		.data = "{}" });
}

static int
fill_response(struct request *r, const struct q_user *u, const struct uuid *sid,
    const struct uuid *asked, struct auth_response *a, const struct uuid **team)
{
	struct q_membership *m;
	struct token_claims c = { .sub = *u->id, .sid = *sid, .email = u->email, .name = u->name };
	int n = q_team_for_token(r->work.db, &m, .user = u->id, .asked = asked);
	struct q_mfa_state *mfa;

	if (n < 0 || q_user_mfa(r->work.db, &mfa, .user = u->id, .team = n ? m->team_id : NULL) < 0)
		return -1;
	*team = n ? m->team_id : NULL;
	*a = (struct auth_response){ .email = u->email,
		.name = u->name,
		.user = u->id,
		.session = sid,
		.role = n ? m->role : "",
		.platform_role = u->platform_role,
		.is_admin = strcmp(u->platform_role, "admin") == 0,
		.must_change_password = u->must_change_password,
		.mfa_enrollment_required = !mfa->has_factor &&
		    (mfa->team_mfa || mfa_wanted(r->app->conf->auth_require_mfa, u->platform_role)),
		.team = n ? id_text(r, "team-", m->team_id) : "",
		.expires_in = r->app->conf->auth_access_ttl };
	c.has_team = n;
	if (n)
		c.team = *m->team_id;
	c.role = a->role;
	c.is_admin = a->is_admin;
	c.iat = time(NULL);
	c.exp = c.iat + a->expires_in;
	a->token = token_sign(
	    r, r->app->keys, TOKEN_ACCESS, r->app->conf->http_public_url, &c, &r->work.err);
	return a->token ? 0 : -1;
}

/* Who signed in is the actor of what follows in this request. */
static void
act_as(struct request *r, const struct q_user *u)
{
	r->work.actor.type = "user";
	r->work.actor.id = id_text(r, "usr-", u->id);
	r->work.actor.name = u->name;
	r->work.actor.user = u->id;
}

/* A new sign-in from a device that the account does not know is told to its owner; the cookie makes
 * it known. */
static int
meet_device(struct request *r, const struct login *l, const struct q_user *u, bool *new_device,
    struct bytes *hash)
{
	const char *cookie = device_cookie(r);
	uint8_t random[32];
	struct q_device *d;

	if (!*cookie) {
		crypto_random(random, sizeof random);
		cookie = base64url_write(r, random, sizeof random);
	}
	*hash = device_hash(r, cookie);
	if (q_device_of(r->work.db, &d, .user = u->id, .hash = *hash) < 0)
		return -1;
	cookie_set(r, "device", cookie, "Strict", DEVICE_DAYS * 86400);
	*new_device = !d->known;
	if (d->known || !d->met || strcmp(l->method, "activation") == 0)
		return 0;
	return account_mail(r, "new_login", u, NULL, NULL, NULL, NULL);
}

static int
audit_login(struct request *r, const struct login *l, const struct uuid *user,
    const struct uuid *team, bool new_device)
{
	struct buf meta = BUF(r);

	buf_fmt(&meta, "{\"method\":\"%s\",\"kind\":\"%s\",\"mfa\":", l->method,
	    strcmp(l->client, "cli") == 0 ? "cli" : "web");
	buf_json(&meta, l->mfa);
	if (l->idp)
		buf_fmt(&meta, ",\"idp\":\"%s\"", id_text(r, "idp-", l->idp));
	buf_fmt(&meta, ",\"new_device\":%s}", new_device ? "true" : "false");
	return audit_add(&r->work, AUDIT_AUTH_LOGIN,
	    &(struct audit){ .team = team,
		.resource_id = id_text(r, "usr-", user),
		.subject = user,
		.metadata = meta.data,
		.data = talloc_asprintf(r, "{\"method\":\"%s\"}", l->method) });
}

int
login_open(struct request *r, const struct login *l)
{
	const struct conf *c = r->app->conf;
	bool cli = strcmp(l->client, "cli") == 0, new_device;
	struct uuid *sid = talloc(r, struct uuid);
	const struct uuid *team = NULL;
	struct auth_response a;
	struct bytes device;
	uint8_t hash[HASH_SIZE];
	struct q_membership *m;
	struct q_user *u;
	const char *token;
	int n = q_user_share(r->work.db, &u, .id = l->user);

	if (n <= 0 || strcmp(u->status, "active") != 0)
		return n < 0 ? -1 : fail(r, E_UNAUTHORIZED, "the account is not active");
	act_as(r, u);
	n = q_team_for_token(r->work.db, &m, .user = u->id, .asked = l->team);
	if (n < 0 || (n == 0 && c->teams_personal && team_make(r, u->id, u->name, &team) < 0))
		return -1;
	*sid = uuid_new();
	token = refresh_make(r, sid, 1);
	crypto_sha256(token, strlen(token), hash);
	if (fill_response(r, u, sid, l->team, &a, &team) < 0 ||
	    meet_device(r, l, u, &new_device, &device) < 0)
		return -1;
	if (q_session_insert(r->work.db, .id = sid, .user = u->id, .team = team,
		.kind = cli ? "cli" : "web", .method = l->method, .hash = { hash, sizeof hash },
		.device = device, .mfa = l->mfa, .idp = l->idp, .ip = r->ip,
		.user_agent = r->work.actor.user_agent,
		.idle = cli ? CLI_IDLE : c->auth_refresh_idle,
		.longest = cli ? CLI_LONGEST : c->auth_refresh_max) < 0)
		return -1;
	if (q_session_prune(r->work.db, .user = u->id) < 0 ||
	    audit_login(r, l, u->id, team, new_device) < 0)
		return -1;
	if (l->want_refresh)
		a.refresh_token = token;
	else
		cookie_set(r, "refresh", token, "Strict", c->auth_refresh_max);
	return reply_with(r, auth_response_fields, &a);
}

/* --- refresh ------------------------------------------------------------------------------- */

static int
refused(struct request *r)
{
	return fail(r, E_UNAUTHORIZED, "the refresh token is not good");
}

/* An old token came back: somebody else may have the new one. The family ends. */
static int
reused(struct request *r, const struct q_session *s, const struct q_user *u)
{
	if (account_mail(r, "session_stolen", u, NULL, NULL, NULL, NULL) < 0)
		return -1;
	if (q_session_revoke(r->work.db, .id = s->id, .reason = "reuse") < 0)
		return -1;
	if (audit_add(&r->work, AUDIT_AUTH_REFRESH_REUSE,
		&(struct audit){ .resource_id = id_text(r, "usr-", s->user_id),
		    .subject = s->user_id,
		    .metadata = "{\"sessions\":1}",
		    .data = "{}" }) < 0)
		return -1;
	if (db_commit(r->work.db) < 0)
		return -1;
	job_announce(&r->work, r->app->queue);
	return refused(r);
}

static const char *
rotate(struct request *r, const struct q_session *s, const char *old, const struct uuid *team)
{
	const char *token = refresh_make(r, s->id, s->generation + 1);
	uint8_t hash[HASH_SIZE], key[KEY_SIZE];
	struct bytes sealed;
	bool cli = strcmp(s->kind, "cli") == 0;

	crypto_sha256(token, strlen(token), hash);
	successor_key(old, key);
	sealed = envelope_seal(r, key, "login_sessions|successor_enc", token, strlen(token));
	if (q_session_rotate(r->work.db, .id = s->id, .hash = { hash, sizeof hash },
		.successor = sealed, .team = team,
		.idle = cli ? CLI_IDLE : r->app->conf->auth_refresh_idle) < 0)
		return NULL;
	return token;
}

static const char *
successor(struct request *r, const struct q_session *s, const char *old)
{
	uint8_t key[KEY_SIZE];

	successor_key(old, key);
	return (const char *)envelope_open(
	    r, key, "login_sessions|successor_enc", s->successor_enc, &r->work.err)
	    .p;
}

static bool
hash_is(const char *token, struct bytes want)
{
	uint8_t hash[HASH_SIZE];

	crypto_sha256(token, strlen(token), hash);
	return want.n == sizeof hash && crypto_equal(hash, want.p, sizeof hash);
}

static int
too_often(struct request *r, const struct uuid *sid)
{
	int64_t most = r->app->conf->auth_session_refreshes;
	struct rate rate;

	if (!r->app->conf->auth_rate_limits ||
	    rate_take(r->app->queue, talloc_asprintf(r, "refresh:%s", id_text(r, "ses-", sid)),
		most, most, &rate))
		return 0;
	reply_header(r, "Retry-After", "%lld", (long long)rate.retry_after);
	return fail(r, E_RATE, "too many refreshes of this login");
}

/* The old token of a login becomes its successor. kind: of the login; NULL: any. */
static int
renew(struct request *r, const char *old, const struct uuid *sid, const struct uuid *asked,
    const char *kind, struct auth_response *a)
{
	const struct uuid *team;
	struct q_session *s;
	struct q_user *u;
	int n;

	if (too_often(r, sid) < 0)
		return -1;
	n = q_session_lock(r->work.db, &s, .id = sid);
	if (n <= 0 || !s->live || (kind && strcmp(s->kind, kind) != 0))
		return n < 0 ? -1 : refused(r);
	n = q_user_share(r->work.db, &u, .id = s->user_id);
	if (n < 0)
		return -1;
	if (n == 0 || strcmp(u->status, "active") != 0)
		return refused(r);
	act_as(r, u);
	if (fill_response(r, u, s->id, asked ? asked : s->team_id, a, &team) < 0)
		return -1;
	if (hash_is(old, s->refresh_hash))
		a->refresh_token = rotate(r, s, old, team);
	else if (hash_is(old, s->prev_hash) && s->since_rotation_s <= OVERLAP_SECONDS)
		a->refresh_token = successor(r, s, old);
	else
		return reused(r, s, u);
	return a->refresh_token ? 0 : -1;
}

int
session_refresh(struct request *r)
{
	const struct session_refresh *in = r->in;
	const char *old = in->refresh_token ? in->refresh_token : cookie_get(r, "refresh");
	struct auth_response a;
	struct uuid sid;

	if (!old || !refresh_read(r, old, &sid))
		return refused(r);
	if (!in->refresh_token && csrf_check(r, &sid) < 0)
		return -1;
	if (renew(r, old, &sid, in->team, NULL, &a) < 0)
		return -1;
	if (!in->refresh_token) {
		cookie_set(r, "refresh", a.refresh_token, "Strict", r->app->conf->auth_refresh_max);
		a.refresh_token = NULL;
	}
	return reply_with(r, auth_response_fields, &a);
}

/* --- logins of command line programs ---------------------------------------------------------- */

int
session_cli_open(struct request *r, struct cli_login *ret)
{
	const struct login l = { .method = "cli", .client = "cli" };
	struct uuid *sid = talloc(r, struct uuid);
	const struct uuid *team = NULL;
	struct auth_response a;
	uint8_t hash[HASH_SIZE];
	struct q_user *u;
	const char *token;
	int n = q_user_share(r->work.db, &u, .id = r->who.user);

	if (n <= 0)
		return n < 0 ? -1 : fail(r, E_UNAUTHORIZED, "the account is not active");
	*sid = uuid_new();
	token = refresh_make(r, sid, 1);
	crypto_sha256(token, strlen(token), hash);
	if (fill_response(r, u, sid, r->who.team, &a, &team) < 0)
		return -1;
	n = q_cli_session_insert(r->work.db, .id = sid, .from = r->who.session, .user = u->id,
	    .team = team, .hash = { hash, sizeof hash }, .ip = r->ip,
	    .user_agent = r->work.actor.user_agent, .idle = CLI_IDLE, .longest = CLI_LONGEST);
	if (n <= 0)
		return n < 0 ? -1 : fail(r, E_UNAUTHORIZED, "the login has ended");
	if (q_session_prune(r->work.db, .user = u->id) < 0 ||
	    audit_login(r, &l, u->id, team, false) < 0)
		return -1;
	*ret = (struct cli_login){ a.email, a.token, token, a.expires_in };
	return 0;
}

int
session_cli_renew(struct request *r, const char *refresh, struct cli_login *ret)
{
	struct auth_response a;
	struct uuid sid;

	if (!refresh_read(r, refresh, &sid))
		return refused(r);
	if (renew(r, refresh, &sid, NULL, "cli", &a) < 0)
		return -1;
	*ret = (struct cli_login){ a.email, a.token, a.refresh_token, a.expires_in };
	return 0;
}

/* --- the same login, read anew -------------------------------------------------------------- */

static int
answer_for(struct request *r, const struct uuid *asked)
{
	const struct uuid *team;
	struct auth_response a;
	struct q_user *u;

	if (q_user_share(r->work.db, &u, .id = r->who.user) <= 0 ||
	    fill_response(r, u, r->who.session, asked, &a, &team) < 0)
		return -1;
	if (asked && !(team && uuid_equal(team, asked)))
		return fail(r, E_NOT_FOUND, "no such object, or not yours");
	return reply_with(r, auth_response_fields, &a);
}

int
session_answer(struct request *r)
{
	return answer_for(r, r->who.team);
}

int
session_switch_team(struct request *r)
{
	const struct session_switch *in = r->in;

	if (answer_for(r, in->team) < 0 ||
	    q_session_team(r->work.db, .id = r->who.session, .team = in->team) < 0)
		return -1;
	return audit_add(&r->work, AUDIT_AUTH_SWITCH_TEAM,
	    &(struct audit){ .team = in->team,
		.resource_id = id_text(r, "usr-", r->who.user),
		.subject = r->who.user,
		.metadata = r->who.team
		    ? talloc_asprintf(r, "{\"from\":\"%s\"}", id_text(r, "team-", r->who.team))
		    : "{\"from\":null}",
		.data = "{}" });
}

/* --- the end ------------------------------------------------------------------------------- */

/* The login of the bearer token, or of the refresh token; false when there is no good credential.
 */
static bool
current_session(struct request *r, const struct session_logout *in, struct uuid *sid)
{
	const char *auth = request_env(r, "HTTP_AUTHORIZATION");
	const char *token = in->refresh_token ? in->refresh_token : cookie_get(r, "refresh");
	struct token_claims c;
	struct err ignored = { 0 };

	if (auth && strncasecmp(auth, "Bearer ", 7) == 0 &&
	    token_verify(r, r->app->keys, TOKEN_ACCESS, r->app->conf->http_public_url, auth + 7, &c,
		&ignored) == 0) {
		*sid = c.sid;
		return true;
	}
	return token && refresh_read(r, token, sid);
}

/* One login, or all of its user. */
static int
end(struct request *r, const struct uuid *sid, bool all)
{
	struct q_session *s;
	int n = q_session_lock(r->work.db, &s, .id = sid);

	if (n <= 0 || !s->live)
		return n < 0 ? -1 : 0;
	n = all ? q_session_revoke_all(r->work.db, .user = s->user_id, .reason = "logout")
		: q_session_revoke(r->work.db, .id = s->id, .reason = "logout");
	if (n < 0)
		return -1;
	r->work.actor.type = "user";
	r->work.actor.id = id_text(r, "usr-", s->user_id);
	r->work.actor.user = s->user_id;
	return audit_add(&r->work, AUDIT_AUTH_LOGOUT,
	    &(struct audit){ .team = s->team_id,
		.resource_id = r->work.actor.id,
		.subject = s->user_id,
		.metadata = talloc_asprintf(r, "{\"sessions\":%d}", n),
		.data = "{}" });
}

int
session_logout(struct request *r)
{
	const struct session_logout *in = r->in;
	struct uuid sid;

	cookie_set(r, "refresh", "", "Strict", 0);
	if (current_session(r, in, &sid) && end(r, &sid, in->all) < 0)
		return -1;
	return reply_done(r, 1);
}

int
session_cli_end(struct request *r, const char *refresh)
{
	struct uuid sid;

	return refresh_read(r, refresh, &sid) ? end(r, &sid, false) : 0;
}

int
session_csrf(struct request *r)
{
	const char *token = cookie_get(r, "refresh");
	struct csrf c;
	struct uuid sid;

	if (!token || !refresh_read(r, token, &sid))
		return fail(r, E_UNAUTHORIZED, "there is no refresh cookie");
	c.csrf_token = csrf_of(r, &sid);
	return reply_row(r, 1, &c);
}
