/*
 * quarantine.c - a capsule that is not to be here any more: its disk and image are kept for a day.
 *
 * state_dir/quarantine/<id>.<epoch>.<unix seconds>/ is the VM's folder; what it lies on are
 * artifacts, whose ids are in its file `capsule`.
 */
#include "capsule_in.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>

enum { DAY_SEC = 24 * 3600, PATH_LEN = 200 };

static void
folder_remove(struct agent *a, const char *name)
{
	char path[PATH_LEN];
	DIR *d;
	struct dirent *entry;

	snprintf(path, sizeof path, "quarantine/%.120s", name);
	auto_fd fd = openat(a->state_fd, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	d = fd < 0 ? NULL : fdopendir(dup(fd));
	while (d && (entry = readdir(d)))
		(void)unlinkat(fd, entry->d_name, 0);
	if (d)
		closedir(d);
	(void)unlinkat(a->state_fd, path, AT_REMOVEDIR);
}

void
quarantine_sweep(struct agent *a)
{
	auto_fd fd = openat(a->state_fd, "quarantine", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *d = fd < 0 ? NULL : fdopendir(dup(fd));
	struct dirent *entry;
	const char *at;

	while (d && (entry = readdir(d))) {
		at = strrchr(entry->d_name, '.');
		if (entry->d_name[0] == '.' || !at ||
		    strtoll(at + 1, NULL, 10) + DAY_SEC > now_real() / 1000)
			continue;
		log_info(NULL, "quarantine: %s is removed after a day", entry->d_name);
		folder_remove(a, entry->d_name);
	}
	if (d)
		closedir(d);
}

/* The folder moves away: what ends the VM then finds none. Its QEMU keeps the files open until it
   is killed, a moment later. */
static int
move(struct capsule *c, struct err *e)
{
	char from[PATH_LEN], to[PATH_LEN];
	auto_talloc char *mem = talloc_new(NULL);
	struct buf b = BUF(mem);

	if (!*c->vm_name && !*c->disk_artifact)
		return 0;
	(void)mkdirat(c->agent->state_fd, "quarantine", 0700);
	snprintf(from, sizeof from, "vm/%s", c->vm_name);
	snprintf(to, sizeof to, "quarantine/%s.%lld.%lld", c->id, (long long)c->epoch,
	    (long long)(now_real() / 1000));
	if (*c->vm_name
		? renameat(c->agent->state_fd, from, c->agent->state_fd, to) < 0 && errno != ENOENT
		: mkdirat(c->agent->state_fd, to, 0700) < 0)
		return err_sys(e, "%s", to);
	auto_fd dir = openat(c->agent->state_fd, to, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	auto_fd fd = openat(dir, "capsule", O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	capsule_record(c, "discard", &b);
	buf_chr(&b, '\n');
	if (dir >= 0 && (fd < 0 || write(fd, b.data, b.len) != (ssize_t)b.len))
		return err_sys(e, "%s", to);
	(void)fsync(dir);
	return 0;
}

void
capsule_discard(
    struct agent *a, const char *id, int64_t epoch, void *mem, capsule_done *done, void *arg)
{
	struct capsule *c = capsule_find(a, id);
	struct err e = { 0 };

	if (c && c->state != CAP_GONE && c->state != CAP_STOPPING && epoch >= c->epoch) {
		log_warn(NULL, "capsule %s: discarded, kept a day in quarantine", id);
		if (move(c, &e) < 0) {
			done(arg, c, &e);
			return;
		}
	}
	capsule_stop(a, id, epoch, mem, done, arg);
}
