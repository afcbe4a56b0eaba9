/*
 * image.h - memory images: what clones of one template, vCPU count and memory size start from.
 *
 * Made once by a cold boot (an artifact; state_dir/memory/<template>-<build>-<vcpus>x<memory> names
 * it), verified by checksums before use, then held in RAM as a sealed memory file that nobody can
 * write any more. An image that a capsule's memory refers to is one of these, too, whatever its
 * build.
 */
#pragma once
#include "agent.h"
#include "vm.h"

enum image_state { IMG_NONE, IMG_MAKING, IMG_LOADING, IMG_READY, IMG_FAILED };

struct image {
	TAILQ_ENTRY(image) link;
	struct agent *agent;
	enum image_state state;
	struct template *t;
	int vcpus, memory_mb;
	const char *name; /* of the file below memory/; "": known by its id only */
	char id[65];      /* of the artifact; "": not known yet */
	int memory;       /* the sealed memory file */
	int device_state; /* the thin stream */
	int disk;         /* the disk as it was then: clones' overlays lie on it */
	uint64_t disk_size;
	struct err why;   /* IMG_FAILED */
	int64_t retry_at; /* IMG_FAILED: now_mono() from which it may be tried again */
	bool pinned;      /* scaling.c wants it held, with at least so many clones: */
	size_t hot, waiting;
	struct pool *pool;
	struct image_job *job;
};

/* The image of this shape, known or new; it moves to the front of agent->images. */
struct image *image_get(struct agent *, struct template *, int vcpus, int memory_mb);
/* The same, at the end when new: nobody has used it. */
struct image *image_known(struct agent *, struct template *, int vcpus, int memory_mb);
/* Sees to it that it becomes IMG_READY: loads it from disk, else boots a template and makes it. */
void image_want(struct image *);
/* The image with this id, for a memory that refers to it. */
struct image *image_of_id(struct agent *, const char *id);
/* Whether it is the image of a shape, or held. */
bool image_uses(struct agent *, const char *id);
/* At start: the images that are there already. */
void image_load_all(struct agent *);
/* What is more than its share of RAM is let go; what is pinned has it first. */
void image_trim(struct agent *);
const char *image_state_name(enum image_state);
/* Bytes of RAM that its memory file has now: not its zeros, until a clone is saved. QEMU reads all
   of it then, and what is read through a mapping the kernel allocates, for good: no process may
   punch holes into what is sealed. */
uint64_t image_holds(const struct image *);

/* pool.c: ready clones. */
struct vm *pool_take(struct image *); /* NULL: none ready; refilling begins */
void pool_fill(struct agent *);       /* starts what is missing; call when something changed */
void pool_drop(struct image *);       /* destroys its clones */
size_t pool_ready(const struct image *);
bool pool_memory(const struct agent *); /* the host's memory allows more clones */
/* Appends members: what is ready, wanted, and what creates got. */
void pool_json(const struct image *, struct buf *);
/* The same of all shapes, by name. */
void pools_json(const struct agent *, struct buf *);
