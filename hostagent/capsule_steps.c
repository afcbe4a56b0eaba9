/* capsule_steps.c - steps that starts, sleeps, boots and rollbacks share. See capsule_in.h. */
#include "capsule_in.h"
#include "image.h"

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
		.disk_size = c->disk_size,
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
	c->vm->on_dead = capsule_died;
	c->vm->user = c;
	capsule_vm_is(c, c->vm);
	c->restored = op->state >= 0;
	logs_bind(c, c->vm, true);
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
	op->capsule->took_ms = (int)(now_mono() - op->began);
	capsule_write(op, "up");
}
