/*
 * artifact.h - what outlives a virtual machine: disks, memories, template images; each sealed.
 *
 * An artifact is the folder state_dir/artifacts/<id>/ with manifest.json and the files it names.
 * The id is the SHA-256 of manifest.json, which holds the SHA-256 of every 4 MiB of every file: who
 * trusts the id trusts all of it. It is made aside (a name that is no id), fsynced, then renamed;
 * after that nothing of it changes. Functions with `state` (the descriptor of the state directory)
 * block: call those that read or write files from a thread.
 */
#pragma once
#include "err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct agent;

enum {
	ARTIFACT_ID = 65,
	ARTIFACT_CHUNK = 4 << 20,
	ARTIFACT_FILES = 4,
	ARTIFACT_MANIFEST_MAX = 8 << 20
};

struct artifact_file {
	const char *name; /* memory, state, disk.qcow2 */
	uint64_t size;
	size_t chunks;            /* of 4 MiB, the last one shorter */
	char (*sum)[ARTIFACT_ID]; /* of each chunk, hex; "" is all zeros */
};

struct artifact {
	char id[ARTIFACT_ID];
	const char *kind;   /* memory, disk, image, template */
	const char *parent; /* NULL: none */
	const char *cpu_class, *qemu, *machine;
	const char *template, *build; /* what lies below all: the files of agent.image_dir */
	int vcpus, memory_mb;
	uint64_t disk_size; /* of the capsule's disk, bytes */
	struct artifact_file file[ARTIFACT_FILES];
	size_t files;
};

bool artifact_id_ok(const char *id); /* 64 lower-case hex digits */

/* The manifest, checked against the id. NULL: E_NOT_FOUND, or E_TAMPERED. Fast: files are not read.
 */
struct artifact *artifact_read(void *mem, int state, const char *id, struct err *);
/* The same of a text that came from elsewhere. */
struct artifact *
artifact_parse(void *mem, const char *id, const char *text, size_t len, struct err *);
const struct artifact_file *artifact_file(const struct artifact *, const char *name);
/* One of its files, read only. */
int artifact_open(int state, const char *id, const char *name, struct err *);
bool artifact_have(int state, const char *id);

/* All files against the manifest. E_TAMPERED names what is wrong. */
int artifact_verify(int state, const char *id, struct err *);
/* Once per life of the agent and artifact; sealed files do not change in between. */
int artifact_verify_once(int state, const char *id, struct err *);
/* Whether these bytes are chunk n of the file. */
bool artifact_chunk_is(const struct artifact_file *, size_t n, const void *data, size_t len);

/* Makes the folder artifacts/<name>.tmp, empty, and opens it. name: of the maker, no id. */
int artifact_begin(int state, const char *name, struct err *);
/*
 * Sums what is in that folder and writes the manifest. meta: everything but id, sizes and sums; its
 * files are the names to take; one that has its sums already (sums.h) is not read. The id goes to
 * meta->id: another one may refer to it.
 */
int artifact_prepare(int state, const char *name, struct artifact *meta, struct err *);
/* The folder `name` is prepared, and becomes `id`. */
struct artifact_new {
	char name[128], id[ARTIFACT_ID];
};
/* Fsyncs and names them, all with as few waits for the disk as there can be. The same content twice
   is one artifact. Those that an error leaves nameless are the caller's to abort. */
int artifact_commit(int state, const struct artifact_new *, size_t n, struct err *);
/* Both, of one. */
int artifact_finish(int state, const char *name, struct artifact *meta, struct err *);
/* The same for one that was pulled: the folder has manifest.json too, and must be this id. */
int artifact_accept(int state, const char *name, const char *id, struct err *);
/* Removes the folder of a begun one. */
void artifact_abort(int state, const char *name);
/* Removes a finished one. Who has a file of it open keeps it. */
void artifact_remove(int state, const char *id);

/* Calls fn for every finished artifact. */
void artifact_each(int state, void (*fn)(void *arg, const char *id), void *arg);
/* Something on this host still lies on it: a capsule, another artifact, a template's image. */
bool artifact_used(struct agent *, const char *id);
