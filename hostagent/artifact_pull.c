/* artifact_pull.c - one artifact or template from another host, in a thread; see artifact_api.h. */
#include "artifact_api.h"
#include "artifact.h"
#include "cleanup.h"
#include "http.h"
#include "json.h"
#include "template.h"
#include "tls.h"

#include <errno.h>
#include <fcntl.h>
#include <openssl/evp.h>
#include <string.h>
#include <sys/stat.h>
#include <zstd.h>

enum { DEPTH = 64, CALL_MS = 60000, TRIES = 3, ANSWER_MAX = 9 << 20 };

/* A GET of the other host: its address is https://name:port#fingerprints, or unix:/path. */
static int
fetch(const struct pull_env *p, void *mem, const char *path, struct http_answer *ret, struct err *e)
{
	struct http_call call = { .method = "GET",
		.flags = HTTP_INTERNAL,
		.connect_ms = 5000,
		.total_ms = CALL_MS,
		.tries = TRIES,
		.answer_max = ANSWER_MAX };
	struct dial d;

	if (strncmp(p->from, "unix:", 5) == 0) {
		call.flags |= HTTP_H2;
		call.unix_socket = p->from + 5;
		call.url = talloc_asprintf(mem, "http://agent/agent/v1/artifacts/%s", path);
	} else {
		if (!p->self.cert || dial_read(mem, p->from, &d) < 0)
			return err_set(e, E_BAD_INPUT, "\"from\" cannot be reached from here");
		call.tls = tls_client(mem, &p->self, d.host, d.fingerprints, e);
		if (!call.tls)
			return -1;
		call.url = talloc_asprintf(mem,
		    strchr(d.host, ':') ? "https://[%s]:%s/agent/v1/artifacts/%s"
					: "https://%s:%s/agent/v1/artifacts/%s",
		    d.host, d.port, path);
	}
	if (http_send(mem, &call, ret, e) < 0)
		return -1;
	if (ret->status == 200)
		return 0;
	return err_set(e, ret->status == 404 ? E_NOT_FOUND : E_AGENT, "the other host: %d %.100s",
	    ret->status, ret->body);
}

static int
write_all(int fd, const uint8_t *p, size_t n, off_t at, struct err *e)
{
	ssize_t done;

	for (; n; p += done, n -= (size_t)done, at += done) {
		done = pwrite(fd, p, n, at);
		if (done < 0 && errno == EINTR)
			done = 0;
		if (done < 0)
			return err_set(e, errno == ENOSPC ? E_NO_SPACE : E_SYSTEM, "write: %s",
			    strerror(errno));
	}
	return 0;
}

/* Chunk n of a file, unpacked; its length, or -1. */
static ssize_t
chunk(const struct pull_env *p, const char *what, const char *file, size_t n, uint8_t *ret,
    struct err *e)
{
	auto_talloc char *mem = talloc_new(NULL);
	struct http_answer a;
	size_t len;

	if (fetch(p, mem, talloc_asprintf(mem, "%s/files/%s/chunks/%zu", what, file, n), &a, e) < 0)
		return -1;
	len = ZSTD_decompress(ret, ARTIFACT_CHUNK, a.body, a.len);
	if (ZSTD_isError(len))
		return err_set(e, E_TAMPERED, "%s: %s is not zstd", what, file);
	return (ssize_t)len;
}

/* ---- artifacts */

static int
pull_file(
    const struct pull_env *p, const char *id, const struct artifact_file *f, int dir, struct err *e)
{
	auto_fd fd = openat(dir, f->name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0400);
	auto_talloc uint8_t *data = talloc_size(NULL, ARTIFACT_CHUNK);
	ssize_t len;
	size_t i;

	if (fd < 0 || ftruncate(fd, (off_t)f->size) < 0)
		return err_sys(e, "%s", f->name);
	for (i = 0; i < f->chunks; i++) {
		if (!f->sum[i][0])
			continue; /* zeros: a hole */
		len = chunk(p, id, f->name, i, data, e);
		if (len < 0)
			return -1;
		if (!artifact_chunk_is(f, i, data, (size_t)len))
			return err_set(e, E_TAMPERED,
			    "artifact %.64s: chunk %zu of %s is another one", id, i, f->name);
		if (write_all(fd, data, (size_t)len, (off_t)i * ARTIFACT_CHUNK, e) < 0)
			return -1;
	}
	return fsync(fd) < 0 ? err_sys(e, "%s", f->name) : 0;
}

static int
pull_files(const struct pull_env *p, const struct artifact *a, const struct http_answer *manifest,
    struct err *e)
{
	auto_talloc char *name = talloc_asprintf(NULL, "pull-%s", a->id);
	auto_fd dir = artifact_begin(p->state, name, e);
	auto_fd fd = dir < 0
	    ? -1
	    : openat(dir, "manifest.json", O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0400);
	size_t i;

	if (dir < 0)
		return -1;
	if (fd < 0 || write_all(fd, (const uint8_t *)manifest->body, manifest->len, 0, e) < 0 ||
	    fsync(fd) < 0) {
		artifact_abort(p->state, name);
		return e->code ? -1 : err_sys(e, "manifest.json");
	}
	for (i = 0; i < a->files; i++)
		if (pull_file(p, a->id, &a->file[i], dir, e) < 0) {
			artifact_abort(p->state, name);
			return -1;
		}
	if (artifact_accept(p->state, name, a->id, e) < 0) {
		artifact_abort(p->state, name);
		return -1;
	}
	return 0;
}

static int pull_template(const struct pull_env *, const char *name, struct err *);

static bool
template_here(const struct pull_env *p, const char *name)
{
	auto_talloc char *path = talloc_asprintf(NULL, "%s/%s/template.json", p->image_dir, name);

	return access(path, R_OK) == 0;
}

static int
pull_artifact(const struct pull_env *p, const char *id, int depth, struct err *e)
{
	auto_talloc char *mem = talloc_new(NULL);
	struct http_answer manifest;
	struct artifact *a;

	if (artifact_have(p->state, id))
		return 0;
	if (depth == DEPTH)
		return err_set(e, E_TAMPERED, "artifact %.64s: too many parents", id);
	if (fetch(p, mem, id, &manifest, e) < 0)
		return -1;
	a = artifact_parse(mem, id, manifest.body, manifest.len, e);
	if (!a || (a->parent && pull_artifact(p, a->parent, depth + 1, e) < 0))
		return -1;
	if (*a->template && !template_here(p, a->template) && pull_template(p, a->template, e) < 0)
		return -1;
	return pull_files(p, a, &manifest, e);
}

/* ---- templates: a folder of files that template.json names with size and SHA-256 */

static int
pull_part(const struct pull_env *p, const char *what, const char *name, struct json_object *about,
    int dir, struct err *e)
{
	auto_fd fd = openat(dir, name, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0444);
	auto_talloc uint8_t *data = talloc_size(NULL, ARTIFACT_CHUNK);
	int64_t size = json_int(about, "size", -1), at = 0;
	unsigned char sum[EVP_MAX_MD_SIZE];
	char hex[2 * EVP_MAX_MD_SIZE + 1] = "";
	EVP_MD_CTX *md = EVP_MD_CTX_new();
	unsigned n = 0, i;
	ssize_t len = 0;

	(void)EVP_DigestInit_ex(md, EVP_sha256(), NULL);
	while (fd >= 0 && at < size) {
		len = chunk(p, what, name, (size_t)(at / ARTIFACT_CHUNK), data, e);
		if (len <= 0 || write_all(fd, data, (size_t)len, at, e) < 0)
			break;
		(void)EVP_DigestUpdate(md, data, (size_t)len);
		at += len;
	}
	(void)EVP_DigestFinal_ex(md, sum, &n);
	EVP_MD_CTX_free(md);
	if (fd < 0)
		return err_sys(e, "%s/%s", what, name);
	if (e->code)
		return -1;
	for (i = 0; i < n; i++)
		snprintf(hex + 2 * i, 3, "%02x", sum[i]);
	if (at != size || strcmp(hex, json_str(about, "sha256", "")) != 0)
		return err_set(e, E_TAMPERED, "%s: %s is not what template.json says", what, name);
	/* the umask is the agent's; capsules' processes read these, each as its own user */
	return fchmod(fd, 0444) < 0 || fsync(fd) < 0 ? err_sys(e, "%s/%s", what, name) : 0;
}

/* As hutchctl computes it: of the files' part of template.json. */
static bool
digest_is(struct json_object *files, const char *want)
{
	const char *text = json_object_to_json_string_ext(files, JSON_C_TO_STRING_PLAIN);
	unsigned char sum[EVP_MAX_MD_SIZE];
	char hex[2 * EVP_MAX_MD_SIZE + 1] = "";
	unsigned n = 0, i;

	(void)EVP_Digest(text, strlen(text), sum, &n, EVP_sha256(), NULL);
	for (i = 0; i < n; i++)
		snprintf(hex + 2 * i, 3, "%02x", sum[i]);
	return strcmp(hex, want) == 0;
}

static bool
is_part(const char *name)
{
	const char *part;
	size_t i;

	for (i = 0; (part = template_file(i)); i++)
		if (strcmp(part, name) == 0)
			return true;
	return false;
}

static int
template_fill(const struct pull_env *p, const char *what, const char *path, struct err *e)
{
	auto_talloc char *mem = talloc_new(NULL);
	struct http_answer a;
	struct json_object *j, *files;
	auto_fd dir = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC), fd = -1;

	if (dir < 0)
		return err_sys(e, "%s", path);
	if (fetch(p, mem, what, &a, e) < 0 || !(j = json_parse(mem, a.body, a.len, NULL, e)))
		return -1;
	files = json_get(j, "files");
	if (!json_object_is_type(files, json_type_object) ||
	    (p->digest && !digest_is(files, p->digest)))
		return err_set(e, E_TAMPERED, "%s: not the version that was asked for", what);
	json_object_object_foreach(files, name, about)
	{
		if (!is_part(name))
			return err_set(
			    e, E_TAMPERED, "%s: a template has no file of that name", what);
		if (pull_part(p, what, name, about, dir, e) < 0)
			return -1;
	}
	fd = openat(dir, "template.json", O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0444);
	if (fd < 0 || write_all(fd, (const uint8_t *)a.body, a.len, 0, e) < 0 ||
	    fchmod(fd, 0444) < 0 || fsync(fd) < 0)
		return e->code ? -1 : err_sys(e, "template.json");
	return 0;
}

static void
folder_drop(const char *path)
{
	auto_fd dir = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	const char *part;
	size_t i;

	for (i = 0; dir >= 0 && (part = template_file(i)); i++)
		(void)unlinkat(dir, part, 0);
	if (dir >= 0)
		(void)unlinkat(dir, "template.json", 0);
	(void)rmdir(path);
}

static int
pull_template(const struct pull_env *p, const char *name, struct err *e)
{
	auto_talloc char *mem = talloc_new(NULL);
	const char *what = talloc_asprintf(mem, "templates/%s", name);
	const char *aside = talloc_asprintf(mem, "%s/.%s.pulled", p->image_dir, name);
	const char *path = talloc_asprintf(mem, "%s/%s", p->image_dir, name);

	folder_drop(aside);
	if (mkdir(aside, 0755) < 0 || chmod(aside, 0755) < 0)
		return err_sys(e, "agent.image_dir: %s", aside);
	if (template_fill(p, what, aside, e) < 0 ||
	    (rename(aside, path) < 0 && err_sys(e, "%s", path) < 0)) {
		folder_drop(aside);
		return -1;
	}
	return 0;
}

int
pull_run(const struct pull_env *p, const char *what, struct err *e)
{
	static const char templates[] = "templates/";

	if (strncmp(what, templates, strlen(templates)) != 0)
		return pull_artifact(p, what, 0, e);
	return pull_template(p, what + strlen(templates), e);
}
