/* artifact.c - see artifact.h. */
#include "artifact.h"
#include "buf.h"
#include "cleanup.h"
#include "json.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <openssl/evp.h>
#include <pthread.h>
#include <string.h>
#include <sys/stat.h>

enum { PATH_LEN = 160, KEYS_MAX = 64, SUM_BYTES = 32 };

static void
sum_of(const void *p, size_t n, char ret[ARTIFACT_ID])
{
	unsigned char sum[EVP_MAX_MD_SIZE];
	unsigned len = 0;

	(void)EVP_Digest(p, n, sum, &len, EVP_sha256(), NULL);
	for (int i = 0; i < SUM_BYTES; i++)
		snprintf(ret + 2 * i, 3, "%02x", sum[i]);
}

static bool
is_zero(const unsigned char *p, size_t n)
{
	return n == 0 || (!p[0] && memcmp(p, p + 1, n - 1) == 0);
}

bool
artifact_id_ok(const char *id)
{
	return id && strlen(id) == ARTIFACT_ID - 1 &&
	    strspn(id, "0123456789abcdef") == ARTIFACT_ID - 1;
}

static size_t
chunks_of(uint64_t size)
{
	return (size_t)((size + ARTIFACT_CHUNK - 1) / ARTIFACT_CHUNK);
}

static int
folder(int state, const char *name, const char *suffix, struct err *e)
{
	char path[PATH_LEN];
	int fd;

	snprintf(path, sizeof path, "artifacts/%.100s%s", name, suffix);
	fd = openat(state, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd >= 0)
		return fd;
	if (errno == ENOENT)
		return err_set(e, E_NOT_FOUND, "no artifact %.64s", name);
	return err_sys(e, "%s", path);
}

/* The manifest, in and out. */

/* What becomes part of a path. */
static bool
name_ok(const char *s)
{
	return *s && *s != '.' && !strchr(s, '/');
}

static int
file_parse(struct artifact *a, struct json_object *j, struct err *e)
{
	struct artifact_file *f = &a->file[a->files];
	struct json_object *chunks = json_get(j, "chunks");
	const char *sum;
	size_t i;

	f->name = json_str(j, "name", "");
	f->size = (uint64_t)json_int(j, "size", -1);
	f->chunks = chunks_of(f->size);
	if (!name_ok(f->name) || (int64_t)f->size < 0 ||
	    !json_object_is_type(chunks, json_type_array) ||
	    json_object_array_length(chunks) != f->chunks)
		return err_set(e, E_TAMPERED, "artifact %.64s: a file is described wrongly", a->id);
	f->sum = talloc_zero_size(a, (f->chunks + 1) * sizeof *f->sum);
	for (i = 0; i < f->chunks; i++) {
		sum = json_object_get_string(json_object_array_get_idx(chunks, i));
		if (sum && !artifact_id_ok(sum))
			return err_set(e, E_TAMPERED, "artifact %.64s: no checksum", a->id);
		if (sum)
			memcpy(f->sum[i], sum, ARTIFACT_ID);
	}
	a->files++;
	return 0;
}

/* Absent is 0; -1: no number of anything. */
static int
number(struct json_object *j, const char *name)
{
	int64_t n = json_int(j, name, 0);

	return n < 0 || n > INT_MAX ? -1 : (int)n;
}

struct artifact *
artifact_parse(void *mem, const char *id, const char *text, size_t len, struct err *e)
{
	static const struct json_limits limits = { .depth = 6, .keys = KEYS_MAX };
	struct artifact *a = talloc_zero(mem, struct artifact);
	struct json_object *j, *files;
	struct err bad = { 0 };
	size_t i;

	sum_of(text, len, a->id);
	if (strcmp(a->id, id) != 0) {
		(void)err_set(e, E_TAMPERED, "artifact %.64s: its manifest is another one", id);
		goto fail;
	}
	j = json_parse(a, text, len, &limits, &bad);
	files = json_get(j, "files");
	if (!j || json_int(j, "format", 0) != 1 || !json_object_is_type(files, json_type_array) ||
	    json_object_array_length(files) > ARTIFACT_FILES) {
		(void)err_set(
		    e, E_TAMPERED, "artifact %.64s: format is not known: %.80s", id, bad.text);
		goto fail;
	}
	a->kind = json_str(j, "kind", "");
	a->parent = json_str(j, "parent", NULL);
	a->cpu_class = json_str(j, "cpu_class", "");
	a->qemu = json_str(j, "qemu", "");
	a->machine = json_str(j, "machine", "");
	a->template = json_str(j, "template", "");
	a->build = json_str(j, "build", "");
	a->vcpus = number(j, "vcpus");
	a->memory_mb = number(j, "memory_mb");
	a->disk_size = (uint64_t)json_int(j, "disk_size", 0);
	if (a->vcpus < 0 || a->memory_mb < 0) {
		(void)err_set(e, E_TAMPERED, "artifact %.64s: its machine is none", id);
		goto fail;
	}
	if ((a->parent && !artifact_id_ok(a->parent)) || (*a->template && !name_ok(a->template))) {
		(void)err_set(e, E_TAMPERED, "artifact %.64s: its parent or template is none", id);
		goto fail;
	}
	for (i = 0; i < json_object_array_length(files); i++)
		if (file_parse(a, json_object_array_get_idx(files, i), e) < 0)
			goto fail;
	return a;
fail:
	talloc_free(a);
	return NULL;
}

static void
member(struct buf *b, const char *name, const char *value)
{
	buf_fmt(b, ",\"%s\":", name);
	buf_json(b, value);
}

static void
manifest(const struct artifact *a, struct buf *b)
{
	const struct artifact_file *f;
	size_t i;

	buf_str(b, "{\"format\":1");
	member(b, "kind", a->kind);
	member(b, "parent", a->parent);
	member(b, "cpu_class", a->cpu_class);
	member(b, "qemu", a->qemu);
	member(b, "machine", a->machine);
	member(b, "template", a->template);
	member(b, "build", a->build);
	buf_fmt(b, ",\"vcpus\":%d,\"memory_mb\":%d,\"disk_size\":%" PRIu64 ",\"files\":[", a->vcpus,
	    a->memory_mb, a->disk_size);
	for (f = a->file; f < a->file + a->files; f++) {
		buf_str(b, f == a->file ? "{\"name\":" : ",{\"name\":");
		buf_json(b, f->name);
		buf_fmt(b, ",\"size\":%" PRIu64 ",\"chunks\":[", f->size);
		for (i = 0; i < f->chunks; i++) {
			buf_str(b, i ? "," : "");
			buf_json(b, f->sum[i][0] ? f->sum[i] : NULL);
		}
		buf_str(b, "]}");
	}
	buf_str(b, "]}\n");
}

struct artifact *
artifact_read(void *mem, int state, const char *id, struct err *e)
{
	auto_fd dir = artifact_id_ok(id) ? folder(state, id, "", e) : -1, fd = -1;
	auto_talloc char *text = NULL;
	struct stat s;

	if (!artifact_id_ok(id)) {
		(void)err_set(e, E_BAD_INPUT, "\"%.70s\" is no artifact's id", id ? id : "");
		return NULL;
	}
	if (dir < 0)
		return NULL;
	fd = openat(dir, "manifest.json", O_RDONLY | O_CLOEXEC);
	if (fd < 0 || fstat(fd, &s) < 0 || s.st_size > ARTIFACT_MANIFEST_MAX ||
	    !(text = talloc_size(NULL, (size_t)s.st_size + 1)) ||
	    read(fd, text, (size_t)s.st_size) != s.st_size) {
		(void)err_set(e, E_TAMPERED, "artifact %.64s has no manifest", id);
		return NULL;
	}
	return artifact_parse(mem, id, text, (size_t)s.st_size, e);
}

const struct artifact_file *
artifact_file(const struct artifact *a, const char *name)
{
	size_t i;

	for (i = 0; i < a->files; i++)
		if (strcmp(a->file[i].name, name) == 0)
			return &a->file[i];
	return NULL;
}

int
artifact_open(int state, const char *id, const char *name, struct err *e)
{
	auto_fd dir = folder(state, id, "", e);
	int fd;

	if (dir < 0)
		return -1;
	fd = openat(dir, name, O_RDONLY | O_CLOEXEC);
	if (fd < 0 && errno == ENOENT)
		return err_set(e, E_TAMPERED, "artifact %.64s: %s is missing", id, name);
	return fd < 0 ? err_sys(e, "artifact %.64s: %s", id, name) : fd;
}

bool
artifact_have(int state, const char *id)
{
	char path[PATH_LEN];

	snprintf(path, sizeof path, "artifacts/%.64s/manifest.json", id);
	return artifact_id_ok(id) && faccessat(state, path, F_OK, 0) == 0;
}

/* Sums. */

bool
artifact_chunk_is(const struct artifact_file *f, size_t n, const void *data, size_t len)
{
	uint64_t at = (uint64_t)n * ARTIFACT_CHUNK, left = f->size - at;
	char sum[ARTIFACT_ID];

	if (n >= f->chunks || len != (left < ARTIFACT_CHUNK ? left : ARTIFACT_CHUNK))
		return false;
	if (!f->sum[n][0])
		return is_zero(data, len);
	sum_of(data, len, sum);
	return strcmp(sum, f->sum[n]) == 0;
}

/* Chunk n of fd into p: 1; a hole: 0 (p is not touched); -1. */
static int
chunk_read(int fd, uint64_t at, size_t len, unsigned char *p, struct err *e)
{
	off_t data = lseek(fd, (off_t)at, SEEK_DATA);
	size_t done = 0;
	ssize_t n;

	if ((data < 0 && errno == ENXIO) || data >= (off_t)(at + len))
		return 0;
	while (done < len) {
		n = pread(fd, p + done, len - done, (off_t)(at + done));
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return err_sys(e, "read an artifact");
		if (n == 0)
			return err_set(e, E_TAMPERED, "a file of an artifact is short");
		done += (size_t)n;
	}
	return 1;
}

static size_t
chunk_len(const struct artifact_file *f, size_t n)
{
	uint64_t left = f->size - (uint64_t)n * ARTIFACT_CHUNK;

	return left < ARTIFACT_CHUNK ? (size_t)left : ARTIFACT_CHUNK;
}

static int
file_verify(int dir, const char *id, const struct artifact_file *f, struct err *e)
{
	auto_talloc unsigned char *p = talloc_size(NULL, ARTIFACT_CHUNK);
	auto_fd fd = openat(dir, f->name, O_RDONLY | O_CLOEXEC);
	struct stat s;
	size_t i;
	int r;

	if (fd < 0 || fstat(fd, &s) < 0 || (uint64_t)s.st_size != f->size)
		return err_set(
		    e, E_TAMPERED, "artifact %.64s: %s is missing or of another size", id, f->name);
	for (i = 0; i < f->chunks; i++) {
		r = chunk_read(fd, (uint64_t)i * ARTIFACT_CHUNK, chunk_len(f, i), p, e);
		if (r < 0)
			return -1;
		if (r ? !artifact_chunk_is(f, i, p, chunk_len(f, i)) : f->sum[i][0] != '\0')
			return err_set(
			    e, E_TAMPERED, "artifact %.64s: checksum of %s is wrong", id, f->name);
	}
	return 0;
}

static int
files_verify(int dir, const struct artifact *a, struct err *e)
{
	size_t i;

	for (i = 0; i < a->files; i++)
		if (file_verify(dir, a->id, &a->file[i], e) < 0)
			return -1;
	return 0;
}

int
artifact_verify(int state, const char *id, struct err *e)
{
	auto_talloc struct artifact *a = artifact_read(NULL, state, id, e);
	auto_fd dir = a ? folder(state, id, "", e) : -1;

	return dir < 0 ? -1 : files_verify(dir, a, e);
}

/* Ids that were verified, or made here, in this life. Threads use it. */
static struct {
	pthread_mutex_t lock;
	char (*id)[ARTIFACT_ID];
	size_t n;
} good = { .lock = PTHREAD_MUTEX_INITIALIZER };

static bool
good_has(const char *id, bool forget)
{
	bool found = false;
	size_t i;

	(void)pthread_mutex_lock(&good.lock);
	for (i = 0; i < good.n && !found; i++)
		found = strcmp(good.id[i], id) == 0;
	if (found && forget)
		memcpy(good.id[i - 1], good.id[--good.n], ARTIFACT_ID);
	(void)pthread_mutex_unlock(&good.lock);
	return found;
}

static void
good_add(const char *id)
{
	if (good_has(id, false))
		return;
	(void)pthread_mutex_lock(&good.lock);
	good.id = talloc_realloc_size(NULL, good.id, (good.n + 1) * ARTIFACT_ID);
	memcpy(good.id[good.n++], id, ARTIFACT_ID);
	(void)pthread_mutex_unlock(&good.lock);
}

int
artifact_verify_once(int state, const char *id, struct err *e)
{
	if (good_has(id, false) && artifact_have(state, id))
		return 0;
	if (artifact_verify(state, id, e) < 0)
		return -1;
	good_add(id);
	return 0;
}

/* Making one. */

static void
folder_remove(int state, const char *name, const char *suffix)
{
	char path[PATH_LEN];
	auto_fd fd = folder(state, name, suffix, &(struct err){ 0 });
	DIR *d = fd < 0 ? NULL : fdopendir(dup(fd));
	struct dirent *entry;

	while (d && (entry = readdir(d)))
		if (entry->d_name[0] != '.')
			(void)unlinkat(fd, entry->d_name, 0);
	if (d)
		closedir(d);
	snprintf(path, sizeof path, "artifacts/%.100s%s", name, suffix);
	(void)unlinkat(state, path, AT_REMOVEDIR);
}

int
artifact_begin(int state, const char *name, struct err *e)
{
	char path[PATH_LEN];

	folder_remove(state, name, ".tmp");
	snprintf(path, sizeof path, "artifacts/%.100s.tmp", name);
	if (mkdirat(state, path, 0700) < 0)
		return err_sys(e, "%s", path);
	return folder(state, name, ".tmp", e);
}

void
artifact_abort(int state, const char *name)
{
	folder_remove(state, name, ".tmp");
}

void
artifact_remove(int state, const char *id)
{
	(void)good_has(id, true);
	if (artifact_id_ok(id))
		folder_remove(state, id, "");
}

/* Reads it, unless who wrote it summed it. */
static int
file_sum(int dir, struct artifact *a, struct artifact_file *f, struct err *e)
{
	auto_talloc unsigned char *p = NULL;
	auto_fd fd = openat(dir, f->name, O_RDONLY | O_CLOEXEC);
	struct stat s;
	size_t i;
	int r;

	if (fd < 0 || fstat(fd, &s) < 0)
		return err_sys(e, "artifact: %s", f->name);
	if (f->sum && f->size != (uint64_t)s.st_size)
		return err_set(e, E_TAMPERED, "artifact: %s is not what was written", f->name);
	if (!f->sum) {
		p = talloc_size(NULL, ARTIFACT_CHUNK);
		f->size = (uint64_t)s.st_size;
		f->chunks = chunks_of(f->size);
		f->sum = talloc_zero_size(a, (f->chunks + 1) * sizeof *f->sum);
		for (i = 0; i < f->chunks; i++) {
			r = chunk_read(fd, (uint64_t)i * ARTIFACT_CHUNK, chunk_len(f, i), p, e);
			if (r < 0)
				return -1;
			if (r && !is_zero(p, chunk_len(f, i)))
				sum_of(p, chunk_len(f, i), f->sum[i]);
		}
	}
	(void)fchmod(fd, 0400);
	/* on its way while the next one is summed: artifact_commit() waits for less */
	(void)sync_file_range(fd, 0, 0, SYNC_FILE_RANGE_WRITE);
	return 0;
}

int
artifact_prepare(int state, const char *name, struct artifact *meta, struct err *e)
{
	auto_talloc char *mem = talloc_new(NULL);
	struct buf b = BUF(mem);
	auto_fd dir = folder(state, name, ".tmp", e), fd = -1;
	size_t i;

	if (dir < 0)
		return -1;
	for (i = 0; i < meta->files; i++)
		if (file_sum(dir, meta, &meta->file[i], e) < 0)
			return -1;
	manifest(meta, &b);
	if (b.len > ARTIFACT_MANIFEST_MAX)
		return err_set(e, E_TOO_LARGE, "the manifest is too long");
	sum_of(b.data, b.len, meta->id);
	fd = openat(dir, "manifest.json", O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0400);
	if (fd < 0 || write(fd, b.data, b.len) != (ssize_t)b.len)
		return err_sys(e, "manifest.json");
	(void)sync_file_range(fd, 0, 0, SYNC_FILE_RANGE_WRITE);
	return 0;
}

/* All files of a prepared folder, and the folder. */
static int
folder_sync(int state, const char *name, struct err *e)
{
	auto_fd dir = folder(state, name, ".tmp", e);
	DIR *d = dir < 0 ? NULL : fdopendir(dup(dir));
	struct dirent *entry;
	int r = d ? 0 : -1;

	while (r == 0 && (entry = readdir(d))) {
		if (entry->d_name[0] == '.')
			continue;
		auto_fd fd = openat(dir, entry->d_name, O_RDONLY | O_CLOEXEC);

		if (fd < 0 || fsync(fd) < 0)
			r = err_sys(e, "fsync %s", entry->d_name);
	}
	if (d)
		closedir(d);
	return r == 0 && fsync(dir) < 0 ? err_sys(e, "fsync %.100s.tmp", name) : r;
}

/* The finished folder gets its name; if that is there already, this one was superfluous. */
static int
name_it(int state, const char *name, const char *id, struct err *e)
{
	char from[PATH_LEN], to[PATH_LEN];

	snprintf(from, sizeof from, "artifacts/%.100s.tmp", name);
	snprintf(to, sizeof to, "artifacts/%.64s", id);
	if (renameat(state, from, state, to) == 0)
		return 0;
	if (errno != ENOTEMPTY && errno != EEXIST)
		return err_sys(e, "%s", to);
	artifact_abort(state, name);
	return 0;
}

int
artifact_commit(int state, const struct artifact_new *list, size_t n, struct err *e)
{
	auto_fd all = openat(state, "artifacts", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	size_t i;

	for (i = 0; i < n; i++)
		if (folder_sync(state, list[i].name, e) < 0)
			return -1;
	for (i = 0; i < n; i++)
		if (name_it(state, list[i].name, list[i].id, e) < 0)
			return -1;
	if (all < 0 || fsync(all) < 0)
		return err_sys(e, "fsync artifacts");
	for (i = 0; i < n; i++)
		good_add(list[i].id);
	return 0;
}

int
artifact_finish(int state, const char *name, struct artifact *meta, struct err *e)
{
	struct artifact_new one;

	if (artifact_prepare(state, name, meta, e) < 0)
		return -1;
	snprintf(one.name, sizeof one.name, "%s", name);
	memcpy(one.id, meta->id, sizeof one.id);
	return artifact_commit(state, &one, 1, e);
}

int
artifact_accept(int state, const char *name, const char *id, struct err *e)
{
	auto_talloc char *text = NULL;
	auto_talloc struct artifact *a = NULL;
	auto_fd dir = folder(state, name, ".tmp", e), fd = -1;
	struct artifact_new one;
	struct stat s;
	size_t i;

	if (dir < 0)
		return -1;
	fd = openat(dir, "manifest.json", O_RDONLY | O_CLOEXEC);
	if (fd < 0 || fstat(fd, &s) < 0 || s.st_size > ARTIFACT_MANIFEST_MAX ||
	    !(text = talloc_size(NULL, (size_t)s.st_size + 1)) ||
	    read(fd, text, (size_t)s.st_size) != s.st_size)
		return err_set(e, E_TAMPERED, "artifact %.64s has no manifest", id);
	a = artifact_parse(NULL, id, text, (size_t)s.st_size, e);
	if (!a || files_verify(dir, a, e) < 0)
		return -1;
	for (i = 0; i < a->files; i++)
		if (fchmodat(dir, a->file[i].name, 0400, 0) < 0)
			return err_sys(e, "artifact: %s", a->file[i].name);
	snprintf(one.name, sizeof one.name, "%s", name);
	memcpy(one.id, a->id, sizeof one.id);
	return artifact_commit(state, &one, 1, e);
}

void
artifact_each(int state, void (*fn)(void *, const char *), void *arg)
{
	auto_fd fd = openat(state, "artifacts", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *d = fd < 0 ? NULL : fdopendir(dup(fd));
	struct dirent *entry;

	while (d && (entry = readdir(d)))
		if (artifact_id_ok(entry->d_name))
			fn(arg, entry->d_name);
	if (d)
		closedir(d);
}
