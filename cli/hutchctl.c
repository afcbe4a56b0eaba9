/*
 * hutchctl.c - the administrator's program on the machine of the control plane.
 *
 * It talks to the database, not to the API: whoever may read hutch.conf and reach the database as
 * the schema's owner is the administrator. Everything it changes is audited as the system's doing.
 */
#include "ctl.h"
#include "cleanup.h"
#include "db.h"
#include "log.h"

#include <getopt.h>
#include <string.h>
#include <sys/stat.h>

static const struct ctl_command commands[] = {
	/* clang-format off */
	{ "migrate",       "[--status]", ctl_migrate, "bring the database up to date" },
	{ "secrets init",  "", ctl_secrets, "make the master secret, unless there is one" },
	{ "admin create",  "--email E [--name N] [--password-file F]", ctl_admin_create, "make a platform administrator, or make an account one" },
	{ "admin list",    "", ctl_admin_list, "show the platform administrators" },
	{ "admin promote", "--email E", ctl_admin_promote, "make an account a platform administrator" },
	{ "admin demote",  "--email E", ctl_admin_demote, "take that away; never from the last one" },
	{ "user disable",  "--email E [--reason R]", ctl_user_disable, "disable an account: logins, keys and capsules of its teams end" },
	{ "user enable",   "--email E", ctl_user_enable, "enable it again" },
	{ "user reset-mfa", "--email E", ctl_user_reset_mfa, "remove the second factors of an account and end its logins" },
	{ "key create",    "--email E [--name N] [--prefix htc|e2b|wrn]", ctl_key_create, "make an API key in the user's team and print it" },
	{ "host create",   "--name N", ctl_host_create, "announce a host and print its registration token" },
	{ "hostcheck",     "[--json]", ctl_hostcheck, "what this machine gives to keep capsules apart, and what to do; status 0, 3 (warnings), 4" },
	{ "template add",  "--name N --dir D [--team SLUG]", ctl_template_add, "register a template that images/build made" },
	{ "audit checkpoint", "", ctl_audit_checkpoint, "sign the ends of the chains that grew, as the worker does each minute" },
	{ "audit verify",  "[--checkpoints FILE] [--public-key HEX]", ctl_audit_verify, "check every team's audit log: hash chain and signed checkpoints" },
	{ 0 },
	/* clang-format on */
};

static int
usage(FILE *to, int status)
{
	const struct ctl_command *c;

	fputs("usage: hutchctl [-c FILE] COMMAND [OPTIONS]\n\n", to);
	for (c = commands; c->words; c++)
		fprintf(to, "  %-13s %s\n      %s\n", c->words, c->usage, c->doc);
	fputs("\n  -c FILE  configuration, by default " SYSCONFDIR
	      "/hutch/hutch.conf\n  -n       check the configuration and end\n"
	      "  -V       print the version\n",
	    to);
	return status;
}

/* How many of argv's words are the command's; 0: it is another one. */
static int
matches(const struct ctl_command *c, int argc, char **argv)
{
	const char *p = c->words;
	int n;

	for (n = 0; *p; n++) {
		size_t len = strcspn(p, " ");

		if (n >= argc || strlen(argv[n]) != len || memcmp(argv[n], p, len) != 0)
			return 0;
		p += len + (p[len] == ' ');
	}
	return n;
}

int
ctl_db(struct ctl *c)
{
	c->work.db = db_open(c, c->conf->db_owner_url, "hutchctl", 600000);
	return db_unit(c->work.db, c, &c->work.err);
}

const char *
ctl_option(struct ctl *c, const char *name)
{
	size_t n = strlen(name);
	int i;

	for (i = 0; i < c->argc; i++) {
		if (!c->argv[i] || strncmp(c->argv[i], "--", 2) != 0 ||
		    strncmp(c->argv[i] + 2, name, n) != 0)
			continue;
		if (c->argv[i][2 + n] == '=') {
			const char *value = c->argv[i] + 3 + n;

			c->argv[i] = NULL;
			return value;
		}
		if (!c->argv[i][2 + n]) {
			const char *value = i + 1 < c->argc && c->argv[i + 1] &&
				strncmp(c->argv[i + 1], "--", 2) != 0
			    ? c->argv[i + 1]
			    : "";

			c->argv[i] = NULL;
			if (*value)
				c->argv[i + 1] = NULL;
			return value;
		}
	}
	return NULL;
}

const char *
ctl_needed(struct ctl *c, const char *name)
{
	const char *v = ctl_option(c, name);

	if (!v || !*v) {
		err_set(&c->work.err, E_BAD_INPUT, "--%s is missing; see hutchctl --help", name);
		return NULL;
	}
	return v;
}

int
ctl_done(struct ctl *c)
{
	int i;

	for (i = 0; i < c->argc; i++)
		if (c->argv[i])
			return err_set(&c->work.err, E_BAD_INPUT,
			    "%s is not understood; see hutchctl --help", c->argv[i]);
	return 0;
}

static int
run(const struct ctl_command *cmd, const struct conf *conf, const char *file, int argc, char **argv)
{
	auto_talloc struct ctl *c = talloc_zero(NULL, struct ctl);
	int rc;

	c->conf = conf;
	c->file = file;
	c->argc = argc;
	c->argv = argv;
	c->work.actor.name = "hutchctl";
	rc = cmd->fn(c);
	if (c->work.db)
		db_unit_end(c->work.db);
	if (rc >= 0)
		return rc;
	fprintf(stderr, "hutchctl %s: %s\n", cmd->words, c->work.err.text);
	return c->work.err.code == E_CONFIG ? 78 : 1;
}

int
main(int argc, char **argv)
{
	const char *path = SYSCONFDIR "/hutch/hutch.conf";
	static const struct option longs[] = { { "help", no_argument, NULL, 'h' },
		{ "version", no_argument, NULL, 'V' }, { 0 } };
	auto_talloc char *mem = talloc_new(NULL);
	const struct ctl_command *cmd;
	const struct conf *conf;
	struct err e = { 0 };
	bool check = false;
	int opt, n;

	log_open("hutchctl", LOG_LEVEL_WARNING);
	umask(077);
	while ((opt = getopt_long(argc, argv, "+c:nVh", longs, NULL)) != -1)
		switch (opt) {
		case 'c':
			path = optarg;
			break;
		case 'n':
			check = true;
			break;
		case 'V':
			puts("hutchctl " PACKAGE_VERSION);
			return 0;
		case 'h':
			return usage(stdout, 0);
		default:
			return usage(stderr, 64);
		}
	conf = conf_load(mem, path, &e);
	if (!conf) {
		fprintf(stderr, "hutchctl: %s\n", e.text);
		return 78;
	}
	if (check)
		return 0;
	for (cmd = commands; cmd->words; cmd++) {
		n = matches(cmd, argc - optind, argv + optind);
		if (n)
			return run(cmd, conf, path, argc - optind - n, argv + optind + n);
	}
	return usage(stderr, 64);
}
