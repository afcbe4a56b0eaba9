/*
 * ticket.h - tickets: what opens one stream for a browser, which can set no headers on it (spec 01
 * §4.3). POST /v1/auth/tickets makes them.
 */
#pragma once
#include "principal.h"
#include "work.h"

struct ticket_ask {
	const char *text;           /* of ?ticket= */
	const char *purpose;        /* exec, pty, process, files, logs, port, events */
	const struct uuid *capsule; /* NULL: of none */
	const char *origin;         /* the request's Origin, or NULL */
	bool strict;                /* a ticket made in a browser needs the same Origin here */
};
struct ticket {
	struct credential_look look; /* who made it: credential_resend() asks for him anew */
	struct uuid user, team, key; /* key: if by_key */
	bool by_key;
	int port; /* of purpose port */
};

/*
 * In a thread, on a connection with a unit of work: uses the ticket up, whatever comes of it. -1:
 * E_UNAUTHORIZED (unknown, used, late, or for something else), E_FORBIDDEN (another origin).
 * Whether its maker may still do it is to be asked behind this.
 */
int ticket_use(struct work *, const struct ticket_ask *, struct ticket *ret);
