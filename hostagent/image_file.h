/*
 * image_file.h - a memory image on disk: memory, state, disk.qcow2 and header.json with their sums.
 *
 * Written aside, fsynced, renamed; verified whole before use. Everything here blocks: call it from
 * a thread.
 */
#pragma once
#include "agent.h"

struct image_file {
	int state_fd;        /* the agent's state directory */
	char name[160];      /* of the folder below memory/ */
	const char *machine; /* qemu_machine(): another one does not load this memory */
	uint64_t memory_size, disk_size;
	/* image_file_load() fills these: */
	int memory, device_state; /* sealed memory files */
	int disk;
	uint64_t bytes; /* of memory that is not zero */
};

/* Gives the finished folder memory/<name>.tmp its header and its name. */
int image_file_finish(struct image_file *, struct err *);
/* E_NOT_FOUND: there is none. E_TAMPERED: damaged, or of another QEMU or machine; remove it. */
int image_file_load(struct image_file *, struct err *);
/* Removes memory/<name><suffix>; open files live on. */
void image_file_remove(int state_fd, const char *name, const char *suffix);
