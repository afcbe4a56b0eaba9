/*
 * capsule_sleep.c - pause, what becomes of a paused capsule, and resume.
 *
 * A paused capsule keeps its process; some seconds later its memory is in the VM's folder as well
 * (state, a stream against the image it came from), so that neither the end of the machine nor the
 * need for memory costs anything. Whoever continues it makes that image invalid first: on disk,
 * before the vCPUs run, since from then on disk and image do not belong together.
 */
#include "capsule_in.h"
#include "host.h"
#include "image.h"
#include "template.h"

#include <fcntl.h>
#include <string.h>

enum { AGAIN_MS = 1000, AGAIN_MAX = 30, RETRY_MS = 30000 };

/* Steps that pause and hibernate share. */

void
capsule_on_frozen(void *user, const struct err *e)
{
	struct capsule_op *op = user;
	struct vm *vm = op->capsule->vm;

	/* a silent guest sleeps as well; it only is not prepared for it */
	if (e && vm && vm->state != VM_DEAD)
		log_warn(NULL, "capsule %s sleeps unfrozen: %s", op->capsule->id, e->text);
	if (e && (!vm || vm->state == VM_DEAD))
		flow_fail(op->flow, e);
	else
		flow_next(op->flow);
}

void
capsule_step_freeze(void *user)
{
	struct capsule_op *op = user;

	if (!op->was_running)
		flow_next(op->flow);
	else
		vm_freeze(op->capsule->vm, !op->memory, capsule_on_frozen, op);
}

/* The image's parent: the one it came from, else the shape's, which has most of the kernel's pages.
   An image that is written already keeps the one it was written against, and be it none. */
void
capsule_choose_parent(struct capsule_op *op)
{
	struct capsule *c = op->capsule;
	struct image *i;

	memcpy(op->parent, c->parent, sizeof op->parent);
	if (*op->parent || c->persisted || !c->template)
		return;
	TAILQ_FOREACH(i, &c->agent->images, link)
	if (*i->name && i->state == IMG_READY && strcmp(i->t->name, c->template) == 0 &&
	    i->memory_mb == c->memory_mb)
		memcpy(op->parent, i->id, sizeof op->parent);
}

void
capsule_step_take(void *user)
{
	struct capsule_op *op = user;
	struct vm *vm = op->capsule->vm;
	struct err e = { 0 };

	if (!vm || op->capsule->persisted || !op->memory) {
		flow_next(op->flow);
		return;
	}
	(void)unlinkat(vm->dir, "state.tmp", 0);
	auto_fd fd = openat(vm->dir, "state.tmp", O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (fd < 0) {
		err_sys(&e, "state.tmp");
		flow_fail(op->flow, &e);
	} else
		vm_save(vm, -1, op->image ? op->image->memory : -1, fd, true, capsule_on_vm, op);
}

void
capsule_step_durable(void *user)
{
	struct capsule_op *op = user;
	struct err e = { 0 };

	if (op->capsule->persisted || !op->memory) {
		flow_next(op->flow);
		return;
	}
	capsule_state_sums(op);
	if (op->sums) {
		capsule_state_start(op, true);
		return;
	}
	(void)err_set(&e, E_TAMPERED, "the image of the capsule is missing");
	flow_fail(op->flow, &e);
}

/* Room for the image, at most what QEMU has of its own. */
int
capsule_image_room(struct capsule *c, struct err *e)
{
	char path[40], text[4096] = "", *p;
	uint64_t need = 16;

	if (c->vm && c->vm->pid > 0 && !c->persisted) {
		snprintf(path, sizeof path, "/proc/%d/status", (int)c->vm->pid);
		auto_fd fd = open(path, O_RDONLY | O_CLOEXEC);
		if (fd >= 0 && read(fd, text, sizeof text - 1) > 0 &&
		    (p = strstr(text, "RssAnon:")))
			need += strtoul(p + 8, NULL, 10) / 1024;
	}
	return host_disk_room(c->agent, need, e);
}

/* Pause. */

static void
step_pause_want(void *user)
{
	capsule_write(user, "pause");
}

static void
step_pause_freeze(void *user)
{
	crash_point("pause.3");
	capsule_step_freeze(user);
}

static void
step_paused(void *user)
{
	struct capsule_op *op = user;
	struct capsule *c = op->capsule;

	crash_point("pause.4");
	c->persisted = false;
	memcpy(c->paused_by, op->by, sizeof c->paused_by);
	capsule_write(op, "paused");
}

static const struct step pause_steps[] = {
	{ "writing the journal", step_pause_want },
	{ "freezing the user's processes", step_pause_freeze },
	{ "closing the guest session", capsule_step_leave },
	{ "stopping", capsule_step_stop },
	{ "writing the journal", step_paused },
	{ 0 },
};

/* What did not work is undone: it runs again, or is seen to have died. */
static void
step_again_cont(void *user)
{
	struct capsule_op *op = user;

	if (op->capsule->vm->state == VM_RUNNING)
		flow_next(op->flow);
	else
		vm_cont(op->capsule->vm, capsule_on_vm, op);
}

static void
on_thawed(void *user, const struct err *e)
{
	struct capsule_op *op = user;

	if (e)
		log_warn(NULL, "capsule %s: %s", op->capsule->id, e->text);
	flow_next(op->flow);
}

static void
step_again_thaw(void *user)
{
	struct capsule_op *op = user;

	vm_thaw(op->capsule->vm, on_thawed, op);
}

static const struct step again_steps[] = {
	{ "continuing", step_again_cont },
	{ "thawing the user's processes", step_again_thaw },
	{ 0 },
};

static void ran_again(void *, const struct err *);

static void
again(void *arg)
{
	struct capsule_op *op = arg;

	TALLOC_FREE(op->timer);
	if (op->capsule->vm && op->capsule->vm->state != VM_DEAD)
		op->flow = flow_new(op, op->capsule->agent->loop, again_steps, op, ran_again);
	else
		ran_again(op, NULL);
}

static void
ran_again(void *user, const struct err *e)
{
	struct capsule_op *op = user;
	struct capsule *c = op->capsule;
	struct err ignore = { 0 }, why = op->why;

	if (c->vm && c->vm->state == VM_DEAD)
		capsule_died(c, c->vm);
	else if (e && op->tries++ < AGAIN_MAX) {
		log_error(NULL, "capsule %s: does not go on yet: %s", c->id, e->text);
		op->timer = timer_new(op, c->agent->loop, AGAIN_MS, 0, again, op);
		return;
	} else {
		(void)capsule_step(c, EV_BACK, &ignore);
		capsule_note(c, "up");
	}
	capsule_op_end(op, &why);
}

void
capsule_undo(struct capsule_op *op, const struct err *why)
{
	struct capsule *c = op->capsule;

	op->why = *why;
	if (c->vm)
		c->chain = c->vm->chain;
	log_error(NULL, "capsule %s: %s failed, it goes on: %s", c->id, op->name, why->text);
	if (!c->vm || c->vm->state == VM_DEAD) {
		ran_again(op, NULL);
		return;
	}
	op->flow = flow_new(op, c->agent->loop, again_steps, op, ran_again);
}

static void
paused(void *user, const struct err *e)
{
	struct capsule_op *op = user;
	struct capsule *c = op->capsule;
	struct err ignore = { 0 };

	if (e) {
		*c->paused_by = '\0';
		capsule_undo(op, e);
		return;
	}
	crash_point("pause.5");
	c->took_ms = (int)(now_mono() - op->began);
	(void)capsule_step(c, EV_PAUSED, &ignore);
	capsule_asleep(c);
	capsule_op_end(op, NULL);
}

static void
ask_again(void *arg)
{
	struct capsule_asked *q = arg, copy = *q;

	talloc_free(q);
	if (copy.what == ASK_PAUSE)
		capsule_pause(
		    copy.agent, copy.id, copy.epoch, copy.by, copy.mem, copy.done, copy.arg);
	else if (copy.what == ASK_RESUME && copy.spec)
		capsule_resume_cold(
		    copy.agent, copy.id, copy.spec, copy.spec_mem, copy.mem, copy.done, copy.arg);
	else if (copy.what == ASK_RESUME)
		capsule_resume(copy.agent, copy.id, copy.epoch, copy.mem, copy.done, copy.arg);
	else
		capsule_hibernate_as(copy.agent, copy.id, copy.epoch, copy.by, copy.memory,
		    copy.mem, copy.done, copy.arg);
}

/* What all begin with. NULL: the call is answered, or waits. */
struct capsule *
capsule_begin(struct capsule_asked *ask, enum capsule_state goal, enum capsule_state way)
{
	struct capsule *c = capsule_find(ask->agent, ask->id);
	struct err e = { 0 };
	struct capsule_asked *q;

	if (!c || c->state == CAP_GONE)
		(void)err_set(&e, E_NOT_FOUND, "no capsule %s", ask->id);
	else if (ask->epoch < c->epoch)
		(void)err_set(
		    &e, E_STALE_EPOCH, "capsule %s is at epoch %lld", c->id, (long long)c->epoch);
	else if (c->state == goal && (goal != CAP_RUNNING || ask->epoch == c->epoch)) {
		ask->done(ask->arg, c, NULL);
		return NULL;
	} else if (c->state == way && c->op && !c->op->quiet) {
		capsule_ask(c, ask->mem, ask->done, ask->arg);
		return NULL;
	} else {
		q = talloc_memdup(ask->mem, ask, sizeof *ask);
		if (!capsule_busy(c, q, ask_again, q, &e)) {
			talloc_free(q);
			return c;
		}
		if (e.code == E_OK)
			return NULL;
		talloc_free(q);
	}
	ask->done(ask->arg, c && c->state != CAP_GONE ? c : NULL, &e);
	return NULL;
}

void
capsule_pause(struct agent *a, const char *id, int64_t epoch, const char *by, void *mem,
    capsule_done *done, void *arg)
{
	struct capsule_asked q = {
		.agent = a, .epoch = epoch, .mem = mem, .done = done, .arg = arg, .what = ASK_PAUSE
	};
	struct capsule *c;
	struct capsule_op *op;
	struct err e = { 0 };

	snprintf(q.id, sizeof q.id, "%s", id);
	snprintf(q.by, sizeof q.by, "%s", by ? by : "user");
	c = capsule_begin(&q, CAP_PAUSED, CAP_PAUSING);
	if (!c)
		return;
	if (capsule_step(c, EV_PAUSE, &e) < 0) {
		done(arg, c, &e);
		return;
	}
	c->epoch = epoch;
	op = capsule_op_new(c, "pause");
	op->was_running = op->memory = true;
	memcpy(op->by, q.by, sizeof op->by);
	capsule_ask(c, mem, done, arg);
	op->flow = flow_new(op, a->loop, pause_steps, op, paused);
}

/* A paused capsule: its image on disk, then its process gone. */

static void
step_persisted(void *user)
{
	struct capsule_op *op = user;

	op->capsule->persisted = true;
	capsule_write(op, "paused");
}

static const struct step persist_steps[] = {
	{ "loading the image below", capsule_step_parent },
	{ "saving memory", capsule_step_take },
	{ "making it durable", capsule_step_durable },
	{ "writing the journal", step_persisted },
	{ 0 },
};

static void
persisted(void *user, const struct err *e)
{
	struct capsule_op *op = user;
	struct capsule *c = op->capsule;

	if (e) {
		log_error(NULL, "capsule %s: its image is not saved: %s", c->id, e->text);
		c->persisted = false;
		capsule_state_remove(c, "state.tmp");
		if (c->vm && c->vm->state == VM_DEAD)
			capsule_died(c, c->vm);
		else
			c->save_at = now_mono() + RETRY_MS;
	} else
		log_info(NULL, "capsule %s: its image is saved in %d ms", c->id,
		    (int)(now_mono() - op->began));
	capsule_op_end(op, NULL);
	if (c->state == CAP_PAUSED)
		capsule_asleep(c);
}

static void
persist(struct capsule *c)
{
	struct capsule_op *op;
	struct err e = { 0 };

	if (capsule_image_room(c, &e) < 0) {
		log_error(NULL, "capsule %s: its image is not saved: %s", c->id, e.text);
		c->save_at = now_mono() + RETRY_MS;
		capsule_asleep(c);
		return;
	}
	op = capsule_op_new(c, "saving its image");
	op->quiet = op->memory = true;
	capsule_choose_parent(op);
	op->flow = flow_new(op, c->agent->loop, persist_steps, op, persisted);
}

/* Its process goes; what is on disk is all it needs. */
static void
to_disk(struct capsule *c)
{
	struct vm *vm = c->vm;

	log_info(NULL, "capsule %s: sleeps on disk now", c->id);
	c->vm = NULL;
	c->pid = 0;
	vm_release(vm, NULL, NULL);
	capsule_note(c, "paused");
	capsule_moved(c);
}

void
capsule_to_disk(struct capsule *c)
{
	TALLOC_FREE(c->sleep);
	if (c->persisted)
		to_disk(c);
	else
		persist(c);
}

static void
on_sleep(void *arg)
{
	struct capsule *c = arg;

	TALLOC_FREE(c->sleep);
	if (c->state != CAP_PAUSED || !c->vm)
		return;
	if (c->op)
		capsule_asleep(c);
	else
		capsule_to_disk(c);
}

void
capsule_asleep(struct capsule *c)
{
	const struct conf *k = c->agent->conf;
	int64_t since = now_mono() - (now_real() - c->since), at;

	TALLOC_FREE(c->sleep);
	if (c->state != CAP_PAUSED || !c->vm)
		return;
	at = since +
	    (c->persisted ? k->agent_pause_keep_ram_sec : k->agent_pause_persist_sec) * 1000;
	if (!c->persisted && at < c->save_at)
		at = c->save_at;
	at -= now_mono();
	c->sleep = timer_new(c, c->agent->loop, at > 20 ? (uint64_t)at : 20, 0, on_sleep, c);
}

void
capsule_awake(struct capsule *c)
{
	TALLOC_FREE(c->sleep);
	c->save_at = 0;
}

/* The host needs memory: the one that sleeps longest, of those whose image is saved. */
static void
need_memory(struct agent *a)
{
	struct capsule *c, *oldest = NULL;
	struct host h;
	struct err e = { 0 };

	if (host_facts(a, &h, &e) < 0 ||
	    h.free_memory_mb * 100 >=
		h.memory_mb * ((uint64_t)a->conf->agent_min_free_memory_percent + 4))
		return;
	TAILQ_FOREACH(c, &a->capsules, link)
	if (c->state == CAP_PAUSED && c->vm && c->persisted && !c->op &&
	    (!oldest || c->since < oldest->since))
		oldest = c;
	if (oldest)
		to_disk(oldest);
}

void
capsule_upkeep(struct agent *a)
{
	struct capsule *c;

	need_memory(a);
	TAILQ_FOREACH(c, &a->capsules, link)
	{
		capsule_grow_on(c);
		capsule_flatten(c);
	}
	quarantine_sweep(a);
}

/* Resume. */

static void
step_resume_want(void *user)
{
	capsule_write(user, "resume");
}

static void
step_verify(void *user)
{
	struct capsule_op *op = user;

	crash_point("resume.3");
	if (op->capsule->vm)
		flow_next(op->flow);
	else
		capsule_state_start(op, false);
}

static void
step_resume_parent(void *user)
{
	struct capsule_op *op = user;

	if (op->capsule->vm)
		flow_next(op->flow);
	else
		capsule_step_parent(op);
}

static void
step_resume_vm(void *user)
{
	struct capsule_op *op = user;
	struct capsule *c = op->capsule;
	struct vm_spec spec = capsule_vm_spec(op);

	spec.chain = &c->chain;
	spec.folder = c->vm_name;
	if (c->vm)
		flow_next(op->flow);
	else
		op->vm = vm_start(c->agent, &spec, capsule_on_vm, op);
}

/* From here on image and disk do not belong together: the journal says so before the vCPUs run. */
static void
step_live(void *user)
{
	struct capsule_op *op = user;
	struct capsule *c = op->capsule;

	if (op->vm)
		capsule_own(op);
	c->persisted = false;
	op->stopped = true; /* a failure from now on leaves it paused in RAM */
	capsule_write(op, "live");
}

static void
step_resume_cont(void *user)
{
	struct capsule_op *op = user;

	crash_point("resume.4");
	capsule_state_remove(op->capsule, "state");
	vm_cont(op->capsule->vm, capsule_on_vm, op);
}

static void
step_resume_init(void *user)
{
	struct capsule_op *op = user;

	capsule_init(op, op->capsule->vm, true);
}

static const struct step resume_steps[] = {
	{ "writing the journal", step_resume_want },
	{ "verifying the image", step_verify },
	{ "loading the image below", step_resume_parent },
	{ "starting the virtual machine", step_resume_vm },
	{ "writing the journal", step_live },
	{ "continuing", step_resume_cont },
	{ "growing the disk", capsule_step_disk },
	{ "meeting the guest", capsule_step_meet },
	{ "telling the guest", step_resume_init },
	{ "writing the journal", capsule_step_up },
	{ 0 },
};

void
capsule_asleep_again(void *user, const struct err *e)
{
	struct capsule_op *op = user;
	struct capsule *c = op->capsule;
	struct err ignore = { 0 }, why = op->why;

	(void)e;
	if (c->vm && c->vm->state == VM_DEAD) {
		capsule_died(c, c->vm);
	} else {
		(void)capsule_step(c, EV_BACK, &ignore);
		capsule_note(c, "paused");
		capsule_asleep(c);
	}
	capsule_op_end(op, &why);
}

static void
step_stop_again(void *user)
{
	struct capsule_op *op = user;

	TALLOC_FREE(op->capsule->vm->guest);
	if (op->capsule->vm->state == VM_RUNNING)
		vm_stop(op->capsule->vm, capsule_on_vm, op);
	else
		flow_next(op->flow);
}

static const struct step stop_again_steps[] = { { "stopping", step_stop_again }, { 0 } };

static void
resumed(void *user, const struct err *e)
{
	struct capsule_op *op = user;
	struct capsule *c = op->capsule;
	struct err ignore = { 0 };

	if (!e) {
		crash_point("resume.5");
		(void)capsule_step(c, EV_UP, &ignore);
		capsule_op_end(op, NULL);
		capsule_flatten(c);
		return;
	}
	log_error(NULL, "capsule %s: resume failed, it sleeps on: %s", c->id, e->text);
	op->why = *e;
	if (op->vm) {
		/* its folder holds image and disk */
		vm_release(op->vm, NULL, NULL);
		op->vm = NULL;
	}
	if (c->vm && c->vm->state != VM_DEAD)
		op->flow = flow_new(op, c->agent->loop, stop_again_steps, op, capsule_asleep_again);
	else
		capsule_asleep_again(op, NULL);
}

void
capsule_resume(
    struct agent *a, const char *id, int64_t epoch, void *mem, capsule_done *done, void *arg)
{
	struct capsule_asked q = {
		.agent = a, .epoch = epoch, .mem = mem, .done = done, .arg = arg, .what = ASK_RESUME
	};
	struct capsule *c;
	struct capsule_op *op;
	struct template *t = NULL;
	struct err e = { 0 };

	snprintf(q.id, sizeof q.id, "%s", id);
	c = capsule_begin(&q, CAP_RUNNING, CAP_RESUMING);
	if (!c)
		return;
	if (c->state == CAP_ERROR)
		(void)err_set(&e, E_BAD_STATE,
		    "capsule %s is error: its memory is gone, boot \"cold\" starts its disk",
		    c->id);
	else if (c->state == CAP_PAUSED && !c->vm &&
	    (t = template_of_build(a, c->template, c->build, &e)))
		(void)host_room(a, &e);
	if (e.code != E_OK || capsule_step(c, EV_RESUME, &e) < 0) {
		done(arg, c, &e);
		return;
	}
	capsule_awake(c);
	c->epoch = epoch;
	op = capsule_op_new(c, "resume");
	op->t = t;
	memcpy(op->parent, c->parent, sizeof op->parent);
	capsule_ask(c, mem, done, arg);
	op->flow = flow_new(op, a->loop, resume_steps, op, resumed);
}
