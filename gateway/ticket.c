/* ticket.c - see ticket.h. */
#include "ticket.h"

#include "streams.q.h"

#include <string.h>

static int
refuse(struct work *w)
{
	return err_set(&w->err, E_UNAUTHORIZED,
	    "the ticket is unknown, used, older than 30 s, or for something else");
}

int
ticket_use(struct work *w, const struct ticket_ask *ask, struct ticket *ret)
{
	uint8_t hash[HASH_SIZE];
	struct q_ticket *t = NULL;
	int n = 0;

	*ret = (struct ticket){ 0 };
	crypto_sha256(ask->text, strlen(ask->text), hash);
	n = q_ticket_use(w->db, &t, .hash = { hash, sizeof hash });
	if (n < 0)
		return -1;
	if (n == 0 || strcmp(t->purpose, ask->purpose) != 0 || !t->capsule_id != !ask->capsule ||
	    (ask->capsule && !uuid_equal(ask->capsule, t->capsule_id)))
		return refuse(w);
	if (t->origin && (ask->origin ? strcmp(t->origin, ask->origin) != 0 : ask->strict))
		return err_set(
		    &w->err, E_FORBIDDEN, "the ticket was made by a page of another origin");
	ret->user = *t->user_id;
	ret->team = *t->team_id;
	ret->port = t->port == NULL_INT4 ? 0 : t->port;
	ret->look.claims.sub = *t->user_id;
	ret->look.claims.team = *t->team_id;
	ret->look.claims.has_team = true;
	ret->by_key = t->key_id != NULL;
	ret->look.type = ret->by_key ? CALLER_KEY : CALLER_USER;
	if (!ret->by_key) {
		ret->look.claims.sid = *t->session_id;
		return 0;
	}
	ret->key = *t->key_id;
	if (t->key_hash.n != HASH_SIZE)
		return refuse(w);
	memcpy(ret->look.hash, t->key_hash.p, HASH_SIZE);
	return 0;
}
