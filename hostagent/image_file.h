/*
 * image_file.h - a memory image on disk: an artifact with memory, state and disk.qcow2.
 *
 * memory/<name> holds the id of the image of a shape. Verified whole while it is loaded. Everything
 * here blocks: call it from a thread.
 */
#pragma once
#include "agent.h"
#include "artifact.h"

struct image_file {
	int state_fd;   /* the agent's state directory */
	char name[160]; /* of the file below memory/; "": loaded by id */
	const char
	    *machine; /* qemu_machine(): another one does not load this memory; NULL: whatever */
	uint64_t memory_size;
	/* what the manifest says of it: for image_file_finish() */
	const char *cpu_class, *qemu, *template, *build;
	int vcpus, memory_mb;
	uint64_t disk_size;
	/* image_file_load() fills these (image_file_finish() the id): */
	char id[ARTIFACT_ID];
	int memory, device_state; /* sealed memory files */
	int disk;
	uint64_t bytes; /* of memory that is not zero */
};

/* Seals what is in artifact_begin(name)'s folder and lets memory/<name> name it. */
int image_file_finish(struct image_file *, struct err *);
/* By name, or by id when the name is "". E_NOT_FOUND: there is none. E_TAMPERED: damaged, or of
   another QEMU or machine; remove it. */
int image_file_load(struct image_file *, struct err *);
/* The id in memory/<name>; false: there is none. */
bool image_file_id(int state_fd, const char *name, char ret[ARTIFACT_ID]);
/* Forgets memory/<name>, and removes the artifact. Open files live on. */
void image_file_remove(int state_fd, const char *name);
/* A sealed memory file of `size` bytes with what file `name` of the artifact holds, each chunk
   verified; its pages that are not zero are counted. -1. */
int image_sealed(
    int state_fd, const struct artifact *, const char *name, uint64_t *ret_bytes, struct err *);
