/*
 * vm.h - one QEMU process and what belongs to it: uid, folder, disk, sockets, memory.
 *
 * A VM's folder is state_dir/vm/<name>/: q (control socket), g (guest socket), serial,
 * disk.qcow2, log.
 * Freeing a struct vm closes connections and never touches the process: that is vm_destroy()'s.
 */
#pragma once
#include "agent.h"
#include "chain.h"
#include "json.h"

enum { CAPSULE_ID_MAX = 40 };

enum vm_state {
	VM_NEW,     /* being started */
	VM_WAITING, /* started for a pool: vm_load() is next */
	VM_STOPPED, /* ready, vCPUs stand still */
	VM_RUNNING,
	VM_DYING, /* killed, not yet gone */
	VM_DEAD,  /* the process is gone; the folder may be there */
};

struct vm {
	TAILQ_ENTRY(vm) link;
	struct agent *agent;
	enum vm_state state; /* changed by vm.c only */
	char name[32];
	struct template *t;
	int vcpus, memory_mb;
	enum accel accel;
	struct image *image;     /* cloned from; NULL: cold boot, or another memory */
	char parent[LAYER_NAME]; /* image artifact that its memory came from; "": none */
	struct chain chain;
	enum { VM_CRASHED, VM_POWEROFF, VM_RESET } ended; /* by the guest's wish, or not */
	bool frozen; /* the user's processes stand still until an init or vm_thaw() */
	int dir;     /* its folder */
	uid_t uid;
	pid_t pid;
	uint64_t start;              /* proc_start(pid) */
	char net_of[CAPSULE_ID_MAX]; /* net.c: the capsule whose policy holds; "": shut */
	uint64_t disk_size;          /* bytes, of the file that is written */
	struct qmp *qmp;             /* NULL: not connected */
	struct guest *guest;
	struct serial *serial; /* logs.c: its console */
	int status;            /* of wait(), -1 unknown */
	int64_t silent_since; /* hung.c: now_mono() of the first question without answer; 0: none */
	bool asked;           /* hung.c: one is open */
	/* called once when the process ends without vm_destroy(); may destroy the VM */
	void (*on_dead)(void *user, struct vm *);
	void *user;
	struct sums *sums; /* of the state file that vm_save() made last, until somebody takes it */
	struct vm_run *run; /* what is going on with it; inside vm.c */
};

typedef void vm_done(void *user, const struct err *); /* NULL: done */

/* What vm_start() makes. hot: a clone that answered once and was stopped again, for the pool. */
struct vm_spec {
	struct template *t;
	int vcpus, memory_mb;
	enum accel accel;    /* ACCEL_UNKNOWN: the agent's */
	struct image *image; /* clone it; NULL: cold boot */
	uint64_t disk_size;  /* of a new file: at least the template's; of clones: the image's */
	bool waiting;        /* the state is not loaded: vm_load() does it */
	bool hot, soon;      /* soon: before others that wait for a free start */
	/* A memory of its own: this stream is loaded, over this memory file (-1: over zeros), and
	   the VM stays stopped, its guest session closed. The descriptors are the caller's until
	   done(). */
	bool restore;
	int state, memory;
	const char *parent;        /* with restore */
	const struct chain *chain; /* with restore or a cold boot; NULL: an empty disk */
	const char
	    *folder; /* this folder is there, with the disk that is written; NULL: a new one */
	int boot_ms; /* deadline of all of it once a start is free; 0: the configuration's */
};

/* Starts one; done(user, err) when its guest answered GET /health. On failure vm_destroy() it. */
struct vm *vm_start(struct agent *, const struct vm_spec *, vm_done *, void *user);

/* The rest of a start that was to wait: loaded, running, its guest answered. */
void vm_load(struct vm *, vm_done *, void *user);
void vm_cont(struct vm *, vm_done *, void *user);
void vm_stop(struct vm *, vm_done *, void *user);
/* Makes the second disk larger; the guest's kernel hears of it. */
void vm_grow_disk(struct vm *, uint64_t size, vm_done *, void *user);
/* The guest's file system takes all of that disk. */
void vm_grow_guest(struct vm *, vm_done *, void *user);
/* Memory through the stream filter into `memory`, device state to `state`; the VM must be stopped
   and stays so. With done, both files are complete. memory -1: what differs from the memory file
   `parent` (-1: from zeros) goes to `state`, too. sum: vm->sums; not where somebody waits for the
   VM to go on, summing is slower than QEMU. */
void vm_save(struct vm *, int memory, int parent, int state, bool sum, vm_done *, void *user);

/* vm_sleep.c: the user's processes stand still; sync: the guest writes its file systems first. */
void vm_freeze(struct vm *, bool sync, vm_done *, void *user);
void vm_thaw(struct vm *, vm_done *, void *user);
/* Closes the guest session, so that nothing of it is in the memory that is taken then. */
void vm_leave(struct vm *, vm_done *, void *user);
/* Opens it and sees, by a nonce, that the answer is ours: after a restore the guest may still be in
   the session of the one that was saved. */
void vm_meet(struct vm *, vm_done *, void *user);
/* A fresh file on top of the disk, prepared while it runs; then the switch to it, stopped. The file
   that was written becomes a layer of chain. */
void vm_disk_prepare(struct vm *, vm_done *, void *user);
void vm_disk_switch(struct vm *, vm_done *, void *user);
/* Copies all layers but those of the template's image into the written file, while it runs. */
void vm_disk_flatten(struct vm *, vm_done *, void *user);
void vm_disk_flatten_cancel(struct vm *);

/* Whether an earlier agent started it. */
bool vm_is_adopted(const struct vm *);
/* Nobody waits any more for what goes on with it, or for its end. */
void vm_abandon(struct vm *);
/* Kills it, removes its folder, gives the uid back, frees it; done may be NULL. From any state. */
void vm_destroy(struct vm *, vm_done *, void *user);
/* The same, but the folder stays: a disk to go on with, an image. */
void vm_release(struct vm *, vm_done *, void *user);
/* A process that an earlier agent started. */
struct vm_found {
	const char *name;
	struct template *t; /* NULL: its build is not in image_dir any more */
	int vcpus, memory_mb;
	uint64_t disk_size;
	enum accel accel;
	uid_t uid;
	pid_t pid;
	uint64_t start;
	struct chain chain;
	const char *parent;
	bool asleep; /* it is to stand still: a running one is stopped */
};

/* Takes it over. done: control socket and guest answer, it runs. NULL: it is not what was found. */
struct vm *vm_adopt(struct agent *, const struct vm_found *, vm_done *, void *user, struct err *);

/* Opens the guest session again after it was closed on purpose or broke. -1: the socket is not
 * there. */
int vm_guest_open(struct vm *, struct err *);

/* A connection to a socket of its folder: "q", "g", "serial" (what the guest prints). -1 and why.
 */
int vm_connect(const struct vm *, const char *name, struct err *);

/* The folder of this name; -1: there is none. */
int vm_folder_open(struct agent *, const char *name);
/* A VM of this folder name, with a process or not: removes all that is left. For leftovers of a
 * crash. */
void vm_sweep(struct agent *, const char *name, pid_t pid, uint64_t start);

/* The launcher told that a process ended. */
void vm_exited(void *agent, pid_t, int status);
size_t vm_starting(const struct agent *); /* running or waiting starts */

/* uids: one per VM, from the configured range. */
int uid_lease(struct agent *, uid_t *ret, struct err *);
int uid_take(struct agent *, uid_t, struct err *); /* this one (adoption) */
void uid_return(struct agent *, uid_t);
int uid_free(const struct agent *); /* how many are left */
