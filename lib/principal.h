/*
 * principal.h - who is asking, and what he may: the only decision about permissions in Hutch.
 */
#pragma once
#include "crypto.h"
#include "db.h"
#include "token_seen.h"
#include "work.h"

enum perm {
	ANYONE,           /* no credential is asked */
	SIGNED_IN,        /* an active user with an access token */
	SIGNED_IN_OR_KEY, /* that, or any API key */
	PLATFORM_READ,    /* platform operator or admin */
	PLATFORM_ADMIN,
	/* see, cordon, drain: platform operator; or hosts_manage: the team's own hosts (ALLOW_OWN)
	 */
	HOSTS_OPERATE,
	HOSTS_ADMIN, /* the same with a platform admin */
	AUDIT_READ,  /* PERM_view of a user; a key needs the scope audit.view */
	HOST_TOKEN,  /* a host agent */
#define P(name, roles, scope, doc) PERM_##name,
#include "proto/permissions.def"
#undef P
	PERM__MAX
};

struct perm_kind {
	const char *name;  /* on the wire: "capsules.view" */
	const char *roles; /* letters of permissions.def; NULL for the first rows */
	enum {
		NO_KEY,
		KEY_SCOPE,
		KEY_DATA
	} scope; /* may an API key have it; has it by default (data plane) */
	const char *doc;
};
extern const struct perm_kind perm_kinds[PERM__MAX];

enum caller { CALLER_NONE, CALLER_USER, CALLER_KEY, CALLER_HOST };

/*
 * Compares the table permissions with this program's (at start). 0: the same; -1: E_CONFIG with the
 * first difference, or the database's error.
 */
int permissions_compare(struct work *);

struct principal {
	enum caller type;
	const struct uuid *user; /* of a key: who made it; may be NULL */
	const struct uuid *key, *session, *host;
	const struct uuid *team;   /* NULL: no team, or no longer in it */
	const char *role;          /* in the team */
	const char *platform_role; /* "user", "operator", "admin" */
	const char *email, *name;  /* of the user; name of the key */
	const char *const *scopes; /* of a key */
	bool must_change_password;
	int32_t key_rate;   /* of a key: requests an hour; 0: no limit of its own */
	const char *denied; /* why a known key was refused: "revoked", "expired", …; then the rest
	                       names it */
	bool has_factor, team_mfa; /* of the user: a second factor; of the team: it wants one */
	const char *rate_key;      /* names the credential in rate limits: no secret */
};

struct credentials {
	const char *api_key, *bearer, *host_token; /* headers as they came, or NULL */
	const char *ip;          /* of the client: keys may be bound to networks */
	struct token_seen *seen; /* tokens verified before, or NULL */
};

/*
 * Finding out is one statement: credential_send() puts it on the pipeline (0, or -1 with
 * E_UNAUTHORIZED at once when the credential cannot be good), credential_take() reads the answer.
 * An X-API-Key beats a Bearer token, also when it is bad. No credential: CALLER_NONE.
 */
struct credential_look {
	enum caller type;
	struct token_claims claims;
	uint8_t hash[HASH_SIZE];
	bool for_platform; /* set before: a user, if he administers the platform, is asked for as
	                      one of the Platform's team, and as of no other */
};
int credential_send(struct work *, const struct keys *, const char *issuer,
    const struct credentials *, struct credential_look *);
int credential_take(struct work *, const struct credential_look *, struct principal *ret);
/* The same again for a credential that was good before: of a stream, of a ticket's maker. ip: as in
 * struct credentials. */
int credential_resend(struct work *, const struct credential_look *, const char *ip);
/* A row of stream_rights() as the principal it is; -1: E_UNAUTHORIZED, the login or key ended. */
struct q_stream_right;
int principal_of_stream(struct work *, const struct q_stream_right *,
    const struct credential_look *, struct principal *);

enum allowed { ALLOW_NO, ALLOW_OWN, ALLOW_ALL };

/*
 * May the principal do it in the team of his credential? ALLOW_OWN: to what he made himself.
 * ALLOW_NO fills err with the precise reason.
 */
enum allowed principal_allowed(const struct principal *, enum perm, struct err *);
/*
 * What a signed-in user has to do first, whatever he may: change a password that was set for him,
 * enrol a second factor that the platform (auth.require_mfa) or the team of his token wants. 0, or
 * -1 with E_MUST_CHANGE or E_MFA_ENROLL. exempt: GATE_* of the route. API keys pass: their makers
 * were asked.
 */
enum { GATE_PASSWORD = 1, GATE_MFA = 2 };
int principal_gate(
    const struct principal *, enum perm, unsigned exempt, const char *require_mfa, struct err *);
bool mfa_wanted(const char *require_mfa, const char *platform_role);
/* All permissions that he holds: names, ended by NULL. */
const char *const *principal_permissions(void *mem, const struct principal *);
const char *permission_wire(void *mem, enum perm); /* its name on the wire: "capsules.view" */
enum perm perm_find(const char *name);             /* PERM__MAX: no such permission */
bool role_holds(const char *role, enum perm, bool *own_only);
