/*
 * capsule_boot.c - a cold boot of the disk in a capsule's own folder: the guest rebooted, or the
 * memory is gone, or somebody does not want it.
 *
 * The order is that of a resume: what ran goes, then the journal says that image and disk do not
 * belong together any more, then the disk is used.
 */
#include "capsule_in.h"
#include "host.h"
#include "net.h"
#include "template.h"

#include <string.h>

enum { BOOT_LOOP_MS = 600000 };

int
capsule_disk_here(struct capsule *c, struct err *e)
{
	auto_fd dir = *c->vm_name ? vm_folder_open(c->agent, c->vm_name) : -1;
	char file[LAYER_NAME];

	if (dir >= 0 && faccessat(dir, chain_file(c->chain.active, file), F_OK, 0) == 0)
		return 0;
	return err_set(e, E_BAD_STATE, "capsule %s is %s and has no disk here", c->id,
	    capsule_state_name(c->state));
}

static void
step_want(void *user)
{
	capsule_write(user, "resume");
}

static void
step_end(void *user)
{
	struct capsule_op *op = user;
	struct vm *vm = op->capsule->vm;

	op->capsule->vm = NULL;
	op->capsule->pid = 0;
	if (vm)
		vm_release(vm, capsule_on_vm, op);
	else
		flow_next(op->flow);
}

static void
step_live(void *user)
{
	struct capsule_op *op = user;
	struct capsule *c = op->capsule;

	op->persisted = c->persisted;
	c->persisted = false;
	capsule_write(op, "live");
}

static void
step_boot(void *user)
{
	struct capsule_op *op = user;
	struct capsule *c = op->capsule;
	struct vm_spec spec = capsule_vm_spec(op);

	spec.vcpus = op->spec.vcpus;
	spec.memory_mb = op->spec.memory_mb;
	spec.chain = &c->chain;
	spec.folder = c->vm_name;
	op->committed = true;
	capsule_state_remove(c, "state");
	op->vm = vm_start(c->agent, &spec, capsule_on_vm, op);
}

static void
step_init(void *user)
{
	struct capsule_op *op = user;
	struct capsule *c = op->capsule;

	capsule_own(op);
	c->vcpus = c->vm->vcpus;
	c->memory_mb = c->vm->memory_mb;
	capsule_init(op, c->vm, false);
}

static const struct step boot_steps[] = {
	{ "writing the journal", step_want },
	{ "ending the virtual machine", step_end },
	{ "writing the journal", step_live },
	{ "booting the disk", step_boot },
	{ "growing the disk", capsule_step_disk },
	{ "giving the guest its identity", step_init },
	{ "writing the journal", capsule_step_up },
	{ 0 },
};

static void
booted(void *user, const struct err *e)
{
	struct capsule_op *op = user;
	struct capsule *c = op->capsule;
	struct vm *vm = c->vm ? c->vm : op->vm;
	struct err ignore = { 0 }, why;

	if (!e) {
		if (op->spec_mem) /* of a reboot it is kept already */
			capsule_keep(c, op);
		(void)capsule_step(c, EV_UP, &ignore);
		capsule_op_end(op, NULL);
		return;
	}
	why = *e;
	log_error(NULL, "capsule %s: its disk does not boot: %s", c->id, e->text);
	if (!op->committed)
		c->persisted = c->persisted || op->persisted;
	if (!op->committed && (c->vm || c->persisted)) {
		op->why = why;
		capsule_asleep_again(op, NULL);
		return;
	}
	c->vm = op->vm = NULL;
	if (vm)
		vm_release(vm, NULL, NULL);
	snprintf(c->why, sizeof c->why, "%.150s", e->text);
	c->exited_at = now_real();
	c->pid = 0;
	(void)capsule_step(c, EV_EXITED, &ignore);
	capsule_note(c, "exit");
	capsule_op_end(op, &why);
}

void
capsule_boot(struct capsule_op *op)
{
	op->flow = flow_new(op, op->capsule->agent->loop, boot_steps, op, booted);
}

/* Without the identity (a later agent does not know it) it sleeps without memory, and whoever wakes
   it brings it along. */
void
capsule_rebooted(struct capsule *c)
{
	struct capsule_op *op;
	struct template *t;
	struct err e = { 0 };
	int64_t now = now_mono(), first = c->boots[c->reboots % BOOTS];

	c->boots[c->reboots++ % BOOTS] = now;
	if (c->reboots > BOOTS && now - first < BOOT_LOOP_MS) {
		c->boot_loop = true;
		snprintf(c->why, sizeof c->why, "the guest booted anew %d times in ten minutes",
		    BOOTS + 1);
		c->exited_at = now_real();
		(void)capsule_step(c, EV_EXITED, &e);
		capsule_note(c, "exit");
		return;
	}
	t = template_of_build(c->agent, c->template, c->build, &e);
	if (!c->kept || !t) {
		capsule_powered_off(c);
		return;
	}
	if (capsule_step(c, EV_ROLLBACK, &e) < 0)
		return;
	op = capsule_op_new(c, "reboot");
	op->t = t;
	op->spec = *c->kept;
	op->spec.new_identity = false;
	op->spec.vcpus = c->vcpus;
	op->spec.memory_mb = c->memory_mb;
	capsule_boot(op);
}

void
capsule_resume_cold(struct agent *a, const char *id, const struct capsule_spec *spec,
    void *spec_mem, void *mem, capsule_done *done, void *arg)
{
	struct capsule_asked q = { .agent = a,
		.epoch = spec->epoch,
		.spec = spec,
		.spec_mem = spec_mem,
		.mem = mem,
		.done = done,
		.arg = arg,
		.what = ASK_RESUME };
	struct capsule *c;
	struct capsule_op *op;
	struct template *t = NULL;
	struct err e = { 0 };

	snprintf(q.id, sizeof q.id, "%s", id);
	c = capsule_begin(&q, CAP_RUNNING, CAP_RESUMING);
	if (!c)
		return;
	if (c->state != CAP_PAUSED && c->state != CAP_ERROR)
		(void)err_set(&e, E_BAD_STATE, "capsule %s is %s: no cold boot", c->id,
		    capsule_state_name(c->state));
	else if (capsule_disk_here(c, &e) == 0 &&
	    (t = template_of_build(a, c->template, c->build, &e)))
		(void)host_room(a, &e);
	if (e.code == E_OK && spec->network)
		(void)net_keep(a, c->id, spec->network, &e);
	if (e.code != E_OK || capsule_step(c, EV_RESUME, &e) < 0) {
		done(arg, c, &e);
		return;
	}
	capsule_awake(c);
	capsule_want_disk(c, (uint64_t)spec->disk_mb << 20);
	c->epoch = spec->epoch;
	for (size_t i = 0; i < BOOTS; i++)
		c->boots[i] = now_mono() - BOOT_LOOP_MS;
	idle_set(c, &spec->idle);
	op = capsule_op_new(c, "resume");
	op->t = t;
	op->spec = *spec;
	op->spec_mem = talloc_steal(op, spec_mem);
	op->spec.new_identity = false;
	capsule_ask(c, mem, done, arg);
	capsule_boot(op);
}
