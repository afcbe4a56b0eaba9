/*
 * capsule_snapshot.c - a capsule's state at a moment, while it runs on; back to one; flattening.
 *
 * A running VM gets a fresh disk on top; what it wrote until then is a layer that nobody writes any
 * more. Between stop and continue there are only the switch and the save; the artifacts are made
 * afterwards.
 */
#include "capsule_in.h"
#include "disk.h"
#include "guest.h"
#include "host.h"
#include "image.h"
#include "template.h"

#include <fcntl.h>
#include <string.h>

/* Snapshot of a running one. */

static void
step_want(void *user)
{
	capsule_write(user, "snapshot");
}

static void
step_prepare(void *user)
{
	struct capsule_op *op = user;

	vm_disk_prepare(op->capsule->vm, capsule_on_vm, op);
}

/* A guest that does not freeze has no snapshot with memory: what is made of it would run too early.
 */
static void
step_freeze(void *user)
{
	struct capsule_op *op = user;

	vm_freeze(op->capsule->vm, !op->memory, capsule_on_vm, op);
}

static void
step_stop(void *user)
{
	struct capsule_op *op = user;

	op->down_at = now_mono();
	vm_stop(op->capsule->vm, capsule_on_vm, op);
}

static void
step_switch(void *user)
{
	struct capsule_op *op = user;

	crash_point("snapshot.3"); /* it stands still, frozen, with a half-made disk */
	vm_disk_switch(op->capsule->vm, capsule_on_vm, op);
}

static void
step_take(void *user)
{
	struct capsule_op *op = user;
	struct vm *vm = op->capsule->vm;
	struct err e = { 0 };

	op->capsule->chain = vm->chain;
	if (!op->memory) {
		flow_next(op->flow);
		return;
	}
	(void)unlinkat(vm->dir, "snapshot", 0);
	auto_fd fd = openat(vm->dir, "snapshot", O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (fd < 0) {
		err_sys(&e, "snapshot");
		flow_fail(op->flow, &e);
	} else
		vm_save(vm, -1, op->image ? op->image->memory : -1, fd, false, capsule_on_vm, op);
}

static void
step_cont(void *user)
{
	struct capsule_op *op = user;

	vm_cont(op->capsule->vm, capsule_on_vm, op);
}

static void
step_thaw(void *user)
{
	struct capsule_op *op = user;

	op->capsule->down_ms = (int)(now_mono() - op->down_at);
	vm_thaw(op->capsule->vm, capsule_on_vm, op);
}

static void
step_seal(void *user)
{
	struct capsule_op *op = user;

	crash_point("snapshot.4");
	capsule_seal(op, false, op->memory ? "snapshot" : NULL);
}

/* The layers are artifacts now: the folder's names for them go. */
static void
layers_settle(struct capsule *c, const struct chain *sealed)
{
	auto_fd dir = vm_folder_open(c->agent, c->vm_name);
	size_t i;

	for (i = 0; i < sealed->layers && i < c->chain.layers; i++)
		if (!artifact_id_ok(c->chain.layer[i]))
			(void)unlinkat(dir, c->chain.layer[i], 0);
	(void)unlinkat(dir, "snapshot", 0);
	memcpy(c->chain.layer, sealed->layer, sizeof c->chain.layer);
	if (c->vm)
		c->vm->chain = c->chain;
}

static void
step_settle(void *user)
{
	struct capsule_op *op = user;

	layers_settle(op->capsule, &op->chain);
	capsule_write(op, "up");
}

static const struct step snapshot_steps[] = {
	{ "writing the journal", step_want },
	{ "loading the image below", capsule_step_parent },
	{ "preparing a fresh disk", step_prepare },
	{ "freezing the user's processes", step_freeze },
	{ "stopping", step_stop },
	{ "switching disks", step_switch },
	{ "saving memory", step_take },
	{ "continuing", step_cont },
	{ "thawing the user's processes", step_thaw },
	{ "sealing", step_seal },
	{ "writing the journal", step_settle },
	{ 0 },
};

static void
keep_answer(struct capsule_op *op)
{
	struct capsule *c = op->capsule;

	talloc_free(c->last);
	c->last = talloc_memdup(c, op->made, sizeof *op->made);
	memcpy(c->last_key, op->key, sizeof c->last_key);
	c->took_ms = (int)(now_mono() - op->began);
}

static void
snapped(void *user, const struct err *e)
{
	struct capsule_op *op = user;
	struct capsule *c = op->capsule;

	if (e) {
		if (c->vm && c->vm->state != VM_DEAD) {
			c->chain = c->vm->chain;
			(void)unlinkat(c->vm->dir, "snapshot", 0);
			capsule_unseal(c);
		}
		capsule_undo(op, e);
		return;
	}
	crash_point("snapshot.5");
	log_info(NULL, "capsule %s: snapshot in %d ms, stood still for %d ms", c->id,
	    (int)(now_mono() - op->began), c->down_ms);
	keep_answer(op);
	capsule_op_end(op, NULL);
	capsule_flatten(c);
}

/* Of a paused one: its image is saved, its process goes, the disk gets a fresh file on top. */

static void
step_paused_want(void *user)
{
	capsule_write(user, "paused");
}

static void
step_release(void *user)
{
	struct capsule_op *op = user;
	struct capsule *c = op->capsule;
	struct vm *vm = c->vm;

	c->persisted = true;
	c->vm = NULL;
	c->pid = 0;
	if (vm)
		vm_release(vm, capsule_on_vm, op);
	else
		flow_next(op->flow);
}

static void
step_paused_seal(void *user)
{
	struct capsule_op *op = user;

	crash_point("snapshot.4");
	capsule_seal(op, true, op->memory ? "state" : NULL);
}

static void
step_paused_settle(void *user)
{
	struct capsule_op *op = user;
	struct capsule *c = op->capsule;
	struct err e = { 0 };
	char old[LAYER_NAME], new[LAYER_NAME];
	uint64_t has = capsule_disk_has(c);
	auto_fd dir = vm_folder_open(c->agent, c->vm_name), fd = -1;

	layers_settle(c, &op->chain);
	if (chain_push(&c->chain, op->made->disk, &e) < 0) {
		flow_fail(op->flow, &e);
		return;
	}
	(void)chain_file(c->chain.active++, old);
	(void)chain_file(c->chain.active, new);
	(void)unlinkat(dir, new, 0);
	fd = openat(dir, new, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (fd < 0)
		err_sys(&e, "%s", new);
	else if (disk_overlay(fd, has, NULL, &e) == 0 && fsync(fd) < 0)
		err_sys(&e, "%s", new);
	if (e.code != E_OK) {
		c->chain.layers--;
		c->chain.active--;
		flow_fail(op->flow, &e);
		return;
	}
	capsule_write(
	    op, "paused"); /* the old name stays until the folder goes: it costs nothing */
}

static const struct step paused_steps[] = {
	{ "writing the journal", step_paused_want },
	{ "loading the image below", capsule_step_parent },
	{ "saving memory", capsule_step_take },
	{ "making it durable", capsule_step_durable },
	{ "ending the process", step_release },
	{ "writing the journal", step_paused_want },
	{ "sealing", step_paused_seal },
	{ "writing the journal", step_paused_settle },
	{ 0 },
};

static void
paused_snapped(void *user, const struct err *e)
{
	struct capsule_op *op = user;
	struct capsule *c = op->capsule;
	struct err why = e ? *e : (struct err){ 0 };

	if (!e)
		keep_answer(op);
	else if (c->vm && c->vm->state == VM_DEAD)
		capsule_died(c, c->vm);
	else {
		capsule_unseal(c);
		capsule_note(c, "paused");
	}
	capsule_moved(c);
	capsule_asleep(c);
	capsule_op_end(op, e ? &why : NULL);
}

struct snapshot_ask {
	struct agent *agent;
	char id[CAPSULE_ID], key[LAYER_NAME];
	int64_t epoch;
	bool memory;
	void *mem;
	capsule_done *done;
	void *arg;
};

static void
snapshot_again(void *arg)
{
	struct snapshot_ask *q = arg, copy = *q;

	talloc_free(q);
	capsule_snapshot(
	    copy.agent, copy.id, copy.epoch, copy.key, copy.memory, copy.mem, copy.done, copy.arg);
}

/* 1: go on; 0: it is answered or waits; -1. */
static int
snapshot_may(struct capsule *c, struct snapshot_ask *ask, struct err *e)
{
	struct snapshot_ask *q;

	if (!c || c->state == CAP_GONE)
		return err_set(e, E_NOT_FOUND, "no capsule %s", ask->id);
	if (ask->epoch != c->epoch)
		return err_set(
		    e, E_STALE_EPOCH, "capsule %s is at epoch %lld", c->id, (long long)c->epoch);
	if (*ask->key && c->last && strcmp(ask->key, c->last_key) == 0) {
		c->made = c->last;
		ask->done(ask->arg, c, NULL);
		c->made = NULL;
		return 0;
	}
	if (*ask->key && c->op && strcmp(c->op->key, ask->key) == 0) {
		capsule_ask(c, ask->mem, ask->done, ask->arg);
		return 0;
	}
	if (c->state != CAP_RUNNING && c->state != CAP_PAUSED)
		return err_set(e, E_BAD_STATE, "capsule %s is %s: no snapshot", c->id,
		    capsule_state_name(c->state));
	q = talloc_memdup(ask->mem, ask, sizeof *ask);
	if (capsule_busy(c, q, snapshot_again, q, e)) {
		if (e->code == E_OK)
			return 0;
		talloc_free(q);
		return -1;
	}
	talloc_free(q);
	return capsule_image_room(c, e) < 0 ? -1 : 1;
}

void
capsule_snapshot(struct agent *a, const char *id, int64_t epoch, const char *key, bool memory,
    void *mem, capsule_done *done, void *arg)
{
	struct snapshot_ask q = {
		.agent = a, .epoch = epoch, .memory = memory, .mem = mem, .done = done, .arg = arg
	};
	struct capsule *c = capsule_find(a, id);
	struct capsule_op *op;
	struct err e = { 0 };
	int may;

	snprintf(q.id, sizeof q.id, "%s", id);
	snprintf(q.key, sizeof q.key, "%s", key ? key : "");
	may = snapshot_may(c, &q, &e);
	if (may < 0)
		done(arg, c && c->state != CAP_GONE ? c : NULL, &e);
	if (may <= 0)
		return;
	op = capsule_op_new(c, "snapshot");
	op->memory = memory;
	memcpy(op->key, q.key, sizeof op->key);
	if (c->state == CAP_PAUSED)
		op->memory = true; /* its process goes, so its image must be there */
	if (op->memory)
		capsule_choose_parent(op);
	capsule_ask(c, mem, done, arg);
	if (c->state == CAP_PAUSED) {
		capsule_awake(c);
		op->flow = flow_new(op, a->loop, paused_steps, op, paused_snapped);
	} else
		op->flow = flow_new(op, a->loop, snapshot_steps, op, snapped);
}

/* Flattening. */

static void
flattened(void *user, const struct err *e)
{
	struct capsule_op *op = user;
	struct capsule *c = op->capsule;

	if (e)
		log_warn(NULL, "capsule %s: its disk is not flattened: %s", c->id, e->text);
	else if (c->vm) {
		log_info(NULL, "capsule %s: its disk is flat again", c->id);
		c->chain = c->vm->chain;
		capsule_note(c, "up");
	}
	if (c->vm && c->vm->state == VM_DEAD)
		capsule_died(c, c->vm);
	capsule_op_end(op, NULL);
}

static void
step_flatten(void *user)
{
	struct capsule_op *op = user;

	vm_disk_flatten(op->capsule->vm, capsule_on_vm, op);
}

static const struct step flatten_steps[] = { { "flattening", step_flatten }, { 0 } };

void
capsule_flatten(struct capsule *c)
{
	struct capsule_op *op;

	if (c->state != CAP_RUNNING || c->op || !c->vm || c->chain.layers <= LAYERS_GOOD)
		return;
	op = capsule_op_new(c, "flattening its disk");
	op->quiet = op->flattens = true;
	op->flow = flow_new(op, c->agent->loop, flatten_steps, op, flattened);
}

/* Rollback: the new VM is loaded beside the old one, which stands still; then they change places.
 */

static void
step_new(void *user)
{
	struct capsule_op *op = user;
	struct vm_spec spec = capsule_vm_spec(op);

	spec.chain = &op->chain;
	crash_point("rollback.3");
	op->vm = vm_start(op->capsule->agent, &spec, capsule_on_vm, op);
}

static void
step_commit(void *user)
{
	struct capsule_op *op = user;
	struct capsule *c = op->capsule;

	memcpy(op->folder, c->vm_name, sizeof op->folder);
	op->old_epoch = c->epoch;
	c->epoch = op->epoch;
	c->persisted = false;
	capsule_vm_is(c, op->vm);
	capsule_write(op, "vm");
}

static void
step_change(void *user)
{
	struct capsule_op *op = user;
	struct capsule *c = op->capsule;
	struct vm *old = c->vm;

	crash_point("rollback.4");
	op->committed = true;
	capsule_own(op);
	if (old)
		vm_destroy(old, NULL, NULL);
	else
		vm_sweep(c->agent, op->folder, 0, 0);
	if (c->vm->state == VM_RUNNING)
		flow_next(op->flow);
	else
		vm_cont(c->vm, capsule_on_vm, op);
}

static void
step_new_init(void *user)
{
	struct capsule_op *op = user;

	capsule_init(op, op->capsule->vm, false);
}

static const struct step rollback_steps[] = {
	{ "verifying the snapshot", capsule_step_image },
	{ "loading the image below", capsule_step_parent },
	{ "closing the guest session", capsule_step_leave },
	{ "stopping", capsule_step_stop },
	{ "starting the virtual machine", step_new },
	{ "writing the journal", step_commit },
	{ "changing places", step_change },
	{ "growing the disk", capsule_step_disk },
	{ "meeting the guest", capsule_step_meet },
	{ "giving the guest its identity", step_new_init },
	{ "writing the journal", capsule_step_up },
	{ 0 },
};

/* After the change there is no way back: the capsule is as after a start that failed. */
static void
rollback_lost(struct capsule_op *op, const struct err *e)
{
	struct capsule *c = op->capsule;
	struct err ignore = { 0 }, why = *e;

	if (c->vm)
		vm_destroy(c->vm, NULL, NULL);
	c->vm = NULL;
	*c->vm_name = '\0';
	c->never_ran = true;
	snprintf(c->why, sizeof c->why, "%.150s", e->text);
	(void)capsule_step(c, EV_EXITED, &ignore);
	capsule_note(c, "failed");
	capsule_op_end(op, &why);
}

static void
rolled_back(void *user, const struct err *e)
{
	struct capsule_op *op = user;
	struct capsule *c = op->capsule;
	struct err ignore = { 0 };

	if (!e) {
		crash_point("rollback.5");
		capsule_keep(c, op);
		(void)capsule_step(c, EV_UP, &ignore);
		capsule_op_end(op, NULL);
		return;
	}
	if (op->committed) {
		rollback_lost(op, e);
		return;
	}
	if (op->vm)
		vm_destroy(op->vm, NULL, NULL);
	op->vm = NULL;
	if (*op->folder) {
		/* the journal did not take the change */
		memcpy(c->vm_name, op->folder, sizeof c->vm_name);
		c->epoch = op->old_epoch;
		if (c->vm)
			capsule_vm_is(c, c->vm);
	}
	op->why = *e;
	if (op->was_running) {
		(void)capsule_step(c, EV_UP, &ignore);
		capsule_undo(op, e);
	} else
		capsule_asleep_again(op, NULL);
}

/* One that waits for the end of a quiet operation. */
struct rollback_ask {
	struct agent *agent;
	char id[CAPSULE_ID];
	struct capsule_spec spec;
	void *spec_mem, *mem;
	capsule_done *done;
	void *arg;
};

static void
rollback_again(void *arg)
{
	struct rollback_ask *q = arg, copy = *q;

	talloc_free(q);
	capsule_rollback(
	    copy.agent, copy.id, &copy.spec, copy.spec_mem, copy.mem, copy.done, copy.arg);
}

static bool
rollback_waits(struct capsule *c, const struct capsule_spec *spec, void *spec_mem, void *mem,
    capsule_done *done, void *arg, struct err *e)
{
	struct rollback_ask *q = talloc_zero(mem, struct rollback_ask);

	*q = (struct rollback_ask){ .agent = c->agent,
		.spec = *spec,
		.spec_mem = spec_mem,
		.mem = mem,
		.done = done,
		.arg = arg };
	memcpy(q->id, c->id, sizeof q->id);
	if (capsule_busy(c, q, rollback_again, q, e) && e->code == E_OK)
		return true;
	talloc_free(q);
	return false;
}

void
capsule_rollback(struct agent *a, const char *id, const struct capsule_spec *spec, void *spec_mem,
    void *mem, capsule_done *done, void *arg)
{
	struct capsule *c = capsule_find(a, id);
	struct capsule_op *op;
	struct err e = { 0 };

	if (!c || c->state == CAP_GONE)
		(void)err_set(&e, E_NOT_FOUND, "no capsule %s", id);
	else if (spec->epoch == c->epoch && c->state == CAP_RUNNING) {
		done(arg, c, NULL);
		return;
	} else if (c->op && c->op->epoch == spec->epoch && strcmp(c->op->name, "rollback") == 0) {
		capsule_ask(c, mem, done, arg);
		return;
	} else if (c->state != CAP_RUNNING && c->state != CAP_PAUSED) {
		capsule_start(a, id, spec, spec_mem, mem, done, arg);
		return;
	} else if (spec->epoch <= c->epoch)
		(void)err_set(
		    &e, E_STALE_EPOCH, "capsule %s is at epoch %lld", c->id, (long long)c->epoch);
	else if (rollback_waits(c, spec, spec_mem, mem, done, arg, &e))
		return;
	else if (e.code == E_OK && host_room(a, &e) == 0) {
		bool running = c->state == CAP_RUNNING;

		if (capsule_step(c, running ? EV_ROLLBACK : EV_RESUME, &e) == 0) {
			capsule_awake(c);
			op = capsule_op_new(c, "rollback");
			op->was_running = running;
			capsule_want_disk(c, (uint64_t)spec->disk_mb << 20);
			op->epoch = spec->epoch;
			op->spec = *spec;
			op->spec_mem = talloc_steal(op, spec_mem);
			capsule_ask(c, mem, done, arg);
			op->flow = flow_new(op, a->loop, rollback_steps, op, rolled_back);
			return;
		}
	}
	done(arg, c && c->state != CAP_GONE ? c : NULL, &e);
}
