/* principal.c - see principal.h. */
#include "principal.h"
#include "auth.q.h"
#include "cleanup.h"
#include "streams.q.h"

#include <string.h>

const struct perm_kind perm_kinds[PERM__MAX] = {
	[ANYONE] = { "anyone", NULL, NO_KEY, "No credential" },
	[SIGNED_IN] = { "signed in", NULL, NO_KEY, "A signed-in user" },
	[SIGNED_IN_OR_KEY] = { "signed in or key", NULL, KEY_SCOPE,
	    "A signed-in user or an API key" },
	[PLATFORM_READ] = { "platform operator", NULL, NO_KEY,
	    "A platform operator or administrator" },
	[PLATFORM_ADMIN] = { "platform admin", NULL, NO_KEY, "A platform administrator" },
	[HOSTS_OPERATE] = { "platform operator or hosts.manage", NULL, NO_KEY,
	    "A platform operator; owners and administrators of a team: its own hosts" },
	[HOSTS_ADMIN] = { "platform admin or hosts.manage", NULL, NO_KEY,
	    "A platform administrator; owners and administrators of a team: its own hosts" },
	[HOST_TOKEN] = { "host", NULL, NO_KEY, "A host agent" },
	[AUDIT_READ] = { "view, or key audit.view", NULL, KEY_SCOPE,
	    "A member; of an API key the scope audit.view" },
#define P(perm, roles, scope, doc) [PERM_##perm] = { #perm, roles, scope, doc },
#include "proto/permissions.def"
#undef P
};

/* The wire writes capsules.view where C writes capsules_view. */
static bool
same_name(const char *c, const char *wire)
{
	if (strncmp(wire, "team.", 5) == 0)
		wire += 5;
	for (; *c && *wire; c++, wire++)
		if (*c != *wire && !(*c == '_' && *wire == '.'))
			return false;
	return !*c && !*wire;
}

enum perm
perm_find(const char *name)
{
	enum perm p;

	for (p = HOST_TOKEN + 1; p < PERM__MAX; p++)
		if (same_name(perm_kinds[p].name, name))
			return p;
	return PERM__MAX;
}

bool
role_holds(const char *role, enum perm p, bool *own_only)
{
	static const struct {
		const char *role;
		char letter;
	} letters[] = { { "owner", 'O' }, { "admin", 'A' }, { "member", 'M' }, { "viewer", 'V' },
		{ "auditor", 'U' } };
	const char *roles = perm_kinds[p].roles;
	size_t i;

	*own_only = false;
	for (i = 0; role && roles && i < nitems(letters); i++) {
		if (strcmp(role, letters[i].role) != 0)
			continue;
		*own_only = letters[i].letter == 'M' && strchr(roles, 'm');
		return strchr(roles, letters[i].letter) || *own_only;
	}
	return false;
}

int
credential_resend(struct work *w, const struct credential_look *look, const char *ip)
{
	const struct token_claims *t = &look->claims;

	if (look->type == CALLER_KEY)
		return db_send(w->db, &Q_auth_by_key,
		    &(struct q_auth_by_key){ .hash = { look->hash, HASH_SIZE }, .ip = ip });
	if (look->for_platform)
		return db_send(w->db, &Q_auth_for_platform,
		    &(struct q_auth_for_platform){ .session = &t->sid,
			.user = &t->sub,
			.team = t->has_team ? &t->team : NULL });
	return db_send(w->db, &Q_auth_by_session,
	    &(struct q_auth_by_session){
		.session = &t->sid, .user = &t->sub, .team = t->has_team ? &t->team : NULL });
}

int
principal_of_stream(struct work *w, const struct q_stream_right *row,
    const struct credential_look *look, struct principal *p)
{
	*p = (struct principal){ .type = look->type, .platform_role = row->platform_role };
	if (strcmp(row->key_state, "live") != 0 || !row->user_status ||
	    strcmp(row->user_status, "active") != 0)
		return err_set(
		    &w->err, E_UNAUTHORIZED, "the credential was revoked or has expired");
	p->user = row->user_id;
	p->team = row->team_live && row->role && look->claims.has_team ? &look->claims.team : NULL;
	p->role = row->role;
	if (look->for_platform && strcmp(row->platform_role, "admin") == 0) {
		p->team = &uuid_zero; /* as auth_for_platform says it */
		p->role = "admin";
	}
	p->scopes = row->scopes;
	p->must_change_password = row->must_change_password;
	p->has_factor = row->has_factor;
	p->team_mfa = row->team_mfa;
	return 0;
}

int
credential_send(struct work *w, const struct keys *keys, const char *issuer,
    const struct credentials *c, struct credential_look *look)
{
	struct token_claims *t = &look->claims;

	if (c->api_key) {
		look->type = CALLER_KEY;
		if (!apikey_hash(c->api_key, look->hash))
			return err_set(&w->err, E_UNAUTHORIZED, "the API key is not good");
		return credential_resend(w, look, c->ip);
	}
	if (c->bearer) {
		look->type = CALLER_USER;
		if (token_seen_verify(
			c->seen, w, keys, TOKEN_ACCESS, issuer, c->bearer, t, &w->err) < 0)
			return -1;
		return credential_resend(w, look, c->ip);
	}
	if (c->host_token) {
		look->type = CALLER_HOST;
		if (token_seen_verify(
			c->seen, w, keys, TOKEN_HOST, issuer, c->host_token, t, &w->err) < 0)
			return -1;
		return db_send(w->db, &Q_auth_by_host, &(struct q_auth_by_host){ .host = &t->sub });
	}
	look->type = CALLER_NONE;
	db_forget_team(w->db);
	return 0;
}

static int
take_host(struct work *w, struct principal *p)
{
	struct q_auth_host *h;
	int n = db_take(w->db, &Q_auth_by_host, (void **)&h);

	if (n <= 0)
		return n < 0 ? -1 : err_set(&w->err, E_UNAUTHORIZED, "the host is not known");
	p->host = h->id;
	p->name = h->name;
	p->platform_role = "user";
	p->rate_key = id_text(w, "host-", h->id);
	return 0;
}

int
credential_take(struct work *w, const struct credential_look *look, struct principal *p)
{
	const struct query *q = look->type == CALLER_KEY ? &Q_auth_by_key
	    : look->for_platform                         ? &Q_auth_for_platform
							 : &Q_auth_by_session;
	struct q_principal *row;
	int n;

	*p = (struct principal){ .type = look->type, .platform_role = "user" };
	if (look->type == CALLER_NONE)
		return 0;
	if (look->type == CALLER_HOST)
		return take_host(w, p);
	n = db_take(w->db, q, (void **)&row);
	if (n < 0)
		return -1;
	if (n == 0)
		return err_set(&w->err, E_UNAUTHORIZED, "the credential is not known");
	if (look->type == CALLER_KEY && strcmp(row->key_state, "live") != 0) {
		p->key = row->key_id;
		p->user = row->user_id;
		p->team = row->team_id;
		p->name = row->name;
		p->denied = row->key_state;
	}
	if (look->type == CALLER_USER && row->user_status &&
	    strcmp(row->user_status, "disabled") == 0)
		return err_set(&w->err, E_DEACTIVATED, "the account is disabled");
	if (strcmp(row->key_state, "live") != 0 || !row->user_status ||
	    strcmp(row->user_status, "active") != 0)
		return err_set(
		    &w->err, E_UNAUTHORIZED, "the credential was revoked or has expired");
	p->user = row->user_id;
	p->key = row->key_id;
	p->session = row->session_id;
	p->team = row->team_live && row->role ? row->team_id : NULL;
	p->role = row->role;
	p->platform_role = row->platform_role;
	p->email = row->email;
	p->name = row->name;
	p->scopes = row->scopes;
	p->must_change_password = row->must_change_password;
	p->key_rate = row->rate_limit == NULL_INT4 ? 0 : row->rate_limit;
	p->has_factor = row->has_factor;
	p->team_mfa = row->team_mfa;
	p->rate_key = p->key ? id_text(w, "key-", p->key) : id_text(w, "usr-", p->user);
	return 0;
}

static bool
in_scopes(const struct principal *p, enum perm perm)
{
	const char *const *s;

	for (s = p->scopes; s && *s; s++)
		if (same_name(perm_kinds[perm].name, *s))
			return true;
	return false;
}

static enum allowed
no(struct err *e, enum err_code code, const char *why)
{
	err_set(e, code, "%s", why);
	return ALLOW_NO;
}

static enum allowed
platform_allowed(const struct principal *p, enum perm perm, struct err *e)
{
	bool admin = strcmp(p->platform_role, "admin") == 0;

	if (p->type != CALLER_USER)
		return no(e, p->type == CALLER_NONE ? E_UNAUTHORIZED : E_FORBIDDEN,
		    "this is for signed-in administrators of the platform");
	if (admin || (perm == PLATFORM_READ && strcmp(p->platform_role, "operator") == 0))
		return ALLOW_ALL;
	return no(e, E_FORBIDDEN, "this is for administrators of the platform");
}

/* Who runs the platform may see to all hosts, who runs a team to its own. */
static enum allowed
hosts_allowed(const struct principal *p, enum perm perm, struct err *e)
{
	struct err not_platform = { 0 };
	bool own;

	if (p->type == CALLER_KEY)
		return no(e, E_FORBIDDEN, "an API key may not do this");
	if (platform_allowed(p, perm == HOSTS_OPERATE ? PLATFORM_READ : PLATFORM_ADMIN,
		&not_platform) == ALLOW_ALL)
		return ALLOW_ALL;
	if (p->team && role_holds(p->role, PERM_hosts_manage, &own))
		return ALLOW_OWN;
	return no(e, E_FORBIDDEN,
	    "this is for administrators of the platform, and for a team's own hosts its owners and "
	    "administrators");
}

enum allowed
principal_allowed(const struct principal *p, enum perm perm, struct err *e)
{
	bool own;

	if (perm == ANYONE)
		return ALLOW_ALL;
	if (p->type == CALLER_NONE)
		return no(e, E_UNAUTHORIZED,
		    "a credential is needed: X-API-Key, or Authorization: Bearer");
	if (perm == HOST_TOKEN)
		return p->type == CALLER_HOST ? ALLOW_ALL
					      : no(e, E_UNAUTHORIZED, "this is for host agents");
	if (p->type == CALLER_HOST)
		return no(e, E_FORBIDDEN, "a host may not do this");
	if (perm == PLATFORM_READ || perm == PLATFORM_ADMIN)
		return platform_allowed(p, perm, e);
	if (perm == HOSTS_OPERATE || perm == HOSTS_ADMIN)
		return hosts_allowed(p, perm, e);
	if (perm == SIGNED_IN)
		return p->type == CALLER_USER ? ALLOW_ALL
					      : no(e, E_FORBIDDEN, "an API key may not do this");
	if (perm == SIGNED_IN_OR_KEY)
		return ALLOW_ALL;
	if (perm == AUDIT_READ)
		perm = p->type == CALLER_KEY ? PERM_audit_view : PERM_view;
	if (!p->team)
		return no(e, E_NO_TEAM, "the token has no team, or you are no longer in it");
	if (p->type == CALLER_KEY && !in_scopes(p, perm)) {
		err_set(e, E_FORBIDDEN, "the key has no scope %s", perm_kinds[perm].name);
		return ALLOW_NO;
	}
	if (role_holds(p->role, perm, &own))
		return own ? ALLOW_OWN : ALLOW_ALL;
	err_set(e, E_FORBIDDEN, "the role %s does not include %s", p->role, perm_kinds[perm].name);
	return ALLOW_NO;
}

bool
mfa_wanted(const char *require_mfa, const char *platform_role)
{
	return strcmp(require_mfa, "all") == 0 ||
	    (strcmp(require_mfa, "admins") == 0 && strcmp(platform_role, "admin") == 0);
}

int
principal_gate(const struct principal *p, enum perm perm, unsigned exempt, const char *require_mfa,
    struct err *e)
{
	bool hosts = (perm == HOSTS_OPERATE || perm == HOSTS_ADMIN) && p->platform_role &&
	    strcmp(p->platform_role, "user") == 0;
	bool of_team = (perm > HOST_TOKEN || hosts) && p->team && p->team_mfa;

	if (p->type != CALLER_USER || perm == ANYONE)
		return 0;
	if (p->must_change_password && !(exempt & GATE_PASSWORD))
		return err_set(
		    e, E_MUST_CHANGE, "change your password first: POST /v1/me/password");
	if (!p->has_factor && !(exempt & GATE_MFA) &&
	    (of_team || mfa_wanted(require_mfa, p->platform_role)))
		return err_set(e, E_MFA_ENROLL, "a second factor is needed: POST /v1/me/mfa");
	return 0;
}

const char *
permission_wire(void *mem, enum perm p)
{
	char *name = talloc_strdup(mem, perm_kinds[p].name), *c;

	for (c = name; *c; c++)
		if (*c == '_')
			*c = '.';
	return name;
}

const char *const *
principal_permissions(void *mem, const struct principal *p)
{
	const char **list = talloc_zero_array(mem, const char *, PERM__MAX + 1);
	enum perm perm;
	int n = 0;
	bool own;

	for (perm = HOST_TOKEN + 1; perm < PERM__MAX; perm++) {
		if (!p->team || !role_holds(p->role, perm, &own))
			continue;
		if (p->type == CALLER_KEY && !in_scopes(p, perm))
			continue;
		list[n++] = permission_wire(list, perm);
	}
	return list;
}

/* The row as the seed of hutchctl migrate writes it: "view|See the team…|owner,admin,…". */
int
permissions_compare(struct work *w)
{
	static const char *const role[] = { "owner", "admin", "member", "viewer", "auditor" };
	struct q_permission *row;
	int n = q_permission_list(w->db, &row), i;
	enum perm p;
	size_t k;
	bool own;

	if (n < 0)
		return -1;
	for (p = HOST_TOKEN + 1; p < PERM__MAX; p++) {
		struct buf roles = BUF(w);

		for (i = 0; i < n && !same_name(perm_kinds[p].name, row[i].name); i++)
			;
		if (i == n)
			return err_set(&w->err, E_CONFIG, "the table permissions has no %s",
			    perm_kinds[p].name);
		for (k = 0; k < nitems(role); k++)
			if (role_holds(role[k], p, &own))
				buf_fmt(&roles, "%s%s", roles.len ? "," : "", role[k]);
		if (strcmp(roles.data ? roles.data : "", row[i].roles) != 0)
			return err_set(&w->err, E_CONFIG,
			    "permission %s: the table says %.80s, the program %.80s", row[i].name,
			    row[i].roles, roles.data);
	}
	return 0;
}
