/*
 * freeze.h - the user's processes stand still while the host takes memory, and until an init.
 *
 * All of them are below /sys/fs/cgroup, in the group "user" or in groups that they made; the agent
 * is in the root group, which never freezes.
 */
#pragma once
#include "call.h"

void freeze_init(void); /* makes the group, once */
void freeze_join(void); /* in a child, before it becomes a program of the user's */
void freeze_thaw(void);

/* POST /freeze {"sync"?: bool}: 204 when nothing of the user runs any more (or after 200 ms: what
   still is inside of the kernel stops when it comes out). sync: the file systems are written first.
 */
call_fn freeze_call;
/* POST /unfreeze: 204. */
call_fn freeze_undo_call;
