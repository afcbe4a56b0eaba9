/* vm.c - see vm.h. Starting a VM is a table of steps; the rest are short exchanges with QEMU. */
#include "vm.h"
#include "disk.h"
#include "guest.h"
#include "identity.h"
#include "logs.h"
#include "image.h"
#include "priv.h"
#include "qemu.h"
#include "template.h"
#include "vm_guest.h"
#include "vm_run.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>

enum {
	HEALTH_RETRY_MS = 50,
	CLONE_HEALTH_MS = 4000,
	BOOT_HEALTH_MS = 15000,
	CLONE_MS = 20000,
	RESTORE_MS = 30000
};

/* Folder and sockets. */

/* A socket address below the folder: through /proc, since state_dir may be longer than sun_path. */
static struct sockaddr_un
address(const struct vm *vm, const char *name)
{
	struct sockaddr_un sa = { .sun_family = AF_UNIX };

	snprintf(sa.sun_path, sizeof sa.sun_path, "/proc/self/fd/%d/%s", vm->dir, name);
	return sa;
}

static int
listen_at(const struct vm *vm, const char *name, struct err *e)
{
	struct sockaddr_un sa = address(vm, name);
	auto_fd fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	(void)unlinkat(vm->dir, name, 0); /* of the process before this one */
	if (fd < 0 || bind(fd, (struct sockaddr *)&sa, sizeof sa) < 0 || listen(fd, 4) < 0)
		return err_sys(e, "vm %s: socket %s", vm->name, name);
	return take_fd(&fd);
}

int
vm_connect(const struct vm *vm, const char *name, struct err *e)
{
	struct sockaddr_un sa = address(vm, name);
	auto_fd fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	if (fd < 0 || connect(fd, (struct sockaddr *)&sa, sizeof sa) < 0)
		return err_sys(e, "vm %s: connect to %s", vm->name, name);
	return take_fd(&fd);
}

int
vm_folder(struct agent *a, const char *name, bool make)
{
	char path[64];

	snprintf(path, sizeof path, "vm/%s", name);
	if (make && mkdirat(a->state_fd, path, 0700) < 0)
		return -1;
	return openat(a->state_fd, path, O_PATH | O_DIRECTORY | O_CLOEXEC);
}

int
vm_folder_open(struct agent *a, const char *name)
{
	return vm_folder(a, name, false);
}

void
vm_folder_remove(struct agent *a, const char *name)
{
	char path[64];
	auto_fd dir = vm_folder(a, name, false);
	auto_fd list = dir < 0 ? -1 : openat(dir, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *d = list < 0 ? NULL : fdopendir(dup(list));
	struct dirent *entry;

	while (d && (entry = readdir(d)))
		if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0)
			(void)unlinkat(dir, entry->d_name, 0);
	if (d)
		closedir(d);
	snprintf(path, sizeof path, "vm/%s", name);
	(void)unlinkat(a->state_fd, path, AT_REMOVEDIR);
}

static int
vm_free(struct vm *vm)
{
	TAILQ_REMOVE(&vm->agent->vms, vm, link);
	if (vm->run) {
		TALLOC_FREE(vm->run->death);
		if (vm->run->pidfd >= 0)
			close(vm->run->pidfd);
	}
	if (vm->dir >= 0)
		close(vm->dir);
	return 0;
}

struct vm *
vm_new(struct agent *a)
{
	struct vm *vm = talloc_zero(a, struct vm);

	vm->agent = a;
	vm->dir = -1;
	vm->status = -1;
	vm->run = talloc_zero(vm, struct vm_run);
	vm->run->pidfd = -1;
	TAILQ_INSERT_TAIL(&a->vms, vm, link);
	talloc_set_destructor(vm, vm_free);
	return vm;
}

/* The last thing QEMU wrote to its log, for ours. */
static void
log_tail(const struct vm *vm, char *ret, size_t len)
{
	auto_fd fd = vm->dir < 0 ? -1 : openat(vm->dir, "log", O_RDONLY | O_CLOEXEC);
	struct stat s;
	ssize_t n = 0;

	if (fd >= 0 && fstat(fd, &s) == 0)
		n = pread(fd, ret, len - 1, s.st_size > (off_t)len ? s.st_size - (off_t)len : 0);
	ret[n > 0 ? n : 0] = '\0';
	for (; *ret; ret++)
		if (*ret < 0x20 || *ret > 0x7e)
			*ret = ' ';
}

/* The end of whatever runs: exactly one call of done. */
static void
run_done(void *user, const struct err *e)
{
	struct vm *vm = user;
	struct vm_run *r = vm->run;
	vm_done *done = r->done;
	char said[200];

	if (e && done) {
		log_tail(vm, said, sizeof said);
		log_warn(
		    NULL, "vm %s: %s%s%s", vm->name, e->text, *said ? "; QEMU said: " : "", said);
	}

	r->done = NULL;
	TALLOC_FREE(r->start);
	TALLOC_FREE(r->again);
	if (done)
		done(r->user, e);
}

static void
step_ended(void *user)
{
	struct vm *vm = user;
	struct err e = { 0 };

	(void)err_set(
	    &e, E_QEMU, "QEMU ended (wait status %#x), see its log", (unsigned)vm->status);
	flow_fail(vm->run->flow, &e);
}

static const struct step ended_steps[] = { { "looking for QEMU", step_ended }, { 0 } };

void
vm_flow(struct vm *vm, const struct step *steps, vm_done *done, void *user)
{
	TALLOC_FREE(vm->run->flow);
	vm->run->done = done;
	vm->run->user = user;
	vm->run->flow = flow_new(
	    vm->run, vm->agent->loop, vm->state == VM_DEAD ? ended_steps : steps, vm, run_done);
}

void
vm_call(struct vm *vm, const char *command, const char *arguments, int fd, qmp_reply *reply)
{
	struct err e = { 0 };

	if (vm->qmp) {
		qmp_call(vm->qmp, command, arguments, fd, reply, vm);
		return;
	}
	(void)err_set(&e, E_QEMU, "QEMU's control socket is closed");
	flow_fail(vm->run->flow, &e);
}

/* A QMP answer that only says yes or no moves the flow on. */
void
vm_ok(void *arg, struct json_object *ret, const struct err *e)
{
	struct vm *vm = arg;

	(void)ret;
	if (e)
		flow_fail(vm->run->flow, e);
	else
		flow_next(vm->run->flow);
}

/* Control socket and guest session. */

static void
on_qmp_gone(void *user, const struct err *e)
{
	struct vm *vm = user;

	(void)e;
	/* it closes when the process ends, which the pidfd tells; nothing else closes it */
	TALLOC_FREE(vm->qmp);
}

static void
on_qmp_event(void *user, const char *name, struct json_object *data)
{
	struct vm *vm = user;
	struct vm_run *r = vm->run;
	const char *status = json_str(data, "status", "");
	struct err e = { 0 };

	if (strcmp(name, "SHUTDOWN") == 0 && json_flag(data, "guest", false))
		vm->ended = strcmp(json_str(data, "reason", ""), "guest-reset") == 0 ? VM_RESET
										     : VM_POWEROFF;
	else if (strcmp(name, "RESET") == 0 && json_flag(data, "guest", false))
		log_info(NULL, "vm %s: its kernel starts anew", vm->name);
	if (strcmp(name, "MIGRATION") != 0 || !r->done)
		return;
	if (strcmp(status, "failed") == 0) {
		(void)err_set(&e, E_QEMU, "QEMU could not move its state");
		flow_fail(r->flow, &e);
	} else if (strcmp(status, "completed") == 0 && r->save)
		vm_save_event(vm);
	else if (strcmp(status, "completed") == 0)
		flow_next(r->flow);
}

static const struct qmp_events qmp_events = { on_qmp_event, on_qmp_gone };

static void
on_guest_gone(void *user, const struct err *e)
{
	struct vm *vm = user;

	log_debug(NULL, "vm %s: guest session ended: %s", vm->name, e->text);
	TALLOC_FREE(vm->guest);
}

int
vm_qmp_open(struct vm *vm, struct err *e)
{
	int fd = vm_connect(vm, "q", e);

	if (fd < 0)
		return -1;
	vm->qmp = qmp_open(vm, vm->agent->loop, fd, &qmp_events, vm);
	return 0;
}

int
vm_guest_open(struct vm *vm, struct err *e)
{
	int fd;

	if (vm->guest)
		return 0;
	fd = vm_connect(vm, "g", e);
	if (fd < 0)
		return -1;
	vm->guest = guest_open(vm, vm->agent->loop, fd, on_guest_gone, vm, e);
	return vm->guest ? 0 : -1;
}

/* The start. */

static void
step_wait(void *user)
{
	struct vm *vm = user;
	struct vm_run *r = vm->run;

	r->start = start_wait(vm->agent, r, r->spec.soon, r->flow);
}

static void
step_spawn(void *user)
{
	struct vm *vm = user;
	struct agent *a = vm->agent;
	struct vm_run *r = vm->run;
	struct qemu q = { .name = vm->name,
		.t = vm->t,
		.accel = vm->accel,
		.vcpus = vm->vcpus,
		.memory_mb = vm->memory_mb,
		.memory = vm->image   ? vm->image->memory
		    : r->spec.restore ? r->spec.memory
				      : -1,
		.incoming = vm->image || r->spec.restore };
	struct priv_spawn s;
	struct err e = { 0 };
	char node[LAYER_NAME];
	int layer[LAYERS_MAX];
	size_t layers = 0;
	auto_talloc char *mem = talloc_new(NULL);
	auto_fd qmp = -1, guest = -1, serial = -1, disk = -1, log = -1;

	flow_deadline(r->flow,
	    r->spec.boot_ms       ? (uint64_t)r->spec.boot_ms
		: r->spec.restore ? RESTORE_MS + (uint64_t)vm->memory_mb * 10
		: vm->image       ? CLONE_MS
				  : (uint64_t)a->conf->agent_boot_timeout_sec * 1000);
	if (vm->image && vm->image->state != IMG_READY) {
		(void)err_set(&e, E_QEMU, "the memory image was let go");
		goto fail;
	}
	if (uid_lease(a, &vm->uid, &e) < 0)
		goto fail;
	vm->dir = vm_folder(a, vm->name, !r->spec.folder);
	if (vm->dir < 0) {
		err_sys(&e, "vm %s: folder", vm->name);
		goto fail;
	}
	disk = openat(vm->dir, chain_file(vm->chain.active, node),
	    O_RDWR | O_CLOEXEC | (r->spec.folder ? 0 : O_CREAT | O_EXCL), 0600);
	log = openat(vm->dir, "log", O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
	if (disk < 0 || log < 0) {
		err_sys(&e, "vm %s: files", vm->name);
		goto fail;
	}
	if ((!r->spec.folder && disk_overlay(disk, vm->disk_size, NULL, &e) < 0) ||
	    (r->spec.folder && disk_size(disk, &vm->disk_size, &e) < 0) ||
	    chain_open(&vm->chain, a->state_fd, vm->dir, layer, &e) < 0)
		goto fail;
	layers = vm->chain.layers;
	if ((qmp = listen_at(vm, "q", &e)) < 0 || (guest = listen_at(vm, "g", &e)) < 0 ||
	    (serial = listen_at(vm, "serial", &e)) < 0)
		goto fail;
	q.qmp = qmp;
	q.guest = guest;
	q.serial = serial;
	q.disk = disk;
	q.log = log;
	q.uid = vm->uid;
	q.layer = layer;
	q.layers = layers;
	q.node = chain_node(vm->chain.active, node);
	qemu_command(a, &q, mem, &s);
	vm->pid = priv_spawn(a->priv, &s, &r->pidfd, &e);
	if (vm->pid < 0)
		goto fail;
	vm->start = proc_start(vm->pid);
	vm_watch_death(vm);
	/* the sockets listen already: no waiting for QEMU to come up */
	if (vm_qmp_open(vm, &e) < 0 || (!r->spec.restore && vm_guest_open(vm, &e) < 0))
		goto fail;
	while (layers--)
		close(layer[layers]);
	logs_open(vm);
	flow_next(r->flow);
	return;
fail:
	while (layers--)
		close(layer[layers]);
	flow_fail(r->flow, &e);
}

void
vm_step_events(void *user)
{
	struct vm *vm = user;

	vm_call(vm, "migrate-set-capabilities",
	    "{\"capabilities\":[{\"capability\":\"events\",\"state\":true}]}", -1, vm_ok);
}

/* What was asked for is looked at: a QEMU outside of its cage does not get a guest. */
static void
step_check(void *user)
{
	struct vm *vm = user;
	struct err e = { 0 };
	struct cage_size size = qemu_size(vm->vcpus, vm->memory_mb, vm->accel);

	if (priv_check(vm->agent->priv, vm->pid, vm->start, vm->uid, &size, &e) < 0)
		flow_fail(vm->run->flow, &e);
	else
		flow_next(vm->run->flow);
}

static void
step_give_state(void *user)
{
	struct vm *vm = user;
	char path[40];
	/* QEMU reads from the start, whoever read it before: an open file of its own */
	auto_fd fd = -1;

	snprintf(path, sizeof path, "/proc/self/fd/%d",
	    vm->image ? vm->image->device_state : vm->run->spec.state);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	vm_call(vm, "getfd", "{\"fdname\":\"state\"}", fd, vm_ok);
}

static void
on_incoming(void *arg, struct json_object *ret, const struct err *e)
{
	struct vm *vm = arg;

	(void)ret;
	if (e)
		flow_fail(vm->run->flow, e);
	/* the MIGRATION event moves on */
}

static void
step_load(void *user)
{
	struct vm *vm = user;

	vm_call(vm, "migrate-incoming", "{\"uri\":\"fd:state\"}", -1, on_incoming);
}

void
vm_step_cont(void *user)
{
	struct vm *vm = user;

	vm_call(vm, "cont", NULL, -1, vm_ok);
}

void
vm_step_stop(void *user)
{
	struct vm *vm = user;

	vm_call(vm, "stop", NULL, -1, vm_ok);
}

static void
on_health(void *arg, int status, const char *body, size_t len, const struct err *e)
{
	struct vm *vm = arg;
	struct vm_run *r = vm->run;

	(void)body;
	(void)len;
	if (!r->done)
		return; /* the flow ended before: its session may be in use by now */
	if (!e && (status == 204 || status == 200)) {
		flow_next(r->flow);
		return;
	}
	/* A guest that comes up late may lose the first session, or answer it into the second: only
	   an answer with our word counts, and another session follows, until the flow's deadline.
	 */
	if (e)
		TALLOC_FREE(vm->guest);
	TALLOC_FREE(r->again);
	r->again = timer_new(r, vm->agent->loop, HEALTH_RETRY_MS, 0, vm_step_health, vm);
}

void
vm_step_health(void *user)
{
	struct vm *vm = user;
	char nonce[33];
	struct guest_call call = { .method = "GET",
		.path = "/health",
		.nonce = nonce,
		.timeout_ms = vm->image || vm->run->adopted ? CLONE_HEALTH_MS : BOOT_HEALTH_MS };
	struct err e = { 0 };

	random_hex(nonce, 16);
	if (vm_guest_open(vm, &e) < 0)
		flow_fail(vm->run->flow, &e);
	else
		guest_call(vm->guest, vm->run, &call, on_health, vm);
}

static void
on_rehearsed(void *arg, int status, const char *body, size_t len, const struct err *e)
{
	struct vm *vm = arg;
	struct err bad = { 0 };

	(void)len;
	if (!e && status / 100 == 2) {
		flow_next(vm->run->flow);
		return;
	}
	if (e)
		bad = *e;
	else
		(void)err_set(&bad, E_AGENT, "the guest refuses its init: %.160s", body);
	flow_fail(vm->run->flow, &bad);
}

/* Under TCG the guest's first init costs 150 ms of translating; the second, for the capsule, 5. */
static void
step_rehearse(void *user)
{
	struct vm *vm = user;
	struct buf b = BUF(vm->run);
	char token[33];
	struct guest_call call = { .method = "POST",
		.path = "/init",
		.type = "application/json",
		.timeout_ms = VM_CALL_MS };

	identity_rehearsal(&b, vm->t->user, vm->t->workdir, token);
	call.body = b.data;
	call.len = b.len;
	vm_ask(vm, vm->run, &call, on_rehearsed, vm);
	talloc_free(b.data);
}

void
vm_step_running(void *user)
{
	struct vm *vm = user;

	vm->state = VM_RUNNING;
	flow_next(vm->run->flow);
}

void
vm_step_stopped(void *user)
{
	struct vm *vm = user;

	vm->state = VM_STOPPED;
	flow_next(vm->run->flow);
}

/* A kernel that measured its timer wrong, as this host was busy just then, starts anew until it is
   right (guestagent/clock_event.h); later a reset ends the process, as -no-reboot says. */
static void
step_anew(void *user)
{
	vm_call(user, "set-action", "{\"reboot\":\"reset\"}", -1, vm_ok);
}

static void
step_no_more(void *user)
{
	vm_call(user, "set-action", "{\"reboot\":\"shutdown\"}", -1, vm_ok);
}

static const struct step cold_steps[] = {
	{ "waiting for a free start", step_wait },
	{ "starting QEMU", step_spawn },
	{ "asking QEMU for events", vm_step_events },
	{ "letting the kernel start anew", step_anew },
	{ "looking at its cage", step_check },
	{ "the guest's boot", vm_step_health },
	{ "from now on a reset is its end", step_no_more },
	{ "running", vm_step_running },
	{ 0 },
};

static const struct step clone_steps[] = {
	{ "waiting for a free start", step_wait },
	{ "starting QEMU", step_spawn },
	{ "asking QEMU for events", vm_step_events },
	{ "looking at its cage", step_check },
	{ "handing over the device state", step_give_state },
	{ "loading the device state", step_load },
	{ "continuing", vm_step_cont },
	{ "the guest's first answer", vm_step_health }, /* the session is proven before the init */
	{ "running", vm_step_running },
	{ 0 },
};

/* It answers once, so that what it needs is in memory (under TCG: translated), and stands still. */
static const struct step hot_steps[] = {
	{ "waiting for a free start", step_wait },
	{ "starting QEMU", step_spawn },
	{ "asking QEMU for events", vm_step_events },
	{ "looking at its cage", step_check },
	{ "handing over the device state", step_give_state },
	{ "loading the device state", step_load },
	{ "continuing", vm_step_cont },
	{ "the guest's first answer", vm_step_health },
	{ "rehearsing its init", step_rehearse },
	{ "stopping", vm_step_stop },
	{ "ready", vm_step_stopped },
	{ 0 },
};

static void
step_waiting(void *user)
{
	struct vm *vm = user;

	vm->state = VM_WAITING;
	flow_next(vm->run->flow);
}

/* The first half of a clone, and the second. */
static const struct step waiting_steps[] = {
	{ "waiting for a free start", step_wait },
	{ "starting QEMU", step_spawn },
	{ "asking QEMU for events", vm_step_events },
	{ "looking at its cage", step_check },
	{ "ready", step_waiting },
	{ 0 },
};

static const struct step load_steps[] = {
	{ "waiting for a free start", step_wait },
	{ "handing over the device state", step_give_state },
	{ "loading the device state", step_load },
	{ "continuing", vm_step_cont },
	{ "the guest's first answer", vm_step_health },
	{ "running", vm_step_running },
	{ 0 },
};

/* Loaded, it stands still: who asked for it says when it goes on. */
static const struct step restore_steps[] = {
	{ "waiting for a free start", step_wait },
	{ "starting QEMU", step_spawn },
	{ "asking QEMU for events", vm_step_events },
	{ "looking at its cage", step_check },
	{ "handing over the state", step_give_state },
	{ "loading the state", step_load },
	{ "ready", vm_step_stopped },
	{ 0 },
};

struct vm *
vm_start(struct agent *a, const struct vm_spec *spec, vm_done *done, void *user)
{
	struct vm *vm = vm_new(a);
	static unsigned serial;

	vm->t = spec->t;
	vm->vcpus = spec->vcpus;
	vm->memory_mb = spec->memory_mb;
	vm->accel = spec->accel ? spec->accel : a->accel;
	vm->image = spec->image;
	vm->disk_size = spec->image ? spec->image->disk_size : spec->disk_size;
	if (vm->disk_size < spec->t->disk_size)
		vm->disk_size = spec->t->disk_size;
	if (spec->chain)
		vm->chain = *spec->chain;
	else if (spec->image)
		(void)chain_push(&vm->chain, spec->image->id, &(struct err){ 0 });
	if (!spec->folder)
		vm->chain.active = 0;
	snprintf(vm->parent, sizeof vm->parent, "%s",
	    spec->image                         ? spec->image->id
		: spec->restore && spec->parent ? spec->parent
						: "");
	vm->run->spec = *spec;
	if (spec->folder)
		snprintf(vm->name, sizeof vm->name, "%s", spec->folder);
	else
		snprintf(
		    vm->name, sizeof vm->name, "%llx-%x", (unsigned long long)now_real(), ++serial);
	vm_flow(vm,
	    spec->restore       ? restore_steps
		: !spec->image  ? cold_steps
		: spec->waiting ? waiting_steps
		: spec->hot     ? hot_steps
				: clone_steps,
	    done, user);
	return vm;
}

void
vm_load(struct vm *vm, vm_done *done, void *user)
{
	vm->run->spec.soon = true;
	vm_flow(vm, load_steps, done, user);
	flow_deadline(vm->run->flow, CLONE_MS);
}

/* Short exchanges. */

static const struct step cont_steps[] = { { "continuing", vm_step_cont },
	{ "running", vm_step_running }, { 0 } };
static const struct step stop_steps[] = { { "stopping", vm_step_stop },
	{ "stopped", vm_step_stopped }, { 0 } };

void
vm_cont(struct vm *vm, vm_done *done, void *user)
{
	vm_flow(vm, cont_steps, done, user);
	flow_deadline(vm->run->flow, VM_CALL_MS);
}

void
vm_stop(struct vm *vm, vm_done *done, void *user)
{
	vm_flow(vm, stop_steps, done, user);
	flow_deadline(vm->run->flow, VM_CALL_MS);
}

static void
step_grow(void *user)
{
	struct vm *vm = user;
	char text[96], node[LAYER_NAME];

	snprintf(text, sizeof text, "{\"node-name\":\"%s\",\"size\":%llu}",
	    chain_node(vm->chain.active, node), (unsigned long long)vm->run->size);
	vm_call(vm, "block_resize", text, -1, vm_ok);
}

static void
step_grown(void *user)
{
	struct vm *vm = user;

	vm->disk_size = vm->run->size;
	flow_next(vm->run->flow);
}

static const struct step grow_steps[] = { { "growing the disk", step_grow },
	{ "grown", step_grown }, { 0 } };

void
vm_grow_disk(struct vm *vm, uint64_t size, vm_done *done, void *user)
{
	vm->run->size = size;
	vm_flow(vm, grow_steps, done, user);
	flow_deadline(vm->run->flow, VM_CALL_MS);
}
