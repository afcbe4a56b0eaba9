/*
 * accel.h - KVM or TCG: decided by booting a guest, since a /dev/kvm that is there may not work.
 */
#pragma once
#include "agent.h"

/* Decides a->accel, then calls ready(agent). The answer is kept in state_dir/accel.json for this
   kernel, QEMU and boot of the machine. */
void accel_choose(struct agent *, void (*ready)(struct agent *));
