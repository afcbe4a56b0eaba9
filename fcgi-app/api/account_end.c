/*
 * account_end.c - DELETE /v1/me: one's own account (spec 01 §2.2, §6).
 *
 * Tests: tests/jobs/admin.py.
 */
#include "api.h"
#include "deletion.h"

#include <strings.h>

static handler me_delete;

struct me_delete {
	const char *confirmation;
};
static const struct field me_delete_fields[] = {
	FIELD(me_delete, confirmation, "confirmation", .flags = NEEDED, .max = 300,
	    .doc = "The account's own address."),
	{ 0 },
};

/* clang-format off */
const struct route account_end_routes[] = {
	{ "DELETE", "/v1/me", POOL_API, SIGNED_IN, me_delete, "Delete one's own account", ACROSS | PROOF_OF_FACTOR, 204, IN(me_delete) },
	{ 0 },
};
/* clang-format on */

static int
me_delete(struct request *r)
{
	const struct me_delete *in = r->in;
	const struct deletion d = { .conf = r->app->conf, .keys = r->app->keys };
	struct uuid job;

	if (strcasecmp(in->confirmation, r->who.email) != 0)
		return fail(r, E_BAD_INPUT, "\"confirmation\" is not the account's address");
	if (user_delete(&r->work, &d, r->who.user, &job) < 0)
		return -1;
	reply_header(r, "X-Job-Id", "%s", id_text(r, "job-", &job));
	return reply_done(r, 1);
}
