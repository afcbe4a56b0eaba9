/*
 * invitations.c - invitations into a team: by link for a number of people, or bound to an address
 * (spec 01 §2.5).
 *
 * The token is in bodies and mails only, never in a path; the row has its hash.  Queries:
 * sql/queries/invitations.sql.  Tests: tests/http/teams.t, teams.py.
 */
#include "teams.h"
#include "audit.h"
#include "cleanup.h"
#include "invitations.q.h"
#include "rfc3339.h"
#include "users.q.h"

#include <string.h>
#include <time.h>

static handler invitation_create, invitation_list, invitation_revoke, invitation_preview,
    invitation_accept, invitation_decline, mine_list, mine_accept, mine_decline;

enum { PENDING = 100, INVITATIONS_AN_HOUR = 30, WEEK = 604800, MONTH = 2592000 };

struct invitation_create {
	const struct uuid *id;
	const char *email, *role;
	int32_t max_uses;
	int64_t expires_in;
};
static const struct field invitation_create_fields[] = {
	PATH_ID(invitation_create, "team-"),
	FIELD(invitation_create, email, "email", .max = 300,
	    .doc =
		"Only who has this address, verified, can accept; absent: whoever has the token."),
	FIELD(invitation_create, role, "role", .text = "member", .one_of = ROLES_GIVEN),
	FIELD(invitation_create, max_uses, "max_uses", .min = 1, .max = 1000, .dflt = 1),
	FIELD(invitation_create, expires_in, "expires_in", .min = 60, .max = MONTH, .dflt = WEEK,
	    .doc = "Seconds."),
	{ 0 },
};

struct team_page {
	const struct uuid *id;
	int32_t limit;
	const char *cursor;
};
static const struct field team_page_fields[] = { PATH_ID(team_page, "team-"),
	PAGE_FIELDS(team_page), { 0 } };

struct by_invitation {
	const struct uuid *id, *inv;
};
static const struct field by_invitation_fields[] = {
	PATH_ID(by_invitation, "team-"),
	FIELD(by_invitation, inv, "inv", .flags = NEEDED | IN_PATH, .prefix = "inv-"),
	{ 0 },
};
struct mine {
	const struct uuid *inv;
};
static const struct field mine_fields[] = {
	FIELD(mine, inv, "inv", .flags = NEEDED | IN_PATH, .prefix = "inv-"),
	{ 0 },
};
struct by_token {
	const char *token;
};
static const struct field by_token_fields[] = {
	FIELD(by_token, token, "token", .flags = NEEDED | WRITE_ONLY, .max = 512),
	{ 0 },
};

#define INVITATION_COMMON(st)                                                            \
	FIELD(st, id, "id", .flags = NEEDED, .prefix = "inv-"),                          \
	    FIELD(st, team_id, "team_id", .flags = NEEDED, .prefix = "team-"),           \
	    FIELD(st, team_name, "team_name", .flags = NEEDED),                          \
	    FIELD(st, email, "email", .flags = OMIT),                                    \
	    FIELD(st, role, "role", .flags = NEEDED, .one_of = ROLES_GIVEN),             \
	    FIELD(st, max_uses, "max_uses", .flags = NEEDED),                            \
	    FIELD(st, use_count, "use_count", .flags = NEEDED),                          \
	    FIELD(st, invited_by, "invited_by", .prefix = "usr-"),                       \
	    FIELD(st, created_at, "created_at", .flags = NEEDED, .format = "date-time"), \
	    FIELD(st, expires_at, "expires_at", .flags = NEEDED, .format = "date-time"), \
	    FIELD(st, state, "state", .flags = NEEDED,                                   \
		.one_of = "pending|accepted|declined|expired|revoked")
static const struct field invitation_fields[] = { INVITATION_COMMON(q_invitation), { 0 } };

struct invitation_made {
	struct q_invitation row;
	const char *token, *url;
};
static const struct field invitation_made_fields[] = {
	INVITATION_COMMON(q_invitation),
	FIELD(invitation_made, token, "token", .flags = NEEDED, .doc = "Shown once, here."),
	FIELD(invitation_made, url, "url", .flags = NEEDED, .doc = "The page that takes it."),
	{ 0 },
};

struct preview {
	const char *team_name, *role, *inviter;
	int64_t expires_at;
	bool email_bound;
};
static const struct field preview_fields[] = {
	FIELD(preview, team_name, "team_name", .flags = NEEDED),
	FIELD(preview, role, "role", .flags = NEEDED),
	FIELD(preview, inviter, "inviter"),
	FIELD(preview, expires_at, "expires_at", .flags = NEEDED, .format = "date-time"),
	FIELD(preview, email_bound, "email_bound", .flags = NEEDED),
	{ 0 },
};

/* clang-format off */
const struct route invitation_routes[] = {
	{ "POST", "/v1/teams/{id}/invitations", POOL_API, PERM_members_manage, invitation_create, "Invite people", IN_TEAM | CREATES, 201, IN(invitation_create), OUT(invitation_made) },
	{ "GET", "/v1/teams/{id}/invitations", POOL_API, PERM_members_manage, invitation_list, "Invitations of a team", IN_TEAM | LISTS, 200, IN(team_page), OUT(invitation) },
	{ "DELETE", "/v1/teams/{id}/invitations/{inv}", POOL_API, PERM_members_manage, invitation_revoke, "Revoke an invitation", IN_TEAM, 204, IN(by_invitation) },
	{ "POST", "/v1/team-invitations/preview", POOL_API, ANYONE, invitation_preview, "What an invitation's token is for", ACROSS | TIGHT, 200, IN(by_token), OUT(preview) },
	{ "POST", "/v1/team-invitations/accept", POOL_API, SIGNED_IN, invitation_accept, "Accept an invitation", ACROSS, 200, IN(by_token), OUT(team) },
	{ "POST", "/v1/team-invitations/decline", POOL_API, SIGNED_IN, invitation_decline, "Decline an invitation", ACROSS, 204, IN(by_token) },
	{ "GET", "/v1/me/invitations", POOL_API, SIGNED_IN, mine_list, "Open invitations to your address", ACROSS | LISTS, 200, OUT(invitation) },
	{ "POST", "/v1/me/invitations/{inv}/accept", POOL_API, SIGNED_IN, mine_accept, "Accept one of them", ACROSS | NO_BODY, 200, IN(mine), OUT(team) },
	{ "POST", "/v1/me/invitations/{inv}/decline", POOL_API, SIGNED_IN, mine_decline, "Decline one of them", ACROSS | NO_BODY, 204, IN(mine) },
	{ 0 },
};
/* clang-format on */

static int
audit_invitation(struct request *r, enum audit_kind kind, const struct uuid *team,
    const struct uuid *inv, const char *email, const char *role)
{
	const char *id = id_text(r, "inv-", inv);

	return audit_add(&r->work, kind,
	    &(struct audit){ .team = team,
		.resource_id = id,
		.metadata = words(r, "email", email, "role", role, NULL),
		.data = words(r, "invitation_id", id, "role", role, NULL) });
}

static int
may_invite(struct request *r, const struct invitation_create *in, const char **email)
{
	struct q_invitation_count *n;
	enum perm p;
	bool own;

	*email = in->email ? email_normal(r, in->email) : NULL;
	if (in->email && !*email)
		return -1;
	if (in->email && in->max_uses > 1)
		return fail(
		    r, E_BAD_INPUT, "\"max_uses\" above 1 is for invitations without an address");
	for (p = HOST_TOKEN + 1; p < PERM__MAX; p++)
		if (role_holds(in->role, p, &own) && !role_holds(r->who.role, p, &own))
			return fail(r, E_FORBIDDEN, "the role %s holds more than yours", in->role);
	if (r->app->conf->auth_rate_limits &&
	    rate_limited(r, "add", r->who.rate_key, INVITATIONS_AN_HOUR, 3600) < 0)
		return -1;
	if (one_at_a_time(r, "invitations of", in->id) < 0 ||
	    q_invitation_pending(r->work.db, &n, .team = in->id) < 0)
		return -1;
	return n->n < PENDING
	    ? 0
	    : fail(r, E_QUOTA, "the team has %d open invitations, at most %d are allowed",
		  (int)n->n, PENDING);
}

static int
invitation_create(struct request *r)
{
	const struct invitation_create *in = r->in;
	struct uuid id = uuid_new();
	struct invitation_made made;
	struct q_invitation *row;
	uint8_t hash[HASH_SIZE];
	const char *email;

	if (may_invite(r, in, &email) < 0)
		return -1;
	made.token = crypto_mail_token(r, r->app->keys, &id, "invitation");
	made.url = talloc_asprintf(r, "%s/invitation%stoken=%s", r->app->conf->http_public_url,
	    r->app->conf->mail_link_query ? "?" : "#", made.token);
	crypto_sha256(made.token, strlen(made.token), hash);
	if (q_invitation_insert(r->work.db, .id = &id, .team = in->id, .email = email,
		.hash = { hash, sizeof hash }, .role = in->role, .max_uses = in->max_uses,
		.by = r->who.user, .expires_in = in->expires_in) < 0 ||
	    q_invitation_get(r->work.db, &row, .id = &id, .team = in->id) <= 0)
		return -1;
	made.row = *row;
	if (email &&
	    team_mail(r, NULL, email, NULL,
		&(struct team_mail){ .template = "invitation",
		    .team = row->team_name,
		    .role = in->role,
		    .inviter = r->who.name,
		    .token = &id }) < 0)
		return -1;
	if (audit_invitation(r, AUDIT_INVITATION_CREATE, in->id, &id, email, in->role) < 0)
		return -1;
	return reply_row(r, 1, &made);
}

static int
invitation_list(struct request *r)
{
	const struct team_page *in = r->in;
	struct q_invitation *row;
	struct page p;
	int n;

	if (page_read(r, in->limit, in->cursor, &p) < 0)
		return -1;
	n = q_invitation_list(r->work.db, &row, .team = in->id, .before = p.before,
	    .before_id = p.before_id, .limit = p.limit + 1);
	return page_reply(r, n, row, sizeof *row, &p, offsetof(struct q_invitation, created_at),
	    offsetof(struct q_invitation, id));
}

static int
invitation_revoke(struct request *r)
{
	const struct by_invitation *in = r->in;
	struct q_invitation *row;
	int n = q_invitation_get(r->work.db, &row, .id = in->inv, .team = in->id);

	if (n <= 0)
		return reply_done(r, n);
	n = q_invitation_revoke(r->work.db, .id = in->inv, .team = in->id);
	if (n < 0)
		return -1;
	if (n > 0 &&
	    audit_invitation(r, AUDIT_INVITATION_REVOKE, in->id, in->inv, row->email, row->role) <
		0)
		return -1;
	return reply_done(r, 1);
}

/* --- the other side ----------------------------------------------------------------------------
 */

static int
find(struct request *r, struct q_invitation **row)
{
	const struct by_token *in = r->in;
	uint8_t hash[HASH_SIZE];
	int n;

	crypto_sha256(in->token, strlen(in->token), hash);
	n = q_invitation_find(r->work.db, row, .hash = { hash, sizeof hash });
	return n < 0 ? -1
	    : n      ? 0
		     : fail(r, E_BAD_TOKEN, "the token is unknown, expired or already used");
}

/* One of the caller's own, by id: he must have proven his address. */
static int
find_mine(struct request *r, struct q_invitation **row)
{
	const struct mine *in = r->in;
	struct q_user *u;
	int n = q_user_share(r->work.db, &u, .id = r->who.user);

	if (n < 0)
		return -1;
	n = n && u->email_verified_at != NULL_INT
	    ? q_invitation_find(r->work.db, row, .id = in->inv, .email = u->email)
	    : 0;
	return n < 0 ? -1 : n ? 0 : fail(r, E_NOT_FOUND, "no such object, or not yours");
}

static int
invitation_preview(struct request *r)
{
	struct q_invitation *i;

	if (find(r, &i) < 0)
		return -1;
	return reply_row(
	    r, 1, &(struct preview){ i->team_name, i->role, i->inviter, i->expires_at, i->email });
}

/* Somebody else's address is told apart only by who holds the token. */
static int
for_caller(struct request *r, const struct q_invitation *i)
{
	struct q_user *u;

	if (q_user_share(r->work.db, &u, .id = r->who.user) <= 0)
		return -1;
	if (strcmp(u->status, "active") != 0)
		return fail(r, E_FORBIDDEN, "the account is not active");
	if (i->email && (strcmp(i->email, u->email) != 0 || u->email_verified_at == NULL_INT))
		return fail(r, E_FORBIDDEN, "the invitation is for another address");
	return 0;
}

static int
accept(struct request *r, const struct q_invitation *i)
{
	struct q_invitation_used *used;
	int n;

	if (for_caller(r, i) < 0)
		return -1;
	n = q_invitation_team_live(r->work.db, &used, .team = i->team_id);
	if (n <= 0)
		return n < 0 ? -1 : fail(r, E_BAD_TOKEN, "the team was deleted");
	n = q_member_add(r->work.db, .team = i->team_id, .user = r->who.user, .role = i->role,
	    .source = "invitation", .by = i->invited_by);
	if (n <= 0)
		return n < 0 ? -1 : team_reply(r, i->team_id); /* is in it: not counted */
	n = q_invitation_use(r->work.db, &used, .id = i->id);
	if (n <= 0)
		return n < 0
		    ? -1
		    : fail(r, E_BAD_TOKEN, "the token is unknown, expired or already used");
	if (audit_invitation(r, AUDIT_INVITATION_ACCEPT, i->team_id, i->id, i->email, i->role) < 0)
		return -1;
	return team_reply(r, i->team_id);
}

static int
decline(struct request *r, const struct q_invitation *i)
{
	int n;

	if (for_caller(r, i) < 0)
		return -1;
	n = q_invitation_decline(r->work.db, .id = i->id);
	if (n < 0)
		return -1;
	if (n > 0 &&
	    audit_invitation(r, AUDIT_INVITATION_DECLINE, i->team_id, i->id, i->email, i->role) < 0)
		return -1;
	return reply_done(r, 1);
}

static int
invitation_accept(struct request *r)
{
	struct q_invitation *i;

	return find(r, &i) < 0 ? -1 : accept(r, i);
}

static int
invitation_decline(struct request *r)
{
	struct q_invitation *i;

	return find(r, &i) < 0 ? -1 : decline(r, i);
}

static int
mine_list(struct request *r)
{
	struct q_invitation *row = NULL;
	struct q_user *u;
	int n = q_user_share(r->work.db, &u, .id = r->who.user);

	if (n <= 0)
		return -1;
	n = u->email_verified_at != NULL_INT ? q_invitation_of(r->work.db, &row, .email = u->email)
					     : 0;
	return reply_rows(r, n, row, sizeof *row);
}

static int
mine_accept(struct request *r)
{
	struct q_invitation *i;

	return find_mine(r, &i) < 0 ? -1 : accept(r, i);
}

static int
mine_decline(struct request *r)
{
	struct q_invitation *i;

	return find_mine(r, &i) < 0 ? -1 : decline(r, i);
}
