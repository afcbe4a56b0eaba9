/* certs.c - see certs.h. */
#include "certs.h"
#include "api.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>

enum { PEM_MAX = 32768 };

struct certs {
	struct tls_self self;   /* cert NULL: none yet */
	struct tls_ctx *server; /* of that */
};

static const char *
file_read(void *mem, int dir, const char *name)
{
	auto_fd fd = openat(dir, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	char *text = talloc_zero_size(mem, PEM_MAX);
	ssize_t n = fd < 0 ? -1 : read(fd, text, PEM_MAX - 1);

	return n > 0 ? text : NULL;
}

static int
file_write(int dir, const char *name, const char *text, struct err *e)
{
	static const char aside[] = "certs.new";
	auto_fd fd =
	    openat(dir, aside, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
	ssize_t n = (ssize_t)strlen(text);

	if (fd < 0 || write(fd, text, n) != n || fsync(fd) < 0 ||
	    renameat(dir, aside, dir, name) < 0)
		return err_sys(e, "%s", name);
	return 0;
}

/* What was signed, if it is of our key. */
static int
use(struct agent *a, const char *cert, const char *ca, struct err *e)
{
	struct certs *c = a->certs;
	struct tls_self self = { cert, c->self.key, ca };
	struct tls_ctx *ctx = tls_server(c, &self, e);

	if (!ctx)
		return -1;
	/* connections that are open have taken what they need of the one before */
	TALLOC_FREE(c->server);
	c->server = ctx;
	c->self.cert = talloc_strdup(c, cert);
	c->self.ca = talloc_strdup(c, ca);
	return 0;
}

int
certs_open(struct agent *a, struct err *e)
{
	struct certs *c = talloc_zero(a, struct certs);
	const char *cert, *ca;
	struct err ignored = { 0 };

	a->certs = c;
	if (!*a->conf->agent_listen)
		return 0;
	c->self.key = file_read(c, a->state_fd, "host.key");
	if (!c->self.key) {
		c->self.key = tls_key_make(c);
		if (file_write(a->state_fd, "host.key", c->self.key, e) < 0)
			return -1;
	}
	cert = file_read(c, a->state_fd, "host.crt");
	ca = file_read(c, a->state_fd, "ca.crt");
	if (cert && ca && use(a, cert, ca, &ignored) < 0)
		log_warn(NULL, "host.crt: %s", ignored.text);
	return 0;
}

const char *
certs_request(struct agent *a, void *mem)
{
	struct err e = { 0 };
	const char *text = a->certs->self.key ? tls_csr_make(mem, a->certs->self.key, &e) : NULL;

	if (e.code)
		log_error(NULL, "host.key: %s", e.text);
	return text;
}

void
certs_take(struct agent *a, const char *cert, const char *ca)
{
	struct err e = { 0 };

	if (!*cert || !*ca || !a->certs->self.key)
		return;
	if (use(a, cert, ca, &e) < 0 || file_write(a->state_fd, "host.crt", cert, &e) < 0 ||
	    file_write(a->state_fd, "ca.crt", ca, &e) < 0 || api_listen(a, &e) < 0)
		log_error(NULL, "certificate: %s", e.text);
}

const struct tls_self *
certs_self(const struct agent *a)
{
	return a->certs->self.cert ? &a->certs->self : NULL;
}

struct tls_ctx *
certs_server(const struct agent *a)
{
	return a->certs->server;
}

const char *
certs_address(const struct agent *a, void *mem)
{
	const struct conf *k = a->conf;

	if (*k->agent_address)
		return k->agent_address;
	return *k->agent_listen ? talloc_asprintf(mem, "https://%s", k->agent_listen)
				: talloc_asprintf(mem, "unix:%s", k->agent_socket);
}

void
certs_wipe(struct agent *a)
{
	static const char *const names[] = { "host.key", "host.crt", "ca.crt" };
	size_t i;

	for (i = 0; i < nitems(names); i++)
		(void)unlinkat(a->state_fd, names[i], 0);
}
