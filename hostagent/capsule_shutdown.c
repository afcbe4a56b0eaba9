/*
 * capsule_shutdown.c - the machine goes down: all sleep on disk before, and wake after.
 *
 * SIGPWR begins it (hutch-agent -S sends it and waits); an agent that only ends lets its capsules
 * run on. What runs is paused by `host`, every paused one's image is saved and its process ends;
 * the agent ends when nothing is left, or when agent.shutdown_grace_sec are over. At its next start
 * those that are paused by `host` run on, unless the control plane refuses this host.
 */
#include "capsule_shutdown.h"
#include "capsule_in.h"
#include "control.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>

enum { LOOK_MS = 50, AGAIN_MS = 2000, SPARE_MS = 10000, SAVES_PER_CORE = 2 };

struct shutdown {
	struct agent *agent;
	int64_t end;
	struct timer *timer;
	void (*done)(struct agent *);
};

static void
on_pause(void *arg, struct capsule *c, const struct err *e)
{
	(void)arg;
	if (!e)
		return;
	log_error(
	    NULL, "the machine goes down: capsule %s is not paused: %s", c ? c->id : "?", e->text);
	if (c)
		c->save_at = now_mono() + AGAIN_MS;
}

/* One step further, if nothing is under way. true: it is as far as it can be. */
static bool
push(struct shutdown *s, struct capsule *c, size_t *saving)
{
	bool later = c->save_at > now_mono();

	if (c->op) {
		*saving += c->state == CAP_PAUSED;
		return false;
	}
	if (c->state == CAP_RUNNING && !later)
		capsule_pause(s->agent, c->id, c->epoch, "host", s, on_pause, s);
	if (c->state == CAP_PAUSED && c->vm && !later &&
	    (c->persisted || *saving < (size_t)s->agent->cores * SAVES_PER_CORE)) {
		*saving += !c->persisted;
		capsule_to_disk(c);
	}
	return !c->vm && c->state != CAP_RUNNING;
}

static void
look(void *arg)
{
	struct shutdown *s = arg;
	struct agent *a = s->agent;
	struct capsule *c;
	struct vm *vm;
	size_t saving = 0, left = 0, dying = 0;
	void (*done)(struct agent *) = s->done;

	TAILQ_FOREACH(c, &a->capsules, link)
	left += !push(s, c, &saving);
	TAILQ_FOREACH(vm, &a->vms, link)
	dying += vm->state == VM_DYING;
	if ((left || dying) && now_mono() < s->end)
		return;
	if (left)
		log_error(NULL, "the machine goes down: %zu capsules do not sleep yet", left);
	else
		log_info(NULL, "the machine goes down: all capsules sleep on disk");
	talloc_free(s);
	done(a);
}

void
shutdown_begin(struct agent *a, void (*done)(struct agent *))
{
	struct shutdown *s;

	if (a->stopping)
		return;
	a->stopping = true;
	s = talloc_zero(a, struct shutdown);
	s->agent = a;
	s->done = done;
	s->end = now_mono() + a->conf->agent_shutdown_grace_sec * 1000;
	s->timer = timer_new(s, a->loop, 0, LOOK_MS, look, s);
}

static void
on_wake(void *arg, struct capsule *c, const struct err *e)
{
	(void)arg;
	if (e)
		log_warn(NULL, "after the machine's start: %s", e->text);
	else
		log_info(NULL, "after the machine's start: capsule %s runs", c->id);
}

void
shutdown_over(struct agent *a)
{
	struct capsule *c;

	if (!control_trusts(a))
		return;
	TAILQ_FOREACH(c, &a->capsules, link)
	if (c->state == CAP_PAUSED && strcmp(c->paused_by, "host") == 0)
		capsule_resume(a, c->id, c->epoch, a, on_wake, NULL);
}

/* The process that holds the lock has written its id there. */
static pid_t
holder(const struct conf *conf, struct err *e)
{
	auto_talloc char *path = talloc_asprintf(NULL, "%s/lock", conf->agent_state_dir);
	auto_fd fd = open(path, O_RDONLY | O_CLOEXEC);
	char text[24] = "";
	long pid;

	if (fd < 0 || read(fd, text, sizeof text - 1) < 0)
		return err_sys(e, "%s", path);
	pid = strtol(text, NULL, 10);
	return pid > 1 ? (pid_t)pid : err_set(e, E_NOT_FOUND, "%s names no agent", path);
}

int
shutdown_ask(const struct conf *conf, struct err *e)
{
	pid_t pid = holder(conf, e);
	struct pollfd p = { .fd = -1, .events = POLLIN };
	int r;

	if (pid < 0)
		return -1;
	p.fd = (int)syscall(SYS_pidfd_open, pid, 0);
	if (p.fd < 0)
		return err_set(e, E_NOT_FOUND, "no agent runs");
	if (syscall(SYS_pidfd_send_signal, p.fd, SIGPWR, NULL, 0) < 0)
		r = err_sys(e, "process %d", (int)pid);
	else
		r = poll(&p, 1, (int)conf->agent_shutdown_grace_sec * 1000 + SPARE_MS);
	close(p.fd);
	return r > 0 ? 0 : r == 0 ? err_set(e, E_TIMEOUT, "the agent has not ended") : -1;
}
