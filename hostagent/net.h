/*
 * net.h - the agent's side of the capsules' networks: whose policy holds where.
 *
 * A capsule's policy is kept in state_dir/network/<id> until the capsule is gone, so that every
 * start, resume, fork and adoption finds it: net_keep() before, net_open() before the guest's
 * init. Where there are no network namespaces both work, and no guest has a way out.
 */
#pragma once
#include "agent.h"
#include "json.h"

/* Starts the proxy. Call it once the launcher is there. */
int net_start(struct agent *, struct err *);
/* What this capsule may reach from now on: {"internet":…,"allow":[…],"deny":[…],"smtp":…}, NULL:
   {}. A bad one is E_BAD_INPUT and changes nothing. On disk when it returns. */
int net_keep(struct agent *, const char *capsule, struct json_object *, struct err *);
/* The VM is this capsule's: its policy holds there, its way out is open. A no-op when it is so
   already. A capsule without a policy on disk reaches nothing. */
int net_open(struct agent *, struct vm *, const char *capsule, struct err *);
/* The policy was changed: it holds now, for open connections too. Takes some ten milliseconds. */
int net_renew(struct agent *, struct vm *, const char *capsule, struct err *);
/* The VM is gone. */
void net_close(struct vm *);
/* Policies of capsules that are gone are removed. */
void net_sweep(struct agent *);
