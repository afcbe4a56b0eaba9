/*
 * capsule.c - see capsule.h. Steps and crash points are those of spec 02 §1.4.
 *
 * The order is the promise: the journal says what will be, then it is done, then the journal says
 * that it was. An answer leaves only after the last record is on disk.
 */
#include "capsule.h"
#include "control.h"
#include "flow.h"
#include "guest.h"
#include "host.h"
#include "id.h"
#include "identity.h"
#include "image.h"
#include "journal.h"
#include "metrics.h"
#include "template.h"

#include <string.h>
#include <sys/wait.h>

enum { INIT_MS = 20000 };

struct capsule_ask {
	struct capsule_ask *next;
	struct capsule *capsule;
	capsule_done *done;
	void *arg;
};

struct capsule_op {
	struct capsule *capsule;
	struct capsule_spec spec;
	struct flow *flow;
	struct template *t;
	struct vm *vm; /* not yet the capsule's */
	bool pooled, again;
	int64_t began;
};

/* Who waits. */

static int
ask_free(struct capsule_ask *a)
{
	struct capsule_ask **p;

	for (p = &a->capsule->asks; *p; p = &(*p)->next)
		if (*p == a) {
			*p = a->next;
			break;
		}
	return 0;
}

static void
ask(struct capsule *c, void *mem, capsule_done *done, void *arg)
{
	struct capsule_ask *a = talloc_zero(mem, struct capsule_ask);

	a->capsule = c;
	a->done = done;
	a->arg = arg;
	a->next = c->asks;
	c->asks = a;
	talloc_set_destructor(a, ask_free);
}

static void
answer(struct capsule *c, const struct err *e)
{
	struct capsule_ask *a;

	while ((a = c->asks)) {
		capsule_done *done = a->done;
		void *arg = a->arg;

		talloc_free(a);
		done(arg, c, e);
	}
}

struct capsule *
capsule_find(struct agent *a, const char *id)
{
	struct capsule *c;

	TAILQ_FOREACH(c, &a->capsules, link)
	if (strcmp(c->id, id) == 0)
		return c;
	return NULL;
}

struct capsule *
capsule_known(struct agent *a, const char *id)
{
	struct capsule *c = capsule_find(a, id);

	if (c)
		return c;
	c = talloc_zero(a, struct capsule);
	c->agent = a;
	snprintf(c->id, sizeof c->id, "%s", id);
	c->exit_status = -1;
	TAILQ_INSERT_TAIL(&a->capsules, c, link);
	return c;
}

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
	if (c->exited_at)
		buf_fmt(
		    b, ",\"exited\":%lld,\"status\":%d", (long long)c->exited_at, c->exit_status);
	if (c->idle)
		idle_record(c, b);
	buf_chr(b, '}');
}

const char *
capsule_error_code(const struct capsule *c)
{
	return c->never_ran ? "start_failed" : "vmm_exit";
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

static void
record(struct capsule_op *op, const char *what)
{
	auto_talloc char *mem = talloc_new(NULL);
	struct buf b = BUF(mem);

	capsule_record(op->capsule, what, &b);
	journal_append(op->capsule->agent->journal, op, b.data, on_journal, op);
}

/* The same without anybody who waits for it. */
static void
note(struct capsule *c, const char *what)
{
	auto_talloc char *mem = talloc_new(NULL);
	struct buf b = BUF(mem);

	capsule_record(c, what, &b);
	journal_append(c->agent->journal, c, b.data, NULL, NULL);
}

static void
vm_is(struct capsule *c, const struct vm *vm)
{
	memcpy(c->vm_name, vm->name, sizeof c->vm_name);
	c->pid = vm->pid;
	c->start = vm->start;
	c->uid = vm->uid;
	c->accel = vm->accel;
	c->warm = vm->image != NULL;
	c->disk_size = vm->disk_size;
}

static void
step_want(void *user)
{
	struct capsule_op *op = user;
	struct capsule *c = op->capsule;
	struct image *i = image_get(c->agent, op->t, c->vcpus, c->memory_mb);

	/* a ready clone is known already: one record says all */
	if (!op->spec.cold && i->state == IMG_READY && (op->vm = pool_take(i))) {
		op->pooled = true;
		vm_is(c, op->vm);
	}
	record(op, "want");
}

static void
on_vm(void *user, const struct err *e)
{
	struct capsule_op *op = user;
	struct vm *vm = op->vm;

	if (!e) {
		vm_is(op->capsule, vm);
		flow_next(op->flow);
	} else if (!op->again) {
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
	struct vm_spec spec = { .t = op->t,
		.vcpus = c->vcpus,
		.memory_mb = c->memory_mb,
		.disk_size = c->disk_size,
		.soon = true };

	crash_point("create.3");
	if (op->pooled) {
		flow_next(op->flow);
		return;
	}
	if (!op->spec.cold && i->state == IMG_READY)
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
		record(op, "vm");
}

static void
on_exchange(void *user, const struct err *e)
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
	uint64_t want = (uint64_t)op->spec.disk_mb << 20;

	crash_point("create.4");
	if (op->vm->state == VM_DEAD) {
		struct err e = { 0 };

		(void)err_set(&e, E_QEMU, "QEMU ended while it waited");
		flow_fail(op->flow, &e);
	} else if (want <= op->vm->disk_size)
		flow_next(op->flow);
	else
		vm_grow_disk(op->vm, want, on_exchange, op);
}

static void
step_cont(void *user)
{
	struct capsule_op *op = user;

	op->capsule->disk_size = op->vm->disk_size;
	if (op->vm->state == VM_RUNNING)
		flow_next(op->flow);
	else
		vm_cont(op->vm, on_exchange, op);
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
static void
step_init(void *user)
{
	struct capsule_op *op = user;
	struct buf b = BUF(op);
	struct uuid uuid = { 0 };
	struct err e = { 0 };
	char machine[33];
	struct identity id = { .epoch = op->capsule->epoch,
		.token = op->spec.token,
		.user = op->spec.user ? op->spec.user : op->t->user,
		.workdir = op->spec.workdir ? op->spec.workdir : op->t->workdir,
		.hostname = op->spec.hostname,
		.machine_id = machine,
		.capsule = op->capsule->id,
		.template = op->spec.template_id,
		.team = op->spec.team,
		.envs = op->spec.envs };
	struct guest_call call = {
		.method = "POST", .path = "/init", .type = "application/json", .timeout_ms = INIT_MS
	};

	(void)id_read(op->capsule->id, "cl-", &uuid);
	for (size_t i = 0; i < sizeof uuid.b; i++)
		snprintf(machine + 2 * i, 3, "%02x", uuid.b[i]);
	if (vm_guest_open(op->vm, &e) < 0) {
		flow_fail(op->flow, &e);
		return;
	}
	identity_json(&b, &id);
	call.body = b.data;
	call.len = b.len;
	guest_call(op->vm->guest, op, &call, on_init, op);
	explicit_bzero(b.data, b.len);
}

static void
step_up(void *user)
{
	struct capsule_op *op = user;

	op->capsule->took_ms = (int)(now_mono() - op->began);
	record(op, "up");
}

static const struct step start_steps[] = {
	{ "writing the journal", step_want },
	{ "starting the virtual machine", step_vm },
	{ "writing the journal", step_bind },
	{ "growing the disk", step_disk },
	{ "continuing", step_cont },
	{ "giving the guest its identity", step_init },
	{ "writing the journal", step_up },
	{ 0 },
};

/* The process of a running capsule ended by itself: its disk stays, the control plane decides. */
static void
capsule_died(void *user, struct vm *vm)
{
	struct capsule *c = user;
	struct err e = { 0 };

	c->exit_status = vm->status;
	snprintf(c->why, sizeof c->why, "the virtual machine ended");
	c->exited_at = now_real();
	c->vm = NULL;
	(void)capsule_step(c, EV_EXITED, &e);
	note(c, "exit");
	talloc_free(vm);
	pool_fill(c->agent);
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
		note(c, "failed");
	} else {
		crash_point("create.5");
		c->vm = op->vm;
		c->vm->on_dead = capsule_died;
		c->vm->user = c;
		c->never_ran = false;
		(void)capsule_step(c, EV_UP, &ignore);
		/* the next one of this shape finds an image */
		image_want(image_get(c->agent, op->t, c->vcpus, c->memory_mb));
	}
	pool_fill(c->agent);
	answer(c, e);
	talloc_free(op);
}

/* Whether this epoch may start now: 1; it runs or starts already: 0; -1. */
static int
may_start(struct capsule *c, int64_t epoch, struct err *e)
{
	if (!c)
		return 1;
	if (epoch < c->epoch ||
	    (epoch == c->epoch && (c->state == CAP_GONE || c->state == CAP_STOPPING)))
		return err_set(
		    e, E_STALE_EPOCH, "capsule %s is at epoch %lld", c->id, (long long)c->epoch);
	if (epoch == c->epoch && (c->state == CAP_RUNNING || c->state == CAP_STARTING))
		return 0;
	if (c->state == CAP_ERROR && c->never_ran)
		return 1;
	if (c->state == CAP_GONE)
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
	int may = may_start(c, spec->epoch, &e);

	if (may == 0 && c->state == CAP_STARTING) {
		ask(c, mem, done, arg);
		return;
	}
	if (may <= 0) {
		done(arg, c, may < 0 ? &e : NULL);
		return;
	}
	t = template_find(a, spec->template, &e);
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
	if (c->disk_size < t->disk_size)
		c->disk_size = t->disk_size;
	op = talloc_zero(a, struct capsule_op);
	op->capsule = c;
	op->spec = *spec;
	talloc_steal(op, spec_mem);
	op->t = t;
	op->began = now_mono();
	(void)capsule_step(c, EV_START, &e);
	ask(c, mem, done, arg);
	c->op = op;
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
	record(user, "drop");
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
	record(op, "gone");
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
	answer(c, e);
	talloc_free(op);
	pool_fill(c->agent);
}

void
capsule_finish_stop(struct capsule *c)
{
	struct capsule_op *op = talloc_zero(c->agent, struct capsule_op);
	struct capsule_op *start = c->op;

	op->capsule = c;
	op->vm = c->vm;
	c->vm = NULL;
	if (start) {
		/* a start under way ends here; its callers hear that it was cancelled */
		struct err e = { 0 };

		op->vm = start->vm;
		start->vm = NULL;
		c->op = NULL;
		talloc_free(start);
		(void)err_set(&e, E_BAD_STATE, "capsule %s is being destroyed", c->id);
		answer(c, &e);
	}
	if (op->vm)
		vm_abandon(op->vm);
	c->op = op;
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
	ask(c, mem, done, arg);
}

/* Adoption. */

void
capsule_adopted(struct capsule *c, struct vm *vm)
{
	c->vm = vm;
	vm->on_dead = capsule_died;
	vm->user = c;
	logs_bind(c, vm, false);
	logs_note(c, "adopted (pid %d)", (int)vm->pid);
	idle_changed(c);
	metrics_changed(c);
	control_changed(c);
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
	note(c, never_ran ? "failed" : "exit");
}
