/* hung.c - see hung.h. */
#include "hung.h"
#include "capsule.h"
#include "logs.h"
#include "priv.h"
#include "vm_run.h"

enum { TICK_MS = 5000 };

static void
on_status(void *arg, struct json_object *ret, const struct err *e)
{
	struct vm *vm = arg;

	(void)ret;
	if (!e)
		vm->silent_since = 0;
	vm->asked = false;
}

static void
hung(struct vm *vm)
{
	struct agent *a = vm->agent;
	struct err e = { 0 };
	struct capsule *c;

	log_error(NULL, "vm %s: QEMU (pid %d) was silent for %d s: it is killed", vm->name,
	    (int)vm->pid, (int)a->conf->agent_hung_sec);
	TAILQ_FOREACH(c, &a->capsules, link)
	if (c->vm == vm) {
		c->hung = true;
		logs_note(
		    c, "QEMU was silent for %d s: it is killed", (int)a->conf->agent_hung_sec);
	}
	/* its end is told as any other */
	if (priv_kill(a->priv, vm->pid, vm->start, &e) < 0)
		log_warn(NULL, "vm %s: %s", vm->name, e.text);
}

static void
look(struct vm *vm)
{
	struct err e = { 0 };
	int64_t now = now_mono();

	if (vm->pid <= 0 || vm->run->destroying ||
	    (vm->state != VM_STOPPED && vm->state != VM_RUNNING && vm->state != VM_WAITING))
		return;
	if (vm->silent_since && now - vm->silent_since >= vm->agent->conf->agent_hung_sec * 1000) {
		hung(vm);
		return;
	}
	if (!vm->silent_since)
		vm->silent_since = now;
	/* a socket that was lost is opened again: the process is there */
	if (vm->asked && vm->qmp)
		return;
	if (vm->qmp || vm_qmp_open(vm, &e) == 0) {
		vm->asked = true;
		qmp_call(vm->qmp, "query-status", NULL, -1, on_status, vm);
	}
}

static void
on_tick(void *arg)
{
	struct agent *a = arg;
	struct vm *vm, *next;

	for (vm = TAILQ_FIRST(&a->vms); vm; vm = next) {
		next = TAILQ_NEXT(vm, link);
		look(vm);
	}
}

void
hung_start(struct agent *a)
{
	(void)timer_new(a, a->loop, TICK_MS, TICK_MS, on_tick, a);
}
