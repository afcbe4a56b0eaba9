/* artifact_used.c - what on this host still lies on an artifact (artifact.h). */
#include "artifact.h"
#include "capsule.h"
#include "image.h"
#include "vm.h"

#include <dirent.h>
#include <fcntl.h>
#include <string.h>

enum { RECORD_MAX = 65536 };

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

/* The record that quarantine.c wrote beside a discarded capsule's files. */
static bool
in_record(int dir, const char *name, const char *id)
{
	char path[300];
	auto_talloc char *text = talloc_zero_size(NULL, RECORD_MAX + 1);
	struct json_object *j;
	struct chain chain;
	ssize_t n;
	static const char *const members[] = { "parent", "memory", "disk_id" };
	size_t i;

	snprintf(path, sizeof path, "%s/capsule", name);
	auto_fd fd = openat(dir, path, O_RDONLY | O_CLOEXEC);
	n = fd < 0 ? -1 : read(fd, text, RECORD_MAX);
	j = n > 0 ? json_parse(text, text, (size_t)n,
			&(struct json_limits){ .depth = 8, .keys = 1000 }, &(struct err){ 0 })
		  : NULL;
	if (!j)
		return false;
	chain_read(&chain, j);
	for (i = 0; i < nitems(members); i++)
		if (strcmp(json_str(j, members[i], ""), id) == 0)
			return true;
	return in_chain(&chain, id);
}

static bool
in_quarantine(struct agent *a, const char *id)
{
	auto_fd fd = openat(a->state_fd, "quarantine", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *d = fd < 0 ? NULL : fdopendir(dup(fd));
	struct dirent *entry;
	bool found = false;

	while (d && !found && (entry = readdir(d)))
		found = entry->d_name[0] != '.' && in_record(fd, entry->d_name, id);
	if (d)
		closedir(d);
	return found;
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
	if (in_quarantine(a, id))
		return true;
	artifact_each(a->state_fd, is_parent, &s);
	return s.found;
}
