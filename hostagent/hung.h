/*
 * hung.h - a QEMU that does not answer any more is killed (spec 02 §6.12).
 *
 * Each machine that is not being started, saved or ended is asked for its status every few seconds.
 * Silent for agent.hung_sec: it is ended, and its capsule goes to error vmm_hung. A guest that is
 * silent is only a condition (metrics.h).
 */
#pragma once
#include "agent.h"

void hung_start(struct agent *);
