/* image_file.c - see image_file.h. */
#include "image_file.h"
#include "json.h"

#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <openssl/evp.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

enum { PAGE = 4096, CHUNK = 256 * PAGE, HEADER_MAX = 65536, SUM = 65 };

static void
hex(EVP_MD_CTX *md, char ret[SUM])
{
	unsigned char sum[EVP_MAX_MD_SIZE];
	unsigned n, i;

	(void)EVP_DigestFinal_ex(md, sum, &n);
	for (i = 0; i < 32; i++)
		snprintf(ret + 2 * i, 3, "%02x", sum[i]);
}

static bool
is_zero(const unsigned char *p)
{
	return !p[0] && memcmp(p, p + 1, PAGE - 1) == 0;
}

/* The pages that are not zero, each with its offset, into the sum and (out >= 0) into out. Holes
   cost nothing, and which zeros are holes does not change the sum. */
static int
pages(int in, int out, char ret[SUM], uint64_t *ret_bytes, struct err *e)
{
	unsigned char *chunk = talloc_size(NULL, CHUNK), *p;
	EVP_MD_CTX *md = EVP_MD_CTX_new();
	off_t at = 0, end;
	uint64_t where;
	ssize_t n = 0, k;

	*ret_bytes = 0;
	(void)EVP_DigestInit_ex(md, EVP_sha256(), NULL);
	while ((at = lseek(in, at, SEEK_DATA)) >= 0 && (end = lseek(in, at, SEEK_HOLE)) > at &&
	    n >= 0) {
		at = at / PAGE * PAGE;
		for (; at < end; at += n) {
			n = pread(in, chunk, CHUNK, at);
			if (n <= 0)
				break;
			if (n % PAGE)
				memset(chunk + n, 0, PAGE - n % PAGE);
			for (p = chunk; p < chunk + n; p += PAGE) {
				if (is_zero(p))
					continue;
				where = htobe64(at + (p - chunk));
				(void)EVP_DigestUpdate(md, &where, sizeof where);
				(void)EVP_DigestUpdate(md, p, PAGE);
				*ret_bytes += PAGE;
				k = out < 0 ? PAGE : pwrite(out, p, PAGE, at + (p - chunk));
				if (k != PAGE) {
					n = -1;
					break;
				}
			}
		}
		if (n <= 0)
			break;
	}
	hex(md, ret);
	EVP_MD_CTX_free(md);
	talloc_free(chunk);
	return n < 0 ? err_sys(e, "memory image") : 0;
}

/* All bytes, into the sum and (out >= 0) into out. */
static int
bytes(int in, int out, char ret[SUM], struct err *e)
{
	unsigned char *chunk = talloc_size(NULL, CHUNK);
	EVP_MD_CTX *md = EVP_MD_CTX_new();
	off_t at = 0;
	ssize_t n;

	(void)EVP_DigestInit_ex(md, EVP_sha256(), NULL);
	while ((n = pread(in, chunk, CHUNK, at)) > 0) {
		(void)EVP_DigestUpdate(md, chunk, n);
		if (out >= 0 && pwrite(out, chunk, n, at) != n) {
			n = -1;
			break;
		}
		at += n;
	}
	hex(md, ret);
	EVP_MD_CTX_free(md);
	talloc_free(chunk);
	return n < 0 ? err_sys(e, "image file") : 0;
}

static int
folder(const struct image_file *f, const char *suffix, struct err *e)
{
	char path[200];
	int fd;

	snprintf(path, sizeof path, "memory/%s%s", f->name, suffix);
	fd = openat(f->state_fd, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd >= 0)
		return fd;
	if (errno == ENOENT)
		return err_set(e, E_NOT_FOUND, "no memory image %s", f->name);
	return err_sys(e, "%s", path);
}

static int
open_part(int dir, const char *name, struct err *e)
{
	int fd = openat(dir, name, O_RDONLY | O_CLOEXEC);

	return fd >= 0        ? fd
	    : errno == ENOENT ? err_set(e, E_TAMPERED, "%s is missing", name)
			      : err_sys(e, "%s", name);
}

int
image_file_finish(struct image_file *f, struct err *e)
{
	char memory_sum[SUM], state_sum[SUM], disk_sum[SUM], from[200], to[200];
	auto_talloc char *mem = talloc_new(NULL);
	struct buf b = BUF(mem);
	auto_fd dir = folder(f, ".tmp", e), memory = -1, state = -1, disk = -1, header = -1;

	if (dir < 0 || (memory = open_part(dir, "memory", e)) < 0 ||
	    (state = open_part(dir, "state", e)) < 0 ||
	    (disk = open_part(dir, "disk.qcow2", e)) < 0)
		return -1;
	if (pages(memory, -1, memory_sum, &f->bytes, e) < 0 || bytes(state, -1, state_sum, e) < 0 ||
	    bytes(disk, -1, disk_sum, e) < 0)
		return -1;
	buf_str(&b, "{\"format\":1,\"machine\":");
	buf_json(&b, f->machine);
	buf_fmt(&b,
	    ",\"memory_size\":%" PRIu64 ",\"disk_size\":%" PRIu64 ",\"memory\":\"%s\","
	    "\"state\":\"%s\",\"disk\":\"%s\"}\n",
	    f->memory_size, f->disk_size, memory_sum, state_sum, disk_sum);
	header = openat(dir, "header.json", O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	if (header < 0 || write(header, b.data, b.len) != (ssize_t)b.len)
		return err_sys(e, "header.json");
	(void)fchmod(disk, 0400);
	if (fsync(memory) < 0 || fsync(state) < 0 || fsync(disk) < 0 || fsync(header) < 0 ||
	    fsync(dir) < 0)
		return err_sys(e, "fsync");
	snprintf(from, sizeof from, "memory/%s.tmp", f->name);
	snprintf(to, sizeof to, "memory/%s", f->name);
	image_file_remove(f->state_fd, f->name, "");
	if (renameat(f->state_fd, from, f->state_fd, to) < 0)
		return err_sys(e, "%s", to);
	return 0;
}

/* A file in RAM that, once filled, no process can change any more: also not QEMU's discard, which
   would punch holes into what all clones map. */
static int
sealed_new(const char *name, uint64_t size, struct err *e)
{
	int fd = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING);

	if (fd < 0 || ftruncate(fd, (off_t)size) < 0)
		err_sys(e, "memfd");
	return fd;
}

static int
seal(int fd, struct err *e)
{
	if (fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) < 0)
		return err_sys(e, "seal memory");
	return 0;
}

static int
check(const struct image_file *f, const char *what, struct json_object *header, const char *sum,
    struct err *e)
{
	if (strcmp(json_str(header, what, ""), sum) != 0)
		return err_set(
		    e, E_TAMPERED, "memory image %s: checksum of %s is wrong", f->name, what);
	return 0;
}

/* Into sealed memory first, then compared: what was checked is what will be used. */
static int
load_parts(struct image_file *f, int dir, struct json_object *header, struct err *e)
{
	char sum[SUM];
	struct stat s;
	auto_fd memory = open_part(dir, "memory", e), state = open_part(dir, "state", e);

	f->disk = open_part(dir, "disk.qcow2", e);
	if (memory < 0 || state < 0 || f->disk < 0)
		return -1;
	if (fstat(memory, &s) < 0 || (uint64_t)s.st_size != f->memory_size)
		return err_set(e, E_TAMPERED, "memory image %s: memory has another size", f->name);
	f->memory = sealed_new("hutch-memory", f->memory_size, e);
	if (f->memory < 0 || pages(memory, f->memory, sum, &f->bytes, e) < 0 ||
	    seal(f->memory, e) < 0 || check(f, "memory", header, sum, e) < 0)
		return -1;
	f->device_state = sealed_new("hutch-state", 0, e);
	if (f->device_state < 0 || bytes(state, f->device_state, sum, e) < 0 ||
	    seal(f->device_state, e) < 0 || check(f, "state", header, sum, e) < 0)
		return -1;
	return bytes(f->disk, -1, sum, e) < 0 || check(f, "disk", header, sum, e) < 0 ? -1 : 0;
}

int
image_file_load(struct image_file *f, struct err *e)
{
	auto_talloc char *mem = talloc_new(NULL);
	char *text = talloc_size(mem, HEADER_MAX);
	auto_fd dir = folder(f, "", e), fd = -1;
	struct json_object *header;
	struct err bad = { 0 };
	ssize_t n;

	f->memory = f->device_state = f->disk = -1;
	if (dir < 0 || (fd = open_part(dir, "header.json", e)) < 0)
		return -1;
	n = read(fd, text, HEADER_MAX);
	header = n < 0 ? NULL : json_parse(mem, text, n, NULL, &bad);
	if (!header)
		return err_set(e, E_TAMPERED, "memory image %s: header: %s", f->name, bad.text);
	if (json_int(header, "format", 0) != 1 ||
	    strcmp(json_str(header, "machine", ""), f->machine) != 0 ||
	    (uint64_t)json_int(header, "memory_size", 0) != f->memory_size)
		return err_set(e, E_TAMPERED, "memory image %s is of another machine: %.100s",
		    f->name, json_str(header, "machine", "?"));
	f->disk_size = (uint64_t)json_int(header, "disk_size", 0);
	if (load_parts(f, dir, header, e) == 0)
		return 0;
	cleanup_fd(&f->memory);
	cleanup_fd(&f->device_state);
	cleanup_fd(&f->disk);
	f->memory = f->device_state = f->disk = -1;
	return -1;
}

void
image_file_remove(int state_fd, const char *name, const char *suffix)
{
	static const char *const parts[] = { "header.json", "memory", "state", "disk.qcow2" };
	char path[200];
	size_t i;

	for (i = 0; i < nitems(parts); i++) {
		snprintf(path, sizeof path, "memory/%.120s%.8s/%s", name, suffix, parts[i]);
		(void)unlinkat(state_fd, path, 0);
	}
	snprintf(path, sizeof path, "memory/%.120s%.8s", name, suffix);
	(void)unlinkat(state_fd, path, AT_REMOVEDIR);
}
