/*
 * route.h - the gateway's routes (rows of proto/route.h), and how a request finds its handler.
 *
 * `hutch-gateway -T routes` prints the rows; the web servers' routing fragments come from them.
 */
#pragma once
#include "proto/route.h"
#include "request.h"

/* Two rows: of the team's capsules, and of the Platform's for the platform's administrators, by the
 * same handler (spec 02 §2.3). */
#define CAPSULE_ROUTES(method, below, perm, fn, doc, flags, ...)                                 \
	{ method, "/v1/capsules/{id}/" below, POOL_GATEWAY, perm, fn, doc, flags, __VA_ARGS__ }, \
	{                                                                                        \
		method, "/v1/admin/capsules/{id}/" below, POOL_GATEWAY, PLATFORM_ADMIN, fn,      \
		    doc "; the Platform's capsules", (flags) | OF_PLATFORM, __VA_ARGS__          \
	}

/* Rows with an input get their JSON body read first; the others set on_body and on_body_end
 * themselves. */
extern const struct route exec_routes[], exec_stream_routes[], pty_routes[], watch_routes[],
    process_routes[], file_routes[], metrics_routes[], logs_routes[], events_routes[];

/* A request's head has arrived: finds its row, asks who may, runs the handler; or answers the
 * error. */
void route_request(struct request *);
/* The call failed because the capsule does not run any more: true, it begins anew. */
bool route_again(struct request *);
/* All of them, ended by NULL; -T prints them. */
extern const struct route *const route_tables[];

/* %XX for everything but unreserved characters, for a guest's query. */
void query_escape(struct buf *, const char *);
/* A decoded query parameter, or NULL. */
const char *query_get(struct request *, const char *name);
