/*
 * adopt.c - see adopt.h.
 *
 * The truth is threefold: the journal says what was promised, /proc says which QEMUs carry our name
 * (each has "-name hutch-<instance>-<vm>"), the folders say what is on disk. A capsule that was up
 * and whose process is exactly the one of the journal runs on. A start that did not end is undone:
 * its token was never written down. What belongs to no capsule is removed, unless the journal is
 * damaged: then nothing is.
 */
#include "adopt.h"
#include "capsule.h"
#include "journal.h"
#include "net.h"
#include "priv.h"
#include "template.h"
#include "vm.h"

#include <dirent.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

enum { CMDLINE = 8192, TOMBSTONE_MS = 24 * 3600 * 1000 };

struct found {
	TAILQ_ENTRY(found) link;
	char name[32];
	pid_t pid;
	uint64_t start;
	uid_t uid;
};

TAILQ_HEAD(found_list, found);

struct adoption {
	struct agent *agent;
	struct found_list found;
	size_t open; /* VMs that have not answered yet, and one for the beginning */
	void (*ready)(struct agent *);
};

struct adopting {
	struct adoption *adoption;
	struct capsule *capsule;
	struct vm *vm;
};

/* The journal. */

static const struct word {
	const char *op;
	enum capsule_state state;
	bool never_ran;
} words[] = {
	/* clang-format off */
	{ "want",	CAP_STARTING,	false },
	{ "vm",		CAP_STARTING,	false },
	{ "up",		CAP_RUNNING,	false },
	{ "snapshot",	CAP_RUNNING,	false },
	{ "pause",	CAP_PAUSING,	false },
	{ "paused",	CAP_PAUSED,	false },
	{ "resume",	CAP_RESUMING,	false },
	{ "live",	CAP_RESUMING,	false },
	{ "hibernate",	CAP_HIBERNATING, false },
	{ "hibernated",	CAP_HIBERNATED,	false },
	{ "failed",	CAP_ERROR,	true },
	{ "exit",	CAP_ERROR,	false },
	{ "drop",	CAP_STOPPING,	false },
	{ "gone",	CAP_GONE,	false },
	/* clang-format on */
};

/* What a PATCH set: it may have come at any moment, and says nothing of the state. */
static void
on_set(struct capsule *c, struct json_object *j)
{
	if (!c)
		return;
	c->disk_size = (uint64_t)json_int(j, "disk", (int64_t)c->disk_size);
	c->grows = json_flag(j, "grows", c->grows);
	idle_restore(c, j);
	(void)capsule_say_set(c);
}

static void
on_record(struct agent *a, struct json_object *j)
{
	const char *op = json_str(j, "op", ""), *id = json_str(j, "id", "");
	const struct word *w;
	struct capsule *c;

	if (strcmp(op, "set") == 0) {
		on_set(capsule_find(a, id), j);
		return;
	}
	for (w = words; w < words + nitems(words) && strcmp(w->op, op) != 0; w++)
		;
	if (w == words + nitems(words) || !*id || strlen(id) >= CAPSULE_ID) {
		log_warn(NULL, "journal: record \"%.20s\" is not known, left out", op);
		return;
	}
	c = capsule_known(a, id);
	c->epoch = json_int(j, "epoch", 0);
	c->state = w->state;
	c->never_ran = w->never_ran;
	c->since = json_int(j, "at", 0);
	c->template = c->build = NULL;
	if (json_get(j, "template")) {
		c->template = talloc_strdup(c, json_str(j, "template", ""));
		c->build = talloc_strdup(c, json_str(j, "build", ""));
	}
	c->vcpus = (int)json_int(j, "vcpus", 0);
	c->memory_mb = (int)json_int(j, "memory_mb", 0);
	c->disk_size = (uint64_t)json_int(j, "disk", 0);
	c->grows = json_flag(j, "grows", false);
	c->warm = json_flag(j, "warm", false);
	c->restored = json_flag(j, "restored", false);
	chain_read(&c->chain, j);
	snprintf(c->parent, sizeof c->parent, "%s", json_str(j, "parent", ""));
	snprintf(c->image_sum, sizeof c->image_sum, "%s", json_str(j, "persisted", ""));
	c->persisted = *c->image_sum != '\0';
	snprintf(c->paused_by, sizeof c->paused_by, "%s", json_str(j, "by", ""));
	snprintf(c->memory_artifact, sizeof c->memory_artifact, "%s", json_str(j, "memory", ""));
	snprintf(c->disk_artifact, sizeof c->disk_artifact, "%s", json_str(j, "disk_id", ""));
	snprintf(c->memory_parent, sizeof c->memory_parent, "%s", json_str(j, "memory_parent", ""));
	snprintf(c->disk_parent, sizeof c->disk_parent, "%s", json_str(j, "disk_parent", ""));
	c->sealed_bytes = (uint64_t)json_int(j, "sealed_bytes", 0);
	c->reboots = (unsigned)json_int(j, "reboots", 0);
	for (size_t i = 0; i < BOOTS; i++)
		c->boots[i] = INT64_MIN / 2; /* when they were is not known any more */
	c->accel = (enum accel)json_int(j, "accel", ACCEL_TCG);
	snprintf(c->vm_name, sizeof c->vm_name, "%s", json_str(j, "vm", ""));
	c->pid = (pid_t)json_int(j, "pid", 0);
	c->start = (uint64_t)json_int(j, "start", 0);
	c->uid = (uid_t)json_int(j, "uid", 0);
	c->exited_at = json_int(j, "exited", 0);
	c->exit_status = (int)json_int(j, "status", -1);
	c->hung = json_flag(j, "hung", false);
	c->boot_loop = json_flag(j, "boot_loop", false);
	idle_restore(c, j);
	(void)capsule_say(c, op);
}

static void
on_rewrite(struct agent *a, struct journal *j)
{
	struct capsule *c, *next;

	for (c = TAILQ_FIRST(&a->capsules); c; c = next) {
		next = TAILQ_NEXT(c, link);
		if (c->state == CAP_GONE && !c->op && now_real() - c->since > TOMBSTONE_MS) {
			/* long enough to refuse a late repetition of its start */
			TAILQ_REMOVE(&a->capsules, c, link);
			talloc_free(c);
			continue;
		}
		if (c->said)
			journal_keep(j, c->said);
		if (c->set)
			journal_keep(j, c->set);
	}
}

/* /proc: our QEMUs. */

static bool
our_name(struct agent *a, const char *pid, char ret[32])
{
	char path[300], text[CMDLINE], want[40], *p, *end;
	ssize_t n;

	snprintf(path, sizeof path, "/proc/%s/cmdline", pid);
	auto_fd fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0 || (n = read(fd, text, sizeof text - 1)) <= 0)
		return false;
	text[n] = '\0';
	end = text + n;
	snprintf(want, sizeof want, "hutch-%s-", a->instance);
	for (p = text; p < end; p += strlen(p) + 1) {
		if (strcmp(p, "-name") != 0)
			continue;
		p += strlen(p) + 1;
		if (p >= end || strncmp(p, want, strlen(want)) != 0)
			return false;
		snprintf(ret, 32, "%s", p + strlen(want));
		return true;
	}
	return false;
}

static void
scan(struct adoption *ad)
{
	DIR *d = opendir("/proc");
	struct dirent *entry;
	struct found *f;
	struct stat s;
	char path[300], name[32];

	while (d && (entry = readdir(d))) {
		if (entry->d_name[0] < '1' || entry->d_name[0] > '9' ||
		    !our_name(ad->agent, entry->d_name, name))
			continue;
		snprintf(path, sizeof path, "/proc/%s", entry->d_name);
		if (stat(path, &s) < 0)
			continue;
		f = talloc_zero(ad, struct found);
		memcpy(f->name, name, sizeof f->name);
		f->pid = (pid_t)strtol(entry->d_name, NULL, 10);
		f->start = proc_start(f->pid);
		f->uid = s.st_uid;
		TAILQ_INSERT_TAIL(&ad->found, f, link);
	}
	if (d)
		closedir(d);
}

static struct found *
found_named(struct adoption *ad, const char *name)
{
	struct found *f;

	TAILQ_FOREACH(f, &ad->found, link)
	if (strcmp(f->name, name) == 0)
		return f;
	return NULL;
}

/* What becomes of each. */

static void
one_less(struct adoption *ad)
{
	struct agent *a = ad->agent;
	void (*ready)(struct agent *) = ad->ready;

	if (--ad->open)
		return;
	talloc_free(ad);
	ready(a);
}

/* What an operation of the dead agent's has stopped, or is to stay so: the operation is asked for
 * again. */
static bool
asleep(const struct capsule *c)
{
	return c->state == CAP_PAUSED || c->state == CAP_RESUMING || c->state == CAP_HIBERNATING;
}

static void
adopted(void *user, const struct err *e)
{
	struct adopting *w = user;
	struct adoption *ad = w->adoption;
	struct vm *vm = w->vm;
	struct err why = { 0 };

	if (vm->state == VM_DEAD) {
		if (asleep(w->capsule))
			capsule_slept(w->capsule);
		else
			capsule_lost(w->capsule, false);
		vm_abandon(vm);
		talloc_free(vm);
	} else {
		capsule_adopted(w->capsule, vm);
		if (net_open(ad->agent, vm, w->capsule->id, &why) < 0)
			log_error(NULL, "capsule %s: its network: %s", w->capsule->id, why.text);
		if (e && vm->state != VM_RUNNING && asleep(w->capsule))
			log_error(NULL, "capsule %s: %s", w->capsule->id, e->text);
		else if (e && vm->state != VM_RUNNING) {
			log_error(NULL, "capsule %s: %s; it is killed", w->capsule->id, e->text);
			(void)priv_kill(ad->agent->priv, vm->pid, vm->start, &why);
		} else if (e)
			log_warn(NULL, "capsule %s: runs, but %s", w->capsule->id, e->text);
		else
			log_info(
			    NULL, "capsule %s: adopted (pid %d)", w->capsule->id, (int)vm->pid);
	}
	talloc_free(w);
	one_less(ad);
}

static void
take_over(struct adoption *ad, struct capsule *c, struct found *f)
{
	struct adopting *w = talloc_zero(ad, struct adopting);
	struct err e = { 0 };
	struct vm_found v = { .name = c->vm_name,
		.t = template_build(ad->agent, c->template, c->build),
		.vcpus = c->vcpus,
		.memory_mb = c->memory_mb,
		.disk_size = c->disk_size,
		.accel = c->accel,
		.uid = c->uid,
		.pid = f->pid,
		.start = f->start,
		.chain = c->chain,
		.parent = c->parent,
		.asleep = asleep(c) };

	w->adoption = ad;
	w->capsule = c;
	w->vm = vm_adopt(ad->agent, &v, adopted, w, &e);
	if (!w->vm) {
		log_error(NULL, "capsule %s: %s", c->id, e.text);
		vm_sweep(ad->agent, f->name, f->pid, f->start);
		capsule_lost(c, false);
		talloc_free(w);
		return;
	}
	ad->open++;
}

static void
judge(struct adoption *ad, struct capsule *c)
{
	struct found *f = *c->vm_name ? found_named(ad, c->vm_name) : NULL;
	struct err e = { 0 };

	switch (c->state) {
	case CAP_RUNNING:
		if (c->template)
			(void)template_find(ad->agent, c->template, &e);
		if (f && f->pid == c->pid && f->start == c->start && c->template)
			take_over(ad, c, f);
		else
			capsule_lost(c, false);
		break;
	case CAP_PAUSING:
	case CAP_PAUSED:
	case CAP_RESUMING:
	case CAP_HIBERNATING:
		(void)template_find(ad->agent, c->template ? c->template : "", &e);
		if (f && f->pid == c->pid && f->start == c->start && c->template)
			take_over(ad, c, f);
		else {
			/* a process that was to load the image has not run yet */
			if (f)
				(void)priv_kill(ad->agent->priv, f->pid, f->start, &e);
			capsule_slept(c);
		}
		break;
	case CAP_STARTING:
		log_warn(NULL, "capsule %s: its start did not end, it is undone", c->id);
		if (*c->vm_name)
			vm_sweep(ad->agent, c->vm_name, f ? f->pid : 0, f ? f->start : 0);
		capsule_lost(c, true);
		break;
	case CAP_STOPPING:
		if (f) {
			c->pid = f->pid;
			c->start = f->start;
		}
		capsule_finish_stop(c);
		break;
	default:
		break;
	}
}

static bool
wanted(struct agent *a, const char *name)
{
	struct capsule *c;
	struct vm *vm;

	TAILQ_FOREACH(vm, &a->vms, link)
	if (strcmp(vm->name, name) == 0)
		return true;
	TAILQ_FOREACH(c, &a->capsules, link)
	if (c->state != CAP_GONE && strcmp(c->vm_name, name) == 0)
		return true;
	return false;
}

void
adopt_sweep(struct agent *a)
{
	auto_fd fd = openat(a->state_fd, "vm", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *d = fd < 0 ? NULL : fdopendir(dup(fd));
	struct dirent *entry;

	while (d && (entry = readdir(d)))
		if (entry->d_name[0] != '.' && a->journal_complete && !wanted(a, entry->d_name)) {
			log_info(NULL, "vm %s: left over, removed", entry->d_name);
			vm_sweep(a, entry->d_name, 0, 0);
		}
	if (d)
		closedir(d);
}

int
adopt_start(struct agent *a, void (*ready)(struct agent *), struct err *e)
{
	struct adoption *ad;
	struct capsule *c;
	struct found *f;

	a->journal = journal_open(a, on_record, on_rewrite, &a->journal_complete, e);
	if (!a->journal)
		return -1;
	ad = talloc_zero(a, struct adoption);
	ad->agent = a;
	ad->ready = ready;
	ad->open = 1;
	TAILQ_INIT(&ad->found);
	scan(ad);
	TAILQ_FOREACH(c, &a->capsules, link)
	judge(ad, c);
	TAILQ_FOREACH(f, &ad->found, link)
	if (!wanted(a, f->name) && a->journal_complete) {
		log_info(
		    NULL, "vm %s: pid %d belongs to no capsule, removed", f->name, (int)f->pid);
		vm_sweep(a, f->name, f->pid, f->start);
	}
	adopt_sweep(a);
	one_less(ad);
	return 0;
}
