/*
 * hash_slot.h - how many password hashes this machine computes at once (spec 01 §3): a flood of
 * sign-ins must not take all cores. Slots are lock files in shared memory: a killed process frees
 * its own.
 */
#pragma once

struct request;

/* Waits up to 3 s; then E_UNAVAILABLE. */
int hash_slot_take(struct request *);
void hash_slot_give(void);
