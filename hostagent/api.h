/* api.h - the control API: HTTP/2 on a unix socket, base /agent/v1 (spec 02 §5.7). */
#pragma once
#include "agent.h"
#include "h2.h"

/* Begins to listen on agent.socket. Called when adoption is done: answers are then true. */
int api_start(struct agent *, struct err *);
/* Listens on agent.listen, too; again: nothing. Without a certificate: later. */
int api_listen(struct agent *, struct err *);

/* Streams of the API belong to a call or to a bridge; both hang such a thing on them. */
struct api_peer {
	const struct h2_events *events;
};

/* A JSON error with the kind's status; ends the stream. */
void api_error(struct h2_stream *, const struct err *);

/* bridge.c: a stream to the guest agent. path: as the guest sees it. */
void bridge_start(
    struct agent *, struct h2_stream *, const struct h2_head *, const char *id, const char *path);
/* A byte stream to a port of the guest's: CONNECT, its head read. */
void bridge_tunnel(
    struct agent *, struct h2_stream *, const struct h2_head *, const char *id, unsigned port);
