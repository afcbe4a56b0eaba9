/*
 * idle.c - see idle.h.
 *
 * A touch only notes the time. The timer of a capsule looks at it when it fires, and sets itself
 * again for what is left: a busy capsule costs one timer per timeout, not one per call. Everything
 * happens in the one loop, so between the last look and the state "pausing", in which the bridge
 * lets nobody in, no call can come.
 */
#include "idle.h"
#include "capsule.h"
#include "control.h"
#include "guest.h"
#include "logs.h"
#include "vm.h"

#include <fcntl.h>
#include <string.h>

enum {
	MAX_SEC = 2592000,
	BUSY_MS = 1000,
	ASK_MS = 5000,
	CPU_PERCENT = 10,
	FILE_MAX_BYTES = 4 << 20
};

static const int64_t retry_ms[] = { 30000, 120000, 600000 };

struct idle_hold {
	LIST_ENTRY(idle_hold) link;
	struct idle *idle; /* NULL: the capsule is gone */
	unsigned signal;
};

struct idle {
	struct capsule *capsule;
	struct idle_settings set;
	bool runs;           /* the clock does */
	int64_t quiet_since; /* now_mono() of the last use, while it runs */
	int64_t quiet_ms;    /* the same as a length, while it stands */
	int64_t epoch;       /* of the start that it counts for */
	int64_t not_before;  /* after a failure */
	size_t fails;
	bool acting;
	bool asking;        /* the guest, for living processes */
	int64_t checked_at; /* now_mono() of its last answer: none lives */
	LIST_HEAD(, idle_hold) holds;
	struct timer *timer;
};

/* clang-format off */
static const struct signal {
	const char *name;
	unsigned bit;
} signals[] = {
	{ "api",	IDLE_API },
	{ "exec",	IDLE_EXEC },
	{ "input",	IDLE_INPUT },
	{ "port",	IDLE_PORT },
	{ "process",	IDLE_PROCESS },
	{ "cpu",	IDLE_CPU },
};

static const char *const actions[] = {
	[IDLE_PAUSE] = "pause", [IDLE_HIBERNATE] = "hibernate", [IDLE_DESTROY] = "destroy",
};
/* clang-format on */

void
idle_defaults(struct idle_settings *s)
{
	*s = (struct idle_settings){ .signals = IDLE_API | IDLE_EXEC | IDLE_INPUT | IDLE_PORT };
}

unsigned
idle_signal(const char *name)
{
	size_t i;

	for (i = 0; i < nitems(signals); i++)
		if (strcmp(signals[i].name, name) == 0)
			return signals[i].bit;
	return 0;
}

static int
signals_read(struct json_object *list, unsigned *ret, struct err *e)
{
	unsigned bits = 0, bit;
	size_t i;

	if (!json_object_is_type(list, json_type_array))
		return err_set(e, E_BAD_INPUT, "\"idle_signals\" is not an array");
	for (i = 0; i < json_object_array_length(list); i++) {
		const char *name = json_object_get_string(json_object_array_get_idx(list, i));

		bit = idle_signal(name ? name : "");
		if (!bit)
			return err_set(e, E_BAD_INPUT, "\"idle_signals\": no signal %.20s",
			    name ? name : "null");
		bits |= bit;
	}
	*ret = bits;
	return 0;
}

bool
idle_named(struct json_object *j)
{
	return json_get(j, "timeout_sec") || json_get(j, "timeout_mode") ||
	    json_get(j, "idle_action") || json_get(j, "idle_memory") || json_get(j, "idle_signals");
}

int
idle_read(struct json_object *j, struct idle_settings *set, struct err *e)
{
	struct idle_settings s = *set;
	const char *mode = json_str(j, "timeout_mode", s.fixed ? "fixed" : "idle");
	const char *action = json_str(j, "idle_action", actions[s.action]);
	const char *told = json_str(j, "told", set->told);
	struct json_object *list = json_get(j, "idle_signals"), *n = json_get(j, "timeout_sec");
	size_t i;

	if (n && !json_object_is_type(n, json_type_int))
		return err_set(e, E_BAD_INPUT, "\"timeout_sec\" is no whole number");
	if (strlen(told) >= sizeof s.told || strspn(told, "0123456789abcdef") != strlen(told))
		return err_set(
		    e, E_BAD_INPUT, "\"told\" is no name of at most %d hex digits", TOLD_SIZE - 1);
	snprintf(s.told, sizeof s.told, "%s", told);
	s.timeout_sec = json_int(j, "timeout_sec", s.timeout_sec);
	if (s.timeout_sec < 0)
		s.timeout_sec = 0;
	if (s.timeout_sec > MAX_SEC)
		return err_set(e, E_BAD_INPUT, "\"timeout_sec\" is larger than %d", MAX_SEC);
	s.fixed = strcmp(mode, "fixed") == 0;
	if (!s.fixed && strcmp(mode, "idle") != 0)
		return err_set(e, E_BAD_INPUT, "\"timeout_mode\" is neither idle nor fixed");
	for (i = 0; i < nitems(actions) && strcmp(actions[i], action) != 0; i++)
		;
	if (i == nitems(actions))
		return err_set(
		    e, E_BAD_INPUT, "\"idle_action\" is neither pause, hibernate nor destroy");
	s.action = (enum idle_action)i;
	s.disk_only = !json_flag(j, "idle_memory", !s.disk_only);
	if (list && signals_read(list, &s.signals, e) < 0)
		return -1;
	*set = s;
	return 0;
}

/* The clock. */

static int
idle_free(struct idle *i)
{
	struct idle_hold *h;

	while ((h = LIST_FIRST(&i->holds))) {
		LIST_REMOVE(h, link);
		h->idle = NULL;
	}
	return 0;
}

static struct idle *
idle_of(struct capsule *c)
{
	if (!c->idle) {
		c->idle = talloc_zero(c, struct idle);
		c->idle->capsule = c;
		idle_defaults(&c->idle->set);
		talloc_set_destructor(c->idle, idle_free);
	}
	return c->idle;
}

/* A fixed time goes on whatever is used. */
static bool
held(const struct idle *i)
{
	const struct idle_hold *h;

	LIST_FOREACH(h, &i->holds, link)
	if (!i->set.fixed && (h->signal & i->set.signals))
		return true;
	return false;
}

static int64_t
quiet(const struct idle *i)
{
	if (held(i))
		return 0;
	return i->runs ? now_mono() - i->quiet_since : i->quiet_ms;
}

static void on_due(void *);

static void
arm(struct idle *i)
{
	int64_t left = i->set.timeout_sec * 1000 - quiet(i);
	int64_t pause = i->not_before - now_mono();

	TALLOC_FREE(i->timer);
	if (!i->runs || i->set.timeout_sec == 0 || i->acting || held(i))
		return;
	if (left < pause)
		left = pause;
	i->timer = timer_new(i, i->capsule->agent->loop, left > 0 ? left : 0, 0, on_due, i);
}

static void
acted(void *arg, struct capsule *c, const struct err *e)
{
	struct idle *i = arg;

	i->acting = false;
	if (e) {
		size_t turn = i->fails < nitems(retry_ms) ? i->fails : nitems(retry_ms) - 1;

		i->fails++;
		i->not_before = now_mono() + retry_ms[turn];
		log_warn(NULL, "capsule %s: idle: %s failed, again in %lld s: %s", i->capsule->id,
		    actions[i->set.action], (long long)retry_ms[turn] / 1000, e->text);
		logs_note(i->capsule, "idle: %s failed: %s", actions[i->set.action], e->text);
		if (i->capsule->state == CAP_RUNNING)
			control_notice(i->capsule, "pause_failed", e->text);
	} else {
		i->fails = 0;
		i->not_before = 0;
	}
	(void)c;
	arm(i);
}

static void
act(struct idle *i)
{
	struct capsule *c = i->capsule;

	log_info(NULL, "capsule %s: idle for %lld s: %s", c->id, (long long)quiet(i) / 1000,
	    actions[i->set.action]);
	logs_note(c, "idle for %lld s: %s", (long long)quiet(i) / 1000, actions[i->set.action]);
	i->acting = true;
	if (i->set.action == IDLE_HIBERNATE)
		capsule_hibernate_as(
		    c->agent, c->id, c->epoch, "idle", !i->set.disk_only, i, acted, i);
	else
		capsule_pause(c->agent, c->id, c->epoch, "idle", i, acted, i);
}

/* Who cannot say it counts as busy: the capsule stays as it is. */
static void
on_processes(void *arg, int status, const char *body, size_t len, const struct err *e)
{
	struct idle *i = arg;
	auto_talloc char *mem = talloc_new(NULL);
	struct err bad = { 0 };
	struct json_object *j = !e && status == 200 ? json_parse(mem, body, len, NULL, &bad) : NULL;

	i->asking = false;
	if (!j || json_int(j, "processes", 1) > 0)
		idle_touch(i->capsule, IDLE_PROCESS);
	else
		i->checked_at = now_mono();
	arm(i);
}

/* The samples of metrics.c are seconds old; true: the answer goes on. */
static bool
ask_processes(struct idle *i)
{
	struct guest_call call = { .method = "GET", .path = "/stats", .timeout_ms = ASK_MS };
	struct vm *vm = i->capsule->vm;
	struct err e = { 0 };

	if (!(i->set.signals & IDLE_PROCESS) || i->set.fixed ||
	    now_mono() - i->checked_at < BUSY_MS)
		return false;
	if (i->asking)
		return true;
	if (!vm || vm_guest_open(vm, &e) < 0) {
		idle_touch(i->capsule, IDLE_PROCESS);
		arm(i);
		return true;
	}
	i->asking = true;
	guest_call(vm->guest, i, &call, on_processes, i);
	return true;
}

/* Once more: did somebody come? */
static void
on_due(void *arg)
{
	struct idle *i = arg;

	TALLOC_FREE(i->timer);
	if (!i->runs || i->acting || held(i) || i->set.timeout_sec == 0)
		return;
	if (quiet(i) < i->set.timeout_sec * 1000) {
		arm(i);
		return;
	}
	if (i->capsule->op) {
		/* a snapshot or fork has the capsule: its end is waited for */
		i->timer = timer_new(i, i->capsule->agent->loop, BUSY_MS, 0, on_due, i);
		return;
	}
	if (!ask_processes(i))
		act(i);
}

void
idle_set(struct capsule *c, const struct idle_settings *set)
{
	struct idle *i = idle_of(c);

	i->set = *set;
	i->quiet_since = now_mono();
	i->quiet_ms = 0;
	i->not_before = 0;
	i->fails = 0;
	arm(i);
}

const struct idle_settings *
idle_get(const struct capsule *c)
{
	static const struct idle_settings none = { .signals = IDLE_API | IDLE_EXEC | IDLE_INPUT |
		    IDLE_PORT };

	return c->idle ? &c->idle->set : &none;
}

void
idle_changed(struct capsule *c)
{
	struct idle *i = idle_of(c);
	bool runs = c->state == CAP_RUNNING;

	if (runs && !i->runs) {
		/* a new start, or a pause that failed: then the time goes on */
		i->quiet_since = now_mono() - (i->epoch == c->epoch ? i->quiet_ms : 0);
		i->epoch = c->epoch;
	} else if (!runs && i->runs)
		i->quiet_ms = quiet(i);
	i->runs = runs;
	arm(i);
}

void
idle_touch(struct capsule *c, unsigned signal)
{
	struct idle *i = idle_of(c);

	if (i->set.fixed || !(signal & i->set.signals))
		return;
	i->quiet_since = now_mono();
	i->quiet_ms = 0;
}

static int
hold_free(struct idle_hold *h)
{
	struct idle *i = h->idle;

	if (!i)
		return 0;
	LIST_REMOVE(h, link);
	idle_touch(i->capsule, h->signal);
	if (!i->timer)
		arm(i);
	return 0;
}

struct idle_hold *
idle_hold(void *mem, struct capsule *c, unsigned signal)
{
	struct idle_hold *h = talloc_zero(mem, struct idle_hold);

	h->idle = idle_of(c);
	h->signal = signal;
	LIST_INSERT_HEAD(&h->idle->holds, h, link);
	talloc_set_destructor(h, hold_free);
	return h;
}

void
idle_sample(struct capsule *c, double cpu, int processes)
{
	if (cpu > CPU_PERCENT)
		idle_touch(c, IDLE_CPU);
	if (processes > 0)
		idle_touch(c, IDLE_PROCESS);
}

/* On disk. */

void
idle_record(const struct capsule *c, struct buf *b)
{
	const struct idle_settings *s = idle_get(c);

	buf_fmt(b,
	    ",\"timeout\":%lld,\"fixed\":%s,\"idle_action\":%d,\"disk_only\":%s,\"signals\":%u",
	    (long long)s->timeout_sec, s->fixed ? "true" : "false", (int)s->action,
	    s->disk_only ? "true" : "false", s->signals);
	if (*s->told)
		buf_fmt(b, ",\"told\":\"%s\"", s->told);
}

void
idle_restore(struct capsule *c, struct json_object *j)
{
	struct idle_settings s;

	idle_defaults(&s);
	s.timeout_sec = json_int(j, "timeout", 0);
	s.fixed = json_flag(j, "fixed", false);
	s.action = (enum idle_action)json_int(j, "idle_action", IDLE_PAUSE);
	s.disk_only = json_flag(j, "disk_only", false);
	s.signals = (unsigned)json_int(j, "signals", s.signals);
	snprintf(s.told, sizeof s.told, "%s", json_str(j, "told", ""));
	if (s.action > IDLE_DESTROY)
		s.action = IDLE_PAUSE;
	idle_of(c)->set = s;
}

void
idle_json(const struct capsule *c, struct buf *b)
{
	buf_fmt(b, ",\"timeout_sec\":%lld,\"idle_ms\":%lld,\"told\":\"%s\"",
	    (long long)idle_get(c)->timeout_sec, c->idle ? (long long)quiet(c->idle) : 0LL,
	    idle_get(c)->told);
}

/* Lost with a crash between two writes: a quarter of a minute, in the capsule's favour. */
void
idle_save(struct agent *a)
{
	auto_talloc char *mem = talloc_new(NULL);
	struct buf b = BUF(mem);
	const struct capsule *c;
	auto_fd fd = -1;
	const char *comma = "";

	buf_fmt(&b, "{\"boot_id\":\"%s\",\"capsules\":[", a->boot_id);
	TAILQ_FOREACH(c, &a->capsules, link)
	{
		if (!c->idle || c->idle->set.timeout_sec == 0 || c->state == CAP_GONE)
			continue;
		buf_fmt(&b, "%s{\"id\":\"%s\",\"epoch\":%lld,\"quiet_ms\":%lld}", comma, c->id,
		    (long long)c->epoch, (long long)quiet(c->idle));
		comma = ",";
	}
	if (!*comma)
		return;
	buf_str(&b, "]}\n");
	fd = openat(a->state_fd, "idle.new", O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	if (fd < 0 || write(fd, b.data, b.len) != (ssize_t)b.len ||
	    renameat(a->state_fd, "idle.new", a->state_fd, "idle") < 0)
		log_warn(NULL, "idle times: cannot be written");
}

void
idle_load(struct agent *a)
{
	static const struct json_limits limits = { .depth = 4, .keys = 1000000 };
	auto_talloc char *mem = talloc_new(NULL);
	auto_fd fd = openat(a->state_fd, "idle", O_RDONLY | O_CLOEXEC);
	char *text = talloc_size(mem, FILE_MAX_BYTES);
	ssize_t n = fd < 0 ? -1 : read(fd, text, FILE_MAX_BYTES);
	struct err e = { 0 };
	struct json_object *j = n > 0 ? json_parse(mem, text, n, &limits, &e) : NULL, *list;
	size_t k;

	/* after a boot nothing runs; what is started then begins anew */
	if (!j || strcmp(json_str(j, "boot_id", ""), a->boot_id) != 0)
		return;
	list = json_get(j, "capsules");
	for (k = 0; list && k < json_object_array_length(list); k++) {
		struct json_object *row = json_object_array_get_idx(list, k);
		struct capsule *c = capsule_find(a, json_str(row, "id", ""));
		int64_t ms = json_int(row, "quiet_ms", 0);

		if (!c || c->epoch != json_int(row, "epoch", -1) || ms < 0)
			continue;
		idle_of(c)->epoch = c->epoch;
		c->idle->quiet_ms = ms;
		c->idle->quiet_since = now_mono() - ms;
		arm(c->idle);
	}
}
