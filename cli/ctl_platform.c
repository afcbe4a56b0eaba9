/* ctl_platform.c - hutchctl secrets, host, template. */
#include "ctl.h"
#include "audit.h"
#include "cleanup.h"
#include "hosts.q.h"
#include "json.h"
#include "teams.q.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

int
ctl_secrets(struct ctl *c)
{
	const char *path = c->conf->secrets_master_file;
	uint8_t secret[KEY_SIZE];
	char text[2 * KEY_SIZE + 2];
	auto_fd fd = -1;

	if (ctl_done(c) < 0)
		return -1;
	fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (fd < 0 && errno == EEXIST) {
		printf("%s exists\n", path);
		return 0;
	}
	if (fd < 0)
		return err_sys(&c->work.err, "%s", path);
	crypto_random(secret, sizeof secret);
	hex_write(text, secret, sizeof secret);
	text[2 * KEY_SIZE] = '\n';
	if (write(fd, text, 2 * KEY_SIZE + 1) != 2 * KEY_SIZE + 1 || fsync(fd) < 0) {
		(void)unlink(path);
		return err_sys(&c->work.err, "%s", path);
	}
	printf("made %s: keep a copy of it in a safe place\n", path);
	return 0;
}

int
ctl_host_create(struct ctl *c)
{
	const char *name = ctl_needed(c, "name"), *token;
	struct uuid id = uuid_new(), tid = uuid_new();
	uint8_t raw[32], hash[HASH_SIZE];

	if (!name || ctl_done(c) < 0 || ctl_db(c) < 0)
		return -1;
	crypto_random(raw, sizeof raw);
	token = base64url_write(c, raw, sizeof raw);
	crypto_sha256(token, strlen(token), hash);
	db_begin(c->work.db);
	if (q_host_insert(c->work.db, .id = &id, .name = name, .provider = "", .zone = "",
		.user = NULL) < 0 ||
	    q_host_token_insert(c->work.db, .id = &tid, .host = &id, .hash = { hash, sizeof hash },
		.user = NULL) < 0 ||
	    audit_add(&c->work, AUDIT_HOST_CREATE,
		&(struct audit){ .resource_id = id_text(c, "host-", &id),
		    .metadata = "{\"type\":\"regular\",\"via\":\"hutchctl\"}" }) < 0 ||
	    db_commit(c->work.db) < 0)
		return -1;
	puts(token);
	return 0;
}

static struct json_object *
read_json(struct ctl *c, const char *path)
{
	auto_fd fd = open(path, O_RDONLY | O_CLOEXEC);
	struct buf b = BUF(c);
	char part[4096];
	ssize_t n;

	if (fd < 0) {
		err_sys(&c->work.err, "%s", path);
		return NULL;
	}
	while ((n = read(fd, part, sizeof part)) > 0)
		buf_add(&b, part, n);
	return json_parse(c, b.data ? b.data : "", b.len, NULL, &c->work.err);
}

/* The digest of a version: of all its files' digests, in the order of template.json. */
static const char *
version_digest(struct ctl *c, struct json_object *t)
{
	const char *text =
	    json_object_to_json_string_ext(json_get(t, "files"), JSON_C_TO_STRING_PLAIN);
	uint8_t h[HASH_SIZE];

	crypto_sha256(text, strlen(text), h);
	return hex_write(talloc_array(c, char, 2 * HASH_SIZE + 1), h, sizeof h);
}

static int64_t
total_size(struct json_object *files)
{
	int64_t sum = 0;

	if (!json_object_is_type(files, json_type_object))
		return 0;
	json_object_object_foreach(files, name, file)
	{
		(void)name;
		sum += json_int(file, "size", 0);
	}
	return sum;
}

/* Whose it will be; he alone has the name. NULL: err is set. */
static const struct uuid *
template_team(struct ctl *c, const char *slug, const char *name)
{
	struct q_name_holder *other;
	struct q_waited *alone;
	struct q_host_ref *team;
	int n;

	if (q_one_at_a_time(c->work.db, &alone, .word = "templates") < 0)
		return NULL;
	n = q_template_team(c->work.db, &team, .slug = slug);
	if (n == 0)
		err_set(&c->work.err, E_NOT_FOUND, "there is no team %s", slug);
	if (n <= 0)
		return NULL;
	n = q_template_holder(c->work.db, &other, .team = team->id, .name = name);
	if (n > 0)
		err_set(&c->work.err, E_CONFLICT, "%s is the name of %s", name, other->what);
	return n == 0 ? team->id : NULL;
}

int
ctl_template_add(struct ctl *c)
{
	const char *name = ctl_needed(c, "name"), *dir = ctl_needed(c, "dir"), *digest;
	const char *slug = ctl_option(c, "team");
	const struct uuid *team;
	struct uuid id = uuid_new();
	struct q_host_ref *ref;
	struct q_version *v;
	struct json_object *t;
	int n;

	if (!name || !dir || ctl_done(c) < 0)
		return -1;
	t = read_json(c, talloc_asprintf(c, "%s/template.json", dir));
	if (!t || ctl_db(c) < 0)
		return -1;
	digest = version_digest(c, t);
	db_begin(c->work.db);
	team = template_team(c, slug ? slug : "platform", name);
	if (!team ||
	    q_template_upsert(c->work.db, &ref, .id = &id, .team = team, .name = name,
		.description = json_str(t, "description", "")) < 0)
		return -1;
	n = q_template_current(c->work.db, &v, .id = ref->id);
	if (n < 0)
		return -1;
	if (n > 0 && strcmp(v->digest, digest) == 0) {
		printf("template %s: version %d is current\n", name, v->version);
		return db_commit(c->work.db);
	}
	if (q_template_version_add(c->work.db, .id = ref->id, .digest = digest,
		.size_bytes = total_size(json_get(t, "files")),
		.disk_size_mb = (int32_t)json_int(t, "disk_mb", 1024),
		.user = json_str(t, "user", "root"), .workdir = json_str(t, "workdir", "/root"),
		.kernel = json_str(t, "kernel", "")) < 0 ||
	    db_commit(c->work.db) < 0)
		return -1;
	printf("template %s: a new version\n", name);
	return 0;
}
