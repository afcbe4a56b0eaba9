/*
 * hosts.c - machines that run the host agent: registration, heartbeat, reports (spec 02 §5.1-5.3).
 *
 * Queries: sql/queries/hosts.sql.  Tests: tests/vm/hosts_test.py.
 */
#include "api.h"
#include "audit.h"
#include "ca.h"
#include "host_shape.h"
#include "capsule_op.h"
#include "cleanup.h"
#include "metrics.q.h"

#include <inttypes.h>
#include <string.h>
#include <time.h>

static handler host_create, host_list, host_get, host_token, host_register, host_refresh,
    host_heartbeat, host_reports;

struct by_host {
	const struct uuid *id;
};
static const struct field by_host_fields[] = { PATH_ID(by_host, "host-"), { 0 } };

struct host_page {
	int32_t limit;
	const char *cursor, *status, *type, *tag;
	const struct uuid *team;
};
static const struct field host_page_fields[] = {
	FIELD(host_page, status, "status", .flags = IN_QUERY,
	    .one_of = "pending|online|unreachable|draining"),
	FIELD(host_page, type, "type", .flags = IN_QUERY, .one_of = "regular|byoc"),
	FIELD(host_page, team, "team", .flags = IN_QUERY, .prefix = "team-"),
	FIELD(host_page, tag, "tag", .flags = IN_QUERY, .format = "host-tag"),
	PAGE_FIELDS(host_page),
	{ 0 },
};

struct host_create {
	const char *name, *type, *provider, *availability_zone;
	const struct uuid *team_id;
	const char *const *tags;
};
static const struct field host_create_fields[] = {
	FIELD(host_create, name, "name", .text = "", .max = 64),
	FIELD(host_create, type, "type", .text = "regular", .one_of = "regular|byoc"),
	FIELD(host_create, team_id, "team_id", .prefix = "team-", .doc = "Whose, of type byoc."),
	FIELD(host_create, provider, "provider", .text = "", .max = 64),
	FIELD(host_create, availability_zone, "availability_zone", .text = "", .max = 64),
	FIELD(host_create, tags, "tags", .max = 32, .format = "host-tag"),
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
	const char *token, *name, *address, *arch, *accel, *agent_version, *csr;
	const char *const *cpu_classes;
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
	FIELD(host_register, cpu_classes, "cpu_classes", .max = 64,
	    .doc = "Kinds of memory images it can load."),
	FIELD(host_register, csr, "csr", .max = 8192,
	    .doc = "Request for a certificate, in PEM; needed with an address that begins with "
		   "https:"),
	{ 0 },
};

struct host_credentials {
	struct q_host *host;
	const char *token, *refresh_token, *cert_pem, *ca_cert_pem;
	const struct uuid *cluster_id;
};
static const struct field host_credentials_fields[] = {
	SUB(host_credentials, host, "host", host_fields, q_host, .flags = NEEDED),
	FIELD(host_credentials, token, "token", .flags = NEEDED),
	FIELD(host_credentials, refresh_token, "refresh_token", .flags = NEEDED),
	FIELD(host_credentials, cert_pem, "cert_pem", .doc = "For the key of the request."),
	FIELD(host_credentials, ca_cert_pem, "ca_cert_pem", .doc = "Whom the host believes."),
	FIELD(host_credentials, cluster_id, "cluster_id", .flags = NEEDED, .prefix = "cluster-",
	    .doc = "Which database knows the host."),
	{ 0 },
};

struct host_refresh {
	const char *refresh_token, *csr;
};
static const struct field host_refresh_fields[] = {
	FIELD(host_refresh, refresh_token, "refresh_token", .flags = NEEDED | WRITE_ONLY, .min = 1,
	    .max = 256),
	FIELD(host_refresh, csr, "csr", .max = 8192, .doc = "For a new certificate."),
	{ 0 },
};

struct host_heartbeat {
	const struct uuid *id;
	int64_t seq, free_disk_mb;
	int32_t free_memory_mb;
	const char *boot_id, *agent_version, *inventory_hash, *conditions;
	const char *const *holds;
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
	FIELD(host_heartbeat, holds, "holds", .max = 1000,
	    .doc = "Names of templates there; warm:NAME where its memory is ready."),
	{ 0 },
};

struct change {
	const struct uuid *id;
	int64_t epoch;
	const char *state, *code, *message, *residency, *by, *memory, *disk, *cpu_class;
	const char *memory_parent, *disk_parent;
	int64_t bytes, reboots;
};
static const struct field change_fields[] = {
	FIELD(change, id, "id", .flags = NEEDED, .prefix = "cl-"),
	FIELD(change, epoch, "epoch", .flags = NEEDED),
	FIELD(change, state, "state", .flags = NEEDED, .max = 32),
	FIELD(change, code, "code", .text = "vmm_exit", .max = 64),
	FIELD(change, message, "message", .text = "the virtual machine ended", .max = 200),
	FIELD(change, residency, "residency", .one_of = "ram|disk", .doc = "Of a paused one."),
	FIELD(change, by, "paused_by", .max = 32, .doc = "Why it sleeps: idle, host, user."),
	FIELD(change, memory, "memory", .max = 64, .doc = "Artifacts of a hibernated one."),
	FIELD(change, disk, "disk", .max = 64),
	FIELD(change, memory_parent, "memory_parent", .max = 64, .doc = "What the memory lies on."),
	FIELD(change, disk_parent, "disk_parent", .max = 64),
	FIELD(change, cpu_class, "cpu_class", .max = 200),
	FIELD(change, bytes, "bytes", .max = INT64_MAX),
	FIELD(change, reboots, "reboots", .max = INT32_MAX, .doc = "Of its guest."),
	{ 0 },
};

struct host_reports {
	const struct uuid *id;
	int64_t sequence;
	struct list changes;
	const char *metrics;
};
static const struct field host_reports_fields[] = {
	PATH_ID(host_reports, "host-"),
	FIELD(host_reports, sequence, "sequence", .flags = NEEDED),
	SUB(host_reports, changes, "changes", change_fields, change, .flags = NEEDED | LIST,
	    .min = 0, .max = 500),
	FIELD(host_reports, metrics, "metrics", .text = "[]", .format = "json",
	    .doc = "What capsules used: chunks of tiers (sql/queries/metrics.sql)."),
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
	{ "POST", "/v1/hosts", POOL_API, HOSTS_ADMIN, host_create, "Announce a host; answers its registration token", CREATES | MAY_BE_EMPTY, 201, IN(host_create), OUT(host_made) },
	{ "GET", "/v1/hosts", POOL_API, HOSTS_OPERATE, host_list, "All hosts", LISTS, 200, IN(host_page), OUT(host) },
	{ "GET", "/v1/hosts/{id}", POOL_API, HOSTS_OPERATE, host_get, "One host", 0, 200, IN(by_host), OUT(host) },
	{ "POST", "/v1/hosts/{id}/token", POOL_API, HOSTS_ADMIN, host_token, "A new registration token; earlier ones die", NO_BODY, 201, IN(by_host), OUT(host_made) },
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
	return q_host_get(r->work.db, &made->host, HOST_PERCENTS(r), .id = host);
}

/* A team that takes hosts of its own (spec 02 §5.1). */
static int
check_team(struct request *r, const struct host_create *in)
{
	struct q_host_team *t;
	int n;

	if (r->own_only && strcmp(in->type, "byoc") != 0)
		return fail(r, E_FORBIDDEN,
		    "hosts for everybody are announced by administrators of the platform");
	if (r->own_only && in->team_id && !uuid_equal(in->team_id, r->who.team))
		return fail(r, E_NOT_FOUND, "no such team");
	if (strcmp(in->type, "byoc") != 0)
		return in->team_id ? fail(r, E_BAD_INPUT, "\"team_id\" is for type byoc") : 0;
	if (!in->team_id)
		return fail(r, E_BAD_INPUT, "\"team_id\" is missing");
	n = q_host_team_get(r->work.db, &t, .id = in->team_id);
	if (n < 0)
		return -1;
	if (n == 0)
		return fail(r, E_NOT_FOUND, "no such team");
	return t->is_byoc ? 0 : fail(r, E_FORBIDDEN, "the team may not bring hosts of its own");
}

static int
host_create(struct request *r)
{
	const struct host_create *in = r->in;
	struct uuid id = uuid_new();
	struct host_made made;
	size_t i;

	if (check_team(r, in) < 0 ||
	    q_host_insert(r->work.db, .id = &id, .name = in->name, .team = in->team_id,
		.provider = in->provider, .zone = in->availability_zone, .user = r->who.user) < 0)
		return -1;
	for (i = 0; in->tags && in->tags[i]; i++)
		if (q_host_tag_add(r->work.db, .host = &id, .tag = in->tags[i]) < 0)
			return -1;
	if (issue_registration(r, &id, &made) < 0)
		return -1;
	if (audit_add(&r->work, AUDIT_HOST_CREATE,
		&(struct audit){ .team = in->team_id,
		    .resource_id = id_text(r, "host-", &id),
		    .metadata = talloc_asprintf(r, "{\"type\":\"%s\"}", in->type) }) < 0)
		return -1;
	return reply_row(r, 1, &made);
}

static int
host_token(struct request *r)
{
	const struct by_host *in = r->in;
	struct host_made made;
	struct q_host *h;
	int n = q_host_get(r->work.db, &h, HOST_PERCENTS(r), .id = in->id);

	if (n <= 0)
		return reply_done(r, n);
	if (issue_registration(r, in->id, &made) < 0)
		return -1;
	if (audit_add(&r->work, AUDIT_HOST_TOKEN,
		&(struct audit){ .team = h->team_id, .resource_id = id_text(r, "host-", in->id) }) <
	    0)
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
	n = q_host_list(r->work.db, &rows, HOST_PERCENTS(r), .status = in->status, .type = in->type,
	    .team = in->team, .tag = in->tag, .before = p.before, .before_id = p.before_id,
	    .limit = p.limit + 1);
	return page_reply(r, n, rows, sizeof *rows, &p, offsetof(struct q_host, created_at),
	    offsetof(struct q_host, id));
}

static int
host_get(struct request *r)
{
	const struct by_host *in = r->in;
	struct q_host *h;
	int n = q_host_get(r->work.db, &h, HOST_PERCENTS(r), .id = in->id);

	return reply_row(r, n, h);
}

/* A new pair of tokens; the refresh token is stored as a hash. */
static int
issue_credentials(struct request *r, const struct uuid *host, struct host_credentials *c)
{
	const struct conf *conf = r->app->conf;
	struct token_claims claims = { .sub = *host, .iat = time(NULL) };
	struct uuid id = uuid_new();
	struct q_cluster *cluster;

	claims.exp = claims.iat + conf->host_token_ttl;
	c->token =
	    token_sign(r, r->app->keys, TOKEN_HOST, conf->http_public_url, &claims, &r->work.err);
	c->refresh_token = random_token(r);
	if (!c->token ||
	    q_host_refresh_insert(r->work.db, .id = &id, .host = host,
		.hash = hash_of(r, c->refresh_token), .ttl = conf->host_refresh_ttl) < 0)
		return -1;
	if (q_cluster_id(r->work.db, &cluster) <= 0 ||
	    q_host_get(r->work.db, &c->host, HOST_PERCENTS(r), .id = host) <= 0)
		return -1;
	c->cluster_id = cluster->id;
	return 0;
}

/* A certificate for a host that is reached from other machines. */
static int
certify(struct request *r, const struct uuid *host, const char *address, const char *csr,
    struct host_credentials *c, struct ca_cert *cert)
{
	if (ca_sign_host(r, r->app->keys, csr, host, address, r->app->conf->host_cert_ttl, cert,
		&r->work.err) < 0)
		return -1;
	c->cert_pem = cert->pem;
	c->ca_cert_pem = ca_pem(r, r->app->keys);
	return 0;
}

static void
act_as_host(struct request *r, const struct uuid *host)
{
	r->work.actor.type = "host";
	r->work.actor.id = id_text(r, "host-", host);
}

static const char *
audit_address(struct request *r, const char *address)
{
	struct buf b = BUF(r);

	buf_str(&b, "{\"address\":");
	buf_json(&b, address);
	buf_chr(&b, '}');
	return b.data;
}

static int
host_register(struct request *r)
{
	static const char *const none[] = { NULL };
	const struct host_register *in = r->in;
	struct host_credentials c = { 0 };
	struct ca_cert cert = { .expires_at = NULL_INT };
	struct q_host_ref *ref;
	int n = q_host_token_use(r->work.db, &ref, .hash = hash_of(r, in->token));

	if (n <= 0)
		return n < 0 ? -1
			     : fail(r, E_UNAUTHORIZED,
				   "the registration token is unknown, expired or already used");
	act_as_host(r, ref->id);
	if (strncmp(in->address, "https:", 6) == 0 && !in->csr)
		return fail(r, E_BAD_INPUT, "\"csr\" is missing");
	if (strncmp(in->address, "unix:/", 6) != 0 && !in->csr)
		return fail(
		    r, E_BAD_INPUT, "\"address\" is neither https://NAME:PORT nor unix:/PATH");
	if (in->csr && certify(r, ref->id, in->address, in->csr, &c, &cert) < 0)
		return -1;
	if (q_host_refresh_revoke_all(r->work.db, .host = ref->id) < 0)
		return -1;
	if (q_host_register(r->work.db, .id = ref->id, .name = in->name, .address = in->address,
		.arch = in->arch, .accel = in->accel, .cpu_cores = in->cpu_cores,
		.memory_mb = in->memory_mb, .disk_gb = in->disk_gb,
		.cpu_classes = in->cpu_classes ? in->cpu_classes : none,
		.fingerprint = in->csr ? cert.fingerprint : NULL,
		.cert_expires_at = cert.expires_at, .agent_version = in->agent_version) < 0) {
		if (strcmp(r->work.db->constraint, "hosts_address") != 0)
			return -1;
		r->work.err = (struct err){ 0 };
		return fail(r, E_CONFLICT, "another host is registered at %s", in->address);
	}
	if (issue_credentials(r, ref->id, &c) < 0)
		return -1;
	if (audit_add(&r->work, AUDIT_HOST_REGISTER,
		&(struct audit){ .team = c.host->team_id,
		    .resource_id = id_text(r, "host-", ref->id),
		    .metadata = audit_address(r, in->address),
		    .data = talloc_asprintf(r, "{\"type\":\"%s\"}", c.host->type) }) < 0)
		return -1;
	return reply_row(r, 1, &c);
}

/* A revoked token came back: somebody copied it. All of the host's credentials end. */
static int
reused(struct request *r, const struct q_host_refresh *t)
{
	int n;

	if (!t->revoked)
		return fail(r, E_UNAUTHORIZED, "the refresh token has expired");
	act_as_host(r, t->host_id);
	n = q_host_refresh_revoke_all(r->work.db, .host = t->host_id);
	/* the host itself goes on asking with what was revoked: that is not told again */
	if (n > 0)
		n = audit_add(&r->work, AUDIT_HOST_REUSE,
		    &(struct audit){
			.team = t->team_id, .resource_id = id_text(r, "host-", t->host_id) });
	if (n < 0 || db_commit(r->work.db) < 0)
		return -1;
	return fail(
	    r, E_UNAUTHORIZED, "the refresh token was replaced before; register the host again");
}

static int
host_refresh(struct request *r)
{
	const struct host_refresh *in = r->in;
	struct q_host_refresh *t;
	struct host_credentials c = { 0 };
	struct ca_cert cert;
	int n = q_host_refresh_get(r->work.db, &t, .hash = hash_of(r, in->refresh_token));

	if (n <= 0)
		return n < 0 ? -1 : fail(r, E_UNAUTHORIZED, "the refresh token is not known");
	if (!t->live)
		return reused(r, t);
	/* that this one is used proves that it arrived: those before it end (issue, then revoke) */
	if (q_host_refresh_used(r->work.db, .host = t->host_id, .id = t->id) < 0 ||
	    q_host_refresh_touch(r->work.db, .id = t->id) < 0)
		return -1;
	if (in->csr &&
	    (certify(r, t->host_id, t->address, in->csr, &c, &cert) < 0 ||
		q_host_cert_renewed(r->work.db, .id = t->host_id, .fingerprint = cert.fingerprint,
		    .cert_expires_at = cert.expires_at) < 0))
		return -1;
	if (issue_credentials(r, t->host_id, &c) < 0)
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
	static const char *const none[] = { NULL };
	const struct host_heartbeat *in = r->in;
	struct q_host_beat *b;
	int n;

	if (is_own(r, in->id) < 0)
		return -1;
	n = q_host_heartbeat(r->work.db, &b, .id = in->id, .seq = in->seq, .boot_id = in->boot_id,
	    .agent_version = in->agent_version, .free_memory_mb = in->free_memory_mb,
	    .free_disk_mb = in->free_disk_mb, .conditions = in->conditions,
	    .holds = in->holds ? in->holds : none, .inventory_hash = in->inventory_hash);
	if (n > 0 && strcmp(b->was, "unreachable") == 0 &&
	    audit_add(&r->work, AUDIT_HOST_MARKED_UP,
		&(struct audit){ .team = b->team_id, .resource_id = id_text(r, "host-", in->id) }) <
		0)
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
	for (i = 0; i < in->changes.n; i++) {
		struct capsule_report said = { .id = c[i].id,
			.epoch = c[i].epoch,
			.state = c[i].state,
			.code = c[i].code,
			.message = c[i].message,
			.residency = c[i].residency,
			.by = c[i].by,
			.memory = c[i].memory,
			.disk = c[i].disk,
			.memory_parent = c[i].memory_parent,
			.disk_parent = c[i].disk_parent,
			.cpu_class = c[i].cpu_class,
			.bytes = c[i].bytes,
			.reboots = c[i].reboots,
			.idle_s = -1 };

		if (capsule_reported(&r->work, &said, NULL_INT) < 0)
			return -1;
	}
	if (strlen(in->metrics) > 2 &&
	    q_metrics_store(r->work.db, .host = in->id, .rows = in->metrics) < 0)
		return -1;
	if (q_host_reported(r->work.db, .id = in->id, .seq = in->sequence) < 0)
		return -1;
	return reply_row(r, 1, &a);
}
