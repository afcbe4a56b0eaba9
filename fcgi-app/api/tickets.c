/*
 * tickets.c - POST /v1/auth/tickets: what opens one stream for a browser, which can set no headers
 * on it (spec 01 §4.3).
 *
 * The gateway uses them up (gateway/ticket.c). Queries: sql/queries/streams.sql. Tests:
 * tests/http/streams.py.
 */
#include "capsules.h"
#include "cleanup.h"
#include "crypto.h"
#include "ports.h"
#include "streams.q.h"

#include <string.h>

static handler ticket_new;

enum { LIFE_SEC = 30, BYTES = 32, ORIGIN_MAX = 512 };

struct ticket_new {
	const char *purpose;
	const struct uuid *capsule;
	int32_t port;
};
/* clang-format off */
static const struct field ticket_new_fields[] = {
	FIELD(ticket_new, purpose, "purpose", .flags = NEEDED, .one_of = "exec|pty|process|files|logs|port|events", .doc = "What it opens, once."),
	FIELD(ticket_new, capsule, "capsule", .prefix = "cl-", .doc = "Of all purposes but events."),
	FIELD(ticket_new, port, "port", .max = 65535, .doc = "Of the purpose port."),
	{ 0 },
};

struct ticket_made {
	const char *ticket, *url;
	int32_t expires_in;
};
static const struct field ticket_made_fields[] = {
	FIELD(ticket_made, ticket, "ticket", .flags = NEEDED, .doc = "For ?ticket=."),
	FIELD(ticket_made, expires_in, "expires_in", .flags = NEEDED, .doc = "Seconds."),
	FIELD(ticket_made, url, "url", .flags = OMIT, .doc = "Of the purpose port: the port's address. Below it, .hutch/auth?ticket=…&to=/ takes the ticket."),
	{ 0 },
};

const struct route ticket_routes[] = {
	{ "POST", "/v1/auth/tickets", POOL_API, SIGNED_IN_OR_KEY, ticket_new, "A ticket that opens one stream", 0, 201, IN(ticket_new), OUT(ticket_made) },
	{ 0 },
};

/* What one must be allowed to do, now and when the ticket is used. */
static const struct {
	const char *purpose;
	enum perm perm;
} needs[] = {
	{ "exec", PERM_capsules_connect }, { "pty", PERM_capsules_connect }, { "process", PERM_capsules_connect },
	{ "files", PERM_capsules_connect }, { "port", PERM_capsules_connect },
	{ "logs", PERM_capsules_view }, { "events", PERM_capsules_view },
};
/* clang-format on */

static enum perm
need(const char *purpose)
{
	for (size_t i = 0; i < nitems(needs); i++)
		if (strcmp(needs[i].purpose, purpose) == 0)
			return needs[i].perm;
	return PLATFORM_ADMIN;
}

static int
check(struct request *r, const struct ticket_new *in)
{
	bool events = strcmp(in->purpose, "events") == 0, port = strcmp(in->purpose, "port") == 0;

	if (!events && !in->capsule)
		return fail(r, E_BAD_INPUT, "\"capsule\" is missing");
	if (events && in->capsule)
		return fail(r, E_BAD_INPUT, "events are not of one capsule");
	if (port != (in->port > 0))
		return fail(r, E_BAD_INPUT, "\"port\" belongs to the purpose port, and only to it");
	return 0;
}

/* A private capsule is there for its owner and for those who run the team. */
static int
capsule_reached(struct request *r, const struct uuid *id)
{
	const struct principal *p = &r->who;
	struct q_capsule *c = NULL;
	int n = q_capsule_get(r->work.db, &c, .id = id);
	bool runs_team =
	    p->role && (strcmp(p->role, "owner") == 0 || strcmp(p->role, "admin") == 0);

	if (n < 0)
		return -1;
	if (n == 0 ||
	    (strcmp(c->visibility, "private") == 0 && !runs_team &&
		!(p->user && c->owner_id && uuid_equal(p->user, c->owner_id))))
		return fail(r, E_NOT_FOUND, "no such capsule");
	return 0;
}

static int
ticket_new(struct request *r)
{
	const struct ticket_new *in = r->in;
	const char *origin = request_env(r, "HTTP_ORIGIN");
	char text[2 * BYTES + 1];
	uint8_t secret[BYTES], hash[HASH_SIZE];
	struct ticket_made made = { .ticket = text, .expires_in = LIFE_SEC };
	int n = 0;

	if (check(r, in) < 0)
		return -1;
	if (principal_allowed(&r->who, need(in->purpose), &r->work.err) == ALLOW_NO)
		return -1;
	if (in->capsule && capsule_reached(r, in->capsule) < 0)
		return -1;
	if (origin && strlen(origin) > ORIGIN_MAX)
		return fail(r, E_BAD_INPUT, "the header Origin is too long");
	crypto_random(secret, sizeof secret);
	hex_write(text, secret, sizeof secret);
	crypto_sha256(text, strlen(text), hash);
	n = q_ticket_insert(r->work.db, .hash = { hash, sizeof hash }, .user = r->who.user,
	    .session = r->who.key ? NULL : r->who.session, .key = r->who.key, .team = r->who.team,
	    .capsule = in->capsule, .purpose = in->purpose, .port = in->port ? in->port : NULL_INT4,
	    .origin = origin, .seconds = LIFE_SEC);
	if (n < 0)
		return -1;
	if (n == 0)
		return fail(r, E_UNAUTHORIZED, "the account or the team has ended");
	if (in->port)
		made.url = port_url(r, in->capsule, in->port);
	return reply_row(r, 1, &made);
}
