/*
 * control.h - what the agent tells the control plane: registration, heartbeat, reports.
 *
 * Nothing depends on it: when the control plane is away, capsules run on and reports wait.
 */
#pragma once
#include "agent.h"

struct capsule;

/* Starts to talk if agent.control_url is set. -1: the configuration is wrong. */
int control_start(struct agent *, struct err *);
/* It takes our credentials, or there is none. */
bool control_trusts(const struct agent *);
/* Which database we registered with, or "". */
const char *control_cluster(const struct agent *);
/* How many reports it has not confirmed yet. */
size_t control_waiting(const struct agent *);
/* Is this our id at the control plane? */
bool control_is_host(const struct agent *, const char *id);
/* Destroys all capsules, forgets who we are and our keys; the agent then works alone. */
void control_decommission(struct agent *);
/* A capsule has another state: it is reported. Before control_start(): nothing happens. */
void control_changed(const struct capsule *);
/* Something happened to one that stays in its state ("pause_failed"), with a sentence: the same. */
void control_notice(const struct capsule *, const char *code, const char *text);
