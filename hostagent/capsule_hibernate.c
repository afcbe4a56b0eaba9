/* capsule_hibernate.c - memory and disk become artifacts (capsule_seal.c), and the VM goes. */
#include "capsule_in.h"

#include <stdio.h>
#include <string.h>

static void
step_hibernate_want(void *user)
{
	capsule_write(user, "hibernate");
}

static void
step_hibernate_freeze(void *user)
{
	crash_point("hibernate.3");
	capsule_step_freeze(user);
}

/* Sealing waits for the disk, once for all: what is asleep here if that fails is its process. */
static void
step_name(void *user)
{
	struct capsule_op *op = user;
	struct vm *vm = op->capsule->vm;
	struct err e = { 0 };

	if (op->capsule->persisted || !op->memory) {
		flow_next(op->flow);
		return;
	}
	capsule_state_sums(op);
	if (!op->sums) {
		(void)err_set(&e, E_TAMPERED, "the image of the capsule is missing");
		flow_fail(op->flow, &e);
	} else if (renameat(vm->dir, "state.tmp", vm->dir, "state") < 0) {
		err_sys(&e, "the image of the capsule");
		flow_fail(op->flow, &e);
	} else
		flow_next(op->flow);
}

static void
step_seal(void *user)
{
	struct capsule_op *op = user;

	crash_point("hibernate.4");
	op->capsule->persisted = op->memory;
	capsule_seal(op, true, op->memory ? "state" : NULL);
}

static void
step_hibernated(void *user)
{
	struct capsule_op *op = user;
	struct capsule *c = op->capsule;

	crash_point("hibernate.5");
	memcpy(c->memory_artifact, op->made->memory, sizeof c->memory_artifact);
	memcpy(c->disk_artifact, op->made->disk, sizeof c->disk_artifact);
	memcpy(c->memory_parent, op->made->memory_parent, sizeof c->memory_parent);
	memcpy(c->disk_parent, op->made->disk_parent, sizeof c->disk_parent);
	c->sealed_bytes = op->made->bytes;
	memcpy(c->paused_by, op->by, sizeof c->paused_by);
	memcpy(op->folder, c->vm_name, sizeof op->folder);
	*c->vm_name = '\0';
	capsule_write(op, "hibernated");
}

static const struct step hibernate_steps[] = {
	{ "writing the journal", step_hibernate_want },
	{ "freezing the user's processes", step_hibernate_freeze },
	{ "closing the guest session", capsule_step_leave },
	{ "stopping", capsule_step_stop },
	{ "loading the image below", capsule_step_parent },
	{ "saving memory", capsule_step_take },
	{ "naming it", step_name },
	{ "sealing", step_seal },
	{ "writing the journal", step_hibernated },
	{ 0 },
};

static void
hibernated(void *user, const struct err *e)
{
	struct capsule_op *op = user;
	struct capsule *c = op->capsule;
	struct err ignore = { 0 };
	struct vm *vm = c->vm;

	if (e) {
		log_error(
		    NULL, "capsule %s: hibernation failed, it stays paused: %s", c->id, e->text);
		if (*op->folder)
			memcpy(c->vm_name, op->folder, sizeof c->vm_name);
		*c->memory_artifact = *c->disk_artifact = '\0';
		memcpy(c->paused_by, op->by, sizeof c->paused_by);
		c->persisted = op->persisted;
		capsule_unseal(c);
		if (!vm && op->disk_alone) {
			(void)capsule_step(c, EV_EXITED, &ignore);
			capsule_note(c, "exit");
			capsule_op_end(op, e);
			return;
		}
		if (op->was_running && vm && vm->state == VM_RUNNING) {
			capsule_undo(op, e); /* it never stood still */
			return;
		}
		op->why = *e;
		capsule_asleep_again(op, NULL);
		return;
	}
	c->vm = NULL;
	c->persisted = false;
	c->chain = (struct chain){ 0 };
	c->took_ms = (int)(now_mono() - op->began);
	if (vm)
		vm_destroy(vm, NULL, NULL);
	else
		vm_sweep(c->agent, op->folder, 0, 0);
	(void)capsule_step(c, EV_SEALED, &ignore);
	capsule_op_end(op, NULL);
}

void
capsule_hibernate_as(struct agent *a, const char *id, int64_t epoch, const char *by, bool memory,
    void *mem, capsule_done *done, void *arg)
{
	struct capsule_asked q = { .agent = a,
		.epoch = epoch,
		.memory = memory,
		.mem = mem,
		.done = done,
		.arg = arg,
		.what = ASK_HIBERNATE };
	struct capsule *c;
	struct capsule_op *op;
	struct err e = { 0 };
	bool running, failed;

	snprintf(q.id, sizeof q.id, "%s", id);
	snprintf(q.by, sizeof q.by, "%s", by ? by : "user");
	c = capsule_begin(&q, CAP_HIBERNATED, CAP_HIBERNATING);
	if (!c)
		return;
	running = c->state == CAP_RUNNING;
	failed = c->state == CAP_ERROR;
	if (failed && memory)
		(void)err_set(&e, E_BAD_STATE,
		    "capsule %s is error: its memory is gone, its disk alone can hibernate", c->id);
	else if (failed)
		(void)capsule_disk_here(c, &e);
	/* before anything is touched */
	if (e.code != E_OK ||
	    ((running || failed || c->state == CAP_PAUSED) && capsule_image_room(c, &e) < 0) ||
	    capsule_step(c, EV_HIBERNATE, &e) < 0) {
		done(arg, c, &e);
		return;
	}
	capsule_awake(c);
	c->epoch = epoch;
	op = capsule_op_new(c, "hibernate");
	op->was_running = running;
	op->disk_alone = failed;
	op->persisted = c->persisted;
	op->memory = memory;
	memcpy(op->by, q.by, sizeof op->by);
	if (memory)
		capsule_choose_parent(op);
	capsule_ask(c, mem, done, arg);
	op->flow = flow_new(op, a->loop, hibernate_steps, op, hibernated);
}

void
capsule_hibernate(struct agent *a, const char *id, int64_t epoch, const char *by, void *mem,
    capsule_done *done, void *arg)
{
	capsule_hibernate_as(a, id, epoch, by, true, mem, done, arg);
}

/* The guest switched itself off: its disk is sealed, there is no memory. */
void
capsule_powered_off(struct capsule *c)
{
	struct capsule_op *op;
	struct err e = { 0 };

	if (capsule_step(c, EV_HIBERNATE, &e) < 0)
		return;
	op = capsule_op_new(c, "hibernate");
	op->disk_alone = true;
	memcpy(op->by, "poweroff", sizeof "poweroff");
	op->flow = flow_new(op, c->agent->loop, hibernate_steps, op, hibernated);
}
