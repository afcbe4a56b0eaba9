/*
 * main.c - hutch-agent: the capsules of one machine, as QEMU microVMs, behind a small control API.
 *
 * One process, one loop, and the launcher (priv.c) beside it. It may be killed at any moment: the
 * VMs run on, the next one adopts them.
 */
#include "accel.h"
#include "adopt.h"
#include "agent.h"
#include "api.h"
#include "capsule.h"
#include "capsule_shutdown.h"
#include "certs.h"
#include "control.h"
#include "hung.h"
#include "identity.h"
#include "image.h"
#include "idle.h"
#include "journal.h"
#include "load.h"
#include "net.h"
#include "own_log.h"
#include "posture.h"
#include "metrics.h"
#include "priv.h"
#include "qemu.h"
#include "scaling.h"
#include "vm.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <pwd.h>
#include <signal.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>

enum { UPKEEP_MS = 15000, LOG_MAX = 1 << 20 };

#ifdef DEV_BUILD
void
crash_point(const char *name)
{
	const char *at = getenv("HUTCH_CRASH_AT");

	if (at && strcmp(at, name) == 0) {
		log_error(NULL, "crash point %s", name);
		(void)kill(getpid(), SIGKILL);
	}
}
#endif

/* A line of a small file of /proc or of the state directory. */
static int
read_line(int dir, const char *path, char *ret, size_t len)
{
	auto_fd fd = openat(dir, path, O_RDONLY | O_CLOEXEC);
	ssize_t n = fd < 0 ? -1 : read(fd, ret, len - 1);

	if (n <= 0)
		return -1;
	ret[n] = '\0';
	ret[strcspn(ret, "\n")] = '\0';
	return 0;
}

/* mkdir -p, and the folder belongs to the agent's account. */
static int
make_dir(const char *path, const char *user, struct err *e)
{
	char text[512], *p;
	const struct passwd *pw = *user ? getpwnam(user) : NULL;

	if ((size_t)snprintf(text, sizeof text, "%s", path) >= sizeof text)
		return err_set(e, E_CONFIG, "the path %.60s… is too long", path);
	for (p = text + 1; (p = strchr(p, '/')); p++) {
		*p = '\0';
		(void)mkdir(text, 0755);
		*p = '/';
	}
	if (mkdir(text, 0700) < 0 && errno != EEXIST)
		return err_sys(e, "%s", path);
	if (pw && geteuid() == 0 && chown(text, pw->pw_uid, pw->pw_gid) < 0)
		return err_sys(e, "%s", path);
	return 0;
}

/* Ours alone, with its folders and its name. */
static int
state_open(struct agent *a, struct err *e)
{
	auto_fd name = -1;
	int lock;

	a->state_fd = open(a->conf->agent_state_dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (a->state_fd < 0)
		return err_sys(e, "%s", a->conf->agent_state_dir);
	lock = openat(a->state_fd, "lock", O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	if (lock < 0 || flock(lock, LOCK_EX | LOCK_NB) < 0)
		return err_set(e, E_CONFLICT, "another agent uses %s", a->conf->agent_state_dir);
	if (ftruncate(lock, 0) < 0 || dprintf(lock, "%d\n", (int)getpid()) < 0)
		return err_sys(e, "lock");
	(void)mkdirat(a->state_fd, "vm", 0700);
	(void)mkdirat(a->state_fd, "memory", 0700);
	(void)mkdirat(a->state_fd, "artifacts", 0700);
	if (read_line(a->state_fd, "instance", a->instance, sizeof a->instance) == 0)
		return 0;
	a->fresh = true;
	random_hex(a->instance, 8);
	name = openat(a->state_fd, "instance", O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	if (name < 0 || write(name, a->instance, strlen(a->instance)) < 0 || fsync(name) < 0)
		return err_sys(e, "instance");
	return 0;
}

/* Looked at while we are root; the launcher inherits it. The control groups are named by the state
   directory, so that the next agent finds them. */
static int
posture_start(struct agent *a, struct err *e)
{
	struct posture *p = talloc_zero(a, struct posture);
	char group[32];
	struct stat s;

	if (stat(a->conf->agent_state_dir, &s) < 0)
		return err_sys(e, "%s", a->conf->agent_state_dir);
	snprintf(
	    group, sizeof group, "hutch-%lx-%lx", (unsigned long)s.st_dev, (unsigned long)s.st_ino);
	posture_look(a->conf, group, true, p);
	a->posture = p;
	return 0;
}

/* What nobody waits for: pools, failed images, logs that grew, folders that were left. */
static void
upkeep(void *arg)
{
	struct agent *a = arg;
	struct vm *vm;
	struct stat s;

	scaling_hold(a);
	pool_fill(a);
	adopt_sweep(a);
	capsule_upkeep(a);
	priv_sweep(a->priv);
	net_sweep(a);
	journal_compact(a->journal);
	idle_save(a);
	TAILQ_FOREACH(vm, &a->vms, link)
	{
		auto_fd fd = vm->dir < 0 ? -1 : openat(vm->dir, "log", O_WRONLY | O_CLOEXEC);

		/* QEMU appends, so a cut file begins anew */
		if (fd >= 0 && fstat(fd, &s) == 0 && s.st_size > LOG_MAX)
			(void)!ftruncate(fd, 0);
	}
}

static void
quit(struct agent *a, const struct err *e)
{
	log_error(NULL, "%s", e->text);
	fprintf(stderr, "hutch-agent: %s\n", e->text);
	(void)a;
	exit(1);
}

static void
serve(struct agent *a)
{
	struct err e = { 0 };

	scaling_open(a);
	if (certs_open(a, &e) < 0 || api_start(a, &e) < 0 || api_listen(a, &e) < 0 ||
	    control_start(a, &e) < 0)
		quit(a, &e);
	image_load_all(a);
	scaling_hold(a);
	idle_load(a);
	metrics_start(a);
	load_start(a);
	hung_start(a);
	shutdown_over(a);
	a->upkeep = timer_new(a, a->loop, UPKEEP_MS, UPKEEP_MS, upkeep, a);
	log_info(NULL, "ready on %s: %s, QEMU %s", a->conf->agent_socket, accel_name(a->accel),
	    a->qemu_version);
}

static void
chosen(struct agent *a)
{
	struct err e = { 0 };

	if (adopt_start(a, serve, &e) < 0)
		quit(a, &e);
}

static void
ends(struct agent *a)
{
	a->stopping = true;
	(void)unlink(a->conf->agent_socket);
	uv_stop(a->loop);
}

/* The capsules stay: an agent that stops is one that will be started again. Clones of the pool go.
 */
static void
on_signal(uv_signal_t *s, int number)
{
	struct agent *a = s->data;
	struct image *i;

	log_info(NULL, "signal %d: ends; capsules %s", number,
	    number == SIGPWR ? "sleep before" : "run on");
	idle_save(a);
	TAILQ_FOREACH(i, &a->images, link)
	pool_drop(i);
	if (number == SIGPWR)
		shutdown_begin(a, ends);
	else
		ends(a);
}

/* talloc found a pointer that is none: it would abort without a word. */
static void
on_talloc_abort(const char *why)
{
	log_error(NULL, "talloc: %s", why);
	abort();
}

static int
run(const struct conf *conf)
{
	struct agent *a = talloc_zero(NULL, struct agent);
	static const int numbers[] = { SIGTERM, SIGINT, SIGPWR };
	uv_signal_t signals[nitems(numbers)];
	struct err e = { 0 };
	size_t i;

	talloc_set_abort_fn(on_talloc_abort);
	a->conf = conf;
	TAILQ_INIT(&a->vms);
	TAILQ_INIT(&a->capsules);
	TAILQ_INIT(&a->templates);
	TAILQ_INIT(&a->images);
	TAILQ_INIT(&a->flats);
	(void)umask(077);
	(void)signal(SIGPIPE, SIG_IGN);
	/* before threads, descriptors and locks: the launcher inherits nothing */
	if (make_dir(conf->agent_state_dir, conf->agent_user, &e) < 0 || posture_start(a, &e) < 0 ||
	    !(a->priv = priv_start(a, conf, a->posture, &e)) || state_open(a, &e) < 0 ||
	    qemu_version(conf->agent_qemu, a->qemu_version, sizeof a->qemu_version, &e) < 0)
		quit(a, &e);
	own_log_open(a);
	/* a call to the control plane and a few images must not keep the journal waiting */
	(void)setenv("UV_THREADPOOL_SIZE", "8", 0);
	a->loop = uv_default_loop();
	a->cores = (int)sysconf(_SC_NPROCESSORS_ONLN);
	a->tsc_khz = tsc_khz();
	(void)read_line(AT_FDCWD, "/proc/sys/kernel/random/boot_id", a->boot_id, sizeof a->boot_id);
	priv_watch(a->priv, a->loop, vm_exited, a);
	if (net_start(a, &e) < 0)
		quit(a, &e);
	for (i = 0; i < nitems(numbers); i++) {
		(void)uv_signal_init(a->loop, &signals[i]);
		signals[i].data = a;
		(void)uv_signal_start(&signals[i], on_signal, numbers[i]);
	}
	accel_choose(a, chosen);
	(void)uv_run(a->loop, UV_RUN_DEFAULT);
	if (background_open())
		_exit(0); /* threads still work for nobody; what they write is made to be cut off
		             anywhere */
	return 0;
}

static void
usage(FILE *f)
{
	fputs("usage: hutch-agent [-nHJSV] [-c FILE] [-T states]\n"
	      "  -c FILE    the configuration (hutch.conf)\n"
	      "  -n         check the configuration, then end\n"
	      "  -H         what this machine gives to keep capsules apart: status 0, 3 "
	      "(warnings), 4\n"
	      "  -J         the same as JSON\n"
	      "  -S         the machine goes down: lets the agent put all capsules to sleep on "
	      "disk, and\n"
	      "             waits until it has ended\n"
	      "  -T states  print the capsules' states as a graph (dot)\n"
	      "  -V         print the version\n",
	    f);
}

int
main(int argc, char **argv)
{
	static const struct option long_options[] = { { "help", no_argument, NULL, 'h' },
		{ "version", no_argument, NULL, 'V' }, { 0 } };
	const char *file = NULL, *table = NULL;
	const struct conf *conf;
	struct err e = { 0 };
	bool check = false, down = false;
	int c, look = 0;

	while ((c = getopt_long(argc, argv, "c:nHJSVT:h", long_options, NULL)) != -1)
		switch (c) {
		case 'c':
			file = optarg;
			break;
		case 'n':
			check = true;
			break;
		case 'S':
			down = true;
			break;
		case 'H':
		case 'J':
			look = c;
			break;
		case 'T':
			table = optarg;
			break;
		case 'V':
			puts("hutch-agent " PACKAGE_VERSION);
			return 0;
		case 'h':
			usage(stdout);
			return 0;
		default:
			usage(stderr);
			return 2;
		}
	log_open("agent", LOG_LEVEL_INFO);
	if (table && strcmp(table, "states") == 0) {
		capsule_states_dot();
		return 0;
	}
	conf = conf_load(NULL, file, &e);
	if (!conf) {
		fprintf(stderr, "hutch-agent: %s\n", e.text);
		return 1;
	}
	if (look)
		return posture_print(conf, look == 'J');
	if (!check && !down)
		return run(conf);
	if (down && shutdown_ask(conf, &e) < 0)
		fprintf(stderr, "hutch-agent: %s\n", e.text);
	talloc_free((void *)conf);
	return e.code != E_OK;
}
