/*
 * vm.h - one QEMU process and what belongs to it: uid, folder, disk, sockets, memory.
 *
 * A VM's folder is state_dir/vm/<name>/: q (control socket), g (guest socket), serial,
 * disk.qcow2, log.
 * Freeing a struct vm closes connections and never touches the process: that is vm_destroy()'s.
 */
#pragma once
#include "agent.h"
#include "json.h"

enum vm_state {
	VM_NEW,     /* being started */
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
	struct image *image; /* cloned from; NULL: cold boot */
	int dir;             /* its folder */
	uid_t uid;
	pid_t pid;
	uint64_t start;     /* proc_start(pid) */
	uint64_t disk_size; /* bytes, of the overlay */
	struct qmp *qmp;    /* NULL: not connected */
	struct guest *guest;
	struct serial *serial; /* logs.c: its console */
	int status; /* of wait(), -1 unknown */
	/* called once when the process ends without vm_destroy(); may destroy the VM */
	void (*on_dead)(void *user, struct vm *);
	void *user;
	struct vm_run *run; /* what is going on with it; inside vm.c */
};

typedef void vm_done(void *user, const struct err *); /* NULL: done */

/* What vm_start() makes. hot: a clone that answered once and was stopped again, for the pool. */
struct vm_spec {
	struct template *t;
	int vcpus, memory_mb;
	enum accel accel;    /* ACCEL_UNKNOWN: the agent's */
	struct image *image; /* clone it; NULL: cold boot */
	uint64_t disk_size;  /* at least the template's; of clones: the image's */
	bool hot, soon;      /* soon: before others that wait for a free start */
	int boot_ms; /* deadline of all of it once a start is free; 0: the configuration's */
};

/* Starts one; done(user, err) when its guest answered GET /health. On failure vm_destroy() it. */
struct vm *vm_start(struct agent *, const struct vm_spec *, vm_done *, void *user);

void vm_cont(struct vm *, vm_done *, void *user);
void vm_stop(struct vm *, vm_done *, void *user);
/* Makes the second disk larger, and tells the guest. */
void vm_grow_disk(struct vm *, uint64_t size, vm_done *, void *user);
/* Memory through the stream filter into `memory`, device state to `state`; the VM must be stopped
   and stays so. With done, both files are complete. */
void vm_save(struct vm *, int memory, int state, vm_done *, void *user);

/* Nobody waits any more for what goes on with it, or for its end. */
void vm_abandon(struct vm *);
/* Kills it, removes its folder, gives the uid back, frees it; done may be NULL. From any state. */
void vm_destroy(struct vm *, vm_done *, void *user);
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
};

/* Takes it over. done: control socket and guest answer, it runs. NULL: it is not what was found. */
struct vm *vm_adopt(struct agent *, const struct vm_found *, vm_done *, void *user, struct err *);

/* Opens the guest session again after it was closed on purpose or broke. -1: the socket is not
 * there. */
int vm_guest_open(struct vm *, struct err *);

/* A connection to a socket of its folder: "q", "g", "serial" (what the guest prints). -1 and why. */
int vm_connect(const struct vm *, const char *name, struct err *);

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
