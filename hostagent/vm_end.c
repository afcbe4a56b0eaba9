/* vm_end.c - how a VM ends, what is left of one, and how a running one is taken over. */
#include "guest.h"
#include "net.h"
#include "logs.h"
#include "priv.h"
#include "template.h"
#include "vm_run.h"

#include <errno.h>
#include <string.h>
#include <sys/syscall.h>

/* How long the word of the launcher may take, whose child it was. */
enum { REAP_MS = 10000, ADOPT_MS = 5000 };

/* The process is gone: whoever waits hears of it. */
static void
dead(void *arg)
{
	struct vm *vm = arg;
	struct vm_run *r = vm->run;
	struct agent *a = vm->agent;
	struct err e = { 0 };

	TALLOC_FREE(r->death);
	TALLOC_FREE(r->reap);
	net_close(vm);
	vm->state = VM_DEAD;
	TALLOC_FREE(vm->qmp);
	TALLOC_FREE(vm->guest);
	uid_return(a, vm->uid);
	vm->uid = 0;
	if (r->destroying) {
		vm_done *done = r->destroyed;
		void *user = r->destroyed_user;

		if (!r->keep)
			vm_folder_remove(a, vm->name);
		talloc_free(vm);
		if (done)
			done(user, NULL);
		return;
	}
	log_warn(NULL, "vm %s: QEMU (pid %d) ended, wait status %#x", vm->name, (int)vm->pid,
	    (unsigned)vm->status);
	if (r->done) {
		(void)err_set(
		    &e, E_QEMU, "QEMU ended (wait status %#x), see its log", (unsigned)vm->status);
		flow_fail(r->flow, &e);
	} else if (vm->on_dead)
		vm->on_dead(vm->user, vm);
}

static void
on_pidfd(void *arg, int events)
{
	struct vm *vm = arg;

	(void)events;
	/* the launcher's word, with the exit status, is on its way if it was its child */
	TALLOC_FREE(vm->run->death);
	if (!vm->run->reap)
		vm->run->reap = timer_new(
		    vm->run, vm->agent->loop, vm->run->adopted ? 0 : REAP_MS, 0, dead, vm);
}

void
vm_watch_death(struct vm *vm)
{
	vm->run->death =
	    watch_new(vm->run, vm->agent->loop, vm->run->pidfd, UV_READABLE, on_pidfd, vm);
}

void
vm_exited(void *agent, pid_t pid, int status)
{
	struct agent *a = agent;
	struct vm *vm;

	TAILQ_FOREACH(vm, &a->vms, link)
	{
		if (vm->pid != pid || vm->state == VM_DEAD || vm->run->adopted)
			continue;
		vm->status = status;
		dead(vm);
		return;
	}
}

void
vm_abandon(struct vm *vm)
{
	struct vm_run *r = vm->run;

	r->done = NULL;
	vm->on_dead = NULL;
	TALLOC_FREE(r->flow);
	TALLOC_FREE(r->start);
	TALLOC_FREE(r->again);
}

void
vm_destroy(struct vm *vm, vm_done *done, void *user)
{
	struct vm_run *r = vm->run;
	struct agent *a = vm->agent;
	struct err e = { 0 };

	r->destroying = true;
	r->destroyed = done;
	r->destroyed_user = user;
	vm_abandon(vm);
	if (vm->pid > 0 && vm->state != VM_DEAD) {
		vm->state = VM_DYING;
		/* it may have ended by itself a moment ago: its pidfd tells */
		if (priv_kill(a->priv, vm->pid, vm->start, &e) < 0 &&
		    proc_start(vm->pid) == vm->start)
			log_warn(NULL, "vm %s: %s", vm->name, e.text);
		return; /* dead() follows */
	}
	/* from the loop, so that the caller is not called back inside its call */
	vm->pid = 0;
	if (!r->reap)
		r->reap = timer_new(r, a->loop, 0, 0, dead, vm);
}

void
vm_release(struct vm *vm, vm_done *done, void *user)
{
	vm->run->keep = true;
	vm_destroy(vm, done, user);
}

void
vm_sweep(struct agent *a, const char *name, pid_t pid, uint64_t start)
{
	struct err e = { 0 };

	if (pid > 0 && priv_kill(a->priv, pid, start, &e) < 0 && proc_start(pid) == start)
		log_error(NULL, "vm %s: cannot end process %d: %s", name, (int)pid, e.text);
	vm_folder_remove(a, name);
}

/* Adoption: is it still what it was? */

static void
on_status(void *arg, struct json_object *ret, const struct err *e)
{
	struct vm *vm = arg;
	const char *status = ret ? json_str(ret, "status", "") : "";

	if (e) {
		flow_fail(vm->run->flow, e);
		return;
	}
	if (strcmp(status, "running") == 0) {
		vm->state = VM_RUNNING;
		flow_next(vm->run->flow);
		return;
	}
	/* stopped by a save or a start that the dead agent did not finish: it goes on */
	log_warn(NULL, "vm %s: was %s, continues", vm->name, status);
	vm_step_cont(vm);
}

/* One that sleeps keeps standing still; one that a dead agent had continued, stops. */
static void
on_sleeper(void *arg, struct json_object *ret, const struct err *e)
{
	struct vm *vm = arg;

	if (e)
		flow_fail(vm->run->flow, e);
	else if (strcmp(json_str(ret, "status", ""), "running") == 0)
		vm_step_stop(vm);
	else
		flow_next(vm->run->flow);
}

static void
step_sleeper(void *user)
{
	vm_call(user, "query-status", NULL, -1, on_sleeper);
}

static void
step_status(void *user)
{
	struct vm *vm = user;

	vm_call(vm, "query-status", NULL, -1, on_status);
}

static const struct step adopt_steps[] = {
	{ "asking QEMU how it is", step_status },
	{ "asking QEMU for events", vm_step_events },
	{ "asking for its disks", vm_step_blocks },
	{ "the guest's answer", vm_step_health },
	{ "thawing the user's processes", vm_step_thaw },
	{ "running", vm_step_running },
	{ 0 },
};

static const struct step sleeper_steps[] = {
	{ "asking QEMU how it is", step_sleeper },
	{ "asking QEMU for events", vm_step_events },
	{ "asking for its disks", vm_step_blocks },
	{ "asleep", vm_step_stopped },
	{ 0 },
};

bool
vm_is_adopted(const struct vm *vm)
{
	return vm->run->adopted;
}

struct vm *
vm_adopt(struct agent *a, const struct vm_found *f, vm_done *done, void *user, struct err *e)
{
	struct vm *vm = vm_new(a);

	snprintf(vm->name, sizeof vm->name, "%s", f->name);
	vm->t = f->t;
	vm->vcpus = f->vcpus;
	vm->memory_mb = f->memory_mb;
	vm->disk_size = f->disk_size;
	vm->accel = f->accel;
	vm->chain = f->chain;
	snprintf(vm->parent, sizeof vm->parent, "%s", f->parent ? f->parent : "");
	vm->pid = f->pid;
	vm->start = f->start;
	vm->run->adopted = true;
	vm->dir = vm_folder(a, f->name, false);
	vm->run->pidfd = (int)syscall(SYS_pidfd_open, f->pid, 0);
	if (vm->dir < 0 || vm->run->pidfd < 0 || proc_start(f->pid) != f->start) {
		(void)err_set(e, E_NOT_FOUND, "vm %s: process or folder is gone", f->name);
		goto fail;
	}
	if (uid_take(a, f->uid, e) < 0)
		goto fail;
	vm->uid = f->uid;
	if (vm_qmp_open(vm, e) < 0 || (!f->asleep && vm_guest_open(vm, e) < 0))
		goto fail;
	logs_open(vm);
	vm_watch_death(vm);
	vm_flow(vm, f->asleep ? sleeper_steps : adopt_steps, done, user);
	flow_deadline(vm->run->flow, ADOPT_MS);
	return vm;
fail:
	if (vm->uid)
		uid_return(a, vm->uid);
	talloc_free(vm);
	return NULL;
}
