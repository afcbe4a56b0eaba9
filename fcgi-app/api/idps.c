/*
 * idps.c - identity providers, for administrators (spec 01 §2.4): OpenID Connect and GitHub.
 *
 * Those of hutch.conf are made by hutchctl migrate and are read-only here. A secret goes in and
 * never comes out. Queries: sql/queries/idps.sql.  Tests: tests/http/oauth.py.
 */
#include "idps.h"
#include "audit.h"
#include "json.h"

#include <string.h>
#include <talloc.h>

static handler idp_list, idp_show, idp_make, idp_change, idp_remove, idp_test;

struct idp_out {
	const struct uuid *id;
	const char *slug, *type, *name, *managed_by, *config, *login_url, *callback_url;
	const char *const *domains;
	bool enabled, link_by_email, jit, trust_mfa, has_secret;
	int64_t created_at;
};
static const struct field idp_out_fields[] = {
	FIELD(idp_out, id, "id", .flags = NEEDED, .prefix = "idp-"),
	FIELD(idp_out, slug, "slug", .flags = NEEDED),
	FIELD(idp_out, type, "type", .flags = NEEDED, .one_of = "github|oidc"),
	FIELD(idp_out, name, "name", .flags = NEEDED),
	FIELD(idp_out, enabled, "enabled", .flags = NEEDED),
	FIELD(idp_out, managed_by, "managed_by", .flags = NEEDED, .one_of = "config|api"),
	FIELD(idp_out, config, "config", .flags = NEEDED, .format = "json"),
	FIELD(idp_out, domains, "domains", .flags = NEEDED),
	FIELD(idp_out, link_by_email, "link_by_email", .flags = NEEDED),
	FIELD(idp_out, jit, "jit", .flags = NEEDED),
	FIELD(idp_out, trust_mfa, "trust_mfa", .flags = NEEDED),
	FIELD(idp_out, login_url, "login_url", .flags = NEEDED),
	FIELD(idp_out, callback_url, "callback_url", .flags = NEEDED),
	FIELD(idp_out, has_secret, "has_secret", .flags = NEEDED),
	FIELD(idp_out, created_at, "created_at", .flags = NEEDED, .format = "date-time"),
	{ 0 },
};

/* What a new provider and a change have in common. */
#define IDP_FIELDS(st)                                                                             \
	FIELD(st, secret, "secret", .flags = WRITE_ONLY, .max = 1024, .doc = "Our secret there"),  \
	    FIELD(st, config, "config", .format = "json",                                          \
		.doc = "oidc: issuer, client_id, alg (RS256), scope; github: client_id, web_url, " \
		       "api_url, scope"),                                                          \
	    FIELD(st, domains, "domains", .max = 64,                                               \
		.doc = "Addresses of these domains may be linked, or signed up, by it")

struct idp_new {
	const char *slug, *type, *name, *secret, *config;
	const char *const *domains;
	bool enabled, link_by_email, jit, trust_mfa;
};
static const struct field idp_new_fields[] = {
	FIELD(idp_new, slug, "slug", .flags = NEEDED, .min = 1, .max = 32,
	    .doc = "a-z, 0-9 and -: names it in addresses"),
	FIELD(idp_new, type, "type", .flags = NEEDED, .one_of = "github|oidc"),
	FIELD(idp_new, name, "name", .flags = NEEDED, .min = 1, .max = 100),
	FIELD(idp_new, enabled, "enabled", .dflt = true),
	FIELD(idp_new, link_by_email, "link_by_email",
	    .doc = "Link existing accounts by an address that the provider vouches for"),
	FIELD(idp_new, jit, "jit", .dflt = true,
	    .doc = "Make accounts at sign-in for addresses of its domains"),
	FIELD(idp_new, trust_mfa, "trust_mfa", .doc = "Its second factor counts as ours"),
	IDP_FIELDS(idp_new),
	{ 0 },
};

struct idp_change {
	const struct uuid *id;
	const char *name, *secret, *config, *enabled, *link_by_email, *jit, *trust_mfa;
	const char *const *domains;
};
static const struct field idp_change_fields[] = {
	PATH_ID(idp_change, "idp-"),
	FIELD(idp_change, name, "name", .min = 1, .max = 100),
	FIELD(idp_change, enabled, "enabled", .format = "json"),
	FIELD(idp_change, link_by_email, "link_by_email", .format = "json"),
	FIELD(idp_change, jit, "jit", .format = "json"),
	FIELD(idp_change, trust_mfa, "trust_mfa", .format = "json"),
	IDP_FIELDS(idp_change),
	{ 0 },
};

struct idp_id {
	const struct uuid *id;
};
static const struct field idp_id_fields[] = { PATH_ID(idp_id, "idp-"), { 0 } };

struct idp_remove {
	const struct uuid *id;
	bool force;
};
static const struct field idp_remove_fields[] = {
	PATH_ID(idp_remove, "idp-"),
	FIELD(idp_remove, force, "force", .flags = IN_QUERY,
	    .doc = "Also when people have no other way in"),
	{ 0 },
};

struct idp_step {
	const char *name, *detail;
	bool ok;
};
static const struct field idp_step_fields[] = {
	FIELD(idp_step, name, "name", .flags = NEEDED),
	FIELD(idp_step, ok, "ok", .flags = NEEDED),
	FIELD(idp_step, detail, "detail", .flags = NEEDED),
	{ 0 },
};
struct idp_tested {
	bool ok;
	struct list steps;
};
static const struct field idp_tested_fields[] = {
	FIELD(idp_tested, ok, "ok", .flags = NEEDED),
	SUB(idp_tested, steps, "steps", idp_step_fields, idp_step, .flags = NEEDED | LIST),
	{ 0 },
};

/* clang-format off */
const struct route idp_routes[] = {
	{ "GET", "/v1/admin/idps", POOL_API, PLATFORM_READ, idp_list, "List identity providers", LISTS, 200, OUT(idp_out) },
	{ "POST", "/v1/admin/idps", POOL_API, PLATFORM_ADMIN, idp_make, "Add an identity provider", CREATES | PROOF, 201, IN(idp_new),
	    OUT(idp_out) },
	{ "GET", "/v1/admin/idps/{id}", POOL_API, PLATFORM_READ, idp_show, "One identity provider", .status = 200, IN(idp_id),
	    OUT(idp_out) },
	{ "PATCH", "/v1/admin/idps/{id}", POOL_API, PLATFORM_ADMIN, idp_change, "Change an identity provider", PROOF, 200, IN(idp_change),
	    OUT(idp_out) },
	{ "DELETE", "/v1/admin/idps/{id}", POOL_API, PLATFORM_ADMIN, idp_remove, "Remove an identity provider", PROOF, 204, IN(idp_remove) },
	{ "POST", "/v1/admin/idps/{id}/test", POOL_OPS, PLATFORM_ADMIN, idp_test, "Try whether an identity provider answers", NO_BODY,
	    200, IN(idp_id), OUT(idp_tested) },
	{ 0 },
};
/* clang-format on */

const char *
idp_secret_place(void *mem, const struct uuid *id)
{
	return talloc_asprintf(mem, "identity_providers|secret_enc|%s", id_text(mem, "", id));
}

static const char *
callback_url(struct request *r, const char *slug)
{
	return talloc_asprintf(r, "%s/auth/oauth/%s/callback", r->app->conf->http_public_url, slug);
}

int
idp_client(struct request *r, const struct q_idp *p, struct oidc_client *ret)
{
	struct json_object *config =
	    json_parse(r, p->config, strlen(p->config), NULL, &r->work.err);
	struct bytes secret = { (const uint8_t *)"", 0 };

	*ret = (struct oidc_client){ .conf = r->app->conf, .redirect = callback_url(r, p->slug) };
	if (!config || oidc_client_read(r, p->type, config, ret, &r->work.err) < 0)
		return -1;
	if (p->secret_enc.p)
		secret = envelope_open(r, r->app->keys->key[KEY_IDP], idp_secret_place(r, p->id),
		    p->secret_enc, &r->work.err);
	ret->secret = (const char *)secret.p;
	return secret.p ? 0 : -1;
}

static struct idp_out
shown(struct request *r, const struct q_idp *p)
{
	return (struct idp_out){ .id = p->id,
		.slug = p->slug,
		.type = p->type,
		.name = p->name,
		.enabled = p->enabled,
		.managed_by = p->managed_by,
		.config = p->config,
		.domains = p->domains,
		.link_by_email = p->link_by_email,
		.jit = p->jit,
		.trust_mfa = p->trust_mfa,
		.login_url =
		    talloc_asprintf(r, "%s/auth/oauth/%s", r->app->conf->http_public_url, p->slug),
		.callback_url = callback_url(r, p->slug),
		.has_secret = p->secret_enc.p,
		.created_at = p->created_at };
}

static int
idp_list(struct request *r)
{
	struct idp_out *out;
	struct q_idp *rows;
	int i, n = q_idp_list(r->work.db, &rows);

	if (n < 0)
		return -1;
	out = talloc_array(r, struct idp_out, n);
	for (i = 0; i < n; i++)
		out[i] = shown(r, &rows[i]);
	return reply_rows(r, n, out, sizeof *out);
}

static int
reply_idp(struct request *r, const struct uuid *id)
{
	struct idp_out out;
	struct q_idp *p;
	int n = q_idp_get(r->work.db, &p, .id = id);

	if (n > 0)
		out = shown(r, p);
	return reply_row(r, n, &out);
}

static int
idp_show(struct request *r)
{
	const struct idp_id *in = r->in;

	return reply_idp(r, in->id);
}

static struct bytes
seal(struct request *r, const struct uuid *id, const char *secret)
{
	if (!secret)
		return (struct bytes){ 0 };
	return envelope_seal(
	    r, r->app->keys->key[KEY_IDP], idp_secret_place(r, id), secret, strlen(secret));
}

static int
config_ok(struct request *r, const char *type, const char *config)
{
	struct json_object *doc = json_parse(r, config, strlen(config), NULL, &r->work.err);
	struct oidc_client c = { 0 };

	if (!json_object_is_type(doc, json_type_object))
		return fail(r, E_BAD_INPUT, "\"config\" is not an object");
	return oidc_client_read(r, type, doc, &c, &r->work.err);
}

static int
note(struct request *r, enum audit_kind kind, const struct uuid *id, const char *metadata)
{
	return audit_add(&r->work, kind,
	    &(struct audit){
		.resource_id = id_text(r, "idp-", id), .metadata = metadata, .data = "{}" });
}

static int
idp_make(struct request *r)
{
	const struct idp_new *in = r->in;
	static const char *const none[] = { NULL };
	struct uuid id = uuid_new();

	if (!in->config)
		return fail(r, E_BAD_INPUT, "\"config\" is missing");
	if (!(*in->slug >= 'a' && *in->slug <= 'z') ||
	    in->slug[strspn(in->slug, "abcdefghijklmnopqrstuvwxyz0123456789-")])
		return fail(
		    r, E_BAD_INPUT, "\"slug\" must begin with a-z and have only a-z, 0-9 and -");
	if (config_ok(r, in->type, in->config) < 0)
		return -1;
	if (q_idp_insert(r->work.db, .id = &id, .slug = in->slug, .type = in->type,
		.name = in->name, .enabled = in->enabled, .managed_by = "api", .config = in->config,
		.secret = seal(r, &id, in->secret), .domains = in->domains ? in->domains : none,
		.link_by_email = in->link_by_email, .jit = in->jit, .trust_mfa = in->trust_mfa,
		.user = r->who.user) < 0)
		return r->work.err.code == E_CONFLICT
		    ? (r->work.err = (struct err){ 0 },
			  fail(r, E_CONFLICT, "there is a provider \"%s\" already", in->slug))
		    : -1;
	if (note(r, AUDIT_IDP_CREATE, &id,
		talloc_asprintf(r, "{\"slug\":\"%s\",\"type\":\"%s\"}", in->slug, in->type)) < 0)
		return -1;
	return reply_idp(r, &id);
}

/* A boolean that may be absent: given as JSON text. */
static int
flag(struct request *r, const char *name, const char *given, bool *value)
{
	if (!given)
		return 0;
	if (strcmp(given, "true") != 0 && strcmp(given, "false") != 0)
		return fail(r, E_BAD_INPUT, "\"%s\" is not true or false", name);
	*value = *given == 't';
	return 0;
}

static const char *
changed_names(struct request *r, const struct idp_change *in)
{
	const struct field *f;
	struct buf b = BUF(r);
	const char *const *text;

	buf_str(&b, "{\"changed\":[");
	for (f = idp_change_fields + 1; f->name; f++) {
		text = (const char *const *)((const char *)in + f->off);
		if (*text)
			buf_fmt(&b, "%s\"%s\"", b.data[b.len - 1] == '[' ? "" : ",", f->name);
	}
	buf_str(&b, "]}");
	return b.data;
}

static int
idp_change(struct request *r)
{
	const struct idp_change *in = r->in;
	struct q_idp *p;
	int n = q_idp_get(r->work.db, &p, .id = in->id);

	if (n <= 0)
		return reply_done(r, n);
	if (strcmp(p->managed_by, "config") == 0)
		return fail(r, E_BAD_STATE,
		    "this provider stands in hutch.conf: change it there, "
		    "then run hutchctl migrate");
	if (in->config && config_ok(r, p->type, in->config) < 0)
		return -1;
	if (flag(r, "enabled", in->enabled, &p->enabled) < 0 ||
	    flag(r, "link_by_email", in->link_by_email, &p->link_by_email) < 0 ||
	    flag(r, "jit", in->jit, &p->jit) < 0 ||
	    flag(r, "trust_mfa", in->trust_mfa, &p->trust_mfa) < 0)
		return -1;
	if (q_idp_update(r->work.db, .id = in->id, .name = in->name ? in->name : p->name,
		.enabled = p->enabled, .config = in->config ? in->config : p->config,
		.secret = in->secret ? seal(r, in->id, in->secret) : p->secret_enc,
		.domains = in->domains ? in->domains : p->domains,
		.link_by_email = p->link_by_email, .jit = p->jit, .trust_mfa = p->trust_mfa) < 0)
		return -1;
	if (note(r, AUDIT_IDP_UPDATE, in->id, changed_names(r, in)) < 0)
		return -1;
	return reply_idp(r, in->id);
}

static int
idp_remove(struct request *r)
{
	const struct idp_remove *in = r->in;
	struct q_stranded *s;
	struct q_idp *p;
	int n = q_idp_get(r->work.db, &p, .id = in->id);

	if (n <= 0)
		return reply_done(r, n);
	if (strcmp(p->managed_by, "config") == 0)
		return fail(r, E_BAD_STATE,
		    "this provider stands in hutch.conf: remove it there, "
		    "then run hutchctl migrate");
	if (q_idp_only_way(r->work.db, &s, .id = in->id) < 0)
		return -1;
	if (s->last_admin)
		return fail(r, E_LAST_ADMIN, "no administrator could sign in any more");
	if (s->users > 0 && !in->force)
		return fail(r, E_IN_USE,
		    "%lld people have no other way to sign in; ?force=true "
		    "removes it all the same",
		    (long long)s->users);
	if (q_idp_delete(r->work.db, .id = in->id) < 0 ||
	    note(r, AUDIT_IDP_DELETE, in->id,
		talloc_asprintf(r, "{\"slug\":\"%s\",\"type\":\"%s\"}", p->slug, p->type)) < 0)
		return -1;
	return reply_done(r, 1);
}

static int
idp_test(struct request *r)
{
	static const struct {
		const char *name;
		int (*run)(void *, const struct oidc_client *, const char **, struct err *);
	} steps[] = { { "discovery", oidc_discovery_test }, { "keys", oidc_keys_test } };
	const struct idp_id *in = r->in;
	struct idp_step out[2];
	struct idp_tested ret = { .ok = true, .steps = { out, 2 } };
	struct oidc_client c;
	struct q_idp *p;
	size_t i;
	int n = q_idp_get(r->work.db, &p, .id = in->id);

	if (n <= 0)
		return reply_done(r, n);
	if (idp_client(r, p, &c) < 0)
		return -1;
	for (i = 0; i < 2; i++) {
		struct err e = { 0 };

		out[i] = (struct idp_step){ .name = steps[i].name, .detail = "" };
		out[i].ok = steps[i].run(r, &c, &out[i].detail, &e) == 0;
		if (!out[i].ok) {
			out[i].detail = talloc_strdup(r, e.text);
			ret.ok = false;
		}
	}
	return reply_row(r, 1, &ret);
}
