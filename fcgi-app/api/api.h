/* api.h - the tables of all resources, and what several of them share. */
#pragma once
#include "fcgi-app/request.h"

#define T(table) extern const struct route table[];
#include "tables.def"
#undef T

/* A path with {id} only. */
#define PATH_ID(st, kind) FIELD(st, id, "id", .flags = NEEDED | IN_PATH, .prefix = kind)

/* sessions.c: how a login begins and is renewed; shared by activation, login, refresh. */
struct login {
	const struct uuid *user, *team; /* team: asked for, or NULL */
	const char *method;             /* "password", "activation", "oauth", "oidc" */
	const char *client;             /* "web", "cli" */
	bool want_refresh;              /* put the refresh token into the answer */
	const char *mfa;        /* the second factor that was given: "totp", "backup", or NULL */
	const struct uuid *idp; /* the provider that vouched, or NULL */
};
/* Opens a session in the transaction and answers with an authResponse; sets the refresh cookie. */
int login_open(struct request *, const struct login *);
/*
 * The first proof was good: opens the session, or, when the user has a second factor, fails with
 * E_MFA_REQUIRED, whose answer has the mfa_token that POST /v1/auth/mfa takes (auth_mfa.c).
 */
int login_next(struct request *, const struct login *);

/* The address as it is stored: trimmed, lower case; E_BAD_INPUT when it is none. */
const char *email_normal(struct request *, const char *);
