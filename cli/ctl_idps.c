/* ctl_idps.c - the identity providers that hutch.conf names become rows (spec 01 §2.3). */
#include "buf.h"
#include "cleanup.h"
#include "ctl.h"
#include "idps.q.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>

struct configured {
	const char *slug, *type, *name, *client_id, *secret_file, *issuer;
};

static const char *
read_secret(struct ctl *c, const char *path)
{
	char text[1025];
	auto_fd fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t n = fd < 0 ? -1 : read(fd, text, sizeof text - 1);

	if (n < 0) {
		(void)err_sys(&c->work.err, "secret %s", path);
		return NULL;
	}
	text[n] = '\0';
	text[strcspn(text, "\r\n")] = '\0';
	return talloc_strdup(c, text);
}

static int
configure(struct ctl *c, const struct keys *keys, const struct configured *p)
{
	struct uuid fresh = uuid_new();
	const struct uuid *id = &fresh;
	struct q_idp_id *have;
	struct buf config = BUF(c);
	struct bytes sealed = { 0 };
	const char *secret;
	int n = q_idp_of_slug(c->work.db, &have, .slug = p->slug);

	if (n < 0)
		return -1;
	if (n > 0)
		id = have->id;
	if (*p->secret_file) {
		secret = read_secret(c, p->secret_file);
		if (!secret)
			return -1;
		sealed = envelope_seal(c, keys->key[KEY_IDP],
		    talloc_asprintf(c, "identity_providers|secret_enc|%s", id_text(c, "", id)),
		    secret, strlen(secret));
	}
	buf_str(&config, "{\"client_id\":");
	buf_json(&config, p->client_id);
	if (p->issuer) {
		buf_str(&config, ",\"issuer\":");
		buf_json(&config, p->issuer);
	}
	buf_chr(&config, '}');
	return q_idp_configure(c->work.db, .id = id, .slug = p->slug, .type = p->type,
	    .name = p->name, .config = config.data, .secret = sealed);
}

int
ctl_seed_idps(struct ctl *c)
{
	const struct conf *f = c->conf;
	const struct configured all[] = {
		{ "github", "github", "GitHub", f->oauth_github_client_id,
		    f->oauth_github_client_secret_file, NULL },
		{ "oidc", "oidc", f->oauth_oidc_name,
		    *f->oauth_oidc_issuer ? f->oauth_oidc_client_id : "",
		    f->oauth_oidc_client_secret_file, f->oauth_oidc_issuer },
	};
	const char *slugs[3] = { NULL };
	const struct keys *keys = NULL;
	size_t i, n = 0;

	for (i = 0; i < nitems(all); i++) {
		if (!*all[i].client_id)
			continue;
		if (!keys && !(keys = keys_load(c, f, &c->work.err)))
			return -1;
		if (configure(c, keys, &all[i]) < 0)
			return -1;
		slugs[n++] = all[i].slug;
	}
	return q_idp_unconfigure(c->work.db, .slugs = slugs) < 0 ? -1 : 0;
}
