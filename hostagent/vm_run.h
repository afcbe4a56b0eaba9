/* vm_run.h - what vm.c, vm_save.c and vm_end.c share; nobody else includes it. */
#pragma once
#include "flow.h"
#include "qmp.h"
#include "starts.h"
#include "vm.h"

enum { VM_CALL_MS = 20000 }; /* deadline of a short exchange with QEMU */

/* One thing at a time goes on with a VM: its start, a stop, a save, its end. */
struct vm_run {
	struct flow *flow;
	struct vm_spec spec;
	vm_done *done; /* of what goes on; NULL: nothing does */
	void *user;
	struct start *start; /* our place among the starts */
	struct timer *again; /* health is asked again */
	struct save *save;   /* vm_save.c */
	int pidfd;
	struct watch *death; /* on the pidfd */
	struct timer *reap;
	bool adopted;  /* not our launcher's child */
	bool sync;     /* of a freeze */
	uint64_t size; /* that the disk is to have */
	bool destroying;
	bool keep; /* the folder stays when the process is gone */
	vm_done *destroyed;
	void *destroyed_user;
};

struct vm *vm_new(struct agent *);
/* Runs steps; what ran before is dropped without a word. */
void vm_flow(struct vm *, const struct step *, vm_done *, void *user);
/* qmp_call() with the VM as argument; without a control socket the flow fails. */
void vm_call(struct vm *, const char *command, const char *arguments, int fd, qmp_reply *);
/* A QMP answer that only says yes or no moves the flow on. */
qmp_reply vm_ok;
/* The steps that more than one table has. */
void vm_step_cont(void *vm), vm_step_stop(void *vm), vm_step_stopped(void *vm);
void vm_step_health(void *vm), vm_step_events(void *vm), vm_step_running(void *vm);
void vm_step_blocks(void *vm), vm_step_thaw(void *vm); /* vm_sleep.c */
int vm_qmp_open(struct vm *, struct err *);
int vm_folder(struct agent *, const char *name, bool make);
void vm_folder_remove(struct agent *, const char *name);
/* Watches run->pidfd for the end of the process. */
void vm_watch_death(struct vm *);
/* QEMU tells how a save goes (vm_save.c). */
void vm_save_event(struct vm *);
