/* template.c - see template.h. */
#include "template.h"
#include "disk.h"
#include "json.h"

#include <dirent.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

enum { JSON_MAX = 65536 };

static const struct part {
	const char *file;
	size_t fd; /* offset in struct template */
} parts[] = {
	{ "vmlinux", offsetof(struct template, vmlinux) },
	{ "initramfs.cpio", offsetof(struct template, initramfs) },
	{ "rootfs.erofs", offsetof(struct template, rootfs) },
	{ "upper.qcow2", offsetof(struct template, upper) },
};

const char *
template_file(size_t n)
{
	return n < nitems(parts) ? parts[n].file : NULL;
}

static int *
part_fd(struct template *t, const struct part *p)
{
	return (int *)((char *)t + p->fd);
}

static int
template_free(struct template *t)
{
	size_t i;

	for (i = 0; i < nitems(parts); i++)
		if (*part_fd(t, &parts[i]) >= 0)
			close(*part_fd(t, &parts[i]));
	return 0;
}

static bool
name_ok(const char *name)
{
	return *name && strlen(name) <= 64 &&
	    strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789-_") == strlen(name);
}

static struct json_object *
description(void *mem, int dir, struct err *e)
{
	char *text = talloc_size(mem, JSON_MAX);
	auto_fd fd = openat(dir, "template.json", O_RDONLY | O_CLOEXEC);
	ssize_t n = fd < 0 ? -1 : read(fd, text, JSON_MAX);

	if (n < 0) {
		err_sys(e, "template.json");
		return NULL;
	}
	return json_parse(mem, text, n, NULL, e);
}

/* Opens the parts and compares their sizes; contents are checked when a memory image is made of
 * them. */
static int
parts_open(struct template *t, int dir, struct json_object *files, struct err *e)
{
	struct stat s;
	size_t i;

	for (i = 0; i < nitems(parts); i++) {
		int *fd = part_fd(t, &parts[i]);

		*fd = openat(dir, parts[i].file, O_RDONLY | O_CLOEXEC);
		if (*fd < 0 || fstat(*fd, &s) < 0)
			return err_sys(e, "template %s: %s", t->name, parts[i].file);
		if (json_int(json_get(files, parts[i].file), "size", -1) != s.st_size)
			return err_set(e, E_TAMPERED,
			    "template %s: %s has another size than template.json says", t->name,
			    parts[i].file);
	}
	return disk_size(t->upper, &t->disk_size, e);
}

struct template *
template_build(struct agent *a, const char *name, const char *build)
{
	struct template *t;

	TAILQ_FOREACH(t, &a->templates, link)
	if (strcmp(t->name, name) == 0 && strcmp(t->build, build) == 0)
		return t;
	return NULL;
}

struct template *
template_find(struct agent *a, const char *name, struct err *e)
{
	auto_talloc char *mem = talloc_new(NULL);
	auto_fd dir = -1;
	struct json_object *json;
	struct template *t;
	const char *build;
	size_t i;

	if (!name_ok(name) ||
	    (dir = open(talloc_asprintf(mem, "%s/%s", a->conf->agent_image_dir, name),
		 O_PATH | O_DIRECTORY | O_CLOEXEC)) < 0) {
		err_set(e, E_NOT_FOUND, "no template %s", name_ok(name) ? name : "of this name");
		return NULL;
	}
	json = description(mem, dir, e);
	if (!json)
		return NULL;
	build = json_str(json, "version", "");
	if (!name_ok(build)) {
		err_set(e, E_TAMPERED, "template %s: template.json has no version", name);
		return NULL;
	}
	if ((t = template_build(a, name, build)))
		return t;
	t = talloc_zero(a, struct template);
	t->name = talloc_strdup(t, name);
	t->build = talloc_strdup(t, build);
	t->user = talloc_strdup(t, json_str(json, "user", "root"));
	t->workdir = talloc_strdup(t, json_str(json, "workdir", "/root"));
	t->warm = talloc_strdup(t, json_str(json, "warm_cmd", ""));
	for (i = 0; i < nitems(parts); i++)
		*part_fd(t, &parts[i]) = -1;
	talloc_set_destructor(t, template_free);
	if (parts_open(t, dir, json_get(json, "files"), e) < 0) {
		talloc_free(t);
		return NULL;
	}
	TAILQ_INSERT_HEAD(&a->templates, t, link);
	return t;
}

void
template_names(struct agent *a, struct buf *out)
{
	DIR *d = opendir(a->conf->agent_image_dir);
	struct dirent *entry;
	bool first = true;

	while (d && (entry = readdir(d))) {
		if (!name_ok(entry->d_name))
			continue;
		if (!first)
			buf_chr(out, ',');
		buf_json(out, entry->d_name);
		first = false;
	}
	if (d)
		closedir(d);
}

struct template *
template_of_build(struct agent *a, const char *name, const char *build, struct err *e)
{
	struct template *t = template_find(a, name, e);

	if (t && strcmp(t->build, build) != 0)
		t = template_build(a, name, build);
	if (!t && e->code == E_OK)
		(void)err_set(e, E_NOT_FOUND, "this host has not the build %.40s of template %.40s",
		    build, name);
	return t;
}
