/* idps.h - identity providers, as sign-in and administration both need them. */
#pragma once
#include "api.h"
#include "idps.q.h"
#include "oidc.h"

/* The row as a client, with its secret opened. -1: it is not complete, or its secret does not open.
 */
int idp_client(struct request *, const struct q_idp *, struct oidc_client *ret);
/* How the secret of a provider is sealed: its place. */
const char *idp_secret_place(void *mem, const struct uuid *id);
