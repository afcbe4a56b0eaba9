/* artifact_used.c - what on this host still lies on an artifact (artifact.h). */
#include "artifact.h"
#include "capsule.h"
#include "image.h"
#include "vm.h"

#include <string.h>

struct search {
	int state;
	const char *id;
	bool found;
};

static bool
in_chain(const struct chain *c, const char *id)
{
	size_t i;

	for (i = 0; i < c->layers; i++)
		if (strcmp(c->layer[i], id) == 0)
			return true;
	return false;
}

static void
is_parent(void *arg, const char *id)
{
	struct search *s = arg;
	auto_talloc struct artifact *a =
	    s->found ? NULL : artifact_read(NULL, s->state, id, &(struct err){ 0 });

	s->found = s->found || (a && a->parent && strcmp(a->parent, s->id) == 0);
}

bool
artifact_used(struct agent *a, const char *id)
{
	struct search s = { .state = a->state_fd, .id = id };
	const struct capsule *c;
	const struct vm *vm;

	if (image_uses(a, id))
		return true;
	TAILQ_FOREACH(vm, &a->vms, link)
	if (in_chain(&vm->chain, id) || strcmp(vm->parent, id) == 0)
		return true;
	TAILQ_FOREACH(c, &a->capsules, link)
	if (c->state != CAP_GONE &&
	    (in_chain(&c->chain, id) || strcmp(c->parent, id) == 0 ||
		strcmp(c->memory_artifact, id) == 0 || strcmp(c->disk_artifact, id) == 0))
		return true;
	artifact_each(a->state_fd, is_parent, &s);
	return s.found;
}
