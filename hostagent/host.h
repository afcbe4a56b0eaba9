/* host.h - the machine: what it has, what is free, what the operator should know. */
#pragma once
#include "agent.h"

struct host {
	uint64_t memory_mb, free_memory_mb; /* free: what programs can still get */
	uint64_t disk_mb, free_disk_mb;     /* of the state directory's file system */
	double load;                        /* of the last minute */
};

int host_facts(const struct agent *, struct host *ret, struct err *);
/* Appends "accel_tcg","network_user_mode",…: conditions of the host, as JSON texts. */
void host_conditions(const struct agent *, struct buf *);
/* Whether so many MiB may be written: E_NO_SPACE. */
int host_disk_room(const struct agent *, uint64_t mb, struct err *);
/* Whether a capsule may be added: E_OVERLOADED, E_NO_SPACE. */
int host_room(const struct agent *, struct err *);
/*
 * What a memory image needs of the machine that loads it, as one text: architecture, accelerator,
 * CPU (under TCG the clock rate, under KVM model and features), release of QEMU, machine. Equal
 * texts: it fits.
 */
const char *host_cpu_class(const struct agent *);
