/* cli_key.h - the key that a CLI's login has in a team (spec 06 §13): derived, never stored. */
#pragma once
#include "api.h"

/*
 * The caller's key in one of his teams; "" when his login is none of a CLI, or he may have no keys
 * there. The first time a row named cli is made, in a transaction of its own when there is none.
 * NULL: error.
 */
const char *cli_key(struct request *, const struct uuid *team);
