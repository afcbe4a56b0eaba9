/* gateway.h - one gateway process: its loop and what hangs on it. */
#pragma once
#include "conf.h"
#include <stdbool.h>
#include <uv.h>

struct front;
struct keys;
struct back;
struct doorman;
struct doors;
struct key_count;
struct tally;
struct tally_all;
struct rights;
struct feed;
struct live;
struct sock;
struct tls_ctx;

struct gateway {
	uv_loop_t *loop;
	const struct conf *conf;
	const struct keys *keys;
	struct front *front;         /* towards the web server */
	struct back *back;           /* towards the host agents */
	struct doorman *doorman;     /* who may */
	struct doors *doors;         /* the same for ports */
	struct tls_ctx *anyone;      /* TLS to their services; or NULL: none was asked for */
	struct key_count *key_count; /* what API keys are used for */
	struct tally *busy;          /* requests at once, per capsule and per credential */
	struct tally *strangers;     /* WebSockets that have not said who asks, per address */
	struct tally_all *tally_all; /* streams and listeners at once, of all processes */
	struct rights *rights;       /* of open streams, asked again and again; or NULL */
	struct feed *feed;           /* live events; or NULL */
	struct live *live;           /* figures that are shown live; or NULL */
	struct sock *socks;          /* upgraded connections */
	bool draining;
};
