/*
 * scaling.h - what the control plane wants to stand ready here (spec 02 §5.7, §5.8): the memory of
 * shapes that nobody has used yet, least numbers of their clones, the share of RAM for images.
 *
 * The whole setting comes in one call, PUT /scaling, and is kept in scaling.json: the next agent
 * goes on with it. Until there was one the agent's own configuration holds.
 */
#pragma once
#include "agent.h"
#include "api_call.h"

struct image;

api_handler scaling_put, scaling_delete;

/* The agent's own configuration holds again. */
void scaling_forget(struct agent *);
/* At start: the setting that was kept. */
void scaling_open(struct agent *);
/* Sees to the memory of what is wanted, as far as its share of RAM goes. Again and again: templates
 * come and change. */
void scaling_hold(struct agent *);
/* The setting's version, as the control plane named it; "": there was none. */
const char *scaling_version(const struct agent *);
/* The share of RAM that memory images may have, in bytes. */
uint64_t scaling_share(const struct agent *);
/* A shape that is wanted had no room in that share. */
bool scaling_short(const struct agent *);
