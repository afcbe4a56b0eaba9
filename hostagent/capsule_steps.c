/* capsule_steps.c - steps that starts, sleeps, boots and rollbacks share. See capsule_in.h. */
#include "capsule_in.h"
#include "image.h"

#include "disk.h"

#include <fcntl.h>
#include <string.h>

void
capsule_step_leave(void *user)
{
	struct capsule_op *op = user;

	if (!op->was_running)
		flow_next(op->flow);
	else
		vm_leave(op->capsule->vm, capsule_on_frozen, op);
}

void
capsule_step_stop(void *user)
{
	struct capsule_op *op = user;

	if (!op->was_running)
		flow_next(op->flow);
	else
		vm_stop(op->capsule->vm, capsule_on_vm, op);
}

struct vm_spec
capsule_vm_spec(const struct capsule_op *op)
{
	const struct capsule *c = op->capsule;

	return (struct vm_spec){ .t = op->t,
		.vcpus = c->vcpus,
		.memory_mb = c->memory_mb,
		.disk_size = op->disk_size ? op->disk_size : c->disk_size,
		.soon = true,
		.restore = op->state >= 0,
		.state = op->state,
		.memory = op->flat >= 0 ? op->flat
		    : op->image         ? op->image->memory
					: -1,
		.parent = op->parent };
}

void
capsule_own(struct capsule_op *op)
{
	struct capsule *c = op->capsule;

	c->vm = op->vm;
	op->vm = NULL;
	c->vm->on_dead = capsule_on_dead;
	c->vm->user = c;
	capsule_vm_is(c, c->vm);
	c->restored = op->state >= 0;
	logs_bind(c, c->vm, true);
}

void
capsule_want_disk(struct capsule *c, uint64_t bytes)
{
	if (c->disk_size < bytes)
		c->disk_size = bytes;
}

uint64_t
capsule_disk_has(const struct capsule *c)
{
	auto_fd dir = c->vm || !*c->vm_name ? -1 : vm_folder_open(c->agent, c->vm_name), fd = -1;
	char file[LAYER_NAME];
	uint64_t size = 0;
	struct err ignore = { 0 };

	if (c->vm)
		return c->vm->disk_size;
	fd = dir < 0 ? -1 : openat(dir, chain_file(c->chain.active, file), O_RDONLY | O_CLOEXEC);
	return fd >= 0 && disk_size(fd, &size, &ignore) == 0 ? size : c->disk_size;
}

static void
on_disk(void *user, const struct err *e)
{
	struct capsule_op *op = user;
	struct vm *vm = op->vm ? op->vm : op->capsule->vm;

	if (e && (!vm || vm->state == VM_DEAD)) {
		flow_fail(op->flow, e);
		return;
	}
	if (e)
		log_error(NULL, "capsule %s: its disk has not grown: %s", op->capsule->id, e->text);
	flow_next(op->flow);
}

void
capsule_step_disk(void *user)
{
	struct capsule_op *op = user;
	struct vm *vm = op->vm ? op->vm : op->capsule->vm;

	if (op->capsule->disk_size > vm->disk_size)
		vm_grow_disk(vm, op->capsule->disk_size, on_disk, op);
	else
		flow_next(op->flow);
}

void
capsule_told_disk(struct capsule *c, const struct vm *vm)
{
	capsule_want_disk(c, vm->disk_size);
	c->grows = c->disk_size > vm->disk_size;
}

void
capsule_step_meet(void *user)
{
	struct capsule_op *op = user;

	vm_meet(op->capsule->vm, capsule_on_vm, op);
}

void
capsule_step_up(void *user)
{
	struct capsule_op *op = user;

	*op->capsule->paused_by = '\0';
	capsule_told_disk(op->capsule, op->capsule->vm);
	op->capsule->took_ms = (int)(now_mono() - op->began);
	capsule_write(op, "up");
}
