/* capsule_image.c - what a start needs when it begins from an artifact. See capsule_in.h. */
#include "capsule_in.h"
#include "host.h"
#include "image.h"
#include "template.h"

#include <string.h>

enum { PARENT_MS = 20 };

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
	if (c->disk_size < k->disk_size || *k->memory)
		c->disk_size = k->disk_size;
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
