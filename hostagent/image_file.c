/* image_file.c - see image_file.h. */
#include "image_file.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

enum { PAGE = 4096 };

static bool
is_zero(const unsigned char *p)
{
	return !p[0] && memcmp(p, p + 1, PAGE - 1) == 0;
}

/* The pages of a chunk that are not zero, into out: holes cost nothing. */
static int
pages(int out, const unsigned char *p, size_t len, off_t at, uint64_t *bytes)
{
	size_t i, n;

	for (i = 0; i < len; i += n) {
		n = len - i < PAGE ? len - i : PAGE;
		if (n == PAGE && is_zero(p + i))
			continue;
		if (pwrite(out, p + i, n, at + (off_t)i) != (ssize_t)n)
			return -1;
		*bytes += n;
	}
	return 0;
}

static int
fill(int in, int out, const struct artifact *a, const struct artifact_file *f, uint64_t *bytes,
    struct err *e)
{
	auto_talloc unsigned char *p = talloc_size(NULL, ARTIFACT_CHUNK);
	uint64_t at, left;
	size_t i, len;

	for (i = 0; i < f->chunks; i++) {
		at = (uint64_t)i * ARTIFACT_CHUNK;
		left = f->size - at;
		len = left < ARTIFACT_CHUNK ? (size_t)left : ARTIFACT_CHUNK;
		if (!f->sum[i][0] && lseek(in, (off_t)at, SEEK_DATA) < 0)
			continue;
		if (pread(in, p, len, (off_t)at) != (ssize_t)len ||
		    !artifact_chunk_is(f, i, p, len))
			return err_set(e, E_TAMPERED, "artifact %.64s: checksum of %s is wrong",
			    a->id, f->name);
		if (pages(out, p, len, (off_t)at, bytes) < 0)
			return err_sys(e, "fill memory");
	}
	return 0;
}

/* A file in RAM that, once filled, no process can change any more: also not QEMU's discard, which
   would punch holes into what all clones map. What was checked is what will be used. */
int
image_sealed(
    int state_fd, const struct artifact *a, const char *name, uint64_t *ret_bytes, struct err *e)
{
	const struct artifact_file *f = artifact_file(a, name);
	auto_fd in = f ? artifact_open(state_fd, a->id, name, e) : -1;
	auto_fd out = memfd_create("hutch-image", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	struct stat s;

	*ret_bytes = 0;
	if (!f)
		return err_set(e, E_TAMPERED, "artifact %.64s has no %s", a->id, name);
	if (in < 0)
		return -1;
	if (fstat(in, &s) < 0 || (uint64_t)s.st_size != f->size)
		return err_set(e, E_TAMPERED, "artifact %.64s: %s has another size", a->id, name);
	if (out < 0 || ftruncate(out, (off_t)f->size) < 0)
		return err_sys(e, "memfd");
	if (fill(in, out, a, f, ret_bytes, e) < 0)
		return -1;
	if (fcntl(out, F_ADD_SEALS, F_SEAL_WRITE | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) < 0)
		return err_sys(e, "seal memory");
	return take_fd(&out);
}

int
image_file_finish(struct image_file *f, struct err *e)
{
	auto_talloc struct artifact *a = talloc_zero(NULL, struct artifact);
	char path[200], next[210];
	auto_fd fd = -1;

	*a = (struct artifact){ .kind = "image",
		.cpu_class = f->cpu_class,
		.qemu = f->qemu,
		.machine = f->machine,
		.template = f->template,
		.build = f->build,
		.vcpus = f->vcpus,
		.memory_mb = f->memory_mb,
		.disk_size = f->disk_size,
		.file = { { .name = "memory" }, { .name = "state" }, { .name = "disk.qcow2" } },
		.files = 3 };
	if (artifact_finish(f->state_fd, f->name, a, e) < 0)
		return -1;
	memcpy(f->id, a->id, sizeof f->id);
	snprintf(path, sizeof path, "memory/%s", f->name);
	snprintf(next, sizeof next, "%s.tmp", path);
	fd = openat(f->state_fd, next, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	if (fd < 0 || write(fd, f->id, ARTIFACT_ID - 1) != ARTIFACT_ID - 1 || fsync(fd) < 0 ||
	    renameat(f->state_fd, next, f->state_fd, path) < 0)
		return err_sys(e, "%s", path);
	return 0;
}

bool
image_file_id(int state_fd, const char *name, char ret[ARTIFACT_ID])
{
	char path[200];

	snprintf(path, sizeof path, "memory/%s", name);
	auto_fd fd = openat(state_fd, path, O_RDONLY | O_CLOEXEC);
	if (fd < 0 || read(fd, ret, ARTIFACT_ID - 1) != ARTIFACT_ID - 1)
		return false;
	ret[ARTIFACT_ID - 1] = '\0';
	return artifact_id_ok(ret);
}

static int
load_parts(struct image_file *f, const struct artifact *a, struct err *e)
{
	uint64_t ignore;

	f->disk_size = a->disk_size;
	f->memory = image_sealed(f->state_fd, a, "memory", &f->bytes, e);
	if (f->memory < 0)
		return -1;
	if (f->memory_size && lseek(f->memory, 0, SEEK_END) != (off_t)f->memory_size)
		return err_set(e, E_TAMPERED, "artifact %.64s: memory has another size", a->id);
	f->device_state = image_sealed(f->state_fd, a, "state", &ignore, e);
	if (f->device_state < 0 || artifact_verify_once(f->state_fd, a->id, e) < 0)
		return -1;
	f->disk = artifact_open(f->state_fd, a->id, "disk.qcow2", e);
	return f->disk < 0 ? -1 : 0;
}

int
image_file_load(struct image_file *f, struct err *e)
{
	auto_talloc struct artifact *a = NULL;

	f->memory = f->device_state = f->disk = -1;
	if (*f->name && !image_file_id(f->state_fd, f->name, f->id))
		return err_set(e, E_NOT_FOUND, "no memory image %s", f->name);
	a = artifact_read(NULL, f->state_fd, f->id, e);
	if (!a)
		return -1;
	if (strcmp(a->kind, "image") != 0 || (f->machine && strcmp(a->machine, f->machine) != 0))
		return err_set(e, E_TAMPERED, "memory image %s is of another machine: %.100s",
		    f->name, a->machine);
	if (load_parts(f, a, e) == 0)
		return 0;
	cleanup_fd(&f->memory);
	cleanup_fd(&f->device_state);
	cleanup_fd(&f->disk);
	f->memory = f->device_state = f->disk = -1;
	return -1;
}

void
image_file_remove(int state_fd, const char *name)
{
	static const char *const old[] = { "header.json", "memory", "state", "disk.qcow2" };
	char path[200], id[ARTIFACT_ID];
	size_t i;

	if (image_file_id(state_fd, name, id))
		artifact_remove(state_fd, id);
	snprintf(path, sizeof path, "memory/%.120s", name);
	if (unlinkat(state_fd, path, 0) == 0)
		return;
	/* as releases before artifacts kept it */
	for (i = 0; i < nitems(old); i++) {
		snprintf(path, sizeof path, "memory/%.120s/%s", name, old[i]);
		(void)unlinkat(state_fd, path, 0);
	}
	snprintf(path, sizeof path, "memory/%.120s", name);
	(void)unlinkat(state_fd, path, AT_REMOVEDIR);
}
