/*
 * guest.h - the agent's HTTP/2 session with one guest, over the VM's virtio-serial port.
 *
 * A session begins with a mark (h2_mark.h): no request leaves before the guest has said it back, so
 * none is sent to or answered by a session of before. One that cannot begin refuses its streams.
 * The guest is hostile: answers are bounded, calls have deadlines, a broken session is closed.
 */
#pragma once
#include "agent.h"
#include "h2.h"

struct guest;

/* Streams of the session belong to calls of this file or to a bridge: both hang such a thing on
 * them. */
struct guest_peer {
	const struct h2_events *events;
};

/* The answer's body is bounded (64 KiB), NUL-terminated, plain text unless status is 2xx. Or err.
 */
typedef void guest_answer(void *arg, int status, const char *body, size_t len, const struct err *);

struct guest_call {
	const char *method, *path, *token, *type; /* token, type (of the body): NULL is none */
	const void *body;
	size_t len;
	uint64_t timeout_ms;
	const char
	    *nonce; /* sent as x-hutch-nonce; an answer without it is not ours and an error */
};

/* Takes over the connected socket. gone(user, err) once when the session breaks; not after a free.
 */
struct guest *guest_open(void *mem, uv_loop_t *, int fd, void (*gone)(void *, const struct err *),
    void *user, struct err *);

/* answer(arg, …) comes exactly once, from the loop, unless owner (talloc) is freed before.
 * E_CLOSED: the guest did nothing with it, on another session it may be asked again. */
void guest_call(struct guest *, void *owner, const struct guest_call *, guest_answer *, void *arg);

/* False: the session goes to its end, nothing new begins on it. */
bool guest_takes(const struct guest *);

/* A stream for a bridge: head as of h2_request(); peer's events get all of it. */
struct h2_stream *guest_stream(
    struct guest *, const struct h2_header *head, bool end, struct guest_peer *, struct err *);

/* Ends the streams, waits until the guest has read all of it, closes: gone() follows. Before memory
 * is taken. */
void guest_leave(struct guest *);
