/*
 * oauth.c - sign-in at another provider: out to it, back from it, and the code that the browser
 * turns into a session (spec 01 §2.3).
 *
 * What the browser carries proves nothing alone: the state is a one-time token bound to a cookie of
 * the same browser, the code that comes back to our page is another one. No token is ever in a
 * query string. Queries: sql/queries/idps.sql.  Tests: tests/http/oauth.py.
 */
#include "audit.h"
#include "cleanup.h"
#include "fcgi-app/cookie.h"
#include "log.h"
#include "sessions.h"
#include "idps.h"
#include "job.h"
#include "oidc.h"
#include "users.q.h"

#include <string.h>
#include <time.h>

static handler oauth_start, oauth_callback, oauth_exchange, provider_connect, provider_unlink;

enum { STATE_TTL = 600, CODE_TTL = 60 };

struct oauth_start {
	const char *idp, *intent, *return_to;
};
static const struct field oauth_start_fields[] = {
	FIELD(oauth_start, idp, "idp", .flags = NEEDED | IN_PATH, .max = 32),
	FIELD(oauth_start, intent, "intent", .flags = IN_QUERY, .text = "login",
	    .doc = "signup: an account may be made; anything else is login"),
	FIELD(oauth_start, return_to, "return_to", .flags = IN_QUERY, .max = 512,
	    .doc = "Path of the page to open afterwards"),
	{ 0 },
};

struct oauth_callback {
	const char *idp, *code, *state, *error, *iss;
};
static const struct field oauth_callback_fields[] = {
	FIELD(oauth_callback, idp, "idp", .flags = NEEDED | IN_PATH, .max = 32),
	FIELD(oauth_callback, code, "code", .flags = IN_QUERY, .max = 4096),
	FIELD(oauth_callback, state, "state", .flags = IN_QUERY, .max = 512),
	FIELD(oauth_callback, error, "error", .flags = IN_QUERY, .max = 512),
	FIELD(oauth_callback, iss, "iss", .flags = IN_QUERY, .max = 512),
	{ 0 },
};

struct oauth_code {
	const char *code;
};
static const struct field oauth_code_fields[] = {
	FIELD(oauth_code, code, "code", .flags = NEEDED | WRITE_ONLY, .min = 1, .max = 512),
	{ 0 },
};

struct provider {
	const char *provider;
};
static const struct field provider_fields[] = {
	FIELD(provider, provider, "provider", .flags = NEEDED | IN_PATH, .max = 32),
	{ 0 },
};

struct auth_url {
	const char *auth_url;
};
static const struct field auth_url_fields[] = {
	FIELD(auth_url, auth_url, "auth_url", .flags = NEEDED),
	{ 0 },
};

/* clang-format off */
const struct route oauth_routes[] = {
	{ "GET", "/auth/oauth/{idp}", POOL_OPS, ANYONE, oauth_start, "Sign in at another provider", TIGHT, 302, IN(oauth_start) },
	{ "GET", "/auth/oauth/{idp}/callback", POOL_OPS, ANYONE, oauth_callback, "Back from the provider", TIGHT, 302,
	    IN(oauth_callback) },
	{ "GET", "/v1/auth/oauth/{idp}", POOL_OPS, ANYONE, oauth_start, "Sign in at another provider", TIGHT, 302, IN(oauth_start) },
	{ "GET", "/v1/auth/oauth/{idp}/callback", POOL_OPS, ANYONE, oauth_callback, "Back from the provider", TIGHT, 302,
	    IN(oauth_callback) },
	{ "POST", "/v1/auth/exchange", POOL_OPS, ANYONE, oauth_exchange, "Turn the code of a provider's sign-in into a session", TIGHT,
	    200, IN(oauth_code), .out = auth_response_fields },
	{ "GET", "/v1/me/providers/{provider}/connect", POOL_OPS, SIGNED_IN, provider_connect, "Begin to link a provider to the account",
	    .status = 200, IN(provider), OUT(auth_url) },
	{ "DELETE", "/v1/me/providers/{provider}", POOL_API, SIGNED_IN, provider_unlink, "Unlink a provider from the account", PROOF_OF_FACTOR, 204,
	    IN(provider) },
	{ 0 },
};
/* clang-format on */

/* --- out ----------------------------------------------------------------------------------- */

static const char *
random_word(struct request *r)
{
	uint8_t raw[32];

	crypto_random(raw, sizeof raw);
	return base64url_write(r, raw, sizeof raw);
}

static const char *
hash_hex(struct request *r, const char *text)
{
	uint8_t h[HASH_SIZE];
	char *hex = talloc_array(r, char, 2 * HASH_SIZE + 1);

	crypto_sha256(text, strlen(text), h);
	return hex_write(hex, h, sizeof h);
}

/* The secret that makes this browser known to us; two sign-ins at once share it. */
static const char *
browser_secret(struct request *r)
{
	const char *have = cookie_get(r, "state");
	struct bytes raw = have ? base64url_read(r, have) : (struct bytes){ 0 };

	return raw.n == 32 ? have : random_word(r);
}

static const char *
state_place(struct request *r, const struct uuid *id)
{
	return talloc_asprintf(r, "one_time_tokens|secret_enc|%s", id_text(r, "", id));
}

/* Remembers a sign-in under way. session: whose account shall be linked, or NULL. */
static int
state_keep(struct request *r, const struct oauth_start *in, const struct uuid *user,
    const char *state, const char *nonce, const char *verifier, const char *browser)
{
	struct uuid id = uuid_new();
	struct buf b = BUF(r);
	uint8_t h[HASH_SIZE];

	crypto_sha256(state, strlen(state), h);
	buf_str(&b, "{\"idp\":");
	buf_json(&b, in->idp);
	buf_fmt(&b, ",\"nonce\":\"%s\",\"browser\":\"%s\",\"intent\":\"%s\"", nonce,
	    hash_hex(r, browser), strcmp(in->intent, "signup") == 0 ? "signup" : "login");
	if (in->return_to) {
		buf_str(&b, ",\"return_to\":");
		buf_json(&b, in->return_to);
	}
	if (user)
		buf_fmt(&b, ",\"session\":\"%s\"", id_text(r, "ses-", r->who.session));
	buf_chr(&b, '}');
	return q_state_insert(r->work.db, .hash = { h, sizeof h }, .id = &id, .user = user,
	    .purpose = "login_state", .payload = b.data,
	    .secret = envelope_seal(
		r, r->app->keys->key[KEY_STATE], state_place(r, &id), verifier, strlen(verifier)),
	    .ip = r->ip, .ttl = STATE_TTL);
}

/* Where the browser goes; NULL with the error set. */
static const char *
way_out(struct request *r, const struct oauth_start *in, const struct uuid *user)
{
	const char *state = random_word(r), *nonce = random_word(r), *verifier = random_word(r);
	const char *browser = browser_secret(r), *url;
	struct oidc_client client;
	struct q_idp *idp;
	int n = q_idp_by_slug(r->work.db, &idp, .slug = in->idp);

	if (n < 0)
		return NULL;
	if (n == 0) {
		fail(r, E_NO_PROVIDER, "there is no provider \"%.40s\"", in->idp);
		return NULL;
	}
	if (idp_client(r, idp, &client) < 0)
		return NULL;
	url = oidc_authorize_url(r, &client, state, nonce, verifier, &r->work.err);
	if (!url || state_keep(r, in, user, state, nonce, verifier, browser) < 0)
		return NULL;
	cookie_set(r, "state", browser, "Lax", STATE_TTL);
	return url;
}

/* The address may be longer than a header of reply_header(). */
static int
redirect(struct request *r, const char *url)
{
	const char *p;

	for (p = url; *p; p++)
		if ((unsigned char)*p <= 0x20 || *p == 0x7f)
			return fail(r, E_BUG, "an address with blanks");
	buf_fmt(&r->headers, "Location: %s\r\n", url);
	reply_header(r, "Cache-Control", "no-store");
	r->status = 302;
	buf_clear(&r->out);
	return 0;
}

static int
oauth_start(struct request *r)
{
	const struct oauth_start *in = r->in;
	const char *url, *to = in->return_to;

	if (to && (to[0] != '/' || to[1] == '/' || to[1] == '\\'))
		return fail(r, E_BAD_INPUT, "\"return_to\" is not a path of this site");
	url = way_out(r, in, NULL);
	return url ? redirect(r, url) : -1;
}

static int
provider_connect(struct request *r)
{
	const struct provider *in = r->in;
	struct oauth_start start = { .idp = in->provider, .intent = "link" };
	struct auth_url ret = { way_out(r, &start, r->who.user) };

	return ret.auth_url ? reply_row(r, 1, &ret) : -1;
}

/* --- back ---------------------------------------------------------------------------------- */

struct back {
	struct request *r;
	const struct oauth_callback *in;
	struct json_object *state;
	const struct uuid *link; /* the user to link, or NULL */
	struct q_idp *idp;
	struct oidc_person person;
	const char *wrong; /* what the page is told; NULL: nothing is */
};

static void
escape(struct buf *b, const char *s)
{
	for (; *s; s++)
		if ((*s >= '0' && *s <= '9') || ((*s | 32) >= 'a' && (*s | 32) <= 'z') ||
		    strchr("-._~/", *s))
			buf_chr(b, *s);
		else
			buf_fmt(b, "%%%02X", (unsigned char)*s);
}

/* A setting with {idp}, or the default page below public_url. */
static const char *
page(struct back *b, const char *setting, const char *dflt)
{
	const char *mark,
	    *text = *setting
	    ? setting
	    : talloc_asprintf(b->r, "%s%s", b->r->app->conf->http_public_url, dflt);

	mark = strstr(text, "{idp}");
	if (!mark)
		return text;
	return talloc_asprintf(b->r, "%.*s%s%s", (int)(mark - text), text, b->in->idp, mark + 5);
}

static int
leave(struct back *b, const char *code)
{
	const struct conf *c = b->r->app->conf;
	struct buf url = BUF(b->r);
	const char *to = json_str(b->state, "return_to", NULL);

	if (b->link) {
		buf_str(&url, page(b, c->oauth_link_url, "/dashboard/settings"));
		buf_fmt(&url, "?%s=", b->wrong ? "connect_error" : "connected");
		escape(&url, b->wrong ? b->wrong : b->in->idp);
		return redirect(b->r, url.data);
	}
	buf_str(&url, page(b, c->oauth_return_url, "/auth/{idp}/callback"));
	if (b->wrong)
		buf_fmt(&url, "?error=%s", b->wrong);
	else {
		buf_fmt(&url, "#code=%s", code);
		if (to) {
			buf_str(&url, "&return_to=");
			escape(&url, to);
		}
	}
	return redirect(b->r, url.data);
}

/* The state is ours, unused, young, and this browser's. */
static int
state_back(struct back *b, const char **nonce, const char **verifier)
{
	struct request *r = b->r;
	const char *state = b->in->state ? b->in->state : "", *browser = cookie_get(r, "state");
	struct q_login_state *s;
	struct bytes secret;
	uint8_t h[HASH_SIZE];
	int n;

	b->wrong = "invalid_state";
	crypto_sha256(state, strlen(state), h);
	n = q_state_take(r->work.db, &s, .hash = { h, sizeof h }, .purpose = "login_state");
	if (n <= 0)
		return n;
	b->state = json_parse(r, s->payload, strlen(s->payload), NULL, &r->work.err);
	secret = envelope_open(
	    r, r->app->keys->key[KEY_STATE], state_place(r, s->id), s->secret_enc, &r->work.err);
	if (!b->state || !secret.p)
		return -1;
	b->link = s->user_id;
	if (!browser || strcmp(hash_hex(r, browser), json_str(b->state, "browser", "")) != 0 ||
	    strcmp(b->in->idp, json_str(b->state, "idp", "")) != 0)
		return 0;
	*nonce = json_str(b->state, "nonce", "");
	*verifier = (const char *)secret.p;
	b->wrong = NULL;
	return 1;
}

/* Links the subject to the account whose owner asked for it, if his login still stands. */
static int
link_account(struct back *b)
{
	struct request *r = b->r;
	struct q_login_alive *alive;
	struct q_identity *known;
	struct uuid session;
	int n;

	b->wrong = "invalid_state";
	if (!id_read(json_str(b->state, "session", ""), "ses-", &session))
		return 0;
	n = q_login_is_alive(r->work.db, &alive, .id = &session, .user = b->link);
	if (n <= 0 || !alive->alive)
		return n < 0 ? -1 : 0;
	b->wrong = "already_linked";
	n = q_identity_find(r->work.db, &known, .idp = b->idp->id, .subject = b->person.subject);
	if (n < 0)
		return -1;
	if (n > 0) {
		if (uuid_equal(known->user_id, b->link))
			b->wrong = NULL;
		return 0;
	}
	n = q_identity_insert(r->work.db, .idp = b->idp->id, .subject = b->person.subject,
	    .user = b->link, .email = b->person.email);
	if (n <= 0)
		return n;
	b->wrong = NULL;
	r->work.actor.type = "user";
	r->work.actor.id = id_text(r, "usr-", b->link);
	r->work.actor.user = b->link;
	return audit_add(&r->work, AUDIT_IDENTITY_LINK,
	    &(struct audit){ .resource_id = id_text(r, "usr-", b->link),
		.subject = b->link,
		.metadata = talloc_asprintf(r, "{\"idp\":\"%s\"}", b->idp->slug),
		.data = "{}" });
}

static bool
in_domains(const struct q_idp *idp, const char *email)
{
	const char *at = email ? strrchr(email, '@') : NULL;
	const char *const *d;

	for (d = idp->domains; at && d && *d; d++)
		if (strcasecmp(*d, at + 1) == 0)
			return true;
	return false;
}

/* A name that an account may have: what the provider says without what is not allowed. */
static const char *
person_name(struct request *r, const struct oidc_person *p)
{
	struct buf b = BUF(r);
	const char *s = p->name && *p->name ? p->name : p->email;
	const char *end = p->name && *p->name ? s + strlen(s) : strchrnul(s, '@');

	for (; s < end && b.len < 100; s++)
		if ((unsigned char)*s >= 0x20 && *s != 0x7f && !strchr("<>&\"", *s))
			buf_chr(&b, *s);
	return b.len && format_ok("person", b.data) ? b.data : "New user";
}

/* A new account for a person whose address the provider vouches for. */
static int
sign_up(struct back *b, const struct uuid **user)
{
	struct request *r = b->r;
	struct uuid *id = talloc(r, struct uuid);
	uint8_t handle[64];

	*id = uuid_new();
	crypto_random(handle, sizeof handle);
	if (q_user_insert(r->work.db, .id = id, .source = "oauth", .email = b->person.email,
		.name = person_name(r, &b->person), .status = "active", .platform_role = "user",
		.handle = { handle, sizeof handle }) < 0)
		return -1;
	*user = id;
	return audit_add(&r->work, AUDIT_USER_SIGNUP,
	    &(struct audit){ .resource_id = id_text(r, "usr-", id),
		.subject = id,
		.metadata = talloc_asprintf(r, "{\"source\":\"%s\"}", b->idp->slug) });
}

/* Whether somebody new may come in this way; b->wrong says why not. */
static bool
may_sign_up(struct back *b)
{
	bool asked = strcmp(json_str(b->state, "intent", ""), "signup") == 0;
	const char *policy = b->r->app->conf->auth_signup;

	if (asked && strcmp(policy, "open") != 0)
		b->wrong = "signup_closed";
	else if (!asked && !(b->idp->jit && in_domains(b->idp, b->person.email)))
		b->wrong = "no_account";
	else if (!b->person.verified)
		b->wrong = "email_unverified";
	else if (!b->person.email || !format_ok("email", b->person.email))
		b->wrong = "email_unverified";
	return !b->wrong;
}

/* Somebody has the address already (spec 01 §2.3, decision 3). 1: go on with *user. */
static int
address_known(struct back *b, const struct q_user *u, const struct uuid **user)
{
	struct request *r = b->r;

	if (!b->person.verified) {
		b->wrong = "email_unverified";
		return 0;
	}
	if (strcmp(u->status, "inactive") == 0) {
		/* the password of a sign-up that nobody confirmed dies with its row */
		if (!may_sign_up(b))
			return 0;
		if (q_user_remove(r->work.db, .id = u->id) < 0 ||
		    audit_add(&r->work, AUDIT_USER_REPLACE,
			&(struct audit){ .resource_id = id_text(r, "usr-", u->id) }) < 0)
			return -1;
		return sign_up(b, user) < 0 ? -1 : 1;
	}
	if (!b->idp->link_by_email || !in_domains(b->idp, b->person.email) ||
	    strcmp(u->status, "deleted") == 0) {
		b->wrong = "email_taken";
		return 0;
	}
	*user = u->id;
	if (strcmp(u->status, "active") == 0)
		return 1;
	b->wrong = "account_deactivated";
	return 0;
}

/* Whose account it is; made or linked when the rules say so. *user NULL: b->wrong. */
static int
whose(struct back *b, const struct uuid **user)
{
	struct request *r = b->r;
	struct q_identity *known;
	struct q_user *u;
	int n =
	    q_identity_find(r->work.db, &known, .idp = b->idp->id, .subject = b->person.subject);

	*user = NULL;
	if (n < 0)
		return -1;
	if (n > 0) {
		if (strcmp(known->status, "active") != 0) {
			b->wrong = strcmp(known->status, "disabled") == 0 ? "account_deactivated"
									  : "no_account";
			return 0;
		}
		*user = known->user_id;
		return q_identity_used(r->work.db, .idp = b->idp->id, .subject = b->person.subject,
			   .email = b->person.email) < 0
		    ? -1
		    : 0;
	}
	n = b->person.email ? q_user_by_email_lock(r->work.db, &u, .email = b->person.email) : 0;
	if (n > 0)
		n = address_known(b, u, user);
	else if (n == 0 && may_sign_up(b))
		n = sign_up(b, user) < 0 ? -1 : 1;
	if (n <= 0)
		return n;
	return q_identity_insert(r->work.db, .idp = b->idp->id, .subject = b->person.subject,
		   .user = *user, .email = b->person.email) < 0
	    ? -1
	    : 0;
}

/* The code that our page gets: 60 seconds, once, this browser. */
static const char *
code_make(struct back *b, const struct uuid *user)
{
	struct request *r = b->r;
	const char *code = random_word(r);
	struct uuid id = uuid_new();
	uint8_t h[HASH_SIZE];

	crypto_sha256(code, strlen(code), h);
	if (q_state_insert(r->work.db, .hash = { h, sizeof h }, .id = &id, .user = user,
		.purpose = "exchange",
		.payload = talloc_asprintf(r,
		    "{\"browser\":\"%s\",\"idp\":\"%s\",\"type\":\"%s\",\"mfa\":%s}",
		    json_str(b->state, "browser", ""), id_text(r, "idp-", b->idp->id), b->idp->type,
		    b->idp->trust_mfa && b->person.mfa ? "true" : "false"),
		.secret = { 0 }, .ip = r->ip, .ttl = CODE_TTL) < 0)
		return NULL;
	return code;
}

/* In one transaction: whose it is, what that changes, and the code. */
static int
settle(struct back *b, const char **code)
{
	const struct uuid *user = NULL;
	struct db *db = b->r->work.db;

	db_begin(db);
	if (b->link) {
		if (link_account(b) < 0)
			return -1;
	} else if (whose(b, &user) < 0 || (user && !b->wrong && !(*code = code_make(b, user))))
		return -1;
	if (b->wrong) {
		db_rollback(db);
		return 0;
	}
	if (db_commit(db) < 0)
		return -1;
	job_announce(&b->r->work, b->r->app->queue);
	return 0;
}

/* A fault on the way is told to the page, too: the browser stands at our address with nothing else
 * to see. */
static int
failed(struct back *b, const char *word)
{
	struct err *e = &b->r->work.err;

	log_warn(b->r->work.id, "sign-in by %s: %s", b->in->idp, e->text);
	b->wrong = e->code == E_DB ? "db_error" : word;
	*e = (struct err){ 0 };
	db_rollback(b->r->work.db);
	return leave(b, NULL);
}

static int
oauth_callback(struct request *r)
{
	struct back b = { .r = r, .in = r->in };
	const char *nonce, *verifier, *code = NULL;
	struct oidc_client client;
	int n = state_back(&b, &nonce, &verifier);

	if (n < 0)
		return failed(&b, "internal_error");
	if (n == 0)
		return leave(&b, NULL);
	if (b.in->error || !b.in->code) {
		b.wrong = b.in->error ? "access_denied" : "missing_code";
		return leave(&b, NULL);
	}
	n = q_idp_by_slug(r->work.db, &b.idp, .slug = b.in->idp);
	if (n < 0 || (n > 0 && idp_client(r, b.idp, &client) < 0))
		return failed(&b, "internal_error");
	if (n == 0) {
		b.wrong = "invalid_state";
		return leave(&b, NULL);
	}
	if (oidc_person_of(r, &client, b.in->code, b.in->iss, nonce, verifier, time(NULL),
		&b.person, &r->work.err) < 0)
		return failed(&b, "exchange_failed");
	if (settle(&b, &code) < 0)
		return failed(&b, "internal_error");
	return leave(&b, code);
}

/* --- the session --------------------------------------------------------------------------- */

static int
oauth_exchange(struct request *r)
{
	const struct oauth_code *in = r->in;
	const char *browser = cookie_get(r, "state");
	struct login l = { .client = "web" };
	struct q_login_state *s;
	struct json_object *p;
	uint8_t h[HASH_SIZE];
	struct uuid idp;
	int n;

	crypto_sha256(in->code, strlen(in->code), h);
	n = q_state_take(r->work.db, &s, .hash = { h, sizeof h }, .purpose = "exchange");
	if (n < 0)
		return -1;
	p = n ? json_parse(r, s->payload, strlen(s->payload), NULL, &r->work.err) : NULL;
	if (!p || !browser || strcmp(hash_hex(r, browser), json_str(p, "browser", "")) != 0)
		return fail(
		    r, E_BAD_TOKEN, "the code is unknown, expired, used, or another browser's");
	l.user = s->user_id;
	l.method = strcmp(json_str(p, "type", ""), "oidc") == 0 ? "oidc" : "oauth";
	cookie_set(r, "state", "", "Lax", 0);
	if (id_read(json_str(p, "idp", ""), "idp-", &idp))
		l.idp = &idp;
	/* a provider whose second factor is trusted has asked for one */
	return json_flag(p, "mfa", false) ? login_open(r, &l) : login_next(r, &l);
}

/* --- unlink -------------------------------------------------------------------------------- */

static int
provider_unlink(struct request *r)
{
	const struct provider *in = r->in;
	struct q_ways_in *w;
	int n = q_user_ways_in(r->work.db, &w, .user = r->who.user, .slug = in->provider);

	if (n < 0)
		return -1;
	if (n == 0 || !w->this)
		return fail(r, E_NOT_FOUND, "the account is not linked to \"%.40s\"", in->provider);
	if (!w->password && w->identities < 2)
		return fail(r, E_LAST_LOGIN,
		    "this is the only way to sign in: set a password first (POST /v1/me/password)");
	if (q_identity_delete(r->work.db, .user = r->who.user, .slug = in->provider) < 0)
		return -1;
	if (audit_add(&r->work, AUDIT_IDENTITY_UNLINK,
		&(struct audit){ .resource_id = id_text(r, "usr-", r->who.user),
		    .subject = r->who.user,
		    .metadata = talloc_asprintf(r, "{\"idp\":\"%s\"}", in->provider),
		    .data = "{}" }) < 0)
		return -1;
	return reply_done(r, 1);
}
