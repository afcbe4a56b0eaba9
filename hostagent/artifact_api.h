/*
 * artifact_api.h - artifacts and templates between hosts (spec 02 §5.6).
 *
 *  GET /artifacts                           the ids of all
 *  GET /artifacts/{id}                      its manifest
 *  GET /artifacts/{id}/files/{f}/chunks/{n} 4 MiB of a file, zstd
 *  PUT /artifacts/{id} {"from":"https://…"} pulls it, its parents and its template from that host
 *  DELETE /artifacts/{id}                   drops it, unless something lies on it
 *
 * templates/{name} stands in the place of {id} for a folder of agent.image_dir: its manifest is
 * template.json.
 */
#pragma once
#include "api_call.h"
#include "tls.h"

api_handler artifact_api_list, artifact_api_get, artifact_api_pull, artifact_api_delete;

/* artifact_pull.c: what a pull does, in a thread. what: an id, or templates/name. digest: of the
 * template's files, or NULL. from: the other host's address. */
struct pull_env {
	int state;             /* the state directory */
	const char *image_dir; /* of templates */
	const char *from;
	struct tls_self self; /* our certificate */
	const char *digest;
};
int pull_run(const struct pull_env *, const char *what, struct err *);
