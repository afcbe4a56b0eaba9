/*
 * mail.h - e-mail: a row and a job in the transaction that causes it; later rendered and sent (spec
 * 04 §3).
 */
#pragma once
#include "buf.h"
#include "conf.h"
#include "crypto.h"
#include "field.h"
#include "id.h"
#include "work.h"

struct mail_new {
	const char *template;     /* a row of mail_kinds[]: "activate" */
	const struct uuid *user;  /* or NULL */
	const char *to;           /* address, already checked */
	const char *name;         /* of the person, or NULL */
	const struct pair *vars;  /* no secrets; ends with a NULL name; may be NULL */
	const struct uuid *token; /* row of one_time_tokens whose token is mailed, or NULL */
	const char *purpose;      /* as given to crypto_mail_token() */
	int64_t expires_at;       /* later it is not worth sending; 0: 24 h */
};

/*
 * Inserts the mail and its job mail.send in the caller's transaction. 1: it will be sent. 0: it is
 * recorded, but not sent (the address bounced, or has had its share of this hour). -1: error.
 */
int mail_add(struct work *, const struct keys *, const struct mail_new *);

struct mail_kind {
	const char *name;
	const char *link; /* path of the page that takes the token, or NULL */
	bool anybody;     /* strangers can cause it: 5 an hour and address */
	bool notice;      /* a security notice: never dropped */
	const char *doc;
};
extern const struct mail_kind mail_kinds[]; /* ends with a NULL name */

/* A rendered mail. */
struct mail {
	const char *to, *subject, *text, *html;
	const char *id;       /* left side of the Message-ID */
	const char *template; /* for X-Hutch-Template */
};

/* Renders the template: subject, text, html. vars end with a NULL name. E_CONFIG: no such file. */
int mail_render(void *mem, const struct conf *, const char *template, const char *locale,
    const struct pair *vars, struct mail *ret, struct err *);

enum mail_phase { MAIL_CONNECT, MAIL_AUTH, MAIL_FROM, MAIL_RCPT, MAIL_DATA };
struct mail_result {
	int code;              /* last SMTP code, 0: none */
	enum mail_phase phase; /* in which it was said */
};
/*
 * Sends it by SMTP, or writes it as a file (0600) to mail.dir when smtp.host is empty. -1:
 * E_THROTTLED (4xx), E_BOUNCED (5xx to the recipient or the content: see ret->phase), E_SMTP (all
 * else).
 */
int mail_send(
    void *mem, const struct conf *, const struct mail *, struct mail_result *ret, struct err *);
