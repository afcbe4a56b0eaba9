/* port_creds.c - see port_creds.h. */
#include "port_creds.h"

#include "cleanup.h"
#include "crypto.h"
#include "gateway.h"
#include "json.h"
#include "port_page.h"
#include "route.h"
#include "ticket.h"
#include "token.h"

#include <string.h>
#include <strings.h>
#include <time.h>

enum { COOKIE_SEC = 8 * 3600, COOKIE_MAX = 1024 };

/* The longer name first: it ends like the other. */
static const char *const cookies[] = { "__Host-hutch_port", "hutch_port" };

/* What a cookie says, sealed; bound to capsule and port by the seal's place. */
struct pass {
	int32_t type;
	struct uuid sub, sid, team;
	uint8_t hash[HASH_SIZE];
	int64_t until;
};

static const char *
place(void *mem, const struct port_place *at)
{
	return talloc_asprintf(mem, "port|%s|%u", at->id, at->port);
}

bool
port_secure(const struct request *r)
{
	const char *proto = request_header(r, "X-Forwarded-Proto");

	return proto && strcasecmp(proto, "https") == 0;
}

/* ---- ours by their form */

static bool
our_key(const char *v)
{
	uint8_t hash[HASH_SIZE];

	return strncmp(v, "htc_", 4) == 0 || strncmp(v, "e2b_", 4) == 0 || apikey_hash(v, hash);
}

/* A token of ours names us as its issuer; whether it is good is the database's to say. */
static bool
our_token(struct request *r, const char *v)
{
	auto_talloc char *mem = talloc_new(r);
	const char *begin = strchr(v, '.'), *end = begin ? strchr(begin + 1, '.') : NULL;
	struct bytes text = { 0 };
	struct json_object *json = NULL;
	struct err e = { 0 };

	if (end)
		text =
		    base64url_read(mem, talloc_strndup(mem, begin + 1, (size_t)(end - begin - 1)));
	if (text.p)
		json = json_parse(mem, (const char *)text.p, text.n, NULL, &e);
	return json && json_object_is_type(json, json_type_object) &&
	    strcmp(json_str(json, "iss", ""), r->gw->conf->http_public_url) == 0;
}

static const char *
bearer(struct request *r, const char *header)
{
	if (!header || strncasecmp(header, "Bearer ", 7) != 0)
		return NULL;
	header += 7 + strspn(header + 7, " ");
	return our_token(r, header) ? header : NULL;
}

/* One pair of a Cookie header is our cookie: its value, else NULL. */
static const char *
our_cookie(const char *pair, size_t n, size_t *len)
{
	for (size_t i = 0; i < sizeof cookies / sizeof *cookies; i++) {
		size_t k = strlen(cookies[i]);

		if (n > k && strncmp(pair, cookies[i], k) == 0 && pair[k] == '=') {
			*len = n - k - 1;
			return pair + k + 1;
		}
	}
	return NULL;
}

/* Every pair but ours, or the value of ours. */
static const char *
cookie_walk(struct request *r, const char *header, bool want_ours)
{
	struct buf rest = BUF(r);
	const char *p = header, *found = NULL;

	while (*p) {
		size_t n, len = 0;
		const char *ours;

		p += strspn(p, "; ");
		n = strcspn(p, ";");
		ours = our_cookie(p, n, &len);
		if (ours && want_ours && len < COOKIE_MAX)
			found = talloc_strndup(r, ours, len);
		else if (!ours && n) {
			buf_str(&rest, rest.len ? "; " : "");
			buf_add(&rest, p, n);
		}
		p += n;
	}
	return want_ours ? found : rest.data;
}

const char *
port_header(struct request *r, const char *name, const char *value)
{
	static const char *const ours[] = { "e2b-traffic-access-token", "x-access-token",
		"e2b-sandbox-id", "e2b-sandbox-port" };

	for (size_t i = 0; i < sizeof ours / sizeof *ours; i++)
		if (strcasecmp(name, ours[i]) == 0)
			return NULL;
	if (strcasecmp(name, "x-api-key") == 0 && our_key(value))
		return NULL;
	if (strcasecmp(name, "authorization") == 0 && bearer(r, value))
		return NULL;
	if (strcasecmp(name, "cookie") == 0)
		return cookie_walk(r, value, false);
	return value;
}

/* ---- the cookie */

static const struct credential_look *
cookie_open(struct request *r, const struct port_place *at, const char *text)
{
	struct bytes sealed = base64url_read(r, text), plain = { 0 };
	struct credential_look *look = talloc_zero(r, struct credential_look);
	struct err e = { 0 };
	struct pass p;

	if (!look)
		abort();
	if (sealed.p)
		plain = envelope_open(r, r->gw->keys->key[KEY_PORT], place(r, at), sealed, &e);
	if (plain.n != sizeof p)
		return NULL;
	memcpy(&p, plain.p, sizeof p);
	if (p.until < time(NULL))
		return NULL;
	look->type = (enum caller)p.type;
	look->claims.sub = p.sub;
	look->claims.sid = p.sid;
	look->claims.team = p.team;
	look->claims.has_team = true;
	memcpy(look->hash, p.hash, sizeof look->hash);
	return look;
}

static const char *
cookie_seal(struct request *r, const struct port_place *at, const struct credential_look *look)
{
	struct bytes sealed;
	struct pass p;

	memset(&p, 0, sizeof p);
	p.type = look->type;
	p.sub = look->claims.sub;
	p.sid = look->claims.sid;
	p.team = look->claims.team;
	p.until = time(NULL) + COOKIE_SEC;
	memcpy(p.hash, look->hash, sizeof p.hash);
	sealed = envelope_seal(r, r->gw->keys->key[KEY_PORT], place(r, at), &p, sizeof p);
	return base64url_write(r, sealed.p, sealed.n);
}

void
port_creds_read(struct request *r, const struct port_place *at, struct port_creds *c)
{
	const char *key = request_header(r, "X-API-Key");
	const char *given = request_header(r, "E2b-Traffic-Access-Token");
	const char *jar = request_header(r, "Cookie"), *cookie;
	const char *good = crypto_traffic_token(r, r->gw->keys, &at->capsule, GUEST_TOKEN_EPOCH);

	*c = (struct port_creds){
		.api_key = key && our_key(key) ? talloc_strdup(r, key) : NULL,
		.traffic = given && strlen(given) == strlen(good) &&
		    crypto_equal(given, good, strlen(good)),
	};
	if (c->api_key)
		return;
	c->bearer = bearer(r, request_header(r, "Authorization"));
	c->bearer = c->bearer ? talloc_strdup(r, c->bearer) : NULL;
	cookie = jar && at->by_host ? cookie_walk(r, jar, true) : NULL;
	if (!c->bearer && cookie)
		c->known = cookie_open(r, at, cookie);
}

/* ---- a ticket becomes a cookie */

struct login {
	struct work work; /* first; a talloc root */
	uv_work_t req;
	struct request *r; /* NULL: the client has left */
	struct gateway *gw;
	struct port_place at;
	struct ticket_ask ask;
	struct ticket ticket;
	const char *to;
};

struct hold {
	struct login *login;
};

static int
hold_destroy(struct hold *h)
{
	if (h->login)
		h->login->r = NULL;
	return 0;
}

static void
in_thread(uv_work_t *req)
{
	struct login *l = req->data;
	struct desk *k = desk_take(l->gw->doorman);

	if (!k) {
		(void)err_set(&l->work.err, E_DB, "no database connection is free");
		return;
	}
	l->work.db = desk_db(k);
	if (db_unit(l->work.db, l, &l->work.err) == 0)
		(void)ticket_use(&l->work, &l->ask, &l->ticket);
	db_unit_end(l->work.db);
	desk_return(l->gw->doorman, k);
}

static void
logged_in(struct request *r, const struct login *l)
{
	bool secure = port_secure(r);

	if (l->work.err.code == E_OK && l->ticket.port != (int)l->at.port) {
		page_fail(r, &l->at, E_UNAUTHORIZED, "the ticket is for another port");
	} else if (l->work.err.code != E_OK) {
		page_fail(r, &l->at, l->work.err.code, err_public(&l->work.err));
	} else {
		reply_header(r, "Set-Cookie",
		    talloc_asprintf(r, "%s=%s; Path=/; Max-Age=%d; HttpOnly; SameSite=Lax%s",
			cookies[secure ? 0 : 1], cookie_seal(r, &l->at, &l->ticket.look),
			COOKIE_SEC, secure ? "; Secure" : ""));
		reply_header(r, "Location", talloc_strdup(r, l->to));
		reply_header(r, "Referrer-Policy", "no-referrer");
		reply_empty(r, 302);
	}
}

static void
after_thread(uv_work_t *req, int status)
{
	struct login *l = req->data;
	struct request *r = l->r;

	if (status < 0)
		(void)err_set(&l->work.err, E_UNAVAILABLE, "the process is ending");
	if (r) {
		((struct hold *)r->look)->login = NULL;
		TALLOC_FREE(r->look);
		logged_in(r, l);
	}
	talloc_free(l);
}

/* A path of this host, nothing else. */
static const char *
way_back(struct request *r)
{
	const char *to = query_get(r, "to");
	bool good = to && to[0] == '/' && to[1] != '/' && to[1] != '\\';

	for (const char *c = to; good && *c; c++)
		good = (unsigned char)*c > ' ' && *c != 0x7f;
	return good ? to : "/";
}

void
port_login(struct request *r, const struct port_place *at)
{
	const char *text = query_get(r, "ticket"), *origin = request_header(r, "Origin");
	struct login *l;
	struct hold *h;

	if (strcmp(r->method, "GET") != 0 || !text) {
		page_fail(r, at, E_BAD_INPUT, "GET with ?ticket=, and &to= where to go on");
		return;
	}
	l = talloc_zero(NULL, struct login);
	h = talloc_zero(r, struct hold);
	if (!l || !h)
		abort();
	*l = (struct login){ .r = r, .gw = r->gw, .at = *at, .req.data = l };
	l->work.id = talloc_strdup(l, r->work.id);
	l->to = talloc_strdup(l, way_back(r));
	l->ask = (struct ticket_ask){ .text = talloc_strdup(l, text),
		.purpose = "port",
		.capsule = &l->at.capsule,
		.origin = origin ? talloc_strdup(l, origin) : NULL };
	h->login = l;
	r->look = h;
	talloc_set_destructor(h, hold_destroy);
	uv_queue_work(r->gw->loop, &l->req, in_thread, after_thread);
}
