/* capsule_seal.c - files of a VM's folder become artifacts, in a thread. See capsule_in.h. */
#include "capsule_in.h"
#include "host.h"
#include "qemu.h"
#include "sums.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

enum { BLOCK = 512, COPY = 1 << 26 };

/* In hard links: the folder keeps its names until all is well. */
struct seal_job {
	struct capsule_op *op; /* NULL: nobody waits any more, what is made is removed */
	int state_fd, folder;
	struct artifact meta;
	char vm[32], parent[LAYER_NAME];
	struct artifact_new made[LAYERS_MAX + 2];
	size_t count;
	struct sums *sums;  /* of the state, when it was written a moment ago */
	bool written, copy; /* copy: the folder goes on with a copy of the state */
	const char *state;
	struct chain chain;
	struct capsule_made out;
	int result;
	struct err err;
};

/* One file as an artifact of its own; it has its name when all of them are there. */
static int
make(struct seal_job *j, const char *kind, const char *file, const char *name, const char *parent,
    char ret[LAYER_NAME])
{
	auto_talloc struct artifact *a = talloc(NULL, struct artifact);
	struct artifact_new *new = &j->made[j->count];
	struct stat s;
	int r;

	*a = j->meta;
	a->kind = kind;
	a->parent = parent && *parent ? parent : NULL;
	if (j->sums && j->state && strcmp(file, j->state) == 0)
		sums_file(j->sums, &a->file[0]);
	a->file[0].name = name;
	a->files = 1;
	snprintf(new->name, sizeof new->name, "%s-%zu", j->vm, j->count);
	auto_fd dir = artifact_begin(j->state_fd, new->name, &j->err);
	if (dir < 0)
		return -1;
	j->count++;
	r = linkat(j->folder, file, dir, name, 0) < 0 || fstatat(dir, name, &s, 0) < 0
	    ? err_sys(&j->err, "%s", file)
	    : artifact_prepare(j->state_fd, new->name, a, &j->err);
	if (r < 0)
		return -1;
	memcpy(ret, a->id, LAYER_NAME);
	memcpy(new->id, a->id, LAYER_NAME);
	j->out.bytes += (uint64_t)s.st_blocks * BLOCK;
	return 0;
}

/* A file that is an artifact's stays as it is: the capsule's own becomes another one. */
static int
copy_state(struct seal_job *j)
{
	auto_fd in = openat(j->folder, j->state, O_RDONLY | O_CLOEXEC), out = -1;
	ssize_t n = -1;

	(void)unlinkat(j->folder, "state.tmp", 0);
	out = openat(j->folder, "state.tmp", O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	while (in >= 0 && out >= 0 && (n = copy_file_range(in, NULL, out, NULL, COPY, 0)) > 0)
		;
	if (n < 0 || fsync(out) < 0 || renameat(j->folder, "state.tmp", j->folder, j->state) < 0)
		return err_sys(&j->err, "copy the image");
	return 0;
}

static int
seal_all(struct seal_job *j)
{
	const char *below = NULL;
	char id[LAYER_NAME], file[LAYER_NAME];
	size_t i;

	for (i = 0; i < j->chain.layers; i++) {
		snprintf(j->out.disk_parent, LAYER_NAME, "%s", below ? below : "");
		if (!artifact_id_ok(j->chain.layer[i])) {
			if (make(j, "disk", j->chain.layer[i], "disk.qcow2", below, id) < 0)
				return -1;
			memcpy(j->chain.layer[i], id, LAYER_NAME);
		}
		below = j->chain.layer[i];
	}
	snprintf(j->out.disk, sizeof j->out.disk, "%s", below ? below : "");
	if (j->written)
		snprintf(j->out.disk_parent, LAYER_NAME, "%s", below ? below : "");
	if (j->written &&
	    make(j, "disk", chain_file(j->chain.active, file), "disk.qcow2", below, j->out.disk) <
		0)
		return -1;
	if (j->state && make(j, "memory", j->state, "state", j->parent, j->out.memory) < 0)
		return -1;
	if (j->state)
		memcpy(j->out.memory_parent, j->parent, LAYER_NAME);
	if (artifact_commit(j->state_fd, j->made, j->count, &j->err) < 0)
		return -1;
	return j->state && j->copy ? copy_state(j) : 0;
}

static void
seal_run(void *arg)
{
	struct seal_job *j = arg;
	size_t i;

	j->result = seal_all(j);
	/* what has its name already is the failure's to find, by the files that it shares */
	for (i = 0; j->result < 0 && i < j->count; i++)
		artifact_abort(j->state_fd, j->made[i].name);
}

static void
seal_done(void *arg)
{
	struct seal_job *j = arg;
	struct capsule_op *op = j->op;

	if (op) {
		op->seal = NULL;
		op->made = talloc_memdup(op, &j->out, sizeof j->out);
		op->chain = j->chain;
		if (j->result < 0)
			flow_fail(op->flow, &j->err);
		else
			flow_next(op->flow);
	} else
		while (j->count)
			artifact_remove(j->state_fd, j->made[--j->count].id);
	close(j->folder);
	talloc_free(j);
}

void
capsule_seal(struct capsule_op *op, bool written, const char *state)
{
	struct capsule *c = op->capsule;
	struct agent *a = c->agent;
	struct seal_job *j = talloc_zero(NULL, struct seal_job);

	j->op = op;
	j->state_fd = a->state_fd;
	j->folder = vm_folder_open(a, c->vm_name);
	j->written = written;
	j->copy = c->state == CAP_PAUSED;
	j->state = state;
	j->chain = c->vm ? c->vm->chain : c->chain;
	snprintf(j->vm, sizeof j->vm, "%s", c->vm_name);
	memcpy(j->parent, op->parent, sizeof j->parent);
	j->sums = talloc_steal(j, op->sums);
	op->sums = NULL;
	j->meta = (struct artifact){ .cpu_class = talloc_strdup(j, host_cpu_class(a)),
		.qemu = a->qemu_version,
		.machine = qemu_model(),
		.template = talloc_strdup(j, c->template ? c->template : ""),
		.build = talloc_strdup(j, c->build ? c->build : ""),
		.vcpus = c->vcpus,
		.memory_mb = c->memory_mb,
		.disk_size = capsule_disk_has(c) };
	j->out.logical = j->meta.disk_size + (state ? (uint64_t)c->memory_mb << 20 : 0);
	op->seal = j;
	background(a->loop, seal_run, seal_done, j);
}

void
capsule_seal_orphan(struct capsule_op *op)
{
	if (op->seal)
		op->seal->op = NULL;
}

/* Artifacts that share a file with the folder. */
struct unseal {
	int state;
	struct stat file;
};

static void
unseal_one(void *arg, const char *id)
{
	struct unseal *u = arg;
	static const char *const names[] = { "disk.qcow2", "state" };
	char path[160];
	struct stat s;
	size_t i;

	for (i = 0; i < nitems(names); i++) {
		snprintf(path, sizeof path, "artifacts/%s/%s", id, names[i]);
		if (fstatat(u->state, path, &s, 0) < 0 || s.st_ino != u->file.st_ino ||
		    s.st_dev != u->file.st_dev)
			continue;
		log_info(NULL, "artifact %.16s… was not finished, removed", id);
		artifact_remove(u->state, id);
	}
}

static void
unseal_file(struct capsule *c, int folder, const char *name)
{
	struct unseal u = { .state = c->agent->state_fd };

	if (fstatat(folder, name, &u.file, 0) < 0)
		return;
	if (u.file.st_nlink > 1)
		artifact_each(u.state, unseal_one, &u);
	/* sealing made it read only; without the right to write it QEMU does not start again */
	if (fchmodat(folder, name, 0600, 0) < 0)
		log_error(NULL, "capsule %s: %s stays read only: %s", c->id, name, strerror(errno));
}

void
capsule_unseal(struct capsule *c)
{
	auto_fd dir = vm_folder_open(c->agent, c->vm_name);
	char file[LAYER_NAME];
	size_t i;

	if (dir < 0)
		return;
	unseal_file(c, dir, chain_file(c->chain.active, file));
	unseal_file(c, dir, "state");
	for (i = 0; i < c->chain.layers; i++)
		if (!artifact_id_ok(c->chain.layer[i]))
			unseal_file(c, dir, c->chain.layer[i]);
}
