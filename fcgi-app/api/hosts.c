/*
 * hosts.c - machines that run the host agent: registration, heartbeat, reports (spec 02 §5.1-5.3).
 *
 * Queries: sql/queries/hosts.sql.  Tests: tests/http/hosts.t.
 */
#include "api.h"
#include "audit.h"
#include "capsule_op.h"
#include "cleanup.h"
#include "hosts.q.h"

#include <inttypes.h>
#include <string.h>
#include <time.h>

static handler host_create, host_list, host_get, host_token, host_register, host_refresh,
    host_heartbeat, host_reports;

#define HOST_FIELDS                                                                          \
	FIELD(q_host, id, "id", .flags = NEEDED, .prefix = "host-"),                         \
	    FIELD(q_host, type, "type", .flags = NEEDED, .one_of = "regular|byoc"),          \
	    FIELD(q_host, team_id, "team_id", .flags = OMIT, .prefix = "team-"),             \
	    FIELD(q_host, name, "name", .flags = NEEDED),                                    \
	    FIELD(q_host, arch, "arch", .flags = NEEDED),                                    \
	    FIELD(q_host, accel, "accel", .flags = NEEDED),                                  \
	    FIELD(q_host, cpu_cores, "cpu_cores", .flags = NEEDED),                          \
	    FIELD(q_host, memory_mb, "memory_mb", .flags = NEEDED),                          \
	    FIELD(q_host, disk_gb, "disk_gb", .flags = NEEDED),                              \
	    FIELD(q_host, status, "status", .flags = NEEDED,                                 \
		.one_of = "pending|online|unreachable|draining"),                            \
	    FIELD(q_host, schedulable, "schedulable", .flags = NEEDED),                      \
	    FIELD(q_host, last_heartbeat_at, "last_heartbeat_at", .format = "date-time"),    \
	    FIELD(q_host, agent_version, "agent_version", .flags = NEEDED),                  \
	    FIELD(q_host, conditions, "conditions", .flags = NEEDED, .format = "json"),      \
	    FIELD(q_host, created_by, "created_by", .prefix = "usr-"),                       \
	    FIELD(q_host, created_at, "created_at", .flags = NEEDED, .format = "date-time"), \
	    FIELD(q_host, updated_at, "updated_at", .flags = NEEDED, .format = "date-time")
static const struct field host_fields[] = { HOST_FIELDS, { 0 } };

struct by_host {
	const struct uuid *id;
};
static const struct field by_host_fields[] = { PATH_ID(by_host, "host-"), { 0 } };

struct host_page {
	int32_t limit;
	const char *cursor;
};
static const struct field host_page_fields[] = { PAGE_FIELDS(host_page), { 0 } };

struct host_create {
	const char *name;
};
static const struct field host_create_fields[] = {
	FIELD(host_create, name, "name", .text = "", .max = 64),
	{ 0 },
};

struct host_made {
	struct q_host *host;
	const char *token;
};
static const struct field host_made_fields[] = {
	SUB(host_made, host, "host", host_fields, q_host, .flags = NEEDED),
	FIELD(host_made, token, "registration_token", .flags = NEEDED,
	    .doc = "Good once, for an hour."),
	{ 0 },
};

struct host_register {
	const char *token, *name, *address, *arch, *accel, *agent_version;
	int32_t cpu_cores, memory_mb, disk_gb;
};
static const struct field host_register_fields[] = {
	FIELD(host_register, token, "token", .flags = NEEDED | WRITE_ONLY, .min = 1, .max = 256),
	FIELD(host_register, name, "name", .text = "", .max = 64),
	FIELD(host_register, address, "address", .flags = NEEDED, .min = 1, .max = 255),
	FIELD(host_register, arch, "arch", .flags = NEEDED, .min = 1, .max = 32),
	FIELD(host_register, cpu_cores, "cpu_cores", .flags = NEEDED, .min = 1, .max = 4096),
	FIELD(host_register, memory_mb, "memory_mb", .flags = NEEDED, .min = 1, .max = 100000000),
	FIELD(host_register, disk_gb, "disk_gb", .flags = NEEDED, .max = 100000000),
	FIELD(host_register, accel, "accel", .flags = NEEDED, .one_of = "kvm|tcg"),
	FIELD(host_register, agent_version, "agent_version", .text = "", .max = 64),
	{ 0 },
};

struct host_credentials {
	struct q_host *host;
	const char *token, *refresh_token;
};
static const struct field host_credentials_fields[] = {
	SUB(host_credentials, host, "host", host_fields, q_host, .flags = NEEDED),
	FIELD(host_credentials, token, "token", .flags = NEEDED),
	FIELD(host_credentials, refresh_token, "refresh_token", .flags = NEEDED),
	{ 0 },
};

struct host_refresh {
	const char *refresh_token;
};
static const struct field host_refresh_fields[] = {
	FIELD(host_refresh, refresh_token, "refresh_token", .flags = NEEDED | WRITE_ONLY, .min = 1,
	    .max = 256),
	{ 0 },
};

struct host_heartbeat {
	const struct uuid *id;
	int64_t seq, free_disk_mb;
	int32_t free_memory_mb;
	const char *boot_id, *agent_version, *inventory_hash, *conditions;
};
static const struct field host_heartbeat_fields[] = {
	PATH_ID(host_heartbeat, "host-"),
	FIELD(host_heartbeat, seq, "seq"),
	FIELD(host_heartbeat, boot_id, "boot_id", .max = 64),
	FIELD(host_heartbeat, agent_version, "agent_version", .text = "", .max = 64),
	FIELD(host_heartbeat, free_memory_mb, "free_memory_mb"),
	FIELD(host_heartbeat, free_disk_mb, "free_disk_mb"),
	FIELD(host_heartbeat, inventory_hash, "inventory_hash", .max = 128),
	FIELD(host_heartbeat, conditions, "conditions", .text = "[]", .format = "json",
	    .doc = "List of what is not as it should be."),
	{ 0 },
};

struct change {
	const struct uuid *id;
	int64_t epoch;
	const char *state, *code, *message;
};
static const struct field change_fields[] = {
	FIELD(change, id, "id", .flags = NEEDED, .prefix = "cl-"),
	FIELD(change, epoch, "epoch", .flags = NEEDED),
	FIELD(change, state, "state", .flags = NEEDED, .max = 32),
	FIELD(change, code, "code", .text = "vmm_exit", .max = 64),
	FIELD(change, message, "message", .text = "the virtual machine ended", .max = 200),
	{ 0 },
};

struct host_reports {
	const struct uuid *id;
	int64_t sequence;
	struct list changes;
};
static const struct field host_reports_fields[] = {
	PATH_ID(host_reports, "host-"),
	FIELD(host_reports, sequence, "sequence", .flags = NEEDED),
	SUB(host_reports, changes, "changes", change_fields, change, .flags = NEEDED | LIST,
	    .min = 0, .max = 500),
	{ 0 },
};

struct acked {
	int64_t acked;
};
static const struct field acked_fields[] = {
	FIELD(acked, acked, "acked", .flags = NEEDED),
	{ 0 },
};

/* clang-format off */
const struct route host_routes[] = {
	{ "POST", "/v1/hosts", POOL_API, PLATFORM_ADMIN, host_create, "Announce a host; answers its registration token", CREATES | MAY_BE_EMPTY, 201, IN(host_create), OUT(host_made) },
	{ "GET", "/v1/hosts", POOL_API, PLATFORM_READ, host_list, "All hosts", LISTS, 200, IN(host_page), OUT(host) },
	{ "GET", "/v1/hosts/{id}", POOL_API, PLATFORM_READ, host_get, "One host", 0, 200, IN(by_host), OUT(host) },
	{ "POST", "/v1/hosts/{id}/token", POOL_API, PLATFORM_ADMIN, host_token, "A new registration token; earlier ones die", NO_BODY, 201, IN(by_host), OUT(host_made) },
	{ "POST", "/v1/hosts/register", POOL_API, ANYONE, host_register, "A host agent registers with its token", TIGHT, 201, IN(host_register), OUT(host_credentials) },
	{ "POST", "/v1/hosts/auth/refresh", POOL_API, ANYONE, host_refresh, "A host agent renews its token", TIGHT, 200, IN(host_refresh), OUT(host_credentials) },
	{ "POST", "/v1/hosts/{id}/heartbeat", POOL_API, HOST_TOKEN, host_heartbeat, "A host agent lives", 0, 204, IN(host_heartbeat) },
	{ "POST", "/v1/hosts/{id}/reports", POOL_API, HOST_TOKEN, host_reports, "A host agent tells of changes", 0, 200, IN(host_reports), OUT(acked) },
	{ 0 },
};
/* clang-format on */

static struct bytes
hash_of(struct request *r, const char *token)
{
	uint8_t *h = talloc_array(r, uint8_t, HASH_SIZE);

	crypto_sha256(token, strlen(token), h);
	return (struct bytes){ h, HASH_SIZE };
}

static const char *
random_token(struct request *r)
{
	uint8_t raw[32];

	crypto_random(raw, sizeof raw);
	return base64url_write(r, raw, sizeof raw);
}

static int
issue_registration(struct request *r, const struct uuid *host, struct host_made *made)
{
	struct uuid id = uuid_new();

	made->token = random_token(r);
	if (q_host_tokens_kill(r->work.db, .host = host) < 0)
		return -1;
	if (q_host_token_insert(r->work.db, .id = &id, .host = host,
		.hash = hash_of(r, made->token), .user = r->who.user) < 0)
		return -1;
	return q_host_get(r->work.db, &made->host, .id = host);
}

static int
host_create(struct request *r)
{
	const struct host_create *in = r->in;
	struct uuid id = uuid_new();
	struct host_made made;

	if (q_host_insert(r->work.db, .id = &id, .name = in->name, .user = r->who.user) < 0 ||
	    issue_registration(r, &id, &made) < 0)
		return -1;
	if (audit_add(&r->work, AUDIT_HOST_CREATE,
		&(struct audit){ .resource_id = id_text(r, "host-", &id),
		    .metadata = "{\"type\":\"regular\"}" }) < 0)
		return -1;
	return reply_row(r, 1, &made);
}

static int
host_token(struct request *r)
{
	const struct by_host *in = r->in;
	struct host_made made;
	struct q_host *h;
	int n = q_host_get(r->work.db, &h, .id = in->id);

	if (n <= 0)
		return reply_done(r, n);
	if (issue_registration(r, in->id, &made) < 0)
		return -1;
	if (audit_add(&r->work, AUDIT_HOST_TOKEN,
		&(struct audit){ .resource_id = id_text(r, "host-", in->id) }) < 0)
		return -1;
	return reply_row(r, 1, &made);
}

static int
host_list(struct request *r)
{
	const struct host_page *in = r->in;
	struct q_host *rows;
	struct page p;
	int n;

	if (page_read(r, in->limit, in->cursor, &p) < 0)
		return -1;
	n = q_host_list(
	    r->work.db, &rows, .before = p.before, .before_id = p.before_id, .limit = p.limit + 1);
	return page_reply(r, n, rows, sizeof *rows, &p, offsetof(struct q_host, created_at),
	    offsetof(struct q_host, id));
}

static int
host_get(struct request *r)
{
	const struct by_host *in = r->in;
	struct q_host *h;
	int n = q_host_get(r->work.db, &h, .id = in->id);

	return reply_row(r, n, h);
}

/* A new pair of tokens; the refresh token is stored as a hash. */
static int
issue_credentials(struct request *r, const struct uuid *host, struct host_credentials *c)
{
	const struct conf *conf = r->app->conf;
	struct token_claims claims = { .sub = *host, .iat = time(NULL) };
	struct uuid id = uuid_new();

	claims.exp = claims.iat + conf->host_token_ttl;
	c->token =
	    token_sign(r, r->app->keys, TOKEN_HOST, conf->http_public_url, &claims, &r->work.err);
	c->refresh_token = random_token(r);
	if (!c->token ||
	    q_host_refresh_insert(r->work.db, .id = &id, .host = host,
		.hash = hash_of(r, c->refresh_token), .ttl = conf->host_refresh_ttl) < 0)
		return -1;
	return q_host_get(r->work.db, &c->host, .id = host) > 0 ? 0 : -1;
}

static void
act_as_host(struct request *r, const struct uuid *host)
{
	r->work.actor.type = "host";
	r->work.actor.id = id_text(r, "host-", host);
}

static int
host_register(struct request *r)
{
	const struct host_register *in = r->in;
	struct host_credentials c;
	struct q_host_ref *ref;
	int n = q_host_token_use(r->work.db, &ref, .hash = hash_of(r, in->token));

	if (n <= 0)
		return n < 0 ? -1
			     : fail(r, E_UNAUTHORIZED,
				   "the registration token is unknown, expired or already used");
	act_as_host(r, ref->id);
	if (q_host_refresh_revoke_all(r->work.db, .host = ref->id) < 0)
		return -1;
	if (q_host_register(r->work.db, .id = ref->id, .name = in->name, .address = in->address,
		.arch = in->arch, .accel = in->accel, .cpu_cores = in->cpu_cores,
		.memory_mb = in->memory_mb, .disk_gb = in->disk_gb,
		.agent_version = in->agent_version) < 0)
		return -1;
	if (issue_credentials(r, ref->id, &c) < 0)
		return -1;
	if (audit_add(&r->work, AUDIT_HOST_REGISTER,
		&(struct audit){ .resource_id = id_text(r, "host-", ref->id),
		    .data = "{\"type\":\"regular\"}" }) < 0)
		return -1;
	return reply_row(r, 1, &c);
}

/* A revoked token came back: somebody copied it. All of the host's credentials end. */
static int
reused(struct request *r, const struct q_host_refresh *t)
{
	if (!t->revoked)
		return fail(r, E_UNAUTHORIZED, "the refresh token has expired");
	act_as_host(r, t->host_id);
	if (q_host_refresh_revoke_all(r->work.db, .host = t->host_id) < 0 ||
	    audit_add(&r->work, AUDIT_HOST_REUSE,
		&(struct audit){ .resource_id = id_text(r, "host-", t->host_id) }) < 0 ||
	    db_commit(r->work.db) < 0)
		return -1;
	return fail(
	    r, E_UNAUTHORIZED, "the refresh token was replaced before; register the host again");
}

static int
host_refresh(struct request *r)
{
	const struct host_refresh *in = r->in;
	struct q_host_refresh *t;
	struct host_credentials c;
	int n = q_host_refresh_get(r->work.db, &t, .hash = hash_of(r, in->refresh_token));

	if (n <= 0)
		return n < 0 ? -1 : fail(r, E_UNAUTHORIZED, "the refresh token is not known");
	if (!t->live)
		return reused(r, t);
	/* that this one is used proves that it arrived: those before it end (issue, then revoke) */
	if (q_host_refresh_used(r->work.db, .host = t->host_id, .id = t->id) < 0 ||
	    issue_credentials(r, t->host_id, &c) < 0)
		return -1;
	return reply_row(r, 1, &c);
}

static int
is_own(struct request *r, const struct uuid *id)
{
	return uuid_equal(r->who.host, id) ? 0
					   : fail(r, E_FORBIDDEN, "the token is another host's");
}

static int
host_heartbeat(struct request *r)
{
	const struct host_heartbeat *in = r->in;
	struct q_host_beat *b;
	int n;

	if (is_own(r, in->id) < 0)
		return -1;
	n = q_host_heartbeat(r->work.db, &b, .id = in->id, .seq = in->seq, .boot_id = in->boot_id,
	    .agent_version = in->agent_version, .free_memory_mb = in->free_memory_mb,
	    .free_disk_mb = in->free_disk_mb, .conditions = in->conditions,
	    .inventory_hash = in->inventory_hash);
	if (n > 0 && strcmp(b->was, "unreachable") == 0 &&
	    audit_add(&r->work, AUDIT_HOST_MARKED_UP,
		&(struct audit){ .resource_id = id_text(r, "host-", in->id) }) < 0)
		return -1;
	return reply_done(r, n);
}

static int
host_reports(struct request *r)
{
	const struct host_reports *in = r->in;
	const struct change *c = in->changes.item;
	struct acked a = { in->sequence };
	size_t i;

	if (is_own(r, in->id) < 0)
		return -1;
	for (i = 0; i < in->changes.n; i++)
		if (capsule_reported(
			&r->work, c[i].id, c[i].epoch, c[i].state, c[i].code, c[i].message) < 0)
			return -1;
	if (q_host_reported(r->work.db, .id = in->id, .seq = in->sequence) < 0)
		return -1;
	return reply_row(r, 1, &a);
}
