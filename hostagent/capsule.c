/*
 * capsule.c - see capsule.h. Steps and crash points are those of spec 02 §1.4.
 *
 * The order is the promise: the journal says what will be, then it is done, then the journal says
 * that it was. An answer leaves only after the last record is on disk.
 */
#include "capsule_in.h"
#include "control.h"
#include "guest.h"
#include "host.h"
#include "id.h"
#include "identity.h"
#include "image.h"
#include "journal.h"
#include "net.h"
#include "metrics.h"
#include "template.h"
#include "vm_guest.h"

#include <string.h>
#include <sys/wait.h>

enum { INIT_MS = 20000, DEAD_MS = 20 };

/* The start's steps. */

static void
on_journal(void *arg, const struct err *e)
{
	struct capsule_op *op = arg;

	if (e)
		flow_fail(op->flow, e);
	else
		flow_next(op->flow);
}

void
capsule_record(const struct capsule *c, const char *what, struct buf *b)
{
	buf_fmt(b, "{\"op\":\"%s\",\"id\":\"%s\",\"epoch\":%lld,\"at\":%lld", what, c->id,
	    (long long)c->epoch, (long long)(c->since ? c->since : now_real()));
	if (c->template)
		buf_fmt(b,
		    ",\"template\":\"%s\",\"build\":\"%s\",\"vcpus\":%d,\"memory_mb\":%d,"
		    "\"disk\":%llu,\"warm\":%s,\"accel\":%d",
		    c->template, c->build, c->vcpus, c->memory_mb, (unsigned long long)c->disk_size,
		    c->warm ? "true" : "false", c->accel);
	if (*c->vm_name)
		buf_fmt(b, ",\"vm\":\"%s\",\"pid\":%d,\"start\":%llu,\"uid\":%u", c->vm_name,
		    (int)c->pid, (unsigned long long)c->start, (unsigned)c->uid);
	chain_json(&c->chain, b);
	if (c->grows)
		buf_str(b, ",\"grows\":true");
	if (c->restored)
		buf_str(b, ",\"restored\":true");
	if (*c->parent)
		buf_fmt(b, ",\"parent\":\"%s\"", c->parent);
	if (c->persisted)
		buf_fmt(b, ",\"persisted\":\"%s\"", c->image_sum);
	if (*c->paused_by)
		buf_fmt(b, ",\"by\":\"%s\"", c->paused_by);
	if (*c->disk_artifact)
		buf_fmt(b,
		    ",\"memory\":\"%s\",\"disk_id\":\"%s\",\"memory_parent\":\"%s\","
		    "\"disk_parent\":\"%s\",\"sealed_bytes\":%llu",
		    c->memory_artifact, c->disk_artifact, c->memory_parent, c->disk_parent,
		    (unsigned long long)c->sealed_bytes);
	if (c->reboots)
		buf_fmt(b, ",\"reboots\":%u", c->reboots);
	if (c->exited_at)
		buf_fmt(
		    b, ",\"exited\":%lld,\"status\":%d", (long long)c->exited_at, c->exit_status);
	if (c->hung)
		buf_str(b, ",\"hung\":true");
	if (c->boot_loop)
		buf_str(b, ",\"boot_loop\":true");
	if (c->idle)
		idle_record(c, b);
	buf_chr(b, '}');
}

const char *
capsule_say(struct capsule *c, const char *what)
{
	auto_talloc char *mem = talloc_new(NULL);
	struct buf b = BUF(mem);

	capsule_record(c, what, &b);
	TALLOC_FREE(c->set);
	talloc_free(c->said);
	return c->said = talloc_strdup(c, b.data);
}

const char *
capsule_say_set(struct capsule *c)
{
	auto_talloc char *mem = talloc_new(NULL);
	struct buf b = BUF(mem);

	buf_fmt(&b, "{\"op\":\"set\",\"id\":\"%s\",\"disk\":%llu,\"grows\":%s", c->id,
	    (unsigned long long)c->disk_size, c->grows ? "true" : "false");
	idle_record(c, &b);
	buf_chr(&b, '}');
	talloc_free(c->set);
	return c->set = talloc_strdup(c, b.data);
}

const char *
capsule_error_code(const struct capsule *c)
{
	return c->never_ran ? "start_failed"
	    : c->boot_loop  ? "boot_loop"
	    : c->hung       ? "vmm_hung"
			    : "vmm_exit";
}

void
capsule_exit_json(const struct capsule *c, struct buf *b)
{
	int s = c->exit_status;

	buf_fmt(b, "{\"at\":%lld", (long long)c->exited_at);
	if (s >= 0 && WIFEXITED(s))
		buf_fmt(b, ",\"code\":%d", WEXITSTATUS(s));
	else if (s >= 0 && WIFSIGNALED(s))
		buf_fmt(b, ",\"signal\":%d", WTERMSIG(s));
	buf_chr(b, '}');
}

void
capsule_write(struct capsule_op *op, const char *what)
{
	struct capsule *c = op->capsule;

	journal_append(c->agent->journal, op, capsule_say(c, what), on_journal, op);
}

/* The same without anybody who waits for it. */
void
capsule_note(struct capsule *c, const char *what)
{
	journal_append(c->agent->journal, c, capsule_say(c, what), NULL, NULL);
}

void
capsule_vm_is(struct capsule *c, const struct vm *vm)
{
	memcpy(c->vm_name, vm->name, sizeof c->vm_name);
	c->pid = vm->pid;
	c->start = vm->start;
	c->uid = vm->uid;
	c->accel = vm->accel;
	c->warm = vm->image != NULL;
	c->chain = vm->chain;
	memcpy(c->parent, vm->parent, sizeof c->parent);
	capsule_want_disk(c, vm->disk_size);
}

static void
step_want(void *user)
{
	struct capsule_op *op = user;
	struct capsule *c = op->capsule;
	struct image *i = image_get(c->agent, op->t, c->vcpus, c->memory_mb);
	struct err e = { 0 };

	if (net_keep(c->agent, c->id, op->spec.network, &e) < 0) {
		flow_fail(op->flow, &e);
		return;
	}
	/* a ready clone is known already: one record says all */
	if (!op->spec.cold && !op->spec.disk && i->state == IMG_READY && (op->vm = pool_take(i))) {
		op->pooled = true;
		capsule_vm_is(c, op->vm);
	}
	capsule_write(op, "want");
}

static void
on_vm(void *user, const struct err *e)
{
	struct capsule_op *op = user;
	struct vm *vm = op->vm;

	if (!e) {
		capsule_vm_is(op->capsule, vm);
		flow_next(op->flow);
	} else if (!op->again && !op->spec.disk) {
		/* once more, cold: no image can be the reason then */
		struct vm_spec spec = { .t = op->t,
			.vcpus = op->capsule->vcpus,
			.memory_mb = op->capsule->memory_mb,
			.disk_size = op->capsule->disk_size,
			.soon = true };

		log_warn(NULL, "capsule %s: start failed, boots cold once more: %s",
		    op->capsule->id, e->text);
		op->again = true;
		op->vm = vm_start(op->capsule->agent, &spec, on_vm, op);
		vm_destroy(vm, NULL, NULL);
	} else
		flow_fail(op->flow, e);
}

static void
step_vm(void *user)
{
	struct capsule_op *op = user;
	struct capsule *c = op->capsule;
	struct image *i = image_get(c->agent, op->t, c->vcpus, c->memory_mb);
	struct vm_spec spec = capsule_vm_spec(op);

	crash_point("create.3");
	if (op->pooled && op->vm->state == VM_WAITING) {
		vm_load(op->vm, on_vm, op);
		return;
	}
	if (op->pooled) {
		flow_next(op->flow);
		return;
	}
	if (op->spec.disk)
		spec.chain = &op->chain;
	else if (!op->spec.cold && i->state == IMG_READY)
		spec.image = i;
	op->vm = vm_start(c->agent, &spec, on_vm, op);
}

static void
step_bind(void *user)
{
	struct capsule_op *op = user;

	if (op->pooled)
		flow_next(op->flow);
	else
		capsule_write(op, "vm");
}

void
capsule_on_vm(void *user, const struct err *e)
{
	struct capsule_op *op = user;

	if (e)
		flow_fail(op->flow, e);
	else
		flow_next(op->flow);
}

static void
step_disk(void *user)
{
	struct capsule_op *op = user;
	uint64_t want = op->capsule->disk_size;

	crash_point("create.4");
	if (op->vm->state == VM_DEAD) {
		struct err e = { 0 };

		(void)err_set(&e, E_QEMU, "QEMU ended while it waited");
		flow_fail(op->flow, &e);
	} else if (want <= op->vm->disk_size)
		flow_next(op->flow);
	else
		vm_grow_disk(op->vm, want, capsule_on_vm, op);
}

static void
step_cont(void *user)
{
	struct capsule_op *op = user;

	if (op->vm->state == VM_RUNNING)
		flow_next(op->flow);
	else
		vm_cont(op->vm, capsule_on_vm, op);
}

static void
on_init(void *arg, int status, const char *body, size_t len, const struct err *e)
{
	struct capsule_op *op = arg;
	struct err bad = { 0 };

	(void)len;
	if (!e && status / 100 == 2) {
		flow_next(op->flow);
		return;
	}
	if (e)
		bad = *e;
	else
		(void)err_set(&bad, status == 400 ? E_BAD_INPUT : E_AGENT,
		    "the guest refuses its init: %.160s", body);
	flow_fail(op->flow, &bad);
}

/* Before this is answered nothing of the user runs in the guest and nobody is let in. */
void
capsule_init(struct capsule_op *op, struct vm *vm, bool keep)
{
	struct buf b = BUF(op);
	struct uuid uuid = { 0 };
	struct err e = { 0 };
	char machine[33];
	struct identity id = { .epoch = op->epoch,
		.token = op->spec.token,
		.user = keep || op->spec.user ? op->spec.user : op->t->user,
		.workdir = keep || op->spec.workdir ? op->spec.workdir : op->t->workdir,
		.hostname = op->spec.hostname,
		.machine_id = machine,
		.capsule = op->capsule->id,
		.template = op->spec.template_id,
		.team = op->spec.team,
		.envs = op->spec.envs,
		.keep = keep,
		.disk_size = vm->disk_size,
		.other = op->spec.new_identity };
	struct guest_call call = {
		.method = "POST", .path = "/init", .type = "application/json", .timeout_ms = INIT_MS
	};

	(void)id_read(op->capsule->id, "cl-", &uuid);
	for (size_t i = 0; i < sizeof uuid.b; i++)
		snprintf(machine + 2 * i, 3, "%02x", uuid.b[i]);
	if (net_open(vm->agent, vm, op->capsule->id, &e) < 0 || vm_guest_open(vm, &e) < 0) {
		flow_fail(op->flow, &e);
		return;
	}
	identity_json(&b, &id);
	call.body = b.data;
	call.len = b.len;
	vm_ask(vm, op, &call, on_init, op);
	explicit_bzero(b.data, b.len);
	vm->frozen = false;
}

static void
step_init(void *user)
{
	struct capsule_op *op = user;

	capsule_init(op, op->vm, false);
}

static void
step_up(void *user)
{
	struct capsule_op *op = user;

	op->capsule->restored = op->state >= 0;
	capsule_told_disk(op->capsule, op->vm);
	op->capsule->took_ms = (int)(now_mono() - op->began);
	capsule_write(op, "up");
}

/* A restored guest may still be in its old session. */
static void
step_meet(void *user)
{
	struct capsule_op *op = user;

	if (op->state >= 0)
		vm_meet(op->vm, capsule_on_vm, op);
	else
		flow_next(op->flow);
}

static const struct step start_steps[] = {
	{ "writing the journal", step_want },
	{ "verifying the image", capsule_step_image },
	{ "loading the image", capsule_step_parent },
	{ "sharing the memory", capsule_step_flat },
	{ "starting the virtual machine", step_vm },
	{ "writing the journal", step_bind },
	{ "growing the disk", step_disk },
	{ "continuing", step_cont },
	{ "meeting the guest", step_meet },
	{ "giving the guest its identity", step_init },
	{ "writing the journal", step_up },
	{ 0 },
};

/* The process of a running capsule ended by itself: its disk stays, the control plane decides. */
void
capsule_died(void *user, struct vm *vm)
{
	struct capsule *c = user;
	struct err e = { 0 };

	c->exit_status = vm->status;
	c->vm = NULL;
	c->chain = vm->chain;
	if (c->state == CAP_PAUSED && c->persisted) {
		/* it slept, and its image is on disk: nothing is lost */
		log_warn(NULL, "capsule %s: its process ended, it sleeps on disk", c->id);
		c->pid = 0;
		capsule_note(c, "paused");
		capsule_moved(c);
	} else if (c->state == CAP_HIBERNATING && c->op && c->op->seal)
		c->pid = 0; /* all of it is being sealed already */
	else if (c->state == CAP_RUNNING && !c->op && vm->ended == VM_POWEROFF)
		capsule_powered_off(c);
	else if (c->state == CAP_RUNNING && !c->op && vm->ended == VM_RESET)
		capsule_rebooted(c);
	else {
		snprintf(c->why, sizeof c->why, "the virtual machine ended");
		c->exited_at = now_real();
		(void)capsule_step(c, EV_EXITED, &e);
		capsule_note(c, "exit");
	}
	talloc_free(vm);
	pool_fill(c->agent);
}

/* What goes on with it: the sealing of a hibernation has all that it needs. */
static bool
goes_on(const struct capsule *c)
{
	return c->op && !(c->state == CAP_HIBERNATING && c->op->seal);
}

static void
look_again(void *arg)
{
	struct vm *vm = arg;

	if (vm->on_dead == capsule_on_dead && !goes_on(vm->user))
		capsule_died(vm->user, vm);
}

void
capsule_on_dead(void *user, struct vm *vm)
{
	if (goes_on(user))
		(void)timer_new(vm, vm->agent->loop, DEAD_MS, DEAD_MS, look_again, vm);
	else
		capsule_died(user, vm);
}

void
capsule_moved(struct capsule *c)
{
	control_changed(c);
}

/* The spec stays: what was below it comes along. */
void
capsule_keep(struct capsule *c, struct capsule_op *op)
{
	talloc_free(c->kept);
	c->kept = talloc_memdup(c, &op->spec, sizeof op->spec);
	if (op->spec_mem)
		talloc_steal(c->kept, op->spec_mem);
	op->spec_mem = NULL;
}

static void
started(void *user, const struct err *e)
{
	struct capsule_op *op = user;
	struct capsule *c = op->capsule;
	struct err ignore = { 0 };

	c->op = NULL;
	if (op->vm)
		logs_bind(c, op->vm, true);
	if (e) {
		log_error(NULL, "capsule %s epoch %lld: start failed: %s", c->id,
		    (long long)c->epoch, e->text);
		logs_note(c, "start failed: %s", e->text);
		if (op->vm)
			vm_destroy(op->vm, NULL, NULL);
		*c->vm_name = '\0';
		c->never_ran = true;
		snprintf(c->why, sizeof c->why, "%.150s", e->text);
		(void)capsule_step(c, EV_FAIL, &ignore);
		capsule_note(c, "failed");
	} else {
		crash_point("create.5");
		c->vm = op->vm;
		c->vm->on_dead = capsule_on_dead;
		c->vm->user = c;
		capsule_keep(c, op);
		(void)capsule_step(c, EV_UP, &ignore);
		/* the next one of this shape finds an image */
		image_want(image_get(c->agent, op->t, c->vcpus, c->memory_mb));
	}
	pool_fill(c->agent);
	capsule_answer(c, e);
	talloc_free(op);
	capsule_grow_on(c);
}

/* Whether this epoch may start now: 1; it runs or starts already: 0; -1. */
static int
may_start(struct capsule *c, int64_t epoch, bool image, struct err *e)
{
	if (!c)
		return 1;
	if (epoch < c->epoch ||
	    (epoch == c->epoch && (c->state == CAP_GONE || c->state == CAP_STOPPING)))
		return err_set(
		    e, E_STALE_EPOCH, "capsule %s is at epoch %lld", c->id, (long long)c->epoch);
	if (image && epoch > c->epoch && c->state == CAP_ERROR)
		return 1; /* what is there is given up for it */
	/* asked again after it had run and slept: the answer to the first was lost */
	if (epoch == c->epoch &&
	    (c->state == CAP_RUNNING || c->state == CAP_STARTING || c->state == CAP_PAUSING ||
		c->state == CAP_PAUSED))
		return 0;
	if (c->state == CAP_ERROR && c->never_ran)
		return 1;
	if (c->state == CAP_GONE || (c->state == CAP_HIBERNATED && epoch > c->epoch))
		return 1;
	return err_set(e, E_BAD_STATE, "capsule %s is %s at epoch %lld", c->id,
	    capsule_state_name(c->state), (long long)c->epoch);
}

void
capsule_start(struct agent *a, const char *id, const struct capsule_spec *spec, void *spec_mem,
    void *mem, capsule_done *done, void *arg)
{
	struct capsule *c = capsule_find(a, id);
	struct capsule_op *op;
	struct template *t = NULL;
	struct err e = { 0 };
	int may = may_start(c, spec->epoch, spec->disk != NULL, &e);

	if (may == 0 && c->state == CAP_STARTING) {
		capsule_ask(c, mem, done, arg);
		return;
	}
	if (may <= 0) {
		done(arg, c, may < 0 ? &e : NULL);
		return;
	}
	t = template_find(a, spec->template, &e);
	if (t && spec->build && strcmp(t->build, spec->build) != 0 &&
	    !(t = template_build(a, spec->template, spec->build)))
		(void)err_set(&e, E_NOT_FOUND,
		    "this host has not the build %.40s of template %.40s", spec->build,
		    spec->template);
	/* room is checked before anything is made: a refused create leaves no trace */
	if (!t || host_room(a, &e) < 0) {
		done(arg, NULL, &e);
		return;
	}
	c = capsule_known(a, id);
	if (c->state == CAP_GONE)
		c->state = CAP_NEW; /* a tombstone gives its place to a later epoch */
	c->epoch = spec->epoch;
	idle_set(c, &spec->idle);
	c->template = t->name;
	c->build = t->build;
	c->vcpus = spec->vcpus;
	c->memory_mb = spec->memory_mb;
	c->disk_size = (uint64_t)spec->disk_mb << 20;
	capsule_want_disk(c, t->disk_size);
	c->grows = false;
	c->persisted = false;
	*c->paused_by = *c->memory_artifact = *c->disk_artifact = '\0';
	op = capsule_op_new(c, "start");
	op->epoch = spec->epoch;
	op->spec = *spec;
	op->spec_mem = talloc_steal(op, spec_mem);
	op->t = t;
	op->began = now_mono();
	(void)capsule_step(c, EV_START, &e);
	capsule_ask(c, mem, done, arg);
	op->flow = flow_new(op, a->loop, start_steps, op, started);
}

/* The end. */

static void
on_removed(void *user, const struct err *e)
{
	struct capsule_op *op = user;

	(void)e;
	flow_next(op->flow);
}

static void
step_drop(void *user)
{
	capsule_write(user, "drop");
}

static void
step_kill(void *user)
{
	struct capsule_op *op = user;
	struct capsule *c = op->capsule;
	struct vm *vm = op->vm;

	crash_point("destroy.3");
	op->vm = NULL;
	if (vm) {
		vm_destroy(vm, on_removed, op);
		return;
	}
	if (*c->vm_name)
		vm_sweep(c->agent, c->vm_name, c->pid, c->start);
	flow_next(op->flow);
}

static void
step_gone(void *user)
{
	struct capsule_op *op = user;

	crash_point("destroy.4");
	*op->capsule->vm_name = '\0';
	op->capsule->template = NULL;
	op->capsule->persisted = false;
	op->capsule->chain = (struct chain){ 0 };
	*op->capsule->parent = *op->capsule->memory_artifact = *op->capsule->disk_artifact = '\0';
	capsule_write(op, "gone");
}

static const struct step stop_steps[] = {
	{ "writing the journal", step_drop },
	{ "ending the virtual machine", step_kill },
	{ "writing the journal", step_gone },
	{ 0 },
};

static void
stopped(void *user, const struct err *e)
{
	struct capsule_op *op = user;
	struct capsule *c = op->capsule;
	struct err ignore = { 0 };

	c->op = NULL;
	if (e)
		log_error(NULL, "capsule %s: %s", c->id, e->text);
	else {
		crash_point("destroy.5");
		(void)capsule_step(c, EV_REMOVED, &ignore);
	}
	capsule_answer(c, e);
	talloc_free(op);
	pool_fill(c->agent);
}

void
capsule_finish_stop(struct capsule *c)
{
	struct capsule_op *before = c->op, *op = capsule_op_new(c, "destroy");

	op->vm = c->vm;
	c->vm = NULL;
	capsule_awake(c);
	if (before) {
		/* what is under way ends here; its callers hear that it was cancelled */
		struct err e = { 0 };

		if (before->vm && op->vm)
			vm_destroy(before->vm, NULL, NULL);
		else if (before->vm)
			op->vm = before->vm;
		before->vm = NULL;
		talloc_free(before);
		(void)err_set(&e, E_BAD_STATE, "capsule %s is being destroyed", c->id);
		capsule_answer(c, &e);
	}
	if (op->vm)
		vm_abandon(op->vm);
	op->flow = flow_new(op, c->agent->loop, stop_steps, op, stopped);
}

void
capsule_stop(
    struct agent *a, const char *id, int64_t epoch, void *mem, capsule_done *done, void *arg)
{
	struct capsule *c = capsule_find(a, id);
	struct err e = { 0 };

	if (!c || c->state == CAP_GONE) {
		(void)err_set(&e, E_NOT_FOUND, "no capsule %s", id);
		done(arg, NULL, &e);
		return;
	}
	if (epoch < c->epoch) {
		(void)err_set(
		    &e, E_STALE_EPOCH, "capsule %s is at epoch %lld", id, (long long)c->epoch);
		done(arg, c, &e);
		return;
	}
	if (c->state != CAP_STOPPING) {
		if (capsule_step(c, EV_STOP, &e) < 0) {
			done(arg, c, &e);
			return;
		}
		capsule_finish_stop(c);
	} else if (!c->op)
		capsule_finish_stop(c); /* the last try failed */
	capsule_ask(c, mem, done, arg);
}

/* Adoption. */

void
capsule_adopted(struct capsule *c, struct vm *vm)
{
	struct err e = { 0 };

	c->vm = vm;
	c->chain = vm->chain;
	vm->on_dead = capsule_on_dead;
	vm->user = c;
	if (c->state == CAP_HIBERNATING || c->state == CAP_PAUSED)
		capsule_unseal(c);
	if (c->state == CAP_RESUMING || c->state == CAP_HIBERNATING || c->state == CAP_PAUSING)
		(void)capsule_step(c, EV_BACK, &e);
	if (c->state == CAP_PAUSED || c->state == CAP_RUNNING)
		capsule_note(c, c->state == CAP_PAUSED ? "paused" : "up");
	capsule_grow_on(c);
	capsule_asleep(c);
	logs_bind(c, vm, false);
	logs_note(c, "adopted (pid %d)", (int)vm->pid);
	idle_changed(c);
	metrics_changed(c);
	control_changed(c);
}

void
capsule_slept(struct capsule *c)
{
	struct err e = { 0 };

	c->pid = 0;
	/* sealed, or copied, halfway */
	if (c->state == CAP_HIBERNATING || c->state == CAP_PAUSED)
		capsule_unseal(c);
	if (!c->persisted) {
		capsule_lost(c, false);
		return;
	}
	if (c->state != CAP_PAUSED)
		(void)capsule_step(c, c->state == CAP_PAUSING ? EV_PAUSED : EV_BACK, &e);
	capsule_note(c, "paused");
	log_info(NULL, "capsule %s: sleeps on disk", c->id);
}

void
capsule_lost(struct capsule *c, bool never_ran)
{
	struct err e = { 0 };

	c->never_ran = never_ran;
	snprintf(c->why, sizeof c->why, "%s",
	    never_ran ? "the agent ended during the start" : "the virtual machine is gone");
	if (never_ran)
		*c->vm_name = '\0';
	else
		c->exited_at = now_real();
	(void)capsule_step(c, never_ran ? EV_FAIL : EV_EXITED, &e);
	capsule_note(c, never_ran ? "failed" : "exit");
}

const char *
capsule_start_mode(const struct capsule *c)
{
	return c->restored ? "restored" : c->warm ? "warm" : "cold";
}
