/*
 * template.h - the templates in agent.image_dir: what capsules boot from (see images/README.md).
 */
#pragma once
#include "agent.h"

struct template
{
	TAILQ_ENTRY(template) link;
	const char *name;
	const char *build; /* the version that images/build gave: names the content */
	const char *user, *workdir, *warm;
	uint64_t disk_size; /* of upper.qcow2, in bytes: capsules' disks are not smaller */
	int vmlinux, initramfs, rootfs, upper; /* open, read only: a replaced folder does no harm */
};

/* The present build of the template. Reads template.json each time: a new build is seen at once.
   NULL: E_NOT_FOUND, or E_TAMPERED when its files are not those of template.json. */
struct template *template_find(struct agent *, const char *name, struct err *);

/* A build that was opened before (adoption), or NULL. */
struct template *template_build(struct agent *, const char *name, const char *build);

/* The same, opening what is there now first. NULL: E_NOT_FOUND. */
struct template *
template_of_build(struct agent *, const char *name, const char *build, struct err *);

/* The files that every template consists of, beside template.json, by number; NULL behind the last.
 */
const char *template_file(size_t);

/* Appends the names of what is there: "minimal","desktop". */
void template_names(struct agent *, struct buf *);
