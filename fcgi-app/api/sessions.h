/* sessions.h - logins: the routes that sessions.c serves, for the table in auth.c. */
#pragma once
#include "api.h"

struct session_refresh {
	const char *refresh_token;
	const struct uuid *team;
};
struct session_logout {
	bool all;
	const char *refresh_token;
};
struct session_switch {
	const struct uuid *team;
};
extern const struct field auth_response_fields[], session_refresh_fields[], session_logout_fields[],
    session_csrf_fields[], session_switch_fields[];
extern handler session_refresh, session_logout, session_csrf, session_switch_team;

/* Logins of kind cli that travel in forms (cli_login.c). renew: E_UNAUTHORIZED when the token is
 * not good. */
struct cli_login {
	const char *email, *access, *refresh;
	int64_t expires_in;
};
int session_cli_open(struct request *, struct cli_login *);
int session_cli_renew(struct request *, const char *refresh, struct cli_login *);
int session_cli_end(struct request *, const char *refresh);

/* Answers with an authResponse of the caller's own login and team, all read anew. */
int session_answer(struct request *);
