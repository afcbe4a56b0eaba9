/* ctl_people.c - hutchctl admin and key: the first accounts of an installation. */
#include "ctl.h"
#include "audit.h"
#include "cleanup.h"
#include "field.h"
#include "keys.q.h"
#include "password.h"
#include "people.q.h"
#include "principal.h"
#include "teams.q.h"
#include "token.h"
#include "users.q.h"

#include <ctype.h>
#include <fcntl.h>
#include <string.h>

static const char *
address(struct ctl *c)
{
	const char *given = ctl_needed(c, "email");
	char *s, *p;

	if (!given)
		return NULL;
	s = talloc_strdup(c, given);
	for (p = s; *p; p++)
		*p = tolower((unsigned char)*p);
	if (format_ok("email", s))
		return s;
	err_set(&c->work.err, E_BAD_INPUT, "%s is not an e-mail address", given);
	return NULL;
}

static const char *
first_line(struct ctl *c, const char *path)
{
	auto_fd fd = open(path, O_RDONLY | O_CLOEXEC);
	char text[2048];
	ssize_t n = fd < 0 ? -1 : read(fd, text, sizeof text - 1);

	if (n < 0) {
		err_sys(&c->work.err, "%s", path);
		return NULL;
	}
	text[n] = '\0';
	text[strcspn(text, "\r\n")] = '\0';
	return talloc_strdup(c, text);
}

static const char *
usr(struct ctl *c, const struct uuid *id)
{
	return id_text(c, "usr-", id);
}

static int
add_team(struct ctl *c, const struct uuid *user)
{
	struct uuid id = uuid_new();
	uint8_t random[6];
	char hex[13];

	crypto_random(random, sizeof random);
	hex_write(hex, random, sizeof random);
	if (q_team_insert(c->work.db, .id = &id, .name = "Administrators", .user = user,
		.slug = talloc_asprintf(c, "%.6s-%s", hex, hex + 6)) < 0 ||
	    q_member_insert(c->work.db, .team = &id, .user = user, .role = "owner",
		.is_default = true, .source = "created") < 0)
		return -1;
	return audit_add(&c->work, AUDIT_TEAM_CREATE,
	    &(struct audit){ .team = &id,
		.resource_id = id_text(c, "team-", &id),
		.metadata = "{\"name\":\"Administrators\"}" });
}

static int
make_user(struct ctl *c, const char *email, const char *name, const char *hash)
{
	struct uuid id = uuid_new();
	uint8_t handle[64];

	crypto_random(handle, sizeof handle);
	if (q_user_insert(c->work.db, .id = &id, .source = "cli", .email = email, .name = name,
		.status = "active", .platform_role = "admin", .password_hash = hash,
		.handle = { handle, sizeof handle }) < 0 ||
	    add_team(c, &id) < 0)
		return -1;
	return audit_add(&c->work, AUDIT_USER_CREATE,
	    &(struct audit){ .resource_id = usr(c, &id),
		.subject = &id,
		.metadata = "{\"platform_role\":\"admin\",\"via\":\"hutchctl\"}" });
}

static int
promote(struct ctl *c, const struct q_user *u, const char *hash)
{
	if (strcmp(u->status, "active") != 0)
		return err_set(
		    &c->work.err, E_BAD_STATE, "the account %s is %s", u->email, u->status);
	if (hash && q_user_set_password(c->work.db, .id = u->id, .password_hash = hash) < 0)
		return -1;
	if (strcmp(u->platform_role, "admin") == 0)
		return 0;
	if (q_user_make_admin(c->work.db, .id = u->id, .platform_role = "admin") < 0)
		return -1;
	return audit_add(&c->work, AUDIT_USER_ROLE_UPDATE,
	    &(struct audit){ .resource_id = usr(c, u->id),
		.subject = u->id,
		.metadata = "{\"old\":\"user\",\"new\":\"admin\",\"via\":\"hutchctl\"}" });
}

int
ctl_admin_create(struct ctl *c)
{
	const char *email = address(c), *name, *file, *password, *hash = NULL;
	struct q_user *u;
	int n;

	name = ctl_option(c, "name");
	file = ctl_option(c, "password-file");
	if (!email || ctl_done(c) < 0)
		return -1;
	if (file) {
		password = first_line(c, file);
		if (!password ||
		    password_check(password,
			&(struct password_rules){ .least = c->conf->auth_password_min,
			    .email = email,
			    .name = name,
			    .url = c->conf->http_public_url,
			    .blocklist = c->conf->auth_blocklist },
			&c->work.err) < 0)
			return -1;
		hash = password_hash(c, password, c->conf->auth_hash_cost, &c->work.err);
		if (!hash)
			return -1;
	}
	if (ctl_db(c) < 0)
		return -1;
	db_begin(c->work.db);
	n = q_user_by_email_lock(c->work.db, &u, .email = email);
	if (n < 0 ||
	    (n == 0 ? make_user(c, email, name ? name : "Administrator", hash)
		    : promote(c, u, hash)) < 0)
		return -1;
	if (q_platform_bootstrap(c->work.db) < 0 || db_commit(c->work.db) < 0)
		return -1;
	printf("%s is a platform administrator\n", email);
	return 0;
}

int
ctl_admin_list(struct ctl *c)
{
	struct q_admin *a;
	int n, i;

	if (ctl_done(c) < 0 || ctl_db(c) < 0)
		return -1;
	n = q_admin_list(c->work.db, &a);
	for (i = 0; i < n; i++)
		printf("%s\t%s\t%s\t%s\n", usr(c, a[i].id), a[i].email, a[i].status, a[i].name);
	return n < 0 ? -1 : 0;
}

static const char *const *
data_plane(struct ctl *c, const char *role)
{
	const char **list = talloc_zero_array(c, const char *, PERM__MAX);
	enum perm p;
	bool own;
	char *name, *s;
	int n = 0;

	for (p = HOST_TOKEN + 1; p < PERM__MAX; p++)
		if (perm_kinds[p].scope == KEY_DATA && role_holds(role, p, &own)) {
			name = talloc_strdup(list, perm_kinds[p].name);
			for (s = name; *s; s++)
				*s = *s == '_' ? '.' : *s;
			list[n++] = name;
		}
	return list;
}

int
ctl_key_create(struct ctl *c)
{
	const char *email = address(c), *name, *prefix, *key;
	struct q_membership *m;
	struct uuid id = uuid_new();
	uint8_t hash[HASH_SIZE];
	struct q_user *u;
	char word[8];
	int n;

	name = ctl_option(c, "name");
	prefix = ctl_option(c, "prefix");
	if (!email || ctl_done(c) < 0 || ctl_db(c) < 0)
		return -1;
	snprintf(word, sizeof word, "%s", prefix ? prefix : "htc");
	word[strcspn(word, "_")] = '\0';
	if (strcmp(word, "htc") != 0 && strcmp(word, "e2b") != 0 && strcmp(word, "wrn") != 0)
		return err_set(&c->work.err, E_BAD_INPUT, "--prefix is none of htc, e2b, wrn");
	db_begin(c->work.db);
	n = q_user_by_email_lock(c->work.db, &u, .email = email);
	if (n < 0)
		return -1;
	n = n ? q_team_for_token(c->work.db, &m, .user = u->id, .asked = NULL) : 0;
	if (n <= 0)
		return n < 0
		    ? -1
		    : err_set(&c->work.err, E_NOT_FOUND, "no account %s with a team", email);
	key = apikey_new(c, word);
	(void)apikey_hash(key, hash);
	if (q_key_insert(c->work.db, .id = &id, .team = m->team_id, .kind = "personal",
		.user = u->id, .name = name ? name : "hutchctl", .description = "",
		.hash = { hash, sizeof hash }, .prefix = talloc_strndup(c, key, strlen(word) + 7),
		.scopes = data_plane(c, m->role), .expires_at = NULL_INT) < 0 ||
	    audit_add(&c->work, AUDIT_API_KEY_CREATE,
		&(struct audit){ .team = m->team_id,
		    .resource_id = id_text(c, "key-", &id),
		    .subject = u->id,
		    .metadata = "{\"via\":\"hutchctl\"}" }) < 0 ||
	    db_commit(c->work.db) < 0)
		return -1;
	puts(key);
	return 0;
}
