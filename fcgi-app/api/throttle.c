/*
 * throttle.c - who guesses is slowed down (spec 01 §3): accounts by rows of auth_throttle, which
 * nothing but time forgets, addresses by buckets in Redis.
 *
 * An account has one bucket for all devices that it does not know and one for each that it knows:
 * strangers cannot lock the owner out. Queries: sql/queries/accounts.sql.  Tests:
 * tests/http/people*.py.
 */
#include "account.h"
#include "accounts.q.h"
#include "audit.h"
#include "cleanup.h"
#include "fcgi-app/cookie.h"
#include "job.h"

#include <arpa/inet.h>
#include <inttypes.h>
#include <string.h>

/* --- addresses ------------------------------------------------------------------------------ */

/* Of IPv6 the network of 64 bits: a customer has all of it. */
static const char *
network_of(struct request *r)
{
	char text[INET6_ADDRSTRLEN];
	struct in6_addr a;

	if (!strchr(r->ip, ':') || inet_pton(AF_INET6, r->ip, &a) != 1)
		return r->ip;
	memset(a.s6_addr + 8, 0, 8);
	return talloc_strdup(r, inet_ntop(AF_INET6, &a, text, sizeof text));
}

static int
bucket(struct request *r, const char *what, int64_t most, int64_t window, bool look)
{
	struct bucket_rule rule = {
		.burst = most, .tokens = most, .window_sec = window, .look = look
	};
	struct rate rate;

	if (!r->app->conf->auth_rate_limits || !r->ip)
		return 0;
	if (rate_bucket(
		r->app->queue, talloc_asprintf(r, "%s:%s", what, network_of(r)), &rule, &rate))
		return 0;
	reply_header(r, "Retry-After", "%" PRId64, rate.retry_after);
	return fail(r, E_RATE, "too many tries from your address; try again later");
}

int
address_take(struct request *r, enum address_kind kind)
{
	const struct conf *c = r->app->conf;
	const struct {
		const char *name;
		int64_t most, window;
	} rules[] = {
		[ADDRESS_SIGNIN] = { "signin", c->auth_address_signins, 3600 },
		[ADDRESS_SIGNUP] = { "signup", c->auth_address_signups, 3600 },
		[ADDRESS_RESET] = { "reset", c->auth_address_resets, 3600 },
		[ADDRESS_TOKEN] = { "token", c->auth_address_tokens, 900 },
	};

	return bucket(r, rules[kind].name, rules[kind].most, rules[kind].window, false);
}

/* --- devices -------------------------------------------------------------------------------- */

enum { DEVICE_BYTES = 32 };

const char *
device_cookie(struct request *r)
{
	const char *c = cookie_get(r, "device");

	return c && base64url_read(r, c).n == DEVICE_BYTES ? c : "";
}

struct bytes
device_hash(struct request *r, const char *cookie)
{
	uint8_t *h = talloc_array(r, uint8_t, HASH_SIZE);

	crypto_hmac(r->app->keys->key[KEY_DEVICE], cookie, strlen(cookie), h);
	return (struct bytes){ h, HASH_SIZE };
}

/* --- accounts ------------------------------------------------------------------------------- */

static int
too_many(struct request *r, const struct attempt *a, int32_t most_month)
{
	struct q_throttled *t;
	int n = q_throttle_wait(
	    r->work.db, &t, .subject = a->subject, .kind = a->kind, .most_month = most_month);

	if (n < 0)
		return -1;
	reply_header(r, "Retry-After", "%" PRId64, n ? t->wait_s : 1);
	return fail(r, E_RATE, "too many failed sign-ins for this account; try again later");
}

/* The bucket of the account, or that of the account and a device it knows. */
static int
find_bucket(struct request *r, struct attempt *a)
{
	const char *cookie = device_cookie(r);
	struct bytes device = device_hash(r, cookie);
	struct q_device *d;
	char hex[2 * HASH_SIZE + 1];

	if (q_device_of(r->work.db, &d, .user = a->user ? a->user->id : NULL, .hash = device) < 0)
		return -1;
	a->kind = *cookie && d->known ? "device" : "login";
	a->subject = *a->kind == 'l'
	    ? address_hash(r, a->email)
	    : address_hash(
		  r, talloc_asprintf(r, "%s\n%s", a->email, hex_write(hex, device.p, device.n)));
	return 0;
}

int
attempt_begin(struct request *r, const char *email, const struct q_user *u, const char *method,
    struct attempt *a)
{
	const struct conf *c = r->app->conf;
	int32_t most_month = INT32_MAX;
	struct q_taken *t;
	int n;

	*a = (struct attempt){ .email = email, .user = u, .method = method };
	if (bucket(r, "failure", c->auth_address_failures, 900, true) < 0)
		return -1;
	if (find_bucket(r, a) < 0)
		return -1;
	if (*a->kind == 'l')
		most_month = (int32_t)c->auth_account_failures_month;
	n = q_throttle_take(r->work.db, &t, .subject = a->subject, .kind = a->kind,
	    .most = (int32_t)c->auth_account_failures, .most_month = most_month);
	if (n < 0)
		return -1;
	if (n == 0)
		return too_many(r, a, most_month);
	a->failures = t->failures;
	if (db_commit(r->work.db) < 0)
		return -1;
	db_begin(r->work.db);
	return 0;
}

static int
audit_failure(struct request *r, const struct attempt *a, const char *reason, int32_t before)
{
	char hex[2 * HASH_SIZE + 1];
	struct bytes who = address_hash(r, a->email);
	struct buf meta = BUF(r);

	buf_fmt(&meta, "{\"reason\":\"%s\",\"method\":\"%s\",\"count\":%d", reason, a->method,
	    (int)before + 1);
	if (!a->user)
		buf_fmt(&meta, ",\"address_hash\":\"%s\"", hex_write(hex, who.p, who.n));
	buf_chr(&meta, '}');
	return audit_add(&r->work, AUDIT_AUTH_LOGIN_FAILED,
	    &(struct audit){ .resource_id = a->user ? id_text(r, "usr-", a->user->id) : NULL,
		.subject = a->user ? a->user->id : NULL,
		.metadata = meta.data,
		.data = talloc_asprintf(r, "{\"method\":\"%s\"}", a->method) });
}

static int
audit_locked(struct request *r, const struct attempt *a)
{
	return audit_add(&r->work, AUDIT_AUTH_LOCKED,
	    &(struct audit){ .resource_id = a->user ? id_text(r, "usr-", a->user->id) : NULL,
		.subject = a->user ? a->user->id : NULL,
		.metadata =
		    talloc_asprintf(r, "{\"bucket\":\"%s\",\"method\":\"%s\"}", a->kind, a->method),
		.data = talloc_asprintf(r, "{\"method\":\"%s\"}", a->method) });
}

int
attempt_failed(struct request *r, const struct attempt *a, const char *reason)
{
	struct q_failure_log *log;
	int n = q_throttle_log(r->work.db, &log, .subject = a->subject, .kind = a->kind);

	if (n < 0)
		return -1;
	if (n && log->due && audit_failure(r, a, reason, log->before) < 0)
		return -1;
	if (a->failures == r->app->conf->auth_account_failures && audit_locked(r, a) < 0)
		return -1;
	if (db_commit(r->work.db) < 0)
		return -1;
	job_announce(&r->work, r->app->queue);
	db_begin(r->work.db); /* what the caller adds is a transaction of its own */
	(void)bucket(r, "failure", r->app->conf->auth_address_failures, 900, false);
	r->work.err = (struct err){ 0 };
	return 0;
}

int
attempt_good(struct request *r, const struct attempt *a, bool whole)
{
	return q_throttle_good(r->work.db, .subject = a->subject, .kind = a->kind, .whole = whole);
}
