/*
 * capsule_grow.c - a disk grows: at once below a running guest, else when the guest runs.
 *
 * What is to be (disk_size, never a difference) is on disk before anything is done; until the guest
 * has taken it the record says so (grows), and whoever comes next goes on: the end of another
 * operation, the upkeep, a later agent, the init of the next wake.
 */
#include "capsule_in.h"

enum { RETRY_MS = 30000 };

static void
step_want(void *user)
{
	capsule_write(user, "up");
}

static void
step_disk(void *user)
{
	struct capsule_op *op = user;
	struct capsule *c = op->capsule;

	crash_point("grow.3");
	if (c->disk_size > c->vm->disk_size)
		vm_grow_disk(c->vm, c->disk_size, capsule_on_vm, op);
	else
		flow_next(op->flow);
}

static void
step_guest(void *user)
{
	struct capsule_op *op = user;

	crash_point("grow.4");
	vm_grow_guest(op->capsule->vm, capsule_on_vm, op);
}

static void
step_grown(void *user)
{
	struct capsule_op *op = user;

	capsule_told_disk(op->capsule, op->capsule->vm);
	capsule_write(op, "up");
}

static const struct step grow_steps[] = {
	{ "writing the journal", step_want },
	{ "growing the disk", step_disk },
	{ "growing the file system", step_guest },
	{ "writing the journal", step_grown },
	{ 0 },
};

static void
grown(void *user, const struct err *e)
{
	struct capsule_op *op = user;
	struct capsule *c = op->capsule;
	struct vm *vm = c->vm;

	if (e) {
		log_error(NULL, "capsule %s: its disk has not grown: %s", c->id, e->text);
		c->grow_at = now_mono() + RETRY_MS;
	} else
		logs_note(c, "its disk has %llu MiB", (unsigned long long)vm->disk_size >> 20);
	/* when it was asked for more meanwhile, who asked waits for that */
	if (e || !c->grows)
		capsule_answer(c, e);
	capsule_op_end(op, NULL);
	if (vm && vm == c->vm && vm->state == VM_DEAD)
		capsule_died(c, vm);
}

void
capsule_grow_on(struct capsule *c)
{
	struct capsule_op *op;

	if (!c->grows || c->state != CAP_RUNNING || c->op || !c->vm || c->vm->state != VM_RUNNING ||
	    now_mono() < c->grow_at)
		return;
	op = capsule_op_new(c, "growing its disk");
	op->quiet = op->grows = true;
	op->flow = flow_new(op, c->agent->loop, grow_steps, op, grown);
}

bool
capsule_grow(struct capsule *c, uint64_t bytes, void *mem, capsule_done *done, void *arg)
{
	if (bytes <= c->disk_size && !c->grows)
		return false;
	capsule_want_disk(c, bytes);
	c->grows = true;
	c->grow_at = 0;
	if (c->op && c->op->flattens && c->vm)
		vm_disk_flatten_cancel(c->vm); /* it would keep the disk for long */
	capsule_grow_on(c);
	if (!c->op || !c->op->grows)
		return false;
	capsule_ask(c, mem, done, arg);
	return true;
}
