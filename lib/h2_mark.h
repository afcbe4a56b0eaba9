/*
 * h2_mark.h - whose bytes they are, on a line that knows no connections.
 *
 * A virtio-serial port keeps what an earlier peer left: the rest of its frames for one side, late
 * answers for the other, and the word that somebody came or went travels apart from the bytes. So a
 * client marks its session: 64 random bits in its first SETTINGS. A server that knows of marks says
 * them back as the first thing of its own SETTINGS. Until they come the client sends nothing but
 * its hello and drops what it hears: a request is never sent to, an answer never taken from, a
 * session that is not this one. No time is guessed.
 */
#pragma once
#include "buf.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Two settings of the range for experiments; a peer that does not know them ignores them. */
enum { H2_MARK_SETTING = 0xf4a6, H2_MARK_WORDS = 2, H2_MARK_SIZE = 12 };

struct h2_mark {
	uint32_t word[H2_MARK_WORDS]; /* 0, 0: none */
};

/* Makes it the mark of the client's hello p, which has one. */
void h2_mark_put(uint8_t *p, const struct h2_mark *);
/* The mark in a client's first bytes, its preface among them; none when it is not there. */
struct h2_mark h2_mark_of(const uint8_t *, size_t);

/* Where a client waits for its mark. */
struct h2_gate {
	struct h2_mark mark;
	bool again;     /* another hello was said: an answer without a mark ends it */
	struct buf in;  /* what may be its beginning; open: what the session hears first */
	size_t dropped; /* bytes of others */
};

/* 1: it opens, 0: not yet, -1: more came than an earlier session can have left. A server whose
   first word is a SETTINGS without any mark is one that knows of none: it opens for that, too. */
int h2_gate_feed(struct h2_gate *, const uint8_t *, size_t);
