/*
 * account.h - what the routes of sign-in and of one's own account share: throttled attempts, hashes
 * behind the gate, one-time tokens, mails about the account.
 */
#pragma once
#include "api.h"
#include "cleanup.h"
#include "users.q.h"

/* --- account.c --- */
/* 0, or E_BAD_INPUT that names the field: what is wrong with a new password of this person. */
int password_good(
    struct request *, const char *field, const char *password, const char *email, const char *name);
/* The hash, computed when the gate lets it; NULL: the unit's err says why. */
const char *account_hash(struct request *, const char *password);
/* 1: it is the password, 0: not (stored NULL: after the same work), -1: the gate was shut for too
 * long. */
int account_verify(struct request *, const char *password, const char *stored);
/* A good password in an old form gets today's. */
int account_rehash(struct request *, const struct q_user *, const char *password);

/* The HMAC that stands for an address in throttles and mails. */
struct bytes address_hash(struct request *, const char *email);
/* A token of this purpose that a mail will carry; its row's id goes to *id. */
int mailed_token(struct request *, const struct uuid *user, const char *purpose,
    const char *payload, int64_t ttl, struct uuid *id);
/* Its row, taken: the first caller gets it. 1, 0: unknown, expired or used, -1. */
int mailed_token_take(struct request *, const char *token, const char *purpose, struct q_token **);
/* A mail about the account, with when, where from and by which program. to NULL: the user's
 * address. 1, 0: not sent, -1. */
int account_mail(struct request *, const char *template, const struct q_user *, const char *to,
    const struct uuid *token, const char *purpose, const struct pair *more);
/* Answers that must not tell by their time what was done: each leaves 40 ms after this call, at the
 * earliest. */
void answer_evenly(struct request *);

/* --- throttle.c: spec 01 §3 --- */
/* A token of the caller's address for this kind of call, or E_RATE with Retry-After. */
enum address_kind { ADDRESS_SIGNIN, ADDRESS_SIGNUP, ADDRESS_RESET, ADDRESS_TOKEN };
int address_take(struct request *, enum address_kind);

struct attempt {
	const char *email;         /* normalised: of an account or not */
	const struct q_user *user; /* NULL: no account has the address */
	struct bytes subject;      /* the bucket */
	const char *kind;          /* "login", or "device": a device that the account knows */
	const char *method;        /* for the audit row */
	int failures;              /* in the window, this one included */
};
/*
 * Counts an attempt as failed before the costly part begins, and commits that: a crowd of attempts
 * at once gets no more tries than one after the other. Known and unknown addresses cost the same.
 * E_RATE with Retry-After.
 */
int attempt_begin(struct request *, const char *email, const struct q_user *, const char *method,
    struct attempt *);
/* It was no good: audit row and event (one in ten minutes), committed. Always returns -1 or 0
 * without an error set. */
int attempt_failed(struct request *, const struct attempt *, const char *reason);
/* It was good. whole: the window begins anew. */
int attempt_good(struct request *, const struct attempt *, bool whole);
/* The device of this request, "" without one: 43 characters of base64url. */
const char *device_cookie(struct request *);
struct bytes device_hash(struct request *, const char *cookie);

/* --- auth_signup.c --- */
extern const struct field signup_fields[], signup_answer_fields[], activate_fields[],
    resend_fields[];
struct signup {
	const char *email, *password, *name, *invitation_token;
};
struct activate {
	const char *token;
};
struct resend {
	const char *email, *password;
};
handler signup, activate, resend;

/* --- auth_mfa.c --- */
extern const struct field mfa_in_fields[], reauth_fields[];
struct mfa_in {
	const char *mfa_token, *type, *code;
};
struct reauth {
	const char *password, *type, *code;
};
handler auth_mfa, auth_reauth;
/* 1: the code of one of the user's factors, now used up; 0: it is none; -1. type: "totp" or
 * "backup". */
struct q_factor;
/* The secret of a factor, as it is stored and as it is; p NULL: the unit's err. */
struct bytes factor_seal(struct request *, const struct uuid *id, const uint8_t *, size_t);
struct bytes factor_secret(struct request *, const struct q_factor *);
int factor_check(struct request *, const struct uuid *user, const char *type, const char *code);
