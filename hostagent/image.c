/* image.c - see image.h. */
#include "image.h"
#include "capsule.h"
#include "disk.h"
#include "flow.h"
#include "guest.h"
#include "host.h"
#include "identity.h"
#include "image_file.h"
#include "qemu.h"
#include "scaling.h"
#include "template.h"
#include "vm_guest.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

enum { RETRY_MS = 60000, WARM_MS = 120000, SETTLE_MS = 300, INIT_MS = 30000, BLOCK = 512 };

/* The making of one image. */
struct image_job {
	struct image *image;
	struct flow *flow;
	struct vm *vm;
	struct timer *timer;
	struct file_job *file;
	int dir, memory, state; /* memory/<name>.tmp and what is written there */
	char token[33];
};

/* A piece of work on the files, in a thread. */
struct file_job {
	struct image *image; /* images live as long as the agent */
	struct image_file file;
	int (*run)(struct image_file *, struct err *);
	void (*done)(struct file_job *);
	int result;
	struct err err;
};

static void load(struct image *);
static void make(struct image *);

const char *
image_state_name(enum image_state s)
{
	static const char *const name[] = { "none", "making", "loading", "ready", "failed" };

	return name[s];
}

struct image *
image_known(struct agent *a, struct template *t, int vcpus, int memory_mb)
{
	struct image *i;

	TAILQ_FOREACH(i, &a->images, link)
	if (i->t == t && i->vcpus == vcpus && i->memory_mb == memory_mb && *i->name)
		return i;
	i = talloc_zero(a, struct image);
	i->agent = a;
	i->t = t;
	i->vcpus = vcpus;
	i->memory_mb = memory_mb;
	i->name = talloc_asprintf(i, "%s-%s-%dx%d", t->name, t->build, vcpus, memory_mb);
	i->memory = i->device_state = i->disk = -1;
	(void)image_file_id(a->state_fd, i->name, i->id);
	TAILQ_INSERT_TAIL(&a->images, i, link);
	return i;
}

struct image *
image_get(struct agent *a, struct template *t, int vcpus, int memory_mb)
{
	struct image *i = image_known(a, t, vcpus, memory_mb);

	TAILQ_REMOVE(&a->images, i, link);
	TAILQ_INSERT_HEAD(&a->images, i, link);
	return i;
}

struct image *
image_of_id(struct agent *a, const char *id)
{
	struct image *i;

	TAILQ_FOREACH(i, &a->images, link)
	if (strcmp(i->id, id) == 0)
		return i;
	i = talloc_zero(a, struct image);
	i->agent = a;
	i->name = "";
	i->memory = i->device_state = i->disk = -1;
	snprintf(i->id, sizeof i->id, "%s", id);
	TAILQ_INSERT_TAIL(&a->images, i, link);
	return i;
}

bool
image_uses(struct agent *a, const char *id)
{
	struct image *i;

	TAILQ_FOREACH(i, &a->images, link)
	if (strcmp(i->id, id) == 0 && (*i->name || i->state == IMG_READY))
		return true;
	return false;
}

/* Work on files. */

static void
file_run(void *arg)
{
	struct file_job *j = arg;

	j->result = j->run(&j->file, &j->err);
}

static void
file_done(void *arg)
{
	struct file_job *j = arg;

	j->done(j);
	talloc_free(j);
}

static void
file_start(
    struct image *i, int (*run)(struct image_file *, struct err *), void (*done)(struct file_job *))
{
	struct file_job *j = talloc_zero(NULL, struct file_job);

	j->image = i;
	j->run = run;
	j->done = done;
	j->file.state_fd = i->agent->state_fd;
	snprintf(j->file.name, sizeof j->file.name, "%s", i->name);
	if (*i->name) {
		j->file.machine = qemu_machine(i->agent, j, i->vcpus, i->memory_mb);
		j->file.memory_size = (uint64_t)i->memory_mb << 20;
		j->file.cpu_class = host_cpu_class(i->agent);
		j->file.qemu = i->agent->qemu_version;
		j->file.template = i->t->name;
		j->file.build = i->t->build;
		j->file.vcpus = i->vcpus;
		j->file.memory_mb = i->memory_mb;
		j->file.disk_size = i->t->disk_size;
	} else
		snprintf(j->file.id, sizeof j->file.id, "%s", i->id);
	background(i->agent->loop, file_run, file_done, j);
}

static void
image_failed(struct image *i, const struct err *e)
{
	log_error(NULL, "memory image %s: %s", i->name, e->text);
	i->state = IMG_FAILED;
	i->why = *e;
	i->retry_at = now_mono() + RETRY_MS;
}

uint64_t
image_holds(const struct image *i)
{
	struct stat s;

	return i->state == IMG_READY && fstat(i->memory, &s) == 0 ? (uint64_t)s.st_blocks * BLOCK
								  : 0;
}

/* All of its size: what it is going to hold, by a save of one of its clones. */
static uint64_t
may_hold(const struct image *i)
{
	struct stat s;

	return fstat(i->memory, &s) == 0 ? (uint64_t)s.st_size : 0;
}

/* The pinned ones, then those used last stay in RAM, up to their share of it; the others are loaded
   again if wanted. */
void
image_trim(struct agent *a)
{
	uint64_t sum = 0, most = scaling_share(a);
	struct image *i;

	TAILQ_FOREACH(i, &a->images, link)
	if (i->pinned && i->state == IMG_READY)
		sum += may_hold(i);
	TAILQ_FOREACH(i, &a->images, link)
	{
		if (i->state != IMG_READY || i->pinned)
			continue;
		sum += may_hold(i);
		if (sum <= most || i == TAILQ_FIRST(&a->images))
			continue;
		log_info(NULL, "memory image %s is let go", i->name);
		sum -= may_hold(i);
		pool_drop(i);
		cleanup_fd(&i->memory);
		cleanup_fd(&i->device_state);
		cleanup_fd(&i->disk);
		i->memory = i->device_state = i->disk = -1;
		i->state = IMG_NONE;
	}
}

/* Loading. */

static void
loaded(struct file_job *j)
{
	struct image *i = j->image;

	if (j->result == 0) {
		i->memory = j->file.memory;
		i->device_state = j->file.device_state;
		i->disk = j->file.disk;
		i->disk_size = j->file.disk_size;
		memcpy(i->id, j->file.id, sizeof i->id);
		i->state = IMG_READY;
		log_info(NULL, "memory image %s is ready: %llu MiB", i->name,
		    (unsigned long long)j->file.bytes >> 20);
		image_trim(i->agent);
		pool_fill(i->agent);
		return;
	}
	if (!*i->name) {
		image_failed(i, &j->err);
		return;
	}
	if (j->err.code == E_TAMPERED)
		log_error(
		    NULL, "memory image %s is refused and made anew: %s", i->name, j->err.text);
	else if (j->err.code != E_NOT_FOUND) {
		image_failed(i, &j->err);
		return;
	}
	image_file_remove(i->agent->state_fd, i->name);
	make(i);
}

static void
load(struct image *i)
{
	i->state = IMG_LOADING;
	file_start(i, image_file_load, loaded);
}

void
image_want(struct image *i)
{
	if (i->state == IMG_NONE || (i->state == IMG_FAILED && now_mono() >= i->retry_at))
		load(i);
}

/* Making. */

static int
job_free(struct image_job *j)
{
	cleanup_fd(&j->memory);
	cleanup_fd(&j->state);
	cleanup_fd(&j->dir);
	return 0;
}

static void
job_vm(void *user, const struct err *e)
{
	struct image_job *j = user;

	if (e)
		flow_fail(j->flow, e);
	else
		flow_next(j->flow);
}

static void
step_boot(void *user)
{
	struct image_job *j = user;
	struct vm_spec spec = { .t = j->image->t,
		.vcpus = j->image->vcpus,
		.memory_mb = j->image->memory_mb,
		.disk_size = j->image->t->disk_size };

	j->vm = vm_start(j->image->agent, &spec, job_vm, j);
}

static void
on_init(void *arg, int status, const char *body, size_t len, const struct err *e)
{
	struct image_job *j = arg;
	struct err bad = { 0 };

	(void)len;
	if (e)
		flow_fail(j->flow, e);
	else if (status / 100 != 2) {
		(void)err_set(&bad, E_AGENT, "the guest refuses its init: %d %.120s", status, body);
		flow_fail(j->flow, &bad);
	} else
		flow_next(j->flow);
}

static void
step_init(void *user)
{
	struct image_job *j = user;
	struct buf b = BUF(j);
	struct guest_call call = {
		.method = "POST", .path = "/init", .type = "application/json", .timeout_ms = INIT_MS
	};

	identity_rehearsal(&b, j->image->t->user, j->image->t->workdir, j->token);
	call.body = b.data;
	call.len = b.len;
	vm_ask(j->vm, j, &call, on_init, j);
}

static void
on_warm(void *arg, int status, const char *body, size_t len, const struct err *e)
{
	struct image_job *j = arg;

	(void)len;
	/* a template without its warm programs is slower, not wrong */
	if (e || status != 200)
		log_warn(
		    NULL, "memory image %s: warm command: %s", j->image->name, e ? e->text : body);
	flow_next(j->flow);
}

/* The template's programs run once, so that clones find them in memory. */
static void
step_warm(void *user)
{
	struct image_job *j = user;
	struct buf b = BUF(j), body = BUF(j);
	unsigned char head[5] = { 0 };

	if (!*j->image->t->warm) {
		flow_next(j->flow);
		return;
	}
	buf_str(&body, "{\"process\":{\"cmd\":\"/bin/bash\",\"args\":[\"-c\",");
	buf_json(&body, j->image->t->warm);
	buf_str(&body, "]},\"stdin\":false}");
	for (int i = 0; i < 4; i++)
		head[1 + i] = body.len >> (24 - 8 * i);
	buf_add(&b, head, sizeof head);
	buf_add(&b, body.data, body.len);
	struct guest_call call = { .method = "POST",
		.path = "/process.Process/Start",
		.type = "application/connect+json",
		.token = j->token,
		.body = b.data,
		.len = b.len,
		.timeout_ms = WARM_MS };
	guest_call(j->vm->guest, j, &call, on_warm, j);
}

static void
on_settled(void *arg)
{
	struct image_job *j = arg;

	TALLOC_FREE(j->timer);
	if (j->vm->guest)
		j->timer = timer_new(j, j->image->agent->loop, SETTLE_MS, 0, on_settled, j);
	else
		flow_next(j->flow);
}

/* No half frame and no header table of this session may be frozen into the image. */
static void
step_leave(void *user)
{
	struct image_job *j = user;

	if (j->vm->guest)
		guest_leave(j->vm->guest);
	j->timer = timer_new(j, j->image->agent->loop, 2 * SETTLE_MS, 0, on_settled, j);
}

static void
step_stop(void *user)
{
	struct image_job *j = user;

	vm_stop(j->vm, job_vm, j);
}

static void
step_save(void *user)
{
	struct image_job *j = user;
	struct agent *a = j->image->agent;
	struct err e = { 0 };

	j->dir = artifact_begin(a->state_fd, j->image->name, &e);
	j->memory = openat(j->dir, "memory", O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	j->state = openat(j->dir, "state", O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (j->dir < 0 || j->memory < 0 || j->state < 0) {
		if (j->dir >= 0)
			err_sys(&e, "memory image %s", j->image->name);
		flow_fail(j->flow, &e);
		return;
	}
	vm_save(j->vm, j->memory, -1, j->state, false, job_vm, j);
}

/* The VM stands still since before the save: its disk is the disk of that moment. */
static void
step_keep_disk(void *user)
{
	struct image_job *j = user;
	struct err e = { 0 };
	struct vm *vm = j->vm;

	if (renameat(vm->dir, "disk.qcow2", j->dir, "disk.qcow2") < 0) {
		err_sys(&e, "disk.qcow2");
		flow_fail(j->flow, &e);
		return;
	}
	j->vm = NULL;
	vm_destroy(vm, job_vm, j);
}

static void
finished(struct file_job *f)
{
	struct image_job *j = f->image->job;

	if (f->result < 0)
		flow_fail(j->flow, &f->err);
	else
		flow_next(j->flow);
}

static void
step_finish(void *user)
{
	struct image_job *j = user;

	file_start(j->image, image_file_finish, finished);
}

static const struct step make_steps[] = {
	{ "booting the template", step_boot },
	{ "giving it an identity", step_init },
	{ "running the warm command", step_warm },
	{ "closing the guest session", step_leave },
	{ "stopping it", step_stop },
	{ "saving its memory", step_save },
	{ "keeping its disk", step_keep_disk },
	{ "writing the image", step_finish },
	{ 0 },
};

static void
made(void *user, const struct err *e)
{
	struct image_job *j = user;
	struct image *i = j->image;

	if (j->vm)
		vm_destroy(j->vm, NULL, NULL);
	i->job = NULL;
	if (e) {
		artifact_abort(i->agent->state_fd, i->name);
		image_failed(i, e);
	} else
		load(i); /* as after every start of the agent: verified, then sealed */
	talloc_free(j);
}

static void
make(struct image *i)
{
	struct image_job *j = talloc_zero(i, struct image_job);

	log_info(NULL, "memory image %s is being made", i->name);
	i->state = IMG_MAKING;
	i->job = j;
	j->image = i;
	j->dir = j->memory = j->state = -1;
	talloc_set_destructor(j, job_free);
	j->flow = flow_new(j, i->agent->loop, make_steps, j, made);
}

/* A capsule's disk may lie on that of an older build's image: then it stays. */
static bool
build_used(struct agent *a, const char *name, const char *build)
{
	const struct capsule *c;

	TAILQ_FOREACH(c, &a->capsules, link)
	if (c->template && strcmp(c->template, name) == 0 && strcmp(c->build, build) == 0)
		return true;
	return false;
}

void
image_load_all(struct agent *a)
{
	auto_fd fd = openat(a->state_fd, "memory", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *d = fd < 0 ? NULL : fdopendir(dup(fd));
	struct dirent *entry;
	struct template *t;
	struct err e;
	char name[256];
	int vcpus, memory_mb;

	while (d && (entry = readdir(d))) {
		char *shape = strrchr(entry->d_name, '-'), *build;

		snprintf(name, sizeof name, "%s", entry->d_name);
		if (strstr(name, ".tmp")) {
			(void)unlinkat(dirfd(d), name, 0);
			continue;
		}
		if (!shape || sscanf(shape, "-%dx%d", &vcpus, &memory_mb) != 2)
			continue;
		name[shape - entry->d_name] = '\0';
		build = strrchr(name, '-');
		if (!build)
			continue;
		*build++ = '\0';
		e = (struct err){ 0 };
		t = template_find(a, name, &e);
		if (t && strcmp(t->build, build) == 0)
			image_want(image_get(a, t, vcpus, memory_mb));
		else if (t && !build_used(a, name, build)) {
			log_info(
			    NULL, "memory image %s is of an older build, removed", entry->d_name);
			image_file_remove(a->state_fd, entry->d_name);
		}
	}
	if (d)
		closedir(d);
}
