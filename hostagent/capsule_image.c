/* capsule_image.c - images that capsules start from and sleep on, read and written in threads. See
 * capsule_in.h. */
#include "capsule_in.h"
#include "host.h"
#include "image.h"
#include "sums.h"
#include "template.h"

#include <fcntl.h>
#include <openssl/evp.h>
#include <string.h>

enum { PARENT_MS = 20, SUM_CHUNK = 1 << 20 };

/* What it starts from, when that is an image: verified, and for this machine. */
struct image_check {
	struct capsule_op *op; /* NULL: nobody waits any more */
	int state_fd;
	char memory[LAYER_NAME], disk[LAYER_NAME];
	const char *cpu_class;
	struct chain chain;
	char parent[LAYER_NAME];
	char template[64], build[64];
	int vcpus, memory_mb; /* of the memory; 0: none */
	uint64_t disk_size;
	int state;
	int result;
	struct err err;
};

void
capsule_op_orphan(struct capsule_op *op)
{
	if (op->check)
		op->check->op = NULL;
	capsule_seal_orphan(op);
	capsule_state_orphan(op);
}

static int
check_memory(struct image_check *k)
{
	auto_talloc struct artifact *a = artifact_read(NULL, k->state_fd, k->memory, &k->err);

	if (!a)
		return -1;
	if (strcmp(a->kind, "memory") != 0)
		return err_set(&k->err, E_BAD_INPUT, "artifact %.64s is no memory", k->memory);
	if (strcmp(a->cpu_class, k->cpu_class) != 0)
		return err_set(&k->err, E_BAD_STATE,
		    "the memory is for %.80s, this machine is %.80s", a->cpu_class, k->cpu_class);
	if (artifact_verify_once(k->state_fd, k->memory, &k->err) < 0)
		return -1;
	k->vcpus = a->vcpus;
	k->memory_mb = a->memory_mb;
	if (a->parent)
		snprintf(k->parent, sizeof k->parent, "%s", a->parent);
	k->state = artifact_open(k->state_fd, k->memory, "state", &k->err);
	return k->state < 0 ? -1 : 0;
}

static void
check_run(void *arg)
{
	struct image_check *k = arg;

	auto_talloc struct artifact *a = artifact_read(NULL, k->state_fd, k->disk, &k->err);

	k->result = a ? chain_of_artifact(&k->chain, k->state_fd, k->disk, &k->err) : -1;
	if (a) {
		snprintf(k->template, sizeof k->template, "%s", a->template);
		snprintf(k->build, sizeof k->build, "%s", a->build);
		k->disk_size = a->disk_size;
	}
	if (k->result == 0 && *k->memory)
		k->result = check_memory(k);
}

/* The template below, in the build that the disk was made on; sizes that the memory fixes. */
static int
check_take(struct image_check *k, struct capsule_op *op)
{
	struct capsule *c = op->capsule;
	struct template *t = template_of_build(c->agent, k->template, k->build, &k->err);

	if (!t)
		return -1;
	op->t = t;
	op->chain = k->chain;
	memcpy(op->parent, k->parent, sizeof op->parent);
	c->template = t->name;
	c->build = t->build;
	if (k->memory_mb) {
		c->vcpus = k->vcpus;
		c->memory_mb = k->memory_mb;
	}
	capsule_want_disk(c, k->disk_size);
	if (*k->memory)
		op->disk_size = k->disk_size;
	return 0;
}

static void
check_done(void *arg)
{
	struct image_check *k = arg;
	struct capsule_op *op = k->op;

	if (!op)
		cleanup_fd(&k->state);
	else {
		op->check = NULL;
		op->state = k->state;
		if (k->result < 0 || check_take(k, op) < 0)
			flow_fail(op->flow, &k->err);
		else
			flow_next(op->flow);
	}
	talloc_free(k);
}

void
capsule_step_image(void *user)
{
	struct capsule_op *op = user;
	struct image_check *k;

	if (!op->spec.disk) {
		flow_next(op->flow);
		return;
	}
	k = talloc_zero(NULL, struct image_check);
	k->op = op;
	k->state = -1;
	k->state_fd = op->capsule->agent->state_fd;
	k->cpu_class = host_cpu_class(op->capsule->agent);
	snprintf(k->disk, sizeof k->disk, "%s", op->spec.disk);
	snprintf(k->memory, sizeof k->memory, "%s", op->spec.memory ? op->spec.memory : "");
	op->check = k;
	background(op->capsule->agent->loop, check_run, check_done, k);
}

void
capsule_step_parent(void *user)
{
	struct capsule_op *op = user;
	struct agent *a = op->capsule->agent;
	struct image *i = *op->parent ? image_of_id(a, op->parent) : NULL;

	TALLOC_FREE(op->timer);
	if (!i || i->state == IMG_READY) {
		op->image = i;
		flow_next(op->flow);
		return;
	}
	image_want(i);
	if (i->state == IMG_FAILED)
		flow_fail(op->flow, &i->why);
	else
		op->timer = timer_new(op, a->loop, PARENT_MS, 0, capsule_step_parent, op);
}

/* The image in the VM's folder: written and made durable, or read and checked, in a thread. */
struct state_job {
	struct capsule_op *op; /* NULL: nobody waits */
	int folder;
	bool write;
	char sum[LAYER_NAME]; /* write: of what was written; else what it must be */
	int fd;
	int result;
	struct err err;
};

/* As agents before 0.2 summed it: all of the file at once. */
static int
sum_before(int fd, char ret[LAYER_NAME], struct err *e)
{
	auto_talloc unsigned char *p = talloc_size(NULL, SUM_CHUNK);
	unsigned char sum[EVP_MAX_MD_SIZE];
	EVP_MD_CTX *md = EVP_MD_CTX_new();
	unsigned len = 0;
	off_t at = 0;
	ssize_t n;

	(void)EVP_DigestInit_ex(md, EVP_sha256(), NULL);
	while ((n = pread(fd, p, SUM_CHUNK, at)) > 0) {
		(void)EVP_DigestUpdate(md, p, (size_t)n);
		at += n;
	}
	(void)EVP_DigestFinal_ex(md, sum, &len);
	EVP_MD_CTX_free(md);
	for (int i = 0; i < 32; i++)
		snprintf(ret + 2 * i, 3, "%02x", sum[i]);
	return n < 0 ? err_sys(e, "read the image") : 0;
}

static int
check(int fd, const char *want, struct err *e)
{
	auto_talloc struct sums *sums = sums_new(NULL);
	char got[LAYER_NAME];

	if (sums_read(sums, fd, e) < 0)
		return -1;
	sums_whole(sums, got);
	if (strcmp(got, want) == 0)
		return 0;
	if (sum_before(fd, got, e) < 0)
		return -1;
	return strcmp(got, want) == 0
	    ? 0
	    : err_set(e, E_TAMPERED, "the image of the capsule is damaged");
}

/* One wait for the disk: the file's takes the new name along, the folder's finds it there. Until
   the journal says so nobody believes the name. */
static int
settle(struct state_job *j)
{
	auto_fd dir = openat(j->folder, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	if (renameat(j->folder, "state.tmp", j->folder, "state") < 0 || fsync(j->fd) < 0 ||
	    dir < 0 || fsync(dir) < 0)
		return err_sys(&j->err, "the image of the capsule");
	return 0;
}

static void
state_run(void *arg)
{
	struct state_job *j = arg;

	j->fd = openat(j->folder, j->write ? "state.tmp" : "state", O_RDONLY | O_CLOEXEC);
	if (j->fd < 0)
		j->result = err_set(&j->err, E_TAMPERED, "the image of the capsule is missing");
	else
		j->result = j->write ? settle(j) : check(j->fd, j->sum, &j->err);
}

static void
state_done(void *arg)
{
	struct state_job *j = arg;
	struct capsule_op *op = j->op;

	close(j->folder);
	if (op) {
		struct capsule *c = op->capsule;

		op->state_job = NULL;
		if (j->result == 0 && j->write) {
			/* together: an image is nothing without what it is a difference to */
			memcpy(c->image_sum, j->sum, sizeof c->image_sum);
			memcpy(c->parent, op->parent, sizeof c->parent);
		}
		if (j->result == 0 && !j->write)
			op->state = take_fd(&j->fd);
		if (j->result < 0)
			flow_fail(op->flow, &j->err);
		else
			flow_next(op->flow);
	}
	cleanup_fd(&j->fd);
	talloc_free(j);
}

void
capsule_state_sums(struct capsule_op *op)
{
	struct vm *vm = op->capsule->vm;

	TALLOC_FREE(op->sums);
	if (vm)
		op->sums = talloc_move(op, &vm->sums);
}

void
capsule_state_start(struct capsule_op *op, bool write)
{
	struct capsule *c = op->capsule;
	struct state_job *j = talloc_zero(NULL, struct state_job);

	j->op = op;
	j->write = write;
	j->fd = -1;
	j->folder = vm_folder_open(c->agent, c->vm_name);
	if (write)
		sums_whole(op->sums, j->sum);
	else
		memcpy(j->sum, c->image_sum, sizeof j->sum);
	op->state_job = j;
	background(c->agent->loop, state_run, state_done, j);
}

void
capsule_state_orphan(struct capsule_op *op)
{
	if (op->state_job)
		op->state_job->op = NULL;
}

void
capsule_state_remove(struct capsule *c, const char *name)
{
	auto_fd dir = vm_folder_open(c->agent, c->vm_name);

	if (dir >= 0)
		(void)unlinkat(dir, name, 0);
}
