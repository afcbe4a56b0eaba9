/*
 * account.c - what the routes of sign-in and of one's own account share; see account.h.
 *
 * Queries: sql/queries/accounts.sql, users.sql.
 */
#include "account.h"
#include "accounts.q.h"
#include "mail.h"
#include "password.h"
#include "cleanup.h"
#include "fcgi-app/hash_slot.h"

#include <ctype.h>
#include <errno.h>
#include <string.h>
#include <time.h>

const char *
email_normal(struct request *r, const char *given)
{
	char *s, *p;

	while (isspace((unsigned char)*given))
		given++;
	s = talloc_strdup(r, given);
	for (p = s + strlen(s); p > s && isspace((unsigned char)p[-1]);)
		*--p = '\0';
	for (p = s; *p; p++)
		*p = *p >= 'A' && *p <= 'Z' ? *p + 32 : *p;
	if (!format_ok("email", s)) {
		fail(r, E_BAD_INPUT, "\"email\" is not an e-mail address");
		return NULL;
	}
	return s;
}

int
password_good(
    struct request *r, const char *field, const char *password, const char *email, const char *name)
{
	const struct conf *c = r->app->conf;

	return password_check(password,
	    &(struct password_rules){ .field = field,
		.least = c->auth_password_min,
		.email = email,
		.name = name,
		.url = c->http_public_url,
		.blocklist = c->auth_blocklist },
	    &r->work.err);
}

const char *
account_hash(struct request *r, const char *password)
{
	const char *hash;

	if (hash_slot_take(r) < 0)
		return NULL;
	hash = password_hash(r, password, r->app->conf->auth_hash_cost, &r->work.err);
	hash_slot_give();
	return hash;
}

int
account_verify(struct request *r, const char *password, const char *stored)
{
	bool good;

	if (hash_slot_take(r) < 0)
		return -1;
	good = password_verify(password, stored, r->app->conf->auth_hash_cost);
	hash_slot_give();
	return good;
}

int
account_rehash(struct request *r, const struct q_user *u, const char *password)
{
	const char *hash;

	if (!password_stale(u->password_hash, r->app->conf->auth_hash_cost))
		return 0;
	hash = account_hash(r, password);
	return hash
	    ? q_user_rehash(r->work.db, .id = u->id, .password_hash = hash, .old = u->password_hash)
	    : -1;
}

struct bytes
address_hash(struct request *r, const char *email)
{
	uint8_t *h = talloc_array(r, uint8_t, HASH_SIZE);

	crypto_hmac(r->app->keys->key[KEY_ADDRESS], email, strlen(email), h);
	return (struct bytes){ h, HASH_SIZE };
}

int
mailed_token(struct request *r, const struct uuid *user, const char *purpose, const char *payload,
    int64_t ttl, struct uuid *id)
{
	const char *token;
	uint8_t h[HASH_SIZE];

	*id = uuid_new();
	token = crypto_mail_token(r, r->app->keys, id, purpose);
	crypto_sha256(token, strlen(token), h);
	return q_token_insert(r->work.db, .hash = { h, sizeof h }, .id = id, .user = user,
	    .purpose = purpose, .payload = payload ? payload : "{}", .ip = r->ip, .ttl = ttl);
}

int
mailed_token_take(struct request *r, const char *token, const char *purpose, struct q_token **ret)
{
	uint8_t h[HASH_SIZE];

	crypto_sha256(token, strlen(token), h);
	return q_token_use(r->work.db, ret, .hash = { h, sizeof h }, .purpose = purpose);
}

int
account_mail(struct request *r, const char *template, const struct q_user *u, const char *to,
    const struct uuid *token, const char *purpose, const struct pair *more)
{
	struct pair vars[12] = { 0 };
	time_t now = time(NULL);
	char when[40];
	struct tm tm;
	int n = 0;

	gmtime_r(&now, &tm);
	strftime(when, sizeof when, "%Y-%m-%d %H:%M UTC", &tm);
	vars[n++] = (struct pair){ "time", when };
	vars[n++] = (struct pair){ "ip", r->ip ? r->ip : "" };
	vars[n++] =
	    (struct pair){ "agent", r->work.actor.user_agent ? r->work.actor.user_agent : "" };
	for (; more && more->name && n < 11; more++)
		vars[n++] = *more;
	return mail_add(&r->work, r->app->keys,
	    &(struct mail_new){ .template = template,
		.user = u->id,
		.to = to ? to : u->email,
		.name = u->name,
		.vars = vars,
		.token = token,
		.purpose = token ? purpose : NULL });
}

enum { EVEN_MS = 40 };

static int
wait_even(struct request *r)
{
	const struct timespec *until = r->after_arg;

	while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, until, NULL) == EINTR)
		;
	return 0;
}

void
answer_evenly(struct request *r)
{
	struct timespec *t = talloc(r, struct timespec);

	clock_gettime(CLOCK_MONOTONIC, t);
	t->tv_nsec += EVEN_MS * 1000000L;
	t->tv_sec += t->tv_nsec / 1000000000L;
	t->tv_nsec %= 1000000000L;
	r->after = wait_even;
	r->after_arg = t;
}
