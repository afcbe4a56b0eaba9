/*
 * main.c - hutch-api: the REST API, as a pool of FastCGI processes.
 *
 * One binary is master (-m N) and worker. The listening socket is descriptor 0 (systemd,
 * spawn-fcgi, lighttpd), or --listen PATH makes it.
 */
#include "agent.h"
#include "pool.h"
#include "print.h"
#include "cleanup.h"
#include "request.h"
#include "key_use.h"
#include "log.h"

#include <getopt.h>
#include <limits.h>
#include <malloc.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <talloc.h>
#include <unistd.h>

static const char usage[] =
    "usage: hutch-api [-c FILE] [-p api|ops] [-m N] [--listen PATH]\n"
    "       hutch-api -n [-c FILE]\n"
    "       hutch-api -T routes|paths|lighttpd|apache|errors|conf|man\n"
    "\n"
    "  -c FILE         configuration, by default " SYSCONFDIR "/hutch/hutch.conf\n"
    "  -p POOL         which pool this is: api (default), or ops, which may wait for hosts\n"
    "  -m N            be the master of N processes; 0: as many as the configuration says\n"
    "  --listen PATH   make this unix socket instead of using descriptor 0\n"
    "  -n              check the configuration and end\n"
    "  -T TOPIC        print a table of the program\n"
    "  -V              print the version\n"
    "\n"
    "Signals to the master: HUP reloads without losing a request, TERM ends.\n";

enum { REQUEST_POOL = 65536 };

struct options {
	const char *conf, *pool, *listen, *topic;
	int processes; /* -1: no master */
	bool check;
};

static void
parse(int argc, char **argv, struct options *o)
{
	static const struct option longs[] = { { "listen", required_argument, NULL, 'l' },
		{ "help", no_argument, NULL, 'h' }, { "version", no_argument, NULL, 'V' }, { 0 } };
	int c;

	while ((c = getopt_long(argc, argv, "c:p:m:T:nVh", longs, NULL)) != -1)
		switch (c) {
		case 'c':
			o->conf = optarg;
			break;
		case 'p':
			o->pool = optarg;
			break;
		case 'm':
			o->processes = (int)strtol(optarg, NULL, 10);
			break;
		case 'l':
			o->listen = optarg;
			break;
		case 'T':
			o->topic = optarg;
			break;
		case 'n':
			o->check = true;
			break;
		case 'V':
			puts("hutch-api " PACKAGE_VERSION);
			exit(0);
		case 'h':
			fputs(usage, stdout);
			exit(0);
		default:
			fputs(usage, stderr);
			exit(64);
		}
	if (optind < argc || (strcmp(o->pool, "api") != 0 && strcmp(o->pool, "ops") != 0)) {
		fputs(usage, stderr);
		exit(64);
	}
}

static int
pool_size(const struct conf *c, const struct options *o)
{
	int64_t n = strcmp(o->pool, "ops") == 0 ? c->api_ops_processes : c->api_processes;
	long cores = sysconf(_SC_NPROCESSORS_ONLN);

	if (o->processes > 0)
		return o->processes;
	return n ? n : 4 * cores > 8 ? 4 * cores : 8;
}

static int
be_master(const struct conf *c, const struct options *o, const char *self)
{
	char *argv[] = { (char *)self, "-c", (char *)o->conf, "-p", (char *)o->pool, NULL };
	char *check[] = { (char *)self, "-n", "-c", (char *)o->conf, NULL };

	return master_run(pool_size(c, o), argv, check);
}

/* The table that answers show permissions from is this program's, or an administrator is told. */
static void
same_permissions(struct db *db)
{
	struct work *w = talloc_zero(NULL, struct work);

	w->db = db;
	if (db_unit(db, w, &w->err) < 0 || permissions_compare(w) < 0)
		log_error(NULL, "%s%s", w->err.text,
		    w->err.code == E_CONFIG ? ": run hutchctl migrate" : "");
	db_unit_end(db);
	talloc_free(w);
}

static int
be_worker(const struct conf *c, const struct keys *keys, const struct options *o)
{
	struct app app = { .conf = c, .keys = keys, .pool = o->pool };
	auto_talloc void *mem = talloc_named_const(NULL, 0, "process");
	char name[32];

	snprintf(name, sizeof name, "hutch-%s", o->pool);
	app.db = db_open(mem, c->db_url, name, c->db_statement_timeout_ms);
	app.db_work = db_open(mem, c->db_work_url, name, c->db_statement_timeout_ms);
	app.queue = queue_open(mem, c);
	same_permissions(app.db);
	app.tokens = token_seen_new(mem);
	app.key_use = key_use_new(mem);
	app.memory = talloc_pool(mem, REQUEST_POOL);
	/* With fast bins every larger allocation (libfcgi's streams) first tidies them all up. */
	mallopt(M_MXFAST, 0);
	return worker_run(&app);
}

static int
config_error(const struct err *e)
{
	fprintf(stderr, "hutch-api: %s\n", e->text);
	return 78; /* EX_CONFIG */
}

int
main(int argc, char **argv)
{
	struct options o = {
		.conf = SYSCONFDIR "/hutch/hutch.conf", .pool = "api", .processes = -1
	};
	char self[PATH_MAX] = "";
	const struct keys *keys;
	const struct conf *c;
	struct err e = { 0 };
	int fd, rc;

	parse(argc, argv, &o);
	if (o.topic) {
		if (print_topic(o.topic))
			return 0;
		fprintf(stderr, "hutch-api: no topic \"%s\"\n", o.topic);
		return 64;
	}
	umask(077);
	c = conf_load(NULL, o.conf, &e);
	keys = c ? keys_load(NULL, c, &e) : NULL;
	if (!keys)
		return config_error(&e);
	agent_keys(keys);
	if (o.check)
		return 0;
	log_open(strcmp(o.pool, "ops") == 0 ? "ops" : "api", LOG_LEVEL_INFO);
	if (o.listen) {
		fd = pool_listen(o.listen, &e);
		if (fd < 0)
			return config_error(&e);
		dup2(fd, 0);
		close(fd);
	}
	if (o.processes < 0)
		rc = be_worker(c, keys, &o);
	else if (readlink("/proc/self/exe", self, sizeof self - 1) < 0)
		rc = 71; /* EX_OSERR */
	else
		rc = be_master(c, &o, self);
	talloc_free((void *)c);
	return rc;
}
