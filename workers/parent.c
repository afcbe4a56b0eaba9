/*
 * parent.c - the parent forks one child per slot, renews the leases of what they do, and buries the
 * dead.
 *
 * It does no job itself. A child that lost its job is killed; a child that died hands its job in at
 * once; on SIGTERM children finish what they have, on SIGHUP they are replaced under the new
 * configuration.
 */
#include "worker.h"
#include "agent.h"
#include "cleanup.h"
#include "db.h"
#include "jobs.q.h"
#include "log.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { SLOTS_MAX = 512, KILL_AFTER_MS = 10000, MEMORY_MAX_MB = 512 };

typedef int service_fn(struct process *);

struct child {
	const struct job_queue *queue; /* NULL: a service */
	service_fn *service;
	char name[96];
	struct held *held;
	pid_t pid;           /* 0: not running */
	int64_t start_at_ms; /* when it may be started (again) */
	int64_t pause_ms;    /* between starts, while it dies at once */
	int64_t stop_at_ms;  /* when SIGTERM was sent; 0: not */
	bool wished, killed; /* must_stop was set; SIGKILL was sent */
};

struct parent {
	const char *path;
	const struct conf *conf;
	struct process self; /* its own connections */
	struct child child[SLOTS_MAX];
	int n;
	bool stopping;
	int64_t renew_at_ms;
};

volatile sig_atomic_t worker_stop;
static pid_t my_parent; /* in a child */

static void
on_term(int sig)
{
	(void)sig;
	worker_stop = 1;
	/* an orphan finishes its job within its lease, which nobody renews; then it ends by SIGALRM
	 */
	if (getppid() != my_parent)
		alarm(25);
}

int64_t
worker_now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

void
worker_sleep(int64_t ms)
{
	struct timespec t = { ms / 1000, ms % 1000 * 1000000 };

	if (!worker_stop)
		(void)nanosleep(&t, NULL); /* a signal ends it */
}

struct work *
worker_unit(struct process *p)
{
	struct work *w = talloc_zero(NULL, struct work);

	w->db = p->db;
	if (db_unit(p->db, w, &w->err) == 0)
		return w;
	log_warn(NULL, "%s: %s", p->name, w->err.text);
	talloc_free(w);
	return NULL;
}

void
worker_unit_end(struct work *w)
{
	db_unit_end(w->db);
	talloc_free(w);
}

static void
open_process(struct process *p, void *mem, const struct conf *c, const char *name)
{
	p->conf = c;
	p->name = name;
	p->db = db_open(mem, c->db_work_url, name, c->db_statement_timeout_ms);
	p->queue = queue_open(mem, c);
}

/* What a child leaves of its parent, and what it may have. */
static void
enter_child(const struct parent *parent, pid_t ppid)
{
	struct sigaction term = { .sa_handler = on_term }; /* no SA_RESTART: sleeps end */
	sigset_t none;

	my_parent = ppid;
	sigaction(SIGTERM, &term, NULL);
	signal(SIGINT, SIG_IGN); /* the terminal sends it to all of us: the parent decides */
	signal(SIGHUP, SIG_IGN);
	signal(SIGCHLD, SIG_DFL);
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	prctl(PR_SET_PDEATHSIG, SIGTERM);
	if (getppid() != ppid)
		worker_stop = 1;
	if (db_raw(parent->self.db))
		close(PQsocket(
		    db_raw(parent->self.db))); /* no PQfinish: the session is the parent's */
	queue_close(parent->self.queue);
#ifndef DEV_BUILD /* sanitizers reserve more than any limit */
	setrlimit(
	    RLIMIT_AS, &(struct rlimit){ MEMORY_MAX_MB * 1048576ul, MEMORY_MAX_MB * 1048576ul });
#endif
	setrlimit(RLIMIT_CORE, &(struct rlimit){ 0 });
}

static int
be_child(struct child *c, const struct parent *parent, pid_t ppid)
{
	void *mem = talloc_named_const(NULL, 0, "process");
	struct process p = { .held = c->held, .parent = ppid };
	struct err e = { 0 };
	const char *title = c->queue ? c->queue->name : strchr(c->name, 46) + 1;
	int rc;

	enter_child(parent, ppid);
	prctl(PR_SET_NAME, title);
	open_process(&p, mem, parent->conf, c->name);
	if (c->queue && c->queue->keys && !(p.keys = keys_load(mem, parent->conf, &e))) {
		log_error(NULL, "%s: %s", c->name, e.text);
		return 1;
	}
	agent_keys(p.keys);
	rc = c->queue ? child_main(&p, c->queue) : c->service(&p);
	talloc_free(mem);
	return rc;
}

static void
start(struct parent *p, struct child *c)
{
	pid_t me = getpid(), pid;

	*c->held = (struct held){ 0 };
	pid = fork();
	if (pid == 0)
		exit(be_child(c, p, me));
	if (pid < 0) {
		log_error(NULL, "fork: %s", strerror(errno));
		c->start_at_ms = worker_now_ms() + 1000;
		return;
	}
	c->pid = pid;
	c->stop_at_ms = 0;
	c->wished = c->killed = false;
}

/* The job of a child that died: as a crash, or, when we ended it ourselves, handed back uncounted.
 */
static void
hand_in(struct parent *p, const struct child *c)
{
	struct job_ref ref = { c->held->id, c->held->epoch };
	struct work *w = worker_unit(&p->self);
	int rc;

	if (!w)
		return; /* its lease ends soon */
	rc = c->stop_at_ms ? job_hand_back(w, p->self.queue, &ref) : worker_crashed(w, &ref);
	if (rc < 0 && w->err.code != E_FENCED)
		log_warn(NULL, "%s: its job: %s", c->name, w->err.text);
	job_announce(w, p->self.queue);
	worker_unit_end(w);
}

static void
reap(struct parent *p)
{
	struct child *c;
	int status;
	pid_t pid;

	while ((pid = waitpid(-1, &status, WNOHANG)) > 0) {
		for (c = p->child; c < p->child + p->n && c->pid != pid; c++)
			;
		if (c == p->child + p->n)
			continue;
		c->pid = 0;
		if (WIFSIGNALED(status))
			log_warn(NULL, "%s ended by signal %d", c->name, WTERMSIG(status));
		else if (WEXITSTATUS(status))
			log_warn(NULL, "%s ended with status %d", c->name, WEXITSTATUS(status));
		if (atomic_load(&c->held->busy))
			hand_in(p, c);
		if (status && !atomic_load(&c->held->busy) &&
		    !atomic_load(&c->held->done)) /* it cannot even begin */
			c->pause_ms =
			    c->pause_ms ? (c->pause_ms < 16000 ? c->pause_ms * 2 : 30000) : 500;
		else
			c->pause_ms = 0;
		c->start_at_ms = worker_now_ms() + c->pause_ms;
	}
}

static void
ask_to_stop(struct child *c)
{
	if (c->pid && !c->stop_at_ms) {
		c->stop_at_ms = worker_now_ms();
		kill(c->pid, SIGTERM);
	}
}

/* A child that was asked to end finishes its job; after the drain time it must save itself; then it
 * is killed. */
static void
press(struct child *c, int64_t now)
{
	int64_t drain = c->queue ? c->queue->drain_sec * 1000 : 5000;

	if (!c->pid || !c->stop_at_ms)
		return;
	if (!c->wished && now - c->stop_at_ms > drain) {
		c->wished = true;
		atomic_store(&c->held->must_stop, 1);
	}
	if (!c->killed && now - c->stop_at_ms > drain + KILL_AFTER_MS) {
		c->killed = true;
		kill(c->pid, SIGKILL);
	}
}

static bool
is_alive(const struct child *c, const struct q_job_still *rows, int n, bool *cancel)
{
	int i;

	for (i = 0; i < n; i++)
		if (uuid_equal(rows[i].id, &c->held->id) && rows[i].epoch == c->held->epoch) {
			*cancel = rows[i].cancel;
			return true;
		}
	return false;
}

/* Longer leases for all; who has lost his job is killed before he does harm, who shall cancel is
 * told. */
static void
renew(struct parent *p, struct work *w)
{
	const char *ids[SLOTS_MAX + 1] = { 0 }, *epochs[SLOTS_MAX + 1] = { 0 };
	struct child *asked[SLOTS_MAX], *c;
	struct q_job_still *rows;
	char text[37];
	bool cancel;
	int i, n = 0, alive;

	for (c = p->child; c < p->child + p->n; c++) {
		if (!c->pid || !c->queue || !atomic_load(&c->held->busy))
			continue;
		ids[n] = talloc_strdup(w, uuid_write(text, &c->held->id));
		epochs[n] = talloc_asprintf(w, "%lld", (long long)c->held->epoch);
		asked[n++] = c;
	}
	if (!n)
		return;
	if (q_job_renew_all(w->db, .ids = ids, .epochs = epochs,
		.lease_sec = (int)p->conf->workers_lease_sec) < 0)
		return;
	alive = q_job_alive(w->db, &rows, .ids = ids, .epochs = epochs);
	for (i = 0; alive >= 0 && i < n; i++) {
		if (is_alive(asked[i], rows, alive, &cancel))
			atomic_store(&asked[i]->held->cancel, cancel);
		else if (atomic_load(&asked[i]->held->busy) &&
		    strcmp(ids[i], uuid_write(text, &asked[i]->held->id)) == 0 &&
		    strtoll(epochs[i], NULL, 10) == asked[i]->held->epoch) {
			log_warn(NULL, "%s has lost its job", asked[i]->name);
			kill(asked[i]->pid, SIGKILL);
		}
	}
}

static void
beat(struct parent *p)
{
	const struct child *c;
	struct work *w;

	for (c = p->child; c < p->child + p->n; c++)
		if (c->queue && c->pid)
			queue_append(p->self.queue, "ZADD hutch:workers %lld %s",
			    (long long)time(NULL), c->name);
	(void)queue_drain(p->self.queue);
	w = worker_unit(&p->self);
	if (!w)
		return;
	renew(p, w);
	if (w->err.code != E_OK)
		log_warn(NULL, "leases: %s", w->err.text);
	worker_unit_end(w);
}

static void
add(struct parent *p, const struct job_queue *queue, service_fn *service, const char *name,
    int number)
{
	char host[64] = "localhost";
	struct child *c;

	if (p->n == SLOTS_MAX)
		return;
	c = &p->child[p->n];
	gethostname(host, sizeof host - 1);
	host[strcspn(host, ".")] = '\0';
	*c = (struct child){ .queue = queue, .service = service };
	snprintf(c->name, sizeof c->name, "%s:%d.%s.%d", host, (int)getpid(), name, number);
	c->held =
	    mmap(NULL, sizeof *c->held, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (c->held == MAP_FAILED) {
		log_error(NULL, "mmap: %s", strerror(errno));
		return;
	}
	p->n++;
}

static int64_t
slots_of(const struct conf *c, const char *queue)
{
	const struct {
		const char *queue;
		int64_t slots;
	} of[] = { { "tick", c->workers_tick_slots }, { "fast", c->workers_fast_slots },
		{ "mail", c->workers_mail_slots }, { "purge", c->workers_purge_slots },
		{ "capsule", c->workers_capsule_slots }, { "host", c->workers_host_slots } };
	size_t i;

	for (i = 0; i < nitems(of); i++)
		if (strcmp(of[i].queue, queue) == 0)
			return of[i].slots;
	return 0;
}

static void
add_all(struct parent *p)
{
	const struct job_queue *q;
	int i;

	add(p, NULL, sweeper_main, "sweeper", 0);
	add(p, NULL, relay_main, "relay", 0);
	for (q = job_queues; q->name; q++)
		for (i = 0; i < slots_of(p->conf, q->name); i++)
			add(p, q, NULL, q->name, i);
}

static void
stop_all(struct parent *p)
{
	struct child *c;

	for (c = p->child; c < p->child + p->n; c++)
		ask_to_stop(c);
}

/* The new configuration, if it is good; the number of slots changes at the next restart only. */
static void
reload(struct parent *p)
{
	struct err e = { 0 };
	const struct conf *fresh = conf_load(p, p->path, &e);

	if (!fresh) {
		log_error(NULL, "the configuration is not taken: %s", e.text);
		return;
	}
	p->conf = fresh; /* the old one stays until the end: our own connections use it */
	log_info(NULL, "configuration read again");
	stop_all(p);
}

static void
on_signal(struct parent *p, int sig)
{
	if (sig == SIGHUP)
		reload(p);
	if (sig != SIGTERM && sig != SIGINT)
		return;
	if (!p->stopping)
		log_info(NULL, "ending: no new jobs, running ones get their time");
	p->stopping = true;
	stop_all(p);
}

static int
tick(struct parent *p)
{
	int64_t now = worker_now_ms();
	struct child *c;
	int running = 0;

	for (c = p->child; c < p->child + p->n; c++) {
		if (!c->pid && !p->stopping && now >= c->start_at_ms)
			start(p, c);
		press(c, now);
		running += c->pid != 0;
	}
	if (now >= p->renew_at_ms) {
		beat(p);
		p->renew_at_ms = worker_now_ms() + p->conf->workers_lease_sec * 1000 / 3;
	}
	return running;
}

int
parent_main(const char *path, const struct conf *conf)
{
	auto_talloc struct parent *p = talloc_zero(NULL, struct parent);
	struct timespec quarter = { 0, 250000000 };
	sigset_t set;
	int sig;

	sigemptyset(&set);
	sigaddset(&set, SIGCHLD);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGHUP);
	sigprocmask(SIG_BLOCK, &set, NULL);
	signal(SIGPIPE, SIG_IGN);
	p->path = path;
	p->conf = conf;
	open_process(&p->self, p, conf, "parent");
	add_all(p);
	log_info(NULL, "%d processes", p->n);
	while (tick(p) > 0 || !p->stopping) {
		sig = sigtimedwait(&set, NULL, &quarter);
		if (sig > 0)
			on_signal(p, sig);
		reap(p);
	}
	log_info(NULL, "ended");
	return 0;
}
