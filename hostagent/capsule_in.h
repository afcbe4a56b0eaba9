/* capsule_in.h - what capsule.c and the capsule_*.c files share; nobody else includes it. */
#pragma once
#include "artifact.h"
#include "capsule.h"
#include "flow.h"
#include "vm.h"

/* One thing at a time goes on with a capsule. */
struct capsule_op {
	struct capsule *capsule;
	const char *name; /* start, pause, save, … */
	struct capsule_spec spec;
	void *spec_mem; /* what it points to */
	struct flow *flow;
	struct template *t;
	struct vm *vm; /* not yet the capsule's */
	bool pooled, again;
	bool quiet; /* nobody asked for it: who comes waits for its end (persisting, flattening) */
	int64_t began, epoch;
	char by[16];
	/* of a memory that is loaded or taken */
	struct timer *timer;
	struct chain chain;        /* of the disk that is started from */
	char parent[LAYER_NAME];   /* image below the memory; "": none */
	uint64_t disk_size;        /* that the memory knows its disk by; 0: the capsule's */
	struct image *image;       /* it, held ready */
	int state;                 /* the stream's file, -1: none */
	int flat;                  /* all of the memory, when others start from it, too; -1 */
	bool memory;               /* with memory */
	bool was_running, stopped; /* what must be undone */
	struct image_check *check; /* capsule.c */
	struct seal_job *seal;
	struct sums *sums;           /* of the image that was written; NULL: it is to be read */
	struct state_job *state_job; /* capsule_sleep.c */
	struct err why;              /* what is undone because of */
	char folder[32];             /* of the VM that goes */
	unsigned tries;
	bool disk_alone; /* hibernates: there is no VM and no memory any more */
	bool persisted;  /* its image was in the folder before */
	bool committed, flattens, grows;
	int64_t old_epoch, down_at;
	char key[LAYER_NAME]; /* hutch-op of a snapshot */
	struct capsule_made *made;
};

/* What a snapshot or hibernation made. */
struct capsule_made {
	char memory[LAYER_NAME], disk[LAYER_NAME];               /* "": none */
	char memory_parent[LAYER_NAME], disk_parent[LAYER_NAME]; /* artifacts below; "": none */
	uint64_t bytes;                                          /* of the files that are new */
	uint64_t logical; /* of the guest's memory and disk */
};

struct capsule_op *capsule_op_new(struct capsule *, const char *name);
/* Ends the op: the capsule has none any more, who asked is answered, the op is freed. */
void capsule_op_end(struct capsule_op *, const struct err *);
/* All who asked hear of it. */
void capsule_answer(struct capsule *, const struct err *);
void capsule_ask(struct capsule *, void *mem, capsule_done *, void *arg);
/* Whether an op is in the way: a quiet one is waited for (again(arg) is called later, unless mem is
   freed), another one is E_CONFLICT. true: the caller is done. */
bool capsule_busy(struct capsule *, void *mem, void (*again)(void *), void *arg, struct err *);
/* Journal: the flow goes on when the record is on disk; without anybody who waits. */
void capsule_write(struct capsule_op *, const char *what);
void capsule_note(struct capsule *, const char *what);
/* Flow callbacks for a VM's done and for the guest's init. */
vm_done capsule_on_vm;
void capsule_vm_is(struct capsule *, const struct vm *);
/* Its VM's process ended by itself. */
void capsule_died(void *capsule, struct vm *);
/* The same of a VM for whose end nobody waits. What goes on with the capsule without it (a record
   is written, files are sealed) meets a dead VM, never none, at its next step; then this is heard.
 */
void capsule_on_dead(void *capsule, struct vm *);
/* Verifies op->spec.disk and .memory: op->chain, parent, state. */
void capsule_step_image(void *op);
/* Threads that work for the op find nobody any more. */
void capsule_op_orphan(struct capsule_op *);
void capsule_seal_orphan(struct capsule_op *);
/* It is up: its identity is remembered. */
void capsule_keep(struct capsule *, struct capsule_op *);
/* Waits until the image op->parent is in memory: op->image. */
void capsule_step_parent(void *op);
/* Several start from op->spec.memory: op->flat and a thin op->state are of the memory that they
   share. */
void capsule_step_flat(void *op);
/* POST /init for op->vm (or the capsule's): the whole identity, or what a resume changes. */
void capsule_init(struct capsule_op *, struct vm *, bool keep);

/* What a call for a sleep or resume said: kept while it waits for a quiet op. */
struct capsule_asked {
	struct agent *agent;
	char id[CAPSULE_ID], by[16];
	int64_t epoch;
	bool memory;
	const struct capsule_spec *spec; /* of a cold boot; NULL: with its memory */
	void *spec_mem;
	void *mem;
	capsule_done *done;
	void *arg;
	enum { ASK_PAUSE, ASK_RESUME, ASK_HIBERNATE, ASK_SNAPSHOT } what;
};

/* What all begin with: goal is reached, way is under way (joined). NULL: the call is answered or
 * waits. */
struct capsule *
capsule_begin(struct capsule_asked *, enum capsule_state goal, enum capsule_state way);

/* capsule_sleep.c: timers of a paused capsule; after adoption, too. */
void capsule_asleep(struct capsule *);
void capsule_awake(struct capsule *);
/* A paused one that has a process: its image is saved, or, when it is, the process ends. */
void capsule_to_disk(struct capsule *);
/* Steps of op->was_running, op->memory: freeze, close the session, stop; take memory into
   state.tmp; make that durable as state. */
void capsule_step_freeze(void *op), capsule_step_leave(void *op), capsule_step_stop(void *op);
void capsule_step_take(void *op), capsule_step_durable(void *op);
void capsule_choose_parent(struct capsule_op *);
vm_done capsule_on_frozen; /* of a freeze or a leave: a silent guest sleeps as well */
/* capsule_steps.c: sizes, template and memory (op->state, flat, image) of the op's VM; its disk is
   the caller's to say. */
struct vm_spec capsule_vm_spec(const struct capsule_op *);
/* op->vm is the capsule's. */
void capsule_own(struct capsule_op *);
/* The capsule is to have at least so much disk. */
void capsule_want_disk(struct capsule *, uint64_t bytes);
/* What the file that it writes has. */
uint64_t capsule_disk_has(const struct capsule *);
/* The VM's disk gets the size that the capsule is to have; init tells the guest. Only while the
   vCPUs run: QEMU 7.2 aborts when the disk of a machine that was saved and did not go on is
   resized. What fails is tried again later: a capsule that has run before goes on with what it has.
 */
void capsule_step_disk(void *op);
/* The guest was told what its disk has. */
void capsule_told_disk(struct capsule *, const struct vm *);
/* capsule_grow.c: goes on with what was promised, in the background. */
void capsule_grow_on(struct capsule *);
void capsule_step_meet(void *op), capsule_step_up(void *op);
int capsule_image_room(struct capsule *, struct err *);
void capsule_state_orphan(struct capsule_op *);
/* capsule_image.c: the image in the VM's folder is made durable, or verified and opened. */
void capsule_state_start(struct capsule_op *, bool write);
/* The sums of what the VM's save wrote are the op's. */
void capsule_state_sums(struct capsule_op *);
void capsule_state_remove(struct capsule *, const char *name);
/* The disk that is written is in its folder. -1: E_BAD_STATE says that it is not. */
int capsule_disk_here(struct capsule *, struct err *);
/* capsule_boot.c: boots the disk in its folder; op->t and op->spec are set, the capsule is
   CAP_RESUMING. */
void capsule_boot(struct capsule_op *);
/* It goes on running, or asleep; then the op ends with why. */
void capsule_undo(struct capsule_op *, const struct err *why);
void capsule_asleep_again(void *op, const struct err *);
/* Its residency changed: reported. */
void capsule_moved(struct capsule *);
/* capsule_snapshot.c: too many layers are copied into one, in the background. */
void capsule_flatten(struct capsule *);

/*
 * capsule_seal.c: makes artifacts of the VM's folder, in a thread: of every layer that is a file of
 * the folder, then (written) of the file that is written, then of the memory in the file `state`
 * (NULL: none). The chain and the ids are in the op when the flow goes on; a failure removes what
 * was made.
 */
void capsule_seal(struct capsule_op *, bool written, const char *state);
/* Removes what a seal made when the capsule nevertheless goes on with its files. */
void capsule_unseal(struct capsule *);
